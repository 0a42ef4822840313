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

/* v / 2^n, ties up. */
static inline __attribute__((always_inline)) int64_t shift_half_up(int64_t v, int n)
{
    return (v + ((INT64_C(1) << n) >> 1)) >> n;
}

static inline __attribute__((always_inline)) int32_t high_product(int32_t a, int32_t b)
{
    /* Both of them INT32_MIN: one more than int32 holds. */
    const int64_t high = shift_half_up((int64_t)a * b, 31);
    return high > INT32_MAX ? INT32_MAX : (int32_t)high;
}

static inline __attribute__((always_inline)) int32_t divide(int32_t x, int n)
{
    const int64_t one = 1, mask = (one << n) - 1;
    const int64_t rest = x & mask, half = (mask >> 1) + (x < 0);
    return (int32_t)(((int64_t)x >> n) + (rest > half));
}

static inline __attribute__((always_inline)) int32_t apply(int32_t x, qn_fixed fixed,
                                                           const qn_requantize kind)
{
    const int left = fixed.exponent > 0 ? fixed.exponent : 0, right = left - fixed.exponent;
    if (kind == QN_REQUANTIZE_GEMMLOWP_SINGLE)
        return saturate(shift_half_up((int64_t)x * fixed.multiplier, 31 - fixed.exponent));
    const int32_t moved = saturate((int64_t)x * (INT64_C(1) << left));
    if (kind == QN_REQUANTIZE_SHIFT)
        return (int32_t)shift_half_up(moved, right);
    return divide(high_product(moved, fixed.multiplier), right);
}

int32_t qn__fixed_high_product(int32_t a, int32_t b)
{
    return high_product(a, b);
}

int32_t qn__fixed_divide(int32_t x, int n)
{
    return divide(x, n);
}

int32_t qn__fixed_apply(int32_t x, qn_fixed fixed, qn_requantize kind)
{
    return apply(x, fixed, kind);
}

void qn__fixed_row(const qn_fixed_bytes *to, const qn_fixed *fixed, const int32_t *x, size_t n,
                   uint8_t *out)
{
    const qn_requantize kind = to->kind;
    const int32_t lo = to->lo - to->zero, hi = to->hi - to->zero, zero = to->zero;
    for (size_t i = 0; i < n; i++) {
        const int32_t v = apply(x[i], fixed[i], kind), over = v > lo ? v : lo;
        out[i] = (uint8_t)((over < hi ? over : hi) + zero);
    }
}
