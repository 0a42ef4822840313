/* Reductions over any set of axes, ArgMax and ArgMin. */
#include "run/nd.h"
#include "run/ops/qcore.h"
#include "run/ops/reduce.h"

#include <math.h>

/* Input axes in memory order; where each lies in the output (0: reduced). Neighbours merged. */
typedef struct reduce_state {
    size_t rank, rows, row;
    int64_t dims[QN_MAX_RANK], out_strides[QN_MAX_RANK];
    double per;      /* elements reduced into one */
    qn_qparams q, y; /* sums of bytes */
} reduce_state;

__attribute__((cold)) qn_status qn__reduced_axes(const qn_plan *plan, const qn_step *step,
                                                 size_t rank, uint32_t *mask, qn_error *error)
{
    int64_t *axes;
    size_t count;
    QN_TRY(qn__step_ints_param(plan, step, 1, "axes", &axes, &count, error));
    qn_status status = QN_OK;
    *mask = 0;
    for (size_t i = 0; i < count && status == QN_OK; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + (int64_t)rank : axes[i];
        if (axis < 0 || axis >= (int64_t)rank)
            status = qn__step_fail(step, error, QN_CORRUPT, "axis out of range");
        else
            *mask |= 1u << axis;
    }
    qn__free(qn__plan_context(plan), axes);
    if (count == 0 && qn__attr_int(step->node, "noop_with_empty_axes", 0) == 0)
        *mask = (1u << rank) - 1;
    return status;
}

static __attribute__((cold)) qn_status map_axes(const qn_step *step, uint32_t mask, reduce_state *s,
                                                qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const y = step->node->outputs[0];
    const bool keep = qn__attr_int(step->node, "keepdims", 1) != 0;
    int64_t in_dims[QN_MAX_RANK] = {0}, out_dims[QN_MAX_RANK] = {0};
    int64_t out_strides[QN_MAX_RANK], by_axis[QN_MAX_RANK] = {0};
    size_t order[QN_MAX_RANK], at = 0;
    qn__tensor_dims(x, in_dims);
    qn__tensor_dims(y, out_dims);
    qn__layout_strides(y->rank, out_dims, step->out_layout[0], out_strides);
    for (size_t i = 0; i < x->rank; i++) {
        const bool reduced = (mask & (1u << i)) != 0;
        if (reduced && !keep)
            continue;
        if (at >= y->rank || out_dims[at] != (reduced ? 1 : in_dims[i]))
            return qn__step_fail(step, error, QN_CORRUPT, "output shape does not fit");
        by_axis[i] = reduced ? 0 : out_strides[at];
        at++;
    }
    if (at != y->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "output shape does not fit");
    qn__layout_order(x->rank, step->in_layout[0], order);
    s->per = 1.0;
    for (size_t i = 0; i < x->rank; i++) {
        const int64_t dim = in_dims[order[i]], stride = by_axis[order[i]];
        s->per *= (mask & (1u << order[i])) != 0 ? (double)dim : 1.0;
        if (dim == 1)
            continue;
        if (s->rank > 0 && s->out_strides[s->rank - 1] == stride * dim) {
            s->dims[s->rank - 1] *= dim;
            s->out_strides[s->rank - 1] = stride;
            continue;
        }
        s->dims[s->rank] = dim;
        s->out_strides[s->rank++] = stride;
    }
    if (s->rank == 0) {
        s->dims[0] = 1;
        s->rank = 1;
    }
    s->row = (size_t)s->dims[s->rank - 1];
    s->rows = 1;
    for (size_t i = 0; i + 1 < s->rank; i++)
        s->rows *= (size_t)s->dims[i];
    return QN_OK;
}

static bool is_norm(qn_op op)
{
    return op == QN_OP_REDUCE_L1 || op == QN_OP_REDUCE_L2 || op == QN_OP_REDUCE_LOG_SUM ||
           op == QN_OP_REDUCE_LOG_SUM_EXP || op == QN_OP_REDUCE_SUM_SQUARE;
}

