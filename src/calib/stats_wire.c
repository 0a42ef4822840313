#include "calib/stats_wire.h"

#include <string.h>

void qn__put_varint(qn_strbuf *buf, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    qn__strbuf_append(buf, bytes, n);
}

void qn__put_fixed(qn_strbuf *buf, uint64_t value, size_t bytes)
{
    uint8_t data[8];
    qn_qnm_put(data, value, bytes);
    qn__strbuf_append(buf, data, bytes);
}

void qn__put_f32(qn_strbuf *buf, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    qn__put_fixed(buf, bits, 4);
}

void qn__put_f64(qn_strbuf *buf, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    qn__put_fixed(buf, bits, 8);
}

void qn__put_text(qn_strbuf *buf, const char *text)
{
    const size_t length = strlen(text);
    qn__put_varint(buf, length);
    qn__strbuf_append(buf, text, length);
}

void qn__put_floats(qn_strbuf *buf, const float *values, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        uint8_t bytes[1 + 8 * 4] = {0};
        size_t used = 1;
        for (size_t j = 0; j < 8 && i + j < count; j++) {
            uint32_t bits;
            memcpy(&bits, &values[i + j], sizeof(bits));
            if (bits == 0)
                continue;
            bytes[0] |= (uint8_t)(1u << j);
            qn_qnm_put(bytes + used, bits, 4);
            used += 4;
        }
        qn__strbuf_append(buf, bytes, used);
    }
}

uint64_t qn__get_varint(qn_qnm_cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint64_t byte = qn_qnm_u8(c);
        if (shift == 63 && byte > 1)
            break;
        value |= (byte & 0x7F) << shift;
        if (byte < 0x80) {
            c->failed |= byte == 0 && shift > 0; /* a shorter form exists */
            return c->failed ? 0 : value;
        }
    }
    c->failed = true;
    return 0;
}

double qn__get_f64(qn_qnm_cursor *c)
{
    const uint64_t bits = qn_qnm_u64(c);
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

const char *qn__get_text(qn_qnm_cursor *c, size_t *length)
{
    const uint64_t n = qn__get_varint(c);
    *length = (size_t)n;
    const uint8_t *text = n > c->left ? NULL : qn_qnm_take(c, (size_t)n);
    if (text == NULL || memchr(text, 0, (size_t)n) != NULL) {
        c->failed = true;
        return NULL;
    }
    return (const char *)text;
}

void qn__get_floats(qn_qnm_cursor *c, float *values, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        const uint8_t flags = qn_qnm_u8(c);
        c->failed |= count - i < 8 && flags >> (count - i) != 0;
        for (size_t j = 0; j < 8 && i + j < count; j++) {
            const uint32_t bits = (flags >> j & 1) != 0 ? qn_qnm_u32(c) : 0;
            c->failed |= (flags >> j & 1) != 0 && bits == 0;
            memcpy(&values[i + j], &bits, sizeof(bits));
        }
        if (c->failed)
            return;
    }
}
