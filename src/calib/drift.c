/* A few samples have an executor each. All advance together, a step of the plan at a time, every
 * tensor rounded as it is made. Before a
 * layer whose bias will be corrected runs, the drift of its input is known over all samples and is
 * added to it, as the corrected bias would do behind the weights; afterwards it is taken away, for
 * other readers of the tensor. */
#include "calib/drift.h"

#include "core/threads.h"
#include "kernel/split.h"
#include "run/nd.h"

#include <math.h>
#include <string.h>

typedef struct slot {
    struct job *job;
    qn_exec *exec;
    qn_feed feed;
    qn_fixed **sums; /* [n_tensors] per channel */
    qn_status status;
    qn_error error;
} slot;

typedef struct job {
    const qn_graph *graph;
    const qn_dataset *dataset;
    const qn_drift_options *options;
    uint8_t *wanted;  /* [n_tensors] */
    size_t *channels; /* [n_tensors] of those wanted, once seen */
    float **drifts;   /* [n_tensors], once known */
    qn_plan *plan;
    slot *slots;
    size_t n_slots, step;
} job;

static void round_view(const qn_drift_grid *g, const qn_view *view)
{
    /* adding 1.5 * 2^23 rounds half to even */
    const float magic = 12582912.0f, inverse = 1.0f / g->scale, scale = g->scale;
    const float lo = (float)(g->qmin - g->zero_point), hi = (float)(g->qmax - g->zero_point);
    float *x = view->data;
    for (size_t i = 0; i < view->count; i++) {
        float v = x[i] * inverse;
        v = v < lo ? lo : v;
        v = v > hi ? hi : v;
        x[i] = ((v + magic) - magic) * scale;
    }
}

static qn_status look(void *arg, const qn_view *view, qn_error *error)
{
    slot *s = arg;
    job *j = s->job;
    const qn_context *ctx = j->graph->ctx;
    const uint32_t id = view->tensor->id;
    if (j->options->grids[id].scale > 0)
        round_view(&j->options->grids[id], view);
    if (j->wanted[id] == 0)
        return QN_OK;
    qn_fixed **sums = &s->sums[id];
    if (*sums == NULL)
        *sums = qn__calloc(ctx, qn__view_channels(view), sizeof(**sums));
    if (*sums == NULL)
        return QN_NOMEM(error);
    if (s == j->slots)
        j->channels[id] = qn__view_channels(view);
    return qn__add_channel_means(ctx, view, *sums, NULL, error);
}

/* Drift of a tensor that all samples have made by now; NULL: out of memory. */
static const float *drift_of(job *j, uint32_t id)
{
    if (j->drifts[id] != NULL)
        return j->drifts[id];
    float *drift = qn__calloc(j->graph->ctx, j->channels[id], sizeof(*drift));
    for (size_t c = 0; drift != NULL && c < j->channels[id]; c++) {
        qn_fixed sum = 0;
        for (size_t i = 0; i < j->n_slots; i++)
            sum += j->slots[i].sums[id][c];
        drift[c] =
            (float)(j->options->means[id][c] - (double)sum / QN_FIXED_ONE / (double)j->n_slots);
    }
    j->drifts[id] = drift;
    return drift;
}

static void add(const qn_view *view, const float *drift, float sign)
{
    const qn_axis_view v = qn__axis_view(view->rank, view->dims, view->layout, 1);
    float *x = view->data;
    for (size_t o = 0; o < v.outer && v.inner == 1; o++, x += v.axis)
        for (size_t c = 0; c < v.axis; c++)
            x[c] += sign * drift[c];
    for (size_t o = 0; o < v.outer && v.inner != 1; o++)
        for (size_t c = 0; c < v.axis; c++, x += v.inner)
            for (size_t i = 0; i < v.inner; i++)
                x[i] += sign * drift[c];
}

/* What the coming step of a slot reads, if its bias will be corrected; or NULL. */
static const qn_view *corrected_input(const job *j, const slot *s)
{
    const qn_node *node = NULL;
    const qn_view *view = qn__exec_step_input(s->exec, j->step, &node);
    if (view == NULL || j->options->corrected[node->id] == 0 || j->channels[view->tensor->id] == 0)
        return NULL;
    return view;
}

static void load(void *arg, size_t index)
{
    job *j = arg;
    slot *s = &j->slots[index];
    const size_t sample = index * qn_dataset_count(j->dataset) / j->n_slots;
    s->status = qn_dataset_load(j->dataset, sample, s->feed.values, &s->error);
    if (s->status != QN_OK)
        return;
    qn__feed_convert(&s->feed, (const float *const *)s->feed.values);
    s->status = qn__exec_begin(s->exec, s->feed.pointers, &s->error);
}

static void advance(void *arg, size_t index)
{
    const job *j = arg;
    slot *s = &j->slots[index];
    const qn_view *view = corrected_input(j, s);
    const float *drift = view == NULL ? NULL : j->drifts[view->tensor->id];
    if (drift != NULL)
        add(view, drift, 1.0f);
    s->status = qn__exec_step(s->exec, j->step, &s->error);
    if (drift != NULL)
        add(view, drift, -1.0f);
}

