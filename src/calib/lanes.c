#include "calib/lanes.h"

#include <pthread.h>

/* Plans that nobody runs and that are kept for a shape to come back. */
enum { KEPT = 2 };

typedef struct qn_shape_plan {
    struct qn_shape_plan *next; /* the one used last first */
    size_t shape, users;
    int64_t (*dims)[QN_MAX_RANK];
    qn_plan *plan;
} shape_plan;

struct qn_plans {
    const qn_graph *graph;
    const qn_dataset *dataset;
    qn_plan_options options;
    pthread_mutex_t lock; /* of the list and what it holds but plans in use */
    shape_plan *first;
};

static void entry_free(const qn_context *ctx, shape_plan *entry)
{
    qn__plan_destroy(entry->plan);
    qn__free(ctx, entry->dims);
    qn__free(ctx, entry);
}

static qn_status sample_dims(const qn_graph *graph, const qn_dataset *dataset, size_t sample,
                             int64_t (**out)[QN_MAX_RANK], qn_error *error)
{
    int64_t(*dims)[QN_MAX_RANK] =
        qn__calloc(graph->ctx, graph->n_inputs, sizeof(int64_t[QN_MAX_RANK]));
    if (dims == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_inputs; i++) {
        const qn_tensor *t = graph->inputs[i];
        uint32_t rank;
        if (!qn_dataset_sample_dims(dataset, sample, i, &rank, dims[i]) ||
            (t->has_shape && rank != t->rank)) {
            qn__free(graph->ctx, dims);
            QN_FAIL(error, QN_INVALID_ARGUMENT, "the samples do not fit input \"%s\"", t->name);
        }
    }
    *out = dims;
    return QN_OK;
}

qn_status qn__dataset_input_dims(const qn_graph *graph, const qn_dataset *dataset,
                                 int64_t (**out)[QN_MAX_RANK], qn_error *error)
{
    return sample_dims(graph, dataset, 0, out, error);
}

