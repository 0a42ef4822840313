/* Base64 (RFC 4648, with padding, no line breaks). */
#ifndef QN_CORE_BASE64_H
#define QN_CORE_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Characters of size_bytes encoded, without the NUL. */
static inline size_t qn__base64_length(size_t size_bytes)
{
    return (size_bytes + 2) / 3 * 4;
}
/* text: qn__base64_length(size_bytes) + 1 characters. */
void qn__base64_encode(const void *data, size_t size_bytes, char *text);
/* False unless text is the canonical encoding of exactly size_bytes bytes. */
bool qn__base64_decode(const char *text, size_t length, void *data, size_t size_bytes);

#endif
