/* BatchNormalization, InstanceNormalization, LayerNormalization, LRN. */
#include "run/nd.h"
#include "run/op.h"

#include <math.h>

static __attribute__((cold)) qn_status need_f32(const qn_step *step, uint32_t least,
                                                qn_error *error)
{
    if (step->node->n_inputs < least || step->node->inputs[0] == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "needs %u inputs", (unsigned)least);
    if (step->node->inputs[0]->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs float32");
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

/* --- BatchNormalization: y = x * multiplier[c] + offset[c] ----------------------------------- */
typedef struct affine_state {
    size_t channels;
    qn_clamp_f32 clamp;
    float values[]; /* multipliers, offsets */
} affine_state;

static __attribute__((cold)) qn_status read_params(const qn_plan *plan, const qn_step *step,
                                                   uint32_t n, size_t count, float *params[4],
                                                   qn_error *error)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t have;
        QN_TRY(qn__step_const_f32(plan, step, i + 1, &params[i], &have, error));
        if (have != count)
            return qn__step_fail(step, error, QN_CORRUPT,
                                 "input %u has %zu values for %zu channels", (unsigned)i + 1, have,
                                 count);
    }
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare_batch(const qn_plan *plan, qn_step *step,
                                                     qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    QN_TRY(need_f32(step, 5, error));
    const qn_tensor *const x = step->node->inputs[0];
    const size_t c = x->rank >= 2 ? (size_t)x->dims[1].value : 1;
    for (uint32_t o = 1; o < step->node->n_outputs; o++)
        if (step->node->outputs[o] != NULL)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "training outputs");
    float *p[4] = {NULL};
    qn_status status = read_params(plan, step, 4, c, p, error);
    affine_state *s = NULL;
    if (status == QN_OK) {
        s = qn__calloc(ctx, 1, sizeof(*s) + 2 * c * sizeof(float));
        status = s == NULL ? QN_NOMEM(error) : QN_OK;
    }
    if (status == QN_OK) {
        const float epsilon = qn__attr_float(step->node, "epsilon", 1e-5f);
        s->channels = c;
        s->clamp = qn__step_clamp(step);
        for (size_t i = 0; i < c; i++) {
            s->values[i] = p[0][i] / sqrtf(p[3][i] + epsilon);
            s->values[c + i] = p[1][i] - p[2][i] * s->values[i];
        }
        step->state = s;
        step->out_layout[0] = step->in_layout[0];
        step->inplace_input = 0;
    }
    for (size_t i = 0; i < 4; i++)
        qn__free(ctx, p[i]);
    return status;
}

typedef struct affine_job {
    const affine_state *s;
    const float *src;
    float *dst;
    qn_axis_view v;
} affine_job;

static float clamped(float x, qn_clamp_f32 clamp)
{
    x = x < clamp.lo ? clamp.lo : x;
    return x > clamp.hi ? clamp.hi : x;
}

static void affine_rows(void *arg, size_t begin, size_t end)
{
    const affine_job *const job = arg;
    const qn_clamp_f32 clamp = job->s->clamp;
    const size_t c = job->s->channels, n = job->v.inner;
    const float *const m = job->s->values, *const b = m + c;
    for (size_t o = begin; o < end; o++) {
        if (n == 1) {
            const float *const src = job->src + o * c;
            float *const dst = job->dst + o * c;
#pragma GCC ivdep
            for (size_t i = 0; i < c; i++)
                dst[i] = clamped(src[i] * m[i] + b[i], clamp);
            continue;
        }
        for (size_t k = 0; k < c; k++) {
            const float *const src = job->src + (o * c + k) * n;
            float *const dst = job->dst + (o * c + k) * n;
            const float mk = m[k], bk = b[k];
#pragma GCC ivdep
            for (size_t i = 0; i < n; i++)
                dst[i] = clamped(src[i] * mk + bk, clamp);
        }
    }
}

static qn_status run_batch(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)error;
    affine_job job = {step->state, in[0].data, out[0].data, {1, 1, in[0].count}};
    if (in[0].rank >= 2)
        job.v = qn__axis_view(in[0].rank, in[0].dims, in[0].layout, 1);
    qn__parallel_ranges(env->pool, affine_rows, &job, job.v.outer, job.v.axis * job.v.inner * 8);
    return QN_OK;
}

