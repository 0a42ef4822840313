/* Quantized convolution of windows of 3x3 by Winograd's algorithm (kernel/q8_winograd.h): the bytes
 * of the GEMM with a quarter of its products, for kernels that multiply 16 bits fast enough.
 * Weights take eight times the memory. Whatever does not fit is left to qconv.c. */
#include "core/alloc.h"
#include "core/checked.h"
#include "run/ops/q8_run.h"
#include "run/ops/window.h"
#include "run/ops/window_nd.h"

#include <string.h>

enum { TILE = QN_WINOGRAD_TILE, IN = QN_WINOGRAD_IN, OUT = QN_WINOGRAD_OUT };
enum { IN_SIDE = TILE + 2 };
enum { CH = QN_WINOGRAD_CHANNELS };
/* Tiles that share one reading of the weights, and how many of them times channels fit a task's
 * stack: of 128 channels six. Kernels like an even number of them. */
enum { BLOCK = 12, STACK_VALUES = 768, UNIT = 2 };
/* Weights of 256 channels of 256, 4.7 MB of them, were no gain worth their memory: they come from
 * the third-level cache for every picture. */
enum { MAX_CHANNELS = 128, MAX_WEIGHTS = 128 * 128 };

extern const qn_run_op qn__op_qconv;

typedef struct winograd_state {
    qn_q8_winograd kernel;
    qn_window window;
    qn_qweights weights;
    qn_requant requant;
    uint8_t *packed;                /* NULL: not this way */
    uint8_t *zeros;                 /* a row of zero points, of six pixels at least */
    size_t tiles_y, tiles_x, tiles; /* of a picture; of all */
    size_t block;                   /* most tiles at once */
} winograd_state;

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
    const qn_tensor *const x = step->node->inputs[0], *const w = qn__step_input(step, 1);
    const qn_tensor *const y = step->node->outputs[0];
    return step->kernels->q8_winograd.least <= OUT && options->collect == NULL &&
           !options->saturate16 && qn__plan_requantize(plan) == QN_REQUANTIZE_DEFAULT &&
           w != NULL && x->rank == 4 && w->rank == 4 && w->dims[2].value == 3 &&
           w->dims[3].value == 3 && x->type.dtype == QN_DTYPE_U8 && y->type.kind == QN_TYPE_QUANT &&
           w->dims[1].value == x->dims[1].value && w->dims[1].value > 0 &&
           w->dims[1].value % CH == 0 && w->dims[0].value % CH == 0 && w->dims[0].value > 0 &&
           w->dims[0].value <= MAX_WEIGHTS && w->dims[1].value <= MAX_CHANNELS &&
           w->dims[1].value * w->dims[0].value <= MAX_WEIGHTS &&
           qn__attr_int(step->node, "group", 1) == 1;
}

static __attribute__((cold)) bool fits(const qn_plan *plan, const qn_step *step, const qn_window *w,
                                       const qn_qparams *x)
{
    const size_t tiles = qn_div_up(w->oh, TILE) * qn_div_up(w->ow, TILE);
    return qn__q8_activations(plan, x) && w->sh == 1 && w->sw == 1 && w->dh == 1 && w->dw == 1 &&
           w->oh * w->ow >= tiles * step->kernels->q8_winograd.least;
}

static __attribute__((cold)) qn_status pack(const qn_plan *plan, qn_step *step, const qn_qparams *x,
                                            winograd_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_window *const w = &s->window;
    const size_t bytes = w->oc / CH * qn_q8_winograd_panel_bytes(w->c);
    const size_t zeros = (w->w > IN_SIDE ? w->w : IN_SIDE) * w->c;
    int8_t *own;
    const int8_t *const values = qn__q8_values(ctx, &s->weights, w->oc * w->c * 9, &own);
    s->packed = qn__alloc_aligned(ctx, bytes);
    s->zeros = qn__alloc(ctx, zeros);
    if (values == NULL || s->packed == NULL || s->zeros == NULL) {
        qn__free(ctx, own);
        return QN_NOMEM(error);
    }
    memset(s->zeros, x->zero, zeros);
    qn__will_write(s->packed, bytes);
    const bool fine = qn__q8_winograd_pack(s->packed, values, w->oc, w->c, s->requant.bias, x->zero,
                                           s->requant.scale);
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
    if (w->oc != (size_t)step->node->inputs[1]->dims[0].value || !fits(plan, step, w, &x))
        return QN_OK;
    QN_TRY(qn__qweights_scales(plan, step, 1, 0, w->oc, &x, 1.0f, 2, &s->weights, error));
    if (s->weights.bytes == NULL)
        QN_TRY(qn__qweights_values(plan, step, 1, 0, &s->weights, error));
    QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed, &s->requant,
                       &s_y, error));
    s->kernel = step->kernels->q8_winograd;
    s->tiles_y = qn_div_up(w->oh, TILE);
    s->tiles_x = qn_div_up(w->ow, TILE);
    s->tiles = w->n * s->tiles_y * s->tiles_x;
    const size_t most = STACK_VALUES / w->c;
    s->block = most < BLOCK ? most / UNIT * UNIT : BLOCK;
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

