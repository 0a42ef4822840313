/* One thread's use of a plan: memory, hooks, profile. Running allocates nothing. */
#include "run/nd.h"
#include "run/plan.h"

#include <string.h>
#include <time.h>

struct qn_exec {
    const qn_plan *plan;
    qn_pool *pool;
    uint8_t *arena; /* activations, then scratch */
    qn_view *views; /* [n_values] with data of this exec */
    qn_view *io;    /* inputs and outputs of all steps, contiguous per step */
    size_t *io_at;  /* [n_steps] */
    qn_hook_fn hook;
    void *hook_ctx;
    bool profiling;
    qn_step_time *times; /* [n_steps] */
    size_t n_times;
};

static void *value_data(const qn_exec *exec, uint32_t index)
{
    const qn_value *const value = &exec->plan->values[index];
    if (value->is_constant)
        return value->view.data;
    return exec->arena + exec->plan->values[value->root].offset;
}

static void fill_views(qn_exec *exec)
{
    const qn_plan *const plan = exec->plan;
    for (uint32_t v = 0; v < plan->n_values; v++) {
        exec->views[v] = plan->values[v].view;
        exec->views[v].data = value_data(exec, v);
    }
    size_t at = 0;
    for (size_t s = 0; s < plan->n_steps; s++) {
        const qn_plan_step *const step = &plan->steps[s];
        exec->io_at[s] = at;
        for (uint32_t i = 0; i < step->n_in + step->n_out; i++, at++)
            if (step->in[i] != QN_NO_VALUE) /* out follows in */
                exec->io[at] = exec->views[step->in[i]];
    }
}

qn_status qn__exec_create(const qn_plan *plan, qn_pool *pool, qn_exec **out, qn_error *error)
{
    const qn_context *const ctx = plan->ctx;
    qn_exec *const exec = qn__calloc(ctx, 1, sizeof(*exec));
    if (exec == NULL)
        return QN_NOMEM(error);
    exec->plan = plan;
    exec->pool = pool;
    size_t n_io = 0;
    for (size_t s = 0; s < plan->n_steps; s++)
        n_io += plan->steps[s].n_in + plan->steps[s].n_out;
    exec->arena = qn__alloc_aligned(ctx, plan->arena_bytes + plan->scratch_bytes + 64);
    exec->views = qn__calloc(ctx, plan->n_values + 1, sizeof(*exec->views));
    exec->io = qn__calloc(ctx, n_io + 1, sizeof(*exec->io));
    exec->io_at = qn__calloc(ctx, plan->n_steps + 1, sizeof(*exec->io_at));
    exec->times = qn__calloc(ctx, plan->n_steps + 1, sizeof(*exec->times));
    if (exec->arena == NULL || exec->views == NULL || exec->io == NULL || exec->io_at == NULL ||
        exec->times == NULL) {
        qn__exec_destroy(exec);
        return QN_NOMEM(error);
    }
    fill_views(exec);
    *out = exec;
    return QN_OK;
}

void qn__exec_destroy(qn_exec *session)
{
    if (session == NULL)
        return;
    const qn_context *const ctx = session->plan->ctx;
    qn__free_aligned(ctx, session->arena);
    qn__free(ctx, session->views);
    qn__free(ctx, session->io);
    qn__free(ctx, session->io_at);
    qn__free(ctx, session->times);
    qn__free(ctx, session);
}

void qn__exec_set_hook(qn_exec *session, qn_hook_fn hook, void *ctx)
{
    session->hook = hook;
    session->hook_ctx = ctx;
}

void qn__exec_set_profiling(qn_exec *session, bool enabled)
{
    session->profiling = enabled;
    session->n_times = 0;
}

const qn_step_time *qn__exec_profile(const qn_exec *session, size_t *count)
{
    *count = session->n_times;
    return session->times;
}

