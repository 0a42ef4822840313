#include "run/ops/fixed_point.h"

#include <math.h>

static int32_t saturate(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

bool qn__fixed_make(double real, qn_requantize kind, qn_fixed *out)
{
    if (!isfinite(real))
        return false;
    int exponent;
    const double mantissa = frexp(real, &exponent);
    if (kind == QN_REQUANTIZE_SHIFT) {
        exponent--;
        if (mantissa != 0.5 || exponent < -31 || exponent > 30)
            return false;
        *out = (qn_fixed){INT32_C(1) << 30, exponent};
        return true;
    }
    int64_t m = llround(mantissa * 2147483648.0);
    if (m == INT64_C(1) << 31 || m == -(INT64_C(1) << 31)) {
        m /= 2;
        exponent++;
    }
    if (exponent < -31) {
        m = 0;
        exponent = 0;
    }
    if (exponent > 30)
        return false;
    *out = (qn_fixed){(int32_t)m, exponent};
    return true;
}

int32_t qn__fixed_high_product(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN)
        return INT32_MAX;
    const int64_t product = (int64_t)a * b;
    const int64_t nudge = product >= 0 ? INT64_C(1) << 30 : 1 - (INT64_C(1) << 30);
    return (int32_t)((product + nudge) / (INT64_C(1) << 31));
}

int32_t qn__fixed_divide(int32_t x, int n)
{
    const int64_t one = 1, mask = (one << n) - 1;
    const int64_t rest = x & mask, half = (mask >> 1) + (x < 0);
    return (int32_t)(((int64_t)x >> n) + (rest > half));
}

/* v / 2^n, ties up. */
static int64_t shift_half_up(int64_t v, int n)
{
    return n == 0 ? v : (v + (INT64_C(1) << (n - 1))) >> n;
}

int32_t qn__fixed_apply(int32_t x, qn_fixed fixed, qn_requantize kind)
{
    const int left = fixed.exponent > 0 ? fixed.exponent : 0;
    const int right = fixed.exponent < 0 ? -fixed.exponent : 0;
    if (kind == QN_REQUANTIZE_GEMMLOWP_SINGLE)
        return saturate(shift_half_up((int64_t)x * fixed.multiplier, 31 - fixed.exponent));
    const int32_t moved = saturate((int64_t)x * (INT64_C(1) << left));
    if (kind == QN_REQUANTIZE_SHIFT)
        return (int32_t)shift_half_up(moved, right);
    return qn__fixed_divide(qn__fixed_high_product(moved, fixed.multiplier), right);
}
