/* Models of float16, bfloat16 and double are computed, calibrated and quantized in float32: every
 * such value becomes float32, with a Cast behind each input and in front of each output, whose
 * types are what callers know. Runtimes quantize around float32 only, and run these Casts. */
#include "pass/pass.h"

#include "core/context.h"

#include <float.h>
#include <math.h>

enum {
    ONNX_FLOAT = 1,
    ONNX_FLOAT16 = 10,
    ONNX_DOUBLE = 11,
    ONNX_BFLOAT16 = 16,
    TABLE_BYTES = 4096 /* from here on a table of halves that is only looked up stays as it is */
};

static bool is_other(qn_dtype dtype)
{
    return dtype == QN_DTYPE_F16 || dtype == QN_DTYPE_BF16 || dtype == QN_DTYPE_F64;
}

static bool is_other_tensor(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_PLAIN && is_other(t->type.dtype);
}

static int64_t code_of(qn_dtype dtype)
{
    return dtype == QN_DTYPE_F16   ? ONNX_FLOAT16
           : dtype == QN_DTYPE_F64 ? ONNX_DOUBLE
                                   : ONNX_BFLOAT16;
}

/* What is beyond float32's range becomes its end: masks are made of the lowest double. */
static float narrowed(double value)
{
    if (isinf(value) || isnan(value))
        return (float)value;
    return value > (double)FLT_MAX ? FLT_MAX : value < -(double)FLT_MAX ? -FLT_MAX : (float)value;
}

static qn_status as_float32(const qn_context *ctx, const char *name, const qn_blob *from,
                            qn_dtype dtype, qn_blob **out, qn_error *error)
{
    const size_t count = from->size_bytes / (qn__dtype_bits(dtype) / 8);
    size_t bytes;
    void *data;
    QN_FAIL_IF(!qn_mul_size(&bytes, count, sizeof(float)) || bytes > ctx->limits.tensor_bytes,
               error, QN_LIMIT, "tensor \"%s\" has %zu elements, above the limit as float32", name,
               count);
    *out = qn__blob_create(ctx, bytes, &data);
    if (*out == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++)
        ((float *)data)[i] = narrowed(qn__load_real(from->data, dtype, i));
    return QN_OK;
}

static qn_status convert_constant(qn_graph *graph, qn_tensor *t, qn_error *error)
{
    qn_blob *blob;
    QN_TRY(as_float32(graph->ctx, t->name, t->constant, t->type.dtype, &blob, error));
    t->type = qn_type_plain_make(QN_DTYPE_F32);
    qn__tensor_set_constant(t, blob);
    qn__blob_unref(blob);
    return QN_OK;
}

static qn_status convert_attributes(qn_graph *graph, qn_node *node, qn_error *error)
{
    static const char *const types[] = {"to", "dtype", "output_dtype"};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        const int64_t code = qn__attr_int(node, types[i], 0);
        if ((code == ONNX_FLOAT16 || code == ONNX_DOUBLE || code == ONNX_BFLOAT16) &&
            !qn__node_set_int(graph, node, types[i], ONNX_FLOAT))
            return QN_NOMEM(error);
    }
    qn__node_remove_attr(node, "precision"); /* of QuantizeLinear */
    for (uint32_t a = 0; a < node->n_attrs; a++) {
        const qn_attr old = node->attrs[a];
        qn_blob *blob;
        if (old.kind != QN_ATTR_TENSOR || !is_other(old.t_dtype))
            continue;
        QN_TRY(as_float32(graph->ctx, node->name, old.t, old.t_dtype, &blob, error));
        const bool set =
            qn__node_set_tensor(graph, node, old.name, blob, QN_DTYPE_F32, old.t_rank, old.t_dims);
        qn__blob_unref(blob);
        if (!set)
            return QN_NOMEM(error);
    }
    return QN_OK;
}

static qn_tensor *twin(qn_graph *graph, const qn_tensor *of, const char *suffix, qn_dtype dtype)
{
    return qn__graph_add_twin(graph, of, suffix, qn_type_plain_make(dtype));
}

static qn_status add_cast(qn_graph *graph, size_t at, qn_tensor *from, qn_tensor *to, int64_t code,
                          qn_error *error)
{
    qn_node *node = qn__graph_add_between(graph, at, QN_OP_CAST, from, to, to);
    return node != NULL && qn__node_set_int(graph, node, "to", code) ? QN_OK : QN_NOMEM(error);
}

/* Readers of `old`, but not the graph's outputs, read `now`. */
static void replace_readers(qn_graph *graph, qn_tensor *old, qn_tensor *now)
{
    qn__graph_replace_uses(graph, old, now);
    for (size_t i = 0; i < graph->n_outputs; i++)
        if (graph->outputs[i] == now)
            graph->outputs[i] = old;
}

