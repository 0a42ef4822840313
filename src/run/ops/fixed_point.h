/* Requantization by integers: the arithmetic of gemmlowp as TensorFlow Lite's reference kernels
 * have it, its variant of one rounding, and shifts for scales that are powers of two. */
#ifndef QN_RUN_OPS_FIXED_POINT_H
#define QN_RUN_OPS_FIXED_POINT_H

#include "ir/graph.h"
#include "kernel/q8_fixed.h"

/* real: 0 or positive, or negative for gemmlowp (whose multiplier is negative then). false: kind
 * has no such multiplier. */
bool qn__fixed_make(double real, qn_requantize kind, qn_multiplier *out);
/* x times the multiplier, rounded as kind says; beyond int32: its ends. */
int32_t qn__fixed_apply(int32_t x, qn_multiplier fixed, qn_requantize kind);
/* A power of two is a multiplier that is rounded once, too. */
static inline bool qn_fixed_once(qn_requantize kind)
{
    return kind != QN_REQUANTIZE_GEMMLOWP;
}
/* The same plus zero, between lo and hi. */
static inline int32_t qn_fixed_byte(int32_t x, qn_multiplier fixed, qn_requantize kind,
                                    int32_t zero, int32_t lo, int32_t hi)
{
    const int64_t v = (int64_t)qn__fixed_apply(x, fixed, kind) + zero;
    return v < lo ? lo : v > hi ? hi : (int32_t)v;
}

#endif
