/* Exponentials as in vmath.h, operation by operation, over vectors of the compiler, included once
 * per instruction set: EXP is the function's name, VBYTES a vector's size. */
#include "kernel/kernel.h"

#include <string.h>

enum { LANES = VBYTES / 4 };

typedef float F __attribute__((vector_size(VBYTES), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(VBYTES)));

/* b where the mask is set, else a. */
static inline __attribute__((always_inline)) F choose(F a, F b, I mask)
{
    return (F)(((I)a & ~mask) | ((I)b & mask));
}

static inline __attribute__((always_inline)) F exp_of(F x)
{
    const F zero = {0};
    F c = choose(x, zero - 104.0f, x < -104.0f);
    c = choose(c, zero + 89.0f, c > 89.0f);
    const F number = choose(zero, c, c == c);
    const F n = (number * 1.44269504f + 12582912.0f) - 12582912.0f;
    const F r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    F p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const I whole = __builtin_convertvector(n, I), half = whole >> 1;
    return p * (F)((half + 127) << 23) * (F)((whole - half + 127) << 23);
}

void EXP(const float *in, float *out, size_t n)
{
    float rest[LANES] = {0.0f};
    for (; n >= LANES; n -= LANES, in += LANES, out += LANES)
        *(F *)out = exp_of(*(const F *)in);
    if (n == 0)
        return;
    memcpy(rest, in, n * sizeof *rest);
    *(F *)rest = exp_of(*(const F *)rest);
    memcpy(out, rest, n * sizeof *rest);
}
