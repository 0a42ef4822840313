/* Quantized convolution in real integers: preparing. */
#include "run/ops/q8_conv.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "run/nd.h"

#include <string.h>

/* Up to this many channels a row of taps is taken at once, from a padded copy: single taps are
 * short for the GEMM's inner loop. Kernels that pair groups of k pair them within a tap, and find
 * most pairs anyway where there are many, unless a window is one tap. With few channels the input
 * may lie as it likes: it is copied value by value. */
enum { ROWS_MAX_CHANNELS = 256, ROWS_MAX_CHANNELS_PAIRS = 64, ANY_LAYOUT_CHANNELS = 8 };

/* The copy. Where it is too large sizes are of no use, which reserve_scratch tells. */
static __attribute__((cold)) void lay_out(qn_q8_conv *s)
{
    const qn_window *const w = &s->window;
    qn_q8_padded *const p = &s->copy;
    const size_t joined = QN_Q8_JOINED + QN_Q8_VECTOR;
    /* A row may be read from one byte earlier; tails QN_Q8_JOINED at a time. */
    p->front = qn_round_up(w->pl * w->c + 1, QN_Q8_VECTOR);
    p->back =
        qn_round_up(w->pr * w->c + (s->tail > 0 ? joined : s->packed.kernel.kr), QN_Q8_VECTOR);
    p->pitch = p->front + qn_round_up(w->w * w->c, QN_Q8_VECTOR) + p->back;
    p->rows = w->sh < s->inner.h ? w->sh : s->inner.h;
    p->tails_at = p->rows * p->pitch;
    p->block = p->tails_at;
    if (s->tail > 0)
        p->block += qn_round_up(p->front + w->ow * w->sw * w->c + joined, QN_Q8_VECTOR);
    p->blocks = qn_div_up(s->inner.h, w->sh);
    p->top = w->pt;
    p->h = w->h;
    p->all = s->inner.h;
    p->row = w->w * w->c;
    p->before = qn_round_up(w->pl * w->c, QN_Q8_VECTOR);
    p->behind = qn_round_up(w->pr * w->c, QN_Q8_VECTOR);
}

/* From a window's first row to row y. */
static size_t row_at(const qn_q8_conv *s, size_t y)
{
    y *= s->window.dh;
    return y / s->window.sh * s->copy.block + y % s->window.sh * s->copy.pitch;
}

/* Makes a window one tap, if distances within it fit the kernel's tables. */
static __attribute__((cold)) void spread(qn_q8_conv *s)
{
    const qn_window *const w = &s->window;
    const size_t kr = s->packed.kernel.kr, row = w->kw * w->c, tail = row % kr, step = w->sw * w->c;
    const size_t whole = w->kh * qn_round_up(row, kr), split = w->kh * (row - tail);
    size_t kc = whole;
    if (w->kh == QN_Q8_TAIL_ROWS && w->kh * tail <= step && QN_Q8_JOINED % step == 0 &&
        qn_round_up(split + w->kh * tail, kr) < whole) {
        s->tail = tail;
        kc = qn_round_up(split + w->kh * tail, kr);
        lay_out(s);
    }
    s->spread = kc <= QN_Q8_PAIRS_K && row_at(s, w->kh - 1) + s->copy.block + row <= UINT16_MAX;
    if (s->spread) {
        s->packed.ks = 1;
        s->packed.kc = kc;
    } else {
        s->tail = 0;
        lay_out(s);
    }
}

static __attribute__((cold)) void take_taps(qn_q8_conv *s, size_t groups)
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
    s->spread = false;
    s->tail = 0;
}

