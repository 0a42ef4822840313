#include "run/ops/q8_conv.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "run/nd.h"

#include <string.h>

/* Up to this many channels a row of taps is taken at once, from a padded copy: single taps are
 * short for the GEMM's inner loop. Kernels that pair groups of k pair them within a tap, and find
 * most pairs anyway where there are many. With few channels the input may lie as it likes: it is
 * copied value by value. */
enum { ROWS_MAX_CHANNELS = 256, ROWS_MAX_CHANNELS_PAIRS = 64, ANY_LAYOUT_CHANNELS = 8 };
/* Such kernels find the most pairs where a window is one tap: windows of up to GATHER_MAX_K values,
 * in rows of less than a vector, are copied behind the row pointers. */
enum { GATHER_MAX_K = 128, GATHER_BYTES = 16 };

/* --- preparing ---------------------------------------------------------------------------------*/
static __attribute__((cold)) void choose_way(qn_q8_conv *s, size_t groups)
{
    const qn_window *const w = &s->window;
    s->inner = *w;
    s->cin = w->c / groups;
    s->packed.groups = groups;
    s->packed.n = w->oc / groups;
    s->packed.ks = w->kh * w->kw;
    s->packed.kc = s->cin;
    s->way = QN_Q8_TAPS;
    s->fold = 1;
    s->gathers = false;
    const size_t most = s->packed.kernel.pairs ? ROWS_MAX_CHANNELS_PAIRS : ROWS_MAX_CHANNELS;
    if (s->cin == 1 && s->packed.n == 1 && qn__q8_depthwise_fits(w, s->packed.parts)) {
        s->way = QN_Q8_DEPTHWISE;
    } else if (groups == 1 && w->kw > 1 && w->c <= most && w->dw == 1 && w->pl < w->kw &&
               w->pr < w->kw && w->pt < w->kh * w->dh && w->pb < w->kh * w->dh) {
        s->way = QN_Q8_ROWS;
        const size_t kr = s->packed.kernel.kr, one = qn_round_up(w->kw * w->c, kr);
        const size_t two = qn_round_up((w->kw + w->sw) * w->c, kr);
        /* Weights stay in the same pairs. */
        if (w->ow % 2 == 0 && 2 * w->oc <= s->packed.kernel.nr && w->sw * w->c % 2 == 0 &&
            two < 2 * one)
            s->fold = 2;
        const size_t all = w->kw * w->c < GATHER_BYTES ? w->kh * w->kw * w->c : SIZE_MAX;
        s->gathers = s->packed.kernel.pairs != NULL && s->fold == 1 && w->kh > 2 &&
                     all <= GATHER_MAX_K && s->packed.parts <= 1;
        s->packed.ks = s->gathers ? 1 : w->kh;
        s->packed.kc = s->gathers ? qn_round_up(all, kr) : s->fold == 2 ? two : one;
        s->packed.n *= s->fold;
        s->inner.ow /= s->fold;
        s->inner.sw *= s->fold;
        s->inner.oc *= s->fold;
        s->inner.h += w->pt + w->pb;
        s->inner.w += w->pl + w->pr;
        s->inner.kw = 1;
        s->inner.pt = s->inner.pl = s->inner.pb = s->inner.pr = 0;
    }
    s->direct = s->way == QN_Q8_TAPS && s->packed.ks == 1 && w->sh == 1 && w->sw == 1 &&
                w->oh == w->h && w->ow == w->w && w->pt == 0 && w->pl == 0;
    s->packed.ks *= s->packed.parts;
}

/* Pairs of neighbouring weights that cannot leave int16 are counted through a whole filter of
 * height, width and channels. Where a row of it has an odd number of weights, every other row
 * begins inside a pair: it is read from one byte earlier, which meets a weight of zero. */
static __attribute__((cold)) size_t row_shift(const qn_q8_conv *s, size_t y)
{
    const size_t taken = (s->window.kw + (s->fold - 1) * s->window.sw) * s->window.c;
    return s->way == QN_Q8_ROWS && !s->gathers && y % 2 == 1 && taken % 2 == 1 &&
           taken < s->packed.kc;
}

