/* Sessions of the stand-alone runtime: one block of memory, the caller's threads. */
#include "core/checked.h"
#include "rt/rt.h"

#include <string.h>

enum { ALIGNMENT = 64, MAX_WORKERS = 1024 };

typedef enum input_state { INPUT_UNSET = 0, INPUT_SET = 1, INPUT_LENT = 2 } input_state;

struct qn_rt_session {
    const qn_rt_model *model;
    qn_exec *exec;
    void *owned;  /* the session's memory where the caller gave none */
    qn_pool pool; /* loops of the caller, below */
    qn_rt_parallel_for parallel_for;
    void *parallel_ctx;
    bool ran;             /* outputs are there */
    uint8_t *inputs;      /* [n_inputs] input_state */
    const void *places[]; /* [n_inputs] the inputs' own memory, as running wants them */
};

void qn_rt_session_options_init(qn_rt_session_options *options)
{
    *options = (qn_rt_session_options){.struct_size = sizeof(*options), .n_workers = 1};
}

qn_status qn__rt_session_layout(qn_rt_model *model, qn_error *error)
{
    size_t self, exec = 0;
    QN_TRY(qn__exec_bytes(model->plan, &exec, error));
    /* A graph's inputs are in memory already: their number is far from overflowing. */
    const size_t n = model->graph->n_inputs;
    self = sizeof(qn_rt_session) + n * (sizeof(void *) + 1);
    QN_FAIL_IF(!qn_align_size(&model->self_bytes, self, ALIGNMENT) ||
                   !qn_add_size(&model->arena_bytes, model->self_bytes, exec),
               error, QN_LIMIT, "activations need more memory than can be addressed");
    return QN_OK;
}

static void lend_loop(qn_pool *pool, qn_parallel_worker_fn fn, void *arg, size_t count)
{
    const qn_rt_session *const session =
        (const qn_rt_session *)((const char *)pool - offsetof(qn_rt_session, pool));
    session->parallel_for(session->parallel_ctx, fn, arg, count);
}

static qn_status check_options(const qn_rt_model *model, const qn_rt_session_options *options,
                               qn_error *error)
{
    QN_TRY(qn__check_struct(options->struct_size, sizeof(*options), "qn_rt_session_options_init",
                            error));
    QN_FAIL_IF(options->arena != NULL && options->arena_bytes < model->arena_bytes, error,
               QN_INVALID_ARGUMENT, "an arena of %zu bytes was given, the model needs %zu",
               options->arena_bytes, model->arena_bytes);
    QN_FAIL_IF((uintptr_t)options->arena % ALIGNMENT != 0, error, QN_INVALID_ARGUMENT,
               "the arena must lie at a multiple of %d bytes", ALIGNMENT);
    QN_FAIL_IF(options->n_workers == 0 || options->n_workers > MAX_WORKERS, error,
               QN_INVALID_ARGUMENT, "%u workers asked, 1 to %d can be", options->n_workers,
               MAX_WORKERS);
    QN_FAIL_IF(options->parallel_for == NULL && options->n_workers > 1, error, QN_INVALID_ARGUMENT,
               "%u workers and no parallel_for", options->n_workers);
    return QN_OK;
}

qn_status qn_rt_session_create(const qn_rt_model *model, const qn_rt_session_options *options,
                               qn_rt_session **out, qn_error *error)
{
    qn_rt_session_options defaults;
    QN_FAIL_IF(model == NULL || out == NULL, error, QN_INVALID_ARGUMENT,
               "qn_rt_session_create: NULL argument");
    if (options == NULL) {
        qn_rt_session_options_init(&defaults);
        options = &defaults;
    }
    QN_TRY(check_options(model, options, error));
    void *owned = NULL;
    if (options->arena == NULL) {
        owned = qn__alloc_aligned(&model->ctx, model->arena_bytes);
        if (owned == NULL)
            return QN_NOMEM(error);
        qn__will_write(owned, model->arena_bytes);
    }
    uint8_t *const memory = owned != NULL ? owned : options->arena;
    qn_rt_session *const session = (void *)memory;
    const size_t n = model->graph->n_inputs;
    memset(memory, 0, model->self_bytes);
    session->model = model;
    session->owned = owned;
    session->pool = (qn_pool){options->n_workers, lend_loop};
    session->parallel_for = options->parallel_for;
    session->parallel_ctx = options->parallel_ctx;
    session->inputs = (uint8_t *)(session->places + n);
    session->exec = qn__exec_place(model->plan, options->n_workers > 1 ? &session->pool : NULL,
                                   memory + model->self_bytes);
    for (size_t i = 0; i < n; i++)
        session->places[i] = qn__exec_input(session->exec, i)->data;
    *out = session;
    return QN_OK;
}

void qn_rt_session_destroy(qn_rt_session *session)
{
    if (session != NULL)
        qn__free_aligned(&session->model->ctx, session->owned);
}

