/* Indirect GEMM for AArch64 NEON: 6 rows x 8 columns, 12 of 32 registers accumulate; four k at a
 * time so that a row's values are one load and lanes of it. Each output is a chain of fused
 * multiply-adds in the order p, k that starts at the bias. */
#include "kernel/kernel.h"
#include <arm_neon.h>

enum { MR = 6, NR = 8 };

void qn__f32_igemm_6x8_neon(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                            const float *w, float *c, size_t c_stride, const qn_clamp_f32 *clamp)
{
    const float32x4_t lo = vdupq_n_f32(clamp->lo), hi = vdupq_n_f32(clamp->hi);
    for (size_t n = 0; n < nc; n += NR) {
        float32x4_t acc[MR][2];
        for (size_t m = 0; m < MR; m++) {
            acc[m][0] = vld1q_f32(w);
            acc[m][1] = vld1q_f32(w + 4);
        }
        w += NR;
        for (size_t p = 0; p < ks; p++) {
            const float *const *const rows = a + p * MR;
            const float *const a0 = rows[0], *const a1 = rows[1], *const a2 = rows[2];
            const float *const a3 = rows[3], *const a4 = rows[4], *const a5 = rows[5];
            size_t k = 0;
            for (; k + 4 <= kc; k += 4) {
                const float32x4_t v0 = vld1q_f32(a0 + k), v1 = vld1q_f32(a1 + k);
                const float32x4_t v2 = vld1q_f32(a2 + k), v3 = vld1q_f32(a3 + k);
                const float32x4_t v4 = vld1q_f32(a4 + k), v5 = vld1q_f32(a5 + k);
#define LANE(i)                                                                                    \
    {                                                                                              \
        const float32x4_t b0 = vld1q_f32(w), b1 = vld1q_f32(w + 4);                                \
        w += NR;                                                                                   \
        acc[0][0] = vfmaq_laneq_f32(acc[0][0], b0, v0, i);                                         \
        acc[0][1] = vfmaq_laneq_f32(acc[0][1], b1, v0, i);                                         \
        acc[1][0] = vfmaq_laneq_f32(acc[1][0], b0, v1, i);                                         \
        acc[1][1] = vfmaq_laneq_f32(acc[1][1], b1, v1, i);                                         \
        acc[2][0] = vfmaq_laneq_f32(acc[2][0], b0, v2, i);                                         \
        acc[2][1] = vfmaq_laneq_f32(acc[2][1], b1, v2, i);                                         \
        acc[3][0] = vfmaq_laneq_f32(acc[3][0], b0, v3, i);                                         \
        acc[3][1] = vfmaq_laneq_f32(acc[3][1], b1, v3, i);                                         \
        acc[4][0] = vfmaq_laneq_f32(acc[4][0], b0, v4, i);                                         \
        acc[4][1] = vfmaq_laneq_f32(acc[4][1], b1, v4, i);                                         \
        acc[5][0] = vfmaq_laneq_f32(acc[5][0], b0, v5, i);                                         \
        acc[5][1] = vfmaq_laneq_f32(acc[5][1], b1, v5, i);                                         \
    }
                LANE(0)
                LANE(1)
                LANE(2)
                LANE(3)
#undef LANE
            }
            for (; k < kc; k++) {
                const float32x4_t b0 = vld1q_f32(w), b1 = vld1q_f32(w + 4);
                w += NR;
                for (size_t m = 0; m < MR; m++) {
                    const float32x4_t v = vld1q_dup_f32(rows[m] + k);
                    acc[m][0] = vfmaq_f32(acc[m][0], v, b0);
                    acc[m][1] = vfmaq_f32(acc[m][1], v, b1);
                }
            }
        }
        const size_t columns = nc - n < NR ? nc - n : NR;
        /* All six rows are computed; `m == mr` leaves the ones that do not exist. */
        for (size_t m = 0; m < MR; m++) {
            if (m == mr)
                break;
            float *const to = c + m * c_stride + n;
            const float32x4_t v0 = vminq_f32(hi, vmaxq_f32(lo, acc[m][0]));
            const float32x4_t v1 = vminq_f32(hi, vmaxq_f32(lo, acc[m][1]));
            if (columns == NR) {
                vst1q_f32(to, v0);
                vst1q_f32(to + 4, v1);
            } else {
                float row[NR];
                vst1q_f32(row, v0);
                vst1q_f32(row + 4, v1);
                for (size_t j = 0; j < columns; j++)
                    to[j] = row[j];
            }
        }
    }
}