/* [o][i][kh][kw] to [o][ks][kc], or for depthwise (i = 1) to [kh][kw][o]. */
static __attribute__((cold)) void reorder(const qn_q8_conv *s, int8_t *to, const int8_t *values)
{
    const qn_window *const w = &s->window;
    const bool depthwise = s->way == QN_Q8_DEPTHWISE;
    const size_t stride_o = depthwise ? 1 : s->packed.ks * s->packed.kc;
    const size_t stride_x = depthwise ? w->oc : s->cin;
    const size_t stride_y = s->way == QN_Q8_ROWS && !s->gathers ? s->packed.kc : w->kw * stride_x;
    for (size_t f = 0; f < s->fold; f++, to += w->oc * stride_o + w->sw * stride_x) {
        const int8_t *from = values;
        for (size_t o = 0; o < w->oc; o++)
            for (size_t i = 0; i < s->cin; i++)
                for (size_t y = 0; y < w->kh; y++)
                    for (size_t x = 0; x < w->kw; x++)
                        to[o * stride_o + y * stride_y + row_shift(s, y) + x * stride_x + i] =
                            *from++;
    }
}

/* What every output of a fold has. */
static __attribute__((cold)) bool repeat_numbers(const qn_context *ctx, qn_q8_conv *s,
                                                 const qn_requant *requant)
{
    const size_t oc = s->window.oc, all = s->fold * oc;
    if (s->fold == 1)
        return true;
    s->scale = qn__calloc(ctx, all, sizeof(float) + sizeof(int32_t) + sizeof(qn_multiplier));
    if (s->scale == NULL)
        return false;
    s->bias = requant->bias != NULL ? (int32_t *)(void *)(s->scale + all) : NULL;
    s->fixed = requant->fixed != NULL ? (qn_multiplier *)(void *)(s->scale + 2 * all) : NULL;
    for (size_t i = 0; i < all; i++) {
        s->scale[i] = requant->scale[i % oc];
        if (s->fixed != NULL)
            s->fixed[i] = requant->fixed[i % oc];
        if (s->bias != NULL)
            s->bias[i] = requant->bias[i % oc];
    }
    return true;
}

/* The numbers of the columns of the product. */
static qn_requant columns_of(const qn_q8_conv *s, const qn_requant *requant)
{
    qn_requant out = *requant;
    if (s->fold > 1) {
        out.scale = s->scale;
        out.bias = s->bias;
        out.fixed = s->fixed;
    }
    return out;
}

static __attribute__((cold)) qn_status make_taps(const qn_context *ctx, qn_q8_conv *s,
                                                 qn_error *error)
{
    const qn_window *const w = &s->inner;
    s->taps = qn__calloc(ctx, w->kh * w->kw, sizeof *s->taps);
    s->spans = qn__calloc(ctx, w->kw, sizeof *s->spans);
    s->zeros = qn__alloc(ctx, s->packed.kc);
    if (s->taps == NULL || s->spans == NULL || s->zeros == NULL)
        return QN_NOMEM(error);
    qn__tap_spans(w, s->spans);
    memset(s->zeros, s->zero, s->packed.kc);
    for (size_t i = 0; i < w->kh; i++)
        for (size_t j = 0; j < w->kw; j++)
            s->taps[i * w->kw + j] =
                (ptrdiff_t)((i * w->dh * w->w + j * w->dw) * w->c) - (ptrdiff_t)row_shift(s, i);
    return QN_OK;
}

/* Appends `bytes` to the scratch, 64-byte aligned. */
static __attribute__((cold)) bool reserve(qn_step *step, size_t *at, size_t bytes)
{
    *at = step->scratch_bytes;
    return qn_align_size(&bytes, bytes, 64) &&
           qn_add_size(&step->scratch_bytes, step->scratch_bytes, bytes);
}

/* What the last window's rows may end behind the last pixel. */
static size_t slack_bytes(const qn_q8_conv *s)
{
    return s->gathers ? GATHER_BYTES : s->packed.kernel.kr;
}

