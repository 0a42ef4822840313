/* 8-bit indirect GEMM for the base instruction set of AArch64, which multiplies no unsigned by
 * signed bytes: both are widened to 16 bits. 6 rows x 8 columns are 12 accumulators. */
#include "kernel/arm/q8_neon.h"

enum { MR = 6, NR = 8, KR = 1 };

/* Eight k: the widened bytes of a row are used lane by lane. */
static inline __attribute__((always_inline)) void group(const size_t mr, int32x4_t acc[MR][2],
                                                        const uint8_t *const rows[MR], size_t k,
                                                        uint8x8_t flip, const int8_t *w)
{
    int16x8_t x[MR];
#pragma GCC unroll 6
    for (size_t m = 0; m < mr; m++)
        x[m] = vreinterpretq_s16_u16(vmovl_u8(veor_u8(vld1_u8(rows[m] + k), flip)));
#define STEP(i)                                                                                    \
    {                                                                                              \
        const int16x8_t wide = vmovl_s8(vld1_s8(w + i * NR));                                      \
        _Pragma("GCC unroll 6") for (size_t m = 0; m < mr; m++)                                    \
        {                                                                                          \
            acc[m][0] = vmlal_laneq_s16(acc[m][0], vget_low_s16(wide), x[m], i);                   \
            acc[m][1] = vmlal_high_laneq_s16(acc[m][1], wide, x[m], i);                            \
        }                                                                                          \
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
    STEP(4)
    STEP(5)
    STEP(6)
    STEP(7)
#undef STEP
}

/* The last k of a row, fewer than eight: a lane's number must be a constant. */
static inline __attribute__((always_inline)) void rest(const size_t mr, int32x4_t acc[MR][2],
                                                       const uint8_t *const rows[MR], size_t k,
                                                       size_t left, uint8_t flip, const int8_t *w)
{
    for (size_t i = 0; i < left; i++) {
        const int16x8_t wide = vmovl_s8(vld1_s8(w + i * NR));
#pragma GCC unroll 6
        for (size_t m = 0; m < mr; m++) {
            const int16_t x = (int16_t)(rows[m][k + i] ^ flip);
            acc[m][0] = vmlal_n_s16(acc[m][0], vget_low_s16(wide), x);
            acc[m][1] = vmlal_high_n_s16(acc[m][1], wide, x);
        }
    }
}

static inline __attribute__((always_inline)) void tile(const size_t mr, size_t columns, size_t kc,
                                                       size_t ks, const uint8_t *const *a,
                                                       uint8_t flip, const uint8_t *w, void *c,
                                                       size_t c_stride, const qn_q8_out *out)
{
    int32x4_t acc[MR][2];
    const int32_t *const base = (const int32_t *)(const void *)w;
#pragma GCC unroll 6
    for (size_t m = 0; m < mr; m++) {
        acc[m][0] = vld1q_s32(base);
        acc[m][1] = vld1q_s32(base + 4);
    }
    const float *const scale = (const float *)(const void *)(w + NR * sizeof(int32_t));
    const int8_t *weights = (const int8_t *)(scale + NR);
    for (size_t p = 0; p < ks; p++, a += MR) {
        const uint8_t *rows[MR];
#pragma GCC unroll 6
        for (size_t m = 0; m < mr; m++)
            rows[m] = a[m];
        size_t k = 0;
        for (; k + 8 <= kc; k += 8, weights += 8 * NR)
            group(mr, acc, rows, k, vdup_n_u8(flip), weights);
        rest(mr, acc, rows, k, kc - k, flip, weights);
        weights += (kc - k) * NR;
    }
    const float32x4_t scale0 = vld1q_f32(scale), scale1 = vld1q_f32(scale + 4);
#pragma GCC unroll 6
    for (size_t m = 0; m < mr; m++)
        qn_q8_store8(c, m * c_stride, acc[m][0], acc[m][1], scale0, scale1, out, columns);
}

void qn__q8_igemm_6x8_neon(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                           uint8_t flip, bool safe, const void *w, void *c, size_t c_stride,
                           const qn_q8_out *out)
{
    (void)safe; /* sums are never narrower than 32 bits */
    const size_t panel_bytes = NR * (sizeof(int32_t) + sizeof(float) + ks * kc * KR);
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
        default:
            tile(MR, nc - n, kc, ks, a, flip, packed, at, c_stride, out);
        }
    }
}
