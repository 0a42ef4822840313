#include "run/ops/q8_winograd.h"

#include "core/alloc.h"
#include "run/ops/q8_run.h"

#include <string.h>

enum { TILE = QN_WINOGRAD_TILE, IN = QN_WINOGRAD_IN, OUT = QN_WINOGRAD_OUT };
/* Tiles that share one reading of the weights, and how many of them times channels fit a task's
 * stack: of 128 channels six. With more channels inputs are transformed in scratch memory, so many
 * tiles at once. */
enum { BLOCK = 12, STACK_VALUES = 768, SCRATCH_BLOCK = 24 };
enum { MAX_COLUMNS = 1024, TASKS_PER_THREAD = 4 };
/* Larger weights, which are read whole for every block of tiles, are better read as they are: this
 * is 256 channels of 256. */
enum { MAX_WEIGHTS = 36 * 2 * 256 * 256 };

static size_t div_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* --- preparing ---------------------------------------------------------------------------------*/
static __attribute__((cold)) bool fits(const qn_plan *plan, const qn_step *step, const qn_window *w,
                                       size_t groups, const qn_qparams *x,
                                       const qn_requant *requant)
{
    const qn_plan_options *const options = qn__plan_get_options(plan);
    const size_t tiles = div_up(w->oh, TILE) * div_up(w->ow, TILE);
    return step->kernels->q8_igemm.pairs != NULL && step->kernels->q8_winograd.tiles > 1 &&
           options->collect == NULL && !options->saturate16 && qn__q8_activations(plan, x) &&
           x->dtype == QN_DTYPE_U8 && requant->dtype != QN_DTYPE_F32 && requant->fixed == NULL &&
           groups == 1 && w->kh == 3 && w->kw == 3 && w->sh == 1 && w->sw == 1 && w->dh == 1 &&
           w->dw == 1 && w->c % QN_WINOGRAD_CHANNELS == 0 && w->oc % QN_WINOGRAD_CHANNELS == 0 &&
           w->oc <= MAX_COLUMNS && w->c <= MAX_WEIGHTS / (2 * IN) / w->oc &&
           /* A tile is worth as much as half of its outputs. */
           2 * w->oh * w->ow >= tiles * OUT && w->oh >= TILE && w->ow >= TILE;
}

static __attribute__((cold)) qn_status pack(const qn_plan *plan, qn_step *step, const qn_qparams *x,
                                            const qn_qweights *weights, const qn_requant *requant,
                                            qn_q8_wino *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_window *const w = &s->window;
    const size_t bytes = w->oc / QN_WINOGRAD_CHANNELS * qn_q8_winograd_panel_bytes(w->c);
    int8_t *own;
    const int8_t *const values = qn__q8_values(ctx, weights, w->oc * w->c * 9, &own);
    s->packed = qn__alloc_aligned(ctx, bytes);
    s->zeros = qn__alloc(ctx, w->c);
    if (values == NULL || s->packed == NULL || s->zeros == NULL) {
        qn__free(ctx, own);
        return QN_NOMEM(error);
    }
    memset(s->zeros, x->zero, w->c);
    qn__will_write(s->packed, bytes);
    const bool fine = qn__q8_winograd_pack(s->packed, values, w->oc, w->c, requant->bias, x->zero,
                                           requant->scale);
    qn__free(ctx, own);
    if (!fine) {
        qn__q8_wino_free(ctx, s);
        return QN_OK;
    }
    step->packed_bytes = bytes;
    step->weights = s->packed;
    step->kernel_name = s->kernel.name;
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->strides_output = true;
    if (s->block == 0) {
        const size_t most = s->tiles < SCRATCH_BLOCK ? s->tiles : SCRATCH_BLOCK;
        step->scratch_bytes = IN * qn_q8_winograd_step(most, w->c) * sizeof(int16_t);
    }
    return QN_OK;
}

__attribute__((cold)) qn_status qn__q8_wino_prepare(const qn_plan *plan, qn_step *step,
                                                    const qn_window *window, size_t groups,
                                                    const qn_qparams *x, qn_qweights *weights,
                                                    const qn_requant *requant, qn_q8_wino *out,
                                                    qn_error *error)
{
    if (!fits(plan, step, window, groups, x, requant))
        return QN_OK;
    if (weights->bytes == NULL && weights->values == NULL)
        QN_TRY(qn__qweights_values(plan, step, 1, 0, weights, error));
    if (!weights->fits_i8)
        return QN_OK;
    const size_t most = STACK_VALUES / window->c;
    out->window = *window;
    out->kernel = step->kernels->q8_winograd;
    out->tiles_y = div_up(window->oh, TILE);
    out->tiles_x = div_up(window->ow, TILE);
    out->tiles = window->n * out->tiles_y * out->tiles_x;
    out->block = most >= BLOCK / 2 ? (most < BLOCK ? most : BLOCK) : 0;
    return pack(plan, step, x, weights, requant, out, error);
}