static __attribute__((cold)) bool reserve_scratch(qn_step *step, qn_q8_conv *s)
{
    const qn_window *const w = &s->window, *const p = &s->inner;
    size_t bytes = 0;
    if (s->way == QN_Q8_ROWS) {
        if (!qn_mul_size(&s->slack_at, p->h, p->w) ||
            !qn_mul_size(&s->slack_at, s->slack_at, p->c) ||
            !qn_mul_size(&s->slack_at, s->slack_at, p->n) ||
            !qn_add_size(&bytes, s->slack_at, QN_Q8_ROWS_FRONT + slack_bytes(s) + w->pl * w->c) ||
            !reserve(step, &s->padded_at, bytes))
            return false;
    }
    if (!qn__q8_buffer_bytes(&bytes, &s->packed, w->n * w->oh * w->ow))
        return false;
    s->has_rows = bytes != 0;
    return reserve(step, &s->rows_at, bytes);
}

/* Those of groups, of which a fold has one, tell folds apart whose weights are repeated at other
 * places (qn__q8_find). */
static __attribute__((cold)) qn_q8_strides strides_of(const qn_q8_conv *s)
{
    const size_t k = s->packed.ks * s->packed.kc;
    return (qn_q8_strides){s->packed.n * k + (s->fold - 1) * s->window.sw, k, s->packed.kc, 1};
}

static __attribute__((cold)) qn_status pack(const qn_plan *plan, qn_step *step, qn_q8_conv *s,
                                            const qn_qparams *x, const qn_qweights *weights,
                                            const qn_requant *requant, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const size_t k = s->packed.ks * s->packed.kc;
    const size_t count = s->window.oc * s->window.kh * s->window.kw * s->cin;
    const size_t parts = s->packed.parts;
    /* Of a 1x1 window the weights lie as they are read. */
    const bool as_they_lie = s->way == QN_Q8_TAPS && s->packed.ks == 1;
    qn_status status;
    int8_t *own, *ordered = NULL;
    const int8_t *values = qn__q8_values(ctx, weights, count, &own);
    if (values != NULL && !as_they_lie)
        ordered = qn__calloc(ctx, s->fold * s->window.oc, k);
    if (values == NULL || (ordered == NULL && !as_they_lie)) {
        qn__free(ctx, own);
        return QN_NOMEM(error);
    }
    if (!as_they_lie) {
        for (size_t i = 0; i < parts; i++)
            reorder(s, ordered + i * (k / parts) * (s->way == QN_Q8_DEPTHWISE ? s->window.oc : 1),
                    values + i * count);
        qn__free(ctx, own);
        values = own = ordered;
    }
    if (s->way == QN_Q8_DEPTHWISE) {
        status = qn__q8_depthwise_prepare(plan, step, values, parts, requant, &s->depthwise, error);
    } else {
        const qn_q8_strides strides = strides_of(s);
        const qn_requant columns = columns_of(s, requant);
        status = qn__q8_pack(plan, step, x, &columns, values, &strides, &s->packed, error);
    }
    qn__free(ctx, own);
    return status;
}

__attribute__((cold)) bool qn__q8_conv_find(const qn_plan *plan, const qn_step *step,
                                            const qn_window *window, size_t groups,
                                            const qn_qparams *x, const qn_requant *requant,
                                            qn_q8_conv *out)
{
    out->window = *window;
    out->zero = qn_q8_zero_byte(x);
    out->packed.kernel = step->kernels->q8_igemm;
    out->packed.parts = 1;
    choose_way(out, groups);
    const qn_q8_strides strides = strides_of(out);
    if (out->way == QN_Q8_DEPTHWISE)
        return qn__q8_depthwise_find(plan, step, window, x, requant, &out->depthwise);
    if (!repeat_numbers(qn__plan_context(plan), out, requant))
        return false;
    const qn_requant columns = columns_of(out, requant);
    return qn__q8_find(plan, step, x, &columns, &strides, &out->packed);
}

