/* The largest magnitude is represented: nothing is clipped. */
#include "quant/quant.h"

#include <math.h>

static float clip(const float *w, size_t count, int32_t qmax)
{
    (void)qmax;
    float max = 0;
    for (size_t i = 0; i < count; i++)
        max = fmaxf(max, fabsf(w[i]));
    return max;
}

const qn_weight_method qn__weight_max_abs = {
    .name = "max_abs",
    .summary = "largest magnitude of the channel",
    .clip = clip,
};
