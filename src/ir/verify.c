/* Every invariant of a graph. Readers and passes may get a graph wrong; nobody behind this check
 * looks again. */
#include "ir/graph.h"

#include "core/context.h"
#include "ir/names.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <math.h>
#include <string.h>

typedef struct verifier {
    const qn_graph *graph;
    const char *file;
    qn_error *error;
    uint8_t *ready; /* by tensor id: an input, a constant or produced so far */
} verifier;

#define CHECK_TENSOR(v, cond, tensor, ...)                                                         \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return fail_tensor((v), (tensor), __VA_ARGS__);                                        \
    } while (0)
#define CHECK_NODE(v, cond, node, ...)                                                             \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return fail_node((v), (node), __VA_ARGS__);                                            \
    } while (0)

QN_PRINTF(3, 4)
static qn_status fail_tensor(const verifier *v, const qn_tensor *tensor, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return qn__error_set(v->error, QN_CORRUPT, "%s: tensor \"%s\" %s", v->file, tensor->name, text);
}

QN_PRINTF(3, 4)
static qn_status fail_node(const verifier *v, const qn_node *node, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return qn__error_set(v->error, QN_CORRUPT, "%s: node %u %s \"%s\" %s", v->file, node->id,
                         qn__op_name(node->op), node->name, text);
}

static bool in_graph(const qn_graph *graph, const qn_tensor *tensor)
{
    return tensor->id < graph->n_tensors && graph->tensors[tensor->id] == tensor;
}

/* --- tensors ----------------------------------------------------------------------------------*/
static qn_status check_dims(const verifier *v, const qn_tensor *tensor)
{
    size_t count = 1, bytes;
    CHECK_TENSOR(v, tensor->rank <= QN_MAX_RANK, tensor, "has rank %u, at most %d is allowed",
                 tensor->rank, QN_MAX_RANK);
    for (size_t i = 0; i < tensor->rank; i++) {
        const qn_dim *dim = &tensor->dims[i];
        CHECK_TENSOR(v, dim->kind <= QN_DIM_DATA, tensor, "has a dimension %zu of unknown kind", i);
        CHECK_TENSOR(v, dim->value >= (dim->kind == QN_DIM_DATA ? -1 : 0), tensor,
                     "has dimension %zu of %" PRId64, i, dim->value);
        CHECK_TENSOR(v, dim->kind != QN_DIM_SYMBOL || dim->symbol != NULL, tensor,
                     "has symbolic dimension %zu without a name", i);
        if (dim->kind == QN_DIM_CONST && dim->value > 0)
            CHECK_TENSOR(v, qn_mul_size(&count, count, (size_t)dim->value), tensor,
                         "has more elements than can be counted");
    }
    CHECK_TENSOR(v,
                 tensor->type.dtype == QN_DTYPE_NONE ||
                     qn__dtype_bytes(&bytes, tensor->type.dtype, count),
                 tensor, "has more bytes than can be counted");
    return QN_OK;
}

static qn_status check_quant_counts(const verifier *v, const qn_tensor *tensor)
{
    const qn_quant *q = tensor->type.quant;
    size_t expected = 1;
    if (q->axis < 0) {
        CHECK_TENSOR(v, q->axis == -1 && q->block == 0, tensor,
                     "has quantization axis %d with block %" PRId64, q->axis, q->block);
    } else if (tensor->has_shape) {
        CHECK_TENSOR(v, q->axis < tensor->rank, tensor, "has quantization axis %d but rank %u",
                     q->axis, tensor->rank);
        expected = 1;
        for (int i = 0; i < tensor->rank; i++) {
            const qn_dim *dim = &tensor->dims[i];
            if (i != q->axis && q->block == 0)
                continue;
            if (dim->kind != QN_DIM_CONST)
                return QN_OK;
            size_t n = (size_t)dim->value;
            if (i == q->axis && q->block > 0)
                n = n / (size_t)q->block + (n % (size_t)q->block != 0);
            CHECK_TENSOR(v, qn_mul_size(&expected, expected, n), tensor,
                         "needs more scales than can be counted");
        }
    } else {
        return QN_OK;
    }
    CHECK_TENSOR(v, q->n_scales == expected, tensor,
                 "has %zu scales, its shape and axis %d need %zu", q->n_scales, q->axis, expected);
    return QN_OK;
}

