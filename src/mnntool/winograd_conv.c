/* A convolution as MNN's float runtime computes it with Winograd's transforms. Tiles go in groups
 * of QN_MNN_GROUP, in the order of their rows. What rounds differently from group to group:
 *
 *   - the second direction of an incomplete group's inputs is transformed as the first one is;
 *   - where its tiles are cut into pieces of 20, 16 and 5 and one is left, the products of that
 * tile are summed in four chains.
 *
 * All other sums are one chain of fused operations, which the indirect GEMM is too. */
#include "core/alloc.h"
#include "core/checked.h"
#include "mnntool/float_conv.h"
#include "mnntool/winograd.h"

#include <math.h>
#include <string.h>

enum { MOST_POSITIONS = QN_WINOGRAD_MOST_ALPHA * QN_WINOGRAD_MOST_ALPHA };

typedef struct winograd_state {
    qn_mnn_conv conv;
    int32_t unit, alpha;
    size_t positions, tiles_y, tiles_x;
    qn_f32_igemm igemm;
    float *packed, *bias; /* [groups][positions][packed_stride], [oc] */
    size_t packed_stride; /* floats of a position */
    qn_clamp_f32 clamp;
    /* Parts of the scratch, in floats. */
    size_t inputs_at, outputs_at, tile_at, half_at;
} winograd_state;

/* --- preparing ---------------------------------------------------------------------------------*/
bool qn__mnn_winograd_takes(const qn_mnn_conv *conv)
{
    return qn__mnn_winograd_unit(&conv->window, conv->group_c, conv->group_oc) != 0;
}

static void release(const qn_context *ctx, qn_step *step)
{
    winograd_state *const s = step->state;
    if (s == NULL)
        return;
    qn__free_aligned(ctx, s->packed);
    qn__free(ctx, s->bias);
    qn__free(ctx, s);
    step->state = NULL;
}

/* `plane`: [positions][rows of outputs][channels] of one group, scratch. */
static void pack_weights(winograd_state *s, const float *weights, float *plane)
{
    const size_t c = s->conv.group_c, oc = s->conv.group_oc,
                 taps = s->conv.window.kh * s->conv.window.kw;
    const int32_t kernel = (int32_t)s->conv.window.kh;
    float g[QN_WINOGRAD_MOST_ALPHA * QN_WINOGRAD_MOST_ALPHA], one[MOST_POSITIONS];
    qn__winograd_weight_matrix(s->alpha, kernel, g);
    float *packed = s->packed;
    for (size_t group = 0; group < s->conv.groups; group++) {
        for (size_t i = 0; i < oc * c; i++, weights += taps) {
            qn__winograd_weights(s->alpha, kernel, g, weights, one);
            for (size_t p = 0; p < s->positions; p++)
                plane[p * oc * c + i] = one[p];
        }
        for (size_t p = 0; p < s->positions; p++, packed += s->packed_stride)
            qn__f32_gemm_pack(packed, plane + p * oc * c, NULL, oc, c, 1, c, c, 1, s->igemm.nr);
    }
}

static bool lay_out(qn_step *step, winograd_state *s)
{
    size_t in, out, tile, half, total;
    if (!qn_mul_size(&in, s->positions * QN_MNN_GROUP, s->conv.group_c) ||
        !qn_mul_size(&out, s->positions * QN_MNN_GROUP, s->conv.group_oc) ||
        !qn_mul_size(&tile, s->positions,
                     s->conv.group_c > s->conv.group_oc ? s->conv.group_c : s->conv.group_oc))
        return false;
    half = tile; /* of alpha lines each; outputs need fewer */
    s->inputs_at = 0;
    s->outputs_at = in;
    if (!qn_add_size(&s->tile_at, in, out) || !qn_add_size(&s->half_at, s->tile_at, tile) ||
        !qn_add_size(&total, s->half_at, half) || !qn_mul_size(&total, total, sizeof(float)))
        return false;
    step->scratch_bytes = total;
    return true;
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    winograd_state *const s = state;
    const qn_context *const ctx = qn__plan_context(plan);
    float *weights = NULL, *plane = NULL;
    size_t floats, bytes, n_weights;
    qn_status status;
    if (qn__mnn_conv_read(step->node, &s->conv))
        s->unit = qn__mnn_winograd_unit(&s->conv.window, s->conv.group_c, s->conv.group_oc);
    if (s->unit == 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "not a convolution of Winograd's form");
    s->alpha = s->unit + (int32_t)s->conv.window.kh - 1;
    s->positions = (size_t)s->alpha * (size_t)s->alpha;
    s->tiles_y = (s->conv.window.oh + (size_t)s->unit - 1) / (size_t)s->unit;
    s->tiles_x = (s->conv.window.ow + (size_t)s->unit - 1) / (size_t)s->unit;
    s->igemm = step->kernels->f32_igemm;
    s->clamp = qn__step_clamp(step);
    s->packed_stride = qn__f32_gemm_packed_count(s->conv.group_oc, s->conv.group_c, 1, s->igemm.nr);
    if (!qn_mul_size(&floats, s->packed_stride, s->positions * s->conv.groups) ||
        !qn_mul_size(&bytes, floats, sizeof(float)) || !lay_out(step, s))
        return qn__step_fail(step, error, QN_LIMIT, "transformed weights are too large");
    QN_TRY_GOTO(qn__step_const_f32(plan, step, 1, &weights, &n_weights, error));
    QN_TRY_GOTO(qn__step_const_f32(plan, step, 2, &s->bias, NULL, error));
    s->packed = qn__alloc_aligned(ctx, bytes);
    plane =
        qn__alloc_aligned(ctx, s->positions * s->conv.group_oc * s->conv.group_c * sizeof(*plane));
    if (s->packed == NULL || plane == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    pack_weights(s, weights, plane);
    step->packed_bytes = bytes;
    step->kernel_name = "f32_winograd";
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
done:
    qn__free(ctx, weights);
    qn__free_aligned(ctx, plane);
    return status;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(winograd_state), prepare_state, release, error);
}

