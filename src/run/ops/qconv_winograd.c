/* Quantized convolution of windows of 3x3 by Winograd's algorithm (kernel/q8_winograd.h): the bytes
 * of the GEMM with a quarter of its products, for kernels that multiply 16 bits fast enough.
 * Weights take eight times the memory. Whatever does not fit is left to qconv.c. */
#include "core/alloc.h"
#include "run/ops/q8_run.h"
#include "run/ops/window.h"
#include "run/ops/window_nd.h"

#include <string.h>

enum { TILE = QN_WINOGRAD_TILE, IN = QN_WINOGRAD_IN, OUT = QN_WINOGRAD_OUT };
/* Tiles that share one reading of the weights, and how many of them times channels fit a task's
 * stack: of 128 channels six. With more channels inputs are transformed in scratch memory, so many
 * tiles at once. */
enum { BLOCK = 12, STACK_VALUES = 768, SCRATCH_BLOCK = 24 };
enum { MAX_COLUMNS = 1024, TASKS_PER_THREAD = 4 };
/* Larger weights, which are read whole for every block of tiles, are better read as they are: this
 * is 256 channels of 256. */
enum { MAX_VALUES = IN * 256 * 256 };

extern const qn_run_op qn__op_qconv;

typedef struct winograd_state {
    qn_q8_winograd kernel;
    qn_window window;
    qn_qweights weights;
    qn_requant requant;
    uint8_t *packed;                /* NULL: not this way */
    uint8_t *zeros;                 /* [c] zero points */
    size_t tiles_y, tiles_x, tiles; /* of a picture; of all */
    size_t block; /* tiles that a task transforms for itself; 0: all threads in turns, in scratch */
} winograd_state;

static size_t div_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* --- preparing ---------------------------------------------------------------------------------*/
static __attribute__((cold)) void release(const qn_context *ctx, qn_step *step)
{
    winograd_state *const s = step->state;
    if (s == NULL)
        return;
    qn__qweights_free(ctx, &s->weights);
    qn__free_aligned(ctx, s->packed);
    qn__free(ctx, s->zeros);
    qn__free(ctx, s);
    step->state = NULL;
}

/* By what does not have to be read. */
static __attribute__((cold)) bool may_fit(const qn_plan *plan, const qn_step *step)
{
    const qn_plan_options *const options = qn__plan_get_options(plan);
    const qn_q8_winograd *const kernel = &step->kernels->q8_winograd;
    const qn_tensor *const x = step->node->inputs[0], *const w = qn__step_input(step, 1);
    if (kernel->tiles <= 1 || options->collect != NULL || options->saturate16 ||
        qn__plan_requantize(plan) != QN_REQUANTIZE_DEFAULT || x->type.dtype != QN_DTYPE_U8 ||
        step->node->outputs[0]->type.kind != QN_TYPE_QUANT || x->rank != 4 || w == NULL ||
        w->rank != 4 || w->dims[2].value != 3 || w->dims[3].value != 3 ||
        w->dims[1].value != x->dims[1].value || qn__attr_int(step->node, "group", 1) != 1)
        return false;
    const int64_t n = w->dims[0].value, c = w->dims[1].value, nr = (int64_t)kernel->nr;
    return n > 0 && c > 0 && n % nr == 0 && c % nr == 0 && n <= MAX_COLUMNS &&
           c <= MAX_VALUES / IN / n;
}

static __attribute__((cold)) bool fits(const qn_plan *plan, const qn_window *w, const qn_qparams *x)
{
    const size_t tiles = div_up(w->oh, TILE) * div_up(w->ow, TILE);
    return qn__q8_activations(plan, x) && w->sh == 1 && w->sw == 1 && w->dh == 1 && w->dw == 1 &&
           w->oh >= TILE && w->ow >= TILE &&
           2 * w->oh * w->ow >= tiles * OUT; /* a tile is worth half of its outputs */
}

static __attribute__((cold)) qn_status pack(const qn_plan *plan, qn_step *step, const qn_qparams *x,
                                            winograd_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_window *const w = &s->window;
    const size_t nr = s->kernel.nr, bytes = w->oc / nr * qn_q8_winograd_panel_bytes(w->c, nr);
    int8_t *own;
    const int8_t *const values = qn__q8_values(ctx, &s->weights, w->oc * w->c * 9, &own);
    s->packed = qn__alloc_aligned(ctx, bytes);
    s->zeros = qn__alloc(ctx, w->c);
    if (values == NULL || s->packed == NULL || s->zeros == NULL) {
        qn__free(ctx, own);
        return QN_NOMEM(error);
    }
    memset(s->zeros, x->zero, w->c);
    qn__will_write(s->packed, bytes);
    const bool fine = qn__q8_winograd_pack(s->packed, values, w->oc, w->c, nr, s->requant.bias,
                                           x->zero, s->requant.scale);
    qn__free(ctx, own);
    if (!fine) {
        qn__free_aligned(ctx, s->packed);
        s->packed = NULL;
        return QN_OK;
    }
    step->packed_bytes = bytes;
    step->weights = s->packed;
    step->kernel_name = s->kernel.name;
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->strides_output = true;
    if (s->block == 0) {
        const size_t most = s->tiles < SCRATCH_BLOCK ? s->tiles : SCRATCH_BLOCK;
        step->scratch_bytes = IN * qn_q8_winograd_step(most, w->c) * sizeof(int16_t);
    }
    return QN_OK;
}

