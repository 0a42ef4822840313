/* Shape arithmetic and constants. */
#include "ir/infer_util.h"

#include <inttypes.h>
#include <math.h>

qn_status qn__infer_shape(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    qn__infer_dtype(in, 0, QN_DTYPE_I64);
    if (in->node->op == QN_OP_SIZE) {
        qn_dim count = qn_dim_const(1);
        QN_TRY(qn__infer_shape_set(in, 0, 0, NULL, error));
        if (!x->has_shape)
            return QN_OK;
        for (size_t i = 0; i < x->rank; i++)
            count = qn__dim_mul(count, x->dims[i]);
        return qn__infer_values_set(in, 0, &count, 1, error);
    }
    if (!x->has_shape)
        return QN_OK;
    const int64_t rank = x->rank;
    int64_t start = qn__attr_int(in->node, "start", 0), end = qn__attr_int(in->node, "end", rank);
    /* Both are clamped, not checked. */
    start = start < -rank ? 0 : start < 0 ? start + rank : start > rank ? rank : start;
    end = end < -rank ? 0 : end < 0 ? end + rank : end > rank ? rank : end;
    const int64_t count = end > start ? end - start : 0;
    const qn_dim dim = qn_dim_const(count);
    QN_TRY(qn__infer_shape_set(in, 0, 1, &dim, error));
    return qn__infer_values_set(in, 0, x->dims + start, (size_t)count, error);
}

/* Rank and dims from the value of a shape tensor. *known false: its length is not known. */
static qn_status shape_from_values(const qn_infer *in, const qn_tensor *shape, qn_dim *dims,
                                   size_t *rank, bool *known, qn_error *error)
{
    const qn_dim *values;
    size_t count;
    *known = false;
    if (qn__infer_values(in, shape, &values, &count)) {
        QN_INFER_CHECK(in, error, count <= QN_MAX_RANK,
                       "\"%s\" asks for rank %zu, at most %d is read", shape->name, count,
                       QN_MAX_RANK);
        for (size_t i = 0; i < count; i++)
            dims[i] = values[i];
        *rank = count;
        *known = true;
    } else if (shape->has_shape && shape->rank == 1 && shape->dims[0].kind == QN_DIM_CONST) {
        const int64_t length = shape->dims[0].value;
        QN_INFER_CHECK(in, error, length <= QN_MAX_RANK,
                       "\"%s\" asks for rank %" PRId64 ", at most %d is read", shape->name, length,
                       QN_MAX_RANK);
        for (int64_t i = 0; i < length; i++)
            dims[i] = qn_dim_unknown();
        *rank = (size_t)length;
        *known = true;
    }
    return QN_OK;
}

qn_status qn__infer_constant_of_shape(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_attr *value = qn__node_attr(in->node, "value");
    qn_dim dims[QN_MAX_RANK];
    size_t rank, count;
    bool known;
    const bool tensor = value != NULL && value->kind == QN_ATTR_TENSOR && value->t != NULL;
    qn__infer_dtype(in, 0, tensor ? value->t_dtype : QN_DTYPE_F32);
    QN_TRY(shape_from_values(in, in->node->inputs[0], dims, &rank, &known, error));
    if (!known)
        return QN_OK;
    QN_TRY(qn__infer_shape_set(in, 0, rank, dims, error));
    const qn_tensor *out = qn_infer_out(in, 0);
    size_t bytes;
    if (!tensor || out == NULL || qn__dtype_is_float(value->t_dtype) ||
        !qn__dtype_bytes(&bytes, value->t_dtype, 1) || value->t->size_bytes < bytes ||
        !qn__tensor_count(out, &count) || count > QN_MAX_VALUES)
        return QN_OK;
    qn_dim *values = qn__arena_calloc(&in->graph->arena, count, sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++)
        values[i] = qn_dim_const(qn__load_int(value->t->data, value->t_dtype, 0));
    return qn__infer_values_set(in, 0, values, count, error);
}

qn_status qn__infer_expand(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0];
    qn_tensor wanted = {.name = in->node->inputs[1]->name, .has_shape = true};
    qn_dim dims[QN_MAX_RANK];
    size_t rank = 0;
    bool known;
    qn__infer_type_moved(in, 0, x);
    QN_TRY(shape_from_values(in, in->node->inputs[1], wanted.dims, &rank, &known, error));
    if (!known || !x->has_shape)
        return QN_OK;
    wanted.rank = (uint8_t)rank;
    for (size_t i = 0; i < rank; i++)
        QN_INFER_CHECK(in, error, wanted.dims[i].kind == QN_DIM_DATA || wanted.dims[i].value >= 0,
                       "shape \"%s\" has value %" PRId64, wanted.name, wanted.dims[i].value);
    const qn_tensor *pair[2] = {x, &wanted};
    QN_TRY(qn__infer_broadcast_shape(in, pair, 2, dims, &rank, &known, error));
    return qn__infer_shape_set(in, 0, rank, dims, error);
}

