/* Winograd convolutions in the arithmetic of MNN's float kernels (x86, AVX2 with FMA): which ones
 * it takes, with which tile, and every operation in its order, so that exact mode sees the values
 * that the original saw. Names: a tile of `unit` x `unit` outputs comes from `alpha` x `alpha`
 * inputs, alpha = unit + kernel - 1, which is 4, 6 or 8. */
#ifndef QN_MNNTOOL_WINOGRAD_H
#define QN_MNNTOOL_WINOGRAD_H

#include "run/ops/window.h"

#define QN_WINOGRAD_MOST_ALPHA 8
/* Points of interpolation; a tile of alpha uses the first alpha - 1 and infinity. */
extern const int32_t qn__winograd_points[QN_WINOGRAD_MOST_ALPHA - 1];

/* --- winograd.c: choice and weights ------------------------------------------------------------*/
/* Product of the differences of point j to the others of the first n_points. */
float qn__winograd_divisor(int32_t n_points, int32_t j);
/* G, [alpha][kernel] row-major. */
void qn__winograd_weight_matrix(int32_t alpha, int32_t kernel, float *g);
/* One kernel [kernel][kernel] transformed to [alpha][alpha]: G w G^T. */
void qn__winograd_weights(int32_t alpha, int32_t kernel, const float *g, const float *w,
                          float *out);
/* The tile MNN takes for a convolution of `channels` inputs and `rows` outputs per group; 0: none,
 * its sums are plain. */
int32_t qn__mnn_winograd_unit(const qn_window *window, size_t channels, size_t rows);

/* --- winograd_lines.c: transforms of one line, n channels side by side
 * --------------------------*/
/* in: alpha vectors of n floats, step_in floats apart; out the same. second: the order of the
 * second direction where tiles are full groups (winograd_conv.c). */
typedef struct qn_winograd_line {
    const float *in;
    size_t step_in;
    float *out;
    size_t step_out, n;
} qn_winograd_line;
void qn__winograd_input_line(int32_t alpha, bool second, const qn_winograd_line *line);
/* alpha vectors in, unit out. last: the last line of a tile, which one kernel sums another way. */
void qn__winograd_output_line(int32_t alpha, int32_t unit, bool last, const qn_winograd_line *line);

#endif