__attribute__((cold)) void qn__q8_wino_free(const qn_context *ctx, qn_q8_wino *s)
{
    qn__free_aligned(ctx, s->packed);
    qn__free(ctx, s->zeros);
    *s = (qn_q8_wino){0};
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct wino_call {
    const qn_q8_wino *s;
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

static place place_of(const qn_q8_wino *s, size_t tile)
{
    const size_t row = tile / s->tiles_x, image = row / s->tiles_y;
    return (place){image, (row - image * s->tiles_y) * TILE, (tile - row * s->tiles_x) * TILE};
}

static void next_place(const qn_q8_wino *s, place *p)
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
    for (size_t i = 0; i < 6; i++, in += 6) {
        const size_t y = at->y + i - w->pt; /* above the picture: very large */
        const uint8_t *const row = image + (y < w->h ? y : 0) * w->w * w->c;
        for (size_t j = 0; j < 6; j++) {
            const size_t x = at->x + j - w->pl;
            in[j] = y < w->h && x < w->w ? row + x * w->c : zeros;
        }
    }
}

/* Pointers to column n of 4x4 outputs; those beside the picture go nowhere. */
static void point_out(const wino_call *call, const place *at, size_t n, uint8_t *nowhere,
                      uint8_t **out)
{
    const qn_window *const w = &call->s->window;
    for (size_t i = 0; i < TILE; i++, out += TILE) {
        const size_t y = at->y + i;
        uint8_t *const row = call->out + (at->image * w->oh + y) * w->ow * call->pitch + n;
        for (size_t j = 0; j < TILE; j++) {
            const size_t x = at->x + j;
            out[j] = y < w->oh && x < w->ow ? row + x * call->pitch : nowhere;
        }
    }
}

/* Panels p0 to p1 of tiles t0 to t1, whose inputs are in args. */
static void run_panels(const wino_call *call, qn_q8_winograd_args *args, size_t t0, size_t t1,
                       size_t p0, size_t p1)
{
    const qn_q8_wino *const s = call->s;
    uint8_t *out[SCRATCH_BLOCK * OUT];
    uint8_t nowhere[MAX_COLUMNS];
    place at = place_of(s, t0);
    for (size_t t = 0; t < t1 - t0; t++, next_place(s, &at))
        point_out(call, &at, p0 * QN_WINOGRAD_CHANNELS, nowhere, out + t * OUT);
    args->out = out;
    args->n = (p1 - p0) * QN_WINOGRAD_CHANNELS;
    args->w = s->packed + p0 * qn_q8_winograd_panel_bytes(s->window.c);
    args->format = &call->format;
    s->kernel.fn(args);
}

/* Some tiles, in blocks, and a share of their columns. */
static void run_block(void *arg, size_t index)
{
    const wino_call *const call = arg;
    const qn_q8_wino *const s = call->s;
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
    const qn_q8_wino *const s = call->s;
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

void qn__q8_wino_run(const qn_q8_wino *s, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, const qn_requant *requant)
{
    const qn_window *const w = &s->window;
    const size_t threads = qn__pool_size(env->pool);
    wino_call call = {.s = s,
                      .in = in->data,
                      .out = out->data,
                      .pitch = out->pitch != 0 ? out->pitch : w->oc,
                      .format = qn__q8_format(requant),
                      .panels = w->oc / QN_WINOGRAD_CHANNELS,
                      .tasks = 1,
                      .shares = 1,
                      .v = env->scratch};
    if (s->tiles == 0)
        return;
    if (s->block == 0) {
        const size_t parts = div_up(s->tiles, SCRATCH_BLOCK);
        for (size_t i = 0; i < parts; i++) {
            call.first = i * s->tiles / parts;
            call.last = (i + 1) * s->tiles / parts;
            qn__parallel(env->pool, run_inputs, &call, call.last - call.first);
            qn__parallel(env->pool, run_panel, &call, call.panels);
        }
        return;
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
}
