/* Operators that move, cut or join data without computing. */
#include "ir/infer_util.h"

#include <inttypes.h>

/* Values pass through operators that only change the rank. */
static qn_status pass_values(const qn_infer *in, qn_error *error)
{
    const qn_dim *values;
    size_t count;
    const qn_tensor *x = in->node->inputs[0];
    if (qn__infer_values(in, x, &values, &count))
        return qn__infer_values_set(in, 0, values, count, error);
    return QN_OK;
}

static qn_dim product(const qn_dim *dims, size_t from, size_t to)
{
    qn_dim total = qn_dim_const(1);
    for (size_t i = from; i < to; i++)
        total = qn__dim_mul(total, dims[i]);
    return total;
}

/* The dimension written -1: what is left of the input's elements. Equal factors on both sides are
 * struck out first, so that one unknown dimension that is kept does not spoil the rest. */
static qn_status remaining_dim(const qn_infer *in, const qn_tensor *x, const qn_dim *dims,
                               size_t rank, size_t free_at, qn_dim *out, qn_error *error)
{
    qn_dim have = qn_dim_const(1), used = qn_dim_const(1);
    bool struck[QN_MAX_RANK] = {false};
    for (size_t i = 0; i < rank; i++) {
        bool found = false;
        for (size_t k = 0; k < x->rank && !found && i != free_at; k++) {
            if (!struck[k] && dims[i].kind != QN_DIM_CONST && qn__dim_equal(dims[i], x->dims[k]))
                found = struck[k] = true;
        }
        if (!found && i != free_at)
            used = qn__dim_mul(used, dims[i]);
    }
    for (size_t k = 0; k < x->rank; k++)
        if (!struck[k])
            have = qn__dim_mul(have, x->dims[k]);
    const bool both = have.kind == QN_DIM_CONST && used.kind == QN_DIM_CONST;
    if (both && used.value != 0)
        QN_INFER_CHECK(in, error, have.value % used.value == 0,
                       "%" PRId64 " elements do not divide into rows of %" PRId64, have.value,
                       used.value);
    *out = qn__dim_div(have, used, true);
    return QN_OK;
}

static qn_status check_same_count(const qn_infer *in, const qn_tensor *x, const qn_dim *dims,
                                  size_t rank, qn_error *error)
{
    const qn_dim have = product(x->dims, 0, x->rank), want = product(dims, 0, rank);
    QN_INFER_CHECK(in, error,
                   have.kind != QN_DIM_CONST || want.kind != QN_DIM_CONST ||
                       have.value == want.value,
                   "input \"%s\" has %" PRId64 " elements, the new shape has %" PRId64, x->name,
                   have.value, want.value);
    return QN_OK;
}

qn_status qn__infer_reshape(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0], *shape = qn_infer_in(in, 1);
    const bool allow_zero = qn__attr_int(in->node, "allowzero", 0) != 0;
    const qn_attr *attr = qn__node_attr(in->node, "shape"); /* before opset 5 */
    qn_dim dims[QN_MAX_RANK];
    size_t rank = 0, free_at = SIZE_MAX;
    const qn_dim *values = NULL;
    bool known = false;
    qn__infer_type_moved(in, 0, x);
    if (shape != NULL) {
        known = qn__infer_values(in, shape, &values, &rank);
        if (!known && shape->has_shape && shape->rank == 1 && shape->dims[0].kind == QN_DIM_CONST &&
            shape->dims[0].value <= QN_MAX_RANK) {
            for (int64_t i = 0; i < shape->dims[0].value; i++)
                dims[i] = qn_dim_unknown();
            return qn__infer_shape_set(in, 0, (size_t)shape->dims[0].value, dims, error);
        }
    } else {
        QN_INFER_CHECK(in, error, attr != NULL && attr->kind == QN_ATTR_INTS, "input 1 is missing");
        rank = attr->count;
        known = true;
    }
    if (!known)
        return QN_OK;
    QN_INFER_CHECK(in, error, rank <= QN_MAX_RANK, "new shape has rank %zu, at most %d is read",
                   rank, QN_MAX_RANK);
    bool complete = true;
    for (size_t i = 0; i < rank; i++) {
        dims[i] = values != NULL ? values[i] : qn_dim_const(attr->ints[i]);
        if (dims[i].kind != QN_DIM_CONST)
            continue;
        if (dims[i].value == 0 && !allow_zero) {
            QN_INFER_CHECK(in, error, !x->has_shape || i < x->rank,
                           "new shape keeps dimension %zu of an input of rank %u", i, x->rank);
            dims[i] = x->has_shape ? x->dims[i] : qn_dim_unknown();
        } else if (dims[i].value == -1) {
            QN_INFER_CHECK(in, error, free_at == SIZE_MAX, "new shape has -1 twice");
            free_at = i;
            dims[i] = qn_dim_unknown();
        } else {
            QN_INFER_CHECK(in, error, dims[i].value >= 0, "new shape has dimension %" PRId64,
                           dims[i].value);
        }
    }
    for (size_t i = 0; i < rank; i++)
        complete &= i == free_at || dims[i].kind != QN_DIM_DATA;
    if (x->has_shape && free_at != SIZE_MAX && complete)
        QN_TRY(remaining_dim(in, x, dims, rank, free_at, &dims[free_at], error));
    if (x->has_shape)
        QN_TRY(check_same_count(in, x, dims, rank, error));
    QN_TRY(qn__infer_shape_set(in, 0, rank, dims, error));
    return pass_values(in, error);
}

