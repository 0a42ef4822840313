/* Depthwise convolution and pooling for AArch64 NEON; the last channels go through a small array.
 */
#include "kernel/kernel.h"
#include <arm_neon.h>

#define VEC float32x4_t
#define LANES 4
static inline __attribute__((always_inline)) float32x4_t load(const float *p, size_t left)
{
    if (left >= LANES)
        return vld1q_f32(p);
    float lanes[LANES] = {0};
    for (size_t i = 0; i < left; i++)
        lanes[i] = p[i];
    return vld1q_f32(lanes);
}
static inline __attribute__((always_inline)) void store(float *p, float32x4_t v, size_t left)
{
    if (left >= LANES) {
        vst1q_f32(p, v);
        return;
    }
    float lanes[LANES];
    vst1q_f32(lanes, v);
    for (size_t i = 0; i < left; i++)
        p[i] = lanes[i];
}
#define LOAD(p, c) load((p), (c))
#define STORE(p, v, c) store((p), (v), (c))
#define ZERO() vdupq_n_f32(0.0f)
#define SET1(x) vdupq_n_f32(x)
#define ADD(a, b) vaddq_f32((a), (b))
#define MUL(a, b) vmulq_f32((a), (b))
/* Not vmaxq_f32, which returns NaN when one operand is. */
static inline __attribute__((always_inline)) float32x4_t larger(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
#define MAX(a, b) larger((a), (b))
#define FMA(a, b, c) vfmaq_f32((c), (a), (b))
#define CLAMP(v, lo, hi) vminq_f32((hi), vmaxq_f32((lo), (v)))
#define DWCONV qn__f32_dwconv_neon
#define MAXPOOL qn__f32_maxpool_neon
#define AVGPOOL qn__f32_avgpool_neon
#include "kernel/window_tmpl.h"
