/* One thread's use of a plan: memory, hooks, profile. Running allocates nothing. */
#include "run/nd.h"
#include "run/plan.h"

#include <string.h>
#include <time.h>

struct qn_exec {
    const qn_plan *plan;
    qn_pool *pool;
    uint8_t *arena; /* activations and scratch */
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
    return exec->arena + exec->plan->values[value->root].offset + value->at;
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

/* Where the parts of a session lie in its memory. */
typedef struct exec_layout {
    size_t views, io, io_at, times, arena, total;
} exec_layout;

static bool add_part(size_t *total, size_t *at, size_t count, size_t item_bytes)
{
    size_t bytes;
    *at = *total;
    return qn_mul_size(&bytes, count, item_bytes) && qn_add_size(&bytes, *total, bytes) &&
           qn_align_size(total, bytes, 64);
}

static bool lay_out(const qn_plan *plan, exec_layout *out)
{
    size_t n_io = 0, self;
    for (size_t s = 0; s < plan->n_steps; s++)
        n_io += plan->steps[s].n_in + plan->steps[s].n_out;
    out->total = 0;
    /* The arena is last: what a step writes behind its end is nobody's. */
    return add_part(&out->total, &self, 1, sizeof(qn_exec)) &&
           add_part(&out->total, &out->views, plan->n_values, sizeof(qn_view)) &&
           add_part(&out->total, &out->io, n_io, sizeof(qn_view)) &&
           add_part(&out->total, &out->io_at, plan->n_steps, sizeof(size_t)) &&
           add_part(&out->total, &out->times, plan->n_steps, sizeof(qn_step_time)) &&
           add_part(&out->total, &out->arena, plan->arena_bytes, 1) &&
           qn_add_size(&out->total, out->total, 64); /* kernels may read up to 64 bytes more */
}

qn_status qn__exec_bytes(const qn_plan *plan, size_t *out, qn_error *error)
{
    exec_layout layout;
    QN_FAIL_IF(!lay_out(plan, &layout), error, QN_LIMIT,
               "activations need more memory than can be addressed");
    *out = layout.total;
    return QN_OK;
}

qn_exec *qn__exec_place(const qn_plan *plan, qn_pool *pool, void *memory)
{
    uint8_t *const bytes = memory;
    exec_layout at;
    if (!lay_out(plan, &at))
        return NULL;
    memset(bytes, 0, at.arena);
    qn_exec *const exec = memory;
    *exec = (qn_exec){.plan = plan,
                      .pool = pool,
                      .arena = bytes + at.arena,
                      .views = (qn_view *)(bytes + at.views),
                      .io = (qn_view *)(bytes + at.io),
                      .io_at = (size_t *)(bytes + at.io_at),
                      .times = (qn_step_time *)(bytes + at.times)};
    fill_views(exec);
    return exec;
}

qn_status qn__exec_create(const qn_plan *plan, qn_pool *pool, qn_exec **out, qn_error *error)
{
    size_t bytes = 0;
    QN_TRY(qn__exec_bytes(plan, &bytes, error));
    void *const memory = qn__alloc_aligned(plan->ctx, bytes);
    if (memory == NULL)
        return QN_NOMEM(error);
    qn__will_write(memory, bytes);
    *out = qn__exec_place(plan, pool, memory);
    return QN_OK;
}

void qn__exec_destroy(qn_exec *session)
{
    if (session != NULL)
        qn__free_aligned(session->plan->ctx, session);
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

const qn_view *qn__exec_input(const qn_exec *session, size_t index)
{
    if (index >= session->plan->graph->n_inputs)
        return NULL;
    return &session->views[session->plan->inputs[index]];
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
    if (exec->hook == NULL || value == QN_NO_VALUE || exec->views[value].pitch != 0 ||
        exec->views[value].absent)
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
    qn_run_env env = {.plan = plan,
                      .pool = exec->pool,
                      .scratch = exec->arena + step->scratch_at,
                      .out_dims = dims,
                      .quantizer = step->op.quantizer,
                      .ahead = step->ahead,
                      .ahead_bytes = step->ahead_bytes};
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
    for (uint32_t i = 0; exec->hook != NULL && step->op.node != NULL && i < step->n_out; i++)
        QN_TRY(run_hook(exec, step->out[i], error));
    return QN_OK;
}

/* Steps that read an input's memory find it at `data`. */
static void point_readers(qn_exec *session, uint32_t input, const void *data)
{
    const qn_plan *const plan = session->plan;
    for (size_t s = 0; s < plan->values[input].last && s < plan->n_steps; s++) {
        const qn_plan_step *const step = &plan->steps[s];
        for (uint32_t i = 0; i < step->n_in + step->n_out; i++)
            if (step->in[i] != QN_NO_VALUE && plan->values[step->in[i]].root == input)
                session->io[session->io_at[s] + i].data = (void *)data;
    }
}

/* borrow: the caller's memory outlives the run, and inputs that are only read stay there. */
static qn_status begin(qn_exec *session, const void *const *inputs, bool borrow, qn_error *error)
{
    const qn_plan *const plan = session->plan;
    session->n_times = 0;
    for (size_t i = 0; i < plan->graph->n_inputs; i++) {
        QN_FAIL_IF(inputs == NULL || inputs[i] == NULL, error, QN_INVALID_ARGUMENT,
                   "input \"%s\" has no data", plan->graph->inputs[i]->name);
        const uint32_t value = plan->inputs[i];
        if (plan->values[value].borrows) {
            const bool fits = (uintptr_t)inputs[i] % sizeof(uint64_t) == 0;
            const bool here = borrow && fits && session->hook == NULL;
            point_readers(session, value, here ? inputs[i] : session->views[value].data);
            if (here)
                continue;
        }
        if (plan->values[value].bytes > 0 && inputs[i] != session->views[value].data)
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
    return named(session, begin(session, inputs, false, error), error);
}

qn_status qn__exec_step(qn_exec *session, size_t index, qn_error *error)
{
    return named(session, advance(session, index, error), error);
}

qn_status qn__exec_run(qn_exec *session, const void *const *inputs, qn_error *error)
{
    qn_status status = begin(session, inputs, true, error);
    for (size_t s = 0; s < session->plan->n_steps && status == QN_OK; s++)
        status = advance(session, s, error);
    return named(session, status, error);
}