/* Leaves packed NULL where the algorithm does not fit. */
static __attribute__((cold)) qn_status prepare_state(const qn_plan *plan, qn_step *step,
                                                     void *state, qn_error *error)
{
    winograd_state *const s = state;
    qn_window *const w = &s->window;
    const int64_t kernel[QN_MAX_RANK] = {3, 3};
    qn_qparams x;
    float s_y;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &x, error));
    QN_TRY(qn__window_read(step, kernel, false, false, w, error));
    if (w->oc != (size_t)step->node->inputs[1]->dims[0].value || !fits(plan, w, &x))
        return QN_OK;
    QN_TRY(qn__qweights_scales(plan, step, 1, 0, w->oc, &x, 1.0f, 2, &s->weights, error));
    if (s->weights.bytes == NULL)
        QN_TRY(qn__qweights_values(plan, step, 1, 0, &s->weights, error));
    QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed, &s->requant,
                       &s_y, error));
    s->kernel = step->kernels->q8_winograd;
    s->tiles_y = div_up(w->oh, TILE);
    s->tiles_x = div_up(w->ow, TILE);
    s->tiles = w->n * s->tiles_y * s->tiles_x;
    const size_t most = STACK_VALUES / w->c;
    s->block = most < BLOCK / 2 ? 0 : most < BLOCK ? most : BLOCK;
    const qn_status status = s->weights.fits_i8 ? pack(plan, step, &x, s, error) : QN_OK;
    qn__qweights_drop_values(qn__plan_context(plan), &s->weights);
    return status;
}

static __attribute__((cold)) qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    if (!may_fit(plan, step))
        return qn_prepare_as(&qn__op_qconv, plan, step, error);
    QN_TRY(qn__step_make_state(plan, step, sizeof(winograd_state), prepare_state, release, error));
    const winograd_state *const s = step->state;
    if (s->packed != NULL)
        return QN_OK;
    release(qn__plan_context(plan), step);
    return qn_prepare_as(&qn__op_qconv, plan, step, error);
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct wino_call {
    const winograd_state *s;
    const uint8_t *in;
    uint8_t *out;
    size_t pitch; /* of outputs */
    qn_q8_out format;
    size_t tasks, shares; /* of tiles; of each task's columns */
    size_t panels;
    int16_t *v; /* scratch: tiles first to last */
    size_t first, last;
} wino_call;

/* Where a tile is: its picture and its first output. */
typedef struct place {
    size_t image, y, x;
} place;

static place place_of(const winograd_state *s, size_t tile)
{
    const size_t row = tile / s->tiles_x, image = row / s->tiles_y;
    return (place){image, (row - image * s->tiles_y) * TILE, (tile - row * s->tiles_x) * TILE};
}

static void next_place(const winograd_state *s, place *p)
{
    p->x += TILE;
    if (p->x >= s->window.ow) {
        p->x = 0;
        p->y += TILE;
        if (p->y >= s->window.oh) {
            p->y = 0;
            p->image++;
        }
    }
}

/* Pointers to 6x6 inputs; those beside the picture are zero points. */
static void point_in(const wino_call *call, const place *at, const uint8_t **in)
{
    const qn_window *const w = &call->s->window;
    const uint8_t *const zeros = call->s->zeros;
    const uint8_t *const image = call->in + at->image * w->h * w->w * w->c;
    const size_t y0 = at->y - w->pt, x0 = at->x - w->pl; /* before the picture: very large */
    const bool whole = x0 < w->w && w->w - x0 >= 6;
    for (size_t i = 0; i < 6; i++, in += 6) {
        const size_t y = y0 + i;
        if (y >= w->h) {
            for (size_t j = 0; j < 6; j++)
                in[j] = zeros;
            continue;
        }
        const size_t first = (y * w->w + x0) * w->c; /* modulo the size of memory, too */
        if (whole)
            for (size_t j = 0; j < 6; j++)
                in[j] = image + first + j * w->c;
        else
            for (size_t j = 0; j < 6; j++)
                in[j] = x0 + j < w->w ? image + (first + j * w->c) : zeros;
    }
}

/* Pointers to column n of 4x4 outputs; those beside the picture go nowhere. */
static void point_out(const wino_call *call, const place *at, size_t n, uint8_t *nowhere,
                      uint8_t **out)
{
    const qn_window *const w = &call->s->window;
    const size_t columns = w->ow - at->x < TILE ? w->ow - at->x : TILE;
    uint8_t *row = call->out + ((at->image * w->oh + at->y) * w->ow + at->x) * call->pitch + n;
    for (size_t i = 0; i < TILE; i++, out += TILE, row += w->ow * call->pitch) {
        const size_t there = at->y + i < w->oh ? columns : 0;
        for (size_t j = 0; j < TILE; j++)
            out[j] = j < there ? row + j * call->pitch : nowhere;
    }
}

