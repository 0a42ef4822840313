/* Pools on bytes, channels-last. The largest byte is the byte of the largest value; means are made
 * of integer sums and requantized. A mean or sum over neighbouring axes is that of one window. The
 * largest over three axes is taken over the last two, then over the first. */
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/qcore.h"
#include "run/ops/reduce.h"
#include "run/ops/window.h"
#include "run/ops/window_nd.h"

typedef struct qpool_state {
    qn_window win;
    qn_window first; /* n not 0: before that, to scratch memory */
    qn_qparams x, y;
    int32_t lo, hi;
    bool average, global, sum, include_pad;
    qn_q8_maxpool_fn max_kernel;
    qn_q8_maxpool_args max; /* but for the window */
    qn_q8_avgpool_fn mean_kernel;
    qn_q8_avgpool_args mean; /* but for the window and what depends on its size */
} qpool_state;

static qn_status global_window(const qn_step *step, qn_window *w, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    if (x->rank < 3)
        return qn__step_fail(step, error, QN_CORRUPT, "needs rank 3 or more");
    *w = (qn_window){.n = (size_t)x->dims[0].value,
                     .c = (size_t)x->dims[1].value,
                     .h = 1,
                     .w = 1,
                     .oh = 1,
                     .ow = 1,
                     .kh = 1,
                     .sh = 1,
                     .sw = 1,
                     .dh = 1,
                     .dw = 1};
    for (size_t i = 2; i < x->rank; i++)
        w->w *= (size_t)x->dims[i].value;
    w->kw = w->w;
    w->oc = w->c;
    return QN_OK;
}

/* Axes that are reduced, side by side in memory, are the pixels; what lies inside them is the
 * channels. *fits false: they do not lie so. */
static qn_status reduced_window(const qn_plan *plan, qn_step *step, qn_window *w, bool *fits,
                                qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    uint32_t mask;
    QN_TRY(qn__reduced_axes(plan, step, x->rank, &mask, error));
    /* Height and width: channels lie inside. */
    const bool pixels = x->rank == 4 && mask == 12;
    int64_t dims[QN_MAX_RANK] = {0};
    size_t order[QN_MAX_RANK], sizes[3] = {1, 1, 1}, part = 0;
    step->in_layout[0] = pixels ? QN_LAYOUT_CHANNELS_LAST : QN_LAYOUT_ROW_MAJOR;
    qn__tensor_dims(x, dims);
    qn__layout_order(x->rank, step->in_layout[0], order);
    *fits = mask != 0;
    for (size_t i = 0; i < x->rank && *fits; i++) {
        const bool reduced = (mask >> order[i] & 1) != 0;
        part += part % 2 != reduced; /* outside, reduced, inside */
        *fits = part < 3;
        if (*fits)
            sizes[part] *= (size_t)dims[order[i]];
    }
    *fits = *fits && sizes[1] < 1 << 23 && sizes[1] > 0; /* sums fit int32 */
    *w = (qn_window){.n = sizes[0], .c = sizes[2], .h = 1, .w = sizes[1], .oc = sizes[2]};
    w->oh = w->ow = w->kh = w->sh = w->sw = w->dh = w->dw = 1;
    w->kw = w->w;
    return QN_OK;
}

/* A window whose rows are those of an axis. */
static qn_window plane_of(const qn_window_nd *w, size_t axis, size_t n, size_t c)
{
    return (qn_window){.n = n,
                       .c = c,
                       .h = (size_t)w->in[axis],
                       .oc = c,
                       .oh = (size_t)w->out[axis],
                       .kh = (size_t)w->kernel[axis],
                       .sh = (size_t)w->stride[axis],
                       .dh = (size_t)w->dilation[axis],
                       .pt = (size_t)w->begin[axis]};
}

/* Three axes as two windows: pictures by height and width, then the depth by pixels. */
static qn_status deep_windows(qn_step *step, qpool_state *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    qn_window_nd w;
    QN_TRY(qn__window_nd_read(step, NULL, &w, error));
    for (size_t i = 0; i < 3; i++)
        if (w.begin[i] < 0 || w.in[i] == 0)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "pads below zero");
    const size_t n = (size_t)x->dims[0].value, c = (size_t)x->dims[1].value;
    const size_t pixels = (size_t)(w.out[1] * w.out[2]);
    s->first = plane_of(&w, 1, n * (size_t)w.in[0], c);
    s->first.w = (size_t)w.in[2];
    s->first.ow = (size_t)w.out[2];
    s->first.kw = (size_t)w.kernel[2];
    s->first.sw = (size_t)w.stride[2];
    s->first.dw = (size_t)w.dilation[2];
    s->first.pl = (size_t)w.begin[2];
    s->win = plane_of(&w, 0, n, c);
    s->win.w = s->win.ow = pixels;
    s->win.kw = s->win.sw = s->win.dw = 1;
    if (!qn_mul_size(&step->scratch_bytes, s->first.n, c) ||
        !qn_mul_size(&step->scratch_bytes, step->scratch_bytes, pixels))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    return QN_OK;
}

