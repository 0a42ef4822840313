/* Float convolution, channels-last on both sides. Three ways:
 *
 *   depthwise   one filter per channel
 *   rows        few input channels: the input is copied once into a padded channels-last buffer, so
 *               that a row of taps is one run of kw * c floats of it and the GEMM has kh long taps
 *   taps        everything else: the GEMM reads the input through row pointers, one per tap; taps
 *               outside the input point at zeros
 */
#include "run/ops/conv_depthwise.h"
#include "run/ops/igemm_run.h"
#include "run/ops/window_nd.h"
#include "run/ops/window_rows.h"
#include "run/prepacked.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "kernel/split.h"

#include <string.h>

/* Up to this many channels a tap is too short for the GEMM's inner loop. */
enum { ROWS_MAX_CHANNELS = 4 };

typedef enum conv_way { CONV_DEPTHWISE, CONV_ROWS, CONV_TAPS } conv_way;

typedef struct conv_state {
    conv_way way;
    qn_window window; /* the node's */
    qn_window inner;  /* what the GEMM sees: CONV_ROWS works on the padded buffer */
    size_t groups, group_c, group_oc;
    size_t kc, ks;
    bool direct; /* output pixel i reads input pixel i */
    qn_prepacked packed;
    size_t packed_stride; /* floats per group */
    qn_tap_span *spans;   /* [inner.kw] */
    float *zeros;         /* [kc] */
    qn_f32_igemm igemm;
    qn_depthwise depthwise;
    qn_clamp_f32 clamp;
    /* Parts of the scratch: offsets in bytes. */
    size_t padded_at, rows_at;
    bool has_rows;
} conv_state;

/* --- preparing ---------------------------------------------------------------------------------*/
/* OIHW to [o][kh][kw][i]. */
static void reorder_weights(float *to, const float *from, size_t oc, size_t c, size_t taps)
{
    for (size_t o = 0; o < oc; o++)
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < c; i++)
                *to++ = from[(o * c + i) * taps + t];
}

static void fill_depthwise(const conv_state *s, const float *weights, const float *bias)
{
    const qn_window *const w = &s->window;
    const size_t taps = w->kh * w->kw;
    float *const packed = s->packed.own;
    for (size_t c = 0; c < w->c; c++) {
        for (size_t t = 0; t < taps; t++)
            packed[t * w->c + c] = weights[c * taps + t];
        packed[taps * w->c + c] = bias == NULL ? 0.0f : bias[c];
    }
}

static qn_status fill_gemm(const qn_context *ctx, const conv_state *s, const float *weights,
                           const float *bias, qn_error *error)
{
    const size_t nr = s->igemm.nr, taps = s->window.kh * s->window.kw, floats = s->packed_stride;
    const size_t k = s->kc * s->ks; /* = group_c * taps */
    float *ordered = NULL, *const packed = s->packed.own;
    if (taps > 1) {
        ordered = qn__alloc(ctx, s->window.oc * k * sizeof(float));
        if (ordered == NULL)
            return QN_NOMEM(error);
        reorder_weights(ordered, weights, s->window.oc, s->group_c, taps);
    }
    const float *const source = taps > 1 ? ordered : weights;
    for (size_t g = 0; g < s->groups; g++)
        qn__igemm_pack(ctx->pool, packed + g * floats, source + g * s->group_oc * k,
                       bias == NULL ? NULL : bias + g * s->group_oc, s->group_oc, s->kc, s->ks, k,
                       s->kc, 1, nr);
    for (size_t g = 0; s->igemm.repack != NULL && g < s->groups; g++)
        s->igemm.repack(packed + g * floats, s->group_oc, k);
    qn__free(ctx, ordered);
    return QN_OK;
}

