/* LpNormalization, MeanVarianceNormalization, GroupNormalization, RMSNormalization. */
#include "run/nd.h"
#include "run/op.h"

#include <math.h>

static qn_status need_f32(qn_step *step, uint32_t n_inputs, qn_error *error)
{
    const qn_node *const node = step->node;
    if (node->n_inputs < n_inputs)
        return qn__step_fail(step, error, QN_CORRUPT, "needs %u inputs", (unsigned)n_inputs);
    for (uint32_t i = 0; i < n_inputs; i++) {
        if (node->inputs[i] == NULL)
            return qn__step_fail(step, error, QN_CORRUPT, "input %u is missing", (unsigned)i);
        if (node->inputs[i]->type.dtype != QN_DTYPE_F32)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "needs float32");
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    }
    return QN_OK;
}

static qn_status find_axis(const qn_step *step, size_t *out, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    int64_t axis = qn__attr_int(step->node, "axis", -1);
    axis += axis < 0 ? x->rank : 0;
    if (axis < 0 || axis >= x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range for rank %u", x->rank);
    *out = (size_t)axis;
    return QN_OK;
}

/* --- LpNormalization ------------------------------------------------------------------------- */
static qn_status prepare_lp(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    size_t axis = 0;
    QN_TRY(need_f32(step, 1, error));
    QN_TRY(find_axis(step, &axis, error));
    const int64_t p = qn__attr_int(step->node, "p", 2);
    if (p != 1 && p != 2)
        return qn__step_fail(step, error, QN_CORRUPT, "\"p\" is %lld", (long long)p);
    return QN_OK;
}

static qn_status run_lp(const qn_step *step, const qn_run_env *env, const qn_view *in,
                        const qn_view *out, qn_error *error)
{
    (void)env;
    size_t axis = 0;
    QN_TRY(find_axis(step, &axis, error));
    const bool square = qn__attr_int(step->node, "p", 2) == 2;
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, axis);
    for (size_t o = 0; o < v.outer; o++) {
        for (size_t i = 0; i < v.inner; i++) {
            const float *const src = (const float *)in[0].data + o * v.axis * v.inner + i;
            float *const dst = (float *)out[0].data + o * v.axis * v.inner + i;
            double sum = 0.0;
            for (size_t k = 0; k < v.axis; k++) {
                const double x = (double)src[k * v.inner];
                sum += square ? x * x : fabs(x);
            }
            const double norm = square ? sqrt(sum) : sum;
            /* A line of zeros stays zeros. */
            for (size_t k = 0; k < v.axis; k++)
                dst[k * v.inner] = norm == 0.0 ? 0.0f : (float)((double)src[k * v.inner] / norm);
        }
    }
    return QN_OK;
}

/* --- MeanVarianceNormalization --------------------------------------------------------------- */
typedef struct moments_state {
    size_t rank, groups;
    int64_t dims[QN_MAX_RANK], strides[QN_MAX_RANK]; /* of the group an element belongs to */
} moments_state;

static qn_status prepare_moments(const qn_plan *plan, qn_step *step, qn_error *error)
{
    static const int64_t USUAL[3] = {0, 2, 3};
    QN_TRY(need_f32(step, 1, error));
    const qn_tensor *const x = step->node->inputs[0];
    size_t n;
    const int64_t *axes = qn__attr_ints(step->node, "axes", &n);
    if (axes == NULL) {
        axes = USUAL;
        n = 3;
    }
    moments_state s = {.rank = x->rank, .groups = 1};
    bool reduced[QN_MAX_RANK] = {false};
    for (size_t i = 0; i < n; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + x->rank : axes[i];
        if (axis < 0 || axis >= x->rank)
            return qn__step_fail(step, error, QN_CORRUPT, "axis %lld for rank %u",
                                 (long long)axes[i], x->rank);
        reduced[axis] = true;
    }
    qn__tensor_dims(x, s.dims);
    for (size_t i = x->rank; i-- > 0;) {
        s.strides[i] = reduced[i] ? 0 : (int64_t)s.groups;
        s.groups *= reduced[i] ? 1 : (size_t)s.dims[i];
    }
    moments_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    step->scratch_bytes = (s.groups + 1) * 2 * sizeof(double);
    return QN_OK;
}

static size_t group_of(const moments_state *s, size_t index)
{
    int64_t group = 0;
    for (size_t i = s->rank; i-- > 0; index /= (size_t)s->dims[i])
        group += (int64_t)(index % (size_t)s->dims[i]) * s->strides[i];
    return (size_t)group;
}