/* Signed bytes are turned into unsigned ones of the same order. */
static void choose_max(const qn_kernels *kernels, qpool_state *s)
{
    const qn_window *const w = &s->win;
    const uint8_t flip = s->x.dtype == QN_DTYPE_I8 ? 0x80 : 0;
    s->max_kernel = kernels->q8_maxpool.fn;
    s->max = (qn_q8_maxpool_args){.channels = w->c,
                                  .step = w->sw * w->c,
                                  .row = w->dh * w->w * w->c,
                                  .col = w->dw * w->c,
                                  .flip = flip,
                                  .least = (uint8_t)((uint8_t)s->x.qmin ^ flip),
                                  .lo = (uint8_t)((uint8_t)s->lo ^ flip),
                                  .hi = (uint8_t)((uint8_t)s->hi ^ flip)};
}

static void choose_mean(const qn_plan *plan, qn_step *step, qpool_state *s)
{
    const qn_window *const w = &s->win;
    const bool reference = qn__plan_get_options(plan)->reference;
    s->mean_kernel = reference ? qn__q8_avgpool_scalar : step->kernels->q8_avgpool.fn;
    s->mean = (qn_q8_avgpool_args){.channels = w->c,
                                   .row = w->dh * w->w * w->c,
                                   .col = w->dw * w->c,
                                   .flip = s->x.dtype == QN_DTYPE_I8 ? 0x80 : 0,
                                   .divides = !s->global,
                                   .zero = s->y.zero,
                                   .factor = s->x.scale,
                                   .scale = s->y.scale,
                                   .lo = (float)(s->lo - s->y.zero),
                                   .hi = (float)(s->hi - s->y.zero)};
    if (!reference)
        step->kernel_name = step->kernels->q8_avgpool.name;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_op op = step->node->op;
    const bool reduces = op == QN_OP_REDUCE_MEAN || op == QN_OP_REDUCE_SUM;
    bool fits = true;
    qpool_state s = {
        .average = op == QN_OP_AVERAGE_POOL || op == QN_OP_GLOBAL_AVERAGE_POOL || reduces,
        .global = op == QN_OP_GLOBAL_AVERAGE_POOL || op == QN_OP_GLOBAL_MAX_POOL || reduces,
        .sum = op == QN_OP_REDUCE_SUM,
        .include_pad = qn__attr_int(step->node, "count_include_pad", 0) != 0};
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &s.x, error));
    QN_TRY(qn__qparams_read(step, step->node->outputs[0], &s.y, error));
    if (step->node->n_outputs > 1 && step->node->outputs[1] != NULL)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "the output of indices");
    QN_TRY(reduces    ? reduced_window(plan, step, &s.win, &fits, error)
           : s.global ? global_window(step, &s.win, error)
           : op == QN_OP_MAX_POOL && step->node->inputs[0]->rank == 5
               ? deep_windows(step, &s, error)
               : qn__window_read(step, NULL, false, true, &s.win, error));
    if (!fits) {
        step->impl = &qn__op_reduce;
        return qn__op_reduce.prepare(plan, step, error);
    }
    if (!s.average && (s.x.scale != s.y.scale || s.x.zero != s.y.zero || s.x.dtype != s.y.dtype))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input and output scales differ");
    qn__qact_bounds(step, &s.y, &s.lo, &s.hi);
    if (s.average)
        choose_mean(plan, step, &s);
    else
        choose_max(step->kernels, &s);
    if (!s.average)
        step->kernel_name = step->kernels->q8_maxpool.name;
    qpool_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    if (!reduces)
        step->in_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    if (step->node->outputs[0]->rank == step->node->inputs[0]->rank)
        step->out_layout[0] = step->in_layout[0];
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

typedef struct qpool_job {
    const qpool_state *s;
    const uint8_t *src;
    uint8_t *dst;
} qpool_job;

