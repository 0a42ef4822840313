/* Scale and zero point of a range, as ONNX Runtime's tool computes them. */
#include "quant/quant.h"

#include <float.h>
#include <math.h>

void qn__quant_params(float lo, float hi, int32_t qmin, int32_t qmax, bool symmetric, float *scale,
                      int32_t *zero_point)
{
    double rmin = lo < 0 ? lo : 0, rmax = hi > 0 ? hi : 0;
    const double steps = (double)qmax - (double)qmin;
    /* u8 symmetric: 128 stands for zero; s8: 0 whatever the limits */
    const int32_t middle = qmin < 0 ? 0 : (qmax + 1) / 2;
    if (symmetric) {
        rmax = fmax(-rmin, rmax);
        rmin = -rmax;
    }
    const float s = (float)((rmax - rmin) / steps);
    if (!(s >= FLT_MIN) || !isfinite(s)) {
        *scale = 1.0f;
        *zero_point = symmetric ? middle : qmin < 0 ? 0 : qmin;
        return;
    }
    *scale = s;
    if (symmetric) {
        *zero_point = middle;
        return;
    }
    const double z = rint((double)qmin - rmin / (double)s);
    *zero_point = z < qmin ? qmin : z > qmax ? qmax : (int32_t)z;
}

int32_t qn__quantize_value(float x, float scale, int32_t zero_point, int32_t qmin, int32_t qmax)
{
    const double q = (double)rintf(x / scale) + zero_point; /* a division, as the runtimes do */
    return q <= qmin ? qmin : q >= qmax ? qmax : (int32_t)q;
}
