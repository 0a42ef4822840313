/* Requantization by integers for NEON, eight columns at a time. With n = -exponent >= 1 both
 * roundings are a doubling high product, of two roundings a rounding one that is made one less
 * where it is negative, then a shift that rounds: see x86/q8_fixed_tmpl.h. */
#include "kernel/arm/q8_neon.h"

static inline int32x4_t rounded(int32x4_t x, int32x4_t multiplier, int32x4_t shift, bool once)
{
    if (once) /* its last bit is not rounded: ties are told apart by what is below */
        return vshlq_s32(vqdmulhq_s32(x, multiplier), shift);
    const int32x4_t v = vqrdmulhq_s32(x, multiplier);
    return vshlq_s32(vaddq_s32(v, vshrq_n_s32(v, 31)), shift);
}

void qn__q8_fixed_neon(const qn_q8_fixed_args *args)
{
    const int16x8_t move = vdupq_n_s16((int16_t)(2 * args->zero + 1));
    const int16x8_t lo = vdupq_n_s16((int16_t)args->lo), hi = vdupq_n_s16((int16_t)args->hi);
    for (size_t c0 = 0; c0 < args->n; c0 += 8) {
        const size_t n = args->n - c0 < 8 ? args->n - c0 : 8;
        const int32_t *sums = args->sums + c0;
        uint8_t *out = args->out + c0;
        int32_t multiplier[8] = {0}, shift[8] = {0}, least = 0;
        for (size_t i = 0; i < n; i++) {
            multiplier[i] = args->fixed[c0 + i].multiplier;
            shift[i] = 1 + args->fixed[c0 + i].exponent;
            least = shift[i] > least ? shift[i] : least;
        }
        if (least > 0) { /* which sums of products hardly have */
            qn_q8_fixed_args some = *args;
            some.n = n;
            some.sums = sums;
            some.fixed += c0;
            some.out = out;
            qn__q8_fixed_scalar(&some);
            continue;
        }
        const int32x4_t m0 = vld1q_s32(multiplier), m1 = vld1q_s32(multiplier + 4);
        const int32x4_t s0 = vld1q_s32(shift), s1 = vld1q_s32(shift + 4);
        for (size_t r = 0; r < args->rows; r++) {
            const int32x4_t v0 = rounded(vld1q_s32(sums), m0, s0, args->once);
            const int32x4_t v1 = rounded(vld1q_s32(sums + 4), m1, s1, args->once);
            const int16x8_t twice = vqaddq_s16(vcombine_s16(vqmovn_s32(v0), vqmovn_s32(v1)), move);
            const int16x8_t q = vminq_s16(hi, vmaxq_s16(lo, vshrq_n_s16(twice, 1)));
            const uint8x8_t bytes = vreinterpret_u8_s8(vmovn_s16(q));
            if (n == 8) {
                vst1_u8(out, bytes);
            } else {
                uint8_t all[8];
                vst1_u8(all, bytes);
                memcpy(out, all, n);
            }
            sums += args->sums_stride;
            out += args->out_stride;
        }
    }
}