/* bias: NULL or [oc]. */
static qn_status pack(const qn_plan *plan, qn_step *step, conv_state *s, const float *bias,
                      qn_error *error)
{
    const qn_window *const w = &s->window;
    const bool depthwise = s->way == CONV_DEPTHWISE;
    const size_t nr = depthwise ? w->c : s->igemm.nr, k = depthwise ? w->kh * w->kw : s->kc * s->ks;
    const size_t numbers[] = {s->groups, s->kc, s->ks, w->kw};
    const uint32_t layout =
        depthwise ? qn_packing_id(QN_PACKED_F32_DWCONV, 1, 0, 0)
        : s->igemm.repack != NULL
            ? 0
            : qn_packing_id(QN_PACKED_F32_GEMM, QN_F32_GEMM_LAYOUT_VERSION, nr, 1);
    size_t columns, bytes;
    float *weights = NULL;
    if (!qn_align_size(&columns, s->group_oc, nr) ||
        !qn_mul_size(&s->packed_stride, columns, k + 1) ||
        !qn_mul_size(&bytes, s->packed_stride, depthwise ? 1 : s->groups) ||
        !qn_mul_size(&bytes, bytes, sizeof(float)))
        return qn__step_fail(step, error, QN_LIMIT, "packed weights are too large");
    QN_TRY(qn__packed_begin(plan, step, layout, numbers, sizeof(numbers) / sizeof(numbers[0]), bias,
                            w->oc, bytes, &s->packed, error));
    if (s->packed.own == NULL)
        return QN_OK;
    QN_TRY(qn__step_const_f32(plan, step, 1, &weights, NULL, error));
    qn_status status = QN_OK;
    if (depthwise)
        fill_depthwise(s, weights, bias);
    else
        status = fill_gemm(qn__plan_context(plan), s, weights, bias, error);
    qn__free(qn__plan_context(plan), weights);
    return status == QN_OK ? qn__prepacked_keep(plan, step, &s->packed.entry, error) : status;
}

/* Chooses the way; for CONV_ROWS describes the padded buffer. */
static void choose_way(conv_state *s)
{
    const qn_window *const w = &s->window;
    s->inner = *w;
    s->ks = w->kh * w->kw;
    s->kc = s->group_c;
    s->way = CONV_TAPS;
    if (s->groups == w->c && w->oc == w->c && s->groups > 1) {
        s->way = CONV_DEPTHWISE;
    } else if (s->groups == 1 && w->c <= ROWS_MAX_CHANNELS && w->dw == 1 && w->pl < w->kw &&
               w->pr < w->kw && w->pt < w->kh * w->dh && w->pb < w->kh * w->dh) {
        s->way = CONV_ROWS;
        s->ks = w->kh;
        s->kc = w->kw * w->c;
        s->inner.h += w->pt + w->pb;
        s->inner.w += w->pl + w->pr;
        s->inner.kw = 1;
        s->inner.pt = s->inner.pl = s->inner.pb = s->inner.pr = 0;
    }
    s->direct = s->way == CONV_TAPS && s->ks == 1 && w->sh == 1 && w->sw == 1 && w->oh == w->h &&
                w->ow == w->w && w->pt == 0 && w->pl == 0;
}

static qn_status make_taps(const qn_plan *plan, conv_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_window *const w = &s->inner;
    s->spans = qn__calloc(ctx, w->kw, sizeof *s->spans);
    s->zeros = qn__calloc(ctx, s->kc, sizeof *s->zeros);
    if (s->spans == NULL || s->zeros == NULL)
        return QN_NOMEM(error);
    qn__tap_spans(w, s->spans);
    return QN_OK;
}

/* Appends `count` times `size` bytes to the scratch, 64-byte aligned. */
static bool reserve(qn_step *step, size_t *at, size_t count, size_t size)
{
    size_t bytes;
    *at = step->scratch_bytes;
    return qn_mul_size(&bytes, count, size) && qn_align_size(&bytes, bytes, 64) &&
           qn_add_size(&step->scratch_bytes, step->scratch_bytes, bytes);
}

static bool reserve_scratch(qn_step *step, conv_state *s)
{
    const qn_window *const w = &s->window, *const p = &s->inner;
    size_t count, bytes = 0;
    if (s->way == CONV_ROWS &&
        !(qn_mul_size(&count, p->h, p->w) && qn_mul_size(&count, count, p->n * p->c) &&
          reserve(step, &s->padded_at, count, sizeof(float))))
        return false;
    if (s->way != CONV_DEPTHWISE &&
        !qn__igemm_buffer_bytes(&bytes, &s->igemm, w->n * w->oh * w->ow, s->ks, s->groups))
        return false;
    s->has_rows = bytes != 0;
    return reserve(step, &s->rows_at, bytes, 1);
}

