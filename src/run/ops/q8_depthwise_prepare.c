/* Preparing depthwise convolution: how much of a picture is taken at once, and its weights. */
#include "run/ops/q8_depthwise_sizes.h"

#include "core/alloc.h"
#include "core/checked.h"

/* Bytes of rows in place that the second level gives at once. */
enum { SMALL = 128 << 10 };
/* More channels than this are not taken at once where rows are long, and fewer never. */
enum { MANY_CHANNELS = 256, MIN_CHANNELS = 16, FOLD_MOST = 16 };
/* Sums of products of so many taps stay below 2^22. */
enum { SHORT_TAPS = 128 };

/* Of what model files hold: numbers as qn_q8_depthwise says, behind each other. */
enum { QN_Q8_DWCONV_LAYOUT_VERSION = 1 };

/* Bytes of a copied row for n outputs of c channels. */
static size_t row_bytes(const qn_window *w, size_t phases, size_t n, size_t c)
{
    return qn_round_up(qn_round_up(qn_q8_dw_columns(w, n), phases) * c, QN_Q8_DW_ALIGN);
}

__attribute__((cold)) bool qn__q8_depthwise_fits(const qn_window *w, size_t parts)
{
    size_t extent, bytes;
    const size_t c = w->c < MIN_CHANNELS ? w->c : MIN_CHANNELS;
    return w->kh <= QN_Q8_DW_TAPS / parts && w->kw <= QN_Q8_DW_TAPS && w->kh > 0 && w->kw > 0 &&
           w->ow > 0 && w->oc == w->c && qn_mul_size(&extent, w->kw - 1, w->dw) &&
           extent < QN_Q8_DW_ROOM && w->sw < QN_Q8_DW_ROOM &&
           qn_mul_size(&bytes, qn_round_up(extent + w->sw, w->sw) * c + QN_Q8_DW_ALIGN, w->kh) &&
           bytes <= QN_Q8_DW_ROOM;
}

/* As many pixels as make whole blocks of channels with the fewest blocks per row. */
static __attribute__((cold)) size_t fold_of(const qn_window *w, size_t block)
{
    size_t best = 1, least = SIZE_MAX;
    /* Parts of a row must have room for some pixels of all channels. */
    const size_t x = w->ow < 2 * FOLD_MOST ? w->ow : 2 * FOLD_MOST;
    if (w->c >= block || w->dh >= QN_Q8_DW_SLOTS ||
        row_bytes(w, w->sw, x, w->c) * ((w->kh - 1) * w->dh + 1) > QN_Q8_DW_ROOM)
        return 1;
    for (size_t f = 1; f <= FOLD_MOST && f <= w->ow; f++) {
        const size_t blocks = qn_div_up(w->ow, f) * qn_div_up(f * w->c, block);
        if (f * w->c >= block && blocks < least) {
            best = f;
            least = blocks;
        }
    }
    return best;
}

/* Whether so many copied rows have no room. */
static __attribute__((cold, noinline)) bool is_much(const qn_q8_depthwise *d, size_t rows)
{
    return rows * row_bytes(&d->window, d->phases, d->part_x, d->part_c) > QN_Q8_DW_ROOM;
}

/* How much is copied and computed at once. */
static __attribute__((cold)) void choose_parts(qn_q8_depthwise *d)
{
    const qn_window *const w = &d->window;
    size_t tall = w->dh < QN_Q8_DW_SLOTS ? (w->kh - 1) * w->dh + 1 : SIZE_MAX;
    d->part_c = w->c;
    d->part_x = w->ow < QN_Q8_DW_ROOM ? w->ow : QN_Q8_DW_ROOM;
    d->ring = tall <= QN_Q8_DW_SLOTS;
    if (!d->ring)
        tall = w->kh;
    while (d->part_c > MANY_CHANNELS && is_much(d, 2 * tall))
        d->part_c = qn_round_up(d->part_c / 2, QN_Q8_DW_ALIGN);
    while (d->part_x > 1 && is_much(d, tall))
        d->part_x = (d->part_x + 1) / 2;
    if (is_much(d, tall)) { /* one window is too much: no rows stay */
        d->ring = false;
        tall = w->kh;
    }
    while (d->part_c > MIN_CHANNELS && is_much(d, tall))
        d->part_c = qn_round_up(d->part_c / 2, MIN_CHANNELS);
    d->slots = tall;
    d->rows = 1;
    while (d->ring && d->rows < QN_Q8_DW_ROWS && d->slots + w->sh <= QN_Q8_DW_SLOTS &&
           !is_much(d, d->slots + w->sh)) {
        d->slots += w->sh;
        d->rows++;
    }
}

/* As many rows in place as the first level holds; where these are too few, what the second one
 * gives at once. */
static __attribute__((cold)) void choose_rows(qn_q8_depthwise *d)
{
    const qn_window *const w = &d->window;
    const size_t bytes = w->sh * w->w * w->c;
    const size_t room = QN_Q8_DW_ROOM / bytes < QN_Q8_DW_ROWS ? SMALL : QN_Q8_DW_ROOM,
                 fit = room / bytes;
    d->most_rows = fit < QN_Q8_DW_ROWS         ? QN_Q8_DW_ROWS
                   : fit < QN_Q8_DW_SMALL_ROWS ? fit
                                               : QN_Q8_DW_SMALL_ROWS;
    d->picture_rows = w->oh > 0 ? qn_q8_dw_even_rows(d, w->oh) : 0;
}

