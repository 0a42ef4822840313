/* Along an axis: CumSum, TopK, Hardmax, OneHot. By position: Trilu, EyeLike, NonZero. */
#include "run/nd.h"
#include "run/op.h"

#include <math.h>
#include <string.h>

static void row_major(qn_step *step)
{
    for (uint32_t i = 0; i < step->node->n_inputs && i < QN_STEP_MAX_IO; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
}

/* Input 0 with an output like it, and `axis` of it. */
static qn_status need_axis(const qn_step *step, int64_t axis, size_t *out, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0);
    if (x == NULL || x->type.dtype != step->node->outputs[0]->type.dtype)
        return qn__step_fail(step, error, QN_CORRUPT, "input and output do not fit");
    axis += axis < 0 ? x->rank : 0;
    if (axis < 0 || axis >= x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range for rank %u", x->rank);
    *out = (size_t)axis;
    return QN_OK;
}

static bool is_number(qn_dtype dtype)
{
    return dtype == QN_DTYPE_F32 || dtype == QN_DTYPE_F64 || dtype == QN_DTYPE_I32 ||
           dtype == QN_DTYPE_I64;
}

static void store_real(void *data, qn_dtype dtype, size_t at, double value)
{
    if (dtype == QN_DTYPE_F32)
        ((float *)data)[at] = (float)value;
    else if (dtype == QN_DTYPE_F64)
        ((double *)data)[at] = value;
    else
        qn__store_int(data, dtype, at, (int64_t)value);
}

/* --- CumSum ---------------------------------------------------------------------------------- */
static qn_status prepare_cum_sum(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    size_t axis = 0;
    QN_TRY(need_axis(step, 0, &axis, error));
    const qn_dtype dtype = step->node->inputs[0]->type.dtype;
    const qn_tensor *const which = qn__step_input(step, 1);
    if (!is_number(dtype))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s", qn__dtype_name(dtype));
    if (which == NULL || qn__tensor_elements(which) != 1 || qn__dtype_is_float(which->type.dtype))
        return qn__step_fail(step, error, QN_CORRUPT, "the axis is not one integer");
    row_major(step);
    return QN_OK;
}

static qn_status run_cum_sum(const qn_step *step, const qn_run_env *env, const qn_view *in,
                             const qn_view *out, qn_error *error)
{
    (void)env;
    size_t axis = 0;
    QN_TRY(need_axis(step, qn__load_int(in[1].data, in[1].tensor->type.dtype, 0), &axis, error));
    const bool exclusive = qn__attr_int(step->node, "exclusive", 0) != 0;
    const bool reverse = qn__attr_int(step->node, "reverse", 0) != 0;
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, axis);
    const qn_dtype dtype = in[0].tensor->type.dtype;
    for (size_t o = 0; o < v.outer; o++) {
        for (size_t i = 0; i < v.inner; i++) {
            double real = 0.0;
            uint64_t whole = 0;
            for (size_t k = 0; k < v.axis; k++) {
                const size_t at = (o * v.axis + (reverse ? v.axis - 1 - k : k)) * v.inner + i;
                const double before = real;
                const uint64_t whole_before = whole;
                if (qn__dtype_is_float(dtype)) {
                    real += qn__load_real(in[0].data, dtype, at);
                    store_real(out[0].data, dtype, at, exclusive ? before : real);
                } else {
                    whole += (uint64_t)qn__load_int(in[0].data, dtype, at);
                    qn__store_int(out[0].data, dtype, at,
                                  (int64_t)(exclusive ? whole_before : whole));
                }
            }
        }
    }
    return QN_OK;
}

/* --- TopK ------------------------------------------------------------------------------------ */
/* One line of elements, start + k * stride. */
typedef struct line {
    const void *data;
    qn_dtype dtype;
    size_t start, stride;
    bool largest;
} line;