static qn_status read_node(const qn_step *step, conv_state *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const w = qn__step_input(step, 1);
    if (w == NULL || x->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input \"%s\" is %s, not float32",
                             x->name, qn__dtype_name(x->type.dtype));
    int64_t dims[QN_MAX_RANK];
    if (w->rank != x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "weights of rank %u, input of rank %u",
                             w->rank, x->rank);
    qn__tensor_dims(w, dims);
    QN_TRY(qn__window_read(step, dims + 2, false, false, &s->window, error));
    const int64_t groups = qn__attr_int(step->node, "group", 1);
    const size_t c = s->window.c, oc = s->window.oc;
    if (groups < 1 || (uint64_t)groups > c || c % (size_t)groups != 0 || oc % (size_t)groups != 0 ||
        dims[0] != (int64_t)oc || dims[1] != (int64_t)(c / (size_t)groups))
        return qn__step_fail(
            step, error, QN_CORRUPT,
            "weights for %lld x %lld channels, %lld groups; input has %zu, output %zu",
            (long long)dims[0], (long long)dims[1], (long long)groups, c, oc);
    s->groups = (size_t)groups;
    s->group_c = c / s->groups;
    s->group_oc = oc / s->groups;
    return QN_OK;
}

static void conv_release(const qn_context *ctx, qn_step *step)
{
    conv_state *const s = step->state;
    if (s == NULL)
        return;
    qn__free_aligned(ctx, s->packed.own);
    qn__free(ctx, s->spans);
    qn__free(ctx, s->zeros);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    conv_state *const s = state;
    const qn_context *const ctx = qn__plan_context(plan);
    QN_TRY(read_node(step, s, error));
    s->clamp = qn__step_clamp(step);
    s->igemm = step->kernels->f32_igemm;
    choose_way(s);
    const qn_split_igemm *const split = qn__plan_get_options(plan)->split;
    if (split != NULL && split->takes(s->group_oc, s->kc, s->ks))
        s->igemm = split->kernel;
    float *bias = NULL;
    size_t n_bias = 0;
    qn_status status;
    QN_TRY_GOTO(qn__step_const_f32(plan, step, 2, &bias, &n_bias, error));
    if (bias != NULL && n_bias != s->window.oc) {
        status = qn__step_fail(step, error, QN_CORRUPT, "bias of %zu values for %zu channels",
                               n_bias, s->window.oc);
        goto done;
    }
    QN_TRY_GOTO(pack(plan, step, s, bias, error));
    if (s->way == CONV_DEPTHWISE) {
        s->depthwise =
            (qn_depthwise){s->window, step->kernels->f32_dwconv, s->packed.data, s->clamp};
        step->kernel_name = step->kernels->f32_dwconv.name;
    } else {
        step->kernel_name = s->igemm.name;
        QN_TRY_GOTO(make_taps(plan, s, error));
    }
    if (!reserve_scratch(step, s)) {
        status = qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
        goto done;
    }
    /* CONV_ROWS copies the input anyway and takes it as it lies. */
    if (s->way != CONV_ROWS)
        step->in_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->strides_output = s->way != CONV_DEPTHWISE;
done:
    qn__free(ctx, bias);
    return status;
}

static qn_status conv_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0), *const weight = qn__step_input(step, 1);
    if (x != NULL && weight != NULL && (x->rank > 4 || weight->constant == NULL))
        return qn_prepare_as(&qn__op_conv_nd, plan, step, error);
    return qn__step_make_state(plan, step, sizeof(conv_state), prepare_state, conv_release, error);
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct conv_call {
    const conv_state *s;
    const float *in; /* what the GEMM reads, channels-last */
} conv_call;