/* The rows of pixels that a row of tiles reads, and where its outputs begin. */
typedef struct tile_row {
    const uint8_t *in[IN_SIDE];
    uint8_t *out;
    uint8_t rows;
} tile_row;

static void point_rows(const wino_call *call, const place *at, size_t n, tile_row *row)
{
    const winograd_state *const s = call->s;
    const qn_window *const w = &s->window;
    const uint8_t *const image = call->in + at->image * w->h * w->w * w->c;
    const size_t y0 = at->y - w->pt; /* above the picture very large */
    for (size_t i = 0; i < IN_SIDE; i++)
        row->in[i] = y0 + i < w->h ? image + (y0 + i) * w->w * w->c : s->zeros;
    row->out = call->out + (at->image * w->oh + at->y) * w->ow * call->pitch + n;
    row->rows = (uint8_t)(w->oh - at->y < TILE ? w->oh - at->y : TILE);
}

static void point(const wino_call *call, size_t x, const tile_row *row, qn_q8_winograd_tile *tile)
{
    const qn_window *const w = &call->s->window;
    const size_t left = x < w->pl ? w->pl - x : 0, x0 = x + left - w->pl;
    const size_t there = x0 < w->w ? w->w - x0 : 0;
    const size_t first = left < IN_SIDE ? left : IN_SIDE;
    const size_t offset = there != 0 ? x0 * w->c : 0;
    const size_t columns = w->ow - x;
    tile->left = (uint8_t)first;
    tile->right = (uint8_t)(there < IN_SIDE - first ? first + there : IN_SIDE);
    for (size_t i = 0; i < IN_SIDE; i++)
        tile->in[i] = row->in[i] + offset;
    tile->out = row->out + x * call->pitch;
    tile->rows = row->rows;
    tile->columns = (uint8_t)(columns < TILE ? columns : TILE);
}

/* Tiles t0 to t1, at most a block, and columns of panels p0 to p1. */
static void run_block(const wino_call *call, size_t t0, size_t t1, size_t p0, size_t p1)
{
    const winograd_state *const s = call->s;
    _Alignas(64) int16_t v[IN * (STACK_VALUES + QN_WINOGRAD_STEP_OVER)];
    qn_q8_winograd_tile tile[BLOCK];
    const size_t tiles = t1 - t0;
    tile_row row;
    place at = place_of(s, t0);
    for (size_t t = 0; t < tiles; t++, next_place(s, &at)) {
        if (t == 0 || at.x == 0)
            point_rows(call, &at, p0 * CH, &row);
        point(call, at.x, &row, tile + t);
    }
    const qn_q8_winograd_args args = {.tiles = tiles,
                                      .channels = s->window.c,
                                      .n = (p1 - p0) * CH,
                                      .tile = tile,
                                      .zeros = s->zeros,
                                      .out_row = s->window.ow * call->pitch,
                                      .out_step = call->pitch,
                                      .w = s->packed + p0 * qn_q8_winograd_panel_bytes(s->window.c),
                                      .v = v,
                                      .v_step = qn_q8_winograd_step(tiles, s->window.c),
                                      .format = &call->format};
    s->kernel.inputs(&args);
    s->kernel.fn(&args);
}

static void run_task(void *arg, size_t index)
{
    const wino_call *const call = arg;
    const winograd_state *const s = call->s;
    const size_t task = index / call->shares, share = index - task * call->shares;
    const size_t p0 = share * call->panels / call->shares;
    const size_t p1 = (share + 1) * call->panels / call->shares;
    const size_t units = qn_div_up(s->tiles, UNIT), last = (task + 1) * units / call->tasks * UNIT;
    const size_t end = last < s->tiles ? last : s->tiles;
    for (size_t t0 = task * units / call->tasks * UNIT, t1; t0 < end; t0 = t1) {
        t1 = end - t0 < s->block ? end : t0 + s->block;
        run_block(call, t0, t1, p0, p1);
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const winograd_state *const s = step->state;
    const size_t threads = qn__pool_size(env->pool);
    wino_call call = {.s = s,
                      .in = in[0].data,
                      .out = out[0].data,
                      .pitch = out[0].pitch != 0 ? out[0].pitch : s->window.oc,
                      .format = qn__q8_format(&s->requant),
                      .panels = s->window.oc / CH,
                      .tasks = 1,
                      .shares = 1};
    if (s->tiles == 0)
        return QN_OK;
    if (threads > 1) {
        const size_t units = qn_div_up(s->tiles, UNIT);
        const size_t even = qn_div_up(qn_div_up(s->tiles, s->block), threads) * threads;
        call.tasks = even < units ? even : units;
        if (call.tasks < threads)
            call.shares = threads / call.tasks < call.panels ? threads / call.tasks : call.panels;
    }
    qn__parallel(env->pool, run_task, &call, call.tasks * call.shares);
    return QN_OK;
}

const qn_run_op qn__op_qconv_winograd = {QN_OP_CONV, prepare, run, release};