static qn_status check_quant_values(const verifier *v, const qn_tensor *tensor)
{
    const qn_quant *q = tensor->type.quant;
    const int64_t lo = q->is_signed ? -((int64_t)1 << (q->bits - 1)) : 0;
    const int64_t hi = lo + ((int64_t)1 << q->bits) - 1;
    CHECK_TENSOR(v, q->scales != NULL && q->n_scales > 0, tensor, "is quantized without scales");
    for (size_t i = 0; i < q->n_scales; i++) {
        CHECK_TENSOR(v, isfinite(q->scales[i]) && q->scales[i] > 0, tensor,
                     "has scale %zu of %g, not a positive finite number", i, (double)q->scales[i]);
        if (q->zero_points != NULL)
            CHECK_TENSOR(v, q->zero_points[i] >= lo && q->zero_points[i] <= hi, tensor,
                         "has zero point %zu of %d outside %" PRId64 "..%" PRId64, i,
                         (int)q->zero_points[i], lo, hi);
    }
    if (q->n_codebook == 0)
        return QN_OK;
    CHECK_TENSOR(v, q->codebook != NULL, tensor, "has a codebook without values");
    CHECK_TENSOR(v, q->n_codebook == (size_t)((int64_t)q->qmax - q->qmin + 1), tensor,
                 "has a codebook of %zu values for integers %d..%d", q->n_codebook, (int)q->qmin,
                 (int)q->qmax);
    for (size_t i = 0; i < q->n_codebook; i++)
        CHECK_TENSOR(v, isfinite(q->codebook[i]), tensor, "has codebook value %zu of %g", i,
                     (double)q->codebook[i]);
    return QN_OK;
}

static qn_status check_quant(const verifier *v, const qn_tensor *tensor)
{
    const qn_quant *q = tensor->type.quant;
    const qn_dtype dtype = tensor->type.dtype;
    CHECK_TENSOR(v, q != NULL, tensor, "is quantized without parameters");
    CHECK_TENSOR(v, q->bits >= 2 && (q->bits <= 16 || q->bits == 32), tensor,
                 "is quantized to %u bits", q->bits);
    if (tensor->type.kind == QN_TYPE_DYNAMIC && dtype == QN_DTYPE_NONE)
        return QN_OK;
    CHECK_TENSOR(v, !qn__dtype_is_float(dtype) && dtype != QN_DTYPE_BOOL && dtype != QN_DTYPE_NONE,
                 tensor, "is quantized but stored as %s", qn__dtype_name(dtype));
    CHECK_TENSOR(v, qn__dtype_bits(dtype) >= q->bits, tensor,
                 "is quantized to %u bits but stored as %s", q->bits, qn__dtype_name(dtype));
    if (tensor->type.kind == QN_TYPE_DYNAMIC)
        return QN_OK;
    const int64_t lo = q->is_signed ? -((int64_t)1 << (q->bits - 1)) : 0;
    const int64_t hi = lo + ((int64_t)1 << q->bits) - 1;
    CHECK_TENSOR(v, q->qmin < q->qmax && q->qmin >= lo && q->qmax <= hi, tensor,
                 "uses integers %d..%d, %u bits hold %" PRId64 "..%" PRId64, (int)q->qmin,
                 (int)q->qmax, q->bits, lo, hi);
    CHECK_TENSOR(v, q->block >= 0, tensor, "has quantization blocks of %" PRId64, q->block);
    QN_TRY(check_quant_values(v, tensor));
    return check_quant_counts(v, tensor);
}

