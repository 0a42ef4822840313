/* Operators that make tensors larger or rearrange space: Pad, Resize, Tile, DepthToSpace. */
#include "ir/infer_util.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

qn_status qn__infer_pad(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const int64_t *pads, *axes;
    size_t n_pads, n_axes;
    bool known, axes_known;
    const qn_tensor *value = qn_infer_in(in, 2);
    size_t count = 1;
    if (value != NULL)
        qn__tensor_count(value, &count);
    QN_INFER_CHECK(in, error, count == 1, "pads with %zu values", count);
    qn__infer_dtype_like(in, 0, x);
    QN_TRY(qn__infer_list(in, "pads", 1, &pads, &n_pads, &known, error));
    QN_TRY(qn__infer_list(in, "axes", 3, &axes, &n_axes, &axes_known, error));
    if (!x->has_shape)
        return QN_OK;
    qn_dim dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = known && axes_known ? x->dims[i] : qn_dim_unknown();
    if (!known || !axes_known)
        return qn__infer_shape_set(in, 0, x->rank, dims, error);
    const size_t n = n_axes > 0 ? n_axes : x->rank;
    QN_INFER_CHECK(in, error, n <= x->rank && n_pads == 2 * n, "has %zu pads for %zu axes", n_pads,
                   n);
    bool seen[QN_MAX_RANK] = {false};
    for (size_t i = 0; i < n; i++) {
        int64_t axis = n_axes > 0 ? axes[i] : (int64_t)i, sum;
        QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
        QN_INFER_CHECK(in, error, !seen[axis], "axis %" PRId64 " is given twice", axis);
        seen[axis] = true;
        QN_INFER_CHECK(in, error, !__builtin_add_overflow(pads[i], pads[n + i], &sum),
                       "pads %" PRId64 " and %" PRId64 " are too large", pads[i], pads[n + i]);
        dims[axis] = qn__dim_add(x->dims[axis], qn_dim_const(sum));
        /* One side may cut all of the input away and more, which is not a tensor any more. */
        if (x->dims[axis].kind == QN_DIM_CONST) {
            const int64_t size = x->dims[axis].value;
            QN_INFER_CHECK(
                in, error, dims[axis].value >= 0 && pads[i] >= -size && pads[n + i] >= -size,
                "pads %" PRId64 " and %" PRId64 " cut more than axis %" PRId64 " of %" PRId64,
                pads[i], pads[n + i], axis, size);
        }
    }
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}

/* Axes a Resize works on: all, or the attribute `axes`. */
static qn_status resize_axes(const qn_infer *in, const qn_tensor *x, int64_t *axes, size_t *n,
                             qn_error *error)
{
    size_t count;
    const int64_t *list = qn__attr_ints(in->node, "axes", &count);
    bool seen[QN_MAX_RANK] = {false};
    *n = list != NULL ? count : x->rank;
    QN_INFER_CHECK(in, error, *n <= x->rank, "\"axes\" has %zu values for rank %u", count, x->rank);
    for (size_t i = 0; i < *n; i++) {
        axes[i] = list != NULL ? list[i] : (int64_t)i;
        QN_TRY(qn__infer_axis(in, &axes[i], x->rank, false, error));
        QN_INFER_CHECK(in, error, !seen[axes[i]], "axis %" PRId64 " is given twice", axes[i]);
        seen[axes[i]] = true;
    }
    return QN_OK;
}

static qn_status resize_by_scales(const qn_infer *in, const qn_tensor *x, const qn_tensor *scales,
                                  const int64_t *axes, size_t n, qn_dim *dims, qn_error *error)
{
    size_t count;
    const float *values = qn__tensor_floats(in->graph, scales, &count);
    QN_INFER_CHECK(in, error, values == NULL || count == n, "has %zu scales for %zu axes", count,
                   n);
    for (size_t i = 0; i < n; i++) {
        const qn_dim old = x->dims[axes[i]];
        dims[axes[i]] = qn_dim_unknown();
        if (values == NULL)
            continue;
        QN_INFER_CHECK(in, error, isfinite(values[i]) && values[i] > 0,
                       "scale %g of axis %" PRId64 " is not positive", (double)values[i], axes[i]);
        const float scale = values[i];
        if (scale == 1.0f) {
            dims[axes[i]] = old;
        } else if (old.kind ==
                   QN_DIM_CONST) { /* the product as runtimes round it: 10 by 2.3 is 23 */
            const float size = floorf((float)old.value * scale);
            QN_INFER_CHECK(in, error, size < 9e15f, "output has size %g along axis %" PRId64,
                           (double)size, axes[i]);
            dims[axes[i]] = qn_dim_const((int64_t)size);
        } else if (scale == floorf(scale) && scale < 1e6f) {
            dims[axes[i]] = qn__dim_mul(old, qn_dim_const((int64_t)scale));
        }
    }
    return QN_OK;
}