qn_status qn__infer_flatten(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    int64_t axis = qn__attr_int(in->node, "axis", 1);
    qn__infer_type_moved(in, 0, x);
    if (!x->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, axis >= -(int64_t)x->rank && axis <= x->rank,
                   "axis %" PRId64 " is out of range for rank %u", axis, x->rank);
    if (axis < 0)
        axis += x->rank;
    const qn_dim dims[2] = {product(x->dims, 0, (size_t)axis),
                            product(x->dims, (size_t)axis, x->rank)};
    QN_TRY(qn__infer_shape_set(in, 0, 2, dims, error));
    return pass_values(in, error);
}

/* Marks axes of a tensor of `rank`; each at most once. */
static qn_status mark_axes(const qn_infer *in, const int64_t *axes, size_t count, size_t rank,
                           bool *marks, qn_error *error)
{
    for (size_t i = 0; i < count; i++) {
        int64_t axis = axes[i];
        QN_TRY(qn__infer_axis(in, &axis, rank, false, error));
        QN_INFER_CHECK(in, error, !marks[axis], "axis %" PRId64 " is given twice", axis);
        marks[axis] = true;
    }
    return QN_OK;
}

qn_status qn__infer_squeeze(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const int64_t *axes;
    size_t count, rank = 0;
    bool known, marks[QN_MAX_RANK] = {false};
    qn_dim dims[QN_MAX_RANK];
    qn__infer_type_moved(in, 0, x);
    QN_TRY(qn__infer_list(in, "axes", 1, &axes, &count, &known, error));
    if (!x->has_shape || !known)
        return QN_OK;
    const bool all = qn__node_attr(in->node, "axes") == NULL && qn_infer_in(in, 1) == NULL;
    QN_TRY(mark_axes(in, axes, count, x->rank, marks, error));
    for (size_t i = 0; i < x->rank; i++) {
        if (all && x->dims[i].kind != QN_DIM_CONST)
            return QN_OK; /* the rank depends on its value */
        QN_INFER_CHECK(in, error,
                       !marks[i] || x->dims[i].kind != QN_DIM_CONST || x->dims[i].value == 1,
                       "axis %zu of input \"%s\" has %" PRId64 " elements, not 1", i, x->name,
                       x->dims[i].value);
        if (!marks[i] && !(all && x->dims[i].value == 1))
            dims[rank++] = x->dims[i];
    }
    QN_TRY(qn__infer_shape_set(in, 0, rank, dims, error));
    return pass_values(in, error);
}

qn_status qn__infer_unsqueeze(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const int64_t *axes;
    size_t count, from = 0;
    bool known, marks[QN_MAX_RANK] = {false};
    qn_dim dims[QN_MAX_RANK];
    qn__infer_type_moved(in, 0, x);
    QN_TRY(qn__infer_list(in, "axes", 1, &axes, &count, &known, error));
    if (!x->has_shape || !known)
        return QN_OK;
    QN_INFER_CHECK(in, error, count <= QN_MAX_RANK && x->rank + count <= QN_MAX_RANK,
                   "output has rank %zu, at most %d is read", x->rank + count, QN_MAX_RANK);
    const size_t rank = x->rank + count;
    QN_TRY(mark_axes(in, axes, count, rank, marks, error));
    for (size_t i = 0; i < rank; i++)
        dims[i] = marks[i] ? qn_dim_const(1) : x->dims[from++];
    QN_TRY(qn__infer_shape_set(in, 0, rank, dims, error));
    return pass_values(in, error);
}

