/* 256-entry tables for NEON: four instructions, each for a quarter of the table. */
#include "kernel/kernel.h"

#include <arm_neon.h>

void qn__q8_table_neon(const uint8_t table[256], const uint8_t *src, uint8_t *dst, size_t n)
{
    const uint8x16x4_t a = vld1q_u8_x4(table), b = vld1q_u8_x4(table + 64);
    const uint8x16x4_t c = vld1q_u8_x4(table + 128), d = vld1q_u8_x4(table + 192);
    const uint8x16_t quarter = vdupq_n_u8(64);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        uint8x16_t x = vld1q_u8(src + i);
        uint8x16_t y = vqtbl4q_u8(a, x);
        x = vsubq_u8(x, quarter);
        y = vqtbx4q_u8(y, b, x);
        x = vsubq_u8(x, quarter);
        y = vqtbx4q_u8(y, c, x);
        x = vsubq_u8(x, quarter);
        vst1q_u8(dst + i, vqtbx4q_u8(y, d, x));
    }
    for (; i < n; i++)
        dst[i] = table[src[i]];
}
