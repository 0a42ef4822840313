/* Sums of columns, for one vector type: sums stay in registers while the rows go by. The including
 * file defines F (float vector) and SUMS (the function). */
#include "kernel/kernel.h"

enum { WIDTH = sizeof(F) / sizeof(float) };

/* The next vectors of columns while there are as many; vectors is a constant after inlining. */
static inline __attribute__((always_inline)) size_t
add_columns(const float *x, size_t rows, size_t channels, size_t c, size_t vectors, double *sums)
{
    for (; c + vectors * WIDTH <= channels; c += vectors * WIDTH) {
        F sum[4] = {{0}};
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < vectors; j++)
                sum[j] += *(const F *)(x + r * channels + c + j * WIDTH);
        for (size_t i = 0; i < vectors * WIDTH; i++)
            sums[c + i] += (double)sum[i / WIDTH][i % WIDTH];
    }
    return c;
}

void SUMS(const float *x, size_t rows, size_t channels, double *sums)
{
    size_t c = add_columns(x, rows, channels, 0, 4, sums);
    c = add_columns(x, rows, channels, c, 2, sums);
    c = add_columns(x, rows, channels, c, 1, sums);
    for (; c < channels; c++) {
        float sum = 0;
        for (size_t r = 0; r < rows; r++)
            sum += x[r * channels + c];
        sums[c] += (double)sum;
    }
}
