/* Products of dynamic tensors as the chain of nodes that runtimes fuse into one:
 *
 *     x -> DynamicQuantizeLinear -> q, scale, zero point
 *     q, w, zero point -> MatMulInteger -> Cast -> Mul by scale * w_scale [-> Add of the bias]
 *
 * By rows, for which ONNX has no operator:
 *
 *     x -> Abs -> ReduceMax of the last axis -> Max with a floor -> Div by 127: scale
 *     x -> Div by scale -> Round -> Cast to int8: q
 *     q, w -> MatMulInteger -> Cast -> Mul by w_scale -> Mul by scale [-> Add of the bias]
 */
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_dynamic.h"

static bool is_dynamic(const qn_lower *l, const qn_tensor *t)
{
    return t && t->id < l->n_entries && l->entries[t->id].type.kind == QN_TYPE_DYNAMIC;
}

static const char *without(qn_graph *graph, const char *name, const char *suffix)
{
    const size_t length = strlen(name), n = strlen(suffix);
    return length > n && strcmp(name + length - n, suffix) == 0
               ? qn__arena_strndup(&graph->arena, name, length - n)
               : name;
}

static qn_tensor *emit(qn_graph *graph, qn_op op, const char *base, const char *suffix,
                       qn_tensor *a, qn_tensor *b, qn_tensor *out)
{
    const char *name = qn__onnx_named(graph, base, suffix);
    qn_node *node = name && a ? qn__graph_add_node(graph, SIZE_MAX, op, name, b ? 2 : 1, 1) : NULL;
    if (node && !out)
        out = qn__onnx_fresh(graph, qn__onnx_named(graph, name, "_output"),
                             qn_type_plain_make(QN_DTYPE_F32));
    if (!node || !out)
        return NULL;
    node->inputs[0] = a;
    if (b)
        node->inputs[1] = b;
    if (op == QN_OP_CAST && !qn__node_set_int(graph, node, "to", qn__dtype_onnx(out->type.dtype)))
        return NULL;
    qn__node_set_output(node, 0, out);
    return out;
}

/* One number of each such name in a file. */
static qn_tensor *number(qn_graph *graph, const char *name, qn_dtype dtype, const void *value,
                         size_t bytes)
{
    void *data = NULL;
    qn_blob *const blob = qn__blob_create(graph->ctx, bytes, &data);
    if (!blob)
        return NULL;
    memcpy(data, value, bytes);
    const int64_t dims[1] = {1};
    qn_tensor *const t = qn__onnx_constant(graph, name, dtype, 1, dims, blob);
    qn__blob_unref(blob);
    return t;
}

static qn_tensor *row_maximum(qn_lower *l, const char *base, qn_tensor *x)
{
    qn_graph *graph = l->w->graph;
    const int64_t last = -1;
    const bool as_input = l->w->opset >= 18;
    qn_tensor *const sizes = emit(graph, QN_OP_ABS, base, "_magnitudes", x, NULL, NULL);
    qn_tensor *const axes =
        as_input ? number(graph, "quench_last_axis", QN_DTYPE_I64, &last, sizeof(last)) : NULL;
    if (!sizes || (as_input && !axes))
        return NULL;
    qn_tensor *const most = emit(graph, QN_OP_REDUCE_MAX, base, "_largest", sizes, axes, NULL);
    return most && qn__node_set_int(graph, most->producer, "keepdims", 1) &&
                   (as_input || qn__node_set_ints(graph, most->producer, "axes", &last, 1))
               ? most
               : NULL;
}

static qn_status lower_rows(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    qn_tensor *const t = node->outputs[0], *const x = node->inputs[0];
    qn_lowered *e = &l->entries[t->id];
    const float floor = QN_ROW_FLOOR, steps = QN_ROW_STEPS;
    const char *const base = without(graph, t->name, "_quantized");
    t->type = qn_type_plain_make(QN_DTYPE_I8);
    e->base = base;
    e->q = t;
    t->producer = NULL;
    qn_tensor *const low = number(graph, "quench_row_floor", QN_DTYPE_F32, &floor, sizeof(floor));
    qn_tensor *const by = number(graph, "quench_row_steps", QN_DTYPE_F32, &steps, sizeof(steps));
    qn_tensor *v = base && low && by ? row_maximum(l, base, x) : NULL;
    v = v ? emit(graph, QN_OP_MAX, base, "_floored", v, low, NULL) : NULL;
    e->params.scale = v ? emit(graph, QN_OP_DIV, base, "_scale", v, by, NULL) : NULL;
    v = e->params.scale ? emit(graph, QN_OP_DIV, base, "_steps", x, e->params.scale, NULL) : NULL;
    v = v ? emit(graph, QN_OP_ROUND, base, "_rounded", v, NULL, NULL) : NULL;
    return v && emit(graph, QN_OP_CAST, base, "_integers", v, NULL, t) ? QN_OK : QN_NOMEM(error);
}

