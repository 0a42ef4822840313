/* Rounding that moves its errors, for one vector type: a lane is a channel, so that the chain from
 * one column to the next is as long for a vector as for one weight. The including file defines F
 * (float vector), I (integer vector of as many lanes) and ROUND (the function). */
#include "kernel/kernel.h"

enum { WIDTH = sizeof(F) / sizeof(float) };

static inline __attribute__((always_inline)) F choose(I mask, F yes, F no)
{
    return (F)(((I)yes & mask) | ((I)no & ~mask));
}

/* to[i][lane] = from[lane * stride + i]; lanes behind the last channel repeat it. */
static inline void gather(const float *from, size_t stride, size_t lanes, size_t n, F *to)
{
    for (size_t l = 0; l < WIDTH; l++) {
        const float *row = from + (l < lanes ? l : lanes - 1) * stride;
        for (size_t i = 0; i < n; i++)
            ((float *)&to[i])[l] = row[i];
    }
}

static void round_lanes(const qn_f32_round_args *a, size_t first, size_t lanes)
{
    F w[QN_ROUND_COLUMNS], moved[QN_ROUND_COLUMNS], errors[QN_ROUND_COLUMNS], q[QN_ROUND_COLUMNS];
    const size_t n = a->n;
    F scale, before = {0};
    gather(a->scales + first, 1, lanes, 1, &scale);
    gather(a->w + first * a->w_stride, a->w_stride, lanes, n, w);
    gather(a->moved + first * a->moved_stride, a->moved_stride, lanes, n, moved);
    const F zero = {0}, top = zero + a->top, limit = zero + a->pair_limit;
    const F magic = zero + 12582912.0f; /* adding 1.5 * 2^23 rounds half to even */
    for (size_t j = 0; j < n; j++) {
        const size_t left = n - 1 - j;
        const float *u = a->u + left * a->u_stride;
        F r = (w[j] + moved[left]) / scale;
        r = choose(r > top, top, r);
        r = choose(r < -top, -top, r);
        r = (r + magic) - magic;
        if (a->pairs && j % 2 == 1) {
            const F hi = choose(before > zero, limit - before, top);
            const F lo = choose(before < zero, -limit - before, -top);
            r = choose(r > hi, hi, choose(r < lo, lo, r));
        }
        before = r;
        q[j] = r;
        const F lost = w[j] - r * scale;
        errors[left] = lost;
        for (size_t i = 0; i < left; i++)
            moved[i] += lost * u[i];
    }
    for (size_t l = 0; l < lanes; l++) {
        float *e = a->errors + (first + l) * a->errors_stride;
        int8_t *out = a->q + (first + l) * a->q_stride;
        for (size_t i = 0; i < n; i++)
            e[i] = ((const float *)&errors[i])[l];
        for (size_t i = 0; i < n; i++)
            out[i] = (int8_t)((const float *)&q[i])[l];
    }
}

void ROUND(const qn_f32_round_args *a)
{
    for (size_t c = 0; c < a->channels; c += WIDTH)
        round_lanes(a, c, a->channels - c < WIDTH ? a->channels - c : WIDTH);
}
