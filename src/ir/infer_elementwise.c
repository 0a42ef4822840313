/* Operators that keep or broadcast shapes, and changes of type. */
#include "ir/infer_util.h"

#include <inttypes.h>
#include <math.h>

/* Input `index` holds one value per channel of x. */
static qn_status check_per_channel(const qn_infer *in, uint32_t index, const qn_tensor *x,
                                   qn_error *error)
{
    QN_TRY(qn__infer_need(in, index, error));
    const qn_tensor *p = in->node->inputs[index];
    if (!p->has_shape || !x->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank >= 2, "input \"%s\" has rank %u, 2 is the least", x->name,
                   x->rank);
    QN_INFER_CHECK(in, error, p->rank == 1, "parameter \"%s\" has rank %u", p->name, p->rank);
    QN_INFER_CHECK(in, error,
                   p->dims[0].kind != QN_DIM_CONST || x->dims[1].kind != QN_DIM_CONST ||
                       p->dims[0].value == x->dims[1].value,
                   "parameter \"%s\" has %" PRId64 " values, input \"%s\" has %" PRId64 " channels",
                   p->name, p->dims[0].value, x->name, x->dims[1].value);
    return QN_OK;
}

static qn_status check_epsilon(const qn_infer *in, qn_error *error)
{
    const float epsilon = qn__attr_float(in->node, "epsilon", 1e-5f);
    if (!isfinite(epsilon))
        return qn__infer_fail(in, error, QN_NONFINITE, "\"epsilon\" is %g", (double)epsilon);
    QN_INFER_CHECK(in, error, epsilon >= 0, "\"epsilon\" is %g", (double)epsilon);
    return QN_OK;
}

static qn_status check_axis_attr(const qn_infer *in, const qn_tensor *x, qn_error *error)
{
    int64_t axis = qn__attr_int(in->node, "axis", -1);
    return x->has_shape ? qn__infer_axis(in, &axis, x->rank, false, error) : QN_OK;
}

/* What inputs beside the first must look like. */
static qn_status check_params(const qn_infer *in, const qn_tensor *x, qn_error *error)
{
    switch (in->node->op) {
    case QN_OP_BATCH_NORMALIZATION:
        for (uint32_t i = 1; i <= 4; i++)
            QN_TRY(check_per_channel(in, i, x, error));
        return check_epsilon(in, error);
    case QN_OP_INSTANCE_NORMALIZATION:
        for (uint32_t i = 1; i <= 2; i++)
            QN_TRY(check_per_channel(in, i, x, error));
        return check_epsilon(in, error);
    case QN_OP_LAYER_NORMALIZATION:
        QN_TRY(qn__infer_need(in, 1, error));
        QN_TRY(check_axis_attr(in, x, error));
        return check_epsilon(in, error);
    case QN_OP_SOFTMAX:
    case QN_OP_LOG_SOFTMAX:
        return check_axis_attr(in, x, error);
    case QN_OP_LRN:
        QN_INFER_CHECK(in, error, qn__attr_int(in->node, "size", 1) >= 1, "\"size\" is %" PRId64,
                       qn__attr_int(in->node, "size", 1));
        return QN_OK;
    case QN_OP_PRELU: {
        QN_TRY(qn__infer_need(in, 1, error));
        const qn_tensor *slope = in->node->inputs[1];
        if (!slope->has_shape || !x->has_shape)
            return QN_OK;
        QN_INFER_CHECK(in, error, slope->rank <= x->rank, "slope \"%s\" has rank %u, input has %u",
                       slope->name, slope->rank, x->rank);
        for (size_t i = 0; i < slope->rank; i++) {
            const qn_dim s = slope->dims[i], d = x->dims[x->rank - slope->rank + i];
            QN_INFER_CHECK(in, error,
                           qn_dim_is(s, 1) || s.kind != QN_DIM_CONST || d.kind != QN_DIM_CONST ||
                               s.value == d.value,
                           "slope \"%s\" has dimension %zu of %" PRId64 ", input has %" PRId64,
                           slope->name, i, s.value, d.value);
        }
        return QN_OK;
    }
    case QN_OP_CLIP:
        for (uint32_t i = 1; i <= 2; i++) {
            const qn_tensor *bound = qn_infer_in(in, i);
            size_t count;
            QN_INFER_CHECK(in, error,
                           bound == NULL || !qn__tensor_count(bound, &count) || count == 1,
                           "bound \"%s\" is not a scalar", bound->name);
        }
        return QN_OK;
    default:
        return QN_OK;
    }
}

