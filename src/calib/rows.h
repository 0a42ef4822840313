/* Sampled input vectors of layers with weights, for rounding that compensates its errors: which
 * rows are taken depends on the sample's index and the layer alone, so threads do not show. */
#ifndef QN_CALIB_ROWS_H
#define QN_CALIB_ROWS_H

#include "run/run.h"

typedef struct qn_rows {
    uint32_t node; /* position in the graph's nodes */
    size_t groups; /* of the convolution; 1 otherwise */
    size_t k;      /* weights of one output channel, in the order [kh][kw][cin / groups] */
    size_t n_rows; /* in all samples together */
    float *data;   /* [n_rows][groups * k]; a row that was never filled is zero */
} qn_rows;

/* Rows of all layers together. */
#define QN_ROWS_BYTES ((size_t)256 << 20)
/* Room for the rows of a Conv, Gemm or MatMul with constant weights, max_bytes at most unless that
 * is less than 64 rows. out->data stays NULL for a node whose inputs are not laid out for it (a transposed Gemm input, weights of another rank). */
qn_status qn__rows_create(const qn_graph *graph, uint32_t node, size_t max_bytes, qn_rows *out,
                          qn_error *error);
void qn__rows_free(const qn_context *ctx, qn_rows *rows);
/* Copies the rows of sample `sample` of n_samples out of the node's input. */
void qn__rows_add(const qn_rows *rows, const qn_node *node, const qn_view *input, uint64_t sample,
                  uint64_t n_samples);

#endif
