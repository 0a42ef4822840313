/* Quantized ConvTranspose. Outputs of one residue (oy % sh, ox % sw) meet the same taps, which lie
 * evenly: each residue is a convolution of stride 1 over the input (q8_conv.h), whose bytes are
 * then spread over the output. What 8-bit kernels do not fit is left to the simulation.
 */
#include "core/alloc.h"
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/q8_conv.h"
#include "run/ops/simulated.h"

#include <string.h>

/* Strides beyond this leave most outputs without a tap. */
enum { MAX_STRIDE = 64 };

typedef struct residue {
    size_t ry, rx;         /* first output */
    size_t ky, kx, py, px; /* its last tap in the order of reading, and how far to the next */
    qn_q8_conv conv;
} residue;

typedef struct transpose_state {
    qn_qconv_transpose node;
    size_t n_residues;
    residue *residues;
} transpose_state;

static void release(const qn_context *ctx, qn_step *step)
{
    transpose_state *const s = step->state;
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_residues; i++)
        qn__q8_conv_free(ctx, &s->residues[i].conv);
    qn__free(ctx, s->residues);
    qn__qweights_free(ctx, &s->node.weights);
    qn__free(ctx, s);
    step->state = NULL;
}

static size_t element(const transpose_state *s)
{
    return s->node.requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
}

static qn_status read_shape(const qn_step *step, qn_qconv_shape *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const w = qn__step_input(step, 1);
    const int64_t groups = qn__attr_int(step->node, "group", 1);
    int64_t dims[QN_MAX_RANK] = {0};
    if (w == NULL || w->rank != x->rank || x->rank < 3 || x->rank > 4 || groups < 1)
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "needs one or two axes and their weights");
    qn__tensor_dims(w, dims);
    QN_TRY(qn__window_read(step, dims + 2, true, false, &s->win, error));
    s->groups = (size_t)groups;
    s->cin = s->win.c / s->groups;
    s->cout = s->win.oc / s->groups;
    if (s->cin * s->groups != s->win.c || s->cout * s->groups != s->win.oc || s->cin == 0 ||
        s->cout == 0 || (size_t)dims[0] != s->win.c || (size_t)dims[1] != s->cout)
        return qn__step_fail(step, error, QN_CORRUPT, "channels do not fit the weights");
    return QN_OK;
}

typedef struct taps {
    size_t first, period, count; /* taps first, first + period ... of the node */
    size_t dilation;             /* of the convolution that reads them backwards */
    ptrdiff_t pad;
} taps;

/* The taps that outputs r, r + stride ... meet along an axis: r + pad - k * dilation is a multiple
 * of the stride. */
static taps find_taps(size_t r, size_t pad, size_t kernel, size_t dilation, size_t stride)
{
    taps t = {.period = 1, .dilation = 1};
    while (t.period * dilation % stride != 0)
        t.period++;
    t.dilation = t.period * dilation / stride;
    while (t.first < kernel && t.first < t.period &&
           (r + pad) % stride != t.first * dilation % stride)
        t.first++;
    if (t.first >= kernel || t.first >= t.period)
        return t;
    t.count = (kernel - t.first - 1) / t.period + 1;
    const size_t last = t.first + (t.count - 1) * t.period;
    t.pad = ((ptrdiff_t)(last * dilation) - (ptrdiff_t)(r + pad)) / (ptrdiff_t)stride;
    return t;
}

