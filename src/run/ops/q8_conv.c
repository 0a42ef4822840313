/* Quantized convolution in real integers: running. */
#include "run/ops/q8_conv.h"

#include "core/checked.h"
#include "run/nd.h"

#include <string.h>

typedef struct conv_call {
    const qn_q8_conv *s;
    const uint8_t *in; /* what the GEMM reads, channels-last */
} conv_call;

typedef uintptr_t pointers
    __attribute__((vector_size(2 * sizeof(uintptr_t)), aligned(8), may_alias));

static void tap_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const conv_call *const call = job->ctx;
    const qn_q8_conv *const s = call->s;
    const qn_window_rows rows = {&s->inner, s->spans, s->zeros, s->inner.c};
    const qn_q8_igemm *const kernel = &job->packed->kernel;
    qn__tap_rows(&rows, call->in + group * s->cin, m0, mr, qn_q8_rows_end(kernel, mr), kernel->mr,
                 a);
}

/* With QN_Q8_ROWS no tap leaves the buffer: those of the first one, moved, unless the kernel does
 * so. */
static void buffer_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const conv_call *const call = job->ctx;
    const qn_q8_conv *const s = call->s;
    const qn_window *const w = &s->inner;
    const qn_q8_igemm *const kernel = &job->packed->kernel;
    const size_t mr_max = kernel->mr, step = w->sw * w->c;
    const size_t y = m0 / w->ow, image = w->n == 1 ? 0 : y / w->oh;
    size_t ox = m0 - y * w->ow, oy = y - image * w->oh;
    const uint8_t *at = call->in + (image * s->copy.blocks + oy) * s->copy.block;
    (void)group; /* there is one */
    for (size_t r = 0, n; r < mr; r += n) {
        n = mr - r < w->ow - ox ? mr - r : w->ow - ox;
        qn__q8_spaced_rows(kernel, at + ox * step, step, n, a + r);
        ox = 0;
        at += s->copy.block;
        if (++oy == w->oh) {
            oy = 0;
            at += (s->copy.blocks - w->oh) * s->copy.block;
        }
    }
    const size_t end = qn_q8_rows_end(kernel, mr);
    qn__repeat_last(a, 1, mr, end, mr_max);
    for (size_t p = 1; p < job->packed->taps && job->out.offsets == NULL; p++) {
        const uintptr_t tap = (uintptr_t)s->taps[p];
        pointers *const to = (pointers *)(void *)(a + p * mr_max);
        const pointers *const from = (const pointers *)(void *)a;
#pragma GCC unroll 4
        for (size_t r = 0; r < end / 2; r++)
            to[r] = from[r] + tap;
    }
}

typedef struct pad_call {
    const qn_q8_conv *s;
    const uint8_t *in;
    uint8_t *out;
    bool channels_last;
    qn_q8_put_rows put; /* copy_rows, or what makes rows of what it has as ctx */
    const void *ctx;
    const qn_q8_job *job; /* of bands */
} pad_call;

static __attribute__((noinline)) void flip_bytes(uint8_t *bytes, size_t n, uint8_t flip)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] ^= flip;
}

/* Rows of pictures copied to `rows`. */
static void copy_rows(const void *ctx, size_t first, uint8_t *const *rows, size_t n)
{
    const pad_call *const call = ctx;
    const qn_q8_conv *const s = call->s;
    const qn_window *const w = &s->window;
    const size_t c = w->c, plane = w->h * w->w, image = w->n == 1 ? 0 : first / w->h;
    const bool as_they_lie = call->channels_last || c == 1;
    const uint8_t *in = call->in + first * s->copy.row;
    if (!as_they_lie)
        in = call->in + image * c * plane + (first - image * w->h) * w->w;
    for (size_t r = 0; r < n; r++, in += as_they_lie ? s->copy.row : w->w) {
        uint8_t *const out = rows[r];
        if (as_they_lie)
            memcpy(out, in, s->copy.row);
        else if (c == 3)
            for (size_t x = 0; x < w->w; x++) {
                out[3 * x] = in[x];
                out[3 * x + 1] = in[plane + x];
                out[3 * x + 2] = in[2 * plane + x];
            }
        else
            for (size_t i = 0; i < c; i++)
                for (size_t x = 0; x < w->w; x++)
                    out[x * c + i] = in[i * plane + x];
        if (s->flip != 0)
            flip_bytes(out, s->copy.row, s->flip);
    }
}

/* One block of the copy but for tails. */
static __attribute__((cold)) void pad_block(void *arg, size_t index)
{
    const pad_call *const call = arg;
    const qn_q8_padded *const p = &call->s->copy;
    qn__q8_pad(p, call->out + index * p->block, index, index + 1, call->s->zero ^ call->s->flip,
               call->put, call->ctx);
}

/* The tails of one row of outputs. */
static void join_tails_of(const qn_q8_conv *s, uint8_t *block)
{
    const qn_window *const w = &s->window;
    const size_t n = w->ow * w->sw * w->c;
    uint8_t *const first = block + s->copy.front - w->pl * w->c;
    const uint8_t *const from[QN_Q8_TAIL_ROWS] = {first + s->tails[0], first + s->tails[1],
                                                  first + s->tails[2]};
    s->packed.kernel.join(first + s->copy.tails_at, from, s->masks[0], n);
}