/* Second and further outputs of operators whose first has the input's shape. */
static qn_status extra_outputs(const qn_infer *in, const qn_tensor *x, qn_error *error)
{
    const qn_op op = in->node->op;
    if (op == QN_OP_DROPOUT) {
        qn__infer_dtype(in, 1, QN_DTYPE_BOOL);
        return x->has_shape ? qn__infer_shape_set(in, 1, x->rank, x->dims, error) : QN_OK;
    }
    if (op == QN_OP_LAYER_NORMALIZATION && x->has_shape) {
        int64_t axis = qn__attr_int(in->node, "axis", -1);
        qn_dim dims[QN_MAX_RANK];
        QN_TRY(qn__infer_axis(in, &axis, x->rank, false, error));
        for (size_t i = 0; i < x->rank; i++)
            dims[i] = (int64_t)i < axis ? x->dims[i] : qn_dim_const(1);
        for (uint32_t i = 1; i <= 2; i++) {
            qn__infer_dtype(in, i, QN_DTYPE_F32);
            QN_TRY(qn__infer_shape_set(in, i, x->rank, dims, error));
        }
    }
    if (op == QN_OP_BATCH_NORMALIZATION && qn_has_shape(qn_infer_in(in, 3))) {
        const qn_tensor *mean = in->node->inputs[3];
        for (uint32_t i = 1; i <= 2; i++) {
            qn__infer_dtype_like(in, i, mean);
            QN_TRY(qn__infer_shape_set(in, i, mean->rank, mean->dims, error));
        }
    }
    return QN_OK;
}

qn_status qn__infer_same(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const qn_op op = in->node->op;
    if (op == QN_OP_IDENTITY || op == QN_OP_DROPOUT)
        qn__infer_type_moved(in, 0, x);
    else
        qn__infer_dtype_like(in, 0, x);
    QN_TRY(check_params(in, x, error));
    QN_TRY(extra_outputs(in, x, error));
    if (!x->has_shape)
        return QN_OK;
    QN_TRY(qn__infer_shape_set(in, 0, x->rank, x->dims, error));
    const qn_dim *values;
    size_t count;
    /* Whole numbers stay what they are under Floor and Ceil. */
    if ((op == QN_OP_IDENTITY || op == QN_OP_FLOOR || op == QN_OP_CEIL || op == QN_OP_DROPOUT) &&
        qn__infer_values(in, x, &values, &count))
        return qn__infer_values_set(in, 0, values, count, error);
    return QN_OK;
}

/* IsNaN, IsInf, Not: a bool for each element. */
qn_status qn__infer_test(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    qn__infer_dtype(in, 0, QN_DTYPE_BOOL);
    return x->has_shape ? qn__infer_shape_set(in, 0, x->rank, x->dims, error) : QN_OK;
}

qn_status qn__infer_cast_like(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0];
    qn__infer_dtype_like(in, 0, in->node->inputs[1]);
    return x->has_shape ? qn__infer_shape_set(in, 0, x->rank, x->dims, error) : QN_OK;
}

qn_status qn__infer_eye_like(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const int64_t code = qn__attr_int(in->node, "dtype", 0);
    const qn_dtype dtype = qn__dtype_of_onnx(code);
    if (code != 0 && dtype == QN_DTYPE_NONE)
        return qn__infer_fail(in, error, QN_UNSUPPORTED, "data type %" PRId64, code);
    if (code != 0)
        qn__infer_dtype(in, 0, dtype);
    else
        qn__infer_dtype_like(in, 0, x);
    QN_INFER_CHECK(in, error, !x->has_shape || x->rank == 2, "input has rank %u, 2 is needed",
                   x->rank);
    return x->has_shape ? qn__infer_shape_set(in, 0, 2, x->dims, error) : QN_OK;
}