/* Pads may be negative: then they are none that QN_Q8_ROWS knows. */
static qn_window make_window(const qn_window *w, residue *r)
{
    const taps y_taps = find_taps(r->ry, w->pt, w->kh, w->dh, w->sh), *const y = &y_taps;
    const taps x_taps = find_taps(r->rx, w->pl, w->kw, w->dw, w->sw), *const x = &x_taps;
    qn_window v = *w;
    v.oh = (w->oh - r->ry + w->sh - 1) / w->sh;
    v.ow = (w->ow - r->rx + w->sw - 1) / w->sw;
    v.kh = v.kw = v.sh = v.sw = v.dh = v.dw = 1;
    v.pt = v.pl = 0;
    r->py = r->px = 0; /* no tap at all: one of weight 0 */
    if (y->count > 0 && x->count > 0) {
        v.kh = y->count;
        v.kw = x->count;
        v.dh = y->dilation;
        v.dw = x->dilation;
        v.pt = (size_t)y->pad;
        v.pl = (size_t)x->pad;
        r->py = y->period;
        r->px = x->period;
        r->ky = y->first + (y->count - 1) * y->period;
        r->kx = x->first + (x->count - 1) * x->period;
    }
    v.pb = v.oh + (v.kh - 1) * v.dh - v.h - v.pt;
    v.pr = v.ow + (v.kw - 1) * v.dw - v.w - v.pl;
    return v;
}

/* Part of the weights of a residue as [oc][cin][taps], backwards. What is behind it. */
static int8_t *order(const transpose_state *s, const residue *r, int32_t part, int8_t *to)
{
    const qn_window *const w = &s->node.shape.win, *const v = &r->conv.window;
    for (size_t o = 0; o < w->oc; o++)
        for (size_t c = 0; c < s->node.shape.cin; c++)
            for (size_t i = 0; i < v->kh; i++)
                for (size_t j = 0; j < v->kw; j++) {
                    const size_t row =
                        (o / s->node.shape.cout * s->node.shape.cin + c) * s->node.shape.cout +
                        o % s->node.shape.cout;
                    const size_t tap = (r->ky - i * r->py) * w->kw + r->kx - j * r->px;
                    *to++ =
                        r->py == 0
                            ? 0
                            : qn_q8_part((int32_t)s->node.weights.values[row * w->kh * w->kw + tap],
                                         s->node.weights.parts, part);
                }
    return to;
}

/* False: the model file lacks one. */
static bool find(const qn_plan *plan, const qn_step *step, void *state, size_t parts)
{
    transpose_state *const s = state;
    const qn_window *const w = &s->node.shape.win;
    const size_t nx = w->sw < w->ow ? w->sw : w->ow;
    bool all = true;
    for (size_t i = 0; i < s->n_residues; i++) {
        residue *const r = &s->residues[i];
        r->ry = i / nx;
        r->rx = i % nx;
        const qn_window window = make_window(w, r);
        const size_t order_of[] = {QN_Q8_SALT_TRANSPOSED, parts, r->ky, r->kx, r->py, r->px};
        const uint64_t salt = qn__prepacked_key(step->node->inputs[1], order_of, 6, NULL, 0);
        all &= qn__q8_conv_find(plan, step, &window, s->node.shape.groups, &s->node.x,
                                &s->node.requant, parts, salt, &r->conv);
    }
    return all;
}

/* values: room for the weights, or NULL where all residues were found. */
static qn_status pack_residues(const qn_plan *plan, qn_step *step, transpose_state *s,
                               int8_t *values, qn_error *error)
{
    const qn_qweights weights = {.bytes = values};
    size_t tile, most = 0, packed = 0, mapped = 0;
    /* One residue's output is dense in scratch. */
    if (!qn_mul_size(&tile, qn__tensor_elements(step->node->outputs[0]), element(s)) ||
        !qn_align_size(&tile, tile, 64))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    tile = s->n_residues > 1 ? tile : 0;
    for (size_t i = 0; i < s->n_residues; i++) {
        residue *const r = &s->residues[i];
        int8_t *to = values;
        for (int32_t part = 0; values != NULL && part < s->node.weights.parts; part++)
            to = order(s, r, part, to);
        step->scratch_bytes = tile;
        QN_TRY(qn__q8_conv_prepare(plan, step, &s->node.x, &weights, &s->node.requant, &r->conv,
                                   error));
        most = step->scratch_bytes > most ? step->scratch_bytes : most;
        packed += step->packed_bytes;
        mapped += step->mapped_bytes;
    }
    step->scratch_bytes = most;
    step->packed_bytes = packed;
    step->mapped_bytes = mapped;
    step->weights = NULL;
    return QN_OK;
}

