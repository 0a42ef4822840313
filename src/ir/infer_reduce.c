/* Reductions. */
#include "ir/infer_util.h"

#include <inttypes.h>

static qn_status reduced_shape(const qn_infer *in, const qn_tensor *x, const bool *reduced,
                               bool keepdims, qn_error *error)
{
    qn_dim dims[QN_MAX_RANK];
    size_t rank = 0;
    for (size_t i = 0; i < x->rank; i++) {
        if (!reduced[i])
            dims[rank++] = x->dims[i];
        else if (keepdims)
            dims[rank++] = qn_dim_const(1);
    }
    return qn__infer_shape_set(in, 0, rank, dims, error);
}

/* Product of the values of a shape, the usual use of ReduceProd in shape arithmetic. */
static qn_status product_value(const qn_infer *in, const qn_tensor *x, qn_error *error)
{
    const qn_dim *values;
    size_t count;
    if (x->rank != 1 || !qn__infer_values(in, x, &values, &count))
        return QN_OK;
    qn_dim product = qn_dim_const(1);
    for (size_t i = 0; i < count; i++)
        product = qn__dim_mul(product, values[i]);
    return qn__infer_values_set(in, 0, &product, 1, error);
}

qn_status qn__infer_reduce(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const bool keepdims = qn__attr_int(in->node, "keepdims", 1) != 0;
    const int64_t *axes;
    size_t count;
    bool known, reduced[QN_MAX_RANK] = {false};
    qn__infer_dtype_like(in, 0, x);
    QN_TRY(qn__infer_list(in, "axes", 1, &axes, &count, &known, error));
    if (!x->has_shape || (!known && !keepdims))
        return QN_OK;
    if (!known) {
        qn_dim dims[QN_MAX_RANK];
        for (size_t i = 0; i < x->rank; i++)
            dims[i] = qn_dim_unknown();
        return qn__infer_shape_set(in, 0, x->rank, dims, error);
    }
    if (count == 0 && qn__attr_int(in->node, "noop_with_empty_axes", 0) != 0)
        return qn__infer_shape_set(in, 0, x->rank, x->dims, error);
    for (size_t i = 0; i < x->rank && count == 0; i++)
        reduced[i] = true;
    for (size_t i = 0; i < count; i++) {
        int64_t axis = axes[i];
        QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
        QN_INFER_CHECK(in, error, !reduced[axis], "axis %" PRId64 " is given twice", axis);
        reduced[axis] = true;
    }
    QN_TRY(reduced_shape(in, x, reduced, keepdims, error));
    return in->node->op == QN_OP_REDUCE_PROD ? product_value(in, x, error) : QN_OK;
}

qn_status qn__infer_arg_reduce(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    int64_t axis = qn__attr_int(in->node, "axis", 0);
    bool reduced[QN_MAX_RANK] = {false};
    qn__infer_dtype(in, 0, QN_DTYPE_I64);
    if (!x->has_shape)
        return QN_OK;
    QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
    QN_INFER_CHECK(in, error, !qn_dim_is(x->dims[axis], 0), "axis %" PRId64 " is empty", axis);
    reduced[axis] = true;
    return reduced_shape(in, x, reduced, qn__attr_int(in->node, "keepdims", 1) != 0, error);
}