/* --- mean and variance of rows: InstanceNormalization, LayerNormalization -------------------- */
typedef struct moment_job {
    const float *src, *scale, *bias; /* bias may be NULL */
    float *dst, *mean, *deviation;   /* of each row, inverse; may be NULL */
    size_t n, channels;              /* channels 0: scale and bias along the row */
    float epsilon;
} moment_job;

static void moment_rows(void *arg, size_t begin, size_t end)
{
    const moment_job *const job = arg;
    const size_t n = job->n;
    for (size_t row = begin; row < end; row++) {
        const float *const src = job->src + row * n;
        float *const dst = job->dst + row * n;
        double sum = 0.0, square = 0.0;
        for (size_t i = 0; i < n; i++)
            sum += (double)src[i];
        const double mean = sum / (double)n;
        for (size_t i = 0; i < n; i++)
            square += ((double)src[i] - mean) * ((double)src[i] - mean);
        const float inverse = (float)(1.0 / sqrt(square / (double)n + (double)job->epsilon));
        const float center = (float)mean;
        if (job->mean != NULL)
            job->mean[row] = center;
        if (job->deviation != NULL)
            job->deviation[row] = inverse;
        if (job->channels > 0) {
            const size_t c = row % job->channels;
            for (size_t i = 0; i < n; i++)
                dst[i] = (src[i] - center) * inverse * job->scale[c] + job->bias[c];
            continue;
        }
        for (size_t i = 0; i < n; i++)
            dst[i] = (src[i] - center) * inverse * job->scale[i] +
                     (job->bias != NULL ? job->bias[i] : 0.0f);
    }
}

static __attribute__((cold)) qn_status prepare_instance(const qn_plan *plan, qn_step *step,
                                                        qn_error *error)
{
    (void)plan;
    QN_TRY(need_f32(step, 3, error));
    const qn_tensor *const x = step->node->inputs[0];
    for (uint32_t i = 0; i < 3; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    for (uint32_t i = 1; i < 3; i++)
        if (x->rank < 3 || step->node->inputs[i] == NULL ||
            step->node->inputs[i]->type.dtype != QN_DTYPE_F32 ||
            qn__tensor_elements(step->node->inputs[i]) != (size_t)x->dims[1].value)
            return qn__step_fail(step, error, QN_CORRUPT, "input %u does not fit", (unsigned)i);
    step->inplace_input = 0;
    return QN_OK;
}

static qn_status run_instance(const qn_step *step, const qn_run_env *env, const qn_view *in,
                              const qn_view *out, qn_error *error)
{
    (void)error;
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, 1);
    moment_job job = {.src = in[0].data,
                      .scale = in[1].data,
                      .bias = in[2].data,
                      .dst = out[0].data,
                      .n = v.inner,
                      .channels = v.axis,
                      .epsilon = qn__attr_float(step->node, "epsilon", 1e-5f)};
    qn__parallel_ranges(env->pool, moment_rows, &job, v.outer * v.axis, v.inner * 12);
    return QN_OK;
}

static size_t layer_row(const qn_step *step)
{
    const qn_tensor *const x = step->node->inputs[0];
    int64_t axis = qn__attr_int(step->node, "axis", -1);
    axis += axis < 0 ? x->rank : 0;
    size_t n = 1;
    for (int64_t i = axis < 0 ? 0 : axis; i < x->rank; i++)
        n *= (size_t)x->dims[i].value;
    return n;
}

