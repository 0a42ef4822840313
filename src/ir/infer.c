/* The walk of shape inference, and the helpers of the operators' functions. */
#include "ir/infer_util.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

qn_status qn__infer_fail(const qn_infer *in, qn_error *error, qn_status status, const char *format,
                         ...)
{
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return qn__error_set(error, status, "%s: node %u %s \"%s\": %s",
                         in->graph->file != NULL ? in->graph->file : "graph", in->node->id,
                         qn__op_name(in->node->op), in->node->name, text);
}

qn_status qn__infer_need(const qn_infer *in, uint32_t index, qn_error *error)
{
    QN_INFER_CHECK(in, error, qn_infer_in(in, index) != NULL, "input %u is missing", index);
    return QN_OK;
}

/* --- types ------------------------------------------------------------------------------------*/
void qn__infer_dtype(const qn_infer *in, uint32_t output, qn_dtype dtype)
{
    qn_tensor *out = qn_infer_out(in, output);
    if (out != NULL && out->type.kind == QN_TYPE_PLAIN && dtype != QN_DTYPE_NONE)
        out->type.dtype = dtype;
}

void qn__infer_dtype_like(const qn_infer *in, uint32_t output, const qn_tensor *like)
{
    const qn_tensor *out = qn_infer_out(in, output);
    if (out == NULL || like == NULL)
        return;
    if (like->type.kind == QN_TYPE_PLAIN)
        qn__infer_dtype(in, output, like->type.dtype);
    else if (out->type.dtype == QN_DTYPE_NONE)
        qn__infer_dtype(in, output, QN_DTYPE_F32);
}

void qn__infer_type_moved(const qn_infer *in, uint32_t output, const qn_tensor *like)
{
    qn_tensor *out = qn_infer_out(in, output);
    if (out == NULL || like == NULL)
        return;
    if (like->type.kind == QN_TYPE_PLAIN)
        qn__infer_dtype(in, output, like->type.dtype);
    else if (out->type.kind == QN_TYPE_PLAIN && out->type.dtype == QN_DTYPE_NONE)
        out->type = like->type;
}

/* --- shapes -----------------------------------------------------------------------------------*/
qn_status qn__infer_shape_set(const qn_infer *in, uint32_t output, size_t rank, const qn_dim *dims,
                              qn_error *error)
{
    qn_tensor *out = qn_infer_out(in, output);
    if (out == NULL)
        return QN_OK;
    QN_INFER_CHECK(in, error, rank <= QN_MAX_RANK, "output \"%s\" has rank %zu, at most %d is read",
                   out->name, rank, QN_MAX_RANK);
    size_t count = 1, bytes;
    bool empty = false;
    for (size_t i = 0; i < rank; i++) {
        QN_INFER_CHECK(in, error, dims[i].kind == QN_DIM_DATA || dims[i].value >= 0,
                       "output \"%s\" has dimension %zu of %" PRId64, out->name, i, dims[i].value);
        empty |= qn_dim_is(dims[i], 0);
        if (dims[i].kind == QN_DIM_DATA || dims[i].value == 0)
            continue;
        QN_INFER_CHECK(in, error, qn_mul_size(&count, count, (size_t)dims[i].value),
                       "output \"%s\" has more elements than can be counted", out->name);
    }
    const qn_dtype dtype = out->type.dtype != QN_DTYPE_NONE ? out->type.dtype : QN_DTYPE_F32;
    QN_INFER_CHECK(in, error, qn__dtype_bytes(&bytes, dtype, count),
                   "output \"%s\" has more bytes than can be counted", out->name);
    if (!empty && bytes > in->graph->ctx->limits.tensor_bytes)
        return qn__infer_fail(in, error, QN_LIMIT,
                              "output \"%s\" has %zu bytes, the limit is %" PRIu64, out->name,
                              bytes, in->graph->ctx->limits.tensor_bytes);
    out->has_shape = true;
    out->rank = (uint8_t)rank;
    for (size_t i = 0; i < rank; i++)
        out->dims[i] = dims[i];
    return QN_OK;
}

qn_status qn__infer_axis(const qn_infer *in, int64_t *axis, size_t rank, bool end_ok,
                         qn_error *error)
{
    const int64_t limit = (int64_t)rank + (end_ok ? 1 : 0);
    QN_INFER_CHECK(in, error, *axis >= -limit && *axis < limit,
                   "axis %" PRId64 " is out of range for rank %zu", *axis, rank);
    if (*axis < 0)
        *axis += limit;
    return QN_OK;
}

