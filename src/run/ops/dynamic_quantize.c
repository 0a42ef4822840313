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

typedef struct rows_job {
    const qn_kernels *kernels;
    const float *x;
    uint8_t *q;
    float *scales;
    size_t n;
} rows_job;

static void quantize_rows(void *arg, size_t begin, size_t end)
{
    const rows_job *const job = arg;
    for (size_t r = begin; r < end; r++) {
        float lo = 0, hi = 0;
        const float *const row = job->x + r * job->n;
        job->scales[r] = 0; /* not finite */
        if (!job->kernels->f32_range.fn(row, job->n, &lo, &hi))
            continue;
        job->scales[r] = qn__dynamic_row_scale(lo, hi);
        const qn_q8_quantize_args args = {.n = job->n,
                                          .channels = 1,
                                          .src = row,
                                          .dst = job->q + r * job->n,
                                          .scale = job->scales[r],
                                          .lo = -QN_ROW_STEPS,
                                          .hi = QN_ROW_STEPS,
                                          .zero = QN_DYNAMIC_ROW_ZERO};
        job->kernels->q8_quantize.fn(&args);
    }
}

static qn_status run_rows(const qn_step *step, const qn_run_env *env, const qn_view *x,
                          const qn_view *out, qn_error *error)
{
    const size_t rows = qn_dynamic_rows(x->count, x->rank, x->dims);
    rows_job job = {step->kernels, x->data, out->data, qn_dynamic_scales_of(out),
                    rows > 0 ? x->count / rows : 0};
    qn__parallel_ranges(env->pool, quantize_rows, &job, rows, 8 * job.n);
    for (size_t r = 0; r < rows; r++)
        if (job.scales[r] == 0)
            return qn__step_fail(step, error, QN_NONFINITE,
                                 "input \"%s\" has values that are not finite", x->tensor->name);
    return QN_OK;
}

static qn_status run_to_dynamic(const qn_step *step, const qn_run_env *env, const qn_view *in,
                                const qn_view *out, qn_error *error)
{
    if (qn_dynamic_by_rows(step->node->outputs[0]->type))
        return run_rows(step, env, &in[0], &out[0], error);
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
