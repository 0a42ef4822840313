/* What the two halves of the rewriting share: types and connections (rewrite.c), weights and biases
 * (rewrite_weights.c). */
#ifndef QN_QUANT_REWRITE_H
#define QN_QUANT_REWRITE_H

#include "quant/quant.h"

typedef struct qn_rewriter {
    qn_quant_plan *plan;
    qn_graph *graph;
    size_t n_tensors;        /* of the float graph */
    qn_tensor **quantized;   /* [n_tensors] integer twin of a float tensor, or NULL */
    qn_tensor **dequantized; /* [n_tensors] float twin of an integer tensor, or NULL */
    const qn_mean_shifts *means;
    float **shifts; /* by node position, or NULL */
    qn_error *error;
} qn_rewriter;

/* Replaces input `index` of node by a constant of another type and contents: in place when nobody
 * else reads it. */
qn_status qn__rewrite_constant(qn_rewriter *r, qn_node *node, uint32_t index, qn_type type,
                               size_t rank, const int64_t *dims, qn_blob *blob);
/* Weights of the node at `position` of the plan, and its bias. */
qn_status qn__rewrite_weights(qn_rewriter *r, qn_node *node, size_t position);
/* Weights alone, in blocks. */
qn_status qn__rewrite_blocks(qn_rewriter *r, qn_node *node, size_t position);

#endif