static qn_status check_tensor(const verifier *v, const qn_tensor *tensor, size_t index)
{
    CHECK_TENSOR(v, tensor->id == index, tensor, "has id %u at place %zu", tensor->id, index);
    CHECK_TENSOR(v, tensor->name[0] != '\0', tensor, "has no name");
    CHECK_TENSOR(v, qn__names_get(&v->graph->names->tensors, tensor->name) == tensor, tensor,
                 "shares its name with another tensor");
    CHECK_TENSOR(v, (unsigned)tensor->type.dtype < QN_DTYPE_COUNT, tensor,
                 "has unknown storage type %d", (int)tensor->type.dtype);
    CHECK_TENSOR(v, tensor->type.kind <= QN_TYPE_DYNAMIC, tensor, "has unknown kind of type %d",
                 (int)tensor->type.kind);
    if (tensor->has_shape)
        QN_TRY(check_dims(v, tensor));
    if (tensor->type.kind != QN_TYPE_PLAIN)
        QN_TRY(check_quant(v, tensor));
    if (tensor->constant == NULL)
        return QN_OK;
    size_t count, bytes;
    CHECK_TENSOR(v, tensor->producer == NULL, tensor, "is a constant and made by node \"%s\"",
                 tensor->producer->name);
    CHECK_TENSOR(v, qn__tensor_count(tensor, &count), tensor,
                 "is a constant without a fixed shape");
    CHECK_TENSOR(v, qn__dtype_bytes(&bytes, tensor->type.dtype, count), tensor,
                 "is a constant of type %s", qn__dtype_name(tensor->type.dtype));
    CHECK_TENSOR(v, bytes == tensor->constant->size_bytes, tensor,
                 "has %zu bytes of data, its shape and type %s need %zu",
                 tensor->constant->size_bytes, qn__dtype_name(tensor->type.dtype), bytes);
    return QN_OK;
}

/* --- nodes ------------------------------------------------------------------------------------*/
static qn_status check_attrs(const verifier *v, const qn_node *node)
{
    for (uint32_t i = 0; i < node->n_attrs; i++) {
        const qn_attr *a = &node->attrs[i];
        CHECK_NODE(v, a->name != NULL, node, "has attribute %u without a name", i);
        const bool arrays = (a->kind != QN_ATTR_INTS || a->count == 0 || a->ints != NULL) &&
                            (a->kind != QN_ATTR_FLOATS || a->count == 0 || a->floats != NULL) &&
                            (a->kind != QN_ATTR_STRINGS || a->count == 0 || a->strings != NULL) &&
                            (a->kind != QN_ATTR_STRING || a->s != NULL);
        CHECK_NODE(v, arrays, node, "has attribute \"%s\" without a value", a->name);
        if (a->kind != QN_ATTR_TENSOR)
            continue;
        size_t count, bytes;
        CHECK_NODE(v, a->t != NULL && a->t_rank <= QN_MAX_RANK, node,
                   "has attribute \"%s\" without a tensor", a->name);
        CHECK_NODE(v,
                   qn_shape_count(&count, a->t_dims, a->t_rank) &&
                       qn__dtype_bytes(&bytes, a->t_dtype, count) && bytes == a->t->size_bytes,
                   node, "has attribute \"%s\" whose shape does not fit its %zu bytes", a->name,
                   a->t->size_bytes);
    }
    return QN_OK;
}

static qn_status check_act(const verifier *v, const qn_node *node)
{
    CHECK_NODE(v, node->act <= QN_ACT_CLIP, node, "has unknown activation %d", (int)node->act);
    if (node->act == QN_ACT_NONE)
        return QN_OK;
    CHECK_NODE(v, node->n_outputs > 0 && node->outputs[0] != NULL, node,
               "has an activation but no output");
    CHECK_NODE(v, node->act != QN_ACT_CLIP || node->act_lo <= node->act_hi, node, "clips to %g..%g",
               (double)node->act_lo, (double)node->act_hi);
    return QN_OK;
}

