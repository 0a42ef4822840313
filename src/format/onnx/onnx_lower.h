/* State of expanding one graph for writing; shared by the QDQ and the QOperator form. */
#ifndef QN_FORMAT_ONNX_LOWER_H
#define QN_FORMAT_ONNX_LOWER_H

#include "format/onnx/onnx_write.h"

typedef struct qn_params {
    qn_tensor *scale, *zero_point;
} qn_params;

/* What became of one tensor of the graph. */
typedef struct qn_lowered {
    qn_type type;     /* as it was */
    const char *base; /* names of its parts start with this */
    qn_tensor *q;     /* the integers */
    qn_tensor *from;  /* float values they were made of, or NULL */
    qn_tensor *dq;    /* float values made of them */
    qn_params params;
    bool is_output; /* of the graph */
    bool moved;     /* only moved bytes, and then rescaled: floats in the file */
} qn_lowered;

typedef struct qn_lower {
    qn_onnx_writer *w;
    qn_lowered *entries; /* by id of the tensors that were there */
    size_t n_entries;
    uint8_t *graph_output; /* by the same */
} qn_lower;

/* base and suffix in one; NULL without memory, or where base is NULL. */
const char *qn__onnx_named(qn_graph *graph, const char *base, const char *suffix);
/* A constant of that name and content, the file's own where it has one (a file may write one scale
 * as a vector of one); NULL without memory, or where name is NULL. */
qn_tensor *qn__onnx_constant(qn_graph *graph, const char *name, qn_dtype dtype, size_t rank,
                             const int64_t *dims, qn_blob *blob);
qn_tensor *qn__onnx_fresh(qn_graph *graph, const char *name, qn_type type);
bool qn__onnx_is_quantized(const qn_lower *l, const qn_tensor *tensor);
qn_status qn__onnx_make_params(qn_lower *l, const qn_tensor *tensor, qn_type type, const char *base,
                               qn_params *out, qn_error *error);
qn_status qn__onnx_integers_of(qn_lower *l, qn_tensor *tensor, qn_lowered **out, qn_error *error);
qn_status qn__onnx_float_of(qn_lower *l, qn_tensor *tensor, qn_tensor **out, qn_error *error);
qn_status qn__onnx_split_output(qn_lower *l, qn_tensor *tensor, bool want_float, qn_tensor **made,
                                qn_error *error);
qn_status qn__onnx_lower_float(qn_lower *l, qn_node *node, qn_error *error);
qn_status qn__onnx_act_on_integers(qn_lower *l, qn_node *node, qn_tensor *tensor, qn_error *error);
bool qn__onnx_push_node(qn_graph *graph, qn_node *node);
/* The tensor in front of a node's activation, and the activation as a node behind it. */
qn_tensor *qn__onnx_before_act(qn_graph *graph, const qn_onnx_source *source, const qn_node *node,
                               const qn_tensor *after);
qn_status qn__onnx_emit_act(qn_lower *l, qn_node *node, qn_tensor *before, qn_tensor *after,
                            qn_error *error);
qn_status qn__onnx_lower_table(qn_lower *l, qn_node *node, qn_error *error);
/* Writes the node as an operator on integers when there is one; *done tells. */
qn_status qn__onnx_lower_qoperator(qn_lower *l, qn_node *node, bool *done, qn_error *error);

#endif
