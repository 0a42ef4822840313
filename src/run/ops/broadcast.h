/* Loops over tensors of different shapes that broadcast to one output. */
#ifndef QN_RUN_OPS_BROADCAST_H
#define QN_RUN_OPS_BROADCAST_H

#include "run/nd.h"
#include "run/op.h"

#define QN_BROADCAST_MAX 3

/* Dims in the output's memory order, neighbours merged; element strides of each input, 0 where it
 * is broadcast. The last axis is the inner loop. */
typedef struct qn_broadcast {
    size_t n, rank;
    int64_t dims[QN_MAX_RANK];
    int64_t strides[QN_BROADCAST_MAX][QN_MAX_RANK];
    size_t rows, row; /* rows of `row` elements */
} qn_broadcast;

/* Chooses the output's layout from full-size inputs' and asks those for the same. */
void qn__broadcast_layouts(qn_step *step);
/* Inputs tensors[0..n) with their layouts against the output. False when shapes do not fit. */
bool qn__broadcast_make(qn_broadcast *b, const qn_tensor *output, qn_layout output_layout,
                        const qn_tensor *const *tensors, const qn_layout *layouts, size_t n);
/* The same for the matrices of a product, which the last two axes are: an element is a matrix. */
bool qn__broadcast_matrices(qn_broadcast *b, const qn_tensor *output, const qn_tensor *left,
                            const qn_tensor *right);
/* Element offsets of each input at the start of a row. */
void qn__broadcast_row(const qn_broadcast *b, size_t row, int64_t offsets[QN_BROADCAST_MAX]);
bool qn__same_dims(const qn_tensor *a, const qn_tensor *b);

extern const qn_run_op qn__op_binary;

#endif
