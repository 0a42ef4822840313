/* Quantized convolution: the target's integers by 8-bit kernels (q8_conv.h); what they do not fit
 * is left to the simulation. */
#include "run/ops/q8_conv.h"
#include "run/ops/simulated.h"
#include "run/ops/window_nd.h"

typedef struct qconv_state {
    qn_qweights weights;
    qn_requant requant;
    qn_q8_conv q8;
} qconv_state;

static void release(const qn_context *ctx, qn_step *step)
{
    qconv_state *const s = step->state;
    if (s == NULL)
        return;
    qn__qweights_free(ctx, &s->weights);
    qn__q8_conv_free(ctx, &s->q8);
    qn__free(ctx, s);
    step->state = NULL;
}

qn_status qn__qconv_shape(const qn_step *step, qn_qconv_shape *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const w = qn__step_input(step, 1);
    int64_t kernel[QN_MAX_RANK] = {0};
    const int64_t groups = qn__attr_int(step->node, "group", 1);
    if (w == NULL || w->rank != x->rank || x->rank < 3 || groups < 1)
        return qn__step_fail(step, error, QN_CORRUPT, "weights or groups do not fit");
    for (size_t i = 2; i < w->rank; i++)
        kernel[i - 2] = w->dims[i].value;
    QN_TRY(qn__window_read(step, kernel, false, false, &s->win, error));
    s->groups = (size_t)groups;
    s->cin = s->win.c / s->groups;
    s->cout = s->win.oc / s->groups;
    if (s->cin * s->groups != s->win.c || s->cout * s->groups != s->win.oc || s->cin == 0 ||
        s->cout == 0 || (size_t)w->dims[0].value != s->win.oc || (size_t)w->dims[1].value != s->cin)
        return qn__step_fail(step, error, QN_CORRUPT, "channels do not fit the weights");
    s->depthwise = s->cin == 1 && s->cout == 1;
    return QN_OK;
}

typedef struct search {
    qconv_state *s;
    const qn_qconv_shape *shape;
    const qn_qparams *x;
} search;

static bool find(const qn_plan *plan, const qn_step *step, void *state, size_t parts)
{
    const search *const f = state;
    return qn__q8_conv_find(plan, step, &f->shape->win, f->shape->groups, f->x, &f->s->requant,
                            parts, qn_q8_salt(parts), &f->s->q8);
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    qconv_state *const s = state;
    qn_qparams x;
    qn_qconv_shape shape;
    qn_q8_found way = QN_Q8_NO_BYTES;
    search looking = {s, &shape, &x};
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &x, error));
    QN_TRY(qn__qconv_shape(step, &shape, error));
    QN_TRY(qn__qweights_scales(plan, step, 1, 0, shape.win.oc, &x, 1.0f, 2, &s->weights, error));
    float s_y;
    QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed, &s->requant,
                       &s_y, error));
    if (shape.depthwise || !qn_saturates(plan, step->node->inputs[1]))
        QN_TRY(qn__q8_search(plan, step, 0, &x, &s->weights, find, &looking, &way, error));
    if (way == QN_Q8_NO_BYTES) {
        release(qn__plan_context(plan), step);
        return qn__prepare_simulated(plan, step, error);
    }
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->strides_output = s->q8.way != QN_Q8_DEPTHWISE && s->q8.fold == 1;
    QN_TRY(qn__q8_conv_prepare(plan, step, &x, &s->weights, &s->requant, &s->q8, error));
    step->takes_rows = s->q8.band > 0 && s->q8.flip == 0;
    qn__qweights_drop_values(qn__plan_context(plan), &s->weights);
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    if (step->node->inputs[0]->rank > 4)
        return qn_prepare_as(&qn__op_qconv_nd, plan, step, error);
    return qn__step_make_state(plan, step, sizeof(qconv_state), prepare_state, release, error);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const qconv_state *const s = step->state;
    qn__q8_conv_run(&s->q8, env, &in[0], &out[0], &s->requant);
    return QN_OK;
}

const qn_run_op qn__op_qconv = {QN_OP_CONV, prepare, run, release};