qn_status qn__infer_transpose(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    size_t count;
    bool seen[QN_MAX_RANK] = {false};
    qn_dim dims[QN_MAX_RANK];
    qn__infer_type_moved(in, 0, x);
    if (!x->has_shape)
        return QN_OK;
    const int64_t *perm = qn__attr_ints(in->node, "perm", &count);
    QN_INFER_CHECK(in, error, perm == NULL || count == x->rank,
                   "\"perm\" has %zu values, input \"%s\" has rank %u", count, x->name, x->rank);
    for (size_t i = 0; i < x->rank; i++) {
        const int64_t from = perm != NULL ? perm[i] : (int64_t)(x->rank - 1 - i);
        QN_INFER_CHECK(in, error, from >= 0 && from < x->rank && !seen[from],
                       "\"perm\" is not a permutation: value %" PRId64, from);
        seen[from] = true;
        dims[i] = x->dims[from];
    }
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}

/* Joined values of inputs of rank 1 (or 0 by mistake of an exporter is refused by shape). */
static qn_status concat_values(const qn_infer *in, qn_error *error)
{
    const qn_dim *values;
    size_t count, total = 0;
    for (uint32_t i = 0; i < in->node->n_inputs; i++) {
        if (!qn__infer_values(in, in->node->inputs[i], &values, &count) ||
            (total += count) > QN_MAX_VALUES)
            return QN_OK;
    }
    qn_dim *joined = qn__arena_calloc(&in->graph->arena, total, sizeof(*joined));
    if (joined == NULL)
        return QN_NOMEM(error);
    total = 0;
    for (uint32_t i = 0; i < in->node->n_inputs; i++) {
        if (!qn__infer_values(in, in->node->inputs[i], &values, &count))
            return QN_OK;
        for (size_t k = 0; k < count; k++)
            joined[total++] = values[k];
    }
    return qn__infer_values_set(in, 0, joined, total, error);
}

