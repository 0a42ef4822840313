/* Expands what the graph says in types and fused activations into nodes an ONNX runtime knows.
 *
 * QDQ: a quantized activation t that a node makes becomes
 *     node -> t (float) -> t_QuantizeLinear -> t_quantized -> t_DequantizeLinear -> consumers
 * QOperator: nodes with an integer version read and write t_quantized directly; the others stand
 * between a DequantizeLinear and a QuantizeLinear. */
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_blocks.h"
#include "format/onnx/onnx_dynamic.h"
#include "format/onnx/onnx_lower.h"
#include "format/onnx/onnx_qtypes.h"

bool qn__onnx_set_written_op(qn_onnx_writer *w, const qn_node *node, const char *domain,
                             const char *name)
{
    if (node->id >= w->n_ops) {
        const size_t count = (size_t)node->id * 2 + 64;
        qn_written_op *ops = qn__reallocarray(w->graph->ctx, w->ops, count, sizeof(*ops));
        if (!ops)
            return false;
        memset(ops + w->n_ops, 0, (count - w->n_ops) * sizeof(*ops));
        w->ops = ops;
        w->n_ops = count;
    }
    w->ops[node->id] = (qn_written_op){domain, name};
    w->microsoft = w->microsoft || strcmp(domain, "com.microsoft") == 0;
    return true;
}

bool qn__onnx_push_node(qn_graph *graph, qn_node *node)
{
    if (!QN_GROW(graph->ctx, &graph->nodes, &graph->nodes_capacity, graph->n_nodes))
        return false;
    graph->nodes[graph->n_nodes++] = node;
    return true;
}

/* "conv1.weight_quantized" -> "conv1.weight" */
static const char *base_name(qn_graph *graph, const char *name)
{
    static const char SUFFIX[] = "_quantized";
    const size_t length = strlen(name), suffix = sizeof(SUFFIX) - 1;
    if (length > suffix && strcmp(name + length - suffix, SUFFIX) == 0)
        return qn__arena_strndup(&graph->arena, name, length - suffix);
    return name;
}

const char *qn__onnx_named(qn_graph *graph, const char *base, const char *suffix)
{
    return base ? qn__arena_printf(&graph->arena, "%s%s", base, suffix) : NULL;
}

/* A tensor for a value the graph has no tensor for. One of that name which nothing makes any more
 * (a reader or pass folded its node away) is taken again, so that names survive a round trip. */
qn_tensor *qn__onnx_fresh(qn_graph *graph, const char *name, qn_type type)
{
    if (!name)
        return NULL;
    qn_tensor *old = qn__graph_find_tensor(graph, name);
    bool is_free = old && !old->producer && !old->constant;
    for (size_t i = 0; is_free && i < graph->n_inputs; i++)
        is_free = graph->inputs[i] != old;
    if (is_free)
        old->type = type;
    return is_free ? old : qn__graph_add_tensor(graph, name, type);
}

qn_tensor *qn__onnx_constant(qn_graph *graph, const char *name, qn_dtype dtype, size_t rank,
                             const int64_t *dims, qn_blob *blob)
{
    if (!name)
        return NULL;
    qn_tensor *old = qn__graph_find_tensor(graph, name);
    if (old && old->constant && old->type.kind == QN_TYPE_PLAIN && old->type.dtype == dtype &&
        (old->rank == rank || (rank == 0 && old->rank == 1)) &&
        old->constant->size_bytes == blob->size_bytes &&
        memcmp(old->constant->data, blob->data, blob->size_bytes) == 0)
        return old;
    return qn__graph_add_constant(graph, name, qn_type_plain_make(dtype), rank, dims, blob);
}

/* --- scales and zero points -------------------------------------------------------------------*/
/* Shape of the parameters: scalar, one per channel, or the tensor's with blocks. */
static bool param_dims(const qn_tensor *tensor, const qn_quant *quant, size_t *rank, int64_t *dims)
{
    *rank = 0;
    if (quant->axis < 0)
        return true;
    if (quant->block == 0) {
        *rank = 1;
        dims[0] = (int64_t)quant->n_scales;
        return true;
    }
    if (!qn__tensor_static_dims(tensor, dims))
        return false;
    *rank = tensor->rank;
    dims[quant->axis] = (dims[quant->axis] + quant->block - 1) / quant->block;
    return true;
}

