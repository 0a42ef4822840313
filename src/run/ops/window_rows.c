#include "run/ops/window_rows.h"

typedef uintptr_t pointers
    __attribute__((vector_size(2 * sizeof(uintptr_t)), aligned(8), may_alias));

__attribute__((cold)) void qn__tap_spans(const qn_window *w, qn_tap_span *spans)
{
    const ptrdiff_t step = (ptrdiff_t)w->sw, ow = (ptrdiff_t)w->ow;
    for (size_t j = 0; j < w->kw; j++) {
        /* Of the tap in the first output; ConvTranspose has windows with negative pads. */
        const ptrdiff_t at = (ptrdiff_t)(j * w->dw) - (ptrdiff_t)w->pl, end = (ptrdiff_t)w->w - at;
        const ptrdiff_t from = at < 0 ? (step - 1 - at) / step : 0;
        const ptrdiff_t to = end > 0 ? (end + step - 1) / step : 0;
        spans[j].to = (size_t)(to < ow ? to : ow);
        spans[j].from = (size_t)from < spans[j].to ? (size_t)from : spans[j].to;
    }
}

void qn__spaced_rows(qn_row *a, const void *first, size_t step, size_t n)
{
    const uintptr_t at = (uintptr_t)first;
    pointers low = {at, at + step}, high = low + 2 * step;
    for (; n >= 8; n -= 8, a += 8) {
        pointers *const to = (pointers *)(void *)a;
        const pointers next = low + 4 * step, last = high + 4 * step;
        to[0] = low;
        to[1] = high;
        to[2] = next;
        to[3] = last;
        low = next + 4 * step;
        high = last + 4 * step;
    }
    if (n >= 4) {
        *(pointers *)(void *)a = low;
        *(pointers *)(void *)(a + 2) = high;
        low += 4 * step;
        n -= 4;
        a += 4;
    }
    for (size_t i = 0; i < n; i++)
        a[i] = (const uint8_t *)low[0] + i * step;
}

void qn__repeat_last(qn_row *a, size_t ks, size_t mr, size_t end, size_t mr_max)
{
    for (size_t p = 0; mr < end && p < ks; p++, a += mr_max)
        for (size_t r = mr; r < end; r++)
            a[r] = a[mr - 1];
}

static void same_rows(qn_row *a, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i++)
        a[i] = row;
}

/* One tap of n outputs from column ox on, whose row of pixels begins at `row`. */
static void tap_run(const qn_window_rows *rows, size_t tap, const uint8_t *row, size_t ox, size_t n,
                    qn_row *a)
{
    const qn_window *const w = rows->window;
    const qn_tap_span *const span = &rows->spans[tap];
    size_t from = span->from > ox ? span->from - ox : 0, to = span->to > ox ? span->to - ox : 0;
    to = to < n ? to : n;
    from = from < to ? from : to;
    same_rows(a, rows->zeros, from);
    if (from < to)
        qn__spaced_rows(a + from, row + ((ox + from) * w->sw + tap * w->dw - w->pl) * rows->pixel,
                        w->sw * rows->pixel, to - from);
    same_rows(a + to, rows->zeros, n - to);
}

void qn__tap_rows(const qn_window_rows *rows, const void *in, size_t m0, size_t mr, size_t end,
                  size_t mr_max, qn_row *a)
{
    const qn_window *const w = rows->window;
    const size_t line = m0 / w->ow, image = w->n == 1 ? 0 : line / w->oh;
    size_t ox = m0 - line * w->ow, oy = line - image * w->oh;
    const uint8_t *at = (const uint8_t *)in + image * w->h * w->w * rows->pixel;
    for (size_t r = 0, n; r < mr; r += n) { /* runs of outputs of one row */
        qn_row *to = a + r;
        n = mr - r < w->ow - ox ? mr - r : w->ow - ox;
        for (size_t i = 0; i < w->kh; i++) {
            const size_t y = oy * w->sh + i * w->dh - w->pt; /* above the picture: huge */
            for (size_t j = 0; j < w->kw; j++, to += mr_max) {
                if (y < w->h)
                    tap_run(rows, j, at + y * w->w * rows->pixel, ox, n, to);
                else
                    same_rows(to, rows->zeros, n);
            }
        }
        ox = 0;
        if (++oy == w->oh) {
            oy = 0;
            at += w->h * w->w * rows->pixel;
        }
    }
    qn__repeat_last(a, w->kh * w->kw, mr, end, mr_max);
}
