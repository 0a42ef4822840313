/* Bytes of the compact file: fixed places, and a cursor over one section. Numbers are
 * little-endian whatever the host; docs/qnm.md describes every byte. */
#ifndef QN_FORMAT_QNM_WIRE_H
#define QN_FORMAT_QNM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define QN_QNM_MAGIC "\x89QNM\r\n\x1a\n"
enum {
    QN_QNM_VERSION = 1,
    QN_QNM_ALIGN = 64,
    QN_QNM_HEADER_BYTES = 64,
    QN_QNM_SECTION_BYTES = 32, /* of the table of sections */
    QN_QNM_CHECKSUM_AT = 24,
    QN_QNM_MAX_SECTIONS = 64,
    QN_QNM_PACKED_HEADER_BYTES = 16,
    QN_QNM_PACKED_ENTRY_BYTES = 48,
};
enum { QN_QNM_SECTION_GRAPH = 1, QN_QNM_SECTION_DATA = 2, QN_QNM_SECTION_PACKED = 3 };
enum { QN_QNM_SECTION_REQUIRED = 1 };
enum { QN_QNM_TENSOR_CONSTANT = 1 };
enum { QN_QNM_QUANT_SCALES = 1, QN_QNM_QUANT_ZEROS = 2, QN_QNM_QUANT_CODEBOOK = 4 };
#define QN_QNM_ABSENT UINT32_MAX /* input or output that is not there */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
enum { QN_QNM_SWAP = 1 };
#else
enum { QN_QNM_SWAP = 0 };
#endif

static inline uint32_t qn_qnm_u32_at(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
           (uint32_t)data[3] << 24;
}
static inline uint64_t qn_qnm_u64_at(const uint8_t *data)
{
    return (uint64_t)qn_qnm_u32_at(data) | (uint64_t)qn_qnm_u32_at(data + 4) << 32;
}
static inline void qn_qnm_put(uint8_t *data, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(value >> (8 * i));
}

/* Elements of `element` bytes with their bytes in the other order. */
static inline void qn_qnm_swap(uint8_t *to, const uint8_t *from, size_t bytes, size_t element)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = from[i / element * element + (element - 1 - i % element)];
}

/* Reading one section from front to back. Behind the end every number is 0 and `failed` is set. */
typedef struct qn_qnm_cursor {
    const uint8_t *at;
    size_t left;
    bool failed;
} qn_qnm_cursor;

static inline const uint8_t *qn_qnm_take(qn_qnm_cursor *c, size_t bytes)
{
    if (c->failed || bytes > c->left) {
        c->failed = true;
        return NULL;
    }
    const uint8_t *const at = c->at;
    c->at += bytes;
    c->left -= bytes;
    return at;
}
static inline uint8_t qn_qnm_u8(qn_qnm_cursor *c)
{
    const uint8_t *const at = qn_qnm_take(c, 1);
    return at != NULL ? *at : 0;
}
static inline uint16_t qn_qnm_u16(qn_qnm_cursor *c)
{
    const uint8_t *const at = qn_qnm_take(c, 2);
    return at != NULL ? (uint16_t)(at[0] | at[1] << 8) : 0;
}
static inline uint32_t qn_qnm_u32(qn_qnm_cursor *c)
{
    const uint8_t *const at = qn_qnm_take(c, 4);
    return at != NULL ? qn_qnm_u32_at(at) : 0;
}
static inline uint64_t qn_qnm_u64(qn_qnm_cursor *c)
{
    const uint8_t *const at = qn_qnm_take(c, 8);
    return at != NULL ? qn_qnm_u64_at(at) : 0;
}
static inline float qn_qnm_f32(qn_qnm_cursor *c)
{
    const uint32_t bits = qn_qnm_u32(c);
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}
/* Are there `count` records of at least `bytes` bytes left? */
static inline bool qn_qnm_fits(const qn_qnm_cursor *c, size_t count, size_t bytes)
{
    return !c->failed && count <= c->left / bytes;
}

/* CRC-32 (the polynomial of zlib, gzip and PNG), as in zlib: begin with 0, give the last result. */
typedef struct qn_qnm_crc {
    uint32_t table[8][256];
} qn_qnm_crc;
void qn__qnm_crc_init(qn_qnm_crc *crc);
uint32_t qn__qnm_crc_update(const qn_qnm_crc *crc, uint32_t value, const uint8_t *data,
                            size_t bytes);
/* Of a whole file, the checksum's own place taken as zeros; at least a header of bytes. */
uint32_t qn__qnm_checksum(const uint8_t *data, size_t bytes);

#endif