qn_status qn__infer_concat(qn_infer *in, qn_error *error)
{
    const uint32_t n = in->node->n_inputs;
    QN_INFER_CHECK(in, error, n >= 1, "has no inputs");
    for (uint32_t i = 0; i < n; i++)
        QN_TRY(qn__infer_need(in, i, error));
    qn__infer_dtype_like(in, 0, in->node->inputs[0]);
    const qn_tensor *first = in->node->inputs[0];
    for (uint32_t i = 0; i < n; i++)
        if (!in->node->inputs[i]->has_shape)
            return QN_OK;
    int64_t axis = qn__attr_int(in->node, "axis", 1);
    QN_TRY(qn__infer_axis(in, &axis, first->rank, false, error));
    qn_dim dims[QN_MAX_RANK];
    for (size_t k = 0; k < first->rank; k++)
        dims[k] = first->dims[k];
    for (uint32_t i = 1; i < n; i++) {
        const qn_tensor *x = in->node->inputs[i];
        QN_INFER_CHECK(in, error, x->rank == first->rank,
                       "input \"%s\" has rank %u, input \"%s\" has %u", x->name, x->rank,
                       first->name, first->rank);
        for (size_t k = 0; k < x->rank; k++) {
            if ((int64_t)k == axis) {
                dims[k] = qn__dim_add(dims[k], x->dims[k]);
                continue;
            }
            const bool both = dims[k].kind == QN_DIM_CONST && x->dims[k].kind == QN_DIM_CONST;
            QN_INFER_CHECK(in, error, !both || dims[k].value == x->dims[k].value,
                           "input \"%s\" has dimension %zu of %" PRId64 ", \"%s\" has %" PRId64,
                           x->name, k, x->dims[k].value, first->name, dims[k].value);
            if (dims[k].kind == QN_DIM_DATA ||
                (dims[k].kind == QN_DIM_SYMBOL && x->dims[k].kind == QN_DIM_CONST))
                dims[k] = x->dims[k];
        }
    }
    QN_TRY(qn__infer_shape_set(in, 0, first->rank, dims, error));
    return first->rank == 1 ? concat_values(in, error) : QN_OK;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* Start, step and length of a slice along an axis of `size` elements. */
static int64_t slice_length(int64_t size, int64_t *start, int64_t end, int64_t step)
{
    if (*start < 0)
        *start = *start < -size ? -1 : *start + size;
    if (end < 0)
        end = end < -size ? -1 : end + size;
    if (step > 0) {
        *start = clamp(*start, 0, size);
        end = clamp(end, 0, size);
        return end <= *start ? 0 : (end - *start - 1) / step + 1;
    }
    *start = clamp(*start, step < 0 && size == 0 ? -1 : 0, size - 1);
    end = clamp(end, -1, size - 1);
    if (*start <= end)
        return 0;
    return step == INT64_MIN ? 1 : (*start - end - 1) / -step + 1;
}

static qn_status slice_values(const qn_infer *in, int64_t start, int64_t end, int64_t step,
                              qn_error *error)
{
    const qn_dim *values;
    size_t count;
    if (in->node->inputs[0]->rank != 1 ||
        !qn__infer_values(in, in->node->inputs[0], &values, &count))
        return QN_OK;
    const int64_t length = slice_length((int64_t)count, &start, end, step);
    qn_dim *out = qn__arena_calloc(&in->graph->arena, (size_t)length, sizeof(*out));
    if (out == NULL)
        return QN_NOMEM(error);
    for (int64_t i = 0; i < length; i++)
        out[i] = values[start + i * step];
    return qn__infer_values_set(in, 0, out, (size_t)length, error);
}

qn_status qn__infer_slice(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    static const char *const NAMES[4] = {"starts", "ends", "axes", "steps"};
    const int64_t *lists[4];
    size_t counts[4];
    bool known[4];
    qn__infer_type_moved(in, 0, x);
    for (uint32_t i = 0; i < 4; i++)
        QN_TRY(qn__infer_list(in, NAMES[i], i + 1, &lists[i], &counts[i], &known[i], error));
    if (!x->has_shape)
        return QN_OK;
    qn_dim dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = x->dims[i];
    if (!known[0] || !known[1] || !known[2] || !known[3]) {
        const bool axes_known = known[2] && counts[2] > 0;
        for (size_t i = 0; i < (axes_known ? counts[2] : x->rank); i++) {
            int64_t axis = axes_known ? lists[2][i] : (int64_t)i;
            QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
            dims[axis] = qn_dim_unknown();
        }
        return qn__infer_shape_set(in, 0, x->rank, dims, error);
    }
    const size_t n = counts[0];
    QN_INFER_CHECK(in, error,
                   counts[1] == n && n <= x->rank && (counts[2] == 0 || counts[2] == n) &&
                       (counts[3] == 0 || counts[3] == n),
                   "has %zu starts, %zu ends, %zu axes and %zu steps for rank %u", n, counts[1],
                   counts[2], counts[3], x->rank);
    bool seen[QN_MAX_RANK] = {false};
    for (size_t i = 0; i < n; i++) {
        int64_t axis = counts[2] > 0 ? lists[2][i] : (int64_t)i, start = lists[0][i];
        const int64_t end = lists[1][i], step = counts[3] > 0 ? lists[3][i] : 1;
        QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
        QN_INFER_CHECK(in, error, step != 0 && !seen[axis],
                       "axis %" PRId64 " has step %" PRId64 "%s", axis, step,
                       seen[axis] ? " and is given twice" : "");
        seen[axis] = true;
        if (x->dims[axis].kind == QN_DIM_CONST)
            dims[axis] = qn_dim_const(slice_length(x->dims[axis].value, &start, end, step));
        else if (!(start == 0 && end >= INT32_MAX && step == 1))
            dims[axis] = qn_dim_unknown();
    }
    QN_TRY(qn__infer_shape_set(in, 0, x->rank, dims, error));
    return n == 1 && x->rank == 1
               ? slice_values(in, lists[0][0], lists[1][0], counts[3] > 0 ? lists[3][0] : 1, error)
               : QN_OK;
}

qn_status qn__infer_split(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const uint32_t n = in->node->n_outputs;
    const int64_t *sizes;
    size_t count;
    bool known;
    for (uint32_t i = 0; i < n; i++)
        qn__infer_type_moved(in, i, x);
    QN_TRY(qn__infer_list(in, "split", 1, &sizes, &count, &known, error));
    QN_INFER_CHECK(in, error, !known || count == 0 || count == n,
                   "\"split\" has %zu values for %u outputs", count, n);
    const int64_t parts = qn__attr_int(in->node, "num_outputs", n);
    QN_INFER_CHECK(in, error, parts == n, "\"num_outputs\" is %" PRId64 ", there are %u outputs",
                   parts, n);
    if (!x->has_shape)
        return QN_OK;
    int64_t axis = qn__attr_int(in->node, "axis", 0);
    QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
    qn_dim dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = x->dims[i];
    const qn_dim whole = x->dims[axis];
    int64_t left = whole.value;
    for (uint32_t i = 0; i < n; i++) {
        dims[axis] = qn_dim_unknown();
        if (known && count > 0) {
            QN_INFER_CHECK(in, error, sizes[i] >= 0, "part %u has size %" PRId64, i, sizes[i]);
            dims[axis] = qn_dim_const(sizes[i]);
        } else if (known && whole.kind == QN_DIM_CONST) {
            /* Equal parts, the last one smaller if need be. */
            const int64_t part = whole.value / n + (whole.value % n != 0);
            dims[axis] = qn_dim_const(part < left ? part : left);
        } else if (known) {
            dims[axis] = qn__dim_div(whole, qn_dim_const(n), true);
        }
        if (whole.kind == QN_DIM_CONST && dims[axis].kind == QN_DIM_CONST) {
            QN_INFER_CHECK(in, error, dims[axis].value <= left,
                           "parts are larger than axis %" PRId64 " with %" PRId64 " elements", axis,
                           whole.value);
            left -= dims[axis].value;
        }
        QN_TRY(qn__infer_shape_set(in, i, x->rank, dims, error));
    }
    QN_INFER_CHECK(in, error, !known || whole.kind != QN_DIM_CONST || left == 0,
                   "parts leave %" PRId64 " elements of axis %" PRId64, left, axis);
    return QN_OK;
}

static qn_status gather_values(const qn_infer *in, qn_error *error)
{
    const qn_dim *values;
    const int64_t *indices;
    size_t n_values, count;
    if (in->node->inputs[0]->rank != 1 ||
        !qn__infer_values(in, in->node->inputs[0], &values, &n_values) ||
        !qn__infer_ints(in, in->node->inputs[1], &indices, &count))
        return QN_OK;
    qn_dim *out = qn__arena_calloc(&in->graph->arena, count, sizeof(*out));
    if (out == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++)
        out[i] = values[indices[i] < 0 ? indices[i] + (int64_t)n_values : indices[i]];
    return qn__infer_values_set(in, 0, out, count, error);
}

qn_status qn__infer_gather(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0], *indices = in->node->inputs[1];
    qn__infer_type_moved(in, 0, x);
    if (!x->has_shape || !indices->has_shape)
        return QN_OK;
    int64_t axis = qn__attr_int(in->node, "axis", 0);
    QN_INFER_CHECK(in, error, x->rank >= 1, "input \"%s\" is a scalar", x->name);
    QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
    const size_t rank = (size_t)x->rank - 1 + indices->rank;
    QN_INFER_CHECK(in, error, rank <= QN_MAX_RANK, "output has rank %zu, at most %d is read", rank,
                   QN_MAX_RANK);
    const int64_t *list;
    size_t count, at = 0;
    if (x->dims[axis].kind == QN_DIM_CONST && qn__infer_ints(in, indices, &list, &count)) {
        const int64_t size = x->dims[axis].value;
        for (size_t i = 0; i < count; i++)
            QN_INFER_CHECK(in, error, list[i] >= -size && list[i] < size,
                           "index %" PRId64 " is out of range for axis %" PRId64 " of %" PRId64,
                           list[i], axis, size);
    }
    qn_dim dims[QN_MAX_RANK];
    for (int64_t i = 0; i < axis; i++)
        dims[at++] = x->dims[i];
    for (size_t i = 0; i < indices->rank; i++)
        dims[at++] = indices->dims[i];
    for (size_t i = (size_t)axis + 1; i < x->rank; i++)
        dims[at++] = x->dims[i];
    QN_TRY(qn__infer_shape_set(in, 0, rank, dims, error));
    return x->dims[0].kind == QN_DIM_CONST ? gather_values(in, error) : QN_OK;
}