/* The scales as `dtype`; NULL where one is no number of that type, *exact false then. */
static qn_blob *scales_as(qn_graph *graph, const qn_quant *quant, qn_dtype dtype, bool *exact)
{
    size_t bytes;
    void *data = NULL;
    *exact = true;
    if (!qn__dtype_bytes(&bytes, dtype, quant->n_scales))
        return NULL;
    qn_blob *blob = qn__blob_create(graph->ctx, bytes, &data);
    for (size_t i = 0; blob && i < quant->n_scales && *exact; i++) {
        qn__store_real(data, dtype, i, (double)quant->scales[i]);
        *exact = (float)qn__load_real(data, dtype, i) == quant->scales[i];
    }
    if (*exact)
        return blob;
    qn__blob_unref(blob);
    return NULL;
}

/* *exact, if asked for: whether the scales are numbers of `dtype`; no parameters if not. */
static qn_status make_params(qn_lower *l, const qn_tensor *tensor, qn_type type, const char *base,
                             qn_dtype dtype, qn_params *out, bool *exact, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    const qn_quant *quant = type.quant;
    size_t rank;
    int64_t dims[QN_MAX_RANK] = {0};
    *out = (qn_params){0};
    QN_FAIL_IF(quant->n_codebook > 0, error, QN_UNSUPPORTED, "tensor \"%s\": ONNX has no codebooks",
               tensor->name);
    QN_FAIL_IF(!param_dims(tensor, quant, &rank, dims), error, QN_UNSUPPORTED,
               "tensor \"%s\": blocks need a fixed shape", tensor->name);
    /* Viewers know a bias's parameters by this name. */
    if (type.dtype == QN_DTYPE_I32 && tensor->constant)
        base = qn__onnx_named(graph, base, "_quantized");
    size_t bytes;
    void *zeros = NULL;
    if (!qn__dtype_bytes(&bytes, type.dtype, quant->n_scales))
        return QN_NOMEM(error);
    qn_blob *scales = scales_as(graph, quant, dtype, exact);
    if (!*exact)
        return QN_OK;
    qn_blob *points = qn__blob_create(graph->ctx, bytes, &zeros);
    for (size_t i = 0; points && quant->zero_points && i < quant->n_scales; i++)
        qn__store_int(zeros, type.dtype, i, quant->zero_points[i]);
    if (scales && points) {
        out->scale = qn__onnx_constant(graph, qn__onnx_named(graph, base, "_scale"), dtype, rank,
                                       dims, scales);
        out->zero_point = qn__onnx_constant(graph, qn__onnx_named(graph, base, "_zero_point"),
                                            type.dtype, rank, dims, points);
    }
    qn__blob_unref(scales);
    qn__blob_unref(points);
    return out->scale && out->zero_point ? QN_OK : QN_NOMEM(error);
}

qn_status qn__onnx_make_params(qn_lower *l, const qn_tensor *tensor, qn_type type, const char *base,
                               qn_params *out, qn_error *error)
{
    bool exact; /* as float32 they always are */
    return make_params(l, tensor, type, base, QN_DTYPE_F32, out, &exact, error);
}

/* axis and block_size of a Quantize/DequantizeLinear */
static bool set_axis(qn_graph *graph, qn_node *node, const qn_quant *quant)
{
    if (quant->axis >= 0 && !qn__node_set_int(graph, node, "axis", quant->axis))
        return false;
    return quant->block == 0 || qn__node_set_int(graph, node, "block_size", quant->block);
}

qn_node *qn__onnx_pair_node(qn_lower *l, qn_op op, const char *name, const qn_quant *quant,
                            qn_tensor *in, const qn_params *params, qn_tensor *out)
{
    qn_graph *graph = l->w->graph;
    if (!name || !in || !out)
        return NULL;
    qn_node *node = qn__graph_add_node(graph, SIZE_MAX, op, name, 3, 1);
    if (!node || !set_axis(graph, node, quant))
        return NULL;
    node->inputs[0] = in;
    node->inputs[1] = params->scale;
    node->inputs[2] = params->zero_point;
    if (quant->block > 0 && !quant->zero_points && op == QN_OP_DEQUANTIZE_LINEAR)
        node->n_inputs = 2; /* one for each block would be many zeros */
    qn__node_set_output(node, 0, out);
    return node;
}

/* --- what a tensor has become
 * -------------------------------------------------------------------*/
