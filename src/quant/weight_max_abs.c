/* The largest magnitude is represented: nothing is clipped. */
#include "quant/quant.h"

#include <math.h>

float qn__max_abs(const float *w, size_t count)
{
    float max = 0;
    for (size_t i = 0; i < count; i++)
        max = fmaxf(max, fabsf(w[i]));
    return max;
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
