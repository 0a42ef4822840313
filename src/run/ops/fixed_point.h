/* Requantization by integers: the arithmetic of gemmlowp as TensorFlow Lite's reference kernels
 * have it, its variant of one rounding, and shifts for scales that are powers of two. */
#ifndef QN_RUN_OPS_FIXED_POINT_H
#define QN_RUN_OPS_FIXED_POINT_H

#include "ir/graph.h"

/* multiplier * 2^(exponent - 31), multiplier 0 or 2^30 .. 2^31 - 1; shifts: 2^exponent alone. */
typedef struct qn_fixed {
    int32_t multiplier;
    int32_t exponent; /* -31 .. 30 */
} qn_fixed;

/* real: 0 or positive, or negative for gemmlowp (whose multiplier is negative then). false: kind
 * has no such multiplier. */
bool qn__fixed_make(double real, qn_requantize kind, qn_fixed *out);
/* x times the multiplier, rounded as kind says; beyond int32: its ends. */
int32_t qn__fixed_apply(int32_t x, qn_fixed fixed, qn_requantize kind);
/* Bytes of a row: each x times its multiplier, plus zero, between lo and hi. */
typedef struct qn_fixed_bytes {
    qn_requantize kind;
    int32_t zero, lo, hi;
} qn_fixed_bytes;
void qn__fixed_row(const qn_fixed_bytes *to, const qn_fixed *fixed, const int32_t *x, size_t n,
                   uint8_t *out);
/* The same plus zero, between lo and hi. */
static inline int32_t qn_fixed_byte(int32_t x, qn_fixed fixed, qn_requantize kind, int32_t zero,
                                    int32_t lo, int32_t hi)
{
    const int64_t v = (int64_t)qn__fixed_apply(x, fixed, kind) + zero;
    return v < lo ? lo : v > hi ? hi : (int32_t)v;
}

/* Saturating rounding doubling high product: (a * b) / 2^31, ties up. */
int32_t qn__fixed_high_product(int32_t a, int32_t b);
/* x / 2^n, ties away from zero; n: 0 .. 31. */
int32_t qn__fixed_divide(int32_t x, int n);

#endif
