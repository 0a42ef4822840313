/* Float pooling, channels-last: MaxPool, AveragePool and the global ones. As in depthwise
 * convolution, windows at the edges are windows with fewer taps. */
#include "run/ops/window.h"

#include "run/ops/window_nd.h"

#include "core/alloc.h"

#include <float.h>
#include <math.h>

enum { TASKS_PER_THREAD = 4, GLOBAL_CHANNELS = 256 };

typedef struct pool_state {
    qn_window window;
    bool is_max, count_pads;
    qn_f32_pool kernel;
} pool_state;

static qn_status check_f32(const qn_step *step, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    if (x->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input \"%s\" is %s, not float32",
                             x->name, qn__dtype_name(x->type.dtype));
    if (step->node->n_outputs > 1 && step->node->outputs[1] != NULL)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "indices output \"%s\"",
                             step->node->outputs[1]->name);
    return QN_OK;
}

static qn_status pool_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    if (step->node->inputs[0]->rank > 4 ||
        (step->node->n_outputs > 1 && step->node->outputs[1] != NULL))
        return qn_prepare_as(&qn__op_pool_nd, plan, step, error);
    QN_TRY(check_f32(step, error));
    pool_state s = {.is_max = step->node->op == QN_OP_MAX_POOL};
    QN_TRY(qn__window_read(step, NULL, false, true, &s.window, error));
    s.count_pads = qn__attr_int(step->node, "count_include_pad", 0) != 0;
    s.kernel = s.is_max ? step->kernels->f32_maxpool : step->kernels->f32_avgpool;
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->kernel_name = s.kernel.name;
    step->state = qn__alloc(qn__plan_context(plan), sizeof s);
    if (step->state == NULL)
        return QN_NOMEM(error);
    *(pool_state *)step->state = s;
    return QN_OK;
}

static void pool_release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

typedef struct pool_call {
    const pool_state *s;
    const float *in;
    float *out;
    size_t rows, tasks;
} pool_call;

/* Taps that lie in the input or its pads: the divisor when pads count. A window rounded up beyond
 * the pads is shorter. */
static size_t taps_with_pads(ptrdiff_t start, size_t size, size_t pad_end, size_t taps,
                             size_t dilation)
{
    const ptrdiff_t room = (ptrdiff_t)(size + pad_end) - start;
    const size_t fit = room <= 0 ? 0 : ((size_t)room + dilation - 1) / dilation;
    return fit < taps ? fit : taps;
}

/* Outputs [x0, x1) of a row, whose windows have the same taps inside; row_taps: rows times pads
 * counted for the divisor. */
static void run_span(const pool_state *s, qn_f32_pool_args *args, const float *in, float *out,
                     size_t x0, size_t x1, size_t divisor_rows)
{
    const qn_window *const w = &s->window;
    const ptrdiff_t start = (ptrdiff_t)(x0 * w->sw) - (ptrdiff_t)w->pl;
    size_t first, last;
    qn_window_taps(start, w->w, w->kw, w->dw, &first, &last);
    args->n = x1 - x0;
    args->kw = last - first;
    args->out = out + x0 * w->c;
    if (args->kh == 0 || args->kw == 0) {
        for (size_t i = 0; i < args->n * w->c; i++)
            args->out[i] = s->is_max ? -FLT_MAX : 0.0f;
        return;
    }
    args->in = in + (size_t)(start + (ptrdiff_t)(first * w->dw)) * w->c;
    const size_t columns =
        s->count_pads ? taps_with_pads(start, w->w, w->pr, w->kw, w->dw) : args->kw;
    args->scale = 1.0f / (float)(divisor_rows * columns);
    s->kernel.fn(args);
}

static void run_row(const pool_call *call, size_t row)
{
    const pool_state *const s = call->s;
    const qn_window *const w = &s->window;
    const size_t image = row / w->oh, oy = row % w->oh, row_floats = w->w * w->c;
    const ptrdiff_t start = (ptrdiff_t)(oy * w->sh) - (ptrdiff_t)w->pt;
    size_t first, last;
    qn_window_taps(start, w->h, w->kh, w->dh, &first, &last);
    const size_t divisor_rows =
        s->count_pads ? taps_with_pads(start, w->h, w->pb, w->kh, w->dh) : last - first;
    qn_f32_pool_args args = {
        .channels = w->c,
        .kh = last - first,
        .in_row = w->dh * row_floats,
        .in_col = w->dw * w->c,
        .in_step = w->sw * w->c,
        .out_step = w->c,
    };
    const float *in = call->in;
    if (first < last)
        in += (image * w->h + (size_t)(start + (ptrdiff_t)(first * w->dh))) * row_floats;
    float *const out = call->out + row * w->ow * w->c;
    const size_t extent = (w->kw - 1) * w->dw + 1;
    size_t x0 = (w->pl + w->sw - 1) / w->sw, x1 = 0;
    x0 = x0 < w->ow ? x0 : w->ow;
    if (w->w + w->pl >= extent)
        x1 = (w->w + w->pl - extent) / w->sw + 1;
    x1 = x1 < w->ow ? x1 : w->ow;
    for (size_t x = 0; x < x0; x++)
        run_span(s, &args, in, out, x, x + 1, divisor_rows);
    if (x1 > x0)
        run_span(s, &args, in, out, x0, x1, divisor_rows);
    for (size_t x = x1 > x0 ? x1 : x0; x < w->ow; x++)
        run_span(s, &args, in, out, x, x + 1, divisor_rows);
}