/* --- one group of tiles ------------------------------------------------------------------------*/
typedef struct tile_group {
    const winograd_state *s;
    const float *in; /* of the convolution's group: its first channel */
    float *out;
    const float *packed, *bias; /* bias NULL: none */
    size_t first, n;            /* tiles */
    float *inputs, *outputs;    /* [positions][n][channels] */
    float *tile, *half;
} tile_group;

typedef struct tile_place {
    size_t image, y, x; /* of its first output */
} tile_place;

static tile_place place_of(const winograd_state *s, size_t tile)
{
    const size_t per_image = s->tiles_y * s->tiles_x, at = tile % per_image;
    return (tile_place){tile / per_image, at / s->tiles_x * (size_t)s->unit,
                        at % s->tiles_x * (size_t)s->unit};
}

/* The inputs of a tile: in place where all lie inside, else a copy with zeros around. *row, *pixel:
 * floats from one to the next. */
static const float *load_tile(const tile_group *g, tile_place at, size_t *row, size_t *pixel)
{
    const winograd_state *const s = g->s;
    const qn_window *const w = &s->conv.window;
    const size_t alpha = (size_t)s->alpha, c = s->conv.group_c;
    const ptrdiff_t y0 = (ptrdiff_t)at.y - (ptrdiff_t)w->pt,
                    x0 = (ptrdiff_t)at.x - (ptrdiff_t)w->pl;
    const float *const image = g->in + at.image * w->h * w->w * w->c;
    *row = w->w * w->c;
    *pixel = w->c;
    if (y0 >= 0 && x0 >= 0 && (size_t)y0 + alpha <= w->h && (size_t)x0 + alpha <= w->w)
        return image + ((size_t)y0 * w->w + (size_t)x0) * w->c;
    memset(g->tile, 0, s->positions * c * sizeof(*g->tile));
    for (size_t y = 0; y < alpha; y++)
        for (size_t x = 0; x < alpha; x++) {
            const ptrdiff_t iy = y0 + (ptrdiff_t)y, ix = x0 + (ptrdiff_t)x;
            if (iy >= 0 && ix >= 0 && iy < (ptrdiff_t)w->h && ix < (ptrdiff_t)w->w)
                memcpy(g->tile + (y * alpha + x) * c,
                       image + ((size_t)iy * w->w + (size_t)ix) * w->c, c * sizeof(*g->tile));
        }
    *row = alpha * c;
    *pixel = c;
    return g->tile;
}

static void transform_inputs(const tile_group *g)
{
    const winograd_state *const s = g->s;
    const size_t alpha = (size_t)s->alpha, c = s->conv.group_c, plane = g->n * c;
    const bool whole = g->n == QN_MNN_GROUP;
    for (size_t t = 0; t < g->n; t++) {
        size_t row, pixel;
        const float *const from = load_tile(g, place_of(s, g->first + t), &row, &pixel);
        for (size_t y = 0; y < alpha; y++) { /* half: [x][y][c] */
            const qn_winograd_line line = {from + y * row, pixel, g->half + y * c, alpha * c, c};
            qn__winograd_input_line(s->alpha, false, &line);
        }
        for (size_t x = 0; x < alpha; x++) {
            const qn_winograd_line line = {g->half + x * alpha * c, c,
                                           g->inputs + x * plane + t * c, alpha * plane, c};
            qn__winograd_input_line(s->alpha, whole, &line);
        }
    }
}