qn_status qn__infer_broadcast_shape(const qn_infer *in, const qn_tensor *const *tensors, size_t n,
                                    qn_dim *dims, size_t *rank, bool *known, qn_error *error)
{
    *rank = 0;
    *known = true;
    for (size_t t = 0; t < n; t++) {
        *known &= qn_has_shape(tensors[t]);
        if (qn_has_shape(tensors[t]) && tensors[t]->rank > *rank)
            *rank = tensors[t]->rank;
    }
    for (size_t i = 0; i < *rank; i++)
        dims[i] = qn_dim_const(1);
    for (size_t t = 0; t < n && *known; t++) {
        const size_t shift = *rank - tensors[t]->rank;
        for (size_t i = 0; i < tensors[t]->rank; i++)
            QN_INFER_CHECK(
                in, error,
                qn__dim_broadcast(&dims[shift + i], dims[shift + i], tensors[t]->dims[i]),
                "input \"%s\" has dimension %zu of %" PRId64
                ", which does not broadcast with %" PRId64,
                tensors[t]->name, i, tensors[t]->dims[i].value, dims[shift + i].value);
    }
    return QN_OK;
}

/* --- values -----------------------------------------------------------------------------------*/
bool qn__infer_values(const qn_infer *in, const qn_tensor *tensor, const qn_dim **values,
                      size_t *count)
{
    if (tensor == NULL)
        return false;
    if (tensor->constant == NULL) {
        *values = tensor->value_dims;
        *count = tensor->n_value_dims;
        return tensor->value_dims != NULL;
    }
    size_t n, bytes;
    if (tensor->type.kind != QN_TYPE_PLAIN || !qn__tensor_count(tensor, &n) || n > QN_MAX_VALUES ||
        !qn__dtype_bytes(&bytes, tensor->type.dtype, n) || bytes > tensor->constant->size_bytes)
        return false;
    qn_dim *dims = qn__arena_calloc(&in->graph->arena, n, sizeof(*dims));
    if (dims == NULL)
        return false;
    const void *data = tensor->constant->data;
    for (size_t i = 0; i < n; i++) {
        if (!qn__dtype_is_float(tensor->type.dtype)) {
            dims[i] = qn_dim_const(qn__load_int(data, tensor->type.dtype, i));
            continue;
        }
        const double real = qn__load_real(data, tensor->type.dtype, i);
        const bool whole = fabs(real) <= 9007199254740992.0 && floor(real) == real;
        dims[i] = whole ? qn_dim_const((int64_t)real) : qn_dim_unknown();
    }
    *values = dims;
    *count = n;
    return true;
}

bool qn__infer_ints(const qn_infer *in, const qn_tensor *tensor, const int64_t **values,
                    size_t *count)
{
    const qn_dim *dims;
    size_t n;
    if (!qn__infer_values(in, tensor, &dims, &n))
        return false;
    int64_t *ints = qn__arena_calloc(&in->graph->arena, n, sizeof(*ints));
    if (ints == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (dims[i].kind != QN_DIM_CONST)
            return false;
        ints[i] = dims[i].value;
    }
    *values = ints;
    *count = n;
    return true;
}

qn_status qn__infer_list(const qn_infer *in, const char *name, uint32_t index,
                         const int64_t **values, size_t *count, bool *known, qn_error *error)
{
    const qn_attr *attr = qn__node_attr(in->node, name);
    *known = true;
    *values = NULL;
    *count = 0;
    if (attr != NULL) {
        QN_INFER_CHECK(in, error, attr->kind == QN_ATTR_INTS, "attribute \"%s\" is not a list",
                       name);
        *values = attr->ints;
        *count = attr->count;
    } else if (qn_infer_in(in, index) != NULL) {
        *known = qn__infer_ints(in, qn_infer_in(in, index), values, count);
    }
    return QN_OK;
}

qn_status qn__infer_values_set(const qn_infer *in, uint32_t output, const qn_dim *values,
                               size_t count, qn_error *error)
{
    qn_tensor *out = qn_infer_out(in, output);
    if (out == NULL || count > QN_MAX_VALUES)
        return QN_OK;
    qn_dim *copy = qn__arena_calloc(&in->graph->arena, count, sizeof(*copy));
    if (copy == NULL)
        return QN_NOMEM(error);
    if (count > 0)
        memcpy(copy, values, count * sizeof(*copy));
    out->value_dims = copy;
    out->n_value_dims = (uint32_t)count;
    return QN_OK;
}

/* --- dimensions -------------------------------------------------------------------------------*/
static bool both_const(qn_dim a, qn_dim b)
{
    return a.kind == QN_DIM_CONST && b.kind == QN_DIM_CONST;
}