static qn_lowered *entry_of(qn_lower *l, const qn_tensor *tensor)
{
    return &l->entries[tensor->id];
}

bool qn__onnx_is_quantized(const qn_lower *l, const qn_tensor *tensor)
{
    return tensor && tensor->id < l->n_entries && l->entries[tensor->id].type.kind == QN_TYPE_QUANT;
}

/* Are these integers an initializer of the file itself? Its name stays then. */
static bool is_of_file(const qn_onnx_writer *w, const qn_tensor *tensor)
{
    return w->source && tensor->source >= 0 && (size_t)tensor->source < w->source->n_initializers &&
           w->source->initializers[tensor->source].blob == tensor->constant;
}

/* A quantized constant keeps its blob; only its name and type change. */
static qn_status lower_constant(qn_lower *l, qn_tensor *tensor, qn_lowered *e, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    const char *const base = base_name(graph, tensor->name);
    e->base = base;
    if (!base)
        return QN_NOMEM(error);
    if (base != tensor->name || is_of_file(l->w, tensor)) {
        tensor->type = qn_type_plain_make(tensor->type.dtype);
        e->q = tensor;
    } else {
        int64_t dims[QN_MAX_RANK];
        QN_FAIL_IF(!qn__tensor_static_dims(tensor, dims), error, QN_INTERNAL,
                   "constant \"%s\" has no fixed shape", tensor->name);
        const char *const name = qn__onnx_named(graph, base, "_quantized");
        if (!name)
            return QN_NOMEM(error);
        e->q = qn__graph_add_constant(graph, name, qn_type_plain_make(tensor->type.dtype),
                                      tensor->rank, dims, tensor->constant);
        tensor->type = qn_type_plain_make(QN_DTYPE_F32);
    }
    return e->q ? QN_OK : QN_NOMEM(error);
}

static qn_status bare_integers_of(qn_lower *l, qn_tensor *tensor, qn_lowered **out, qn_error *error)
{
    qn_lowered *e = entry_of(l, tensor);
    if (!e->q && tensor->constant) {
        QN_TRY(lower_constant(l, tensor, e, error));
    } else if (!e->q) { /* an input of the graph that is integers */
        e->base = base_name(l->w->graph, tensor->name);
        e->q = tensor;
        tensor->type = qn_type_plain_make(tensor->type.dtype);
    }
    if (!e->base)
        return QN_NOMEM(error);
    *out = e;
    return QN_OK;
}

qn_status qn__onnx_integers_of(qn_lower *l, qn_tensor *tensor, qn_lowered **out, qn_error *error)
{
    QN_TRY(bare_integers_of(l, tensor, out, error));
    qn_lowered *e = *out;
    return e->params.scale ? QN_OK
                           : qn__onnx_make_params(l, tensor, e->type, e->base, &e->params, error);
}

/* The float values of a quantized tensor, for one consumer. */
qn_status qn__onnx_float_of(qn_lower *l, qn_tensor *tensor, qn_tensor **out, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    if (!qn__onnx_is_quantized(l, tensor)) {
        *out = tensor;
        return QN_OK;
    }
    qn_lowered *e;
    QN_TRY(qn__onnx_integers_of(l, tensor, &e, error));
    const bool dedicated = l->w->options->dedicated_pairs && l->w->options->format == QN_WRITE_QDQ;
    if (e->dq && !dedicated) {
        *out = e->dq;
        return QN_OK;
    }
    qn_tensor *q = e->q;
    if (e->dq && dedicated && e->from) { /* a pair of its own */
        q = qn__onnx_fresh(graph, qn__onnx_named(graph, e->base, "_quantized"),
                           qn_type_plain_make(e->type.dtype));
        if (!qn__onnx_pair_node(l, QN_OP_QUANTIZE_LINEAR,
                                qn__onnx_named(graph, e->base, "_QuantizeLinear"), e->type.quant,
                                e->from, &e->params, q))
            return QN_NOMEM(error);
    }
    qn_tensor *dq =
        qn__onnx_fresh(graph, qn__onnx_named(graph, e->base, "_DequantizeLinear_Output"),
                       qn_type_plain_make(QN_DTYPE_F32));
    if (!qn__onnx_pair_node(l, QN_OP_DEQUANTIZE_LINEAR,
                            qn__onnx_named(graph, e->base, "_DequantizeLinear"), e->type.quant, q,
                            &e->params, dq))
        return QN_NOMEM(error);
    e->dq = dq;
    *out = dq;
    return QN_OK;
}