static __attribute__((cold)) void choose_way(qn_q8_conv *s, size_t groups)
{
    const qn_window *const w = &s->window;
    const bool pairs = s->packed.kernel.pairs != NULL;
    take_taps(s, groups);
    if (s->cin == 1 && s->packed.n == 1 && qn__q8_depthwise_fits(w, s->packed.parts)) {
        s->way = QN_Q8_DEPTHWISE;
    } else if (groups == 1 && w->kw > 1 && w->c <= ROWS_MAX_CHANNELS && w->dw == 1 &&
               w->pl < w->kw && w->pr < w->kw && w->pt < w->kh * w->dh && w->pb < w->kh * w->dh) {
        s->way = QN_Q8_ROWS;
        const size_t kr = s->packed.kernel.kr, one = qn_round_up(w->kw * w->c, kr);
        const size_t two = qn_round_up((w->kw + w->sw) * w->c, kr);
        /* Weights stay in the same pairs. */
        if (w->ow % 2 == 0 && 2 * w->oc <= s->packed.kernel.nr && w->sw * w->c % 2 == 0 &&
            two < 2 * one)
            s->fold = 2;
        s->packed.ks = w->kh;
        s->packed.kc = s->fold == 2 ? two : one;
        s->packed.n *= s->fold;
        s->inner.ow /= s->fold;
        s->inner.sw *= s->fold;
        s->inner.oc *= s->fold;
        s->inner.h += w->pt + w->pb;
        s->inner.w += w->pl + w->pr;
        s->inner.kw = 1;
        s->inner.pt = s->inner.pl = s->inner.pb = s->inner.pr = 0;
        lay_out(s);
        if (pairs && s->fold == 1)
            spread(s);
        if (pairs && !s->spread && w->c > ROWS_MAX_CHANNELS_PAIRS)
            take_taps(s, groups);
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
    return s->way == QN_Q8_ROWS && s->tail == 0 && y % 2 == 1 && taken % 2 == 1 &&
           taken % s->packed.kernel.kr != 0;
}

/* With tails, for the same reason: those of such rows are their first bytes. */
static bool tail_is_first(const qn_q8_conv *s, size_t y)
{
    return y % 2 == 1 && s->tail % 2 == 1;
}

/* Where value j of row y of a window is in the packed order: behind whole groups, or there. */
static __attribute__((cold)) size_t split_place(const qn_q8_conv *s, size_t y, size_t j)
{
    const qn_window *const w = &s->window;
    const size_t whole = w->kw * w->c - s->tail, first = tail_is_first(s, y) ? s->tail : 0;
    if (j >= first && j < first + whole)
        return y * whole + j - first;
    return w->kh * whole + y * s->tail + (first > 0 ? j : j - whole);
}

/* [o][i][kh][kw] to [o][ks][kc], or for depthwise (i = 1) to [kh][kw][o]. */
static __attribute__((cold)) void reorder(const qn_q8_conv *s, int8_t *to, const int8_t *values)
{
    const qn_window *const w = &s->window;
    const bool depthwise = s->way == QN_Q8_DEPTHWISE;
    const size_t stride_o = depthwise ? 1 : s->packed.ks * s->packed.kc;
    const size_t stride_x = depthwise ? w->oc : s->cin;
    const size_t stride_y = s->way != QN_Q8_ROWS ? w->kw * stride_x
                            : s->spread          ? s->packed.kc / w->kh
                                                 : s->packed.kc;
    for (size_t f = 0; f < s->fold; f++, to += w->oc * stride_o + w->sw * s->cin) {
        const int8_t *from = values;
        for (size_t o = 0; o < w->oc; o++)
            for (size_t i = 0; i < s->cin; i++)
                for (size_t y = 0; y < w->kh; y++)
                    for (size_t x = 0; x < w->kw; x++)
                        to[o * stride_o + (s->tail > 0 ? split_place(s, y, x * s->cin + i)
                                                       : y * stride_y + row_shift(s, y) +
                                                             x * stride_x + i)] = *from++;
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
            s->taps[i * w->kw + j] = s->way == QN_Q8_ROWS
                                         ? (ptrdiff_t)row_at(s, i) - (ptrdiff_t)row_shift(s, i)
                                         : (ptrdiff_t)((i * w->dh * w->w + j * w->dw) * w->c);
    return QN_OK;
}

/* Appends `bytes` to the scratch, 64-byte aligned. */
static __attribute__((cold)) bool reserve(qn_step *step, size_t *at, size_t bytes)
{
    *at = step->scratch_bytes;
    return qn_align_size(&bytes, bytes, 64) &&
           qn_add_size(&step->scratch_bytes, step->scratch_bytes, bytes);
}

/* How many rows of outputs the stack has room for the copy of. 0: too few, or there are sums, or
 * weights are so many that they should be read once. */
static __attribute__((cold)) void choose_band(qn_q8_conv *s, bool by_fixed)
{
    const qn_window *const w = &s->window;
    const size_t fit = QN_Q8_BAND_BYTES / s->copy.block;
    s->more = ((w->kh - 1) * w->dh + w->sh) / w->sh - 1;
    s->band = fit > s->more ? fit - s->more : 0;
    s->band = s->band < w->oh ? s->band : w->oh;
    if ((s->band < w->oh && s->band < 4 * s->more) || s->has_rows || by_fixed ||
        s->packed.bytes > QN_Q8_BAND_WEIGHTS)
        s->band = 0;
}

static __attribute__((cold)) bool reserve_scratch(qn_step *step, qn_q8_conv *s, bool by_fixed)
{
    const qn_window *const w = &s->window;
    const qn_q8_padded *const p = &s->copy;
    size_t bytes = 0;
    if (!qn__q8_buffer_bytes(&bytes, &s->packed, w->n * w->oh * w->ow))
        return false;
    s->has_rows = bytes != 0;
    if (!reserve(step, &s->rows_at, bytes))
        return false;
    if (s->way != QN_Q8_ROWS)
        return true;
    if (!qn_mul_size(&bytes, p->rows, p->pitch) ||
        !qn_add_size(&bytes, bytes, p->block - p->tails_at) ||
        !qn_mul_size(&bytes, bytes, p->blocks) || !qn_mul_size(&bytes, bytes, w->n))
        return false;
    choose_band(s, by_fixed);
    return s->band > 0 || reserve(step, &s->padded_at, bytes);
}

/* Those of groups, of which a fold has one, tell folds apart whose weights are repeated at other
 * places (qn__q8_find); those of taps, of which there is one, orders of a window that is one. */
static __attribute__((cold)) qn_q8_strides strides_of(const qn_q8_conv *s)
{
    const size_t k = s->packed.ks * s->packed.kc;
    return (qn_q8_strides){s->packed.n * k + (s->fold - 1) * s->window.sw, k,
                           s->spread && s->packed.ks == 1 ? k + 1 + s->tail : s->packed.kc, 1};
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
        status = qn__q8_depthwise_prepare(plan, step, values, requant, &s->depthwise, error);
    } else {
        const qn_q8_strides strides = strides_of(s);
        const qn_requant columns = qn_q8_conv_columns(s, requant);
        status = qn__q8_pack(plan, step, x, &columns, values, &strides, &s->packed, error);
    }
    qn__free(ctx, own);
    return status;
}

/* Distances of groups in the copy, in place of those in the order they were packed from; weights of
 * a model file are copied for it. */
static __attribute__((cold)) qn_status set_distances(const qn_context *ctx, qn_q8_conv *s,
                                                     qn_error *error)
{
    qn_q8_packed *const p = &s->packed;
    const size_t row = s->window.kw * s->window.c - s->tail, groups = p->kc / p->kernel.kr;
    const size_t of_row = qn_div_up(row, p->kernel.kr);
    if (p->own == NULL) {
        p->own = qn__alloc_aligned(ctx, p->bytes);
        if (p->own == NULL)
            return QN_NOMEM(error);
        memcpy(p->own, p->data, p->bytes);
        p->data = p->own;
    }
    for (size_t at = p->kernel.nr * (sizeof(int32_t) + sizeof(float) + p->ks * p->kc);
         at < p->bytes; at += p->panel_bytes) {
        for (size_t i = 0; i < p->ks * (1 + groups); i++) {
            uint16_t *const distance = (uint16_t *)(void *)(p->own + at) + i;
            if (i % (1 + groups) == 0) /* a number of pairs */
                continue;
            const size_t k = *distance, y = k / p->kernel.kr / of_row;
            size_t to = s->copy.tails_at + k - QN_Q8_TAIL_ROWS * row;
            if (y < s->window.kh)
                to = row_at(s, y) - row_shift(s, y) + (tail_is_first(s, y) ? s->tail : 0) + k -
                     y * of_row * p->kernel.kr;
            *distance = (uint16_t)to;
        }
    }
    return QN_OK;
}

/* Which bytes of a row of tails, by their place from a whole number of steps on, are of row y, and
 * where they come from. */
static __attribute__((cold)) void make_masks(qn_q8_conv *s)
{
    const size_t step = s->window.sw * s->window.c;
    for (size_t i = 0; i < QN_Q8_JOINED; i++)
        for (size_t y = 0; y < QN_Q8_TAIL_ROWS; y++)
            s->masks[y][i] = i % step / s->tail == y ? 0xff : 0;
    for (size_t y = 0; y < QN_Q8_TAIL_ROWS; y++)
        s->tails[y] =
            (ptrdiff_t)(row_at(s, y) +
                        (tail_is_first(s, y) ? 0 : s->window.kw * s->window.c - s->tail)) -
            (ptrdiff_t)(y * s->tail);
}

__attribute__((cold)) bool qn__q8_conv_find(const qn_plan *plan, const qn_step *step,
                                            const qn_window *window, size_t groups,
                                            const qn_qparams *x, const qn_requant *requant,
                                            size_t parts, uint64_t salt, qn_q8_conv *out)
{
    qn__q8_conv_free(qn__plan_context(plan), out);
    out->window = *window;
    out->zero = qn_q8_zero_byte(x);
    out->flip = 0;
    out->packed.kernel = step->kernels->q8_igemm;
    out->packed.parts = parts;
    out->packed.salt = salt;
    choose_way(out, groups);
    const qn_q8_strides strides = strides_of(out);
    if (out->way == QN_Q8_DEPTHWISE)
        return qn__q8_depthwise_find(plan, step, &out->window, x, requant, parts, salt,
                                     &out->depthwise);
    if (!repeat_numbers(qn__plan_context(plan), out, requant))
        return false;
    const qn_requant columns = qn_q8_conv_columns(out, requant);
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
    if (out->packed.data == NULL && out->depthwise.bias == NULL)
        QN_TRY(pack(plan, step, out, x, weights, requant, error));
    if (out->way == QN_Q8_DEPTHWISE) {
        step->packed_bytes = out->depthwise.entry.bytes;
        step->mapped_bytes = out->depthwise.memory == NULL ? out->depthwise.entry.bytes : 0;
        step->kernel_name = step->kernels->q8_dwconv.name;
    } else {
        /* What is copied anyway is flipped then. */
        if (out->way == QN_Q8_ROWS) {
            out->flip = out->packed.flip;
            out->packed.flip = 0;
        }
        if (out->spread)
            QN_TRY(set_distances(ctx, out, error));
        if (out->tail > 0)
            make_masks(out);
        step->packed_bytes = out->packed.bytes;
        step->weights = out->packed.data;
        step->mapped_bytes = out->packed.own == NULL ? out->packed.bytes : 0;
        step->kernel_name = out->packed.kernel.name;
        QN_TRY(make_taps(ctx, out, error));
        if (!reserve_scratch(step, out, requant->fixed != NULL))
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