/* a goes before b: NaN counts as the largest, the lower index wins among equals. */
static bool precedes(const line *l, int64_t a, int64_t b)
{
    const size_t at_a = l->start + (size_t)a * l->stride, at_b = l->start + (size_t)b * l->stride;
    int order = 0;
    if (qn__dtype_is_float(l->dtype)) {
        const double x = qn__load_real(l->data, l->dtype, at_a);
        const double y = qn__load_real(l->data, l->dtype, at_b);
        order = x != x || y != y ? (x != x) - (y != y) : (x > y) - (x < y);
    } else {
        const int64_t x = qn__load_int(l->data, l->dtype, at_a);
        const int64_t y = qn__load_int(l->data, l->dtype, at_b);
        const uint64_t flip = l->dtype == QN_DTYPE_U64 ? UINT64_C(1) << 63 : 0;
        const int64_t signed_x = (int64_t)((uint64_t)x ^ flip);
        const int64_t signed_y = (int64_t)((uint64_t)y ^ flip);
        order = (signed_x > signed_y) - (signed_x < signed_y);
    }
    if (order == 0)
        return a < b;
    return l->largest ? order > 0 : order < 0;
}

/* Heap whose root comes last in the order. */
static void sift(const line *l, int64_t *heap, size_t n, size_t at)
{
    for (;;) {
        size_t last = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++)
            if (precedes(l, heap[last], heap[child]))
                last = child;
        if (last == at)
            return;
        const int64_t swap = heap[at];
        heap[at] = heap[last];
        heap[last] = swap;
        at = last;
    }
}

static void sort_line(const line *l, int64_t *order, size_t n)
{
    for (size_t i = 0; i < n; i++)
        order[i] = (int64_t)i;
    for (size_t i = n / 2; i-- > 0;)
        sift(l, order, n, i);
    for (size_t end = n; end > 1; end--) {
        const int64_t swap = order[0];
        order[0] = order[end - 1];
        order[end - 1] = swap;
        sift(l, order, end - 1, 0);
    }
}

static qn_status prepare_top_k(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    size_t axis = 0;
    QN_TRY(need_axis(step, qn__attr_int(step->node, "axis", -1), &axis, error));
    const qn_tensor *const x = step->node->inputs[0], *const y = step->node->outputs[0];
    const qn_dtype dtype = x->type.dtype;
    if (qn__dtype_bits(dtype) < 8)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s", qn__dtype_name(dtype));
    bool fits = y->rank == x->rank;
    for (size_t i = 0; i < x->rank && fits; i++)
        fits =
            i == axis ? y->dims[i].value <= x->dims[i].value : y->dims[i].value == x->dims[i].value;
    if (!fits)
        return qn__step_fail(step, error, QN_CORRUPT, "output shape does not fit");
    step->scratch_bytes = ((size_t)x->dims[axis].value + 1) * sizeof(int64_t);
    row_major(step);
    return QN_OK;
}

static qn_status run_top_k(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    size_t axis = 0;
    QN_TRY(need_axis(step, qn__attr_int(step->node, "axis", -1), &axis, error));
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, axis);
    const size_t k = (size_t)out[0].dims[axis];
    const qn_dtype dtype = in[0].tensor->type.dtype;
    const size_t bytes = qn__dtype_bits(dtype) / 8;
    const bool wants_index = step->node->n_outputs > 1 && step->node->outputs[1] != NULL;
    int64_t *const order = env->scratch;
    line l = {.data = in[0].data, .dtype = dtype, .stride = v.inner};
    l.largest = qn__attr_int(step->node, "largest", 1) != 0;
    for (size_t o = 0; o < v.outer; o++) {
        for (size_t i = 0; i < v.inner; i++) {
            l.start = o * v.axis * v.inner + i;
            sort_line(&l, order, v.axis);
            for (size_t r = 0; r < k; r++) {
                const size_t to = (o * k + r) * v.inner + i;
                memcpy((uint8_t *)out[0].data + to * bytes,
                       (const uint8_t *)in[0].data +
                           (l.start + (size_t)order[r] * l.stride) * bytes,
                       bytes);
                if (wants_index)
                    ((int64_t *)out[1].data)[to] = order[r];
            }
        }
    }
    return QN_OK;
}