const qn_view *qn__exec_output(const qn_exec *session, size_t index)
{
    if (index >= session->plan->graph->n_outputs)
        return NULL;
    return &session->views[session->plan->outputs[index]];
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static qn_status run_hook(const qn_exec *exec, uint32_t value, qn_error *error)
{
    if (exec->hook == NULL || value == QN_NO_VALUE)
        return QN_OK;
    return exec->hook(exec->hook_ctx, &exec->views[value], error);
}

static qn_status run_step(const qn_exec *exec, size_t index, const qn_run_env *env, qn_error *error)
{
    const qn_plan_step *const step = &exec->plan->steps[index];
    if (step->skip)
        return QN_OK;
    const qn_view *const in = exec->io + exec->io_at[index];
    const qn_view *const out = in + step->n_in;
    if (step->op.node != NULL)
        return step->op.impl->run(&step->op, env, in, out, error);
    qn__convert_layout(env->pool, out->data, out->layout, in->data, in->layout, in->rank, in->dims,
                       qn__dtype_bits(in->tensor->type.dtype) / 8);
    return QN_OK;
}

/* The true shape of an output that was planned with a bound. */
static void resize_output(qn_exec *exec, const qn_plan_step *step, const int64_t *dims)
{
    qn_view *const view = &exec->views[step->out[0]];
    view->count = 1;
    for (size_t i = 0; i < view->rank; i++) {
        view->dims[i] = dims[i];
        view->count *= (size_t)dims[i];
    }
}

static qn_status advance(qn_exec *exec, size_t index, qn_error *error)
{
    const qn_plan *const plan = exec->plan;
    const qn_plan_step *const step = &plan->steps[index];
    int64_t dims[1][QN_MAX_RANK];
    const qn_run_env env = {plan, exec->pool, exec->arena + plan->arena_bytes, dims};
    const double start = exec->profiling ? now_seconds() : 0.0;
    if (step->op.resizes)
        memcpy(dims, plan->values[step->out[0]].view.dims, sizeof(dims));
    QN_TRY(run_step(exec, index, &env, error));
    if (step->op.resizes)
        resize_output(exec, step, dims[0]);
    if (exec->profiling && !step->skip)
        exec->times[exec->n_times++] =
            (qn_step_time){step->op.node != NULL ? step->op.node->name : "(layout)",
                           step->op.kernel_name, now_seconds() - start, step->macs};
    for (uint32_t i = 0; step->op.node != NULL && i < step->n_out; i++)
        QN_TRY(run_hook(exec, step->out[i], error));
    return QN_OK;
}

static qn_status begin(qn_exec *session, const void *const *inputs, qn_error *error)
{
    const qn_plan *const plan = session->plan;
    session->n_times = 0;
    for (size_t i = 0; i < plan->graph->n_inputs; i++) {
        QN_FAIL_IF(inputs == NULL || inputs[i] == NULL, error, QN_INVALID_ARGUMENT,
                   "input \"%s\" has no data", plan->graph->inputs[i]->name);
        const uint32_t value = plan->inputs[i];
        if (plan->values[value].bytes > 0)
            memcpy(session->views[value].data, inputs[i], plan->values[value].bytes);
    }
    for (size_t i = 0; i < plan->graph->n_inputs; i++)
        QN_TRY(run_hook(session, plan->inputs[i], error));
    return QN_OK;
}

static qn_status named(const qn_exec *session, qn_status status, qn_error *error)
{
    const qn_plan *const plan = session->plan;
    if (status != QN_OK && plan->source->file != NULL)
        return qn__error_prefix(error, status, "%s", plan->source->file);
    return status;
}

size_t qn__exec_n_steps(const qn_exec *session)
{
    return session->plan->n_steps;
}

const qn_view *qn__exec_step_input(const qn_exec *session, size_t index, const qn_node **node)
{
    const qn_plan_step *const step = &session->plan->steps[index];
    if (step->op.node == NULL || step->n_in == 0 || step->in[0] == QN_NO_VALUE ||
        session->plan->values[step->in[0]].is_constant)
        return NULL;
    *node = step->op.node;
    return session->io + session->io_at[index];
}

qn_status qn__exec_begin(qn_exec *session, const void *const *inputs, qn_error *error)
{
    return named(session, begin(session, inputs, error), error);
}

qn_status qn__exec_step(qn_exec *session, size_t index, qn_error *error)
{
    return named(session, advance(session, index, error), error);
}

qn_status qn__exec_run(qn_exec *session, const void *const *inputs, qn_error *error)
{
    qn_status status = begin(session, inputs, error);
    for (size_t s = 0; s < session->plan->n_steps && status == QN_OK; s++)
        status = advance(session, s, error);
    return named(session, status, error);
}