qn_status qn__infer_cast(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    const int64_t to = qn__attr_int(in->node, "to", 0);
    const qn_dtype dtype = qn__dtype_of_onnx(to);
    if (dtype == QN_DTYPE_NONE)
        return qn__infer_fail(in, error, QN_UNSUPPORTED, "cast to data type %" PRId64, to);
    qn__infer_dtype(in, 0, dtype);
    if (!x->has_shape)
        return QN_OK;
    QN_TRY(qn__infer_shape_set(in, 0, x->rank, x->dims, error));
    const qn_dim *values;
    size_t count;
    /* Narrow types would wrap or round; shape arithmetic does not go through them. */
    const bool keeps = dtype == QN_DTYPE_I64 || dtype == QN_DTYPE_I32 || dtype == QN_DTYPE_F32 ||
                       dtype == QN_DTYPE_F64;
    /* Cast truncates fractions, which values do not have (they are DATA then). */
    if (keeps && qn__infer_values(in, x, &values, &count)) {
        for (size_t i = 0; i < count; i++)
            if (values[i].kind == QN_DIM_CONST &&
                (values[i].value > 16777216 || values[i].value < -16777216) &&
                dtype != QN_DTYPE_I64)
                return QN_OK;
        return qn__infer_values_set(in, 0, values, count, error);
    }
    return QN_OK;
}

static qn_dim combine(qn_op op, qn_dim a, qn_dim b, bool is_float)
{
    const bool both = a.kind == QN_DIM_CONST && b.kind == QN_DIM_CONST;
    switch (op) {
    case QN_OP_ADD:
        return qn__dim_add(a, b);
    case QN_OP_SUB:
        return qn__dim_sub(a, b);
    case QN_OP_MUL:
        return qn__dim_mul(a, b);
    case QN_OP_DIV:
        return qn__dim_div(a, b, is_float);
    case QN_OP_MIN:
        return both ? qn_dim_const(a.value < b.value ? a.value : b.value) : qn_dim_unknown();
    case QN_OP_MAX:
        return both ? qn_dim_const(a.value > b.value ? a.value : b.value) : qn_dim_unknown();
    case QN_OP_EQUAL:
        if (qn__dim_equal(a, b))
            return qn_dim_const(1);
        /* A size is never negative, so it is not the -1 that shapes use as a mark. */
        if (both || (a.kind == QN_DIM_SYMBOL && b.kind == QN_DIM_CONST && b.value < 0) ||
            (b.kind == QN_DIM_SYMBOL && a.kind == QN_DIM_CONST && a.value < 0))
            return qn_dim_const(0);
        return qn_dim_unknown();
    case QN_OP_GREATER:
        return both ? qn_dim_const(a.value > b.value) : qn_dim_unknown();
    case QN_OP_LESS:
        return both ? qn_dim_const(a.value < b.value) : qn_dim_unknown();
    default:
        return qn_dim_unknown();
    }
}

/* Symbolic values of output 0 from those of two inputs, rank 0 or 1. */
static qn_status combine_values(const qn_infer *in, qn_error *error)
{
    const qn_dim *a, *b;
    size_t na, nb;
    const qn_tensor *ta = qn_infer_in(in, 0), *tb = qn_infer_in(in, 1);
    if (in->node->n_inputs != 2 || ta->rank > 1 || tb->rank > 1 ||
        (ta->value_dims == NULL && tb->value_dims == NULL && ta->constant == NULL) ||
        !qn__infer_values(in, ta, &a, &na) || !qn__infer_values(in, tb, &b, &nb))
        return QN_OK;
    if (na != nb && na != 1 && nb != 1)
        return QN_OK;
    const size_t count = na == 1 ? nb : na;
    qn_dim *out = qn__arena_calloc(&in->graph->arena, count, sizeof(*out));
    if (out == NULL)
        return QN_NOMEM(error);
    const bool is_float = qn__dtype_is_float(ta->type.dtype);
    for (size_t i = 0; i < count; i++)
        out[i] = combine(in->node->op, a[na == 1 ? 0 : i], b[nb == 1 ? 0 : i], is_float);
    return qn__infer_values_set(in, 0, out, count, error);
}

