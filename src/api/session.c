/* Public sessions: a simplified graph, its plan and one executor, with float inputs and outputs. */
#include "calib/calib.h"
#include "kernel/null.h"
#include "quant/model.h"

#include <string.h>

struct qn_session {
    const qn_context *ctx;
    qn_graph *graph;
    qn_plan *plan;
    qn_exec *exec;
    qn_feed feed;
    int64_t (*dims)[QN_MAX_RANK]; /* of the inputs */
    float **outputs;              /* [n_outputs] */
    size_t *counts, *capacities;  /* [n_outputs] elements */
    bool ran;
};

void qn_session_options_init(qn_session_options *options)
{
    *options = (qn_session_options){.struct_size = sizeof(*options), .batch = 1, .simplify = true};
}

qn_status qn__model_input_dims(const qn_graph *g, const int64_t (*given)[QN_MAX_RANK],
                               int64_t batch, int64_t (*dims)[QN_MAX_RANK], qn_error *error)
{
    for (size_t i = 0; i < g->n_inputs; i++) {
        const qn_tensor *t = g->inputs[i];
        QN_FAIL_IF(!t->has_shape, error, QN_UNSUPPORTED, "input \"%s\" has no shape", t->name);
        for (uint32_t d = 0; d < t->rank; d++) {
            const qn_dim dim = t->dims[d];
            if (given != NULL)
                dims[i][d] = given[i][d];
            else if (dim.kind == QN_DIM_CONST)
                dims[i][d] = dim.value;
            else if (d == 0)
                dims[i][d] = batch;
            else
                QN_FAIL(error, QN_INVALID_ARGUMENT,
                        "input \"%s\": dimension %u is not fixed: give the input's shape", t->name,
                        d);
            QN_FAIL_IF(dims[i][d] < 1 || (dim.kind == QN_DIM_CONST && dim.value != dims[i][d]),
                       error, QN_INVALID_ARGUMENT, "input \"%s\": dimension %u cannot be %lld",
                       t->name, d, (long long)dims[i][d]);
        }
    }
    return QN_OK;
}

static qn_status session_init(qn_session *s, const qn_model *model,
                              const qn_session_options *options, qn_error *error)
{
    const qn_context *ctx = s->ctx;
    QN_TRY(options->simplify
               ? qn__model_runnable(model->graph, options->requantize, true, &s->graph, error)
               : qn__graph_clone(model->graph, &s->graph, error));
    s->dims = qn__calloc(ctx, s->graph->n_inputs, sizeof(*s->dims));
    s->outputs = qn__calloc(ctx, s->graph->n_outputs, sizeof(*s->outputs));
    s->counts = qn__calloc(ctx, s->graph->n_outputs, sizeof(*s->counts));
    s->capacities = qn__calloc(ctx, s->graph->n_outputs, sizeof(*s->capacities));
    if (s->dims == NULL || s->outputs == NULL || s->counts == NULL || s->capacities == NULL)
        return QN_NOMEM(error);
    QN_TRY(qn__model_input_dims(s->graph, options->input_dims, options->batch, s->dims, error));
    qn_plan_options plan_options;
    qn__plan_options_init(&plan_options, ctx);
    plan_options.input_dims = (const int64_t(*)[QN_MAX_RANK])s->dims;
    plan_options.saturate16 = options->saturate16;
    plan_options.requantize = options->requantize;
    qn_kernels kernels;
    if (options->null_kernels) {
        qn__kernels_init(&kernels, plan_options.cpu_flags);
        qn__kernels_null(&kernels);
        plan_options.kernels = &kernels;
    }
    QN_TRY(qn__plan_create(s->graph, &plan_options, &s->plan, error));
    QN_TRY(qn__feed_create(s->graph, (const int64_t(*)[QN_MAX_RANK])s->dims, &s->feed, error));
    return qn__exec_create(s->plan, options->single_threaded ? NULL : ctx->pool, &s->exec, error);
}

