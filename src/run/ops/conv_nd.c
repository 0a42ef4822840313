/* Conv and ConvTranspose over any number of axes, with weights that may be computed: loops over
 * taps and rows of the last axis. */
#include "run/nd.h"
#include "run/ops/window_nd.h"

typedef struct conv_nd {
    qn_window_nd w;
    bool transposed;
    size_t group, group_in, group_out; /* channels per group */
    qn_clamp_f32 clamp;
} conv_nd;

static qn_status check(const qn_step *step, conv_nd *s, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const x = node->inputs[0], *const weight = node->inputs[1];
    const qn_tensor *const y = node->outputs[0], *const bias = qn__step_input(step, 2);
    const int64_t group = qn__attr_int(node, "group", 1);
    for (uint32_t i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] != NULL && (node->inputs[i]->type.dtype != QN_DTYPE_F32 ||
                                        node->inputs[i]->type.kind == QN_TYPE_QUANT))
            return qn__step_fail(step, error, QN_UNSUPPORTED, "input \"%s\" is %s, not float32",
                                 node->inputs[i]->name,
                                 qn__dtype_name(node->inputs[i]->type.dtype));
    if (x->rank < 3 || weight->rank != x->rank || y->rank != x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "ranks of input and weights do not fit");
    const int64_t in = x->dims[1].value, out = y->dims[1].value;
    const int64_t first = weight->dims[0].value, second = weight->dims[1].value;
    if (group < 1 || in % group != 0 || out % group != 0 || first != (s->transposed ? in : out) ||
        second != (s->transposed ? out : in) / group || x->dims[0].value != y->dims[0].value)
        return qn__step_fail(step, error, QN_CORRUPT, "channels of input and weights do not fit");
    if (bias != NULL && qn__tensor_elements(bias) != (size_t)out)
        return qn__step_fail(step, error, QN_CORRUPT, "bias does not fit %lld channels",
                             (long long)out);
    s->group = (size_t)group;
    s->group_in = (size_t)(in / group);
    s->group_out = (size_t)(out / group);
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    conv_nd s = {.transposed = step->node->op == QN_OP_CONV_TRANSPOSE,
                 .clamp = qn__step_clamp(step)};
    if (qn__step_input(step, 0) == NULL || qn__step_input(step, 1) == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "an input is missing");
    QN_TRY(check(step, &s, error));
    int64_t dims[QN_MAX_RANK];
    qn__tensor_dims(step->node->inputs[1], dims);
    QN_TRY(qn__window_nd_read(step, dims + 2, &s.w, error));
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->kernel_name = "conv_nd";
    conv_nd *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    return QN_OK;
}

typedef struct conv_job {
    const conv_nd *s;
    const float *x, *weight, *bias;
    float *y;
} conv_job;

/* The places small * stride + shift of 0..n_small that lie in 0..n_large. */
static void span(int64_t shift, int64_t stride, int64_t n_small, int64_t n_large, int64_t *lo,
                 int64_t *hi)
{
    *lo = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
    *hi = shift >= n_large ? 0 : (n_large - shift + stride - 1) / stride;
    *hi = *hi < n_small ? *hi : n_small;
}

/* One tap: large[small * stride + shift] meets small, axis by axis, rows of the last one in a loop.
 * Conv reads large, ConvTranspose writes it. */
static void add_tap(const conv_nd *s, const int64_t *tap, float factor, const float *x, float *y)
{
    const qn_window_nd *const w = &s->w;
    const int64_t *const small = s->transposed ? w->in : w->out;
    const int64_t *const large = s->transposed ? w->out : w->in;
    const size_t last = w->n - 1, rows = (s->transposed ? w->in_count : w->out_count) /
                                         (size_t)(small[last] > 0 ? small[last] : 1);
    const int64_t stride = w->stride[last];
    const int64_t shift = tap[last] * w->dilation[last] - w->begin[last];
    int64_t lo, hi;
    span(shift, stride, small[last], large[last], &lo, &hi);
    for (size_t row = 0; row < rows; row++) {
        int64_t at[QN_ND_AXES], offset = 0;
        bool inside = true;
        qn__coordinates(row, last, small, at);
        for (size_t i = 0; i < last && inside; i++) {
            const int64_t here = at[i] * w->stride[i] + tap[i] * w->dilation[i] - w->begin[i];
            inside = here >= 0 && here < large[i];
            offset = offset * large[i] + here;
        }
        if (!inside)
            continue;
        const size_t near = row * (size_t)small[last], far = (size_t)(offset * large[last]);
        for (int64_t i = lo; i < hi; i++) {
            const size_t a = near + (size_t)i, b = far + (size_t)(i * stride + shift);
            if (s->transposed)
                y[b] += factor * x[a];
            else
                y[a] += factor * x[b];
        }
    }
}

/* One output channel of one image. */
static void run_channels(void *arg, size_t begin, size_t end)
{
    const conv_job *const job = arg;
    const conv_nd *const s = job->s;
    const qn_window_nd *const w = &s->w;
    const size_t channels = s->group * s->group_out;
    for (size_t index = begin; index < end; index++) {
        const size_t image = index / channels, oc = index % channels, g = oc / s->group_out;
        float *const y = job->y + index * w->out_count;
        for (size_t i = 0; i < w->out_count; i++)
            y[i] = job->bias != NULL ? job->bias[oc] : 0.0f;
        for (size_t ic = 0; ic < s->group_in; ic++) {
            const size_t in = g * s->group_in + ic;
            const float *const x = job->x + (image * s->group * s->group_in + in) * w->in_count;
            const float *const weight =
                job->weight +
                (s->transposed ? in * s->group_out + oc % s->group_out : oc * s->group_in + ic) *
                    w->taps;
            for (size_t t = 0; t < w->taps; t++) {
                int64_t tap[QN_ND_AXES];
                qn__coordinates(t, w->n, w->kernel, tap);
                add_tap(s, tap, weight[t], x, y);
            }
        }
        for (size_t i = 0; i < w->out_count; i++) {
            const float v = y[i] < s->clamp.lo ? s->clamp.lo : y[i];
            y[i] = v > s->clamp.hi ? s->clamp.hi : v;
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const conv_nd *const s = step->state;
    if (out[0].count == 0)
        return QN_OK;
    const bool biased = qn__step_input(step, 2) != NULL;
    conv_job job = {s, in[0].data, in[1].data, biased ? in[2].data : NULL, out[0].data};
    qn__parallel_ranges(env->pool, run_channels, &job, (size_t)(out[0].dims[0] * out[0].dims[1]),
                        4 * s->w.taps * s->group_in * s->w.out_count);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_conv_nd = {QN_OP_NONE, prepare, run, release};