/* --- nodes ------------------------------------------------------------------------------------*/
/* Readies output tensor `tensor` (quantized): *made is the float tensor the node shall make. */
qn_status qn__onnx_split_output(qn_lower *l, qn_tensor *tensor, bool want_float, qn_tensor **made,
                                qn_error *error)
{
    qn_graph *graph = l->w->graph;
    qn_lowered *e = entry_of(l, tensor);
    const qn_type integers = qn_type_plain_make(tensor->type.dtype);
    e->base = base_name(graph, tensor->name);
    if (!e->base)
        return QN_NOMEM(error);
    QN_TRY(qn__onnx_make_params(l, tensor, e->type, e->base, &e->params, error));
    *made = NULL;
    if (e->is_output || e->base != tensor->name) { /* its name belongs to the integers */
        tensor->type = integers;
        e->q = tensor;
        if (want_float) {
            const qn_tensor *taken = qn__graph_find_tensor(graph, e->base);
            const bool is_free = taken && !taken->producer && !taken->constant && taken != tensor;
            *made = qn__onnx_fresh(
                graph, is_free ? e->base : qn__onnx_named(graph, e->base, "_QuantizeLinear_Input"),
                qn_type_plain_make(QN_DTYPE_F32));
        }
    } else {
        tensor->type = qn_type_plain_make(QN_DTYPE_F32);
        e->q = qn__onnx_fresh(graph, qn__onnx_named(graph, e->base, "_quantized"), integers);
        *made = tensor;
    }
    return e->q && (*made || !want_float) ? QN_OK : QN_NOMEM(error);
}

/* A float node, its quantized inputs dequantized and its quantized outputs quantized. */
qn_status qn__onnx_lower_float(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    for (uint32_t i = 0; i < node->n_inputs; i++)
        if (node->inputs[i])
            QN_TRY(qn__onnx_float_of(l, node->inputs[i], &node->inputs[i], error));
    if (!qn__onnx_push_node(graph, node))
        return QN_NOMEM(error);
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        qn_tensor *out = node->outputs[i];
        if (!out)
            continue;
        const bool quantized = qn__onnx_is_quantized(l, out);
        qn_tensor *made = out;
        qn_lowered *e = quantized ? entry_of(l, out) : NULL;
        if (quantized) {
            QN_TRY(qn__onnx_split_output(l, out, true, &made, error));
            qn__node_set_output(node, i, made);
        }
        if (i == 0 && node->act != QN_ACT_NONE &&
            !(quantized && qn__onnx_act_implied(node->act, node->act_lo, node->act_hi, e->type))) {
            qn_tensor *before = qn__onnx_before_act(graph, l->w->source, node, made);
            if (!before)
                return QN_NOMEM(error);
            qn__node_set_output(node, 0, before);
            QN_TRY(qn__onnx_emit_act(l, node, before, made, error));
        }
        if (i == 0)
            node->act = QN_ACT_NONE;
        if (!quantized)
            continue;
        e->from = made;
        if (!qn__onnx_pair_node(l, QN_OP_QUANTIZE_LINEAR,
                                qn__onnx_named(graph, e->base, "_QuantizeLinear"), e->type.quant,
                                made, &e->params, e->q))
            return QN_NOMEM(error);
    }
    return QN_OK;
}

/* The node's integers on their way to e->q are floats, which its activation, if any, works on: they
 * also say what scale integers have that nothing else does. */
qn_status qn__onnx_pair_behind(qn_lower *l, qn_node *node, qn_tensor *tensor, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    qn_lowered *e = entry_of(l, tensor);
    const bool acts = node->act != QN_ACT_NONE;
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32);
    qn_tensor *raw = qn__onnx_fresh(graph, qn__onnx_named(graph, e->base, "_linear_quantized"),
                                    qn_type_plain_make(e->type.dtype));
    qn_tensor *before = qn__onnx_fresh(graph, qn__onnx_named(graph, e->base, "_linear"), f32);
    qn_tensor *after =
        acts ? qn__onnx_fresh(graph, qn__onnx_named(graph, e->base, "_act"), f32) : before;
    if (!raw || !before || !after)
        return QN_NOMEM(error);
    qn__node_set_output(node, 0, raw);
    if (!qn__onnx_pair_node(l, QN_OP_DEQUANTIZE_LINEAR,
                            qn__onnx_named(graph, e->base, "_linear_DequantizeLinear"),
                            e->type.quant, raw, &e->params, before))
        return QN_NOMEM(error);
    if (acts)
        QN_TRY(qn__onnx_emit_act(l, node, before, after, error));
    return qn__onnx_pair_node(l, QN_OP_QUANTIZE_LINEAR,
                              qn__onnx_named(graph, e->base, "_QuantizeLinear"), e->type.quant,
                              after, &e->params, e->q)
               ? QN_OK
               : QN_NOMEM(error);
}

