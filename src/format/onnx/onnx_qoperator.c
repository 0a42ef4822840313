/* Nodes written as operators on integer tensors (QLinearConv and its like). */
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_lower.h"
#include "format/onnx/onnx_qtypes.h"

typedef struct qop_args {
    qn_tensor **items;
    uint32_t count;
} qop_args;

static void add_arg(qop_args *args, qn_tensor *tensor)
{
    args->items[args->count++] = tensor;
}

/* integers, scale, zero point */
static qn_status add_triple(qn_lower *l, qop_args *args, qn_tensor *tensor, qn_error *error)
{
    qn_lowered *e;
    QN_TRY(qn__onnx_integers_of(l, tensor, &e, error));
    add_arg(args, e->q);
    add_arg(args, e->params.scale);
    add_arg(args, e->params.zero_point);
    return QN_OK;
}

static const qn_type *type_of(const qn_lower *l, const qn_tensor *tensor)
{
    return &l->entries[tensor->id].type;
}

static bool is_8bit(const qn_lower *l, const qn_tensor *tensor)
{
    return qn__onnx_is_quantized(l, tensor) && qn__dtype_bits(type_of(l, tensor)->dtype) == 8 &&
           type_of(l, tensor)->quant->block == 0 && type_of(l, tensor)->quant->n_codebook == 0;
}

static bool is_activation(const qn_lower *l, const qn_tensor *tensor)
{
    return is_8bit(l, tensor) && type_of(l, tensor)->quant->axis < 0;
}

/* Can the third input be the operator's int32 bias? */
static bool bias_works(const qn_lower *l, const qn_node *node)
{
    if (node->n_inputs < 3 || !node->inputs[2])
        return true;
    const qn_tensor *bias = node->inputs[2];
    if (qn__onnx_is_quantized(l, bias))
        return qn__onnx_bias_fits(*type_of(l, bias), *type_of(l, node->inputs[0]),
                                  *type_of(l, node->inputs[1]));
    return bias->constant && bias->type.dtype == QN_DTYPE_F32 && bias->has_shape && bias->rank == 1;
}

/* A float bias becomes int32 with scale s_x * s_w. */
static qn_tensor *integer_bias(qn_lower *l, const qn_node *node, qn_tensor *bias)
{
    qn_graph *graph = l->w->graph;
    const qn_quant *x = type_of(l, node->inputs[0])->quant, *w = type_of(l, node->inputs[1])->quant;
    const size_t count = bias->constant->size_bytes / sizeof(float);
    void *data = NULL;
    qn_blob *blob = qn__blob_create(graph->ctx, count * sizeof(int32_t), &data);
    if (!blob || (w->n_scales != 1 && w->n_scales != count)) {
        qn__blob_unref(blob);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        const float scale = x->scales[0] * w->scales[w->n_scales == 1 ? 0 : i];
        double q = rint(qn__load_real(bias->constant->data, QN_DTYPE_F32, i) / (double)scale);
        q = q > INT32_MAX ? INT32_MAX : q < -INT32_MAX ? -INT32_MAX : q;
        ((int32_t *)data)[i] = (int32_t)q;
    }
    const int64_t dims[1] = {(int64_t)count};
    const char *name = qn__arena_printf(&graph->arena, "%s_quantized", bias->name);
    qn_tensor *tensor =
        name ? qn__graph_add_constant(graph, name, qn_type_plain_make(QN_DTYPE_I32), 1, dims, blob)
             : NULL;
    qn__blob_unref(blob);
    return tensor;
}

static qn_status add_bias(qn_lower *l, const qn_node *node, qop_args *args, qn_error *error)
{
    qn_tensor *bias = node->n_inputs > 2 ? node->inputs[2] : NULL;
    if (bias && qn__onnx_is_quantized(l, bias)) {
        qn_lowered *e;
        QN_TRY(qn__onnx_integers_of(l, bias, &e, error));
        bias = e->q;
    } else if (bias) {
        bias = integer_bias(l, node, bias);
        if (!bias)
            return QN_NOMEM(error);
    }
    add_arg(args, bias);
    return QN_OK;
}

/* May the node be written as its integer operator? */
static bool qop_works(const qn_lower *l, const qn_node *node)
{
    const qn_tensor *out = node->n_outputs > 0 ? node->outputs[0] : NULL;
    const bool float_out = node->op == QN_OP_GEMM && out && !qn__onnx_is_quantized(l, out);
    if (!out || node->n_inputs == 0 || (!float_out && !is_activation(l, out)) ||
        (float_out && node->act != QN_ACT_NONE))
        return false;
    switch (node->op) {
    case QN_OP_CONV:
    case QN_OP_GEMM:
        if (node->op == QN_OP_GEMM && qn__attr_float(node, "beta", 1.0f) != 1.0f)
            return false;
        return node->n_inputs >= 2 && is_activation(l, node->inputs[0]) &&
               is_8bit(l, node->inputs[1]) && bias_works(l, node);
    case QN_OP_MATMUL:
        return node->n_inputs >= 2 && is_activation(l, node->inputs[0]) &&
               is_8bit(l, node->inputs[1]);
    case QN_OP_AVERAGE_POOL:
        if (qn__node_attr(node, "dilations"))
            return false;
        return is_activation(l, node->inputs[0]);
    default:
        for (uint32_t i = 0; i < node->n_inputs; i++)
            if (!is_activation(l, node->inputs[i]))
                return false;
        return true;
    }
}

