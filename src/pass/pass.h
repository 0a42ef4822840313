/* Rewrites that keep what a float graph computes and make it smaller: run before calibration and
 * before planning. Each pass is one function in one file and leaves a graph that verifies; names
 * and dimensions of graph inputs and outputs never change, and a node that takes others in also
 * takes their source links.
 */
#ifndef QN_PASS_PASS_H
#define QN_PASS_PASS_H

#include "ir/graph.h"

typedef struct qn_pass_options {
    /* Constant folding (run/run.h, qn__graph_resolve), called first; NULL: shapes are inferred, and
     * nothing is folded. A pointer, because passes do not depend on the executor. */
    qn_status (*resolve)(qn_graph *graph, size_t max_bytes, qn_error *error);
    size_t resolve_max_bytes; /* largest tensor it may make */
    bool fuse_activations;    /* Relu and Clip into node->act */
    bool fold_batch_norm;     /* BatchNormalization into weights */
    uint32_t without;         /* bit i: the i-th pass of pass_list.def is left out */
} qn_pass_options;
/* Parts that a Concat has after the passes: what a node may have when it runs (run/op.h). */
enum { QN_PASS_MOST_PARTS = 64 };
/* resolve NULL, 64 MiB, everything on. */
void qn__pass_options_init(qn_pass_options *options);

/* Of pass_list.def; name NULL past the end. */
const char *qn__pass_name(size_t index);
/* All passes of pass_list.def in order, with a check after each. */
qn_status qn__passes_simplify(qn_graph *graph, const qn_pass_options *options, qn_error *error);

#define QN_PASS(function, summary)                                                                 \
    qn_status function(qn_graph *graph, const qn_pass_options *options, qn_error *error);
#include "pass/pass_list.def"
#undef QN_PASS

/* Tensors that are rounded and clipped to whole numbers of a byte become quantized ones of scale 1,
 * convolutions between them integer ones, where that gives the same results. Not one of the list:
 * only what is run, and never written as it was read, is rewritten so. */
qn_status qn__whole_numbers_to_bytes(qn_graph *graph, qn_error *error);

/* Signed bytes between nodes become unsigned ones of the same values, inputs and outputs of the
 * graph stay. Not one of the list, for the same reason. */
qn_status qn__signed_bytes_to_unsigned(qn_graph *graph, qn_error *error);

/* Nodes that make bytes of bytes, each of one, become tables. They are computed by `resolve`
 * (qn_pass_options), sums requantized as the graph will be when it runs. Not one of the list, for
 * the same reason. */
qn_status qn__bytes_to_tables(qn_graph *graph, qn_requantize requantize,
                              qn_status (*resolve)(qn_graph *graph, size_t max_bytes,
                                                   qn_error *error),
                              qn_error *error);

/* --- shared by passes -------------------------------------------------------------------------*/
/* Node that makes `tensor` when its value has no other reader and is no graph output; else NULL. */
qn_node *qn__pass_sole_producer(const qn_uses *uses, const qn_tensor *tensor);
/* `node` writes the output of `next` instead of its own, which nothing reads any more. */
void qn__pass_take_output(qn_node *node, qn_node *next);

/* y[c] = a[c] * x[c] + b[c] along axis 1; arrays of n. */
typedef struct qn_affine {
    size_t n;
    double *a, *b; /* in the graph's arena */
} qn_affine;
/* Multiplies into the weights and bias of a Conv, ConvTranspose or Gemm. *done false, and nothing
 * changed, when it cannot be expressed (weights not constant, result not finite, channels). */
qn_status qn__affine_apply(qn_graph *graph, qn_node *node, const qn_affine *affine,
                           const qn_uses *uses, bool *done, qn_error *error);
/* The map of a BatchNormalization (inference) in double. *ok false: parameters not constant, or it
 * is in training mode. */
qn_status qn__affine_of_bn(qn_graph *graph, const qn_node *node, qn_affine *out, bool *ok,
                           qn_error *error);

#endif