/* An operator on integers made its result in e->q, but its activation may be more than saturation.
 */
qn_status qn__onnx_act_on_integers(qn_lower *l, qn_node *node, qn_tensor *tensor, qn_error *error)
{
    const qn_lowered *e = entry_of(l, tensor);
    if (!qn__onnx_act_implied(node->act, node->act_lo, node->act_hi, e->type))
        return qn__onnx_pair_behind(l, node, tensor, error);
    node->act = QN_ACT_NONE;
    return QN_OK;
}

/* QUANTIZE_LINEAR and REQUANTIZE: the parameters of the output's type become inputs. */
static qn_status lower_quantize(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    qn_tensor *out = node->outputs[0];
    QN_FAIL_IF(!qn__onnx_is_quantized(l, out), error, QN_UNSUPPORTED,
               "node \"%s\": its output has no constant scale", node->name);
    qn_lowered *e = entry_of(l, out);
    qn_tensor *in;
    const bool from_float = !qn__onnx_is_quantized(l, node->inputs[0]);
    const char *base = from_float && node->inputs[0] ? node->inputs[0]->name : out->name;
    QN_TRY(qn__onnx_float_of(l, node->inputs[0], &in, error));
    e->base = e->base ? e->base : base_name(graph, base);
    if (!e->base)
        return QN_NOMEM(error);
    /* A quotient in half precision is what scales of that type ask for. */
    const qn_dtype precision =
        qn__dtype_of_onnx(qn__attr_int(node, "precision", qn__dtype_onnx(QN_DTYPE_F32)));
    qn_params params;
    bool exact;
    QN_TRY(make_params(l, out, e->type, e->base, precision, &params, &exact, error));
    QN_FAIL_IF(!exact, error, QN_UNSUPPORTED, "node \"%s\": a scale is no number of %s", node->name,
               qn__dtype_name(precision));
    if (precision == QN_DTYPE_F32)
        e->params = params;
    qn__node_remove_attr(node, "precision");
    out->type = qn_type_plain_make(out->type.dtype);
    e->q = out;
    e->from = precision == QN_DTYPE_F32 ? in : NULL;
    node->op = QN_OP_QUANTIZE_LINEAR;
    if (!qn__onnx_set_input(graph, node, 0, in) ||
        !qn__onnx_set_input(graph, node, 1, params.scale) ||
        !qn__onnx_set_input(graph, node, 2, params.zero_point) ||
        !set_axis(graph, node, e->type.quant) || !qn__onnx_push_node(graph, node))
        return QN_NOMEM(error);
    return QN_OK;
}

static qn_status lower_dequantize(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    QN_FAIL_IF(!qn__onnx_is_quantized(l, node->inputs[0]), error, QN_UNSUPPORTED,
               "node \"%s\": its input has no constant scale", node->name);
    qn_lowered *e;
    qn_params params = {0};
    const qn_dtype made = node->outputs[0]->type.dtype;
    bool exact = false;
    QN_TRY(bare_integers_of(l, node->inputs[0], &e, error));
    const bool half = made == QN_DTYPE_F16 || made == QN_DTYPE_BF16;
    if (half)
        QN_TRY(make_params(l, node->inputs[0], e->type, e->base, made, &params, &exact, error));
    if (!exact) {
        QN_TRY(qn__onnx_integers_of(l, node->inputs[0], &e, error));
        params = e->params;
        QN_FAIL_IF(half && l->w->opset < 23, error, QN_UNSUPPORTED,
                   "node \"%s\": makes %s with scales of float32, which needs opset 23", node->name,
                   qn__dtype_name(made));
        if (half && !qn__node_set_int(graph, node, "output_dtype", qn__dtype_onnx(made)))
            return QN_NOMEM(error);
    }
    if (!qn__onnx_set_input(graph, node, 0, e->q) ||
        !qn__onnx_set_input(graph, node, 1, params.scale) ||
        !qn__onnx_set_input(graph, node, 2, params.zero_point) ||
        !set_axis(graph, node, e->type.quant) || !qn__onnx_push_node(graph, node))
        return QN_NOMEM(error);
    /* A runtime does not fuse a pair whose float side leaves the graph. */
    if (!e->dq && !half && !l->graph_output[node->outputs[0]->id])
        e->dq = node->outputs[0];
    return QN_OK;
}

