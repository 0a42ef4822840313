/* Growable text or bytes with a maximum (a runaway writer becomes LIMIT, not a full disk). */
#ifndef QN_CORE_STRBUF_H
#define QN_CORE_STRBUF_H

#include "core/context.h"

typedef struct qn_strbuf {
    const qn_context *ctx;
    char *data; /* always NUL-terminated after the first append, NULL before */
    size_t length;
    size_t capacity;
    size_t max_bytes;
    bool failed; /* sticky: out of memory or above max_bytes */
} qn_strbuf;
void qn__strbuf_init(qn_strbuf *buf, const qn_context *ctx, size_t max_bytes);
void qn__strbuf_free(qn_strbuf *buf);
void qn__strbuf_append(qn_strbuf *buf, const void *data, size_t size_bytes);
/* Room for size_bytes more, counted already and to be written at the address returned; NULL:
 * failed.
 */
char *qn__strbuf_extend(qn_strbuf *buf, size_t size_bytes);
void qn__strbuf_puts(qn_strbuf *buf, const char *text);
void qn__strbuf_printf(qn_strbuf *buf, const char *format, ...) QN_PRINTF(2, 3);

#endif
