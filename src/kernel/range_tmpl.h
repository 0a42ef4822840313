/* Smallest and largest value, and whether every value is finite, for one vector type. The including
 * file defines F (float vector), I (integer vector of as many lanes) and RANGE (the function). */
#include "kernel/kernel.h"

enum { WIDTH = sizeof(F) / sizeof(float), VECTORS = 4, LANES = WIDTH * VECTORS };

/* Comparisons give masks of all ones: a select is logical operations on any instruction set. The
 * compiler may not reorder minimum and maximum by itself. */
static inline __attribute__((always_inline)) F choose(I mask, F yes, F no)
{
    return (F)(((I)yes & mask) | ((I)no & ~mask));
}

bool RANGE(const float *values, size_t count, float *lo, float *hi)
{
    F least[VECTORS], most[VECTORS];
    I bad[VECTORS];
    bool finite = true;
    size_t i = 0;
    for (size_t j = 0; j < VECTORS; j++) {
        least[j] = (F){0} + *lo;
        most[j] = (F){0} + *hi;
        bad[j] = (I){0};
    }
    for (; i + LANES <= count; i += LANES)
        for (size_t j = 0; j < VECTORS; j++) {
            const F v = *(const F *)(values + i + j * WIDTH);
            bad[j] |= ((I)v & 0x7F800000) == 0x7F800000;
            least[j] = choose(v < least[j], v, least[j]);
            most[j] = choose(v > most[j], v, most[j]);
        }
    for (size_t j = 0; j < LANES; j++) {
        finite &= bad[j / WIDTH][j % WIDTH] == 0;
        *lo = least[j / WIDTH][j % WIDTH] < *lo ? least[j / WIDTH][j % WIDTH] : *lo;
        *hi = most[j / WIDTH][j % WIDTH] > *hi ? most[j / WIDTH][j % WIDTH] : *hi;
    }
    for (; i < count; i++) {
        finite &= values[i] - values[i] == 0.0f;
        *lo = values[i] < *lo ? values[i] : *lo;
        *hi = values[i] > *hi ? values[i] : *hi;
    }
    return finite;
}
