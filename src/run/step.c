/* What operators ask of the planner: their node's dims, constants, fused activation, errors. */
#include "run/dynamic.h"
#include "run/plan.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

qn_status qn__node_impl(const qn_node *node, const qn_run_op **out, qn_error *error)
{
    const bool crosses = node->op == QN_OP_QUANTIZE_LINEAR || node->op == QN_OP_DEQUANTIZE_LINEAR ||
                         node->op == QN_OP_REQUANTIZE;
    const bool quantized = !crosses && node->n_inputs > 0 && node->inputs[0] != NULL &&
                           node->inputs[0]->type.kind == QN_TYPE_QUANT;
    const bool moves_bits = crosses || node->op == QN_OP_CAST || node->op == QN_OP_CAST_LIKE;
    for (uint32_t i = 0; i < node->n_inputs + node->n_outputs && !moves_bits; i++) {
        const qn_tensor *const t =
            i < node->n_inputs ? node->inputs[i] : node->outputs[i - node->n_inputs];
        QN_FAIL_IF(t != NULL && t->constant == NULL && t->type.dtype != QN_DTYPE_NONE &&
                       qn__dtype_bits(t->type.dtype) < 8,
                   error, QN_UNSUPPORTED, "node \"%s\" (%s): activations of %s cannot be executed",
                   node->name, qn__op_name(node->op), qn__dtype_name(t->type.dtype));
    }
    const qn_run_op *const impl = qn__dynamic_applies(node) ? qn__dynamic_op_find(node)
                                  : quantized               ? qn__run_qop_find(node->op)
                                                            : qn__run_op_find(node->op);
    QN_FAIL_IF(impl == NULL, error, QN_UNSUPPORTED, "node \"%s\" (%s): cannot be executed%s",
               node->name, qn__op_name(node->op), quantized ? " on quantized tensors" : "");
    *out = impl;
    return QN_OK;
}

qn_status qn__step_make_state(const qn_plan *plan, qn_step *step, size_t state_bytes,
                              qn_status (*fill)(const qn_plan *plan, qn_step *step, void *state,
                                                qn_error *error),
                              void (*release)(const qn_context *ctx, qn_step *step),
                              qn_error *error)
{
    step->state = qn__calloc(plan->ctx, 1, state_bytes);
    if (step->state == NULL)
        return QN_NOMEM(error);
    const qn_status status = fill(plan, step, step->state, error);
    if (status != QN_OK)
        release(plan->ctx, step);
    return status;
}

qn_status qn__step_fail(const qn_step *step, qn_error *error, qn_status status, const char *format,
                        ...)
{
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return qn__error_set(error, status, "node \"%s\" (%s): %s", step->node->name,
                         qn__op_name(step->node->op), text);
}

const qn_plan_options *qn__plan_get_options(const qn_plan *plan)
{
    return &plan->options;
}

qn_requantize qn__plan_requantize(const qn_plan *plan)
{
    const qn_requantize asked = plan->options.requantize;
    const qn_requantize kind = asked != QN_REQUANTIZE_DEFAULT ? asked : plan->graph->requantize;
    return kind == QN_REQUANTIZE_FLOAT ? QN_REQUANTIZE_DEFAULT : kind;
}

const qn_context *qn__plan_context(const qn_plan *plan)
{
    return plan->ctx;
}

bool qn__plan_may_pack(const qn_plan *plan, size_t bytes)
{
    const size_t limit = plan->options.packed_limit;
    return limit == 0 || (plan->packed_bytes <= limit && bytes <= limit - plan->packed_bytes);
}

const qn_tensor *qn__step_input(const qn_step *step, uint32_t input)
{
    return input < step->node->n_inputs ? step->node->inputs[input] : NULL;
}

void qn__tensor_dims(const qn_tensor *tensor, int64_t dims[QN_MAX_RANK])
{
    for (size_t i = 0; i < tensor->rank; i++)
        dims[i] = tensor->dims[i].value;
}

size_t qn__tensor_elements(const qn_tensor *tensor)
{
    size_t count = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        count *= (size_t)tensor->dims[i].value;
    return count;
}

qn_clamp_f32 qn__step_clamp(const qn_step *step)
{
    switch (step->node->act) {
    case QN_ACT_RELU:
        return (qn_clamp_f32){0.0f, INFINITY};
    case QN_ACT_CLIP:
        return (qn_clamp_f32){step->node->act_lo, step->node->act_hi};
    case QN_ACT_NONE:
        break;
    }
    return (qn_clamp_f32){-INFINITY, INFINITY};
}

static qn_status constant_input(const qn_step *step, uint32_t input, const qn_tensor **out,
                                size_t *count, qn_error *error)
{
    const qn_tensor *const t = qn__step_input(step, input);
    *out = t;
    *count = 0;
    if (t == NULL)
        return QN_OK;
    if (t->constant == NULL)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input %u \"%s\" must be constant",
                             (unsigned)input, t->name);
    size_t bytes;
    *count = qn__tensor_elements(t);
    if (!qn__dtype_bytes(&bytes, t->type.dtype, *count) || bytes > t->constant->size_bytes)
        return qn__step_fail(step, error, QN_CORRUPT, "constant \"%s\" has %zu bytes for %zu %s",
                             t->name, t->constant->size_bytes, *count,
                             qn__dtype_name(t->type.dtype));
    return QN_OK;
}

qn_status qn__step_const_f32(const qn_plan *plan, const qn_step *step, uint32_t input, float **out,
                             size_t *count, qn_error *error)
{
    const qn_tensor *t;
    size_t n;
    *out = NULL;
    if (count != NULL)
        *count = 0;
    QN_TRY(constant_input(step, input, &t, &n, error));
    if (t == NULL)
        return QN_OK;
    size_t bytes;
    if (!qn_mul_size(&bytes, n, sizeof(float)))
        return QN_NOMEM(error);
    float *const values = qn__alloc(plan->ctx, bytes);
    if (values == NULL)
        return QN_NOMEM(error);
    qn_view view = {.tensor = t, .rank = t->rank, .count = n, .data = (void *)t->constant->data};
    qn__tensor_dims(t, view.dims);
    qn__view_to_f32(&view, values);
    *out = values;
    if (count != NULL)
        *count = n;
    return QN_OK;
}

qn_status qn__step_const_ints(const qn_plan *plan, const qn_step *step, uint32_t input,
                              int64_t **out, size_t *count, qn_error *error)
{
    const qn_tensor *t;
    size_t n;
    *out = NULL;
    *count = 0;
    QN_TRY(constant_input(step, input, &t, &n, error));
    if (t == NULL)
        return QN_OK;
    if (qn__dtype_is_float(t->type.dtype))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input \"%s\" must be of integers",
                             t->name);
    int64_t *const values = qn__calloc(plan->ctx, n + 1, sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++)
        values[i] = qn__load_int(t->constant->data, t->type.dtype, i);
    *out = values;
    *count = n;
    return QN_OK;
}

qn_status qn__step_ints_param(const qn_plan *plan, const qn_step *step, uint32_t input,
                              const char *name, int64_t **out, size_t *count, qn_error *error)
{
    if (qn__step_input(step, input) != NULL)
        return qn__step_const_ints(plan, step, input, out, count, error);
    size_t n;
    const int64_t *const values = qn__attr_ints(step->node, name, &n);
    *out = NULL;
    *count = 0;
    if (values == NULL)
        return QN_OK;
    int64_t *const copy = qn__calloc(plan->ctx, n + 1, sizeof(*copy));
    if (copy == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++)
        copy[i] = values[i];
    *out = copy;
    *count = n;
    return QN_OK;
}
