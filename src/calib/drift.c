/* A few samples have an executor each. All advance together, from one layer whose bias will be
 * corrected to the next, every tensor rounded as it is made. Before such a layer runs, the drift of
 * its input is known over all samples and is added to it, as the corrected bias would do behind the
 * weights; afterwards it is taken away, for other readers of the tensor. Samples may differ in
 * shape: their plans have steps of their own, but the same layers in the same order. */
#include "calib/drift.h"
#include "calib/lanes.h"

#include "core/threads.h"
#include "kernel/split.h"
#include "run/nd.h"

#include <math.h>
#include <string.h>

typedef struct slot {
    struct job *job;
    qn_lane lane;
    size_t step;     /* the coming one */
    qn_fixed **sums; /* [n_tensors] per channel */
    size_t *n_sums;  /* [n_tensors] channels */
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
    qn_plans *plans;
    slot *slots;
    size_t n_slots;
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
    s->n_sums[id] = qn__view_channels(view);
    return qn__add_channel_means(ctx, view, *sums, NULL, error);
}

/* Finds the drift of a tensor that all samples have made by now. */
static qn_status find_drift(job *j, uint32_t id, qn_error *error)
{
    if (j->drifts[id] != NULL)
        return QN_OK;
    j->channels[id] = j->slots[0].n_sums[id];
    for (size_t i = 0; i < j->n_slots; i++)
        QN_FAIL_IF(j->slots[i].n_sums[id] != j->channels[id], error, QN_UNSUPPORTED,
                   "tensor \"%s\": the number of channels changes", j->graph->tensors[id]->name);
    float *drift = qn__calloc(j->graph->ctx, j->channels[id], sizeof(*drift));
    for (size_t c = 0; drift != NULL && c < j->channels[id]; c++) {
        qn_fixed sum = 0;
        for (size_t i = 0; i < j->n_slots; i++)
            sum += j->slots[i].sums[id][c];
        drift[c] =
            (float)(j->options->means[id][c] - (double)sum / QN_FIXED_ONE / (double)j->n_slots);
    }
    j->drifts[id] = drift;
    return drift == NULL ? QN_NOMEM(error) : QN_OK;
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
    if (s->step == qn__exec_n_steps(s->lane.exec))
        return NULL;
    const qn_view *view = qn__exec_step_input(s->lane.exec, s->step, &node);
    if (view == NULL || j->options->corrected[node->id] == 0 || s->n_sums[view->tensor->id] == 0)
        return NULL;
    return view;
}

static void load(void *arg, size_t index)
{
    job *j = arg;
    slot *s = &j->slots[index];
    const size_t sample = index * qn_dataset_count(j->dataset) / j->n_slots;
    s->status = qn__lane_load(&s->lane, sample, &s->error);
    if (s->status == QN_OK)
        s->status = qn__exec_begin(s->lane.exec, s->lane.feed.pointers, &s->error);
}

/* Runs a layer that waits for the drift of its input, and what comes before the next one. */
static void advance(void *arg, size_t index)
{
    const job *j = arg;
    slot *s = &j->slots[index];
    const qn_view *view = corrected_input(j, s);
    const size_t n_steps = qn__exec_n_steps(s->lane.exec);
    if (view != NULL) {
        const float *drift = j->drifts[view->tensor->id];
        add(view, drift, 1.0f);
        s->status = qn__exec_step(s->lane.exec, s->step++, &s->error);
        add(view, drift, -1.0f);
    }
    while (s->status == QN_OK && s->step < n_steps && corrected_input(j, s) == NULL)
        s->status = qn__exec_step(s->lane.exec, s->step++, &s->error);
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

/* Makes sure that all slots wait for the same tensor, or none, and finds its drift. */
static qn_status meet(job *j, qn_error *error)
{
    const qn_view *first = corrected_input(j, &j->slots[0]);
    const qn_tensor *tensor = first == NULL ? NULL : first->tensor;
    for (size_t i = 1; i < j->n_slots; i++) {
        const qn_view *view = corrected_input(j, &j->slots[i]);
        QN_FAIL_IF((view == NULL ? NULL : view->tensor) != tensor, error, QN_UNSUPPORTED,
                   "samples of different shapes run different layers");
    }
    return tensor == NULL ? QN_OK : find_drift(j, tensor->id, error);
}

static qn_status run(job *j, qn_error *error)
{
    const slot *s = &j->slots[0];
    QN_TRY(each(j, load, error));
    while (s->step < qn__exec_n_steps(s->lane.exec)) {
        QN_TRY(meet(j, error));
        QN_TRY(each(j, advance, error));
    }
    QN_TRY(meet(j, error));
    for (size_t i = 0; i < j->options->n_ids; i++)
        if (j->slots[0].n_sums[j->options->ids[i]] > 0)
            QN_TRY(find_drift(j, j->options->ids[i], error));
    return QN_OK;
}

static qn_status slot_create(job *j, size_t index, qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    slot *s = &j->slots[index];
    s->job = j;
    s->sums = qn__calloc(ctx, j->graph->n_tensors, sizeof(*s->sums));
    s->n_sums = qn__calloc(ctx, j->graph->n_tensors, sizeof(*s->n_sums));
    if (s->sums == NULL || s->n_sums == NULL)
        return QN_NOMEM(error);
    return qn__lane_init(&s->lane, j->plans, NULL, look, s, error);
}

static void slot_free(const job *j, slot *s)
{
    const qn_context *ctx = j->graph->ctx;
    qn__lane_free(&s->lane);
    for (size_t t = 0; s->sums != NULL && t < j->graph->n_tensors; t++)
        qn__free(ctx, s->sums[t]);
    qn__free(ctx, s->sums);
    qn__free(ctx, s->n_sums);
}

static qn_status prepare(job *j, qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    j->wanted = qn__calloc(ctx, j->graph->n_tensors, 1);
    j->channels = qn__calloc(ctx, j->graph->n_tensors, sizeof(*j->channels));
    j->drifts = qn__calloc(ctx, j->graph->n_tensors, sizeof(*j->drifts));
    j->slots = qn__calloc(ctx, j->n_slots, sizeof(*j->slots));
    if (j->wanted == NULL || j->channels == NULL || j->drifts == NULL || j->slots == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < j->options->n_ids; i++)
        j->wanted[j->options->ids[i]] = 1;
    qn_plan_options options;
    qn__plan_options_init(&options, ctx);
    options.packed_limit = QN_CALIB_PACKED_BYTES;
    options.keep_all = true;
    options.split = qn__split_igemm(options.cpu_flags);
    QN_TRY(qn__plans_create(j->graph, j->dataset, &options, j->n_slots, &j->plans, error));
    for (size_t i = 0; i < j->n_slots; i++)
        QN_TRY(slot_create(j, i, error));
    return QN_OK;
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
    qn__plans_destroy(j.plans);
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