/* Elements that the mean is taken over: the whole window as far as it lies in the padded input, or
 * only what is inside. */
static size_t window_count(const qpool_state *s, size_t oy, size_t ox, size_t inside)
{
    const qn_window *const w = &s->win;
    if (!s->include_pad)
        return inside;
    size_t first, rows, columns;
    qn_window_taps((ptrdiff_t)(oy * w->sh), w->h + w->pt + w->pb, w->kh, w->dh, &first, &rows);
    qn_window_taps((ptrdiff_t)(ox * w->sw), w->w + w->pl + w->pr, w->kw, w->dw, &first, &columns);
    return rows * columns;
}

/* A window of `inside` taps. */
static void run_mean(const qpool_state *s, qn_q8_avgpool_args *args, size_t inside, size_t count)
{
    const int32_t zero = s->x.zero + (args->flip != 0 ? 128 : 0);
    args->offset = (int32_t)((uint32_t)inside * (uint32_t)zero);
    args->count = (float)(count > 0 ? count : 1);
    if (s->global)
        args->factor = s->x.scale / (s->y.scale * (s->sum ? 1.0f : args->count));
    s->mean_kernel(args);
}

/* How many windows of a row, from the one at x0 on, have their taps kx0 to kx1 inside the input. */
static size_t same_taps(const qn_window *w, ptrdiff_t x0, size_t kx0, size_t kx1, size_t most)
{
    const size_t last = (w->kw - 1) * w->dw;
    if (kx0 > 0 || kx1 < w->kw)
        return 1;
    const size_t more = (w->w - 1 - last - (size_t)x0) / w->sw;
    return more + 1 < most ? more + 1 : most;
}

static void pool_range(void *arg, size_t begin, size_t end)
{
    const qpool_job *const job = arg;
    const qpool_state *const s = job->s;
    const qn_window *const w = &s->win;
    for (size_t m = begin, run; m < end; m += run) {
        run = 1;
        const size_t ox = m % w->ow, oy = m / w->ow % w->oh, image = m / (w->ow * w->oh);
        const ptrdiff_t y0 = (ptrdiff_t)(oy * w->sh) - (ptrdiff_t)w->pt;
        const ptrdiff_t x0 = (ptrdiff_t)(ox * w->sw) - (ptrdiff_t)w->pl;
        size_t ky0, ky1, kx0, kx1;
        qn_window_taps(y0, w->h, w->kh, w->dh, &ky0, &ky1);
        qn_window_taps(x0, w->w, w->kw, w->dw, &kx0, &kx1);
        const size_t inside = (ky1 - ky0) * (kx1 - kx0);
        const uint8_t *first = job->src; /* first tap inside */
        if (inside > 0)
            first += ((image * w->h + (size_t)(y0 + (ptrdiff_t)(ky0 * w->dh))) * w->w +
                      (size_t)(x0 + (ptrdiff_t)(kx0 * w->dw))) *
                     w->c;
        if (!s->average) {
            qn_q8_maxpool_args args = s->max;
            run = args.n = same_taps(w, x0, kx0, kx1, w->ow - ox < end - m ? w->ow - ox : end - m);
            args.rows = ky1 - ky0;
            args.cols = kx1 - kx0;
            args.in = first;
            args.out = job->dst + m * w->c;
            s->max_kernel(&args);
            continue;
        }
        qn_q8_avgpool_args args = s->mean;
        args.rows = ky1 - ky0;
        args.cols = kx1 - kx0;
        args.in = first;
        args.out = job->dst + m * w->c;
        run_mean(s, &args, inside, window_count(s, oy, ox, inside));
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const qpool_state *const s = step->state;
    qpool_job job = {s, in[0].data, out[0].data};
    if (s->first.n > 0) {
        const qn_window *const w = &s->first;
        qpool_state first = *s;
        first.win = *w;
        choose_max(step->kernels, &first);
        const qpool_job before = {&first, in[0].data, env->scratch};
        qn__parallel_ranges(env->pool, pool_range, (void *)&before, w->n * w->oh * w->ow,
                            w->kh * w->kw * w->c);
        job.src = env->scratch;
    }
    qn__parallel_ranges(env->pool, pool_range, &job, s->win.n * s->win.oh * s->win.ow,
                        s->win.kh * s->win.kw * s->win.c);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_qpool = {QN_OP_NONE, prepare, run, release};