static qn_status lower_quantize(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    qn_tensor *t = node->outputs[0];
    qn_lowered *e = &l->entries[t->id];
    const bool by_rows = e->type.dtype == QN_DTYPE_I8 && e->type.quant->axis == 0;
    QN_FAIL_IF(
        e->is_output || (!by_rows && (e->type.dtype != QN_DTYPE_U8 || e->type.quant->axis >= 0)),
        error, QN_UNSUPPORTED, "tensor \"%s\": ONNX has no such scales made at run time", t->name);
    if (by_rows)
        return lower_rows(l, node, error);
    const qn_type u8 = qn_type_plain_make(QN_DTYPE_U8);
    const char *base = without(graph, t->name, "_quantized");
    t->type = u8;
    e->base = base;
    e->q = t;
    e->params.scale = qn__onnx_fresh(graph, qn__onnx_named(graph, base, "_scale"),
                                     qn_type_plain_make(QN_DTYPE_F32));
    e->params.zero_point = qn__onnx_fresh(graph, qn__onnx_named(graph, base, "_zero_point"), u8);
    qn_tensor **outputs = qn__arena_calloc(&graph->arena, 3, sizeof(*outputs));
    if (!base || !e->params.scale || !e->params.zero_point || !outputs)
        return QN_NOMEM(error);
    node->op = QN_OP_DYNAMIC_QUANTIZE_LINEAR;
    node->outputs = outputs;
    node->n_outputs = 3;
    qn__node_set_output(node, 0, e->q);
    qn__node_set_output(node, 1, e->params.scale);
    qn__node_set_output(node, 2, e->params.zero_point);
    return qn__onnx_push_node(graph, node) ? QN_OK : QN_NOMEM(error);
}

typedef struct product {
    qn_tensor *x, *w, *x_scale, *w_scale, *x_zero, *w_zero, *bias;
} product;

/* Integers from [N, K] to [K, N], with parameters named after them. */
static qn_status transpose_weights(qn_lower *l, const qn_tensor *w, qn_type type, product *p,
                                   qn_error *error)
{
    qn_graph *graph = l->w->graph;
    const size_t rows = (size_t)w->dims[0].value, columns = (size_t)w->dims[1].value;
    void *data = NULL;
    qn_blob *blob = qn__blob_create(graph->ctx, rows * columns, &data);
    const char *base = qn__onnx_named(graph, without(graph, w->name, "_quantized"), "_transposed");
    if (!blob)
        return QN_NOMEM(error);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            ((uint8_t *)data)[c * rows + r] = ((const uint8_t *)w->constant->data)[r * columns + c];
    const int64_t dims[2] = {(int64_t)columns, (int64_t)rows};
    const char *name = qn__onnx_named(graph, base, "_quantized");
    p->w = name ? qn__graph_add_constant(graph, name, qn_type_plain_make(type.dtype), 2, dims, blob)
                : NULL;
    qn__blob_unref(blob);
    if (!p->w)
        return QN_NOMEM(error);
    qn_params params;
    QN_TRY(qn__onnx_make_params(l, p->w, type, base, &params, error));
    p->w_scale = params.scale;
    p->w_zero = type.quant->zero_points ? params.zero_point : NULL;
    return QN_OK;
}

