/* A convolution of plain sums as MNN's float runtime computes it: groups of pixels, the last of
 * which may be incomplete, and 1x1 convolutions that are cut (float_sums.c). Where there is only an
 * incomplete group, the usual implementation computes all and its pixels are computed again. */
#include "core/alloc.h"
#include "core/checked.h"
#include "mnntool/float_conv.h"

#include <string.h>

typedef struct tiled_state {
    qn_mnn_conv conv;
    qn_f32_igemm igemm;
    qn_clamp_f32 clamp;
    size_t pixels, k; /* k: inputs of a sum */
    bool cut;
    qn_step usual;        /* unless cut; impl NULL: not prepared */
    const float *weights; /* [oc][kh][kw][channels of a group]: the graph's or `owned` */
    float *owned, *bias;  /* bias: [oc] */
    size_t scratch_at;
} tiled_state;

static bool is_pointwise(const qn_window *w)
{
    return w->kh == 1 && w->kw == 1 && w->sh == 1 && w->sw == 1 && w->oh == w->h && w->ow == w->w;
}

static bool is_cut(const qn_mnn_conv *conv)
{
    const qn_window *const w = &conv->window;
    return is_pointwise(w) &&
           qn__mnn_product_is_cut(w->n * w->oh * w->ow, conv->group_c, conv->group_oc);
}

bool qn__mnn_tiled_takes(const qn_mnn_conv *conv)
{
    const qn_window *const w = &conv->window;
    return w->n * w->oh * w->ow % QN_MNN_GROUP != 0 || is_cut(conv);
}

/* --- preparing ---------------------------------------------------------------------------------*/
static void release(const qn_context *ctx, qn_step *step)
{
    tiled_state *const s = step->state;
    if (s == NULL)
        return;
    if (s->usual.impl != NULL && s->usual.impl->release != NULL)
        s->usual.impl->release(ctx, &s->usual);
    qn__free(ctx, s->owned);
    qn__free(ctx, s->bias);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status prepare_usual(const qn_plan *plan, qn_step *step, tiled_state *s, qn_error *error)
{
    const qn_run_op *const impl = qn__run_op_find(QN_OP_CONV);
    qn_step usual = *step;
    usual.impl = impl;
    usual.state = NULL;
    usual.in_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    QN_TRY(impl->prepare(plan, &usual, error));
    s->usual = usual;
    step->packed_bytes += usual.packed_bytes;
    step->scratch_bytes = usual.scratch_bytes;
    step->kernel_name = usual.kernel_name;
    return QN_OK;
}

static qn_status read_weights(const qn_plan *plan, qn_step *step, tiled_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const size_t taps = s->conv.window.kh * s->conv.window.kw, c = s->conv.group_c;
    const void *const given = step->node->inputs[1]->constant->data;
    float *copy = NULL;
    QN_TRY(qn__step_const_f32(plan, step, 2, &s->bias, NULL, error));
    if (s->bias == NULL)
        s->bias = qn__calloc(ctx, s->conv.window.oc, sizeof(*s->bias));
    if (s->bias == NULL)
        return QN_NOMEM(error);
    if (taps == 1 && (uintptr_t)given % sizeof(float) == 0) {
        s->weights = given;
        return QN_OK;
    }
    QN_TRY(qn__step_const_f32(plan, step, 1, &copy, NULL, error));
    s->weights = s->owned = copy;
    step->packed_bytes += s->conv.window.oc * s->k * sizeof(float);
    if (taps == 1)
        return QN_OK;
    float *const row = qn__calloc(ctx, s->k, sizeof(*row));
    if (row == NULL)
        return QN_NOMEM(error);
    for (size_t o = 0; o < s->conv.window.oc; o++, copy += s->k) {
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < c; i++)
                row[t * c + i] = copy[i * taps + t];
        memcpy(copy, row, s->k * sizeof(*row));
    }
    qn__free(ctx, row);
    return QN_OK;
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    tiled_state *const s = state;
    size_t floats, rows, bytes;
    if (!qn__mnn_conv_read(step->node, &s->conv))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "not a convolution of MNN's form");
    const qn_window *const w = &s->conv.window;
    s->pixels = w->n * w->oh * w->ow;
    s->k = w->kh * w->kw * s->conv.group_c;
    s->igemm = step->kernels->f32_igemm;
    s->clamp = qn__step_clamp(step);
    s->cut = is_cut(&s->conv);
    QN_TRY(read_weights(plan, step, s, error));
    if (!s->cut)
        QN_TRY(prepare_usual(plan, step, s, error));
    const bool fits =
        s->cut ? qn__mnn_product_floats(&s->igemm, s->pixels, s->k, s->conv.group_oc, &floats)
               : qn__mnn_rest_floats(&s->igemm, s->k, s->conv.group_oc, &floats) &&
                     qn_mul_size(&rows, QN_MNN_GROUP, s->k) && qn_add_size(&floats, floats, rows);
    if (!fits || !qn_mul_size(&bytes, floats, sizeof(float)) ||
        !qn_align_size(&s->scratch_at, step->scratch_bytes, 64) ||
        !qn_add_size(&step->scratch_bytes, s->scratch_at, bytes))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(tiled_state), prepare_state, release, error);
}