static bool same_symbol(qn_dim a, qn_dim b)
{
    return a.kind == QN_DIM_SYMBOL && b.kind == QN_DIM_SYMBOL && a.symbol == b.symbol;
}

static qn_dim with_value(qn_dim like, int64_t value)
{
    like.value = value;
    return like;
}

qn_dim qn__dim_add(qn_dim a, qn_dim b)
{
    int64_t sum;
    if ((both_const(a, b) || same_symbol(a, b)) && !__builtin_add_overflow(a.value, b.value, &sum))
        return with_value(a, sum);
    if (qn_dim_is(a, 0))
        return b;
    return qn_dim_is(b, 0) ? a : qn_dim_unknown();
}

qn_dim qn__dim_sub(qn_dim a, qn_dim b)
{
    int64_t difference;
    if (qn_dim_is(b, 0))
        return a;
    if (both_const(a, b) && !__builtin_sub_overflow(a.value, b.value, &difference))
        return qn_dim_const(difference);
    if (!same_symbol(a, b) || __builtin_sub_overflow(a.value, b.value, &difference))
        return qn_dim_unknown();
    return difference == 0 ? qn_dim_const(0) : with_value(a, difference);
}

qn_dim qn__dim_mul(qn_dim a, qn_dim b)
{
    int64_t product;
    if (qn_dim_is(a, 0) || qn_dim_is(b, 0))
        return qn_dim_const(0);
    if (a.kind == QN_DIM_DATA || b.kind == QN_DIM_DATA ||
        (a.kind == QN_DIM_SYMBOL && b.kind == QN_DIM_SYMBOL) ||
        __builtin_mul_overflow(a.value, b.value, &product))
        return qn_dim_unknown();
    return with_value(a.kind == QN_DIM_SYMBOL ? a : b, product);
}

qn_dim qn__dim_div(qn_dim a, qn_dim b, bool exact)
{
    if (qn_dim_is(b, 0) || a.kind == QN_DIM_DATA || b.kind == QN_DIM_DATA || b.value == 0)
        return qn_dim_unknown();
    if (a.value == INT64_MIN && b.value == -1)
        return qn_dim_unknown();
    const bool divides = a.value % b.value == 0;
    if (same_symbol(a, b))
        return divides ? qn_dim_const(a.value / b.value) : qn_dim_unknown();
    if (b.kind != QN_DIM_CONST || (!divides && (exact || a.kind == QN_DIM_SYMBOL)))
        return qn_dim_unknown();
    return with_value(a, a.value / b.value);
}

bool qn__dim_broadcast(qn_dim *out, qn_dim a, qn_dim b)
{
    if (qn_dim_is(a, 1) || qn__dim_equal(a, b)) {
        *out = b;
    } else if (qn_dim_is(b, 1)) {
        *out = a;
    } else if (both_const(a, b)) {
        return false;
    } else if (a.kind == QN_DIM_CONST) {
        *out = a; /* the other one must turn out to be 1 or the same */
    } else if (b.kind == QN_DIM_CONST) {
        *out = b;
    } else {
        *out = qn_dim_unknown();
    }
    return true;
}

/* --- the table --------------------------------------------------------------------------------*/
static const qn_infer_fn INFER[QN_OP_COUNT] = {
#define QN_OP(id, domain, name, infer, flags) [QN_OP_##id] = infer,
#include "ir/ops.def"
#undef QN_OP
};

qn_infer_fn qn__infer_find(qn_op op)
{
    return (unsigned)op < QN_OP_COUNT ? INFER[op] : NULL;
}

/* --- the walk ---------------------------------------------------------------------------------*/
qn_status qn__node_infer(qn_graph *graph, qn_node *node, qn_error *error)
{
    const qn_infer_fn infer = qn__infer_find(node->op);
    qn_infer in = {graph, node};
    if (infer == NULL)
        return qn__infer_fail(&in, error, QN_UNSUPPORTED, "operator is not known");
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        qn_tensor *out = node->outputs[i];
        if (out == NULL)
            continue;
        out->has_shape = false;
        out->rank = 0;
        out->value_dims = NULL;
        out->n_value_dims = 0;
    }
    return infer(&in, error);
}

qn_status qn__graph_infer(qn_graph *graph, qn_error *error)
{
    qn_status status = QN_OK;
    for (size_t i = 0; i < graph->n_nodes && status == QN_OK; i++)
        status = qn__node_infer(graph, graph->nodes[i], error);
    QN_TRY(qn__arena_check(&graph->arena, error));
    return status;
}