qn_status qn_session_create(const qn_model *model, const qn_session_options *options,
                            qn_session **out, qn_error *error)
{
    qn_session_options defaults;
    QN_FAIL_IF(model == NULL || out == NULL, error, QN_INVALID_ARGUMENT,
               "qn_session_create: NULL argument");
    if (options == NULL) {
        qn_session_options_init(&defaults);
        options = &defaults;
    }
    QN_TRY(
        qn__check_struct(options->struct_size, sizeof(*options), "qn_session_options_init", error));
    qn_session *s = qn__calloc(model->ctx, 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    s->ctx = model->ctx;
    const qn_status status = session_init(s, model, options, error);
    if (status != QN_OK) {
        qn_session_destroy(s);
        return status;
    }
    *out = s;
    return QN_OK;
}

void qn_session_destroy(qn_session *session)
{
    if (session == NULL)
        return;
    const qn_context *ctx = session->ctx;
    qn__exec_destroy(session->exec);
    qn__feed_free(&session->feed);
    qn__plan_destroy(session->plan);
    for (size_t i = 0; session->outputs != NULL && i < session->graph->n_outputs; i++)
        qn__free(ctx, session->outputs[i]);
    qn__free(ctx, session->outputs);
    qn__free(ctx, session->counts);
    qn__free(ctx, session->capacities);
    qn__free(ctx, session->dims);
    qn__graph_destroy(session->graph);
    qn__free(ctx, session);
}

qn_status qn_session_run(qn_session *session, const float *const *inputs, qn_error *error)
{
    QN_FAIL_IF(session == NULL || inputs == NULL, error, QN_INVALID_ARGUMENT,
               "qn_session_run: NULL argument");
    session->ran = false;
    qn__feed_convert(&session->feed, inputs);
    QN_TRY(qn__exec_run(session->exec, session->feed.pointers, error));
    for (size_t i = 0; i < session->graph->n_outputs; i++) {
        const qn_view *view = qn__exec_output(session->exec, i);
        if (session->outputs[i] == NULL || view->count > session->capacities[i]) {
            float *grown =
                qn__reallocarray(session->ctx, session->outputs[i], view->count, sizeof(float));
            if (grown == NULL)
                return QN_NOMEM(error);
            session->outputs[i] = grown;
            session->capacities[i] = view->count;
        }
        session->counts[i] = view->count;
        qn__view_to_f32(view, session->outputs[i]);
    }
    session->ran = true;
    return QN_OK;
}

const float *qn_session_output(const qn_session *session, size_t index, size_t *count)
{
    if (session == NULL || !session->ran || index >= session->graph->n_outputs)
        return NULL;
    if (count != NULL)
        *count = session->counts[index];
    return session->outputs[index];
}

bool qn_session_dims(const qn_session *session, bool is_output, size_t index, uint32_t *rank,
                     int64_t dims[QN_MODEL_MAX_RANK])
{
    if (session == NULL || rank == NULL || dims == NULL)
        return false;
    const qn_graph *g = session->graph;
    if (index >= (is_output ? g->n_outputs : g->n_inputs))
        return false;
    if (!is_output) {
        *rank = g->inputs[index]->rank;
        memcpy(dims, session->dims[index], sizeof(session->dims[index]));
        return true;
    }
    const qn_view *view = session->ran ? qn__exec_output(session->exec, index) : NULL;
    if (view == NULL)
        return false;
    *rank = view->rank;
    memcpy(dims, view->dims, sizeof(view->dims));
    return true;
}

size_t qn_session_arena_bytes(const qn_session *session)
{
    return session == NULL
               ? 0
               : qn__plan_arena_bytes(session->plan) + qn__plan_packed_bytes(session->plan);
}

void qn_session_memory(const qn_session *session, qn_memory_use *out)
{
    qn_plan_memory m = {0};
    if (out == NULL)
        return;
    if (session != NULL)
        qn__plan_memory(session->plan, &m);
    *out = (qn_memory_use){m.arena, m.live, m.packed};
}

void qn_session_set_profiling(qn_session *session, bool enabled)
{
    if (session != NULL)
        qn__exec_set_profiling(session->exec, enabled);
}

bool qn_session_profile(const qn_session *session, size_t index, qn_profile_entry *out)
{
    size_t count;
    const qn_step_time *steps = session != NULL ? qn__exec_profile(session->exec, &count) : NULL;
    if (steps == NULL || out == NULL || index >= count)
        return false;
    *out = (qn_profile_entry){steps[index].node, steps[index].kernel, steps[index].seconds,
                              steps[index].macs};
    return true;
}
