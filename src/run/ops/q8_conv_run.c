/* Running what q8_conv.c prepares: pointers to the rows that a product reads, which small layers
 * spend a tenth of their time on, and the padded copy of QN_Q8_ROWS. */
#include "run/ops/q8_conv.h"

#include <string.h>

typedef struct conv_call {
    const qn_q8_conv *s;
    const uint8_t *in; /* what the GEMM reads, channels-last */
} conv_call;

/* Pointers to n rows `step` apart. (Storing several at once delays the kernel's loads.) */
static inline void spaced_rows(const uint8_t **a, const uint8_t *first, size_t step, size_t n)
{
    for (size_t i = 0; i < n; i++, first += step)
        a[i] = first;
}

/* Entries behind the rows of each tap repeat the last one. */
static void repeat_last(const uint8_t **a, size_t ks, size_t mr, size_t mr_max)
{
    for (size_t p = 0; mr < mr_max && p < ks; p++, a += mr_max)
        for (size_t r = mr; r < mr_max; r++)
            a[r] = a[mr - 1];
}

/* Output pixel i reads input pixel i. */
static void direct_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const conv_call *const call = job->ctx;
    const size_t c = call->s->window.c;
    spaced_rows(a, call->in + group * call->s->cin + m0 * c, c, mr);
    repeat_last(a, 1, mr, job->packed->kernel.mr);
}

/* Row pointers of a window with taps outside the input. */
static void edge_rows(const qn_q8_conv *s, const uint8_t *image, ptrdiff_t y0, ptrdiff_t x0,
                      const uint8_t **a, size_t step)
{
    const qn_window *const w = &s->inner;
    for (size_t i = 0; i < w->kh; i++) {
        const ptrdiff_t y = y0 + (ptrdiff_t)(i * w->dh);
        for (size_t j = 0; j < w->kw; j++, a += step) {
            const ptrdiff_t x = x0 + (ptrdiff_t)(j * w->dw);
            const bool inside = y >= 0 && y < (ptrdiff_t)w->h && x >= 0 && x < (ptrdiff_t)w->w;
            *a = inside ? image + ((size_t)y * w->w + (size_t)x) * w->c : s->zeros;
        }
    }
}

static void tap_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const conv_call *const call = job->ctx;
    const qn_q8_conv *const s = call->s;
    const qn_window *const w = &s->inner;
    const size_t mr_max = job->packed->kernel.mr, ks = job->packed->ks;
    const ptrdiff_t y_end = (ptrdiff_t)w->h - (ptrdiff_t)((w->kh - 1) * w->dh);
    size_t ox = m0 % w->ow, oy = m0 / w->ow % w->oh;
    const uint8_t *image = call->in + m0 / w->ow / w->oh * w->h * w->w * w->c + group * s->cin;
    for (size_t r = 0; r < mr;) {
        /* A run of outputs of one row; those from `first` to `last` have windows inside. */
        const size_t n = mr - r < w->ow - ox ? mr - r : w->ow - ox;
        const ptrdiff_t y0 = (ptrdiff_t)(oy * w->sh) - (ptrdiff_t)w->pt;
        const ptrdiff_t x0 = (ptrdiff_t)(ox * w->sw) - (ptrdiff_t)w->pl;
        size_t first = n, last = n;
        if (y0 >= 0 && y0 < y_end) {
            first = s->inside_from > ox ? s->inside_from - ox : 0;
            last = s->inside_to > ox ? s->inside_to - ox : 0;
            first = first < n ? first : n;
            last = last < first ? first : last < n ? last : n;
        }
        if (first < last) {
            const uint8_t *const origin =
                image + ((size_t)y0 * w->w + (size_t)(x0 + (ptrdiff_t)(first * w->sw))) * w->c;
            for (size_t p = 0; p < ks; p++)
                spaced_rows(a + p * mr_max + r + first, origin + s->taps[p], w->sw * w->c,
                            last - first);
        }
        for (size_t i = 0; i < n; i++) {
            if (i == first)
                i = last;
            if (i < n)
                edge_rows(s, image, y0, x0 + (ptrdiff_t)(i * w->sw), a + r + i, mr_max);
        }
        r += n;
        ox = 0;
        if (++oy == w->oh) {
            oy = 0;
            image += w->h * w->w * w->c;
        }
    }
    repeat_last(a, ks, mr, mr_max);
}

typedef struct pad_call {
    const qn_window *from, *to;
    const uint8_t *in;
    uint8_t *out;
    uint8_t zero;
    bool channels_last;
} pad_call;

/* One row of the padded buffer. */
static void pad_row(void *arg, size_t index)
{
    const pad_call *const call = arg;
    const qn_window *const w = call->from;
    const size_t c = w->c, image = index / call->to->h, y = index % call->to->h;
    uint8_t *out = call->out + index * call->to->w * c;
    if (y < w->pt || y - w->pt >= w->h) {
        memset(out, call->zero, call->to->w * c);
        return;
    }
    memset(out, call->zero, w->pl * c);
    out += w->pl * c;
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
    memset(out + w->w * c, call->zero, w->pr * c);
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
        memset(padded - QN_Q8_ROWS_FRONT, s->zero, QN_Q8_ROWS_FRONT);
        pad_call pad = {w, &s->inner, x, padded, s->zero, in->layout == QN_LAYOUT_CHANNELS_LAST};
        qn__parallel(env->pool, pad_row, &pad, w->n * s->inner.h);
        /* The last window's run may end behind the last pixel. */
        memset(padded + s->slack_at, s->zero, s->packed.kernel.kr);
        x = padded;
    }
    const conv_call call = {s, x};
    const qn_q8_job job = {
        .packed = &s->packed,
        .m = w->n * w->oh * s->inner.ow,
        .c = out->data,
        .c_stride = s->inner.oc,
        .c_group = s->packed.n,
        .out = qn__q8_format(requant),
        .rows = s->direct ? direct_rows : tap_rows,
        .ctx = &call,
        .run = s->way == QN_Q8_ROWS ? s->inner.ow : 0,
        .ahead = env->ahead,
        .ahead_bytes = env->ahead_bytes,
        .row_buffer = s->has_rows ? (const uint8_t **)(void *)(scratch + s->rows_at) : NULL,
    };
    qn__q8_run(&job, env->pool);
}