qn_status qn__infer_range(qn_infer *in, qn_error *error)
{
    double v[3];
    bool known = true;
    for (uint32_t i = 0; i < 3; i++)
        QN_TRY(qn__infer_need(in, i, error));
    qn__infer_dtype_like(in, 0, in->node->inputs[0]);
    for (uint32_t i = 0; i < 3; i++) {
        const qn_tensor *t = in->node->inputs[i];
        const int64_t *ints;
        size_t count, bytes;
        if (t->constant != NULL && qn__tensor_count(t, &count) && count == 1 &&
            qn__dtype_bytes(&bytes, t->type.dtype, 1) && bytes <= t->constant->size_bytes)
            v[i] = qn__load_real(t->constant->data, t->type.dtype, 0);
        else if (qn__infer_ints(in, t, &ints, &count) && count == 1)
            v[i] = (double)ints[0];
        else
            known = false;
    }
    qn_dim dim = qn_dim_unknown();
    if (known) {
        const double length = ceil((v[1] - v[0]) / v[2]);
        QN_INFER_CHECK(in, error, v[2] != 0 && isfinite(length) && length < 9e15,
                       "range from %g to %g by %g", v[0], v[1], v[2]);
        dim = qn_dim_const(length > 0 ? (int64_t)length : 0);
    }
    return qn__infer_shape_set(in, 0, 1, &dim, error);
}

qn_status qn__infer_constant(qn_infer *in, qn_error *error)
{
    const qn_node *node = in->node;
    const qn_attr *attr = node->n_attrs > 0 ? &node->attrs[0] : NULL;
    for (uint32_t i = 0; i < node->n_attrs; i++)
        if (node->attrs[i].name[0] == 'v') /* value, value_int, value_floats... */
            attr = &node->attrs[i];
    QN_INFER_CHECK(in, error, attr != NULL, "has no value");
    qn_dim dims[QN_MAX_RANK];
    size_t rank = 0;
    const qn_tensor *out = qn_infer_out(in, 0);
    switch (attr->kind) {
    case QN_ATTR_TENSOR:
        QN_INFER_CHECK(in, error, attr->t != NULL && attr->t_rank <= QN_MAX_RANK, "has no value");
        qn__infer_dtype(in, 0, attr->t_dtype);
        for (rank = 0; rank < attr->t_rank; rank++)
            dims[rank] = qn_dim_const(attr->t_dims[rank]);
        break;
    case QN_ATTR_INT:
    case QN_ATTR_INTS:
        qn__infer_dtype(in, 0, QN_DTYPE_I64);
        break;
    case QN_ATTR_FLOAT:
    case QN_ATTR_FLOATS:
        qn__infer_dtype(in, 0, QN_DTYPE_F32);
        break;
    default:
        return qn__infer_fail(in, error, QN_UNSUPPORTED, "value \"%s\" is not numbers", attr->name);
    }
    if (attr->kind == QN_ATTR_INTS || attr->kind == QN_ATTR_FLOATS) {
        dims[0] = qn_dim_const((int64_t)attr->count);
        rank = 1;
    }
    QN_TRY(qn__infer_shape_set(in, 0, rank, dims, error));
    size_t count, bytes;
    if (out == NULL || !qn__tensor_count(out, &count) || count > QN_MAX_VALUES)
        return QN_OK;
    const bool ints =
        attr->kind == QN_ATTR_INT || attr->kind == QN_ATTR_INTS ||
        (attr->kind == QN_ATTR_TENSOR && !qn__dtype_is_float(attr->t_dtype) &&
         qn__dtype_bytes(&bytes, attr->t_dtype, count) && bytes <= attr->t->size_bytes);
    if (!ints)
        return QN_OK;
    qn_dim *values = qn__arena_calloc(&in->graph->arena, count, sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++)
        values[i] = qn_dim_const(attr->kind == QN_ATTR_INT ? attr->i
                                 : attr->kind == QN_ATTR_INTS
                                     ? attr->ints[i]
                                     : qn__load_int(attr->t->data, attr->t_dtype, i));
    return qn__infer_values_set(in, 0, values, count, error);
}
