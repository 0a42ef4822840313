/* Where the kernel knows about the left and the right edge it reads the input in place. Elsewhere
 * rows of input that windows need are copied to the stack with their padding, so that kernels see
 * whole windows only; they stay there while rows of outputs follow each other. The copy also makes
 * bytes unsigned. Where pixels are short, several are one pixel of more channels for the kernel:
 * weights are repeated, and with strides the columns of a row are put apart by their remainder. */
#include "run/ops/q8_depthwise_sizes.h"

#include <string.h>

enum { TASKS_PER_THREAD = 4 };
/* Fewer rows are no task of their own where none are copied. */
enum { MIN_ROWS = 3 };

typedef struct depthwise_call {
    const qn_q8_depthwise *d;
    const uint8_t *in;
    uint8_t *out;
    size_t rows, tasks, shares; /* rows: n * oh; shares of the channels */
} depthwise_call;

/* Outputs [x0, x1) of channels [c0, c0 + c) of an image. */
typedef struct part {
    const uint8_t *in;
    uint8_t *out; /* of the row that is written next */
    size_t x0, x1, c0, c;
    size_t row_bytes, phase_bytes, phase_columns;
    size_t lo, hi; /* of one phase: pixels inside the row */
} part;

typedef uint8_t bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

/* n pixels of up to `vectors` times 16 bytes (a constant after inlining); reads and writes whole
 * vectors. */
static inline __attribute__((always_inline)) void copy_vectors(uint8_t *to, const uint8_t *from,
                                                               size_t n, size_t c, size_t step,
                                                               const size_t vectors)
{
    for (; n > 0; n--, to += c, from += step)
#pragma GCC unroll 2
        for (size_t i = 0; i < vectors; i++)
            *(bytes16 *)(to + 16 * i) = *(const bytes16 *)(from + 16 * i);
}

/* n pixels of c bytes; nothing is read or written behind them: another row may lie there. */
static void copy_pixels(uint8_t *to, const uint8_t *from, size_t n, size_t c, size_t step)
{
    size_t done = 0;
    if (step == c) {
        memcpy(to, from, n * c);
        return;
    }
    if (n > 1 && c <= 32 && qn_round_up(c, 16) <= step) {
        for (done = n - 1; done > 0 && (n - done + 1) * c < 16;)
            done--;
        if (c <= 16)
            copy_vectors(to, from, done, c, step, 1);
        else
            copy_vectors(to, from, done, c, step, 2);
    }
    for (; done < n; done++)
        memcpy(to + done * c, from + done * step, c);
}

/* Pixels of one of s phases among n columns, rounded up. */
static inline ptrdiff_t phases_of(ptrdiff_t n, ptrdiff_t s)
{
    return s == 1 ? n : s == 2 ? (n + 1) / 2 : (n + s - 1) / s; /* divisions take their time */
}

/* Pixels of a phase of a part's rows: i is column first + i * phases, inside the row from lo to hi.
 */
static ptrdiff_t span_of(const qn_q8_depthwise *d, const part *p, size_t phase, size_t *lo,
                         size_t *hi)
{
    const qn_window *const w = &d->window;
    const ptrdiff_t s = (ptrdiff_t)d->phases, width = (ptrdiff_t)w->w;
    const ptrdiff_t n = (ptrdiff_t)p->phase_columns;
    const ptrdiff_t first = (ptrdiff_t)(p->x0 * w->sw) - (ptrdiff_t)w->pl + (ptrdiff_t)phase;
    const ptrdiff_t from = first < 0 ? phases_of(-first, s) : 0;
    const ptrdiff_t to = first < width ? phases_of(width - first, s) : 0;
    *lo = (size_t)(from < n ? from : n);
    *hi = (size_t)(to < n ? to : n);
    *hi = *hi > *lo ? *hi : *lo;
    return first;
}

/* first: the column of pixel 0; before the row it is huge. */
static void copy_phase(const qn_q8_depthwise *d, const part *p, const uint8_t *row, size_t first,
                       size_t lo, size_t hi, uint8_t *to)
{
    const size_t before = lo * p->c, end = p->phase_columns * p->c, behind = end - hi * p->c;
    if (before > sizeof(bytes16) || behind > sizeof(bytes16) || end < sizeof(bytes16)) {
        memset(to, d->zero, before);
        memset(to + hi * p->c, d->zero, behind);
    } else { /* pixels overwrite what is too much */
        *(bytes16 *)to = *(bytes16 *)(to + end - sizeof(bytes16)) = (bytes16){0} + d->zero;
    }
    if (hi > lo)
        copy_pixels(to + before, row + (first + lo * d->phases) * d->window.c, hi - lo, p->c,
                    d->phases * d->window.c);
}

