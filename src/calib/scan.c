#include "calib/scan.h"

/* Vectors by hand: the compiler may not reorder minimum and maximum by itself. Comparisons give
 * masks of all ones, so that a select is three logical operations on any instruction set. */
typedef float lanes_f __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t lanes_i __attribute__((vector_size(16), aligned(4), may_alias));
enum { LANES = 16, WIDTH = 4, VECTORS = LANES / WIDTH };

static inline lanes_f select(lanes_i mask, lanes_f yes, lanes_f no)
{
    return (lanes_f)(((lanes_i)yes & mask) | ((lanes_i)no & ~mask));
}

typedef struct scan {
    lanes_f lo[VECTORS], hi[VECTORS];
    lanes_i bad[VECTORS];
} scan;

static inline void scan_block(scan *s, const float *values)
{
    for (size_t j = 0; j < VECTORS; j++) {
        const lanes_f v = *(const lanes_f *)(values + j * WIDTH);
        s->bad[j] |= ((lanes_i)v & 0x7F800000) == 0x7F800000;
        s->lo[j] = select(v < s->lo[j], v, s->lo[j]);
        s->hi[j] = select(v > s->hi[j], v, s->hi[j]);
    }
}

qn_status qn__scan_range(const float *values, size_t count, float *lo, float *hi, qn_error *error)
{
    if (count == 0)
        return QN_OK;
    scan s;
    float tail[LANES];
    for (size_t j = 0; j < VECTORS; j++) {
        s.lo[j] = (lanes_f){*lo, *lo, *lo, *lo};
        s.hi[j] = (lanes_f){*hi, *hi, *hi, *hi};
        s.bad[j] = (lanes_i){0};
    }
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        scan_block(&s, values + i);
    if (i < count) {
        for (size_t j = 0; j < LANES; j++)
            tail[j] = values[i + j < count ? i + j : i];
        scan_block(&s, tail);
    }
    bool bad = false;
    for (size_t j = 0; j < LANES; j++)
        bad |= s.bad[j / WIDTH][j % WIDTH] != 0;
    if (bad) {
        for (i = 0; i < count; i++)
            QN_FAIL_IF(!(values[i] - values[i] == 0.0f), error, QN_NONFINITE, "value %zu is %g", i,
                       (double)values[i]);
    }
    for (size_t j = 0; j < LANES; j++) {
        const float least = s.lo[j / WIDTH][j % WIDTH], most = s.hi[j / WIDTH][j % WIDTH];
        *lo = least < *lo ? least : *lo;
        *hi = most > *hi ? most : *hi;
    }
    *lo += 0.0f; /* -0 + 0 = +0 */
    *hi += 0.0f;
    return QN_OK;
}
