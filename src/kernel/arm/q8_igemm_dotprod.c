/* 8-bit indirect GEMM for AArch64 with the dot product of signed bytes. Activations are moved down
 * by 128 to become signed; one more row of ones sums the weights, and 128 times that sum brings
 * the difference back. 8 rows x 8 columns. */
#include "kernel/arm/q8_neon.h"

enum { MR = 8, NR = 8, KR = 4 };

/* Up to four groups of k: `groups` is a constant after inlining. */
static inline __attribute__((always_inline)) void groups_of_k(const size_t mr, const size_t groups,
                                                              int32x4_t acc[MR + 1][2],
                                                              const int8x16_t x[MR],
                                                              const int8_t *w)
{
    const int8x16_t ones = vdupq_n_s8(1);
#define STEP(i)                                                                                    \
    if (groups > i) {                                                                              \
        const int8x16_t w0 = vld1q_s8(w + i * NR * KR), w1 = vld1q_s8(w + i * NR * KR + 16);       \
        acc[MR][0] = vdotq_s32(acc[MR][0], w0, ones);                                              \
        acc[MR][1] = vdotq_s32(acc[MR][1], w1, ones);                                              \
        _Pragma("GCC unroll 8") for (size_t m = 0; m < mr; m++)                                    \
        {                                                                                          \
            acc[m][0] = vdotq_laneq_s32(acc[m][0], w0, x[m], i);                                   \
            acc[m][1] = vdotq_laneq_s32(acc[m][1], w1, x[m], i);                                   \
        }                                                                                          \
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
#undef STEP
}

static inline __attribute__((always_inline)) void tile(const size_t mr, size_t columns, size_t kc,
                                                       size_t ks, const uint8_t *const *a,
                                                       uint8_t flip, const uint8_t *w, void *c,
                                                       size_t c_stride, const qn_q8_out *out)
{
    int32x4_t acc[MR + 1][2]; /* the last: sums of the weights */
    const int32_t *const base = (const int32_t *)(const void *)w;
#pragma GCC unroll 8
    for (size_t m = 0; m < mr; m++) {
        acc[m][0] = vld1q_s32(base);
        acc[m][1] = vld1q_s32(base + 4);
    }
    acc[MR][0] = acc[MR][1] = vdupq_n_s32(0);
    const float *const scale = (const float *)(const void *)(w + NR * sizeof(int32_t));
    const int8_t *weights = (const int8_t *)(scale + NR);
    const uint8x16_t signs = vdupq_n_u8(flip ^ 0x80);
    for (size_t p = 0; p < ks; p++, a += MR) {
        int8x16_t x[MR];
        size_t k = 0;
        for (; k + 16 <= kc; k += 16, weights += 16 * NR) {
#pragma GCC unroll 8
            for (size_t m = 0; m < mr; m++)
                x[m] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a[m] + k), signs));
            groups_of_k(mr, 4, acc, x, weights);
        }
        for (; k < kc; k += KR, weights += KR * NR) {
#pragma GCC unroll 8
            for (size_t m = 0; m < mr; m++) {
                uint32_t bytes = 0; /* zero weights follow the last k */
                memcpy(&bytes, a[m] + k, kc - k < KR ? kc - k : KR);
                x[m] =
                    vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(vdupq_n_u32(bytes)), signs));
            }
            groups_of_k(mr, 1, acc, x, weights);
        }
    }
    const float32x4_t scale0 = vld1q_f32(scale), scale1 = vld1q_f32(scale + 4);
    const int32x4_t moved0 = vshlq_n_s32(acc[MR][0], 7), moved1 = vshlq_n_s32(acc[MR][1], 7);
#pragma GCC unroll 8
    for (size_t m = 0; m < mr; m++)
        qn_q8_store8(c, m * c_stride, vaddq_s32(acc[m][0], moved0), vaddq_s32(acc[m][1], moved1),
                     scale0, scale1, out, columns);
}

void qn__q8_igemm_8x8_dotprod(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
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
        switch (mr) {
#define CASE(rows)                                                                                 \
    case rows:                                                                                     \
        tile(rows, nc - n, kc, ks, a, flip, packed, at, c_stride, out);                            \
        break;
            CASE(1)
            CASE(2)
            CASE(3)
            CASE(4)
            CASE(5)
            CASE(6)
            CASE(7)
        default:
            tile(MR, nc - n, kc, ks, a, flip, packed, at, c_stride, out);
        }
    }
}