static qn_status run_moments(const qn_step *step, const qn_run_env *env, const qn_view *in,
                             const qn_view *out, qn_error *error)
{
    (void)error;
    const moments_state *const s = step->state;
    const float *const src = in[0].data;
    float *const dst = out[0].data;
    double *const mean = env->scratch, *const square = mean + s->groups;
    const double per = s->groups > 0 ? (double)in[0].count / (double)s->groups : 1.0;
    for (size_t g = 0; g < 2 * s->groups; g++)
        mean[g] = 0.0;
    for (size_t i = 0; i < in[0].count; i++)
        mean[group_of(s, i)] += (double)src[i] / per;
    for (size_t i = 0; i < in[0].count; i++) {
        const size_t g = group_of(s, i);
        square[g] += ((double)src[i] - mean[g]) * ((double)src[i] - mean[g]) / per;
    }
    for (size_t i = 0; i < in[0].count; i++) {
        const size_t g = group_of(s, i);
        dst[i] = (float)(((double)src[i] - mean[g]) / (sqrt(square[g]) + 1e-9));
    }
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

/* --- GroupNormalization ---------------------------------------------------------------------- */
static qn_status prepare_group(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    QN_TRY(need_f32(step, 3, error));
    const qn_tensor *const x = step->node->inputs[0];
    const int64_t groups = qn__attr_int(step->node, "num_groups", 0);
    if (x->rank < 2 || groups < 1 || x->dims[1].value % groups != 0)
        return qn__step_fail(step, error, QN_CORRUPT, "%lld groups do not fit", (long long)groups);
    for (uint32_t i = 1; i < 3; i++)
        if (qn__tensor_elements(step->node->inputs[i]) != (size_t)x->dims[1].value)
            return qn__step_fail(step, error, QN_UNSUPPORTED,
                                 "input %u does not have one value per channel", (unsigned)i);
    return QN_OK;
}

static qn_status run_group(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, 1);
    const size_t groups = (size_t)qn__attr_int(step->node, "num_groups", 1);
    const double epsilon = (double)qn__attr_float(step->node, "epsilon", 1e-5f);
    const float *const scale = in[1].data, *const bias = in[2].data;
    const size_t n = v.axis / groups * v.inner;
    for (size_t g = 0; g < v.outer * groups && n > 0; g++) {
        const float *const src = (const float *)in[0].data + g * n;
        float *const dst = (float *)out[0].data + g * n;
        double mean = 0.0, square = 0.0;
        for (size_t i = 0; i < n; i++)
            mean += (double)src[i];
        mean /= (double)n;
        for (size_t i = 0; i < n; i++)
            square += ((double)src[i] - mean) * ((double)src[i] - mean);
        const double inverse = 1.0 / sqrt(square / (double)n + epsilon);
        for (size_t i = 0; i < n; i++) {
            const size_t c = g % groups * (v.axis / groups) + i / v.inner;
            dst[i] = (float)(((double)src[i] - mean) * inverse) * scale[c] + bias[c];
        }
    }
    return QN_OK;
}

/* --- RMSNormalization ------------------------------------------------------------------------ */
static size_t row_size(const qn_tensor *x, size_t axis)
{
    size_t n = 1;
    for (size_t i = axis; i < x->rank; i++)
        n *= (size_t)x->dims[i].value;
    return n;
}

static qn_status prepare_rms(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    size_t axis = 0;
    QN_TRY(need_f32(step, 2, error));
    QN_TRY(find_axis(step, &axis, error));
    if (qn__tensor_elements(step->node->inputs[1]) != row_size(step->node->inputs[0], axis))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "the scale does not have the row's size");
    return QN_OK;
}

static qn_status run_rms(const qn_step *step, const qn_run_env *env, const qn_view *in,
                         const qn_view *out, qn_error *error)
{
    (void)env;
    size_t axis = 0;
    QN_TRY(find_axis(step, &axis, error));
    const double epsilon = (double)qn__attr_float(step->node, "epsilon", 1e-5f);
    const size_t n = row_size(step->node->inputs[0], axis);
    const float *const scale = in[1].data;
    for (size_t row = 0; n > 0 && row < in[0].count / n; row++) {
        const float *const src = (const float *)in[0].data + row * n;
        float *const dst = (float *)out[0].data + row * n;
        double square = 0.0;
        for (size_t i = 0; i < n; i++)
            square += (double)src[i] * (double)src[i];
        const double inverse = 1.0 / sqrt(square / (double)n + epsilon);
        for (size_t i = 0; i < n; i++)
            dst[i] = (float)((double)src[i] * inverse) * scale[i];
    }
    return QN_OK;
}

const qn_run_op qn__op_lp_normalization = {QN_OP_LP_NORMALIZATION, prepare_lp, run_lp, NULL};
const qn_run_op qn__op_mean_variance = {QN_OP_MEAN_VARIANCE_NORMALIZATION, prepare_moments,
                                        run_moments, release};
const qn_run_op qn__op_group_normalization = {QN_OP_GROUP_NORMALIZATION, prepare_group, run_group,
                                              NULL};
const qn_run_op qn__op_rms_normalization = {QN_OP_RMS_NORMALIZATION, prepare_rms, run_rms, NULL};
