/* DequantizeLinear with a scale that is made at run time, which no type can say, becomes Cast, Sub
 * and Mul. They need to know whether there is one scale or one for each place along an axis. */
#include <inttypes.h>

#include "core/context.h"
#include "format/onnx/onnx_read.h"

typedef struct lowering {
    const qn_onnx_reader *r;
    qn_node *node;
    size_t at; /* where the node is */
    size_t rank, axis, count;
} lowering;

static bool is_plain(const qn_tensor *t)
{
    return t && t->type.kind == QN_TYPE_PLAIN;
}

static qn_status check(lowering *l, qn_error *error)
{
    const qn_node *const node = l->node;
    const qn_tensor *const x = node->inputs[0], *const scale = node->inputs[1];
    const qn_tensor *const zero = node->n_inputs > 2 ? node->inputs[2] : NULL;
    size_t zeros;
    if (!x || node->n_outputs != 1 || !node->outputs[0])
        return qn__onnx_node_fail(l->r, node, error, QN_CORRUPT, "needs an input and an output");
    if (!is_plain(x) || qn__dtype_is_float(x->type.dtype) || x->type.dtype == QN_DTYPE_BOOL ||
        qn__dtype_bits(x->type.dtype) > 32)
        return qn__onnx_node_fail(l->r, node, error, QN_UNSUPPORTED,
                                  "\"%s\" is no plain integer, and scale \"%s\" is not constant",
                                  x->name, scale->name);
    if (!is_plain(scale) || scale->type.dtype != QN_DTYPE_F32 ||
        qn__attr_int(node, "output_dtype", 1) != 1 || qn__attr_int(node, "block_size", 0) != 0)
        return qn__onnx_node_fail(
            l->r, node, error, QN_UNSUPPORTED, "scale \"%s\" is not constant, and of %s",
            scale->name, qn__attr_int(node, "block_size", 0) != 0 ? "blocks" : "another type");
    if (!x->has_shape || !qn__tensor_count(scale, &l->count) || scale->rank > 1 ||
        (zero && !qn__tensor_count(zero, &zeros)))
        return qn__onnx_node_fail(
            l->r, node, error, QN_UNSUPPORTED,
            "scale \"%s\" is not constant, nor known to be a number or a vector", scale->name);
    if (zero && (!is_plain(zero) || zero->type.dtype != x->type.dtype || zeros != l->count ||
                 zero->rank > 1))
        return qn__onnx_node_fail(l->r, node, error, QN_CORRUPT,
                                  "zero point \"%s\" does not fit \"%s\" and its scale", zero->name,
                                  x->name);
    l->rank = x->rank;
    l->axis = x->rank == 0 ? 0 : x->rank - 1u;
    if (l->count != 1) {
        const int64_t axis = qn__attr_int(node, "axis", 1);
        l->axis = (size_t)(axis < 0 ? axis + (int64_t)x->rank : axis);
        if (l->axis >= x->rank ||
            (x->dims[l->axis].kind == QN_DIM_CONST && (size_t)x->dims[l->axis].value != l->count))
            return qn__onnx_node_fail(l->r, node, error, QN_CORRUPT,
                                      "%zu scales do not fit axis %" PRId64 " of \"%s\"", l->count,
                                      axis, x->name);
    } else if (scale->rank > x->rank) {
        return qn__onnx_node_fail(l->r, node, error, QN_UNSUPPORTED,
                                  "scale \"%s\" is not constant, and has more axes than \"%s\"",
                                  scale->name, x->name);
    }
    return QN_OK;
}

static qn_tensor *put(lowering *l, qn_op op, const char *what, qn_tensor *a, qn_tensor *b)
{
    qn_tensor *const inputs[QN_ONNX_PUT] = {a, b};
    return a ? qn__onnx_put(l->r->graph, &l->at, l->node, op, what, QN_DTYPE_F32, inputs) : NULL;
}

/* A vector lies along our axis when it has ones behind it. */
static qn_tensor *align(lowering *l, qn_tensor *vector)
{
    const size_t behind = l->axis + 1 < l->rank ? l->rank - 1 - l->axis : 0;
    int64_t shape[QN_MAX_RANK];
    if (!vector || l->count == 1 || behind == 0)
        return vector;
    for (size_t i = 0; i <= behind; i++)
        shape[i] = i == 0 ? (int64_t)l->count : 1;
    qn_tensor *const to = qn__onnx_const_ints(l->r->graph, "shape", shape, 1 + behind);
    return to ? put(l, QN_OP_RESHAPE, "Reshape", vector, to) : NULL;
}

static qn_status lower(lowering *l, qn_error *error)
{
    qn_node *const node = l->node;
    QN_TRY(check(l, error));
    qn_tensor *const scale = align(l, node->inputs[1]);
    qn_tensor *value = put(l, QN_OP_CAST, "Cast", node->inputs[0], NULL);
    if (value && node->n_inputs > 2 && node->inputs[2]) {
        qn_tensor *const zero = align(l, put(l, QN_OP_CAST, "zero", node->inputs[2], NULL));
        value = zero ? put(l, QN_OP_SUB, "Sub", value, zero) : NULL;
    }
    if (!value || !scale)
        return QN_NOMEM(error);
    node->op = QN_OP_MUL;
    node->inputs[0] = value;
    node->inputs[1] = scale;
    node->n_inputs = 2;
    qn__node_remove_attr(node, "axis");
    qn__node_remove_attr(node, "block_size");
    qn__node_remove_attr(node, "output_dtype");
    return QN_OK;
}

qn_status qn__onnx_lower_made_scales(qn_onnx_reader *r, bool *changed, qn_error *error)
{
    for (size_t i = 0; i < r->graph->n_nodes; i++) {
        lowering l = {.r = r, .node = r->graph->nodes[i], .at = i};
        if (l.node->op != QN_OP_DEQUANTIZE_LINEAR || l.node->n_inputs < 2)
            continue;
        QN_TRY(lower(&l, error));
        *changed = true;
        i = l.at;
    }
    return QN_OK;
}
