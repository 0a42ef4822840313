/* Operators whose output is the input's bytes under other dims. */
#include "run/op.h"

#include <string.h>

static qn_status check(const qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    if (node->n_inputs == 0 || node->inputs[0] == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "input 0 is missing");
    const size_t from = qn__tensor_elements(node->inputs[0]);
    const size_t to = qn__tensor_elements(node->outputs[0]);
    if (from != to || node->inputs[0]->type.dtype != node->outputs[0]->type.dtype)
        return qn__step_fail(step, error, QN_CORRUPT, "%zu %s elements become %zu %s", from,
                             qn__dtype_name(node->inputs[0]->type.dtype), to,
                             qn__dtype_name(node->outputs[0]->type.dtype));
    return QN_OK;
}

static qn_status prepare_row_major(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    QN_TRY(check(step, error));
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->alias = true;
    return QN_OK;
}

/* Identity and Dropout: the layout stays as it is. */
static qn_status prepare_same(const qn_plan *plan, qn_step *step, qn_error *error)
{
    QN_TRY(check(step, error));
    if (step->node->op == QN_OP_DROPOUT) {
        int64_t *training;
        size_t count;
        QN_TRY(qn__step_const_ints(plan, step, 2, &training, &count, error));
        bool drops = count > 0 && training[0] != 0;
        qn__free(qn__plan_context(plan), training);
        float *ratio = NULL;
        if (drops)
            QN_TRY(qn__step_const_f32(plan, step, 1, &ratio, &count, error));
        drops = drops && !(ratio != NULL && count == 1 && ratio[0] == 0.0f);
        qn__free(qn__plan_context(plan), ratio);
        if (drops)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "training mode drops at random");
    }
    step->out_layout[0] = step->in_layout[0];
    step->alias = step->node->n_outputs == 1 || step->node->outputs[1] == NULL;
    return QN_OK;
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    if (step->node->n_outputs > 1 && step->node->outputs[1] != NULL) /* Dropout keeps everything */
        for (size_t i = 0; i < out[1].count; i++)
            qn__store_int(out[1].data, out[1].tensor->type.dtype, i, 1);
    if (in[0].count > 0)
        memmove(out[0].data, in[0].data,
                in[0].count * (qn__dtype_bits(in[0].tensor->type.dtype) / 8));
    return QN_OK;
}

const qn_run_op qn__op_reshape = {QN_OP_NONE, prepare_row_major, run, NULL};
const qn_run_op qn__op_identity = {QN_OP_NONE, prepare_same, run, NULL};
