/* CRC-32, eight bytes at a time. */
#include "format/qnm/qnm_wire.h"

#define POLYNOMIAL 0xEDB88320u /* lowest bit first */

void qn__qnm_crc_init(qn_qnm_crc *crc)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int bit = 0; bit < 8; bit++)
            v = v >> 1 ^ ((v & 1) != 0 ? POLYNOMIAL : 0);
        crc->table[0][i] = v;
    }
    for (size_t t = 1; t < 8; t++)
        for (size_t i = 0; i < 256; i++) {
            const uint32_t v = crc->table[t - 1][i];
            crc->table[t][i] = v >> 8 ^ crc->table[0][v & 255];
        }
}

uint32_t qn__qnm_crc_update(const qn_qnm_crc *crc, uint32_t value, const uint8_t *data,
                            size_t bytes)
{
    uint32_t v = ~value;
    for (; bytes >= 8; bytes -= 8, data += 8) {
        const uint32_t a = v ^ qn_qnm_u32_at(data), b = qn_qnm_u32_at(data + 4);
        v = crc->table[7][a & 255] ^ crc->table[6][a >> 8 & 255] ^ crc->table[5][a >> 16 & 255] ^
            crc->table[4][a >> 24] ^ crc->table[3][b & 255] ^ crc->table[2][b >> 8 & 255] ^
            crc->table[1][b >> 16 & 255] ^ crc->table[0][b >> 24];
    }
    for (; bytes > 0; bytes--, data++)
        v = v >> 8 ^ crc->table[0][(v ^ *data) & 255];
    return ~v;
}

uint32_t qn__qnm_checksum(const uint8_t *data, size_t bytes)
{
    static const uint8_t ZEROS[4] = {0};
    const size_t behind = QN_QNM_CHECKSUM_AT + sizeof(ZEROS);
    qn_qnm_crc crc;
    qn__qnm_crc_init(&crc);
    uint32_t value = qn__qnm_crc_update(&crc, 0, data, QN_QNM_CHECKSUM_AT);
    value = qn__qnm_crc_update(&crc, value, ZEROS, sizeof(ZEROS));
    return qn__qnm_crc_update(&crc, value, data + behind, bytes - behind);
}
