/* The clip with the least squared error of the quantized weights: for every candidate between 50 %
 * and 100 % of the largest magnitude the weights are quantized and compared. */
#include "quant/quant.h"

#include <math.h>

enum { CANDIDATES = 64 };

static double squared_error(const float *w, size_t count, float scale, float qmax)
{
    const float inv = 1.0f / scale;
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        float q = rintf(w[i] * inv);
        q = q > qmax ? qmax : q < -qmax ? -qmax : q;
        const double e = (double)w[i] - (double)(q * scale);
        sum += e * e;
    }
    return sum;
}

static float clip(const float *w, size_t count, int32_t qmax)
{
    float max = 0;
    for (size_t i = 0; i < count; i++)
        max = fmaxf(max, fabsf(w[i]));
    if (!(max / (float)qmax > 0) || !isfinite((float)qmax / max))
        return max;
    float best = max;
    double best_error = INFINITY;
    for (int i = 0; i < CANDIDATES; i++) {
        const float c = max * (1.0f - 0.5f * (float)i / CANDIDATES);
        const double e = squared_error(w, count, c / (float)qmax, (float)qmax);
        if (e < best_error) {
            best_error = e;
            best = c;
        }
    }
    return best;
}

const qn_weight_method qn__weight_mse = {
    .name = "mse",
    .summary = "clip of least squared error of the channel's weights",
    .clip = clip,
};