static qn_status check_node(const verifier *v, const qn_node *node)
{
    const qn_graph *graph = v->graph;
    CHECK_NODE(v, node->op > QN_OP_NONE && node->op < QN_OP_COUNT, node, "has no known operator");
    CHECK_NODE(v, node->id < graph->next_node_id, node, "has an id that was never given out");
    CHECK_NODE(v, node->name[0] != '\0' && qn__graph_find_node(graph, node->name) == node, node,
               "shares its name with another node");
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_tensor *in = node->inputs[i];
        if (in == NULL)
            continue;
        CHECK_NODE(v, in_graph(graph, in), node, "reads input %u that is not of this graph", i);
        CHECK_NODE(v, v->ready[in->id], node, "reads \"%s\" before anything makes it", in->name);
    }
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        const qn_tensor *out = node->outputs[i];
        if (out == NULL)
            continue;
        CHECK_NODE(v, in_graph(graph, out), node, "writes output %u that is not of this graph", i);
        CHECK_NODE(v, !v->ready[out->id], node, "writes \"%s\", which is already made elsewhere",
                   out->name);
        CHECK_NODE(v, out->producer == node && out->producer_output == i, node,
                   "is not known as the producer of \"%s\"", out->name);
        CHECK_NODE(v, i == 0 || (qn__op_flags(node->op) & QN_OPF_SEVERAL) != 0, node,
                   "writes \"%s\": the operator has one output", out->name);
        v->ready[out->id] = 1;
    }
    QN_TRY(check_attrs(v, node));
    return check_act(v, node);
}

static qn_status check_all(const verifier *v)
{
    const qn_graph *graph = v->graph;
    for (size_t i = 0; i < graph->n_tensors; i++) {
        QN_FAIL_IF(graph->tensors[i] == NULL, v->error, QN_CORRUPT, "%s: tensor %zu is missing",
                   v->file, i);
        QN_TRY(check_tensor(v, graph->tensors[i], i));
        v->ready[i] = graph->tensors[i]->constant != NULL;
    }
    for (size_t i = 0; i < graph->n_inputs; i++) {
        const qn_tensor *in = graph->inputs[i];
        QN_FAIL_IF(in == NULL || !in_graph(graph, in), v->error, QN_CORRUPT,
                   "%s: graph input %zu is not of this graph", v->file, i);
        CHECK_TENSOR(v, in->producer == NULL && !v->ready[in->id], in,
                     "is a graph input and also made elsewhere");
        v->ready[in->id] = 1;
    }
    for (size_t i = 0; i < graph->n_nodes; i++)
        QN_TRY(check_node(v, graph->nodes[i]));
    for (size_t i = 0; i < graph->n_tensors; i++) {
        const qn_tensor *tensor = graph->tensors[i];
        CHECK_TENSOR(v, tensor->producer == NULL || v->ready[i], tensor,
                     "is made by node \"%s\", which is not in the graph", tensor->producer->name);
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        const qn_tensor *out = graph->outputs[i];
        QN_FAIL_IF(out == NULL || !in_graph(graph, out), v->error, QN_CORRUPT,
                   "%s: graph output %zu is not of this graph", v->file, i);
        CHECK_TENSOR(v, v->ready[out->id], out, "is a graph output that nothing makes");
    }
    return QN_OK;
}

qn_status qn__graph_verify(const qn_graph *graph, qn_error *error)
{
    verifier v = {graph, graph->file != NULL ? graph->file : "graph", error, NULL};
    v.ready = qn__calloc(graph->ctx, graph->n_tensors + 1, 1);
    if (v.ready == NULL)
        return QN_NOMEM(error);
    const qn_status status = check_all(&v);
    qn__free(graph->ctx, v.ready);
    return status;
}