static qn_status output_params(qn_lower *l, qn_node *node, qop_args *args, qn_tensor **made,
                               qn_error *error)
{
    qn_tensor *unused;
    qn_tensor *out = node->outputs[0];
    *made = out;
    if (!qn__onnx_is_quantized(l, out))
        return QN_OK;
    QN_TRY(qn__onnx_split_output(l, out, false, &unused, error));
    const qn_lowered *e = &l->entries[out->id];
    add_arg(args, e->params.scale);
    add_arg(args, e->params.zero_point);
    *made = e->q;
    return QN_OK;
}

static qn_status collect(qn_lower *l, qn_node *node, qop_args *args, qn_tensor **made,
                         qn_error *error)
{
    switch (node->op) {
    case QN_OP_CONV:
        QN_TRY(add_triple(l, args, node->inputs[0], error));
        QN_TRY(add_triple(l, args, node->inputs[1], error));
        QN_TRY(output_params(l, node, args, made, error));
        return add_bias(l, node, args, error);
    case QN_OP_GEMM:
        QN_TRY(add_triple(l, args, node->inputs[0], error));
        QN_TRY(add_triple(l, args, node->inputs[1], error));
        QN_TRY(add_bias(l, node, args, error));
        return output_params(l, node, args, made, error);
    case QN_OP_CONCAT:
        QN_TRY(output_params(l, node, args, made, error));
        for (uint32_t i = 0; i < node->n_inputs; i++)
            QN_TRY(add_triple(l, args, node->inputs[i], error));
        return QN_OK;
    default:
        for (uint32_t i = 0; i < node->n_inputs; i++)
            QN_TRY(add_triple(l, args, node->inputs[i], error));
        return output_params(l, node, args, made, error);
    }
}

static bool fix_attrs(qn_graph *graph, qn_node *node)
{
    if (node->op == QN_OP_GEMM)
        qn__node_remove_attr(node, "beta");
    if (node->op == QN_OP_SOFTMAX)
        return qn__node_set_int(graph, node, "axis", qn__attr_int(node, "axis", -1)) &&
               qn__node_set_int(graph, node, "opset", 13);
    return true;
}

static qn_status push(qn_graph *graph, qn_node *node, qn_error *error)
{
    if (!QN_GROW(graph->ctx, &graph->nodes, &graph->nodes_capacity, graph->n_nodes))
        return QN_NOMEM(error);
    graph->nodes[graph->n_nodes++] = node;
    return QN_OK;
}

static qn_status lower_qop(qn_lower *l, qn_node *node, const qn_qop_info *info, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    qop_args args = {0};
    args.items =
        qn__arena_calloc(&graph->arena, (size_t)node->n_inputs * 3 + 3, sizeof(*args.items));
    if (!args.items)
        return QN_NOMEM(error);
    qn_tensor *const out = node->outputs[0];
    qn_tensor *made = NULL;
    QN_TRY(collect(l, node, &args, &made, error));
    while (args.count > 0 && !args.items[args.count - 1])
        args.count--;
    node->inputs = args.items;
    node->n_inputs = args.count;
    qn__node_set_output(node, 0, made);
    if (!fix_attrs(graph, node) || !qn__onnx_set_written_op(l->w, node, info->domain, info->name))
        return QN_NOMEM(error);
    QN_TRY(push(graph, node, error));
    return qn__onnx_is_quantized(l, out) ? qn__onnx_act_on_integers(l, node, out, error) : QN_OK;
}

/* Movers with equal parameters on both sides run on the integers themselves, and what did so in the
 * file that was read. */
static bool mover_works(const qn_lower *l, const qn_node *node)
{
    if ((!qn__onnx_is_mover(node) && !qn__onnx_truncates(node)) || node->n_inputs == 0 ||
        !qn__onnx_is_quantized(l, node->inputs[0]) || node->act != QN_ACT_NONE)
        return false;
    for (uint32_t i = 1; i < node->n_inputs; i++)
        if (qn__onnx_is_quantized(l, node->inputs[i]))
            return false;
    for (uint32_t i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] &&
            (!qn__onnx_is_quantized(l, node->outputs[i]) ||
             !qn__onnx_same_quant(*type_of(l, node->inputs[0]), *type_of(l, node->outputs[i]))))
            return false;
    return true;
}

static qn_status lower_mover(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_lowered *in;
    QN_TRY(qn__onnx_integers_of(l, node->inputs[0], &in, error));
    node->inputs[0] = in->q;
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        qn_tensor *unused, *out = node->outputs[i];
        if (!out)
            continue;
        QN_TRY(qn__onnx_split_output(l, out, false, &unused, error));
        qn__node_set_output(node, i, l->entries[out->id].q);
    }
    return push(l->w->graph, node, error);
}

qn_status qn__onnx_lower_qoperator(qn_lower *l, qn_node *node, bool *done, qn_error *error)
{
    *done = true;
    if (mover_works(l, node))
        return lower_mover(l, node, error);
    for (int i = 1; i < QN_QOP_COUNT; i++) {
        const qn_qop_info *info = qn__qop_info((qn_qop)i);
        if (info->op == node->op && qop_works(l, node))
            return lower_qop(l, node, info, error);
    }
    *done = false;
    return QN_OK;
}
