/* Quantized convolution as exact products in float: (q - zero) are summed exactly in blocks, blocks
 * in int32; padding is the zero point and adds nothing. Depthwise layers have a loop of their own.
 * With saturate16 the sums of neighbouring products saturate to int16. */
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/simulated.h"

#include <string.h>

typedef struct sim_state {
    qn_qconv_shape shape;
    qn_qparams x;
    qn_qweights weights;
    qn_requant requant;
    qn_qproduct product;
    float *packed; /* product: per group; depthwise: [tap][channel]; saturating: [pairs][2][cout] */
    int32_t *base; /* saturating: -zero * sum of weights per output channel */
    bool saturates;
    size_t in_count;
} sim_state;

static void release(const qn_context *ctx, qn_step *step)
{
    sim_state *const s = step->state;
    qn__qweights_free(ctx, &s->weights);
    qn__qproduct_free(ctx, &s->product);
    qn__free_aligned(ctx, s->packed);
    qn__free(ctx, s->base);
    qn__free(ctx, s);
    step->state = NULL;
}

/* The three forms of the weights, from [oc][cin][kh][kw]. */
static qn_status pack_weights(const qn_plan *plan, qn_step *step, sim_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const size_t taps = s->shape.win.kh * s->shape.win.kw, k = taps * s->shape.cin;
    const float *const w = s->weights.values;
    size_t floats, bytes;
    if (!s->shape.depthwise && !s->saturates)
        QN_TRY(qn__qproduct_plan(ctx, &step->kernels->f32_igemm, s->shape.cout, s->shape.cin, taps,
                                 255, s->weights.max, &s->product, error));
    const size_t pairs = (k + 1) / 2;
    if (s->shape.depthwise)
        floats = taps * s->shape.win.oc;
    else
        floats =
            (s->saturates ? pairs * 2 * s->shape.cout : s->product.group_floats) * s->shape.groups;
    if (!qn_mul_size(&bytes, floats, sizeof(float)))
        return QN_NOMEM(error);
    s->packed = qn__alloc_aligned(ctx, bytes + 64);
    s->base = qn__calloc(ctx, s->shape.win.oc, sizeof(*s->base));
    if (s->packed == NULL || s->base == NULL)
        return QN_NOMEM(error);
    memset(s->packed, 0, bytes);
    step->packed_bytes = bytes;
    if (s->shape.depthwise) {
        for (size_t c = 0; c < s->shape.win.oc; c++)
            for (size_t t = 0; t < taps; t++)
                s->packed[t * s->shape.win.oc + c] = w[c * taps + t];
        return QN_OK;
    }
    for (size_t g = 0; g < s->shape.groups; g++) {
        const float *const wg = w + g * s->shape.cout * k;
        if (!s->saturates) {
            qn__qproduct_pack(&s->product, s->packed + g * s->product.group_floats, wg, k, 1, taps);
            continue;
        }
        float *const pg = s->packed + g * pairs * 2 * s->shape.cout;
        for (size_t n = 0; n < s->shape.cout; n++) {
            int32_t sum = 0;
            for (size_t t = 0; t < taps; t++) {
                for (size_t c = 0; c < s->shape.cin; c++) {
                    pg[(t * s->shape.cin + c) * s->shape.cout + n] = wg[n * k + c * taps + t];
                    sum += (int32_t)wg[n * k + c * taps + t];
                }
            }
            const int32_t zero = s->x.zero + (s->x.dtype == QN_DTYPE_I8 ? 128 : 0);
            s->base[g * s->shape.cout + n] = (int32_t)(-(int64_t)zero * sum);
        }
    }
    return QN_OK;
}