/* Means and sums of quantized tensors, whose bytes are added as integers. */
static bool sums_bytes(const qn_step *step)
{
    return step->node->inputs[0]->type.kind == QN_TYPE_QUANT &&
           (step->node->op == QN_OP_REDUCE_MEAN || step->node->op == QN_OP_REDUCE_SUM);
}

static __attribute__((cold)) qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0);
    if (x == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "input 0 is missing");
    const qn_dtype dtype = x->type.dtype;
    const bool picks = step->node->op == QN_OP_REDUCE_MAX || step->node->op == QN_OP_REDUCE_MIN;
    if (dtype != QN_DTYPE_F32 && dtype != QN_DTYPE_I64 && dtype != QN_DTYPE_I32 &&
        !sums_bytes(step) &&
        !(picks && (dtype == QN_DTYPE_U8 || dtype == QN_DTYPE_I8 || dtype == QN_DTYPE_BOOL)))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s", qn__dtype_name(dtype));
    uint32_t mask;
    QN_TRY(qn__reduced_axes(plan, step, x->rank, &mask, error));
    if (is_norm(step->node->op) && dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s", qn__dtype_name(dtype));
    if (step->node->n_inputs > 1)
        step->in_layout[1] = QN_LAYOUT_ROW_MAJOR;
    if (x->rank == step->node->outputs[0]->rank)
        step->out_layout[0] = step->in_layout[0];
    reduce_state s = {0};
    if (sums_bytes(step)) {
        QN_TRY(qn__qparams_read(step, x, &s.q, error));
        QN_TRY(qn__qparams_read(step, step->node->outputs[0], &s.y, error));
    }
    QN_TRY(map_axes(step, mask, &s, error));
    reduce_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    /* Sums are kept in double (or int64): the same result for every order of axes. */
    step->scratch_bytes = (qn__tensor_elements(step->node->outputs[0]) + 1) * 2 * sizeof(double);
    return QN_OK;
}

