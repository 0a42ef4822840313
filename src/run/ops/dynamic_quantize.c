/* Quantization with the range of the values at hand: QuantizeLinear to a dynamic tensor, and
 * DynamicQuantizeLinear, whose scale and zero point are tensors of their own. */
#include "run/dynamic.h"
#include "run/nd.h"

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const qn_tensor *const x = qn__step_input(step, 0);
    const bool plain = step->node->op == QN_OP_DYNAMIC_QUANTIZE_LINEAR;
    if (x == NULL || x->type.kind != QN_TYPE_PLAIN || x->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "its input is not float32");
    if (qn__tensor_elements(x) != qn__tensor_elements(step->node->outputs[0]))
        return qn__step_fail(step, error, QN_CORRUPT, "input and output do not fit");
    for (uint32_t i = 0; plain && i < step->node->n_outputs && i < 3; i++) {
        const qn_tensor *const y = step->node->outputs[i];
        if (y != NULL && (y->type.dtype != (i == 1 ? QN_DTYPE_F32 : QN_DTYPE_U8) ||
                          (i > 0 && qn__tensor_elements(y) != 1)))
            return qn__step_fail(step, error, QN_CORRUPT, "output \"%s\" is not one %s", y->name,
                                 i == 1 ? "float32" : "uint8");
    }
    step->in_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->kernel_name = step->kernels->q8_quantize.name;
    return QN_OK;
}

static qn_status measure(const qn_step *step, const qn_view *x, qn_dynamic_params *params,
                         qn_error *error)
{
    float lo = 0, hi = 0;
    if (!step->kernels->f32_range.fn(x->data, x->count, &lo, &hi))
        return qn__step_fail(step, error, QN_NONFINITE,
                             "input \"%s\" has values that are not finite", x->tensor->name);
    *params = qn__dynamic_params(lo, hi);
    return QN_OK;
}

static qn_status run_to_dynamic(const qn_step *step, const qn_run_env *env, const qn_view *in,
                                const qn_view *out, qn_error *error)
{
    qn_dynamic_params *const params = qn_dynamic_params_of(&out[0]);
    QN_TRY(measure(step, &in[0], params, error));
    qn__dynamic_quantize(&step->kernels->q8_quantize, env->pool, in[0].data, in[0].count, *params,
                         out[0].data);
    return QN_OK;
}

static qn_status run_plain(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    qn_dynamic_params params;
    QN_TRY(measure(step, &in[0], &params, error));
    qn__dynamic_quantize(&step->kernels->q8_quantize, env->pool, in[0].data, in[0].count, params,
                         out[0].data);
    if (step->node->n_outputs > 1 && step->node->outputs[1] != NULL)
        *(float *)out[1].data = params.scale;
    if (step->node->n_outputs > 2 && step->node->outputs[2] != NULL)
        *(uint8_t *)out[2].data = (uint8_t)params.zero;
    return QN_OK;
}

const qn_run_op qn__op_to_dynamic = {QN_OP_QUANTIZE_LINEAR, prepare, run_to_dynamic, NULL};
const qn_run_op qn__op_dynamic_quantize = {QN_OP_DYNAMIC_QUANTIZE_LINEAR, prepare, run_plain, NULL};