/* Panels p0 to p1 of tiles t0 to t1, whose inputs are in args. */
static void run_panels(const wino_call *call, qn_q8_winograd_args *args, size_t t0, size_t t1,
                       size_t p0, size_t p1)
{
    const winograd_state *const s = call->s;
    uint8_t *out[SCRATCH_BLOCK * OUT];
    uint8_t nowhere[MAX_COLUMNS];
    place at = place_of(s, t0);
    for (size_t t = 0; t < t1 - t0; t++, next_place(s, &at))
        point_out(call, &at, p0 * s->kernel.nr, nowhere, out + t * OUT);
    args->out = out;
    args->n = (p1 - p0) * s->kernel.nr;
    args->w = s->packed + p0 * qn_q8_winograd_panel_bytes(s->window.c, s->kernel.nr);
    args->format = &call->format;
    s->kernel.fn(args);
}

/* Some tiles, in blocks, and a share of their columns. */
static void run_block(void *arg, size_t index)
{
    const wino_call *const call = arg;
    const winograd_state *const s = call->s;
    _Alignas(64) int16_t v[IN * (STACK_VALUES + 32)];
    const uint8_t *in[BLOCK * IN];
    const size_t task = index / call->shares, share = index - task * call->shares;
    const size_t p0 = share * call->panels / call->shares;
    const size_t p1 = (share + 1) * call->panels / call->shares;
    const size_t end = (task + 1) * s->tiles / call->tasks;
    for (size_t t0 = task * s->tiles / call->tasks, t1; t0 < end; t0 = t1) {
        t1 = end - t0 < s->block ? end : t0 + s->block;
        place at = place_of(s, t0);
        for (size_t t = 0; t < t1 - t0; t++, next_place(s, &at))
            point_in(call, &at, in + t * IN);
        qn_q8_winograd_args args = {.tiles = t1 - t0,
                                    .channels = s->window.c,
                                    .in = in,
                                    .v = v,
                                    .v_step = qn_q8_winograd_step(t1 - t0, s->window.c)};
        s->kernel.inputs(&args);
        run_panels(call, &args, t0, t1, p0, p1);
    }
}

/* The inputs of a tile, to scratch. */
static void run_inputs(void *arg, size_t index)
{
    const wino_call *const call = arg;
    const winograd_state *const s = call->s;
    const uint8_t *in[IN];
    const place at = place_of(s, call->first + index);
    point_in(call, &at, in);
    const qn_q8_winograd_args args = {
        .tiles = 1,
        .channels = s->window.c,
        .in = in,
        .v = call->v + index * s->window.c,
        .v_step = qn_q8_winograd_step(call->last - call->first, s->window.c)};
    s->kernel.inputs(&args);
}

/* A panel of the tiles in scratch. */
static void run_panel(void *arg, size_t index)
{
    const wino_call *const call = arg;
    const size_t tiles = call->last - call->first, channels = call->s->window.c;
    qn_q8_winograd_args args = {.tiles = tiles,
                                .channels = channels,
                                .v = call->v,
                                .v_step = qn_q8_winograd_step(tiles, channels)};
    run_panels(call, &args, call->first, call->last, index, index + 1);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const winograd_state *const s = step->state;
    const qn_window *const w = &s->window;
    const size_t threads = qn__pool_size(env->pool);
    wino_call call = {.s = s,
                      .in = in[0].data,
                      .out = out[0].data,
                      .pitch = out[0].pitch != 0 ? out[0].pitch : w->oc,
                      .format = qn__q8_format(&s->requant),
                      .panels = w->oc / s->kernel.nr,
                      .tasks = 1,
                      .shares = 1,
                      .v = env->scratch};
    if (s->tiles == 0)
        return QN_OK;
    if (s->block == 0) {
        const size_t parts = div_up(s->tiles, SCRATCH_BLOCK);
        for (size_t i = 0; i < parts; i++) {
            call.first = i * s->tiles / parts;
            call.last = (i + 1) * s->tiles / parts;
            qn__parallel(env->pool, run_inputs, &call, call.last - call.first);
            qn__parallel(env->pool, run_panel, &call, call.panels);
        }
        return QN_OK;
    }
    if (threads > 1) {
        const size_t blocks = div_up(s->tiles, s->block), most = div_up(s->tiles, s->block / 2);
        call.tasks = threads * TASKS_PER_THREAD < blocks ? threads * TASKS_PER_THREAD
                     : blocks >= 2 * threads             ? blocks
                                                         : most;
        if (call.tasks < threads)
            call.shares = threads / call.tasks < call.panels ? threads / call.tasks : call.panels;
    }
    qn__parallel(env->pool, run_block, &call, call.tasks * call.shares);
    return QN_OK;
}

const qn_run_op qn__op_qconv_winograd = {QN_OP_CONV, prepare, run, release};