/* --- inputs ------------------------------------------------------------------------------------*/
/* The named part of a session, if what the caller brings fits it. */
static qn_status find_part(const qn_rt_session *session, bool is_output, size_t index,
                           const void *data, const qn_view **out, qn_error *error)
{
    const char *const what = is_output ? "output" : "input";
    QN_FAIL_IF(session == NULL || data == NULL, error, QN_INVALID_ARGUMENT, "%s %zu: NULL argument",
               what, index);
    *out = is_output ? qn__exec_output(session->exec, index) : qn__exec_input(session->exec, index);
    QN_FAIL_IF(*out == NULL, error, QN_INVALID_ARGUMENT, "there is no %s %zu", what, index);
    QN_FAIL_IF(is_output && !session->ran, error, QN_STATE,
               "output \"%s\" is read before a run, or after an input was set",
               (*out)->tensor->name);
    return QN_OK;
}

static qn_status check_size(const qn_view *view, size_t given, size_t wanted, const char *unit,
                            qn_error *error)
{
    QN_FAIL_IF(given != wanted, error, QN_INVALID_ARGUMENT, "\"%s\" has %zu %s, not %zu",
               view->tensor->name, wanted, unit, given);
    return QN_OK;
}

/* Of a planned view: in range. */
static size_t view_bytes(const qn_view *view)
{
    size_t bytes = 0;
    qn__dtype_bytes(&bytes, view->tensor->type.dtype, view->count);
    return bytes;
}

static void mark_set(qn_rt_session *session, size_t index)
{
    if (session->inputs[index] == INPUT_UNSET)
        session->inputs[index] = INPUT_SET;
    session->ran = false;
}

qn_status qn_rt_set_input(qn_rt_session *session, size_t index, const float *values, size_t count,
                          qn_error *error)
{
    const qn_view *view;
    QN_TRY(find_part(session, false, index, values, &view, error));
    QN_TRY(check_size(view, count, view->count, "elements", error));
    qn__view_from_f32(view, values);
    mark_set(session, index);
    return QN_OK;
}

qn_status qn_rt_set_input_raw(qn_rt_session *session, size_t index, const void *elements,
                              size_t size_bytes, qn_error *error)
{
    const qn_view *view;
    QN_TRY(find_part(session, false, index, elements, &view, error));
    QN_TRY(check_size(view, size_bytes, view_bytes(view), "bytes", error));
    if (size_bytes > 0)
        memcpy(view->data, elements, size_bytes);
    mark_set(session, index);
    return QN_OK;
}

void *qn_rt_input_buffer(qn_rt_session *session, size_t index)
{
    const qn_view *const view = session != NULL ? qn__exec_input(session->exec, index) : NULL;
    if (view == NULL)
        return NULL;
    session->inputs[index] = INPUT_LENT;
    return view->data;
}

/* --- running -----------------------------------------------------------------------------------*/
qn_status qn_rt_run(qn_rt_session *session, qn_error *error)
{
    QN_FAIL_IF(session == NULL, error, QN_INVALID_ARGUMENT, "qn_rt_run: NULL argument");
    const qn_graph *const graph = session->model->graph;
    for (size_t i = 0; i < graph->n_inputs; i++)
        QN_FAIL_IF(session->inputs[i] == INPUT_UNSET, error, QN_STATE,
                   "input \"%s\" was not set since the last run", graph->inputs[i]->name);
    session->ran = false;
    /* First: a run that fails half way has used their memory too. */
    for (size_t i = 0; i < graph->n_inputs; i++)
        if (session->inputs[i] == INPUT_SET)
            session->inputs[i] = INPUT_UNSET;
    QN_TRY(qn__exec_run(session->exec, session->places, error));
    session->ran = true;
    return QN_OK;
}

/* --- outputs -----------------------------------------------------------------------------------*/
qn_status qn_rt_get_output(const qn_rt_session *session, size_t index, float *values, size_t count,
                           qn_error *error)
{
    const qn_view *view;
    QN_TRY(find_part(session, true, index, values, &view, error));
    QN_TRY(check_size(view, count, view->count, "elements", error));
    qn__view_to_f32(view, values);
    return QN_OK;
}

qn_status qn_rt_get_output_raw(const qn_rt_session *session, size_t index, void *elements,
                               size_t size_bytes, qn_error *error)
{
    const qn_view *view;
    QN_TRY(find_part(session, true, index, elements, &view, error));
    QN_TRY(check_size(view, size_bytes, view_bytes(view), "bytes", error));
    if (size_bytes > 0)
        memcpy(elements, view->data, size_bytes);
    return QN_OK;
}

const void *qn_rt_output_buffer(const qn_rt_session *session, size_t index)
{
    const qn_view *const view = session != NULL ? qn__exec_output(session->exec, index) : NULL;
    return view != NULL && session->ran ? view->data : NULL;
}
