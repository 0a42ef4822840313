/* Requantization by integers: the arithmetic of gemmlowp as TensorFlow Lite's reference kernels
 * have it, and of its variant of one rounding, of which shifts are a case. */
#ifndef QN_KERNEL_Q8_FIXED_H
#define QN_KERNEL_Q8_FIXED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* multiplier * 2^(exponent - 31), multiplier 0, 2^30 .. 2^31 - 1, or such a number times -1. */
typedef struct qn_multiplier {
    int32_t multiplier;
    int32_t exponent; /* -31 .. 31, of two roundings up to 30 */
} qn_multiplier;

static inline int32_t qn_fixed_saturate(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

/* v / 2^n, ties up. */
static inline int64_t qn_fixed_half_up(int64_t v, int n)
{
    return (v + ((INT64_C(1) << n) >> 1)) >> n;
}

/* Saturating rounding doubling high product: (a * b) / 2^31, ties up. */
static inline int32_t qn_fixed_high_product(int32_t a, int32_t b)
{
    /* Both of them INT32_MIN: one more than int32 holds. */
    const int64_t high = qn_fixed_half_up((int64_t)a * b, 31);
    return high > INT32_MAX ? INT32_MAX : (int32_t)high;
}

/* x / 2^n, ties away from zero; n: 0 .. 31. */
static inline int32_t qn_fixed_divide(int32_t x, int n)
{
    const int64_t one = 1, mask = (one << n) - 1;
    const int64_t rest = x & mask, half = (mask >> 1) + (x < 0);
    return (int32_t)(((int64_t)x >> n) + (rest > half));
}

/* x times the multiplier, rounded once (ties up), or twice: to a high product first, then by the
 * exponent; beyond int32: its ends. */
static inline int32_t qn_fixed_times(int32_t x, qn_multiplier fixed, bool once)
{
    const int left = fixed.exponent > 0 ? fixed.exponent : 0;
    if (once)
        return qn_fixed_saturate(
            qn_fixed_half_up((int64_t)x * fixed.multiplier, 31 - fixed.exponent));
    const int32_t moved = qn_fixed_saturate((int64_t)x * (INT64_C(1) << left));
    return qn_fixed_divide(qn_fixed_high_product(moved, fixed.multiplier), left - fixed.exponent);
}

/* --- rows of sums to bytes ----------------------------------------------------------------------
 * out[r][i] = saturate to lo..hi of sums[r][i] times fixed[i], plus zero, as a byte: signed if
 * lo < 0. The same bytes on every instruction set. sums: QN_Q8_FIXED_OVER more numbers can be read
 * behind the last row's. */
enum { QN_Q8_FIXED_OVER = 16 };
typedef struct qn_q8_fixed_args {
    size_t rows, n;
    const int32_t *sums;
    size_t sums_stride;
    const qn_multiplier *fixed; /* [n] */
    bool once;
    int32_t zero, lo, hi; /* values of one 8-bit type */
    uint8_t *out;
    size_t out_stride;
} qn_q8_fixed_args;
typedef void (*qn_q8_fixed_fn)(const qn_q8_fixed_args *args);
typedef struct qn_q8_fixed {
    qn_q8_fixed_fn fn;
    const char *name;
} qn_q8_fixed;

#endif