/* The sums of one tile, which are four chains each. */
static void sum_alone(const winograd_state *s, const float *packed, const float *in, float *out)
{
    const size_t nr = s->igemm.nr, c = s->conv.group_c;
    for (size_t n = 0; n < s->conv.group_oc; n++) {
        const float *const column = packed + n / nr * nr * (c + 1) + nr + n % nr;
        out[n] = qn__mnn_sum_in_chains(in, column, nr, c);
    }
}

static void multiply(const tile_group *g)
{
    const winograd_state *const s = g->s;
    const size_t c = s->conv.group_c, oc = s->conv.group_oc;
    const qn_clamp_f32 open = {-INFINITY, INFINITY};
    const size_t together = g->n - (qn__mnn_leaves_one(g->n) ? 1 : 0);
    for (size_t p = 0; p < s->positions; p++) {
        const float *const packed = g->packed + p * s->packed_stride;
        const float *const in = g->inputs + p * g->n * c;
        float *const out = g->outputs + p * g->n * oc;
        qn__mnn_packed_product(&s->igemm, in, c, together, oc, c, packed, out, oc, &open);
        if (together < g->n)
            sum_alone(s, packed, in + together * c, out + together * oc);
    }
}

static void finish_pixel(const tile_group *g, const float *from, float *to)
{
    const winograd_state *const s = g->s;
    const float lo = s->clamp.lo, hi = s->clamp.hi;
    for (size_t n = 0; n < s->conv.group_oc; n++) {
        float v = from[n] + (g->bias != NULL ? g->bias[n] : 0.0f);
        v = v < hi ? v : hi;
        to[n] = v > lo ? v : lo;
    }
}

static void transform_outputs(const tile_group *g)
{
    const winograd_state *const s = g->s;
    const qn_window *const w = &s->conv.window;
    const size_t alpha = (size_t)s->alpha, unit = (size_t)s->unit, oc = s->conv.group_oc;
    const size_t plane = g->n * oc;
    for (size_t t = 0; t < g->n; t++) {
        const tile_place at = place_of(s, g->first + t);
        const size_t rows = w->oh - at.y < unit ? w->oh - at.y : unit;
        const size_t columns = w->ow - at.x < unit ? w->ow - at.x : unit;
        for (size_t x = 0; x < alpha; x++) { /* half: [x][y][oc] */
            const qn_winograd_line line = {g->outputs + x * plane + t * oc, alpha * plane,
                                           g->half + x * unit * oc, oc, oc};
            qn__winograd_output_line(s->alpha, s->unit, x + 1 == alpha, &line);
        }
        for (size_t y = 0; y < rows; y++) {
            const qn_winograd_line line = {g->half + y * oc, unit * oc, g->tile, oc, oc};
            qn__winograd_output_line(s->alpha, s->unit, y + 1 == rows, &line);
            float *const to = g->out + ((at.image * w->oh + at.y + y) * w->ow + at.x) * w->oc;
            for (size_t x = 0; x < columns; x++)
                finish_pixel(g, g->tile + x * oc, to + x * w->oc);
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    const winograd_state *const s = step->state;
    float *const scratch = env->scratch;
    const size_t tiles = s->conv.window.n * s->tiles_y * s->tiles_x;
    (void)error;
    for (size_t k = 0; k < s->conv.groups; k++)
        for (size_t first = 0; first < tiles; first += QN_MNN_GROUP) {
            const tile_group g = {.s = s,
                                  .in = (const float *)in[0].data + k * s->conv.group_c,
                                  .out = (float *)out[0].data + k * s->conv.group_oc,
                                  .packed = s->packed + k * s->positions * s->packed_stride,
                                  .bias = s->bias == NULL ? NULL : s->bias + k * s->conv.group_oc,
                                  .first = first,
                                  .n = tiles - first < QN_MNN_GROUP ? tiles - first : QN_MNN_GROUP,
                                  .inputs = scratch + s->inputs_at,
                                  .outputs = scratch + s->outputs_at,
                                  .tile = scratch + s->tile_at,
                                  .half = scratch + s->half_at};
            transform_inputs(&g);
            multiply(&g);
            transform_outputs(&g);
        }
    return QN_OK;
}

const qn_run_op qn__mnn_winograd_op = {QN_OP_NONE, prepare, run, release};
