/* Pools on bytes, channels-last. The largest byte is the byte of the largest value; means are made
 * of integer sums and requantized. A mean or sum over neighbouring axes is that of one window. The
 * largest over three axes is taken over the last two, then over the first; means are made at once.
 */
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/qcore.h"
#include "run/ops/reduce.h"
#include "run/ops/window.h"
#include "run/ops/window_nd.h"

typedef struct qpool_state {
    /* Of maxima over three axes the second is taken of the first, which lies in scratch memory. */
    size_t n_windows;
    qn_window win[2];
    qn_window depth; /* its rows are the first of three axes, of means; or one row */
    qn_qparams x, y;
    int32_t lo, hi;
    bool average, global, sum, include_pad;
    qn_q8_maxpool_fn max_kernel;
    qn_q8_maxpool_args max[2]; /* but for the window */
    qn_q8_avgpool_fn mean_kernel;
    qn_q8_avgpool_args mean; /* but for the window and what depends on its size */
} qpool_state;

/* A window over one pixel. */
static const qn_window ONE = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0};

static qn_status global_window(const qn_step *step, qn_window *w, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    if (x->rank < 3)
        return qn__step_fail(step, error, QN_CORRUPT, "needs rank 3 or more");
    *w = ONE;
    w->n = (size_t)x->dims[0].value;
    w->c = w->oc = (size_t)x->dims[1].value;
    for (size_t i = 2; i < x->rank; i++)
        w->w *= (size_t)x->dims[i].value;
    w->kw = w->w;
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
    *w = ONE;
    w->n = sizes[0];
    w->c = w->oc = sizes[2];
    w->w = w->kw = sizes[1];
    return QN_OK;
}

/* The rows of a window are those of an axis. */
static void set_rows(qn_window *win, const qn_window_nd *w, size_t axis)
{
    win->h = (size_t)w->in[axis];
    win->oh = (size_t)w->out[axis];
    win->kh = (size_t)w->kernel[axis];
    win->sh = (size_t)w->stride[axis];
    win->dh = (size_t)w->dilation[axis];
    win->pt = (size_t)w->begin[axis];
    win->pb = (size_t)w->end[axis];
}

/* Three axes: pictures by height and width; of maxima then the depth by pixels. */
static qn_status deep_windows(qn_step *step, qpool_state *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    qn_window_nd w;
    QN_TRY(qn__window_nd_read(step, NULL, &w, error));
    for (size_t i = 0; i < 3; i++)
        if (w.begin[i] < 0 || w.in[i] == 0 ||
            (s->average && (w.end[i] < 0 || w.in_count >= 1 << 23))) /* sums fit int32 */
            return qn__step_fail(step, error, QN_UNSUPPORTED, "pads below zero, or too many taps");
    /* Columns as rows, which are then those of the axis before. */
    qn_window *const plane = &s->win[0];
    set_rows(plane, &w, 2);
    plane->w = plane->h;
    plane->ow = plane->oh;
    plane->kw = plane->kh;
    plane->sw = plane->sh;
    plane->dw = plane->dh;
    plane->pl = plane->pt;
    plane->pr = plane->pb;
    set_rows(plane, &w, 1);
    plane->n = (size_t)x->dims[0].value;
    plane->c = plane->oc = (size_t)x->dims[1].value;
    s->win[1] = ONE;
    set_rows(s->average ? &s->depth : &s->win[1], &w, 0);
    if (s->average)
        return QN_OK;
    s->n_windows = 2;
    s->win[1].n = plane->n;
    s->win[1].c = plane->c;
    s->win[1].w = s->win[1].ow = plane->oh * plane->ow;
    plane->n *= s->win[1].h;
    if (!qn_mul_size(&step->scratch_bytes, plane->n, plane->c) ||
        !qn_mul_size(&step->scratch_bytes, step->scratch_bytes, s->win[1].w))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    return QN_OK;
}