static qn_status resize_by_sizes(const qn_infer *in, const qn_tensor *x, const qn_tensor *sizes,
                                 const int64_t *axes, size_t n, qn_dim *dims, qn_error *error)
{
    const char *policy = qn__attr_string(in->node, "keep_aspect_ratio_policy", "stretch");
    const bool smaller = strcmp(policy, "not_larger") == 0;
    const bool larger = strcmp(policy, "not_smaller") == 0;
    if (!smaller && !larger && strcmp(policy, "stretch") != 0)
        return qn__infer_fail(in, error, QN_UNSUPPORTED, "\"keep_aspect_ratio_policy\" is \"%s\"",
                              policy);
    const qn_dim *values;
    size_t count;
    const bool known = qn__infer_values(in, sizes, &values, &count);
    QN_INFER_CHECK(in, error, !known || count == n, "has %zu sizes for %zu axes", count, n);
    for (size_t i = 0; i < n; i++)
        dims[axes[i]] = known ? values[i] : qn_dim_unknown();
    if (!smaller && !larger)
        return QN_OK;
    float scale = 0.0f;
    bool fixed = known;
    for (size_t i = 0; i < n && fixed; i++) {
        const qn_dim old = x->dims[axes[i]];
        fixed = old.kind == QN_DIM_CONST && old.value > 0 && values[i].kind == QN_DIM_CONST &&
                values[i].value > 0;
        const float own = fixed ? (float)values[i].value / (float)old.value : 0.0f;
        if (scale == 0.0f || (smaller ? own < scale : own > scale))
            scale = own;
    }
    for (size_t i = 0; i < n; i++) {
        const float size = fixed ? roundf(scale * (float)x->dims[axes[i]].value) : 0.0f;
        QN_INFER_CHECK(in, error, size < 9e15f, "output has size %g along axis %" PRId64,
                       (double)size, axes[i]);
        dims[axes[i]] = fixed ? qn_dim_const((int64_t)size) : qn_dim_unknown();
    }
    return QN_OK;
}

qn_status qn__infer_resize(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0], *scales = qn_infer_in(in, 2);
    const qn_tensor *sizes = qn_infer_in(in, 3);
    int64_t axes[QN_MAX_RANK];
    size_t n, count;
    qn__infer_dtype_like(in, 0, x);
    if (!x->has_shape)
        return QN_OK;
    QN_TRY(resize_axes(in, x, axes, &n, error));
    qn_dim dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = x->dims[i];
    /* Exporters give an empty tensor for the one of scales and sizes they do not use. */
    if (sizes != NULL && !(qn__tensor_count(sizes, &count) && count == 0)) {
        QN_TRY(resize_by_sizes(in, x, sizes, axes, n, dims, error));
    } else {
        QN_INFER_CHECK(in, error, scales != NULL, "has neither scales nor sizes");
        QN_TRY(resize_by_scales(in, x, scales, axes, n, dims, error));
    }
    for (size_t i = 0; i < x->rank; i++)
        QN_INFER_CHECK(in, error, !qn_dim_is(dims[i], 0) || qn_dim_is(x->dims[i], 0),
                       "output has no elements along axis %zu", i);
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}

qn_status qn__infer_tile(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0];
    const qn_dim *repeats;
    size_t count;
    qn__infer_type_moved(in, 0, x);
    if (!x->has_shape)
        return QN_OK;
    const bool known = qn__infer_values(in, in->node->inputs[1], &repeats, &count);
    QN_INFER_CHECK(in, error, !known || count == x->rank, "has %zu repeats for rank %u", count,
                   x->rank);
    qn_dim dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++) {
        QN_INFER_CHECK(in, error, !known || repeats[i].kind == QN_DIM_DATA || repeats[i].value >= 0,
                       "repeats axis %zu %" PRId64 " times", i, repeats[i].value);
        dims[i] = known ? qn__dim_mul(x->dims[i], repeats[i]) : qn_dim_unknown();
        const bool both =
            known && x->dims[i].kind == QN_DIM_CONST && repeats[i].kind == QN_DIM_CONST;
        QN_INFER_CHECK(in, error, !both || dims[i].kind == QN_DIM_CONST,
                       "output is too large along axis %zu", i);
    }
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}

qn_status qn__infer_depth_to_space(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const int64_t block = qn__attr_int(in->node, "blocksize", 0);
    qn__infer_type_moved(in, 0, x);
    QN_INFER_CHECK(in, error, block >= 1 && block <= 65536, "\"blocksize\" is %" PRId64, block);
    if (!x->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank == 4, "input \"%s\" has rank %u, not 4", x->name, x->rank);
    const bool to_space = in->node->op == QN_OP_DEPTH_TO_SPACE;
    const qn_dim area = qn_dim_const(block * block), side = qn_dim_const(block);
    qn_dim dims[4] = {x->dims[0]};
    for (size_t i = 1; i < 4; i++) {
        const bool divide = (i == 1) == to_space;
        const qn_dim by = i == 1 ? area : side;
        QN_INFER_CHECK(in, error,
                       !divide || x->dims[i].kind != QN_DIM_CONST ||
                           x->dims[i].value % by.value == 0,
                       "dimension %zu of input \"%s\", %" PRId64 ", does not divide by %" PRId64, i,
                       x->name, x->dims[i].value, by.value);
        dims[i] = divide ? qn__dim_div(x->dims[i], by, true) : qn__dim_mul(x->dims[i], by);
    }
    return qn__infer_shape_set(in, 0, 4, dims, error);
}