/* --- running -----------------------------------------------------------------------------------*/
/* The inputs of pixel m's sums, [kh][kw][channels], zeros outside the image. in: of the group. */
static void gather(const tiled_state *s, const float *in, size_t m, float *to)
{
    const qn_window *const w = &s->conv.window;
    const size_t c = s->conv.group_c, image = m / w->ow / w->oh;
    const size_t oy = m / w->ow % w->oh, ox = m % w->ow;
    for (size_t i = 0; i < w->kh; i++)
        for (size_t j = 0; j < w->kw; j++, to += c) {
            const ptrdiff_t y = (ptrdiff_t)(oy * w->sh + i * w->dh) - (ptrdiff_t)w->pt;
            const ptrdiff_t x = (ptrdiff_t)(ox * w->sw + j * w->dw) - (ptrdiff_t)w->pl;
            if (y < 0 || x < 0 || y >= (ptrdiff_t)w->h || x >= (ptrdiff_t)w->w)
                memset(to, 0, c * sizeof(*to));
            else
                memcpy(to, in + ((image * w->h + (size_t)y) * w->w + (size_t)x) * w->c,
                       c * sizeof(*to));
        }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    const tiled_state *const s = step->state;
    const qn_window *const w = &s->conv.window;
    float *const scratch = (float *)((char *)env->scratch + s->scratch_at);
    const size_t whole = s->pixels / QN_MNN_GROUP * QN_MNN_GROUP, n = s->pixels - whole;
    if (!s->cut)
        QN_TRY(s->usual.impl->run(&s->usual, env, in, out, error));
    for (size_t g = 0; g < s->conv.groups; g++) {
        const float *const from = (const float *)in[0].data + g * s->conv.group_c;
        float *const to = (float *)out[0].data + g * s->conv.group_oc;
        qn_mnn_product p = {.e = s->pixels,
                            .l = s->k,
                            .h = s->conv.group_oc,
                            .a = from,
                            .b = s->weights + g * s->conv.group_oc * s->k,
                            .lda = w->c,
                            .ldb = s->k,
                            .c = to,
                            .ldc = w->oc,
                            .bias = s->bias + g * s->conv.group_oc,
                            .clamp = s->clamp};
        if (s->cut) {
            qn__mnn_product(&s->igemm, &p, scratch);
            continue;
        }
        for (size_t i = 0; i < n; i++)
            gather(s, from, whole + i, scratch + i * s->k);
        p.e = n;
        p.a = scratch;
        p.lda = s->k;
        p.c = to + whole * w->oc;
        qn__mnn_rest(&s->igemm, &p, scratch + QN_MNN_GROUP * s->k);
    }
    return QN_OK;
}

const qn_run_op qn__mnn_tiled_op = {QN_OP_NONE, prepare, run, release};