static qn_status fill(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    sim_state *const s = state;
    float s_y;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &s->x, error));
    QN_TRY(qn__qconv_shape(step, &s->shape, error));
    QN_TRY(
        qn__qweights_read(plan, step, 1, 0, s->shape.win.oc, &s->x, 1.0f, 2, &s->weights, error));
    QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed, &s->requant,
                       &s_y, error));
    s->saturates = qn_saturates(plan, step->node->inputs[1]) && !s->shape.depthwise;
    s->in_count = qn__tensor_elements(step->node->inputs[0]);
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->scratch_bytes = (s->in_count + s->shape.win.c) * sizeof(float);
    step->kernel_name = s->shape.depthwise ? "qconv_depthwise"
                        : s->saturates     ? "qconv_saturating"
                                           : "qconv";
    QN_TRY(pack_weights(plan, step, s, error));
    qn__qweights_drop_values(qn__plan_context(plan), &s->weights);
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    if (step->node->inputs[0]->rank > 4)
        return qn_prepare_as(&qn__op_qconv_nd_simulated, plan, step, error);
    return qn__step_make_state(plan, step, sizeof(sim_state), fill, release, error);
}

typedef struct qconv_job {
    const sim_state *s;
    const float *x, *zeros; /* centred values; zeros: of one row of channels */
    void *dst;
} qconv_job;

/* Where the window of an output row starts: its first tap, maybe in the padding. */
typedef struct window_start {
    const float *image;
    ptrdiff_t y, x;
} window_start;

static window_start locate(const qconv_job *job, size_t m)
{
    const qn_window *const w = &job->s->shape.win;
    const size_t ox = m % w->ow, rest = m / w->ow, oy = rest % w->oh, n = rest / w->oh;
    return (window_start){job->x + n * w->h * w->w * w->c,
                          (ptrdiff_t)(oy * w->sh) - (ptrdiff_t)w->pt,
                          (ptrdiff_t)(ox * w->sw) - (ptrdiff_t)w->pl};
}

/* Channels that a tap reads, or NULL in the padding. */
static const float *tap_at(const qn_window *w, const window_start *start, size_t ky, size_t kx)
{
    const ptrdiff_t y = start->y + (ptrdiff_t)(ky * w->dh), x = start->x + (ptrdiff_t)(kx * w->dw);
    if (y < 0 || x < 0 || y >= (ptrdiff_t)w->h || x >= (ptrdiff_t)w->w)
        return NULL;
    return start->image + ((size_t)y * w->w + (size_t)x) * w->c;
}

static void product_rows(const qn_qrun *run, size_t group, size_t m, size_t p0, size_t np,
                         size_t k0, const float **a, size_t step)
{
    const qconv_job *const job = run->ctx;
    const qn_window *const w = &job->s->shape.win;
    const size_t at = group * job->s->shape.cin + k0;
    const window_start start = locate(job, m);
    size_t ky = p0 / w->kw, kx = p0 % w->kw;
    for (size_t p = 0; p < np; p++) {
        const float *const row = tap_at(w, &start, ky, kx);
        a[p * step] = row != NULL ? row + at : job->zeros;
        if (++kx == w->kw) {
            kx = 0;
            ky++;
        }
    }
}

#define CHANNELS 64

static void depthwise_range(void *arg, size_t begin, size_t end)
{
    const qconv_job *const job = arg;
    const sim_state *const s = job->s;
    const size_t c = s->shape.win.c, taps = s->shape.win.kh * s->shape.win.kw;
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    for (size_t m = begin; m < end; m++) {
        const window_start start = locate(job, m);
        for (size_t c0 = 0; c0 < c; c0 += CHANNELS) {
            const size_t n = c - c0 < CHANNELS ? c - c0 : CHANNELS;
            int32_t acc[CHANNELS] = {0};
            float sums[CHANNELS] = {0};
            size_t exact = 0; /* taps in sums: 256 products of 255 * 255 stay below 2^24 */
            size_t ky = 0, kx = 0;
            for (size_t t = 0; t < taps; t++) {
                const float *const x = tap_at(&s->shape.win, &start, ky, kx);
                if (++kx == s->shape.win.kw) {
                    kx = 0;
                    ky++;
                }
                if (x == NULL)
                    continue;
                const float *const w = s->packed + t * c + c0;
                for (size_t i = 0; i < n; i++)
                    sums[i] += x[c0 + i] * w[i];
                if (++exact < 256)
                    continue;
                for (size_t i = 0; i < n; i++) {
                    acc[i] += (int32_t)sums[i];
                    sums[i] = 0.0f;
                }
                exact = 0;
            }
            for (size_t i = 0; i < n; i++)
                acc[i] += (int32_t)sums[i];
            qn__requant_row(&s->requant, acc, c0, n, (uint8_t *)job->dst + m * c * elem);
        }
    }
}

