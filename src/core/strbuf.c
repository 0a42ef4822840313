#include "core/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void qn__strbuf_init(qn_strbuf *buf, const qn_context *ctx, size_t max_bytes)
{
    *buf = (qn_strbuf){.ctx = ctx, .max_bytes = max_bytes};
}

void qn__strbuf_free(qn_strbuf *buf)
{
    qn__free(buf->ctx, buf->data);
    buf->data = NULL;
    buf->length = buf->capacity = 0;
}

/* Room for extra more bytes and the NUL. */
static bool reserve(qn_strbuf *buf, size_t extra)
{
    if (buf->failed || extra >= buf->max_bytes || buf->length > buf->max_bytes - extra - 1) {
        buf->failed = true;
        return false;
    }
    const size_t needed = buf->length + extra + 1;
    if (needed <= buf->capacity)
        return true;
    size_t capacity = buf->capacity + buf->capacity / 2;
    if (capacity < needed)
        capacity = needed < 256 ? 256 : needed;
    char *data = qn__realloc(buf->ctx, buf->data, capacity);
    if (data == NULL) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void qn__strbuf_append(qn_strbuf *buf, const void *data, size_t size_bytes)
{
    if (!reserve(buf, size_bytes))
        return;
    if (size_bytes > 0)
        memcpy(buf->data + buf->length, data, size_bytes);
    buf->length += size_bytes;
    buf->data[buf->length] = '\0';
}

char *qn__strbuf_extend(qn_strbuf *buf, size_t size_bytes)
{
    if (!reserve(buf, size_bytes))
        return NULL;
    char *room = buf->data + buf->length;
    buf->length += size_bytes;
    buf->data[buf->length] = '\0';
    return room;
}

void qn__strbuf_puts(qn_strbuf *buf, const char *text)
{
    qn__strbuf_append(buf, text, strlen(text));
}

void qn__strbuf_printf(qn_strbuf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length >= 0 && reserve(buf, (size_t)length)) {
        vsnprintf(buf->data + buf->length, (size_t)length + 1, format, again);
        buf->length += (size_t)length;
    }
    va_end(again);
}