static __attribute__((cold)) void join_tails(void *arg, size_t index)
{
    const pad_call *const call = arg;
    const qn_q8_conv *const s = call->s;
    const size_t image = s->window.n == 1 ? 0 : index / s->window.oh;
    const size_t oy = index - image * s->window.oh;
    join_tails_of(s, call->out + (image * s->copy.blocks + oy) * s->copy.block);
}

/* Rows of outputs by bands of s->band within pictures, of which the last one of each may be
 * smaller. What of the copy two of them read is made once. */
static __attribute__((cold)) void run_bands(void *arg, size_t begin, size_t end)
{
    const pad_call *const call = arg;
    const qn_q8_conv *const s = call->s;
    const qn_q8_padded *const p = &s->copy;
    const size_t oh = s->window.oh, bands = qn_div_up(oh, s->band), all = bands * s->window.n;
    qn_q8_held held;
    uint8_t *const copy = (uint8_t *)held.sums;
    held.rows = 0;
    for (size_t band = begin, kept = 0; band < end; band++) {
        const size_t image = band / bands, y = (band - image * bands) * s->band;
        const size_t rows = oh - y < s->band ? oh - y : s->band;
        const size_t left = p->blocks - y, blocks = rows + s->more < left ? rows + s->more : left;
        const size_t at = image * p->blocks + y;
        kept = y == 0 ? 0 : kept;
        memmove(copy, copy + s->band * p->block, kept * p->block);
        qn__q8_pad(p, copy + kept * p->block, at + kept, at + blocks, call->s->zero ^ call->s->flip,
                   call->put, call->ctx);
        kept = s->more;
        for (size_t i = 0; s->tail > 0 && i < rows; i++)
            join_tails_of(s, copy + i * p->block);
        const conv_call rows_of = {s, copy + p->front - s->window.pl * s->window.c};
        qn_q8_job job = *call->job;
        job.m = rows * s->inner.ow;
        job.c = (uint8_t *)job.c + (image * oh + y) * s->inner.ow * job.c_stride *
                                       (job.out.is_float ? sizeof(float) : 1);
        job.ctx = &rows_of;
        job.ahead = band + 1 < all ? NULL : job.ahead;
        qn__q8_run_held(&job, &held);
    }
}

/* QN_Q8_ROWS. */
static __attribute__((cold, noinline)) void run_rows(const qn_q8_conv *s, const qn_run_env *env,
                                                     const qn_view *in, qn_q8_job *job)
{
    const qn_window *const w = &s->window;
    const qn_quantized_rows quantized = {env->quantizer, in, s->copy.row};
    pad_call pad = {.s = s,
                    .in = in->data,
                    .out = (uint8_t *)env->scratch + s->padded_at,
                    .channels_last = in->layout == QN_LAYOUT_CHANNELS_LAST,
                    .put = copy_rows,
                    .ctx = &pad,
                    .job = job};
    if (env->quantizer != NULL) {
        pad.put = qn__q8_quantize_rows;
        pad.ctx = &quantized;
    }
    job->rows = buffer_rows;
    job->run = s->inner.ow;
    if (s->packed.kernel.takes_offsets && s->packed.parts == 1)
        job->out.offsets = s->taps;
    if (s->band > 0) {
        qn__parallel_ranges(env->pool, run_bands, &pad, w->n * qn_div_up(w->oh, s->band), SIZE_MAX);
        return;
    }
    qn__parallel(env->pool, pad_block, &pad, w->n * s->copy.blocks);
    if (s->tail > 0)
        qn__parallel(env->pool, join_tails, &pad, w->n * w->oh);
    const conv_call call = {s, pad.out + s->copy.front - w->pl * w->c};
    job->ctx = &call;
    qn__q8_run(job, env->pool);
}

void qn__q8_conv_run(const qn_q8_conv *s, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, const qn_requant *requant)
{
    const qn_window *const w = &s->window;
    const uint8_t *const x = in->data;
    if (out->count == 0)
        return;
    if (s->way == QN_Q8_DEPTHWISE) {
        qn__q8_depthwise_run(&s->depthwise, x, out->data, env->pool);
        return;
    }
    const conv_call call = {s, x};
    qn_q8_job job = {
        .packed = &s->packed,
        .m = w->n * w->oh * s->inner.ow,
        .c = out->data,
        .c_stride = out->pitch != 0 ? out->pitch : s->inner.oc,
        .c_group = s->packed.n,
        .out = qn__q8_format(requant),
        .fixed = qn_q8_by_fixed_of(requant),
        .first = s->direct ? x : NULL,
        .first_group = s->cin,
        .step = w->c,
        .rows = tap_rows,
        .ctx = &call,
        .ahead = env->ahead,
        .ahead_bytes = env->ahead_bytes,
        .row_buffer =
            s->has_rows ? (const uint8_t **)(void *)((uint8_t *)env->scratch + s->rows_at) : NULL,
    };
    if (s->fold > 1)
        job.fixed.columns = s->fixed;
    if (s->way == QN_Q8_ROWS)
        run_rows(s, env, in, &job);
    else
        qn__q8_run(&job, env->pool);
}