static qn_status broadcast_all(const qn_infer *in, qn_error *error)
{
    const uint32_t n = in->node->n_inputs;
    qn_dim dims[QN_MAX_RANK], sum[QN_MAX_RANK];
    size_t rank, sum_rank = 0;
    bool known;
    QN_INFER_CHECK(in, error, n >= 1, "has no inputs");
    for (uint32_t i = 0; i < n; i++)
        QN_TRY(qn__infer_need(in, i, error));
    for (uint32_t i = 0; i < n; i++) {
        /* Fold inputs in one by one, through a stand-in with the shape so far. */
        qn_tensor left = {
            .name = in->node->inputs[0]->name, .has_shape = true, .rank = (uint8_t)sum_rank};
        for (size_t k = 0; k < sum_rank; k++)
            left.dims[k] = sum[k];
        const qn_tensor *pair[2] = {&left, in->node->inputs[i]};
        QN_TRY(qn__infer_broadcast_shape(in, pair, 2, dims, &rank, &known, error));
        if (!known)
            return QN_OK;
        sum_rank = rank;
        for (size_t k = 0; k < rank; k++)
            sum[k] = dims[k];
    }
    return qn__infer_shape_set(in, 0, sum_rank, sum, error);
}

qn_status qn__infer_broadcast(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_op op = in->node->op;
    if (op == QN_OP_ADD || op == QN_OP_SUB || op == QN_OP_MUL || op == QN_OP_DIV || op == QN_OP_POW)
        QN_INFER_CHECK(in, error, in->node->n_inputs == 2, "has %u inputs, 2 are needed",
                       in->node->n_inputs);
    qn__infer_dtype_like(in, 0, in->node->inputs[0]);
    QN_TRY(broadcast_all(in, error));
    return combine_values(in, error);
}

qn_status qn__infer_compare(qn_infer *in, qn_error *error)
{
    QN_INFER_CHECK(in, error, in->node->n_inputs == 2, "has %u inputs, 2 are needed",
                   in->node->n_inputs);
    qn__infer_dtype(in, 0, QN_DTYPE_BOOL);
    QN_TRY(broadcast_all(in, error));
    return combine_values(in, error);
}

qn_status qn__infer_where(qn_infer *in, qn_error *error)
{
    QN_INFER_CHECK(in, error, in->node->n_inputs == 3, "has %u inputs, 3 are needed",
                   in->node->n_inputs);
    QN_TRY(broadcast_all(in, error));
    qn__infer_dtype_like(in, 0, in->node->inputs[1]);
    const qn_dim *v[3];
    size_t n[3], count = 1;
    for (uint32_t i = 0; i < 3; i++) {
        if (in->node->inputs[i]->rank > 1 ||
            !qn__infer_values(in, in->node->inputs[i], &v[i], &n[i]))
            return QN_OK;
        if (n[i] != 1)
            count = n[i];
    }
    for (uint32_t i = 0; i < 3; i++)
        if (n[i] != 1 && n[i] != count)
            return QN_OK;
    qn_dim *out = qn__arena_calloc(&in->graph->arena, count, sizeof(*out));
    if (out == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++) {
        const qn_dim condition = v[0][n[0] == 1 ? 0 : i];
        const uint32_t pick = qn_dim_is(condition, 0) ? 2 : 1;
        out[i] = condition.kind == QN_DIM_CONST ? v[pick][n[pick] == 1 ? 0 : i] : qn_dim_unknown();
    }
    return qn__infer_values_set(in, 0, out, count, error);
}

qn_status qn__infer_quantize(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    /* The type is the output's own; scales that are not constant come as inputs. */
    const qn_tensor *zero_point = qn_infer_in(in, 2);
    const qn_tensor *out = qn_infer_out(in, 0);
    if (zero_point != NULL)
        qn__infer_dtype(in, 0, zero_point->type.dtype);
    else if (out != NULL && out->type.dtype == QN_DTYPE_NONE)
        qn__infer_dtype(in, 0, QN_DTYPE_U8);
    return x->has_shape ? qn__infer_shape_set(in, 0, x->rank, x->dims, error) : QN_OK;
}

qn_status qn__infer_dequantize(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0], *scale = qn_infer_in(in, 1);
    /* With constant scales the reader says which float it is. */
    const qn_tensor *out = qn_infer_out(in, 0);
    const bool half =
        out != NULL && (out->type.dtype == QN_DTYPE_F16 || out->type.dtype == QN_DTYPE_BF16);
    if (scale != NULL)
        qn__infer_dtype(in, 0, scale->type.dtype);
    else if (!half)
        qn__infer_dtype(in, 0, QN_DTYPE_F32);
    return x->has_shape ? qn__infer_shape_set(in, 0, x->rank, x->dims, error) : QN_OK;
}