static void run_task(void *arg, size_t index)
{
    const pool_call *const call = arg;
    const size_t end = (index + 1) * call->rows / call->tasks;
    for (size_t row = index * call->rows / call->tasks; row < end; row++)
        run_row(call, row);
}

static void clamp_all(float *values, size_t count, qn_clamp_f32 clamp)
{
    for (size_t i = 0; i < count; i++) {
        const float v = values[i] < clamp.lo ? clamp.lo : values[i];
        values[i] = v > clamp.hi ? clamp.hi : v;
    }
}

static qn_status pool_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                          const qn_view *out, qn_error *error)
{
    (void)error;
    const pool_state *const s = step->state;
    pool_call call = {s, in[0].data, out[0].data, s->window.n * s->window.oh, 1};
    if (out[0].count == 0)
        return QN_OK;
    const size_t threads = qn__pool_size(env->pool);
    if (threads > 1)
        call.tasks =
            threads * TASKS_PER_THREAD < call.rows ? threads * TASKS_PER_THREAD : call.rows;
    qn__parallel(env->pool, run_task, &call, call.tasks);
    if (step->node->act != QN_ACT_NONE)
        clamp_all(out[0].data, out[0].count, qn__step_clamp(step));
    return QN_OK;
}

/* --- global pools: one window per image
 * ---------------------------------------------------------*/
static qn_status global_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    QN_TRY(check_f32(step, error));
    const uint8_t rank = step->node->inputs[0]->rank;
    if (rank < 3)
        return qn__step_fail(step, error, QN_CORRUPT, "input of rank %u", rank);
    /* The pooled axes have one element each, so both layouts of the output are the same bytes. */
    step->in_layout[0] = rank == 4 ? QN_LAYOUT_CHANNELS_LAST : QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = step->in_layout[0];
    const bool is_max = step->node->op == QN_OP_GLOBAL_MAX_POOL;
    step->kernel_name = is_max ? step->kernels->f32_maxpool.name : step->kernels->f32_avgpool.name;
    return QN_OK;
}

typedef struct global_call {
    const qn_f32_pool *kernel;
    const float *in;
    float *out;
    size_t channels, positions, blocks; /* blocks of channels per image */
    bool channels_last;
} global_call;

static void global_task(void *arg, size_t index)
{
    const global_call *const call = arg;
    const size_t image = index / call->blocks, c0 = index % call->blocks * GLOBAL_CHANNELS;
    const size_t left = call->channels - c0;
    const size_t channels = left < GLOBAL_CHANNELS ? left : GLOBAL_CHANNELS;
    const float *const in = call->in + image * call->channels * call->positions;
    qn_f32_pool_args args = {
        .n = 1,
        .channels = channels,
        .kh = 1,
        .kw = call->positions,
        .in = in + c0,
        .in_col = call->channels,
        .out = call->out + image * call->channels + c0,
        .scale = 1.0f / (float)call->positions,
    };
    if (!call->channels_last) { /* each channel's positions are one run */
        args.in = in + c0 * call->positions;
        args.in_step = call->positions;
        args.in_col = 1;
        args.n = channels;
        args.channels = 1;
        args.out_step = 1;
    }
    call->kernel->fn(&args);
}

static qn_status global_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                            const qn_view *out, qn_error *error)
{
    (void)error;
    const bool is_max = step->node->op == QN_OP_GLOBAL_MAX_POOL;
    if (in[0].count == 0) { /* of no positions there is no mean */
        for (size_t i = 0; i < out[0].count; i++)
            ((float *)out[0].data)[i] = is_max ? -INFINITY : NAN;
        return QN_OK;
    }
    const size_t channels = (size_t)in[0].dims[1];
    global_call call = {
        .kernel = is_max ? &step->kernels->f32_maxpool : &step->kernels->f32_avgpool,
        .in = in[0].data,
        .out = out[0].data,
        .channels = channels,
        .positions = in[0].count / out[0].count,
        .blocks = (channels + GLOBAL_CHANNELS - 1) / GLOBAL_CHANNELS,
        .channels_last = in[0].layout == QN_LAYOUT_CHANNELS_LAST,
    };
    qn__parallel(env->pool, global_task, &call, call.blocks * (size_t)in[0].dims[0]);
    if (step->node->act != QN_ACT_NONE)
        clamp_all(out[0].data, out[0].count, qn__step_clamp(step));
    return QN_OK;
}

const qn_run_op qn__op_pool = {QN_OP_NONE, pool_prepare, pool_run, pool_release};
const qn_run_op qn__op_global_pool = {QN_OP_NONE, global_prepare, global_run, NULL};