/* Unsigned bytes of a part of the K axis as floats: signed activations are moved by 128. */
static size_t gather_bytes(const qconv_job *job, size_t m, size_t group, size_t k0, size_t n,
                           float *out)
{
    const sim_state *const s = job->s;
    const float zero = (float)(s->x.zero + (s->x.dtype == QN_DTYPE_I8 ? 128 : 0));
    const window_start start = locate(job, m);
    for (size_t i = 0; i < n;) {
        const size_t tap = (k0 + i) / s->shape.cin, c = (k0 + i) % s->shape.cin;
        const size_t part = s->shape.cin - c < n - i ? s->shape.cin - c : n - i;
        const float *const row =
            tap_at(&s->shape.win, &start, tap / s->shape.win.kw, tap % s->shape.win.kw);
        for (size_t j = 0; j < part; j++)
            out[i + j] = row != NULL ? row[group * s->shape.cin + c + j] + zero : zero;
        i += part;
    }
    if (n % 2 != 0)
        out[n] = 0.0f;
    return (n + 1) / 2;
}

static void saturating_range(void *arg, size_t begin, size_t end)
{
    enum { PART = 512, COLUMNS = 512 };
    const qconv_job *const job = arg;
    const sim_state *const s = job->s;
    const size_t k = s->shape.win.kh * s->shape.win.kw * s->shape.cin, pairs = (k + 1) / 2;
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    const size_t m_count = s->shape.win.n * s->shape.win.oh * s->shape.win.ow;
    float x[PART + 2];
    int32_t acc[COLUMNS];
    for (size_t index = begin; index < end; index++) {
        const size_t group = index / m_count, m = index % m_count;
        const float *const w = s->packed + group * pairs * 2 * s->shape.cout;
        uint8_t *const row = (uint8_t *)job->dst + m * s->shape.win.oc * elem;
        for (size_t n0 = 0; n0 < s->shape.cout; n0 += COLUMNS) {
            const size_t n = s->shape.cout - n0 < COLUMNS ? s->shape.cout - n0 : COLUMNS;
            memcpy(acc, s->base + group * s->shape.cout + n0, n * sizeof(*acc));
            for (size_t k0 = 0; k0 < k; k0 += PART) {
                const size_t part =
                    gather_bytes(job, m, group, k0, k - k0 < PART ? k - k0 : PART, x);
                qn__saturating_part(x, w + k0 * s->shape.cout + n0, part, n, s->shape.cout, acc);
            }
            qn__requant_row(&s->requant, acc, group * s->shape.cout + n0, n, row);
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const sim_state *const s = step->state;
    float *const x = env->scratch, *const zeros = x + s->in_count;
    qn__unpack_centered(env->pool, in[0].data, s->x.dtype, s->x.zero, x, s->in_count);
    memset(zeros, 0, s->shape.win.c * sizeof(float));
    qconv_job job = {s, x, zeros, out[0].data};
    const size_t m = s->shape.win.n * s->shape.win.oh * s->shape.win.ow;
    const size_t k = s->shape.win.kh * s->shape.win.kw * s->shape.cin;
    if (s->shape.depthwise) {
        qn__parallel_ranges(env->pool, depthwise_range, &job, m, k * s->shape.win.c * 4);
    } else if (s->saturates) {
        qn__parallel_ranges(env->pool, saturating_range, &job, m * s->shape.groups,
                            k * s->shape.cout);
    } else {
        const qn_qrun product = {.product = &s->product,
                                 .packed = s->packed,
                                 .m = m,
                                 .groups = s->shape.groups,
                                 .rows = product_rows,
                                 .ctx = &job,
                                 .requant = &s->requant,
                                 .dst = out[0].data,
                                 .dst_stride = s->shape.win.oc};
        qn__qproduct_run(&product, env->pool);
    }
    return QN_OK;
}

const qn_run_op qn__op_qconv_simulated = {QN_OP_CONV, prepare, run, release};