qn_status qn__qconv_transpose_read(const qn_plan *plan, qn_step *step, qn_qconv_transpose *out,
                                   qn_error *error)
{
    float s_y;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &out->x, error));
    QN_TRY(read_shape(step, &out->shape, error));
    QN_TRY(qn__qweights_scales(plan, step, 1, 1, out->shape.win.oc, &out->x, 1.0f, 2, &out->weights,
                               error));
    QN_TRY(qn__qoutput(plan, step, out->weights.scale, out->weights.bias, out->weights.fixed,
                       &out->requant, &s_y, error));
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    return QN_OK;
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    transpose_state *const s = state;
    const qn_context *const ctx = qn__plan_context(plan);
    int8_t *values = NULL;
    qn_q8_found way = QN_Q8_NO_BYTES;
    QN_TRY(qn__qconv_transpose_read(plan, step, &s->node, error));
    const qn_window *const w = &s->node.shape.win;
    if (w->sh <= MAX_STRIDE && w->sw <= MAX_STRIDE && w->oh > 0 && w->ow > 0) {
        s->n_residues = (w->sh < w->oh ? w->sh : w->oh) * (w->sw < w->ow ? w->sw : w->ow);
        s->residues = qn__calloc(ctx, s->n_residues, sizeof(*s->residues));
        if (s->residues == NULL) {
            s->n_residues = 0;
            return QN_NOMEM(error);
        }
        QN_TRY(qn__q8_search(plan, step, 1, &s->node.x, &s->node.weights, find, s, &way, error));
    }
    if (way == QN_Q8_NO_BYTES) {
        release(ctx, step);
        return qn__prepare_simulated(plan, step, error);
    }
    if (way == QN_Q8_TO_PACK) {
        if (s->node.weights.values == NULL)
            QN_TRY(qn__qweights_values(plan, step, 1, 1, &s->node.weights, error));
        /* At least a tap for each residue, which may be one that the node has not. */
        values = qn__reallocarray(ctx, NULL, qn__tensor_elements(step->node->inputs[1]),
                                  s->node.weights.parts);
        if (values == NULL)
            return QN_NOMEM(error);
    }
    const qn_status status = pack_residues(plan, step, s, values, error);
    qn__free(ctx, values);
    qn__qweights_drop_values(ctx, &s->node.weights);
    return status;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(transpose_state), prepare_state, release, error);
}

/* --- running -----------------------------------------------------------------------------------*/
static void spread(const transpose_state *s, const residue *r, const uint8_t *tile, uint8_t *out)
{
    const qn_window *const w = &s->node.shape.win, *const v = &r->conv.window;
    const size_t bytes = w->oc * element(s);
    for (size_t row = 0; row < v->n * v->oh; row++) {
        const size_t y = row / v->oh * w->oh + r->ry + row % v->oh * w->sh;
        for (size_t j = 0; j < v->ow; j++, tile += bytes)
            memcpy(out + (y * w->ow + r->rx + j * w->sw) * bytes, tile, bytes);
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const transpose_state *const s = step->state;
    if (out[0].count == 0)
        return QN_OK;
    qn_view tile = out[0];
    if (s->n_residues > 1)
        tile.data = env->scratch;
    for (size_t i = 0; i < s->n_residues; i++) {
        qn__q8_conv_run(&s->residues[i].conv, env, &in[0], &tile, &s->node.requant);
        if (s->n_residues > 1)
            spread(s, &s->residues[i], tile.data, out[0].data);
    }
    return QN_OK;
}

const qn_run_op qn__op_qconv_transpose = {QN_OP_CONV_TRANSPOSE, prepare, run, release};