/* Row y, which may lie in the padding, as windows from output x0 on see it. */
static void copy_row(const qn_q8_depthwise *d, const part *p, ptrdiff_t y, uint8_t *to)
{
    const qn_window *const w = &d->window;
    if (y < 0 || y >= (ptrdiff_t)w->h) {
        memset(to, d->zero ^ d->flip, p->row_bytes);
        return;
    }
    const uint8_t *const row = p->in + (size_t)y * w->w * w->c + p->c0;
    if (d->phases == 1) {
        copy_phase(d, p, row, p->x0 * w->sw - w->pl, p->lo, p->hi, to);
    } else {
        uint8_t *at = to;
        for (size_t phase = 0; phase < d->phases; phase++, at += p->phase_bytes) {
            size_t lo, hi;
            const ptrdiff_t first = span_of(d, p, phase, &lo, &hi);
            copy_phase(d, p, row, (size_t)first, lo, hi, at);
        }
    }
    if (d->flip != 0)
        for (size_t i = 0; i < p->row_bytes; i += QN_Q8_DW_ALIGN)
            for (size_t j = i; j < i + QN_Q8_DW_ALIGN; j++)
                to[j] ^= 0x80;
}

typedef struct fixed_room {
    _Alignas(QN_Q8_DW_ALIGN) int32_t sums[QN_Q8_SUMS + QN_Q8_FIXED_OVER];
    const uint8_t *in[QN_Q8_DW_ROWS * QN_Q8_DW_TAPS];
} fixed_room;

/* Bytes made of sums, part by part. Where windows have edges rows of outputs are whole. */
static __attribute__((noinline)) void call_in_parts(const qn_q8_depthwise *d,
                                                    const qn_q8_dwconv_args *all, fixed_room *room)
{
    const size_t c = qn_q8_dw_fixed_channels(d, all->channels), step = qn_q8_sums_stride(c);
    const size_t fit = QN_Q8_SUMS / step, most_x = all->n < fit ? all->n : fit;
    qn_q8_dwconv_args args = *all;
    args.in = room->in;
    args.channels = c;
    args.out = room->sums;
    args.out_step = step;
    args.format.is_float = args.format.is_sums = true;
    for (size_t c0 = 0; c0 < all->channels; c0 += c) {
        if (all->channels - c0 < c) /* the last ones overlap the ones before */
            c0 = all->channels - c;
        args.w = all->w + c0;
        args.bias = all->bias + c0;
        args.scale = all->scale + c0;
        for (size_t y = 0; y < all->rows; y += args.rows)
            for (size_t x = 0; x < all->n; x += args.n) {
                uint8_t *to = (uint8_t *)all->out + y * all->out_row + x * all->out_step + c0;
                args.n = all->n - x < most_x ? all->n - x : most_x;
                args.rows = all->rows - y < fit / most_x ? all->rows - y : fit / most_x;
                args.out_row = args.n * step;
                for (size_t i = 0; i < args.rows * args.kh; i++)
                    room->in[i] = all->in[y * args.kh + i] + x * args.in_step + c0;
                d->kernel.fn(&args);
                for (size_t r = 0; r < args.rows; r++, to += all->out_row)
                    qn__q8_fixed_rows(&d->fixed, &d->format, room->sums + r * args.out_row, args.n,
                                      c, (size_t)(args.bias - d->bias), to, all->out_step);
            }
    }
}

static __attribute__((noinline)) void call_kernel(const qn_q8_depthwise *d,
                                                  const qn_q8_dwconv_args *args)
{
    fixed_room room;
    if (d->fixed.columns != NULL)
        call_in_parts(d, args, &room);
    else
        d->kernel.fn(args);
}

/* The kernel's call for n outputs from the part's output x on. */
static void run_kernel(const qn_q8_depthwise *d, const part *p, const qn_q8_dwconv_args *rows,
                       size_t x, size_t n, size_t fold)
{
    const size_t elem = d->format.is_float ? sizeof(float) : 1;
    const uint8_t *in[QN_Q8_DW_ROWS * QN_Q8_DW_TAPS];
    qn_q8_dwconv_args args = *rows;
    for (size_t i = 0; i < args.rows * args.kh; i++)
        in[i] = rows->in[i] + x * args.in_step;
    args.in = in;
    args.n = n / fold;
    args.channels = fold * p->c;
    args.in_step *= fold;
    args.out = p->out + x * args.out_step * elem;
    args.out_step *= fold;
    call_kernel(d, &args);
}

