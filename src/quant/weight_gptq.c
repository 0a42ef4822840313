/* Steps of the largest magnitude, as max_abs; the rounding itself is quant/gptq.c's. */
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

const qn_weight_method qn__weight_gptq = {
    .name = "gptq",
    .summary =
        "rounding errors are moved onto other weights by the inputs' correlation (Frantar et "
        "al. 2022)",
    .clip = clip,
    .compensates = true,
};
