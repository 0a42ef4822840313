/* Exponentials as in vmath.h, operation by operation, over vectors of the compiler, included once
 * per instruction set: EXP is the function's name, VBYTES a vector's size. BOUNDED(x, lo, hi) is x
 * between both, or NaN, where there is an instruction for it. */
#include "kernel/kernel.h"

#include <string.h>

enum { LANES = VBYTES / 4 };

typedef float F __attribute__((vector_size(VBYTES), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(VBYTES)));
typedef uint32_t U __attribute__((vector_size(VBYTES)));

/* b where the mask is set, else a. */
static inline __attribute__((always_inline)) F choose(F a, F b, I mask)
{
    return (F)(((I)a & ~mask) | ((I)b & mask));
}

/* 2^n in two factors of whole exponents, from the low bits of n + 2^23 + 2^22, where n stands below
 * bits that the shifts lose. */
static inline __attribute__((always_inline)) F exp_of(F x)
{
    const F zero = {0}, magic = zero + 12582912.0f;
#ifdef BOUNDED
    const F c = BOUNDED(x, zero - 104.0f, zero + 89.0f);
#else
    F c = choose(x, zero - 104.0f, x < -104.0f);
    c = choose(c, zero + 89.0f, c > 89.0f);
#endif
    const F moved = c * 1.44269504f + magic, n = moved - magic;
    const F r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    F p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const U whole = (U)moved, one = (U){0} + (127u << 23);
    const U a = (whole >> 1 << 23) + one, b = (whole << 31 >> 8) + a;
    return p * (F)a * (F)b;
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