/* Rows [y0, y1) of a part. */
static void run_part(const qn_q8_depthwise *d, part p, size_t y0, size_t y1)
{
    const qn_window *const w = &d->window;
    _Alignas(QN_Q8_DW_ALIGN) uint8_t room[QN_Q8_DW_ROOM + QN_Q8_DW_ALIGN];
    ptrdiff_t held[QN_Q8_DW_SLOTS];
    const uint8_t *in[QN_Q8_DW_ROWS * QN_Q8_DW_TAPS];
    size_t in_col[QN_Q8_DW_TAPS];
    const size_t all = d->fold * w->c, elem = d->format.is_float ? sizeof(float) : 1;
    const size_t n = p.x1 - p.x0;
    for (size_t j = 0; j < w->kw; j++)
        in_col[j] = j * w->dw % d->phases * p.phase_bytes + j * w->dw / d->phases * p.c;
    for (size_t i = 0; i < QN_Q8_DW_SLOTS; i++)
        held[i] = PTRDIFF_MIN;
    qn_q8_dwconv_args args = {
        .kh = d->parts * w->kh,
        .kw = w->kw,
        .in = in,
        .in_col = in_col,
        .in_step = w->sw / d->phases * p.c,
        .w = d->weights + p.c0,
        .w_step = all,
        .bias = d->bias + p.c0,
        .scale = d->scale + p.c0,
        .out_row = w->ow * w->c,
        .out_step = w->c,
        .format = d->format,
    };
    /* The first row that is ever needed; those of a window, counted from there; where it is held.
     */
    const ptrdiff_t top = (ptrdiff_t)(y0 * w->sh) - (ptrdiff_t)w->pt;
    const size_t next_slot = d->ring ? w->sh % d->slots : 0;
    size_t first = 0, first_slot = 0;
    for (size_t y = y0; y < y1; y += args.rows) {
        args.rows = y1 - y < d->rows ? y1 - y : d->rows;
        const uint8_t **at = in;
        for (size_t r = 0; r < args.rows; r++, first += w->sh) {
            for (size_t i = 0, row = first, slot = first_slot; i < w->kh; i++, row += w->dh) {
                uint8_t *const to = room + slot * p.row_bytes;
                if (!d->ring || held[slot] != (ptrdiff_t)row)
                    copy_row(d, &p, top + (ptrdiff_t)row, to);
                held[slot] = (ptrdiff_t)row;
                *at++ = to;
                slot += d->ring ? w->dh : 1;
                slot -= d->ring && slot >= d->slots ? d->slots : 0;
            }
            for (size_t i = 1; i < d->parts; i++, at += w->kh)
                memcpy(at, at - w->kh, w->kh * sizeof(*at));
            first_slot += next_slot;
            first_slot -= first_slot >= d->slots ? d->slots : 0;
        }
        const size_t fold = n < d->fold ? 1 : d->fold, rest = n % fold;
        run_kernel(d, &p, &args, 0, n - rest, fold);
        if (rest != 0) /* some of them once more */
            run_kernel(d, &p, &args, n - fold, fold, fold);
        p.out += args.rows * args.out_row * elem;
    }
}

/* Channels that threads do not share in place. */
static size_t block_of(const qn_q8_depthwise *d)
{
    return d->kernel.block < d->window.c ? d->kernel.block : d->window.c;
}

/* Rows [y0, y1) of an image, nothing copied, of one share of the channels. Divisions would take
 * longer than all else that there is to do for a small image. */
