/* Rounding of a batch's values to integers and back, as MNN's training module does it: the integer,
 * zero point included, half away from zero, all in float32. */
#include "calib/train.h"

#include <float.h>
#include <math.h>

qn_train_grid qn__train_grid(float *lo, float *hi, const qn_range_format *format)
{
    qn_train_grid g = {.qmin = (float)format->qmin, .qmax = (float)format->qmax};
    *lo = fminf(*lo, 0.0f);
    *hi = fmaxf(*hi, 0.0f);
    if (format->symmetric) {
        *hi = fmaxf(*hi, -*lo);
        *lo = -*hi;
    }
    const float scale = (*hi - *lo) / (g.qmax - g.qmin);
    if (!(scale >= FLT_MIN) || !isfinite(scale))
        return g;
    g.scale = scale;
    if (format->symmetric) { /* unsigned integers: the upper middle stands for 0 */
        g.zero = format->qmin < 0 ? 0.0f : (float)((format->qmax + 1) / 2);
        return g;
    }
    g.zero = fminf(fmaxf(roundf((0.0f - *lo) / scale + g.qmin), g.qmin), g.qmax);
    *lo = fminf((g.qmin - g.zero) * scale, 0.0f);
    *hi = fmaxf((g.qmax - g.zero) * scale, 0.0f);
    return g;
}

void qn__train_round(const qn_train_grid *grid, float *values, size_t count)
{
    const qn_train_grid g = *grid;
    if (g.scale == 0.0f)
        return;
    for (size_t i = 0; i < count; i++) {
        /* within the integers plus one, so the conversion is exact */
        float v = values[i] / g.scale + g.zero;
        v = (float)(int32_t)(v + (v < 0.0f ? -0.5f : 0.5f));
        v = v < g.qmin ? g.qmin : v;
        v = v > g.qmax ? g.qmax : v;
        values[i] = (v - g.zero) * g.scale;
    }
}
