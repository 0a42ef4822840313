/* The clip with the least squared error of the quantized weights: for every candidate between 50 %
 * (fewer than 7 bits: 10 %) and 100 % of the largest magnitude the weights are quantized and
 * compared. */
#include "quant/quant.h"

#include <math.h>

enum { CANDIDATES = 64, FINE = 63 };

/* Sums in a few lanes of float32 over blocks short enough to keep six digits; no further than to
 * `most`, as a sum only grows. */
static double squared_error(const float *w, size_t count, float scale, float qmax, double most)
{
    enum { LANES = 8, BLOCK = 512 };
    const float inv = 1.0f / scale, magic = 12582912.0f; /* rounds half to even */
    double total = 0;
    for (size_t i = 0; i < count && !(total >= most); i += BLOCK) {
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

static bool scale(const qn_context *ctx, const float *w, size_t count, const qn_levels *levels,
                  float *out)
{
    (void)ctx;
    const float qmax = (float)levels->qmax, max = qn__max_abs(w, count);
    *out = max / qmax;
    if (!(max / qmax > 0) || !isfinite(qmax / max))
        return true;
    const float reach = levels->qmax < FINE || levels->set == QN_LEVELS_POW2 ? 0.9f : 0.5f;
    double best_error = INFINITY;
    for (int i = 0; i < CANDIDATES; i++) {
        const float s = max * (1.0f - reach * (float)i / CANDIDATES) / qmax;
        const double e = levels->set == QN_LEVELS_POW2
                             ? qn__levels_error(levels, w, count, s)
                             : squared_error(w, count, s, qmax, best_error);
        if (e < best_error) {
            best_error = e;
            *out = s;
        }
    }
    return true;
}

const qn_weight_method qn__weight_mse = {
    .name = "mse",
    .summary = "clip of least squared error of the channel's weights",
    .scale = scale,
};
