/* Means over windows in the order of MNN's float kernels: where the window lies inside the input
 * each value is multiplied by the reciprocal of their number before it is added, elsewhere the sum
 * is. */
#include "core/alloc.h"
#include "mnntool/float_conv.h"

#include <string.h>

typedef struct pool_state {
    qn_window window;
    bool count_pads;
} pool_state;

static bool read_node(const qn_node *node, pool_state *out)
{
    const qn_tensor *const x = node->n_inputs == 1 ? node->inputs[0] : NULL;
    const qn_step step = {.node = node};
    qn_error ignored;
    if (x == NULL || x->type.kind != QN_TYPE_PLAIN || x->type.dtype != QN_DTYPE_F32 ||
        x->rank != 4 || node->act != QN_ACT_NONE)
        return false;
    if (node->op == QN_OP_GLOBAL_AVERAGE_POOL) {
        int64_t d[QN_MAX_RANK];
        qn__tensor_dims(x, d);
        if (d[2] < 1 || d[3] < 1)
            return false;
        const size_t h = (size_t)d[2], w = (size_t)d[3];
        *out = (pool_state){.window = {.n = (size_t)d[0],
                                       .c = (size_t)d[1],
                                       .h = h,
                                       .w = w,
                                       .oh = 1,
                                       .ow = 1,
                                       .kh = h,
                                       .kw = w,
                                       .sh = h,
                                       .sw = w}};
        return true;
    }
    out->count_pads = qn__attr_int(node, "count_include_pad", 0) != 0;
    return node->op == QN_OP_AVERAGE_POOL &&
           qn__window_read(&step, NULL, false, true, &out->window, &ignored) == QN_OK &&
           out->window.dh == 1 && out->window.dw == 1;
}

bool qn__mnn_pool_takes(const qn_node *node)
{
    pool_state s;
    return read_node(node, &s);
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    pool_state s;
    if (!read_node(step->node, &s))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "not a mean of MNN's form");
    step->state = qn__alloc(qn__plan_context(plan), sizeof(s));
    if (step->state == NULL)
        return QN_NOMEM(error);
    memcpy(step->state, &s, sizeof(s));
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->kernel_name = "f32_avgpool_mnn";
    return QN_OK;
}

/* Taps [first, last) of one axis that lie inside, and how many count. */
typedef struct span {
    ptrdiff_t start;
    size_t first, last, counted;
} span;

static span span_of(size_t at, size_t stride, size_t pad, size_t pad_end, size_t taps, size_t size,
                    bool count_pads)
{
    span s = {.start = (ptrdiff_t)(at * stride) - (ptrdiff_t)pad};
    qn_window_taps(s.start, size, taps, 1, &s.first, &s.last);
    const ptrdiff_t room = (ptrdiff_t)(size + pad_end) - s.start;
    s.counted = s.last - s.first;
    if (count_pads)
        s.counted = room < (ptrdiff_t)taps ? (size_t)(room > 0 ? room : 0) : taps;
    return s;
}

static void mean_of(const qn_window *w, const float *image, const span *y, const span *x,
                    float *restrict out)
{
    const bool inside = y->last - y->first == w->kh && x->last - x->first == w->kw;
    const size_t n = y->counted * x->counted;
    const float share = n > 0 ? 1.0f / (float)n : 0.0f, each = inside ? share : 1.0f;
    memset(out, 0, w->c * sizeof(*out));
    for (size_t i = y->first; i < y->last; i++)
        for (size_t j = x->first; j < x->last; j++) {
            const size_t row = (size_t)(y->start + (ptrdiff_t)i);
            const float *restrict in =
                image + (row * w->w + (size_t)(x->start + (ptrdiff_t)j)) * w->c;
            for (size_t c = 0; c < w->c; c++)
                out[c] += in[c] * each;
        }
    for (size_t c = 0; !inside && c < w->c; c++)
        out[c] *= share;
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    const pool_state *const s = step->state;
    const qn_window *const w = &s->window;
    float *to = out[0].data;
    (void)env, (void)error;
    for (size_t image = 0; image < w->n; image++)
        for (size_t oy = 0; oy < w->oh; oy++)
            for (size_t ox = 0; ox < w->ow; ox++, to += w->c) {
                const span y = span_of(oy, w->sh, w->pt, w->pb, w->kh, w->h, s->count_pads);
                const span x = span_of(ox, w->sw, w->pl, w->pr, w->kw, w->w, s->count_pads);
                mean_of(w, (const float *)in[0].data + image * w->h * w->w * w->c, &y, &x, to);
            }
    return QN_OK;
}

const qn_run_op qn__mnn_pool_op = {QN_OP_NONE, prepare, run, release};