/* Everything but what files hold; false: too large, or no memory. */
static __attribute__((cold)) bool begin(const qn_context *ctx, const qn_window *window,
                                        const qn_kernels *kernels, const qn_qparams *x,
                                        const qn_requant *requant, size_t parts,
                                        qn_q8_depthwise *out)
{
    const size_t c = window->c;
    *out = (qn_q8_depthwise){.window = *window,
                             .kernel = kernels->q8_dwconv,
                             .format = qn__q8_format(requant),
                             .flip = x->dtype == QN_DTYPE_I8 ? 0x80 : 0,
                             .zero = qn_q8_zero_byte(x),
                             .parts = parts};
    const ptrdiff_t after =
        (ptrdiff_t)qn_q8_dw_columns(window, window->ow) - (ptrdiff_t)(window->pl + window->w);
    out->fixed = qn_q8_by_fixed_of(requant);
    /* The same for all kernels of the form that files hold. */
    const bool whole =
        out->flip == 0 && c >= out->kernel.least && window->kh == 3 && window->kw == 3 &&
        window->dh == 1 && window->dw == 1 && window->sw <= 2 && window->pl <= 1 && after <= 1 &&
        window->w * c <= QN_Q8_DW_ROOM &&
        (requant->fixed == NULL ||
         window->ow * qn_q8_sums_stride(qn_q8_dw_fixed_channels(out, c)) <= QN_Q8_SUMS);
    /* Kernels with edges have no windows of weights in parts. */
    out->in_place = out->kernel.edges && whole && parts == 1;
    out->right = after == 1;
    if (out->in_place)
        choose_rows(out);
    out->fold = whole ? 1 : fold_of(window, out->kernel.block);
    out->phases = out->fold > 1 ? window->sw : 1;
    choose_parts(out);
    if (requant->fixed != NULL) {
        out->fixed.columns = out->multipliers =
            qn__calloc(ctx, out->fold * c, sizeof *out->multipliers);
        for (size_t i = 0; out->multipliers != NULL && i < out->fold * c; i++)
            out->multipliers[i] = requant->fixed[i % c];
        if (out->multipliers == NULL)
            return false;
    }
    out->format.small_scales = true;
    for (size_t i = 0; i < c; i++)
        out->format.small_scales &= requant->scale[i] > -1.0f && requant->scale[i] < 1.0f;
    return qn_mul_size(&out->entry.bytes, out->fold * c,
                       parts * window->kh * window->kw + sizeof(int32_t) + sizeof(float));
}

static void set_numbers(qn_q8_depthwise *d, const void *memory)
{
    const size_t all = d->fold * d->window.c;
    d->bias = memory;
    d->scale = (const float *)(d->bias + all);
    d->weights = (const int8_t *)(d->scale + all);
    d->format.short_sums = d->parts * d->window.kh * d->window.kw <= SHORT_TAPS;
    for (size_t i = 0; i < all; i++)
        d->format.short_sums &=
            d->scale[i] > 0.0f && d->bias[i] >= -(1 << 22) && d->bias[i] <= 1 << 22;
}

__attribute__((cold)) bool qn__q8_depthwise_find(const qn_plan *plan, const qn_step *step,
                                                 const qn_window *window, const qn_qparams *x,
                                                 const qn_requant *requant, size_t parts,
                                                 uint64_t salt, qn_q8_depthwise *out)
{
    const size_t numbers[] = {window->c, 1, window->kh, window->kw};
    if (!begin(qn__plan_context(plan), window, step->kernels, x, requant, parts, out))
        return false;
    out->entry.layout =
        qn_packing_id(QN_PACKED_Q8_DWCONV, QN_Q8_DWCONV_LAYOUT_VERSION, 0, out->fold);
    if (!qn__q8_look_up(plan, step, x, requant, numbers, sizeof(numbers) / sizeof(numbers[0]), salt,
                        &out->entry))
        return false;
    set_numbers(out, out->entry.data);
    return true;
}

__attribute__((cold)) qn_status qn__q8_depthwise_prepare(const qn_plan *plan, const qn_step *step,
                                                         const int8_t *weights,
                                                         const qn_requant *requant,
                                                         qn_q8_depthwise *out, qn_error *error)
{
    const size_t c = out->window.c, all = out->fold * c;
    const size_t taps = out->parts * out->window.kh * out->window.kw;
    if (out->entry.bytes == 0)
        return QN_NOMEM(error);
    int32_t *const bias = out->memory = qn__alloc(qn__plan_context(plan), out->entry.bytes);
    if (bias == NULL)
        return QN_NOMEM(error);
    float *const scale = (float *)(bias + all);
    int8_t *const to = (int8_t *)(scale + all);
    const uint32_t zero = out->zero ^ out->flip;
    for (size_t i = 0; i < all; i++) {
        uint32_t sum = 0;
        for (size_t t = 0; t < taps; t++) {
            to[t * all + i] = weights[t * c + i % c];
            sum += (uint32_t)weights[t * c + i % c];
        }
        bias[i] =
            (int32_t)((requant->bias != NULL ? (uint32_t)requant->bias[i % c] : 0) - zero * sum);
        scale[i] = requant->scale[i % c];
    }
    set_numbers(out, bias);
    out->entry.data = out->memory;
    return qn__prepacked_keep(plan, step, &out->entry, error);
}

__attribute__((cold)) void qn__q8_depthwise_free(const qn_context *ctx, qn_q8_depthwise *depthwise)
{
    qn__free(ctx, depthwise->memory);
    qn__free(ctx, depthwise->multipliers);
    depthwise->memory = NULL;
    depthwise->multipliers = NULL;
}
