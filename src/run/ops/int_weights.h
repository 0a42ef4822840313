/* Weights of a float product kept as integers of at most 8 bits, with the scales of their blocks,
 * in the order of the kernel's panels: some columns at a time become floats while running. The
 * floats are those of the dequantized constant, so that results do not tell how weights are kept.
 */
#ifndef QN_RUN_OPS_INT_WEIGHTS_H
#define QN_RUN_OPS_INT_WEIGHTS_H

#include "run/prepacked.h"

typedef struct qn_int_weights {
    const uint8_t *data; /* NULL: there are none */
    qn_f32_ints kernel;
    size_t n, k, nr, panels, panel_bytes, float_bytes; /* float_bytes: of a panel as floats */
    size_t block, blocks;                              /* k that share a scale */
    bool halves, zeros; /* two weights a byte; a zero point for each scale */
    float zero;         /* of all, without zeros */
    size_t bytes;
    size_t at_once; /* panels */
} qn_int_weights;

/* Whether constant input 1 of the step, a matrix of k rows and n columns (or the other way, with
 * trans_b), can be kept so and is worth it. */
bool qn__int_weights_fit(const qn_step *step, size_t n, size_t k, bool trans_b);
/* Sizes, before there is memory; false: too large, or there is no kernel for panels of nr columns.
 */
bool qn__int_weights_plan(const qn_step *step, size_t n, size_t k, size_t nr, qn_int_weights *out);
/* What files keep them under. */
uint32_t qn__int_weights_layout(const qn_int_weights *w);
/* Into `to`, of w->bytes; bias: NULL or [n]. */
void qn__int_weights_make(const qn_int_weights *w, const qn_step *step, bool trans_b,
                          const float *bias, uint8_t *to);
/* What a kernel for few rows is told of them, without the rows. */
qn_f32_ints_args qn__int_weights_args(const qn_int_weights *w);
/* Panels first .. first + count as the float kernel reads them. */
void qn__int_weights_expand(const qn_int_weights *w, size_t first, size_t count, float *out,
                            qn_pool *pool);

#endif