/* --- Hardmax --------------------------------------------------------------------------------- */
static qn_status prepare_hardmax(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    size_t axis = 0;
    QN_TRY(need_axis(step, qn__attr_int(step->node, "axis", -1), &axis, error));
    if (step->node->inputs[0]->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs float32");
    row_major(step);
    return QN_OK;
}

static qn_status run_hardmax(const qn_step *step, const qn_run_env *env, const qn_view *in,
                             const qn_view *out, qn_error *error)
{
    (void)env;
    size_t axis = 0;
    QN_TRY(need_axis(step, qn__attr_int(step->node, "axis", -1), &axis, error));
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, axis);
    for (size_t o = 0; o < v.outer && v.axis > 0; o++) {
        for (size_t i = 0; i < v.inner; i++) {
            const float *const src = (const float *)in[0].data + o * v.axis * v.inner + i;
            float *const dst = (float *)out[0].data + o * v.axis * v.inner + i;
            size_t best = 0;
            for (size_t k = 1; k < v.axis; k++)
                best = src[k * v.inner] > src[best * v.inner] ? k : best;
            for (size_t k = 0; k < v.axis; k++)
                dst[k * v.inner] = k == best ? 1.0f : 0.0f;
        }
    }
    return QN_OK;
}

/* --- OneHot ---------------------------------------------------------------------------------- */
static qn_status one_hot_axis(const qn_step *step, size_t *out, qn_error *error)
{
    const qn_tensor *const y = step->node->outputs[0];
    int64_t axis = qn__attr_int(step->node, "axis", -1);
    axis += axis < 0 ? y->rank : 0;
    if (axis < 0 || axis >= y->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range for rank %u", y->rank);
    *out = (size_t)axis;
    return QN_OK;
}

static qn_status prepare_one_hot(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const qn_node *const node = step->node;
    size_t axis = 0;
    for (uint32_t i = 0; i < 3; i++)
        if (qn__step_input(step, i) == NULL)
            return qn__step_fail(step, error, QN_CORRUPT, "input %u is missing", (unsigned)i);
    QN_TRY(one_hot_axis(step, &axis, error));
    const qn_tensor *const values = node->inputs[2], *const y = node->outputs[0];
    if (values->type.kind == QN_TYPE_QUANT || values->type.dtype != y->type.dtype ||
        qn__dtype_bits(y->type.dtype) < 8 || qn__tensor_elements(values) != 2 ||
        qn__tensor_elements(y) !=
            qn__tensor_elements(node->inputs[0]) * (size_t)y->dims[axis].value)
        return qn__step_fail(step, error, QN_CORRUPT, "values or output do not fit");
    row_major(step);
    return QN_OK;
}

static qn_status run_one_hot(const qn_step *step, const qn_run_env *env, const qn_view *in,
                             const qn_view *out, qn_error *error)
{
    (void)env;
    size_t axis = 0;
    QN_TRY(one_hot_axis(step, &axis, error));
    const qn_axis_view v = qn__axis_view(out[0].rank, out[0].dims, QN_LAYOUT_ROW_MAJOR, axis);
    const size_t bytes = qn__dtype_bits(out[0].tensor->type.dtype) / 8;
    const qn_dtype index_type = in[0].tensor->type.dtype;
    const uint8_t *const off = in[2].data, *const on = off + bytes;
    uint8_t *dst = out[0].data;
    for (size_t o = 0; o < v.outer; o++) {
        for (size_t k = 0; k < v.axis; k++) {
            for (size_t i = 0; i < v.inner; i++, dst += bytes) {
                /* An index out of range leaves everything off. */
                double at = trunc(qn__load_real(in[0].data, index_type, o * v.inner + i));
                at += at < 0.0 ? (double)v.axis : 0.0;
                memcpy(dst, at == (double)k ? on : off, bytes);
            }
        }
    }
    return QN_OK;
}

/* --- Trilu ----------------------------------------------------------------------------------- */
static qn_status prepare_trilu(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const qn_tensor *const x = qn__step_input(step, 0), *const k = qn__step_input(step, 1);
    if (x == NULL || x->rank < 2 || x->type.dtype != step->node->outputs[0]->type.dtype ||
        qn__dtype_bits(x->type.dtype) < 8)
        return qn__step_fail(step, error, QN_CORRUPT, "needs matrices of whole bytes");
    if (k != NULL && (qn__tensor_elements(k) != 1 || qn__dtype_is_float(k->type.dtype)))
        return qn__step_fail(step, error, QN_CORRUPT, "k is not one integer");
    row_major(step);
    return QN_OK;
}

static qn_status run_trilu(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    const bool upper = qn__attr_int(step->node, "upper", 1) != 0;
    const size_t bytes = qn__dtype_bits(in[0].tensor->type.dtype) / 8;
    const size_t rows = (size_t)in[0].dims[in[0].rank - 2];
    const size_t columns = (size_t)in[0].dims[in[0].rank - 1];
    int64_t k = 0;
    if (qn__step_input(step, 1) != NULL)
        k = qn__load_int(in[1].data, in[1].tensor->type.dtype, 0);
    const int64_t limit = (int64_t)rows + (int64_t)columns;
    k = k > limit ? limit : k < -limit ? -limit : k;
    const uint8_t *const src = in[0].data;
    uint8_t *const dst = out[0].data;
    for (size_t i = 0; i < in[0].count; i++) {
        const int64_t column = (int64_t)(i % columns), row = (int64_t)(i / columns % rows);
        if (upper ? column - row >= k : column - row <= k)
            memcpy(dst + i * bytes, src + i * bytes, bytes);
        else
            memset(dst + i * bytes, 0, bytes);
    }
    return QN_OK;
}

/* --- EyeLike --------------------------------------------------------------------------------- */
static qn_status prepare_eye_like(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const qn_tensor *const y = step->node->outputs[0];
    if (y->rank != 2)
        return qn__step_fail(step, error, QN_CORRUPT, "needs rank 2");
    if (y->type.dtype == QN_DTYPE_F16 || y->type.dtype == QN_DTYPE_BF16)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s",
                             qn__dtype_name(y->type.dtype));
    row_major(step);
    return QN_OK;
}

