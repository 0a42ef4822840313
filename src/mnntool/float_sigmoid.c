/* Sigmoid in the arithmetic of MNN's float kernels: e^-x by a polynomial of a quarter of what is
 * left of -x after whole powers of 2. Vectors of eight are computed with fused operations; what is
 * left of a tensor that is not packed into vectors, without, and its powers are cut to whole ones.
 */
#include "mnntool/float_conv.h"

#include <math.h>

enum { VECTOR = 8 };
#define FURTHEST 87.0f

static float power_of_2(int32_t e)
{
    union {
        int32_t i;
        float f;
    } u = {.i = (e + 127) * (1 << 23)};
    return u.f;
}

static float bounded(float x)
{
    x = x > -FURTHEST ? x : -FURTHEST;
    return x < FURTHEST ? x : FURTHEST;
}

static float sigmoid_of_vector(float v, float ln2, float per_ln2)
{
    const float x = bounded(-v), whole = rintf(x * per_ln2);
    const float t = fmaf(-whole, ln2, x) * 0.25f;
    float p = fmaf(1.0f / 120.0f, t, 1.0f / 24.0f);
    p = fmaf(p, t, 1.0f / 6.0f);
    p = fmaf(p, t, 0.5f);
    p = fmaf(p, t, 1.0f);
    p = fmaf(p, t, 1.0f);
    p *= p;
    p *= p;
    return 1.0f / (1.0f + power_of_2((int32_t)whole) * p);
}

static float sigmoid_left_over(float v, float ln2, float per_ln2)
{
    const float x = bounded(-v);
    const int32_t whole = (int32_t)(x * per_ln2);
    const float t = (x - (float)whole * ln2) * 0.25f;
    float p =
        ((((1.0f / 120.0f * t + 1.0f / 24.0f) * t + 1.0f / 6.0f) * t + 0.5f) * t + 1.0f) * t + 1.0f;
    p *= p;
    p *= p;
    return 1.0f / (1.0f + power_of_2(whole) * p);
}

bool qn__mnn_sigmoid_takes(const qn_node *node)
{
    const qn_tensor *const x = node->n_inputs == 1 ? node->inputs[0] : NULL;
    return node->op == QN_OP_SIGMOID && x != NULL && x->type.kind == QN_TYPE_PLAIN &&
           x->type.dtype == QN_DTYPE_F32 && node->act == QN_ACT_NONE;
}

/* Pictures are packed into vectors from a convolution or a pool on, through what computes value by
 * value; the last vector of channels is filled up. */
static bool is_packed(const qn_tensor *t)
{
    for (int steps = 0; steps < 64 && t != NULL && t->rank == 4 && t->producer != NULL; steps++) {
        const qn_node *const node = t->producer;
        switch (node->op) {
        case QN_OP_CONV:
        case QN_OP_CONV_TRANSPOSE:
        case QN_OP_MAX_POOL:
        case QN_OP_AVERAGE_POOL:
        case QN_OP_GLOBAL_AVERAGE_POOL:
            return true;
        case QN_OP_ADD:
        case QN_OP_MUL:
        case QN_OP_RELU:
        case QN_OP_CLIP:
        case QN_OP_SIGMOID:
        case QN_OP_BATCH_NORMALIZATION:
            t = node->n_inputs > 0 ? node->inputs[0] : NULL;
            break;
        default:
            return false;
        }
    }
    return false;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan, (void)error;
    if (!is_packed(step->node->inputs[0])) /* what is left over is at the end of the rows */
        step->in_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = step->in_layout[0];
    step->inplace_input = 0;
    step->kernel_name = "sigmoid_mnn";
    return QN_OK;
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    const float *const x = in[0].data;
    float *const y = out[0].data;
    const float ln2 = 0.69314718f, per_ln2 = 1.0f / ln2;
    const bool packed = is_packed(step->node->inputs[0]);
    const size_t whole = packed ? in[0].count : in[0].count / VECTOR * VECTOR;
    (void)env, (void)error;
    for (size_t i = 0; i < whole; i++)
        y[i] = sigmoid_of_vector(x[i], ln2, per_ln2);
    for (size_t i = whole; i < in[0].count; i++)
        y[i] = sigmoid_left_over(x[i], ln2, per_ln2);
    return QN_OK;
}

const qn_run_op qn__mnn_sigmoid_op = {QN_OP_NONE, prepare, run, NULL};