/* Output pixel i reads input pixel i. */
static void direct_rows(const qn_igemm_job *job, size_t group, size_t m0, size_t mr,
                        const float **a)
{
    const conv_call *const call = job->ctx;
    const size_t c = call->s->window.c;
    qn_row *const rows = (qn_row *)(void *)a;
    qn__spaced_rows(rows, call->in + group * call->s->group_c + m0 * c, c * sizeof(float), mr);
    qn__repeat_last(rows, 1, mr, job->kernel->mr, job->kernel->mr);
}

/* CONV_ROWS: a tap is kw pixels wide, and the padded buffer holds every window. */
static void tap_rows(const qn_igemm_job *job, size_t group, size_t m0, size_t mr, const float **a)
{
    const conv_call *const call = job->ctx;
    const conv_state *const s = call->s;
    const qn_window_rows rows = {&s->inner, s->spans, s->zeros, s->inner.c * sizeof(float)};
    qn__tap_rows(&rows, call->in + group * s->group_c, m0, mr, job->kernel->mr, job->kernel->mr,
                 (qn_row *)(void *)a);
}

typedef struct pad_call {
    const qn_window *from, *to;
    const float *in;
    float *out;
    bool channels_last;
} pad_call;

/* One row of the padded buffer. */
static void pad_row(void *arg, size_t index)
{
    const pad_call *const call = arg;
    const qn_window *const w = call->from;
    const size_t c = w->c, image = index / call->to->h, y = index % call->to->h;
    float *out = call->out + index * call->to->w * c;
    if (y < w->pt || y - w->pt >= w->h) {
        memset(out, 0, call->to->w * c * sizeof(float));
        return;
    }
    memset(out, 0, w->pl * c * sizeof(float));
    out += w->pl * c;
    if (call->channels_last || c == 1) {
        memcpy(out, call->in + (image * w->h + y - w->pt) * w->w * c, w->w * c * sizeof(float));
    } else {
        const size_t plane = w->h * w->w;
        const float *const in = call->in + image * c * plane + (y - w->pt) * w->w;
        if (c == 3) {
            for (size_t x = 0; x < w->w; x++) {
                out[3 * x] = in[x];
                out[3 * x + 1] = in[plane + x];
                out[3 * x + 2] = in[2 * plane + x];
            }
        } else {
            for (size_t i = 0; i < c; i++)
                for (size_t x = 0; x < w->w; x++)
                    out[x * c + i] = in[i * plane + x];
        }
    }
    memset(out + w->w * c, 0, w->pr * c * sizeof(float));
}

static qn_status conv_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                          const qn_view *out, qn_error *error)
{
    (void)error;
    const conv_state *const s = step->state;
    const qn_window *const w = &s->window;
    uint8_t *const scratch = env->scratch;
    const float *x = in[0].data;
    if (out[0].count == 0)
        return QN_OK;
    if (s->way == CONV_DEPTHWISE) {
        qn__depthwise_run(&s->depthwise, x, out[0].data, env->pool);
    } else {
        if (s->way == CONV_ROWS) {
            float *const padded = (float *)(void *)(scratch + s->padded_at);
            pad_call pad = {w, &s->inner, x, padded, in[0].layout == QN_LAYOUT_CHANNELS_LAST};
            qn__parallel(env->pool, pad_row, &pad, w->n * s->inner.h);
            x = padded;
        }
        const conv_call call = {s, x};
        const qn_igemm_job job = {
            .kernel = &s->igemm,
            .m = w->n * w->oh * w->ow,
            .n = s->group_oc,
            .kc = s->kc,
            .ks = s->ks,
            .groups = s->groups,
            .packed_stride = s->packed_stride,
            .c_group = s->group_oc,
            .packed = s->packed.data,
            .c = out[0].data,
            .c_stride = out[0].pitch != 0 ? out[0].pitch : w->oc,
            .clamp = s->clamp,
            .rows = s->direct ? direct_rows : tap_rows,
            .ctx = &call,
            .row_buffer = s->has_rows ? (const float **)(void *)(scratch + s->rows_at) : NULL,
        };
        qn__igemm_run(&job, env->pool);
    }
    return QN_OK;
}

const qn_run_op qn__op_conv = {QN_OP_CONV, conv_prepare, conv_run, conv_release};
