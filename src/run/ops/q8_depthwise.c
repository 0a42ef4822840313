/* Edges are windows with fewer taps, as in conv_depthwise.c: padding is the zero point and adds
 * nothing. */
#include "run/ops/q8_depthwise.h"

enum { TASKS_PER_THREAD = 4 };

typedef struct depthwise_call {
    const qn_q8_depthwise *d;
    const uint8_t *in;
    uint8_t *out;
    size_t rows, tasks; /* rows: n * oh */
} depthwise_call;

/* Outputs [x0, x1) of a row; their windows have the same taps inside. row: arguments of the row,
 * with `in` at the input row of the first tap. */
static void run_span(const qn_q8_depthwise *d, const qn_q8_dwconv_args *row, size_t x0, size_t x1)
{
    const qn_window *const w = &d->window;
    const ptrdiff_t start = (ptrdiff_t)(x0 * w->sw) - (ptrdiff_t)w->pl;
    qn_q8_dwconv_args args = *row;
    size_t first, last;
    qn_window_taps(start, w->w, w->kw, w->dw, &first, &last);
    args.n = x1 - x0;
    args.kw = last - first;
    if (args.kw == 0 || args.kh == 0) { /* all in the pad: bias only */
        args.kh = args.kw = 0;
    } else {
        args.in += (size_t)(start + (ptrdiff_t)(first * w->dw)) * w->c;
        args.w += first * w->c;
    }
    args.out = (uint8_t *)row->out + x0 * w->c * (d->format.is_float ? sizeof(float) : 1);
    d->kernel.fn(&args);
}

static void run_row(const depthwise_call *call, size_t row)
{
    const qn_q8_depthwise *const d = call->d;
    const qn_window *const w = &d->window;
    const size_t image = row / w->oh, oy = row % w->oh;
    const ptrdiff_t start = (ptrdiff_t)(oy * w->sh) - (ptrdiff_t)w->pt;
    size_t first, last;
    qn_window_taps(start, w->h, w->kh, w->dh, &first, &last);
    const size_t row_bytes = w->w * w->c, elem = d->format.is_float ? sizeof(float) : 1;
    qn_q8_dwconv_args args = {
        .channels = w->c,
        .kh = last - first,
        .in = call->in,
        .in_signed = d->in_signed,
        .in_zero = d->in_zero,
        .in_row = w->dh * row_bytes,
        .in_col = w->dw * w->c,
        .in_step = w->sw * w->c,
        .w = d->weights + first * w->kw * w->c,
        .w_row = w->kw * w->c,
        .bias = d->bias,
        .scale = d->scale,
        .out = call->out + row * w->ow * w->c * elem,
        .out_step = w->c,
        .format = d->format,
    };
    if (first < last)
        args.in += (image * w->h + (size_t)(start + (ptrdiff_t)(first * w->dh))) * row_bytes;
    /* Outputs whose windows are whole: from the first that starts at or after 0 to the last that
     * ends inside. */
    const size_t extent = (w->kw - 1) * w->dw + 1;
    size_t x0 = (w->pl + w->sw - 1) / w->sw, x1 = 0;
    x0 = x0 < w->ow ? x0 : w->ow;
    if (w->w + w->pl >= extent)
        x1 = (w->w + w->pl - extent) / w->sw + 1;
    x1 = x1 < w->ow ? x1 : w->ow;
    for (size_t x = 0; x < x0; x++)
        run_span(d, &args, x, x + 1);
    if (x1 > x0)
        run_span(d, &args, x0, x1);
    for (size_t x = x1 > x0 ? x1 : x0; x < w->ow; x++)
        run_span(d, &args, x, x + 1);
}

static void run_task(void *arg, size_t index)
{
    const depthwise_call *const call = arg;
    const size_t end = (index + 1) * call->rows / call->tasks;
    for (size_t row = index * call->rows / call->tasks; row < end; row++)
        run_row(call, row);
}

void qn__q8_depthwise_run(const qn_q8_depthwise *depthwise, const void *in, void *out,
                          qn_pool *pool)
{
    depthwise_call call = {depthwise, in, out, depthwise->window.n * depthwise->window.oh, 1};
    const size_t threads = qn__pool_size(pool);
    if (threads > 1)
        call.tasks =
            threads * TASKS_PER_THREAD < call.rows ? threads * TASKS_PER_THREAD : call.rows;
    qn__parallel(pool, run_task, &call, call.tasks);
}
