/* Quantized convolution over three axes and more in plain loops of int32: bytes made unsigned,
 * what their zero point adds taken off before. With saturate16 the sums of neighbouring products
 * saturate to int16, except in depthwise layers. */
#include "run/nd.h"
#include "run/ops/simulated.h"

typedef struct sim_state {
    qn_qconv_nd_shape shape;
    qn_qparams x;
    qn_qweights weights;
    qn_requant requant;
    int32_t *packed; /* [oc][taps][cin] */
    uint32_t *base;  /* [oc] -zero * sum of weights */
    int32_t flip;
    bool saturates;
} sim_state;

static void release(const qn_context *ctx, qn_step *step)
{
    sim_state *const s = step->state;
    qn__qweights_free(ctx, &s->weights);
    qn__free(ctx, s->packed);
    qn__free(ctx, s->base);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status fill(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    sim_state *const s = state;
    const qn_qconv_nd_shape *const shape = &s->shape;
    float s_y;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &s->x, error));
    QN_TRY(qn__qconv_nd_shape(step, &s->shape, error));
    QN_TRY(qn__qweights_read(plan, step, 1, 0, shape->oc, &s->x, 1.0f, 2, &s->weights, error));
    QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed, &s->requant,
                       &s_y, error));
    s->saturates = qn_saturates(plan, step->node->inputs[1]) && (shape->cin > 1 || shape->cout > 1);
    s->flip = s->x.dtype == QN_DTYPE_I8 ? 128 : 0;
    const size_t taps = shape->w.taps, k = taps * shape->cin;
    s->packed = qn__reallocarray(ctx, NULL, qn__tensor_elements(step->node->inputs[1]) + 1,
                                 sizeof(*s->packed));
    s->base = qn__calloc(ctx, shape->oc, sizeof(*s->base));
    if (s->packed == NULL || s->base == NULL)
        return QN_NOMEM(error);
    for (size_t o = 0; o < shape->oc; o++) {
        for (size_t i = 0; i < k; i++) {
            const int32_t w = (int32_t)s->weights.values[o * k + i];
            s->packed[o * k + i % taps * shape->cin + i / taps] = w;
            s->base[o] -= (uint32_t)(s->x.zero + s->flip) * (uint32_t)w;
        }
    }
    qn__qweights_drop_values(ctx, &s->weights);
    step->packed_bytes = shape->oc * k * sizeof(*s->packed);
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->kernel_name = s->saturates ? "qconv_saturating" : "qconv";
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(sim_state), fill, release, error);
}

typedef struct conv_job {
    const sim_state *s;
    const void *x;
    void *dst;
} conv_job;

/* Where in the input a tap of output m lies, in elements; false: in the padding. */
static bool tap_at(const qn_qconv_nd_shape *shape, size_t m, size_t tap, size_t *at)
{
    const qn_window_nd *const w = &shape->w;
    int64_t from[QN_ND_AXES], to[QN_ND_AXES];
    qn__coordinates(m % w->out_count, w->n, w->out, from);
    qn__coordinates(tap, w->n, w->kernel, to);
    *at = m / w->out_count;
    for (size_t i = 0; i < w->n; i++) {
        const int64_t x = from[i] * w->stride[i] + to[i] * w->dilation[i] - w->begin[i];
        if (x < 0 || x >= w->in[i])
            return false;
        *at = *at * (size_t)w->in[i] + (size_t)x;
    }
    *at *= shape->c;
    return true;
}

/* Unsigned bytes of a part of a window, in the order [taps][cin]. */
static void gather(const conv_job *job, size_t m, size_t group, size_t k0, size_t n, int32_t *out)
{
    const sim_state *const s = job->s;
    const size_t cin = s->shape.cin;
    for (size_t k = k0; k < k0 + n;) {
        size_t at, c = k % cin;
        const bool inside = tap_at(&s->shape, m, k / cin, &at);
        for (; c < cin && k < k0 + n; c++, k++)
            *out++ =
                (inside ? qn_qload(job->x, s->x.dtype, at + group * cin + c) : s->x.zero) + s->flip;
    }
}

static uint32_t sum_of(const int32_t *x, const int32_t *w, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (uint32_t)x[i] * (uint32_t)w[i];
    return sum;
}

static uint32_t saturated_sum(const int32_t *x, const int32_t *w, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i += 2) {
        int32_t pair = x[i] * w[i] + (i + 1 < n ? x[i + 1] * w[i + 1] : 0);
        pair = pair > INT16_MAX ? INT16_MAX : pair < INT16_MIN ? INT16_MIN : pair;
        sum += (uint32_t)pair;
    }
    return sum;
}

/* Output m of group g is m * groups + g. */
static void conv_range(void *arg, size_t begin, size_t end)
{
    enum { PART = 512, COLUMNS = 256 };
    const conv_job *const job = arg;
    const sim_state *const s = job->s;
    const qn_qconv_nd_shape *const shape = &s->shape;
    const size_t k = shape->w.taps * shape->cin;
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    int32_t x[PART], sums[COLUMNS];
    for (size_t index = begin; index < end; index++) {
        const size_t m = index / shape->groups, group = index % shape->groups;
        for (size_t i = 0; i < shape->cout; i += COLUMNS) {
            const size_t n = shape->cout - i < COLUMNS ? shape->cout - i : COLUMNS;
            const size_t first = group * shape->cout + i;
            for (size_t o = 0; o < n; o++)
                sums[o] = (int32_t)s->base[first + o];
            for (size_t k0 = 0; k0 < k; k0 += PART) {
                const size_t part = k - k0 < PART ? k - k0 : PART;
                gather(job, m, group, k0, part, x);
                for (size_t o = 0; o < n; o++) {
                    const int32_t *const w = s->packed + (first + o) * k + k0;
                    sums[o] =
                        (int32_t)((uint32_t)sums[o] +
                                  (s->saturates ? saturated_sum(x, w, part) : sum_of(x, w, part)));
                }
            }
            qn__requant_row(&s->requant, sums, first, n,
                            (uint8_t *)job->dst + m * shape->oc * elem);
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const sim_state *const s = step->state;
    conv_job job = {s, in[0].data, out[0].data};
    qn__parallel_ranges(env->pool, conv_range, &job,
                        s->shape.n * s->shape.w.out_count * s->shape.groups,
                        s->shape.w.taps * s->shape.cin * s->shape.cout);
    return QN_OK;
}

const qn_run_op qn__op_qconv_nd_simulated = {QN_OP_CONV, prepare, run, release};