__attribute__((cold)) qn_status qn__q8_conv_prepare(const qn_plan *plan, qn_step *step,
                                                    const qn_qparams *x, const qn_qweights *weights,
                                                    const qn_requant *requant, qn_q8_conv *out,
                                                    qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    if (out->fold > 1 && out->scale == NULL)
        return QN_NOMEM(error);
    if (weights->parts > 1) { /* which are not packed ahead */
        out->packed.parts = weights->parts;
        choose_way(out, out->packed.groups);
        out->packed.entry.layout = 0;
        if (out->scale == NULL && !repeat_numbers(ctx, out, requant)) /* no depthwise windows */
            return QN_NOMEM(error);
    }
    if (out->packed.data == NULL && out->depthwise.bias == NULL)
        QN_TRY(pack(plan, step, out, x, weights, requant, error));
    if (out->way == QN_Q8_DEPTHWISE) {
        step->packed_bytes = out->depthwise.entry.bytes;
        step->mapped_bytes = out->depthwise.memory == NULL ? out->depthwise.entry.bytes : 0;
        step->kernel_name = step->kernels->q8_dwconv.name;
    } else {
        step->packed_bytes = out->packed.bytes;
        step->weights = out->packed.data;
        step->mapped_bytes = out->packed.own == NULL ? out->packed.bytes : 0;
        step->kernel_name = out->packed.kernel.name;
        QN_TRY(make_taps(ctx, out, error));
        if (!reserve_scratch(step, out))
            return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    }
    /* QN_Q8_ROWS copies the input anyway and takes it as it lies. */
    if (out->way != QN_Q8_ROWS || out->cin > ANY_LAYOUT_CHANNELS)
        step->in_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    return QN_OK;
}

__attribute__((cold)) void qn__q8_conv_free(const qn_context *ctx, qn_q8_conv *conv)
{
    qn__q8_packed_free(ctx, &conv->packed);
    qn__q8_depthwise_free(ctx, &conv->depthwise);
    qn__free(ctx, conv->scale);
    qn__free(ctx, conv->taps);
    qn__free(ctx, conv->spans);
    qn__free(ctx, conv->zeros);
    *conv = (qn_q8_conv){0};
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct conv_call {
    const qn_q8_conv *s;
    const uint8_t *in; /* what the GEMM reads, channels-last */
} conv_call;

typedef uintptr_t pointers
    __attribute__((vector_size(2 * sizeof(uintptr_t)), aligned(8), may_alias));

/* Output pixel i reads input pixel i. */
static void direct_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const conv_call *const call = job->ctx;
    const size_t c = call->s->window.c;
    qn__q8_spaced_rows(job, call->in + group * call->s->cin + m0 * c, c, mr, a);
}

static void tap_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const conv_call *const call = job->ctx;
    const qn_q8_conv *const s = call->s;
    const qn_window_rows rows = {&s->inner, s->spans, s->zeros, s->inner.c};
    const qn_q8_igemm *const kernel = &job->packed->kernel;
    qn__tap_rows(&rows, call->in + group * s->cin, m0, mr, qn_q8_rows_end(kernel, mr), kernel->mr,
                 a);
}

/* Copies whole windows, of three rows or more, behind the pointers to their first rows, which then
 * point there. */
static void gather(const qn_q8_conv *s, const uint8_t **a, size_t mr, size_t mr_max)
{
    const size_t row = s->window.kw * s->window.c, kh = s->window.kh, kc = s->packed.kc;
    const size_t pitch = (size_t)s->taps[1];
    uint8_t *to = (uint8_t *)(void *)(a + mr_max);
    for (size_t r = 0; r < mr; r++, to += kc) {
        const uint8_t *const from = a[r];
        a[r] = to;
        memcpy(to, from, GATHER_BYTES);
        memcpy(to + row, from + pitch, GATHER_BYTES);
        for (size_t i = 2; i < kh; i++)
            memcpy(to + i * row, from + i * pitch, GATHER_BYTES);
    }
}

