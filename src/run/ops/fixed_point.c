#include "run/ops/fixed_point.h"

#include <math.h>

bool qn__fixed_make(double real, qn_requantize kind, qn_multiplier *out)
{
    if (!isfinite(real))
        return false;
    int exponent;
    const double mantissa = frexp(real, &exponent);
    if (kind == QN_REQUANTIZE_SHIFT) {
        if (mantissa != 0.5 || exponent < -30 || exponent > 31)
            return false;
        *out = (qn_multiplier){INT32_C(1) << 30, exponent};
        return true;
    }
    int64_t m = llround(mantissa * 2147483648.0);
    if (m == INT64_C(1) << 31 || m == -(INT64_C(1) << 31)) {
        m /= 2;
        exponent++;
    }
    if (exponent < -31 || m == 0) { /* products are 0 whatever the exponent */
        m = 0;
        exponent = -1;
    }
    if (exponent > 30)
        return false;
    *out = (qn_multiplier){(int32_t)m, exponent};
    return true;
}

int32_t qn__fixed_apply(int32_t x, qn_multiplier fixed, qn_requantize kind)
{
    return qn_fixed_times(x, fixed, qn_fixed_once(kind));
}
