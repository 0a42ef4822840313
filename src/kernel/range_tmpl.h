/* Smallest and largest value, and whether every value is finite, for one vector type. The including
 * file defines F (float vector), I (integer vector of as many lanes) and RANGE (the function), and
 * may define LESSER and GREATER: instructions for a < b ? a : b and a > b ? a : b. */
#include "kernel/kernel.h"

#include <math.h>

enum { WIDTH = sizeof(F) / sizeof(float), VECTORS = 4, LANES = WIDTH * VECTORS };

#ifndef LESSER
/* Comparisons give masks of all ones: a select is logical operations on any instruction set. The
 * compiler may not reorder minimum and maximum by itself. */
static inline __attribute__((always_inline)) F choose(I mask, F yes, F no)
{
    return (F)(((I)yes & mask) | ((I)no & ~mask));
}
#define LESSER(a, b) choose((a) < (b), a, b)
#define GREATER(a, b) choose((a) > (b), a, b)
#endif

bool RANGE(const float *values, size_t count, float *lo, float *hi)
{
    F least[VECTORS], most[VECTORS];
    I bad[VECTORS];
    size_t i = 0;
    for (size_t j = 0; j < VECTORS; j++) {
        least[j] = (F){0} + *lo;
        most[j] = (F){0} + *hi;
        bad[j] = (I){0};
    }
    for (; i + LANES <= count; i += LANES)
        for (size_t j = 0; j < VECTORS; j++) {
            const F v = *(const F *)(values + i + j * WIDTH);
            bad[j] |= (I)(v != v);
            least[j] = LESSER(v, least[j]);
            most[j] = GREATER(v, most[j]);
        }
    for (size_t j = 1; j < VECTORS; j++) {
        bad[0] |= bad[j];
        least[0] = LESSER(least[j], least[0]);
        most[0] = GREATER(most[j], most[0]);
    }
    bool numbers = true;
    for (size_t j = 0; j < WIDTH; j++) {
        numbers &= bad[0][j] == 0;
        *lo = least[0][j] < *lo ? least[0][j] : *lo;
        *hi = most[0][j] > *hi ? most[0][j] : *hi;
    }
    for (; i < count; i++) {
        numbers &= values[i] == values[i];
        *lo = values[i] < *lo ? values[i] : *lo;
        *hi = values[i] > *hi ? values[i] : *hi;
    }
    return numbers && *lo != -INFINITY && *hi != INFINITY;
}
