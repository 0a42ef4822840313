/* 8-bit indirect GEMM for AArch64 with products of matrices: usmmla multiplies 8 unsigned bytes of
 * two rows by 8 signed ones of two columns, which is exact for all weights. 8 rows x 8 columns. */
#include "kernel/arm/q8_neon.h"

enum { MR = 8, NR = 8, KR = 8, ROW_PAIRS = MR / 2, COLUMN_PAIRS = NR / 2 };

/* Eight k of `pairs` pairs of rows. */
static inline __attribute__((always_inline)) void group_of_k(const size_t pairs,
                                                             int32x4_t acc[ROW_PAIRS][COLUMN_PAIRS],
                                                             const uint8x16_t x[ROW_PAIRS],
                                                             const int8_t *w)
{
#pragma GCC unroll 4
    for (size_t j = 0; j < COLUMN_PAIRS; j++) {
        const int8x16_t columns = vld1q_s8(w + j * 2 * KR);
#pragma GCC unroll 4
        for (size_t i = 0; i < pairs; i++)
            acc[i][j] = vusmmlaq_s32(acc[i][j], x[i], columns);
    }
}

static inline uint8x16_t lower_halves(uint8x16_t a, uint8x16_t b)
{
    return vcombine_u8(vget_low_u8(a), vget_low_u8(b));
}

static inline uint8x16_t upper_halves(uint8x16_t a, uint8x16_t b)
{
    return vcombine_u8(vget_high_u8(a), vget_high_u8(b));
}

/* Rows 2i and 2i + 1 are there for i < pairs; the first mr are stored. */
static inline __attribute__((always_inline)) void
tile(const size_t pairs, size_t mr, size_t columns, size_t kc, size_t ks, const uint8_t *const *a,
     uint8_t flip, const uint8_t *w, void *c, size_t c_stride, const qn_q8_out *out)
{
    int32x4_t acc[ROW_PAIRS][COLUMN_PAIRS]; /* both columns of the first row, then of the second */
    const int32_t *const base = (const int32_t *)(const void *)w;
#pragma GCC unroll 4
    for (size_t j = 0; j < COLUMN_PAIRS; j++) {
        const int32x2_t both = vld1_s32(base + 2 * j);
#pragma GCC unroll 4
        for (size_t i = 0; i < pairs; i++)
            acc[i][j] = vcombine_s32(both, both);
    }
    const float *const scale = (const float *)(const void *)(w + NR * sizeof(int32_t));
    const int8_t *weights = (const int8_t *)(scale + NR);
    const uint8x16_t signs = vdupq_n_u8(flip);
    for (size_t p = 0; p < ks; p++, a += MR) {
        uint8x16_t x[ROW_PAIRS], y[ROW_PAIRS];
        size_t k = 0;
        for (; k + 2 * KR <= kc; k += 2 * KR, weights += 2 * KR * NR) {
#pragma GCC unroll 4
            for (size_t i = 0; i < pairs; i++) {
                const uint8x16_t first = veorq_u8(vld1q_u8(a[2 * i] + k), signs);
                const uint8x16_t second = veorq_u8(vld1q_u8(a[2 * i + 1] + k), signs);
                x[i] = lower_halves(first, second);
                y[i] = upper_halves(first, second);
            }
            group_of_k(pairs, acc, x, weights);
            group_of_k(pairs, acc, y, weights + KR * NR);
        }
        for (; k < kc; k += KR, weights += KR * NR) {
            const size_t n = kc - k; /* zero weights follow the last k */
#pragma GCC unroll 4
            for (size_t i = 0; i < pairs; i++)
                x[i] = veorq_u8(
                    vcombine_u8(qn_load8(a[2 * i] + k, n), qn_load8(a[2 * i + 1] + k, n)), signs);
            group_of_k(pairs, acc, x, weights);
        }
    }
    const float32x4_t scale0 = vld1q_f32(scale), scale1 = vld1q_f32(scale + 4);
#pragma GCC unroll 8
    for (size_t m = 0; m < 2 * pairs; m++) {
        int32x2_t sums[COLUMN_PAIRS];
#pragma GCC unroll 4
        for (size_t j = 0; j < COLUMN_PAIRS; j++)
            sums[j] = m % 2 == 0 ? vget_low_s32(acc[m / 2][j]) : vget_high_s32(acc[m / 2][j]);
        if (m < mr)
            qn_q8_store8(c, m * c_stride, vcombine_s32(sums[0], sums[1]),
                         vcombine_s32(sums[2], sums[3]), scale0, scale1, out, columns);
    }
}

void qn__q8_igemm_8x8_i8mm(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                           uint8_t flip, bool safe, const void *w, void *c, size_t c_stride,
                           const qn_q8_out *out)
{
    (void)safe; /* sums are never narrower than 32 bits */
    const size_t panel_bytes =
        NR * (sizeof(int32_t) + sizeof(float) + ks * ((kc + KR - 1) / KR * KR));
    const size_t elem = out->is_float ? sizeof(float) : 1;
    const uint8_t *packed = w;
    for (size_t n = 0; n < nc; n += NR, packed += panel_bytes) {
        void *const at = (uint8_t *)c + n * elem;
        switch ((mr + 1) / 2) {
#define CASE(pairs)                                                                                \
    case pairs:                                                                                    \
        tile(pairs, mr, nc - n, kc, ks, a, flip, packed, at, c_stride, out);                       \
        break;
            CASE(1)
            CASE(2)
            CASE(3)
        default:
            tile(ROW_PAIRS, mr, nc - n, kc, ks, a, flip, packed, at, c_stride, out);
        }
    }
}
