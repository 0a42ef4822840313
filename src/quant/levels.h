/* The integers that weights may take, and rounding to them. */
#ifndef QN_QUANT_LEVELS_H
#define QN_QUANT_LEVELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qn_level_set {
    QN_LEVELS_UNIFORM = 0, /* -qmax..qmax */
    QN_LEVELS_TERNARY,     /* -1, 0, 1 */
    QN_LEVELS_POW2         /* 0 and +-1, +-2, +-4 .. +-qmax */
} qn_level_set;
const char *qn__level_set_name(qn_level_set set); /* NULL past the end */
bool qn__level_set_find(const char *name, qn_level_set *out);

typedef struct qn_levels {
    qn_level_set set;
    uint32_t bits; /* 2..8; the set has at most 2^bits - 1 levels */
    int32_t qmax;  /* largest level, 1..127 */
} qn_levels;

/* Levels of `bits` bits (0: as many as the set is for: 8, 2 and 4), none above clamp (0: no clamp).
 * NULL, or what is wrong with the combination. */
const char *qn__levels_make(qn_level_set set, uint32_t bits, uint32_t clamp, qn_levels *out);
/* Magnitude number i > 0 of the set (level 0 is 0), and their count without 0. */
int32_t qn__levels_magnitude(const qn_levels *levels, uint32_t i);
uint32_t qn__levels_count(const qn_levels *levels);
/* Smallest width of two's complement integers that holds -qmax..qmax: what storage needs. */
uint32_t qn__levels_storage_bits(const qn_levels *levels);

/* Nearest level to w[i] / scale; a tie goes to the even integer, or the even power. */
void qn__levels_round(const qn_levels *levels, const float *restrict w, size_t count, float scale,
                      int8_t *restrict q);
int8_t qn__levels_round_one(const qn_levels *levels, float w, float scale);
/* Sums of x * q and of q * q for the levels nearest to x. x: within -1..1. The scale of least
 * squared error for these levels is xq / qq, the error then x.x - xq^2 / qq. */
typedef struct qn_level_fit {
    double xq, qq;
} qn_level_fit;
qn_level_fit qn__levels_fit(const qn_levels *levels, const float *x, size_t count, float scale);
/* Sum of (w - scale * q)^2 with q as qn__levels_round gives it. */
double qn__levels_error(const qn_levels *levels, const float *w, size_t count, float scale);

#endif