static qn_status run_eye_like(const qn_step *step, const qn_run_env *env, const qn_view *in,
                              const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    (void)in;
    const int64_t k = qn__attr_int(step->node, "k", 0);
    const size_t columns = (size_t)out[0].dims[1];
    for (size_t i = 0; i < out[0].count; i++) {
        const int64_t column = (int64_t)(i % columns), row = (int64_t)(i / columns);
        store_real(out[0].data, out[0].tensor->type.dtype, i, column - row == k ? 1.0 : 0.0);
    }
    return QN_OK;
}

/* --- NonZero: constants only, because its shape is what it finds ----------------------------- */
static qn_status prepare_non_zero(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const qn_tensor *const x = qn__step_input(step, 0);
    if (x == NULL || step->node->outputs[0]->rank != 2 ||
        step->node->outputs[0]->dims[0].value != (x->rank > 0 ? x->rank : 1))
        return qn__step_fail(step, error, QN_CORRUPT, "input and output do not fit");
    row_major(step);
    step->resizes = true;
    return QN_OK;
}

static qn_status run_non_zero(const qn_step *step, const qn_run_env *env, const qn_view *in,
                              const qn_view *out, qn_error *error)
{
    int64_t *const dst = out[0].data;
    const qn_dtype dtype = in[0].tensor->type.dtype;
    size_t columns = 0, found = 0;
    for (size_t i = 0; i < in[0].count; i++)
        columns += qn__load_real(in[0].data, dtype, i) != 0.0;
    if (columns > (size_t)out[0].dims[1])
        return qn__step_fail(step, error, QN_CORRUPT, "output shape does not fit");
    for (size_t i = 0; i < in[0].count; i++) {
        if (qn__load_real(in[0].data, dtype, i) == 0.0)
            continue;
        size_t rest = i;
        for (size_t k = in[0].rank; k-- > 0; rest /= (size_t)in[0].dims[k])
            dst[k * columns + found] = (int64_t)(rest % (size_t)in[0].dims[k]);
        if (in[0].rank == 0)
            dst[0] = 0;
        found++;
    }
    env->out_dims[0][1] = (int64_t)columns;
    return QN_OK;
}

const qn_run_op qn__op_cum_sum = {QN_OP_CUM_SUM, prepare_cum_sum, run_cum_sum, NULL};
const qn_run_op qn__op_top_k = {QN_OP_TOP_K, prepare_top_k, run_top_k, NULL};
const qn_run_op qn__op_hardmax = {QN_OP_HARDMAX, prepare_hardmax, run_hardmax, NULL};
const qn_run_op qn__op_one_hot = {QN_OP_ONE_HOT, prepare_one_hot, run_one_hot, NULL};
const qn_run_op qn__op_trilu = {QN_OP_TRILU, prepare_trilu, run_trilu, NULL};
const qn_run_op qn__op_eye_like = {QN_OP_EYE_LIKE, prepare_eye_like, run_eye_like, NULL};
const qn_run_op qn__op_non_zero = {QN_OP_NON_ZERO, prepare_non_zero, run_non_zero, NULL};