/* Signed bytes are turned into unsigned ones of the same order. */
static qn_q8_maxpool_args max_of(const qpool_state *s, const qn_window *w)
{
    const uint8_t flip = s->x.dtype == QN_DTYPE_I8 ? 0x80 : 0;
    return (qn_q8_maxpool_args){.channels = w->c,
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
    const qn_window *const w = &s->win[0];
    const bool reference = qn__plan_get_options(plan)->reference;
    s->mean_kernel = reference ? qn__q8_avgpool_scalar : step->kernels->q8_avgpool.fn;
    s->mean = (qn_q8_avgpool_args){.channels = w->c,
                                   .plane = s->depth.dh * w->h * w->w * w->c,
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
        .n_windows = 1,
        .depth = ONE,
        .include_pad = qn__attr_int(step->node, "count_include_pad", 0) != 0};
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &s.x, error));
    QN_TRY(qn__qparams_read(step, step->node->outputs[0], &s.y, error));
    if (step->node->n_outputs > 1 && step->node->outputs[1] != NULL)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "the output of indices");
    QN_TRY(reduces    ? reduced_window(plan, step, &s.win[0], &fits, error)
           : s.global ? global_window(step, &s.win[0], error)
           : step->node->inputs[0]->rank == 5
               ? deep_windows(step, &s, error)
               : qn__window_read(step, NULL, false, true, &s.win[0], error));
    if (!fits) {
        step->impl = &qn__op_reduce;
        return qn__op_reduce.prepare(plan, step, error);
    }
    if (!s.average && (s.x.scale != s.y.scale || s.x.zero != s.y.zero || s.x.dtype != s.y.dtype))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input and output scales differ");
    qn__qact_bounds(step, &s.y, &s.lo, &s.hi);
    if (s.average) {
        choose_mean(plan, step, &s);
    } else {
        s.max_kernel = step->kernels->q8_maxpool.fn;
        for (size_t i = 0; i < s.n_windows; i++)
            s.max[i] = max_of(&s, &s.win[i]);
        step->kernel_name = step->kernels->q8_maxpool.name;
    }
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
    const qn_window *win;
    const qn_q8_maxpool_args *max;
    const uint8_t *src;
    uint8_t *dst;
} qpool_job;

/* Elements that the mean is taken over: the whole window as far as it lies in the padded input, or
 * only what is inside. */
static size_t window_count(const qpool_state *s, size_t oz, size_t oy, size_t ox, size_t inside)
{
    const qn_window *const w = &s->win[0], *const d = &s->depth;
    if (!s->include_pad)
        return inside;
    size_t first, planes, rows, columns;
    qn_window_taps((ptrdiff_t)(oz * d->sh), d->h + d->pt + d->pb, d->kh, d->dh, &first, &planes);
    qn_window_taps((ptrdiff_t)(oy * w->sh), w->h + w->pt + w->pb, w->kh, w->dh, &first, &rows);
    qn_window_taps((ptrdiff_t)(ox * w->sw), w->w + w->pl + w->pr, w->kw, w->dw, &first, &columns);
    return planes * rows * columns;
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
    const qn_window *const w = job->win, *const d = &s->depth;
    for (size_t m = begin, run; m < end; m += run) {
        const size_t ox = m % w->ow, oy = m / w->ow % w->oh, plane = m / (w->ow * w->oh);
        const size_t oz = plane % d->oh, image = plane / d->oh;
        const ptrdiff_t z0 = (ptrdiff_t)(oz * d->sh) - (ptrdiff_t)d->pt;
        const ptrdiff_t y0 = (ptrdiff_t)(oy * w->sh) - (ptrdiff_t)w->pt;
        const ptrdiff_t x0 = (ptrdiff_t)(ox * w->sw) - (ptrdiff_t)w->pl;
        size_t kz0, kz1, ky0, ky1, kx0, kx1;
        qn_window_taps(z0, d->h, d->kh, d->dh, &kz0, &kz1);
        qn_window_taps(y0, w->h, w->kh, w->dh, &ky0, &ky1);
        qn_window_taps(x0, w->w, w->kw, w->dw, &kx0, &kx1);
        const size_t inside = (kz1 - kz0) * (ky1 - ky0) * (kx1 - kx0);
        const uint8_t *first = job->src; /* first tap inside */
        if (inside > 0)
            first += (((image * d->h + (size_t)(z0 + (ptrdiff_t)(kz0 * d->dh))) * w->h +
                       (size_t)(y0 + (ptrdiff_t)(ky0 * w->dh))) *
                          w->w +
                      (size_t)(x0 + (ptrdiff_t)(kx0 * w->dw))) *
                     w->c;
        run = 1;
        if (!s->average) {
            qn_q8_maxpool_args args = *job->max;
            run = args.n = same_taps(w, x0, kx0, kx1, w->ow - ox < end - m ? w->ow - ox : end - m);
            args.rows = ky1 - ky0;
            args.cols = kx1 - kx0;
            args.in = first;
            args.out = job->dst + m * w->c;
            s->max_kernel(&args);
            continue;
        }
        qn_q8_avgpool_args args = s->mean;
        args.planes = kz1 - kz0;
        args.rows = ky1 - ky0;
        args.cols = kx1 - kx0;
        args.in = first;
        args.out = job->dst + m * w->c;
        run_mean(s, &args, inside, window_count(s, oz, oy, ox, inside));
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const qpool_state *const s = step->state;
    const uint8_t *src = in[0].data;
    for (size_t i = 0; i < s->n_windows; i++) {
        const qn_window *const w = &s->win[i];
        void *const dst = i + 1 < s->n_windows ? env->scratch : out[0].data;
        qpool_job job = {s, w, &s->max[i], src, dst};
        qn__parallel_ranges(env->pool, pool_range, &job, w->n * s->depth.oh * w->oh * w->ow,
                            s->depth.kh * w->kh * w->kw * w->c);
        src = dst;
    }
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_qpool = {QN_OP_NONE, prepare, run, release};