/* With QN_Q8_ROWS no tap leaves the buffer: those of the first one, moved. */
static void buffer_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const conv_call *const call = job->ctx;
    const qn_q8_conv *const s = call->s;
    const qn_window *const w = &s->inner;
    const size_t mr_max = job->packed->kernel.mr, step = w->sw * w->c, row = w->sh * w->w * w->c;
    const size_t y = m0 / w->ow;
    size_t ox = m0 - y * w->ow, oy = w->n == 1 ? y : y % w->oh;
    const uint8_t *at = call->in + y / w->oh * w->h * w->w * w->c + oy * row;
    (void)group; /* there is one */
    for (size_t r = 0, n; r < mr; r += n) {
        n = mr - r < w->ow - ox ? mr - r : w->ow - ox;
        qn__spaced_rows(a + r, at + ox * step, step, n);
        ox = 0;
        at += row;
        if (++oy == w->oh) {
            oy = 0;
            at += (ptrdiff_t)(w->h * w->w * w->c) - (ptrdiff_t)(w->oh * row);
        }
    }
    const size_t end = qn_q8_rows_end(&job->packed->kernel, mr);
    if (s->gathers)
        gather(s, a, mr, mr_max);
    qn__repeat_last(a, 1, mr, end, mr_max);
    for (size_t p = 1; p < job->packed->taps; p++) {
        const uintptr_t tap = (uintptr_t)s->taps[p];
        pointers *const to = (pointers *)(void *)(a + p * mr_max);
        const pointers *const from = (const pointers *)(void *)a;
#pragma GCC unroll 4
        for (size_t r = 0; r < end / 2; r++)
            to[r] = from[r] + tap;
    }
}

typedef struct pad_call {
    const qn_window *from, *to;
    const uint8_t *in;
    uint8_t *out;
    uint8_t zero;
    bool channels_last;
} pad_call;

/* One row of the padded buffer, from its first pixel to that of the next row: what pads the two is
 * written at once. */
static void pad_row(void *arg, size_t index)
{
    const pad_call *const call = arg;
    const qn_window *const w = call->from;
    const size_t c = w->c, image = w->n == 1 ? 0 : index / call->to->h;
    const size_t y = index - image * call->to->h;
    uint8_t *const out = call->out + (index * call->to->w + w->pl) * c;
    if (y < w->pt || y - w->pt >= w->h) {
        memset(out, call->zero, call->to->w * c);
        return;
    }
    if (call->channels_last || c == 1) {
        memcpy(out, call->in + (image * w->h + y - w->pt) * w->w * c, w->w * c);
    } else {
        const size_t plane = w->h * w->w;
        const uint8_t *const in = call->in + image * c * plane + (y - w->pt) * w->w;
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
    memset(out + w->w * c, call->zero, (w->pr + w->pl) * c);
}

void qn__q8_conv_run(const qn_q8_conv *s, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, const qn_requant *requant)
{
    const qn_window *const w = &s->window;
    uint8_t *const scratch = env->scratch;
    const uint8_t *x = in->data;
    if (out->count == 0)
        return;
    if (s->way == QN_Q8_DEPTHWISE) {
        qn__q8_depthwise_run(&s->depthwise, x, out->data, env->pool);
        return;
    }
    if (s->way == QN_Q8_ROWS) {
        uint8_t *const padded = scratch + s->padded_at + QN_Q8_ROWS_FRONT;
        memset(padded - QN_Q8_ROWS_FRONT, s->zero, QN_Q8_ROWS_FRONT + w->pl * w->c);
        pad_call pad = {w, &s->inner, x, padded, s->zero, in->layout == QN_LAYOUT_CHANNELS_LAST};
        qn__parallel(env->pool, pad_row, &pad, w->n * s->inner.h);
        memset(padded + s->slack_at, s->zero, slack_bytes(s));
        x = padded;
    }
    const conv_call call = {s, x};
    const qn_requant columns = columns_of(s, requant);
    const qn_q8_job job = {
        .packed = &s->packed,
        .m = w->n * w->oh * s->inner.ow,
        .c = out->data,
        .c_stride = out->pitch != 0 ? out->pitch : s->inner.oc,
        .c_group = s->packed.n,
        .out = qn__q8_format(requant),
        .fixed = qn_q8_by_fixed_of(&columns),
        .rows = s->direct              ? direct_rows
                : s->way == QN_Q8_ROWS ? buffer_rows
                                       : tap_rows,
        .ctx = &call,
        .run = s->way == QN_Q8_ROWS ? s->inner.ow : 0,
        .ahead = env->ahead,
        .ahead_bytes = env->ahead_bytes,
        .row_buffer = s->has_rows ? (const uint8_t **)(void *)(scratch + s->rows_at) : NULL,
    };
    qn__q8_run(&job, env->pool);
}
