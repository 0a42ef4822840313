/* Element functions written so that compilers vectorize loops over them. */
#ifndef QN_KERNEL_VMATH_H
#define QN_KERNEL_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Rounds half to even for |x| < 2^22, without an instruction SSE2 lacks. */
static inline float qn_rne_small(float x)
{
    return (x + 12582912.0f) - 12582912.0f;
}

static inline float qn_exp_f32(float x)
{
    /* NaN stays in c and comes out at the end; a branch for it would keep loops from vectors. */
    float c = x < -104.0f ? -104.0f : x;
    c = c > 89.0f ? 89.0f : c;
    const float number = c == c ? c : 0.0f;
    const float n = qn_rne_small(number * 1.44269504f);
    const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    /* 2^n in two factors, so that the ends of the range neither overflow nor vanish early. */
    const int32_t whole = (int32_t)n, half = whole >> 1;
    const int32_t bits_a = (half + 127) << 23, bits_b = (whole - half + 127) << 23;
    float a, b;
    memcpy(&a, &bits_a, sizeof(a));
    memcpy(&b, &bits_b, sizeof(b));
    return p * a * b;
}

static inline float qn_sigmoid_f32(float x)
{
    return 1.0f / (1.0f + qn_exp_f32(-x));
}

#endif
