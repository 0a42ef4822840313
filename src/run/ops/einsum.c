/* Einsum: for each element of the output, products summed over the labels that it lacks. */
#include "ir/einsum.h"

#include "run/nd.h"
#include "run/op.h"

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    const char *reason;
    qn_einsum e;
    size_t count = 1;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == NULL || node->inputs[i]->type.kind == QN_TYPE_QUANT)
            return qn__step_fail(step, error, QN_CORRUPT, "input %u does not fit", (unsigned)i);
        if (node->inputs[i]->type.dtype != QN_DTYPE_F32)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s",
                                 qn__dtype_name(node->inputs[i]->type.dtype));
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    }
    if (!qn__einsum_read(&e, qn__attr_string(node, "equation", ""),
                         (const qn_tensor *const *)node->inputs, node->n_inputs, &reason))
        return qn__step_fail(step, error, QN_CORRUPT, "equation: %s", reason);
    for (size_t i = 0; i < e.n_labels; i++)
        if (!qn_mul_size(&count, count, e.dims[i] > 0 ? (size_t)e.dims[i] : 1))
            return qn__step_fail(step, error, QN_LIMIT, "too many products");
    qn_einsum *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = e;
    step->state = state;
    step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

typedef struct einsum_job {
    const qn_einsum *e;
    const float *in[QN_EINSUM_INPUTS];
    float *out;
} einsum_job;

/* The innermost summed label, whose loop is the one that counts. */
static double sum_row(const einsum_job *job, const int64_t *at, size_t label, int64_t n)
{
    const qn_einsum *const e = job->e;
    double sum = 0.0;
    if (e->n_inputs == 2) {
        const float *const a = job->in[0] + at[0], *const b = job->in[1] + at[1];
        const int64_t sa = e->strides[0][label], sb = e->strides[1][label];
        for (int64_t i = 0; i < n; i++)
            sum += (double)(a[i * sa] * b[i * sb]);
        return sum;
    }
    for (int64_t i = 0; i < n; i++) {
        double product = 1.0;
        for (size_t k = 0; k < e->n_inputs; k++)
            product *= (double)job->in[k][at[k] + i * e->strides[k][label]];
        sum += product;
    }
    return sum;
}

static void run_range(void *arg, size_t begin, size_t end)
{
    const einsum_job *const job = arg;
    const qn_einsum *const e = job->e;
    const bool sums = e->n_labels > e->n_out;
    const size_t last = e->n_labels - 1;
    size_t rows = 1;
    for (size_t i = e->n_out; i + 1 < e->n_labels; i++)
        rows *= (size_t)e->dims[i];
    for (size_t index = begin; index < end; index++) {
        int64_t start[QN_EINSUM_INPUTS] = {0};
        size_t rest = index;
        for (size_t i = e->n_out; i-- > 0;) {
            const int64_t here = (int64_t)(rest % (size_t)e->dims[i]);
            rest /= (size_t)e->dims[i];
            for (size_t k = 0; k < e->n_inputs; k++)
                start[k] += here * e->strides[k][i];
        }
        double sum = 0.0;
        for (size_t row = 0; row < rows; row++) {
            int64_t at[QN_EINSUM_INPUTS];
            rest = row;
            for (size_t k = 0; k < e->n_inputs; k++)
                at[k] = start[k];
            for (size_t i = last; sums && i-- > e->n_out;) {
                const int64_t here = (int64_t)(rest % (size_t)e->dims[i]);
                rest /= (size_t)e->dims[i];
                for (size_t k = 0; k < e->n_inputs; k++)
                    at[k] += here * e->strides[k][i];
            }
            sum += sum_row(job, at, sums ? last : 0, sums ? e->dims[last] : 1);
        }
        job->out[index] = (float)sum;
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const qn_einsum *const e = step->state;
    einsum_job job = {.e = e, .out = out[0].data};
    size_t work = 1;
    for (size_t k = 0; k < e->n_inputs; k++)
        job.in[k] = in[k].data;
    for (size_t i = e->n_out; i < e->n_labels; i++)
        work *= (size_t)e->dims[i];
    qn__parallel_ranges(env->pool, run_range, &job, out[0].count, 4 * (work + 1));
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_einsum = {QN_OP_EINSUM, prepare, run, release};