/* One row into its accumulators: `os` 0 folds it into one. */
#define FOLD(T, A, expr)                                                                           \
    do {                                                                                           \
        const T *const src = src_;                                                                 \
        A *const acc = acc_;                                                                       \
        if (os == 0) {                                                                             \
            A a = acc[0];                                                                          \
            for (size_t i = 0; i < n; i++) {                                                       \
                const A x = (A)src[i];                                                             \
                a = (expr);                                                                        \
            }                                                                                      \
            acc[0] = a;                                                                            \
        } else {                                                                                   \
            for (size_t i = 0; i < n; i++) {                                                       \
                const A x = (A)src[i], a = acc[(ptrdiff_t)i * os];                                 \
                acc[(ptrdiff_t)i * os] = (expr);                                                   \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* What is seldom asked for need not be long. */
static __attribute__((cold, noinline)) void fold_seldom(qn_op op, const float *src_, double *acc_,
                                                        size_t n, ptrdiff_t os)
{
    switch (op) {
    case QN_OP_REDUCE_PROD:
        FOLD(float, double, x *a);
        break;
    case QN_OP_REDUCE_L1:
        FOLD(float, double, fabs(x) + a);
        break;
    default:
        FOLD(float, double, x *x + a);
        break;
    }
}

static void fold_f32(qn_op op, const float *src_, double *acc_, size_t n, ptrdiff_t os)
{
    switch (op) {
    case QN_OP_REDUCE_MAX:
        FOLD(float, double, x > a || x != x ? x : a);
        break;
    case QN_OP_REDUCE_MIN:
        FOLD(float, double, x < a || x != x ? x : a);
        break;
    case QN_OP_REDUCE_PROD:
    case QN_OP_REDUCE_L1:
    case QN_OP_REDUCE_L2:
    case QN_OP_REDUCE_SUM_SQUARE:
        fold_seldom(op, src_, acc_, n, os);
        break;
    default:
        FOLD(float, double, x + a);
        break;
    }
}

static void fold_int(qn_op op, qn_dtype dtype, const void *src, size_t at, int64_t *acc, size_t n,
                     ptrdiff_t os)
{
    for (size_t i = 0; i < n; i++) {
        const int64_t x = qn__load_int(src, dtype, at + i);
        int64_t *const a = acc + (ptrdiff_t)i * os;
        if (op == QN_OP_REDUCE_MAX)
            *a = x > *a ? x : *a;
        else if (op == QN_OP_REDUCE_MIN)
            *a = x < *a ? x : *a;
        else if (op == QN_OP_REDUCE_PROD)
            *a = (int64_t)((uint64_t)*a * (uint64_t)x);
        else
            *a = (int64_t)((uint64_t)*a + (uint64_t)x);
    }
}

static void start(qn_op op, qn_dtype dtype, void *scratch, size_t count)
{
    const bool is_float = dtype == QN_DTYPE_F32;
    const uint32_t bits = dtype == QN_DTYPE_BOOL ? 1 : is_float ? 64 : qn__dtype_bits(dtype);
    const int64_t high = qn__dtype_is_signed(dtype)
                             ? (int64_t)((UINT64_C(1) << (bits - 1)) - 1)
                             : (int64_t)((UINT64_C(1) << bits) - 1); /* at most 32 bits */
    const int64_t low = qn__dtype_is_signed(dtype) ? -high - 1 : 0;
    for (size_t i = 0; i < count; i++) {
        if (is_float)
            ((double *)scratch)[i] = op == QN_OP_REDUCE_MAX    ? -INFINITY
                                     : op == QN_OP_REDUCE_MIN  ? INFINITY
                                     : op == QN_OP_REDUCE_PROD ? 1.0
                                                               : 0.0;
        else
            ((int64_t *)scratch)[i] = op == QN_OP_REDUCE_MAX    ? low
                                      : op == QN_OP_REDUCE_MIN  ? high
                                      : op == QN_OP_REDUCE_PROD ? 1
                                                                : 0;
    }
}

/* acc += exp(x - top), both with the stride os. */
static void fold_exp(const float *src, const double *top, double *acc, size_t n, ptrdiff_t os)
{
    for (size_t i = 0; i < n; i++) {
        const double m = top[(ptrdiff_t)i * os];
        acc[(ptrdiff_t)i * os] += exp((double)src[i] - (isfinite(m) ? m : 0.0));
    }
}

/* Every row into the accumulators acc; top: their maxima, for LogSumExp. */
static void fold_rows(const reduce_state *s, qn_op op, const qn_view *in, void *acc,
                      const double *top)
{
    const qn_dtype dtype = in->tensor->type.dtype;
    for (size_t row = 0; row < s->rows && s->row > 0; row++) {
        size_t rest = row;
        ptrdiff_t to = 0;
        for (size_t i = s->rank - 1; i-- > 0;) {
            to += (ptrdiff_t)(rest % (size_t)s->dims[i]) * (ptrdiff_t)s->out_strides[i];
            rest /= (size_t)s->dims[i];
        }
        const ptrdiff_t os = (ptrdiff_t)s->out_strides[s->rank - 1];
        if (top != NULL)
            fold_exp((const float *)in->data + row * s->row, top + to, (double *)acc + to, s->row,
                     os);
        else if (dtype == QN_DTYPE_F32)
            fold_f32(op, (const float *)in->data + row * s->row, (double *)acc + to, s->row, os);
        else
            fold_int(op, dtype, in->data, row * s->row, (int64_t *)acc + to, s->row, os);
    }
}

static double finish(qn_op op, double x, double top, double per)
{
    switch (op) {
    case QN_OP_REDUCE_MEAN:
        return x / per;
    case QN_OP_REDUCE_L2:
        return sqrt(x);
    case QN_OP_REDUCE_LOG_SUM:
        return log(x);
    case QN_OP_REDUCE_LOG_SUM_EXP:
        return log(x) + (isfinite(top) ? top : 0.0);
    default:
        return x;
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const reduce_state *const s = step->state;
    const qn_op op = step->node->op;
    const qn_dtype dtype = in[0].tensor->type.dtype;
    const bool is_float = dtype == QN_DTYPE_F32;
    double *const acc = env->scratch, *const top = acc + out[0].count;
    start(op, dtype, acc, out[0].count);
    if (op == QN_OP_REDUCE_LOG_SUM_EXP) {
        start(QN_OP_REDUCE_MAX, QN_DTYPE_F32, top, out[0].count);
        fold_rows(s, QN_OP_REDUCE_MAX, in, top, NULL);
    }
    fold_rows(s, op, in, acc, op == QN_OP_REDUCE_LOG_SUM_EXP ? top : NULL);
    for (size_t i = 0; i < out[0].count; i++) {
        if (is_float) {
            ((float *)out[0].data)[i] =
                (float)finish(op, acc[i], op == QN_OP_REDUCE_LOG_SUM_EXP ? top[i] : 0.0, s->per);
            continue;
        }
        const int64_t sum = ((const int64_t *)env->scratch)[i];
        if (sums_bytes(step)) {
            const double steps = (double)sum - s->per * s->q.zero;
            const double x = steps * (double)s->q.scale / (op == QN_OP_REDUCE_MEAN ? s->per : 1.0);
            qn__store_int(out[0].data, dtype, i, qn__quantize_one((float)x, &s->y));
            continue;
        }
        const bool mean = op == QN_OP_REDUCE_MEAN && s->per > 1.0;
        qn__store_int(out[0].data, dtype, i, mean ? sum / (int64_t)s->per : sum);
    }
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

/* --- ArgMax, ArgMin -------------------------------------------------------------------------- */
static __attribute__((cold)) qn_status prepare_arg(const qn_plan *plan, qn_step *step,
                                                   qn_error *error)
{
    (void)plan;
    const qn_tensor *const x = qn__step_input(step, 0);
    int64_t axis = qn__attr_int(step->node, "axis", 0);
    if (x == NULL || x->rank == 0 || step->node->outputs[0]->type.dtype != QN_DTYPE_I64)
        return qn__step_fail(step, error, QN_CORRUPT, "needs an array and an int64 output");
    axis += axis < 0 ? x->rank : 0;
    if (axis < 0 || axis >= x->rank || x->dims[axis].value == 0 ||
        qn__tensor_elements(step->node->outputs[0]) !=
            qn__tensor_elements(x) / (size_t)x->dims[axis].value)
        return qn__step_fail(step, error, QN_CORRUPT, "axis or output shape does not fit");
    step->in_layout[0] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

static qn_status run_arg(const qn_step *step, const qn_run_env *env, const qn_view *in,
                         const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    int64_t axis = qn__attr_int(step->node, "axis", 0);
    axis += axis < 0 ? in[0].rank : 0;
    const bool last = qn__attr_int(step->node, "select_last_index", 0) != 0;
    const bool least = step->node->op == QN_OP_ARG_MIN;
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, in[0].layout, (size_t)axis);
    const qn_dtype dtype = in[0].tensor->type.dtype;
    int64_t *dst = out[0].data;
    for (size_t o = 0; o < v.outer; o++) {
        for (size_t i = 0; i < v.inner; i++) {
            size_t best = 0;
            double top = qn__load_real(in[0].data, dtype, o * v.axis * v.inner + i);
            for (size_t k = 1; k < v.axis; k++) {
                const double x = qn__load_real(in[0].data, dtype, (o * v.axis + k) * v.inner + i);
                if ((least ? x < top : x > top) || (last && x == top)) {
                    top = x;
                    best = k;
                }
            }
            *dst++ = (int64_t)best;
        }
    }
    return QN_OK;
}

const qn_run_op qn__op_reduce = {QN_OP_NONE, prepare, run, release};
const qn_run_op qn__op_arg_max = {QN_OP_NONE, prepare_arg, run_arg, NULL};