static qn_status cast_output(qn_graph *graph, qn_tensor *t, qn_error *error)
{
    qn_tensor *inner = twin(graph, t, "float32", QN_DTYPE_F32);
    if (inner == NULL)
        return QN_NOMEM(error);
    qn_node *producer = t->producer;
    const uint32_t slot = t->producer_output;
    qn__node_set_output(producer, slot, inner);
    replace_readers(graph, t, inner);
    return add_cast(graph, SIZE_MAX, inner, t, code_of(t->type.dtype), error);
}

static qn_status cast_input(qn_graph *graph, qn_tensor *t, qn_error *error)
{
    qn_tensor *inner = twin(graph, t, "float32", QN_DTYPE_F32);
    if (inner == NULL)
        return QN_NOMEM(error);
    replace_readers(graph, t, inner);
    return add_cast(graph, 0, t, inner, ONNX_FLOAT, error);
}

/* A table of halves that is only looked up: converting what is found keeps the file small. */
static bool is_table(const qn_uses *uses, const qn_tensor *t)
{
    if (t->constant->size_bytes < TABLE_BYTES || t->type.dtype == QN_DTYPE_F64 ||
        uses->is_output[t->id] || qn_uses_count(uses, t) == 0)
        return false;
    for (size_t u = uses->offsets[t->id]; u < uses->offsets[t->id + 1]; u++) {
        const qn_node *node = uses->users[u];
        if (node->op != QN_OP_GATHER || node->inputs[0] != t || node->inputs[1] == t ||
            !is_other_tensor(node->outputs[0]) || uses->is_output[node->outputs[0]->id])
            return false;
    }
    return true;
}

static qn_status cast_found(qn_graph *graph, qn_node *node, qn_error *error)
{
    qn_tensor *found = node->outputs[0];
    const char *suffix = qn__dtype_name(found->type.dtype);
    qn_tensor *half = twin(graph, found, suffix, found->type.dtype);
    size_t at = 0;
    if (half == NULL)
        return QN_NOMEM(error);
    while (graph->nodes[at] != node)
        at++;
    qn__node_set_output(node, 0, half);
    found->type = qn_type_plain_make(QN_DTYPE_F32);
    return add_cast(graph, at + 1, half, found, ONNX_FLOAT, error);
}

static qn_status convert_tables(qn_graph *graph, uint8_t *keep, qn_error *error)
{
    qn_uses uses;
    qn_status status = QN_OK;
    const size_t n_tensors = graph->n_tensors;
    QN_TRY(qn__uses_build(graph, &uses, error));
    for (size_t i = 0; i < n_tensors; i++) {
        qn_tensor *t = graph->tensors[i];
        if (!is_other_tensor(t) || t->constant == NULL || !is_table(&uses, t))
            continue;
        keep[i] = 1;
        for (size_t u = uses.offsets[i]; u < uses.offsets[i + 1]; u++)
            QN_TRY_GOTO(cast_found(graph, uses.users[u], error));
    }
done:
    qn__uses_free(&uses);
    return status;
}

static bool is_needed(const qn_graph *graph)
{
    for (size_t i = 0; i < graph->n_tensors; i++)
        if (is_other_tensor(graph->tensors[i]))
            return true;
    return false;
}

static qn_status convert(qn_graph *graph, uint8_t *keep, qn_error *error)
{
    const size_t n_tensors = graph->n_tensors;
    QN_TRY(convert_tables(graph, keep, error));
    for (size_t i = 0; i < graph->n_nodes; i++)
        QN_TRY(convert_attributes(graph, graph->nodes[i], error));
    for (size_t i = 0; i < graph->n_outputs; i++) {
        qn_tensor *t = graph->outputs[i];
        if (!is_other_tensor(t) || keep[t->id]) /* keep: an output twice */
            continue;
        keep[t->id] = 1;
        if (t->producer != NULL)
            QN_TRY(cast_output(graph, t, error));
    }
    for (size_t i = 0; i < graph->n_inputs; i++) {
        if (!is_other_tensor(graph->inputs[i]))
            continue;
        keep[graph->inputs[i]->id] = 1;
        QN_TRY(cast_input(graph, graph->inputs[i], error));
    }
    for (size_t i = 0; i < n_tensors; i++) {
        qn_tensor *t = graph->tensors[i];
        if (!is_other_tensor(t) || keep[i])
            continue;
        if (t->constant != NULL)
            QN_TRY(convert_constant(graph, t, error));
        else
            t->type = qn_type_plain_make(QN_DTYPE_F32);
    }
    return QN_OK;
}

qn_status qn__pass_float32(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    if (!is_needed(graph))
        return QN_OK;
    uint8_t *keep = qn__calloc(graph->ctx, graph->n_tensors, 1);
    if (keep == NULL)
        return QN_NOMEM(error);
    const qn_status status = convert(graph, keep, error);
    qn__free(graph->ctx, keep);
    if (status != QN_OK)
        return status;
    QN_TRY(qn__arena_check(&graph->arena, error));
    return options->resolve != NULL ? options->resolve(graph, options->resolve_max_bytes, error)
                                    : qn__graph_infer(graph, error);
}
