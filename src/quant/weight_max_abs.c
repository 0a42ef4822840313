/* The largest magnitude is represented: nothing is clipped. */
#include "quant/quant.h"

#include <math.h>

float qn__max_abs(const float *w, size_t count)
{
    enum { LANES = 16 }; /* what the compiler keeps in vectors */
    float max[LANES] = {0};
    for (size_t i = 0; i < count / LANES * LANES; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            max[l] = fabsf(w[i + l]) > max[l] ? fabsf(w[i + l]) : max[l];
    for (size_t i = count / LANES * LANES; i < count; i++)
        max[0] = fmaxf(max[0], fabsf(w[i]));
    for (size_t l = 1; l < LANES; l++)
        max[0] = fmaxf(max[0], max[l]);
    return max[0];
}

static bool scale(const qn_context *ctx, const float *w, size_t count, const qn_levels *levels,
                  float *out)
{
    (void)ctx;
    *out = qn__max_abs(w, count) / (float)levels->qmax;
    return true;
}

const qn_weight_method qn__weight_max_abs = {
    .name = "max_abs",
    .summary = "largest magnitude of the channel",
    .scale = scale,
};