/* int32, which no QuantizeLinear makes. */
static bool is_wide(const qn_lower *l, const qn_node *node)
{
    const qn_tensor *const x = node->n_inputs > 0 ? node->inputs[0] : NULL;
    return x && qn__onnx_is_quantized(l, x) && l->entries[x->id].type.dtype == QN_DTYPE_I32;
}

static qn_status lower_node(qn_lower *l, qn_node *node, qn_error *error)
{
    bool done = false;
    QN_TRY(qn__onnx_lower_dynamic(l, node, &done, error));
    if (!done)
        QN_TRY(qn__onnx_lower_blocks(l, node, &done, error));
    if (done)
        return QN_OK;
    if (node->op == QN_OP_QUANTIZE_LINEAR || node->op == QN_OP_REQUANTIZE)
        return lower_quantize(l, node, error);
    if (node->op == QN_OP_DEQUANTIZE_LINEAR)
        return lower_dequantize(l, node, error);
    if (node->op == QN_OP_TABLE)
        return qn__onnx_lower_table(l, node, error);
    if (l->w->options->format == QN_WRITE_QOPERATOR || qn__onnx_truncates(node) ||
        is_wide(l, node)) {
        QN_TRY(qn__onnx_lower_qoperator(l, node, &done, error));
        if (done)
            return QN_OK;
    }
    return qn__onnx_lower_float(l, node, error);
}

/* Bytes that are only moved before they get another scale: the node between moves floats, and one
 * QuantizeLinear makes the new bytes. */
static void release_moved(qn_lower *l)
{
    const qn_graph *graph = l->w->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *const node = graph->nodes[i];
        const qn_tensor *const t = node->op == QN_OP_REQUANTIZE ? node->inputs[0] : NULL;
        if (t && t->producer && qn__onnx_keeps_bytes(t->producer))
            l->entries[t->id].moved = !l->entries[t->id].is_output;
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *const node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs && node->op != QN_OP_REQUANTIZE; k++)
            if (node->inputs[k])
                l->entries[node->inputs[k]->id].moved = false;
    }
    for (size_t i = 0; i < l->n_entries; i++)
        if (l->entries[i].moved)
            graph->tensors[i]->type = l->entries[i].type = qn_type_plain_make(QN_DTYPE_F32);
}

static qn_status prepare(qn_lower *l, qn_error *error)
{
    const qn_graph *graph = l->w->graph;
    l->n_entries = graph->n_tensors;
    l->entries = qn__calloc(graph->ctx, l->n_entries + 1, sizeof(*l->entries));
    l->graph_output = qn__calloc(graph->ctx, l->n_entries + 1, 1);
    if (!l->entries || !l->graph_output)
        return QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_tensors; i++)
        l->entries[i].type = graph->tensors[i]->type;
    for (size_t i = 0; i < graph->n_outputs; i++) {
        l->entries[graph->outputs[i]->id].is_output = true;
        l->graph_output[graph->outputs[i]->id] = 1;
    }
    release_moved(l);
    return QN_OK;
}

qn_status qn__onnx_lower(qn_onnx_writer *w, qn_error *error)
{
    qn_graph *graph = w->graph;
    qn_lower l = {.w = w};
    qn_status status = prepare(&l, error);
    const size_t n_old = graph->n_nodes;
    qn_node **old = qn__reallocarray(graph->ctx, NULL, n_old + 1, sizeof(*old));
    if (status == QN_OK && !old)
        status = QN_NOMEM(error);
    if (status == QN_OK) {
        if (n_old > 0)
            memcpy(old, graph->nodes, n_old * sizeof(*old));
        graph->n_nodes = 0;
        for (size_t i = 0; i < n_old && status == QN_OK; i++)
            status = lower_node(&l, old[i], error);
    }
    qn__free(graph->ctx, old);
    qn__free(graph->ctx, l.entries);
    qn__free(graph->ctx, l.graph_output);
    return status;
}
