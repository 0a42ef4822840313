/* From an exact sum to an output, as every 8-bit kernel does it: one float product rounded once,
 * bounds first (a NaN becomes the lower one), then to the nearest whole number, ties to even. */
#ifndef QN_KERNEL_SCALAR_Q8_REQUANT_H
#define QN_KERNEL_SCALAR_Q8_REQUANT_H

#include "kernel/kernel.h"

static inline uint8_t qn_q8_requant(int32_t acc, float scale, const qn_q8_out *out)
{
    const float lo = (float)(out->lo - out->zero), hi = (float)(out->hi - out->zero);
    float v = (float)acc * scale;
    v = v > lo ? v : lo;
    v = v < hi ? v : hi;
    /* The bounds keep |v| far below 2^22: adding and taking away 1.5 * 2^23 rounds to even. */
    const float whole = (v + 12582912.0f) - 12582912.0f;
    return (uint8_t)((int32_t)whole + out->zero); /* both signednesses: low byte */
}

static inline float qn_q8_rescale(int32_t acc, float scale, const qn_q8_out *out)
{
    float v = (float)acc * scale;
    v = v < out->clamp.lo ? out->clamp.lo : v; /* NaN stays NaN */
    return v > out->clamp.hi ? out->clamp.hi : v;
}

/* Output i of c, which holds bytes, floats or sums. */
static inline void qn_q8_store(void *c, size_t i, int32_t acc, float scale, const qn_q8_out *out)
{
    if (out->is_sums)
        ((int32_t *)c)[i] = acc;
    else if (out->is_float)
        ((float *)c)[i] = qn_q8_rescale(acc, scale, out);
    else
        ((uint8_t *)c)[i] = qn_q8_requant(acc, scale, out);
}

#endif