/* Calls fn for every slot; the first failure by sample is the one reported. */
static qn_status each(job *j, qn_parallel_fn fn, qn_error *error)
{
    qn__parallel(j->graph->ctx->pool, fn, j, j->n_slots);
    for (size_t i = 0; i < j->n_slots; i++)
        if (j->slots[i].status != QN_OK)
            QN_FAIL(error, j->slots[i].status, "%s", j->slots[i].error.message);
    return QN_OK;
}

static qn_status run(job *j, qn_error *error)
{
    QN_TRY(each(j, load, error));
    const size_t n_steps = qn__exec_n_steps(j->slots[0].exec);
    for (j->step = 0; j->step < n_steps; j->step++) {
        const qn_view *view = corrected_input(j, &j->slots[0]);
        if (view != NULL && drift_of(j, view->tensor->id) == NULL)
            return QN_NOMEM(error);
        QN_TRY(each(j, advance, error));
    }
    for (size_t i = 0; i < j->options->n_ids; i++)
        if (j->channels[j->options->ids[i]] > 0 && drift_of(j, j->options->ids[i]) == NULL)
            return QN_NOMEM(error);
    return QN_OK;
}

static qn_status slot_create(job *j, slot *s, const int64_t (*dims)[QN_MAX_RANK], qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    s->job = j;
    s->sums = qn__calloc(ctx, j->graph->n_tensors, sizeof(*s->sums));
    if (s->sums == NULL)
        return QN_NOMEM(error);
    QN_TRY(qn__feed_create(j->graph, dims, &s->feed, error));
    QN_TRY(qn__exec_create(j->plan, NULL, &s->exec, error));
    qn__exec_set_hook(s->exec, look, s);
    return QN_OK;
}

static void slot_free(const job *j, slot *s)
{
    const qn_context *ctx = j->graph->ctx;
    qn__exec_destroy(s->exec);
    qn__feed_free(&s->feed);
    for (size_t t = 0; s->sums != NULL && t < j->graph->n_tensors; t++)
        qn__free(ctx, s->sums[t]);
    qn__free(ctx, s->sums);
}

static qn_status prepare(job *j, qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    int64_t(*dims)[QN_MAX_RANK] = NULL;
    qn_status status = QN_OK;
    j->wanted = qn__calloc(ctx, j->graph->n_tensors, 1);
    j->channels = qn__calloc(ctx, j->graph->n_tensors, sizeof(*j->channels));
    j->drifts = qn__calloc(ctx, j->graph->n_tensors, sizeof(*j->drifts));
    j->slots = qn__calloc(ctx, j->n_slots, sizeof(*j->slots));
    if (j->wanted == NULL || j->channels == NULL || j->drifts == NULL || j->slots == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < j->options->n_ids; i++)
        j->wanted[j->options->ids[i]] = 1;
    QN_TRY(qn__dataset_input_dims(j->graph, j->dataset, &dims, error));
    qn_plan_options options;
    qn__plan_options_init(&options, ctx);
    options.packed_limit = QN_CALIB_PACKED_BYTES;
    options.input_dims = (const int64_t(*)[QN_MAX_RANK])dims;
    options.keep_all = true;
    options.split = qn__split_igemm(options.cpu_flags);
    QN_TRY_GOTO(qn__plan_create(j->graph, &options, &j->plan, error));
    for (size_t i = 0; i < j->n_slots; i++)
        QN_TRY_GOTO(slot_create(j, &j->slots[i], (const int64_t(*)[QN_MAX_RANK])dims, error));
done:
    qn__free(ctx, dims);
    return status;
}

qn_status qn__drift(const qn_graph *graph, const qn_dataset *dataset,
                    const qn_drift_options *options, float ***drifts, qn_error *error)
{
    const qn_context *ctx = graph->ctx;
    const size_t n_samples = qn_dataset_count(dataset);
    job j = {.graph = graph,
             .dataset = dataset,
             .options = options,
             .n_slots = options->limit < n_samples ? options->limit : n_samples};
    QN_FAIL_IF(j.n_slots == 0, error, QN_INVALID_ARGUMENT, "no calibration samples");
    qn_status status = prepare(&j, error);
    if (status == QN_OK)
        status = run(&j, error);
    for (size_t i = 0; j.slots != NULL && i < j.n_slots; i++)
        slot_free(&j, &j.slots[i]);
    qn__plan_destroy(j.plan);
    qn__free(ctx, j.slots);
    qn__free(ctx, j.wanted);
    qn__free(ctx, j.channels);
    if (status == QN_OK)
        *drifts = j.drifts;
    else
        qn__drift_free(graph, j.drifts);
    return status;
}

void qn__drift_free(const qn_graph *graph, float **drifts)
{
    if (drifts == NULL)
        return;
    for (size_t t = 0; t < graph->n_tensors; t++)
        qn__free(graph->ctx, drifts[t]);
    qn__free(graph->ctx, drifts);
}
