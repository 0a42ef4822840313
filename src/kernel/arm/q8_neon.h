/* Outputs of the 8-bit kernels for NEON: see scalar/q8_requant.h for the arithmetic. */
#ifndef QN_KERNEL_ARM_Q8_NEON_H
#define QN_KERNEL_ARM_Q8_NEON_H

#include "kernel/kernel.h"
#include <arm_neon.h>
#include <string.h>

/* The first min(n, 8) bytes, zeros behind them; nothing else is read. */
static inline uint8x8_t qn_load8(const void *p, size_t n)
{
    if (n >= 8)
        return vld1_u8(p);
    uint8_t bytes[8] = {0};
    memcpy(bytes, p, n);
    return vld1_u8(bytes);
}

static inline int32x4_t qn_q8_round(int32x4_t acc, float32x4_t scale, float32x4_t lo,
                                    float32x4_t hi, int32x4_t zero)
{
    float32x4_t v = vmulq_f32(vcvtq_f32_s32(acc), scale);
    v = vbslq_f32(vcgtq_f32(v, lo), v, lo); /* NaN: the lower bound */
    v = vbslq_f32(vcltq_f32(v, hi), v, hi);
    return vaddq_s32(vcvtnq_s32_f32(v), zero);
}

static inline float32x4_t qn_q8_scaled(int32x4_t acc, float32x4_t scale, const qn_q8_out *out)
{
    const float32x4_t lo = vdupq_n_f32(out->clamp.lo), hi = vdupq_n_f32(out->clamp.hi);
    float32x4_t v = vmulq_f32(vcvtq_f32_s32(acc), scale);
    v = vbslq_f32(vcltq_f32(v, lo), lo, v); /* NaN stays NaN */
    return vbslq_f32(vcgtq_f32(v, hi), hi, v);
}

/* The first min(n, 8) outputs of eight sums to c + i, i in elements. */
static inline void qn_q8_store8(void *c, size_t i, int32x4_t acc0, int32x4_t acc1,
                                float32x4_t scale0, float32x4_t scale1, const qn_q8_out *out,
                                size_t n)
{
    const size_t part = n < 8 ? n : 8;
    if (out->is_float) {
        float all[8];
        vst1q_f32(all,
                  out->is_sums ? vreinterpretq_f32_s32(acc0) : qn_q8_scaled(acc0, scale0, out));
        vst1q_f32(all + 4,
                  out->is_sums ? vreinterpretq_f32_s32(acc1) : qn_q8_scaled(acc1, scale1, out));
        memcpy((float *)c + i, all, part * sizeof *all);
        return;
    }
    const float32x4_t lo = vdupq_n_f32((float)(out->lo - out->zero));
    const float32x4_t hi = vdupq_n_f32((float)(out->hi - out->zero));
    const int32x4_t zero = vdupq_n_s32(out->zero);
    const int16x8_t words = vcombine_s16(vmovn_s32(qn_q8_round(acc0, scale0, lo, hi, zero)),
                                         vmovn_s32(qn_q8_round(acc1, scale1, lo, hi, zero)));
    const uint8x8_t bytes = vreinterpret_u8_s8(vmovn_s16(words));
    uint8_t *const p = (uint8_t *)c + i;
    if (part == 8) {
        vst1_u8(p, bytes);
        return;
    }
    uint8_t all[8];
    vst1_u8(all, bytes);
    memcpy(p, all, part);
}

#endif
