/* Quantized ConvTranspose as plain loops over integers. */
#include "run/nd.h"
#include "run/ops/simulated.h"

typedef qn_qconv_transpose sim_state;

static void release(const qn_context *ctx, qn_step *step)
{
    sim_state *const s = step->state;
    qn__qweights_free(ctx, &s->weights);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status fill(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    step->kernel_name = "qconv_transpose";
    QN_TRY(qn__qconv_transpose_read(plan, step, state, error));
    return qn__qweights_values(plan, step, 1, 1, &((sim_state *)state)->weights, error);
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(sim_state), fill, release, error);
}

typedef struct sim_job {
    const sim_state *s;
    const uint8_t *in;
    uint8_t *out;
} sim_job;

/* Where output o meets tap k: *at, inside the axis. */
static bool meets(size_t o, size_t pad, size_t k, size_t dilation, size_t stride, size_t size,
                  size_t *at)
{
    const size_t from = o + pad, back = k * dilation;
    *at = (from - back) / stride;
    return from >= back && (from - back) % stride == 0 && *at < size;
}

static int32_t plain_sum(const sim_job *job, const uint8_t *image, size_t oy, size_t ox, size_t o)
{
    const sim_state *const s = job->s;
    const qn_window *const w = &s->shape.win;
    const size_t first = o / s->shape.cout * s->shape.cin, n_taps = w->kh * w->kw;
    uint32_t sum = 0;
    for (size_t k = 0; k < n_taps; k++) {
        size_t y, x;
        if (!meets(oy, w->pt, k / w->kw, w->dh, w->sh, w->h, &y) ||
            !meets(ox, w->pl, k % w->kw, w->dw, w->sw, w->w, &x))
            continue;
        const uint8_t *const pixel = image + (y * w->w + x) * w->c + first;
        const float *const weight =
            s->weights.values + (first * s->shape.cout + o % s->shape.cout) * n_taps + k;
        for (size_t c = 0; c < s->shape.cin; c++)
            sum += (uint32_t)((qn_qload(pixel, s->x.dtype, c) - s->x.zero) *
                              (int32_t)weight[c * s->shape.cout * n_taps]);
    }
    return (int32_t)sum;
}

static void plain_pixels(void *arg, size_t begin, size_t end)
{
    enum { COLUMNS = 64 };
    const sim_job *const job = arg;
    const qn_window *const w = &job->s->shape.win;
    int32_t sums[COLUMNS];
    const size_t elem = job->s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    for (size_t m = begin; m < end; m++) {
        const size_t row = m / w->ow;
        const uint8_t *const image = job->in + row / w->oh * w->h * w->w * w->c;
        for (size_t o0 = 0; o0 < w->oc; o0 += COLUMNS) {
            const size_t n = w->oc - o0 < COLUMNS ? w->oc - o0 : COLUMNS;
            for (size_t i = 0; i < n; i++)
                sums[i] = plain_sum(job, image, row % w->oh, m % w->ow, o0 + i);
            qn__requant_row(&job->s->requant, sums, o0, n, job->out + m * w->oc * elem);
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const sim_state *const s = step->state;
    const qn_window *const w = &s->shape.win;
    sim_job job = {s, in[0].data, out[0].data};
    if (out[0].count > 0)
        qn__parallel_ranges(env->pool, plain_pixels, &job, w->n * w->oh * w->ow,
                            w->kh * w->kw * s->shape.cin * w->oc);
    return QN_OK;
}

const qn_run_op qn__op_qconv_transpose_simulated = {QN_OP_CONV_TRANSPOSE, prepare, run, release};