static qn_status read_product(qn_lower *l, qn_node *node, product *p, qn_error *error)
{
    const bool gemm = node->op == QN_OP_GEMM;
    qn_tensor *w = node->n_inputs > 1 ? node->inputs[1] : NULL;
    const qn_type type = w && w->id < l->n_entries ? l->entries[w->id].type : (qn_type){0};
    const bool plain = !gemm || (qn__attr_float(node, "alpha", 1.0f) == 1.0f &&
                                 qn__attr_float(node, "beta", 1.0f) == 1.0f &&
                                 qn__attr_int(node, "transA", 0) == 0);
    QN_FAIL_IF(!plain || !w || !w->constant || w->rank != 2 || type.kind != QN_TYPE_QUANT ||
                   qn__dtype_bits(type.dtype) != 8 || type.quant->block != 0 ||
                   type.quant->n_codebook != 0 ||
                   (gemm && node->n_inputs > 2 && node->inputs[2] &&
                    (!node->inputs[2]->constant || node->inputs[2]->type.dtype != QN_DTYPE_F32)),
               error, QN_UNSUPPORTED,
               "node \"%s\": ONNX has no such product with scales made at run time", node->name);
    const qn_lowered *x = &l->entries[node->inputs[0]->id];
    *p = (product){.x = x->q,
                   .x_scale = x->params.scale,
                   .x_zero = x->params.zero_point,
                   .bias = node->n_inputs > 2 ? node->inputs[2] : NULL};
    if (gemm && qn__attr_int(node, "transB", 0) != 0)
        return transpose_weights(l, w, type, p, error);
    qn_lowered *e;
    QN_TRY(qn__onnx_integers_of(l, w, &e, error));
    p->w = e->q;
    p->w_scale = e->params.scale;
    p->w_zero = type.quant->zero_points ? e->params.zero_point : NULL;
    return QN_OK;
}

static qn_status lower_product(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    product p = {0};
    QN_TRY(read_product(l, node, &p, error));
    qn_tensor *const out = node->outputs[0];
    qn_tensor *sums = qn__onnx_fresh(graph, qn__onnx_named(graph, node->name, "_integers"),
                                     qn_type_plain_make(QN_DTYPE_I32));
    qn_tensor **inputs = qn__arena_calloc(&graph->arena, 4, sizeof(*inputs));
    qn_tensor *const made =
        node->act != QN_ACT_NONE ? qn__onnx_before_act(graph, l->w->source, node, out) : out;
    if (!sums || !inputs || !made)
        return QN_NOMEM(error);
    inputs[0] = p.x;
    inputs[1] = p.w;
    inputs[2] = p.x_zero;
    inputs[3] = p.w_zero;
    node->inputs = inputs;
    node->n_inputs = p.w_zero ? 4 : p.x_zero ? 3 : 2;
    node->op = QN_OP_MATMUL_INTEGER;
    static const char *const GONE[] = {"alpha", "beta", "transA", "transB"};
    for (size_t i = 0; i < sizeof(GONE) / sizeof(GONE[0]); i++)
        qn__node_remove_attr(node, GONE[i]);
    qn__node_set_output(node, 0, sums);
    if (!qn__onnx_push_node(graph, node))
        return QN_NOMEM(error);
    qn_tensor *real = emit(graph, QN_OP_CAST, node->name, "_cast", sums, NULL, NULL);
    /* By rows one after the other: ONNX Runtime takes a product of two scales for one of numbers.
     */
    qn_tensor *scale =
        p.x_zero ? emit(graph, QN_OP_MUL, node->name, "_scales", p.x_scale, p.w_scale, NULL)
                 : p.x_scale;
    if (real && !p.x_zero)
        real = emit(graph, QN_OP_MUL, node->name, "_columns", real, p.w_scale, NULL);
    qn_tensor *scaled =
        !scale ? NULL
               : emit(graph, QN_OP_MUL, node->name, "_scaled", real, scale, p.bias ? NULL : made);
    if (scaled && p.bias)
        scaled = emit(graph, QN_OP_ADD, node->name, "_bias", scaled, p.bias, made);
    if (!scaled)
        return QN_NOMEM(error);
    return node->act != QN_ACT_NONE ? qn__onnx_emit_act(l, node, made, out, error) : QN_OK;
}

qn_status qn__onnx_lower_dynamic(qn_lower *l, qn_node *node, bool *done, qn_error *error)
{
    const bool makes = node->n_outputs > 0 && is_dynamic(l, node->outputs[0]);
    bool reads = false;
    for (uint32_t i = 0; i < node->n_inputs; i++)
        reads = reads || is_dynamic(l, node->inputs[i]);
    *done = makes || reads;
    if (!*done)
        return QN_OK;
    if (makes && !reads && node->op == QN_OP_QUANTIZE_LINEAR)
        return lower_quantize(l, node, error);
    if (!makes && (node->op == QN_OP_MATMUL || node->op == QN_OP_GEMM) &&
        is_dynamic(l, node->inputs[0]))
        return lower_product(l, node, error);
    QN_FAIL(error, QN_UNSUPPORTED, "node \"%s\": ONNX has no %s with scales made at run time",
            node->name, qn__op_name(node->op));
}