static __attribute__((cold)) qn_status prepare_layer(const qn_plan *plan, qn_step *step,
                                                     qn_error *error)
{
    (void)plan;
    const qn_node *const node = step->node;
    QN_TRY(need_f32(step, 2, error));
    const size_t n = layer_row(step);
    for (uint32_t o = 1; o < node->n_outputs; o++)
        if (node->outputs[o] != NULL &&
            (o > 2 || node->outputs[o]->type.dtype != QN_DTYPE_F32 || n == 0 ||
             qn__tensor_elements(node->outputs[o]) != qn__tensor_elements(node->inputs[0]) / n))
            return qn__step_fail(step, error, QN_UNSUPPORTED, "output %u does not fit",
                                 (unsigned)o);
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
        if (i == 0 || (i == 2 && node->inputs[i] == NULL))
            continue;
        if (node->inputs[i] == NULL || node->inputs[i]->type.dtype != QN_DTYPE_F32 ||
            qn__tensor_elements(node->inputs[i]) != layer_row(step))
            return qn__step_fail(step, error, QN_UNSUPPORTED,
                                 "input %u does not have the row's size", (unsigned)i);
    }
    step->inplace_input = 0;
    return QN_OK;
}

static qn_status run_layer(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)error;
    const bool has_bias = step->node->n_inputs > 2 && step->node->inputs[2] != NULL;
    moment_job job = {.src = in[0].data,
                      .scale = in[1].data,
                      .dst = out[0].data,
                      .bias = has_bias ? in[2].data : NULL,
                      .n = layer_row(step),
                      .epsilon = qn__attr_float(step->node, "epsilon", 1e-5f)};
    if (step->node->n_outputs > 1 && step->node->outputs[1] != NULL)
        job.mean = out[1].data;
    if (step->node->n_outputs > 2 && step->node->outputs[2] != NULL)
        job.deviation = out[2].data;
    if (job.n > 0)
        qn__parallel_ranges(env->pool, moment_rows, &job, in[0].count / job.n, job.n * 12);
    return QN_OK;
}

/* --- LRN ------------------------------------------------------------------------------------- */
static __attribute__((cold)) qn_status prepare_lrn(const qn_plan *plan, qn_step *step,
                                                   qn_error *error)
{
    (void)plan;
    QN_TRY(need_f32(step, 1, error));
    if (step->node->inputs[0]->rank < 2 || qn__attr_int(step->node, "size", 0) < 1)
        return qn__step_fail(step, error, QN_CORRUPT, "needs rank 2 and a size");
    step->out_layout[0] = step->in_layout[0];
    return QN_OK;
}

static qn_status run_lrn(const qn_step *step, const qn_run_env *env, const qn_view *in,
                         const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, in[0].layout, 1);
    const int64_t size = qn__attr_int(step->node, "size", 1);
    const float alpha = qn__attr_float(step->node, "alpha", 1e-4f) / (float)size;
    const float beta = qn__attr_float(step->node, "beta", 0.75f);
    const float bias = qn__attr_float(step->node, "bias", 1.0f);
    const int64_t before = (size - 1) / 2, after = size - 1 - before;
    const int64_t n = (int64_t)v.axis;
    for (size_t o = 0; o < v.outer; o++) {
        const float *const src = (const float *)in[0].data + o * v.axis * v.inner;
        float *const dst = (float *)out[0].data + o * v.axis * v.inner;
        for (int64_t c = 0; c < n; c++) {
            const int64_t from = c < before ? 0 : c - before;
            const int64_t to = after >= n - c ? n : c + after + 1;
            for (size_t i = 0; i < v.inner; i++) {
                float sum = 0.0f;
                for (int64_t k = from; k < to; k++)
                    sum += src[(size_t)k * v.inner + i] * src[(size_t)k * v.inner + i];
                dst[(size_t)c * v.inner + i] =
                    src[(size_t)c * v.inner + i] * powf(bias + alpha * sum, -beta);
            }
        }
    }
    return QN_OK;
}

const qn_run_op qn__op_batch_normalization = {QN_OP_BATCH_NORMALIZATION, prepare_batch, run_batch,
                                              release};
const qn_run_op qn__op_instance_normalization = {QN_OP_INSTANCE_NORMALIZATION, prepare_instance,
                                                 run_instance, NULL};
const qn_run_op qn__op_layer_normalization = {QN_OP_LAYER_NORMALIZATION, prepare_layer, run_layer,
                                              NULL};
const qn_run_op qn__op_lrn = {QN_OP_LRN, prepare_lrn, run_lrn, NULL};
