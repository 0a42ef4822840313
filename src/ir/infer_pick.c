/* Operators that pick, place, order or find elements. */
#include "ir/infer_util.h"

#include <inttypes.h>

qn_status qn__infer_gather_elements(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0], *index = in->node->inputs[1];
    qn__infer_type_moved(in, 0, x);
    if (!index->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, !x->has_shape || x->rank == index->rank,
                   "input has rank %u, indices have %u", x->rank, index->rank);
    return qn__infer_shape_set(in, 0, index->rank, index->dims, error);
}

qn_status qn__infer_gather_nd(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0], *index = in->node->inputs[1];
    const int64_t batch = qn__attr_int(in->node, "batch_dims", 0);
    qn__infer_type_moved(in, 0, x);
    if (!x->has_shape || !index->has_shape)
        return QN_OK;
    QN_INFER_CHECK(
        in, error,
        x->rank >= 1 && index->rank >= 1 && batch >= 0 && batch < x->rank && batch < index->rank,
        "\"batch_dims\" is %" PRId64 " for ranks %u and %u", batch, x->rank, index->rank);
    const qn_dim tuple = index->dims[index->rank - 1];
    if (tuple.kind != QN_DIM_CONST)
        return QN_OK;
    QN_INFER_CHECK(in, error, tuple.value >= 1 && tuple.value <= x->rank - batch,
                   "indices of %" PRId64 " parts for rank %u", tuple.value, x->rank);
    qn_dim dims[2 * QN_MAX_RANK];
    size_t rank = 0;
    for (size_t i = 0; i + 1 < index->rank; i++)
        dims[rank++] = index->dims[i];
    for (size_t i = (size_t)(batch + tuple.value); i < x->rank; i++)
        dims[rank++] = x->dims[i];
    return qn__infer_shape_set(in, 0, rank, dims, error);
}

qn_status qn__infer_one_hot(qn_infer *in, qn_error *error)
{
    for (uint32_t i = 0; i < 3; i++)
        QN_TRY(qn__infer_need(in, i, error));
    const qn_tensor *index = in->node->inputs[0];
    const int64_t *depth;
    size_t count;
    qn__infer_dtype_like(in, 0, in->node->inputs[2]);
    if (!index->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, index->rank < QN_MAX_RANK, "indices have rank %u", index->rank);
    int64_t axis = qn__attr_int(in->node, "axis", -1);
    QN_TRY(qn__infer_axis(in, &axis, index->rank, true, error));
    qn_dim dims[QN_MAX_RANK];
    size_t rank = 0;
    for (size_t i = 0; i <= index->rank; i++)
        dims[i] = i == (size_t)axis ? qn_dim_unknown() : index->dims[rank++];
    if (qn__infer_ints(in, in->node->inputs[1], &depth, &count)) {
        QN_INFER_CHECK(in, error, count == 1 && depth[0] >= 1, "depth is not one positive number");
        dims[axis] = qn_dim_const(depth[0]);
    }
    return qn__infer_shape_set(in, 0, index->rank + 1u, dims, error);
}

qn_status qn__infer_top_k(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0];
    const int64_t *k;
    size_t count;
    qn__infer_dtype_like(in, 0, x);
    qn__infer_dtype(in, 1, QN_DTYPE_I64);
    if (!x->has_shape)
        return QN_OK;
    int64_t axis = qn__attr_int(in->node, "axis", -1);
    QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
    qn_dim dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = x->dims[i];
    dims[axis] = qn_dim_unknown();
    if (qn__infer_ints(in, in->node->inputs[1], &k, &count)) {
        QN_INFER_CHECK(in, error, count == 1 && k[0] >= 0, "k is not one number from 0 on");
        QN_INFER_CHECK(in, error, x->dims[axis].kind != QN_DIM_CONST || k[0] <= x->dims[axis].value,
                       "k is %" PRId64 ", axis %" PRId64 " has %" PRId64 " elements", k[0], axis,
                       x->dims[axis].value);
        dims[axis] = qn_dim_const(k[0]);
    }
    QN_TRY(qn__infer_shape_set(in, 0, x->rank, dims, error));
    return qn__infer_shape_set(in, 1, x->rank, dims, error);
}

/* How many elements are not 0 is known for constants only. */
qn_status qn__infer_non_zero(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    size_t count, bytes;
    qn__infer_dtype(in, 0, QN_DTYPE_I64);
    if (!x->has_shape)
        return QN_OK;
    qn_dim dims[2] = {qn_dim_const(x->rank > 0 ? x->rank : 1), qn_dim_unknown()};
    if (qn__tensor_count(x, &count) && count <= INT64_MAX)
        dims[1].value = (int64_t)count; /* at most */
    if (x->constant != NULL && x->type.kind == QN_TYPE_PLAIN && qn__tensor_count(x, &count) &&
        qn__dtype_bytes(&bytes, x->type.dtype, count) && bytes <= x->constant->size_bytes) {
        int64_t found = 0;
        for (size_t i = 0; i < count; i++)
            found += qn__load_real(x->constant->data, x->type.dtype, i) != 0.0;
        dims[1] = qn_dim_const(found);
    }
    return qn__infer_shape_set(in, 0, 2, dims, error);
}