static void run_in_place(const depthwise_call *call, size_t image, size_t y0, size_t y1,
                         size_t share)
{
    const qn_q8_depthwise *const d = call->d;
    const qn_window *const w = &d->window;
    const size_t width = w->w * w->c;
    const size_t elem = d->format.is_float ? sizeof(float) : 1;
    const size_t in_col[] = {0, w->c, 2 * w->c};
    size_t c0 = 0, c1 = w->c;
    if (call->shares > 1) {
        const size_t block = block_of(d), blocks = w->c / block;
        c0 = share * blocks / call->shares * block;
        c1 = share + 1 == call->shares ? w->c : (share + 1) * blocks / call->shares * block;
    }
    const uint8_t *const input = call->in + image * w->h * width + c0;
    uint8_t outside[QN_Q8_DW_ROOM];
    const uint8_t *in[3 * QN_Q8_DW_SMALL_ROWS];
    const size_t inside = w->h > 2 ? w->h - 2 : 0; /* windows that begin before lie there */
    const size_t even = y1 - y0 == w->oh ? d->picture_rows : qn_q8_dw_even_rows(d, y1 - y0);
    qn_q8_dwconv_args args = {
        .n = w->ow,
        .channels = c1 - c0,
        .kh = 3,
        .kw = 3,
        .in = in,
        .in_col = in_col,
        .in_step = w->sw * w->c,
        .w = d->weights + c0,
        .w_step = w->c,
        .bias = d->bias + c0,
        .scale = d->scale + c0,
        .out_row = w->ow * w->c,
        .out_step = w->c,
        .format = d->format,
        .left = w->pl == 1,
        .right = d->right,
        .edge = d->zero,
    };
    if (y0 * w->sh < w->pt || (y1 - 1) * w->sh + 3 > w->h + w->pt)
        memset(outside, d->zero, width);
    for (size_t y = y0; y < y1; y += args.rows) {
        args.rows = y1 - y < even ? y1 - y : even;
        const uint8_t **at = in;
        size_t row = y * w->sh - w->pt; /* before the first: huge */
        for (size_t r = 0; r < args.rows; r++, row += w->sh, at += 3) {
            if (row < inside) {
                const uint8_t *const first = at[0] = input + row * width;
                at[1] = first + width;
                at[2] = first + 2 * width;
                continue;
            }
            for (size_t i = 0; i < 3; i++)
                at[i] = row + i < w->h ? input + (row + i) * width : outside;
        }
        args.out = call->out + ((image * w->oh + y) * args.out_row + c0) * elem;
        call_kernel(d, &args);
    }
}

/* Rows [y0, y1) of an image. */
static void run_rows(const depthwise_call *call, size_t image, size_t y0, size_t y1)
{
    const qn_q8_depthwise *const d = call->d;
    const qn_window *const w = &d->window;
    const size_t elem = d->format.is_float ? sizeof(float) : 1;
    for (size_t c0 = 0; c0 < w->c; c0 += d->part_c)
        for (size_t x0 = 0; x0 < w->ow; x0 += d->part_x) {
            part p = {.in = call->in + image * w->h * w->w * w->c,
                      .out = call->out + (((image * w->oh + y0) * w->ow + x0) * w->c + c0) * elem,
                      .x0 = x0,
                      .x1 = w->ow - x0 < d->part_x ? w->ow : x0 + d->part_x,
                      .c0 = c0,
                      .c = w->c - c0 < d->part_c ? w->c - c0 : d->part_c};
            const size_t columns = qn_q8_dw_columns(w, p.x1 - x0);
            p.phase_columns = (columns + d->phases - 1) / d->phases;
            p.phase_bytes = p.phase_columns * p.c;
            p.row_bytes = qn_round_up(d->phases * p.phase_bytes, QN_Q8_DW_ALIGN);
            span_of(d, &p, 0, &p.lo, &p.hi);
            run_part(d, p, y0, y1);
        }
}

static void run_task(void *arg, size_t index)
{
    const depthwise_call *const call = arg;
    const qn_window *const w = &call->d->window;
    size_t share = 0, row = 0, end = call->rows;
    if (call->tasks > 1 || call->shares > 1) {
        const size_t task = index / call->shares;
        share = index % call->shares;
        row = task * call->rows / call->tasks;
        end = (task + 1) * call->rows / call->tasks;
    }
    while (row < end) {
        const size_t image = w->n == 1 ? 0 : row / w->oh, y0 = row - image * w->oh;
        const size_t y1 = end - row < w->oh - y0 ? y0 + (end - row) : w->oh;
        if (call->d->in_place)
            run_in_place(call, image, y0, y1, share);
        else
            run_rows(call, image, y0, y1);
        row += y1 - y0;
    }
}

void qn__q8_depthwise_run(const qn_q8_depthwise *depthwise, const void *in, void *out,
                          qn_pool *pool)
{
    const qn_window *const w = &depthwise->window;
    depthwise_call call = {depthwise, in, out, w->n * w->oh, 1, 1};
    const size_t threads = qn__pool_size(pool);
    const size_t most =
        depthwise->in_place && call.rows >= MIN_ROWS ? call.rows / MIN_ROWS : call.rows;
    if (threads > 1)
        call.tasks = threads * TASKS_PER_THREAD < most ? threads * TASKS_PER_THREAD : most;
    /* Few rows come from a product whose columns were shared. */
    if (threads > 1 && depthwise->in_place && w->n * w->h < 2 * MIN_ROWS * threads) {
        const size_t blocks = w->c / block_of(depthwise);
        call.tasks = 1;
        call.shares = threads * TASKS_PER_THREAD < blocks ? threads * TASKS_PER_THREAD : blocks;
    }
    qn__parallel(pool, run_task, &call, call.tasks * call.shares);
}
