/* The clip with the least squared error of the quantized weights: for every candidate between 50 %
 * and 100 % of the largest magnitude the weights are quantized and compared. */
#include "quant/quant.h"

#include <math.h>

enum { CANDIDATES = 64 };

/* Sums in a few lanes of float32 over blocks short enough to keep six digits. */
static double squared_error(const float *w, size_t count, float scale, float qmax)
{
    enum { LANES = 8, BLOCK = 512 };
    const float inv = 1.0f / scale, magic = 12582912.0f; /* rounds half to even */
    double total = 0;
    for (size_t i = 0; i < count; i += BLOCK) {
        const size_t n = count - i < BLOCK ? count - i : BLOCK;
        float sums[LANES] = {0};
        for (size_t j = 0; j < n; j += LANES)
            for (size_t l = 0; l < LANES; l++) {
                const float x = j + l < n ? w[i + j + l] : 0.0f;
                float q = x * inv;
                q = q > qmax ? qmax : q;
                q = q < -qmax ? -qmax : q;
                const float e = x - ((q + magic) - magic) * scale;
                sums[l] += e * e;
            }
        for (size_t l = 0; l < LANES; l++)
            total += (double)sums[l];
    }
    return total;
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