/* Frees what nobody has used for longest. */
static void forget(qn_plans *p, size_t keep)
{
    shape_plan **at = &p->first;
    while (*at != NULL) {
        shape_plan *entry = *at;
        if (entry->users > 0 || keep > 0) {
            keep -= entry->users == 0;
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        entry_free(p->graph->ctx, entry);
    }
}

static qn_status make_entry(qn_plans *p, size_t sample, shape_plan **out, qn_error *error)
{
    const qn_context *ctx = p->graph->ctx;
    shape_plan *entry = qn__calloc(ctx, 1, sizeof(*entry));
    if (entry == NULL)
        return QN_NOMEM(error);
    entry->shape = qn__dataset_shape_of(p->dataset, sample);
    qn_status status = sample_dims(p->graph, p->dataset, sample, &entry->dims, error);
    qn_plan_options options = p->options;
    options.input_dims = (const int64_t(*)[QN_MAX_RANK])entry->dims;
    if (status == QN_OK)
        status = qn__plan_create(p->graph, &options, &entry->plan, error);
    if (status != QN_OK) {
        entry_free(ctx, entry);
        return status;
    }
    *out = entry;
    return QN_OK;
}

static qn_status hold(qn_plans *p, size_t sample, shape_plan **out, qn_error *error)
{
    const size_t shape = qn__dataset_shape_of(p->dataset, sample);
    shape_plan **at = &p->first;
    while (*at != NULL && (*at)->shape != shape)
        at = &(*at)->next;
    shape_plan *entry = *at;
    if (entry != NULL)
        *at = entry->next;
    else
        QN_TRY(make_entry(p, sample, &entry, error));
    entry->next = p->first;
    p->first = entry;
    entry->users++;
    *out = entry;
    return QN_OK;
}

static void let_go(qn_plans *p, shape_plan *entry)
{
    pthread_mutex_lock(&p->lock);
    entry->users--;
    forget(p, KEPT);
    pthread_mutex_unlock(&p->lock);
}

qn_status qn__plans_create(const qn_graph *graph, const qn_dataset *dataset,
                           const qn_plan_options *options, size_t n_lanes, qn_plans **out,
                           qn_error *error)
{
    shape_plan *first = NULL;
    QN_FAIL_IF(qn_dataset_count(dataset) == 0, error, QN_INVALID_ARGUMENT, "no samples");
    qn_plans *p = qn__calloc(graph->ctx, 1, sizeof(*p));
    if (p == NULL)
        return QN_NOMEM(error);
    p->graph = graph;
    p->dataset = dataset;
    p->options = *options;
    const size_t n_shapes = qn__dataset_n_shapes(dataset);
    const size_t most = n_shapes < n_lanes + KEPT ? n_shapes : n_lanes + KEPT;
    /* 0 is no limit */
    if (most > 1 && options->packed_limit > 0)
        p->options.packed_limit = options->packed_limit / most + 1;
    pthread_mutex_init(&p->lock, NULL);
    const qn_status status = hold(p, 0, &first, error);
    if (status != QN_OK) {
        qn__plans_destroy(p);
        return status;
    }
    first->users = 0;
    *out = p;
    return QN_OK;
}

void qn__plans_destroy(qn_plans *plans)
{
    if (plans == NULL)
        return;
    const qn_context *ctx = plans->graph->ctx;
    while (plans->first != NULL) {
        shape_plan *entry = plans->first;
        plans->first = entry->next;
        entry_free(ctx, entry);
    }
    pthread_mutex_destroy(&plans->lock);
    qn__free(ctx, plans);
}

static void empty(qn_lane *lane)
{
    qn__exec_destroy(lane->exec);
    qn__feed_free(&lane->feed);
    lane->exec = NULL;
    if (lane->held != NULL)
        let_go(lane->plans, lane->held);
    lane->held = NULL;
}

qn_status qn__lane_init(qn_lane *lane, qn_plans *plans, qn_pool *pool, qn_hook_fn hook,
                        void *hook_arg, qn_error *error)
{
    *lane = (qn_lane){.plans = plans, .pool = pool, .hook = hook, .hook_arg = hook_arg};
    return qn__lane_fit(lane, 0, error);
}

qn_status qn__lane_fit(qn_lane *lane, size_t sample, qn_error *error)
{
    qn_plans *p = lane->plans;
    if (lane->held != NULL && lane->held->shape == qn__dataset_shape_of(p->dataset, sample))
        return QN_OK;
    empty(lane);
    pthread_mutex_lock(&p->lock);
    const qn_status held = hold(p, sample, &lane->held, error);
    pthread_mutex_unlock(&p->lock);
    QN_TRY(held);
    qn_status status = qn__feed_create(p->graph, (const int64_t(*)[QN_MAX_RANK])lane->held->dims,
                                       &lane->feed, error);
    if (status == QN_OK)
        status = qn__exec_create(lane->held->plan, lane->pool, &lane->exec, error);
    if (status != QN_OK) {
        empty(lane);
        return status;
    }
    qn__exec_set_hook(lane->exec, lane->hook, lane->hook_arg);
    return QN_OK;
}

qn_status qn__lane_load(qn_lane *lane, size_t sample, qn_error *error)
{
    const qn_dataset *dataset = lane->plans->dataset;
    const qn_status status = qn__lane_fit(lane, sample, error);
    if (status != QN_OK)
        return qn__dataset_n_shapes(dataset) > 1
                   ? qn__error_prefix(error, status, "%s", qn_dataset_name(dataset, sample))
                   : status;
    QN_TRY(qn_dataset_load(dataset, sample, lane->feed.values, error));
    qn__feed_convert(&lane->feed, (const float *const *)lane->feed.values);
    return QN_OK;
}

const int64_t (*qn__lane_dims(const qn_lane *lane))[QN_MAX_RANK]
{
    return (const int64_t(*)[QN_MAX_RANK])lane->held->dims;
}

void qn__lane_free(qn_lane *lane)
{
    if (lane->plans == NULL)
        return;
    empty(lane);
    *lane = (qn_lane){0};
}
