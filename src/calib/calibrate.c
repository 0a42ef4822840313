/* The calibration loop. Each worker has an executor and observers of its own and takes whole
 * samples; observers are merged in worker order at the end of a pass. Which worker saw which sample
 * varies from run to run, the merged state does not (calib.h). Memory does not grow with the number
 * of samples. */
#include "calib/lanes.h"
#include "calib/stats.h"
#include "kernel/split.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

typedef struct job {
    const qn_graph *graph;
    const qn_dataset *dataset;
    const qn_calib_options *options;
    size_t *item_of;   /* [n_tensors] index into items + 1, 0: not observed */
    size_t *mean_of;   /* the same for mean_ids */
    uint8_t *has_rows; /* [n_tensors] input of a layer whose rows are sampled */
    uint32_t pass, n_passes;
    size_t n_samples; /* used: all, or options->limit */
    size_t n_few;
    uint32_t n_workers;
    struct worker *workers;
    qn_ranges *ranges;
    bool collect;       /* what each sample shows goes to options->stats */
    qn_stats_row *rows; /* [n_rows] of options with data, then */
    uint64_t n_wanted;  /* samples that run */
    /* first failure by sample index, progress; under lock */
    pthread_mutex_t lock;
    uint64_t done;
    uint64_t failed_index;
    qn_status status;
    qn_error error;
    _Atomic bool stop;
} job;

typedef struct worker {
    job *job;
    qn_lane lane;
    void **states;   /* [n_items] */
    qn_fixed **sums; /* [n_means] per channel, NULL until the first sample */
    qn_fixed **few;  /* [n_means] the same over the few samples alone */
    size_t *n_sums;  /* [n_means] channels */
    float **peaks;   /* [n_means] the same: largest magnitudes */
    uint64_t sample;
} worker;

static bool is_one_of_few(const job *j, uint64_t sample)
{
    return qn_is_one_of_few(sample, j->n_few, qn_dataset_count(j->dataset));
}

static qn_status add_means(worker *w, const qn_view *view, size_t index, qn_error *error)
{
    const qn_context *ctx = w->job->graph->ctx;
    const size_t channels = qn__view_channels(view);
    if (w->sums[index] == NULL) {
        w->sums[index] = qn__calloc(ctx, channels, sizeof(qn_fixed));
        w->few[index] = qn__calloc(ctx, channels, sizeof(qn_fixed));
        if (w->job->options->want_peaks)
            w->peaks[index] = qn__calloc(ctx, channels, sizeof(float));
        if (w->sums[index] == NULL || w->few[index] == NULL ||
            (w->job->options->want_peaks && w->peaks[index] == NULL))
            return QN_NOMEM(error); /* ends the run */
        w->n_sums[index] = channels;
    }
    QN_FAIL_IF(channels != w->n_sums[index], error, QN_UNSUPPORTED,
               "tensor \"%s\": the number of channels changes", view->tensor->name);
    if (is_one_of_few(w->job, w->sample))
        QN_TRY(qn__add_channel_means(ctx, view, w->few[index], NULL, error));
    return qn__add_channel_means(ctx, view, w->sums[index], w->peaks[index], error);
}

static qn_status observe_view(void *arg, const qn_view *view, qn_error *error)
{
    worker *w = arg;
    const size_t mean = w->job->mean_of[view->tensor->id];
    if (mean != 0 && w->job->pass == 0)
        QN_TRY(add_means(w, view, mean - 1, error));
    const qn_calib_options *o = w->job->options;
    if (w->job->pass == 0 && w->job->has_rows[view->tensor->id] != 0)
        for (size_t i = 0; i < o->n_rows; i++) {
            const qn_node *node = w->job->graph->nodes[o->rows[i].node];
            if (o->rows[i].data != NULL && node->inputs[0]->id == view->tensor->id)
                qn__rows_add(&o->rows[i], node, view, w->sample, qn_dataset_count(w->job->dataset));
        }
    const size_t slot = w->job->item_of[view->tensor->id];
    if (slot == 0)
        return QN_OK;
    const qn_calib_item *item = &w->job->options->items[slot - 1];
    if (item->method->passes <= w->job->pass)
        return QN_OK;
    const qn_status status =
        item->method->observe(w->job->graph->ctx, w->states[slot - 1], w->job->pass, w->sample,
                              view->data, view->count, error);
    if (status != QN_OK)
        qn__error_prefix(error, status, "tensor \"%s\"", view->tensor->name);
    return status;
}

static void fail_sample(job *j, uint64_t index, qn_status status, const qn_error *error)
{
    pthread_mutex_lock(&j->lock);
    if (j->status == QN_OK || index < j->failed_index) {
        j->status = status;
        j->failed_index = index;
        j->error = *error;
    }
    j->stop = true;
    pthread_mutex_unlock(&j->lock);
}

/* Back to where it was before the first sample. */
static void forget(worker *w)
{
    const qn_calib_options *o = w->job->options;
    const qn_context *ctx = w->job->graph->ctx;
    for (size_t i = 0; i < o->n_items; i++) {
        o->items[i].method->release(ctx, w->states[i]);
        o->items[i].method->init(w->states[i]);
    }
    for (size_t i = 0; i < o->n_means; i++) {
        qn__free(ctx, w->sums[i]);
        qn__free(ctx, w->few[i]);
        qn__free(ctx, w->peaks[i]);
        w->sums[i] = w->few[i] = NULL;
        w->peaks[i] = NULL;
        w->n_sums[i] = 0;
    }
}

/* Hands what the sample showed over to the statistics. */
static qn_status append_sample(worker *w, qn_error *error)
{
    const job *j = w->job;
    const qn_calib_options *o = j->options;
    const qn_context *ctx = j->graph->ctx;
    qn_status status = QN_OK;
    qn_stats_sample sample = {.index = w->sample, .name = qn_dataset_name(j->dataset, w->sample)};
    QN_TRY(qn__dataset_hash(j->dataset, w->sample, &sample.hash, error));
    if (is_one_of_few(j, w->sample))
        sample.inputs = w->lane.feed.values;
    if (qn__dataset_shape_of(j->dataset, w->sample) != qn__dataset_shape_of(j->dataset, 0))
        sample.dims = qn__lane_dims(&w->lane);
    qn_stats_mean *means = qn__calloc(ctx, o->n_means, sizeof(*means));
    const qn_feature_method **methods = qn__calloc(ctx, o->n_items, sizeof(*methods));
    if (means == NULL || methods == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < o->n_means; i++)
        means[i] = (qn_stats_mean){w->n_sums[i], w->sums[i], w->few[i], w->peaks[i]};
    for (size_t i = 0; i < o->n_items; i++)
        methods[i] = o->items[i].method;
    qn_stats_stage seen = j->options->stats->stages[o->stage];
    seen.methods = methods;
    seen.states = w->states;
    seen.means = means;
    seen.rows = j->rows;
    seen.samples = &sample;
    seen.n_samples = 1;
    status = qn__stats_append(o->stats, o->stage, &seen, error);
    forget(w);
done:
    qn__free(ctx, means);
    qn__free(ctx, (void *)methods);
    return status;
}

/* Some samples are evenly spaced ones; all of them come with equal shapes side by side. */
static size_t sample_of(const job *j, size_t slot)
{
    const size_t n = qn_dataset_count(j->dataset);
    return j->n_samples == n ? qn__dataset_nth(j->dataset, slot) : slot * n / j->n_samples;
}

static void run_sample(void *arg, uint32_t worker_index, size_t slot)
{
    job *j = arg;
    const size_t index = sample_of(j, slot);
    worker *w = &j->workers[worker_index];
    qn_error error = {0};
    if (j->stop || (j->collect && !qn__stats_lacks(j->options->stats, j->options->stage, index)))
        return;
    w->sample = index;
    qn_status status = qn__lane_load(&w->lane, index, &error);
    if (status == QN_OK) {
        status = qn__exec_run(w->lane.exec, w->lane.feed.pointers, &error);
        if (status != QN_OK)
            qn__error_prefix(&error, status, "%s", qn_dataset_name(j->dataset, index));
    }
    if (status == QN_OK && j->collect)
        status = append_sample(w, &error);
    if (status != QN_OK) {
        fail_sample(j, index, status, &error);
        return;
    }
    pthread_mutex_lock(&j->lock);
    j->done++;
    const qn_calib_options *o = j->options;
    if (o->progress != NULL && !j->stop &&
        !o->progress(o->progress_ctx, "calibrate", j->done, j->n_wanted * j->n_passes)) {
        j->stop = true;
        j->status = qn__error_set(&j->error, QN_CANCELLED, "cancelled while calibrating");
        j->failed_index = 0;
    }
    pthread_mutex_unlock(&j->lock);
}

static qn_status worker_create(job *j, worker *w, qn_plans *plans, qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    w->job = j;
    w->states = qn__calloc(ctx, j->options->n_items, sizeof(*w->states));
    w->sums = qn__calloc(ctx, j->options->n_means, sizeof(*w->sums));
    w->few = qn__calloc(ctx, j->options->n_means, sizeof(*w->few));
    w->n_sums = qn__calloc(ctx, j->options->n_means, sizeof(*w->n_sums));
    w->peaks = qn__calloc(ctx, j->options->n_means, sizeof(*w->peaks));
    if (w->states == NULL || w->sums == NULL || w->few == NULL || w->n_sums == NULL ||
        w->peaks == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < j->options->n_items; i++) {
        const qn_feature_method *m = j->options->items[i].method;
        w->states[i] = qn__alloc(ctx, m->state_bytes());
        if (w->states[i] == NULL)
            return QN_NOMEM(error);
        m->init(w->states[i]);
    }
    return plans == NULL ? QN_OK : qn__lane_init(&w->lane, plans, NULL, observe_view, w, error);
}

static void worker_free(job *j, worker *w)
{
    const qn_context *ctx = j->graph->ctx;
    qn__lane_free(&w->lane);
    for (size_t i = 0; w->states != NULL && i < j->options->n_items; i++) {
        if (w->states[i] != NULL)
            j->options->items[i].method->release(ctx, w->states[i]);
        qn__free(ctx, w->states[i]);
    }
    for (size_t i = 0; w->sums != NULL && i < j->options->n_means; i++)
        qn__free(ctx, w->sums[i]);
    for (size_t i = 0; w->few != NULL && i < j->options->n_means; i++)
        qn__free(ctx, w->few[i]);
    for (size_t i = 0; w->peaks != NULL && i < j->options->n_means; i++)
        qn__free(ctx, w->peaks[i]);
    qn__free(ctx, w->few);
    qn__free(ctx, w->sums);
    qn__free(ctx, w->peaks);
    qn__free(ctx, w->n_sums);
    qn__free(ctx, w->states);
}

/* Merges everything into worker 0, and before another pass hands its state back to the others. */
static qn_status end_pass(job *j, bool last, qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    for (size_t i = 0; i < j->options->n_items; i++) {
        const qn_feature_method *m = j->options->items[i].method;
        void *total = j->workers[0].states[i];
        if (m->passes <= j->pass)
            continue;
        for (uint32_t k = 1; k < j->n_workers; k++)
            QN_TRY(m->merge(ctx, total, j->workers[k].states[i], error));
        if (last || m->passes <= j->pass + 1)
            continue;
        if (m->between_passes != NULL)
            QN_TRY(m->between_passes(ctx, total, error));
        for (uint32_t k = 1; k < j->n_workers; k++) {
            m->release(ctx, j->workers[k].states[i]);
            m->init(j->workers[k].states[i]);
            QN_TRY(m->merge(ctx, j->workers[k].states[i], total, error));
        }
    }
    return QN_OK;
}

static void finish_item(void *arg, size_t index)
{
    job *j = arg;
    qn_error error = {0};
    const qn_calib_item *item = &j->options->items[index];
    const qn_status status =
        item->method->finish(j->graph->ctx, j->workers[0].states[index], &item->format,
                             j->options->batch, &j->ranges->items[item->tensor_id], &error);
    if (status != QN_OK)
        fail_sample(j, index, status, &error);
}

static qn_status finish_means(job *j, qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    const double n_samples = (double)j->n_samples;
    for (size_t i = 0; i < j->options->n_means; i++) {
        size_t channels = 0;
        for (uint32_t k = 0; k < j->n_workers; k++)
            if (j->workers[k].sums[i] != NULL)
                channels = j->workers[k].n_sums[i];
        double *means = qn__calloc(ctx, channels, sizeof(*means));
        double *few_means = qn__calloc(ctx, channels, sizeof(*few_means));
        float *peaks = qn__calloc(ctx, channels, sizeof(*peaks));
        j->ranges->means[j->options->mean_ids[i]] = means;
        j->ranges->few_means[j->options->mean_ids[i]] = few_means;
        j->ranges->peaks[j->options->mean_ids[i]] = peaks;
        if (means == NULL || few_means == NULL || peaks == NULL)
            return QN_NOMEM(error);
        for (size_t c = 0; c < channels; c++) {
            qn_fixed sum = 0, few = 0;
            for (uint32_t k = 0; k < j->n_workers; k++)
                if (j->workers[k].n_sums[i] == channels && j->workers[k].sums[i] != NULL) {
                    sum += j->workers[k].sums[i][c];
                    few += j->workers[k].few[i][c];
                    if (j->options->want_peaks)
                        peaks[c] = fmaxf(peaks[c], j->workers[k].peaks[i][c]);
                }
            means[c] = (double)sum / QN_FIXED_ONE / n_samples;
            if (j->n_few > 0)
                few_means[c] = (double)few / QN_FIXED_ONE / (double)j->n_few;
        }
    }
    return QN_OK;
}

static qn_status failure(const job *j, qn_error *error)
{
    return j->status == QN_OK ? QN_OK : qn__error_set(error, j->status, "%s", j->error.message);
}

static qn_status run_passes(job *j, qn_error *error)
{
    for (j->pass = 0; j->pass < j->n_passes; j->pass++) {
        qn__parallel_worker(j->graph->ctx->pool, run_sample, j, j->n_samples);
        QN_TRY(failure(j, error));
        QN_TRY(end_pass(j, j->pass + 1 == j->n_passes, error));
    }
    return QN_OK;
}

/* The first worker gets what the statistics have, as if it had run alone. */
static qn_status take_stats(job *j, qn_error *error)
{
    const qn_calib_options *o = j->options;
    worker *w = &j->workers[0];
    qn_stats_mean *means = qn__calloc(j->graph->ctx, o->n_means, sizeof(*means));
    if (means == NULL)
        return QN_NOMEM(error);
    const qn_status status = qn__stats_take(o->stats, o->stage, j->graph, o, j->n_samples, j->n_few,
                                            w->states, means, error);
    for (size_t i = 0; i < o->n_means; i++) {
        w->sums[i] = means[i].sums;
        w->few[i] = means[i].few;
        w->peaks[i] = means[i].peaks;
        w->n_sums[i] = means[i].channels;
    }
    qn__free(j->graph->ctx, means);
    return status;
}

static qn_status finish_ranges(job *j, qn_error *error)
{
    qn__parallel(j->graph->ctx->pool, finish_item, j, j->options->n_items);
    QN_TRY(failure(j, error));
    return finish_means(j, error);
}

/* Rows that have room, as the statistics' table lists them; samples that are still to run. */
static qn_status begin_collecting(job *j, qn_error *error)
{
    const qn_calib_options *o = j->options;
    size_t n = 0;
    QN_TRY(qn__stats_begin_stage(o->stats, o->stage, j->graph, o, j->n_samples, j->n_few, error));
    j->rows = qn__calloc(j->graph->ctx, o->n_rows, sizeof(*j->rows));
    if (j->rows == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < o->n_rows; i++)
        if (o->rows[i].data != NULL) {
            j->rows[n] = o->stats->stages[o->stage].rows[n];
            j->rows[n++].data = o->rows[i].data;
        }
    j->n_wanted = 0;
    for (size_t slot = 0; slot < j->n_samples; slot++)
        j->n_wanted +=
            qn__stats_lacks(o->stats, o->stage, slot * qn_dataset_count(j->dataset) / j->n_samples);
    return QN_OK;
}

static qn_status check_items(job *j, qn_error *error)
{
    for (size_t i = 0; i < j->options->n_items; i++) {
        const qn_calib_item *item = &j->options->items[i];
        QN_FAIL_IF(item->tensor_id >= j->graph->n_tensors, error, QN_INVALID_ARGUMENT,
                   "calibration item %zu: no tensor %u", i, item->tensor_id);
        const qn_tensor *t = j->graph->tensors[item->tensor_id];
        QN_FAIL_IF(t->type.kind != QN_TYPE_PLAIN || t->type.dtype != QN_DTYPE_F32, error,
                   QN_INVALID_ARGUMENT, "tensor \"%s\" is not float32", t->name);
        j->item_of[item->tensor_id] = i + 1;
        if (item->method->passes > j->n_passes)
            j->n_passes = item->method->passes;
    }
    for (size_t i = 0; i < j->options->n_rows; i++)
        j->has_rows[j->graph->nodes[j->options->rows[i].node]->inputs[0]->id] = 1;
    for (size_t i = 0; i < j->options->n_means; i++)
        j->mean_of[j->options->mean_ids[i]] = i + 1;
    return QN_OK;
}

static qn_status create_tables(job *j, qn_error *error)
{
    const qn_context *ctx = j->graph->ctx;
    const size_t n = j->graph->n_tensors;
    qn_ranges *r = j->ranges;
    j->item_of = qn__calloc(ctx, n, sizeof(*j->item_of));
    j->mean_of = qn__calloc(ctx, n, sizeof(*j->mean_of));
    j->has_rows = qn__calloc(ctx, n, 1);
    j->workers = qn__calloc(ctx, j->n_workers, sizeof(*j->workers));
    r->items = qn__calloc(ctx, n, sizeof(*r->items));
    r->means = qn__calloc(ctx, n, sizeof(*r->means));
    r->peaks = qn__calloc(ctx, n, sizeof(*r->peaks));
    r->few_means = qn__calloc(ctx, n, sizeof(*r->few_means));
    if (j->item_of == NULL || j->mean_of == NULL || j->has_rows == NULL || j->workers == NULL ||
        r->items == NULL || r->means == NULL || r->peaks == NULL || r->few_means == NULL)
        return QN_NOMEM(error);
    return check_items(j, error);
}

/* Workers, which run the graph unless its statistics are taken from a file. */
static qn_status create_workers(job *j, bool runs, qn_plans **plans, qn_error *error)
{
    if (!runs)
        return worker_create(j, &j->workers[0], NULL, error);
    qn_plan_options plan_options;
    qn__plan_options_init(&plan_options, j->graph->ctx);
    plan_options.packed_limit = QN_CALIB_PACKED_BYTES;
    plan_options.keep_all = true;
    plan_options.instead = j->options->instead;
    if (!j->options->plain)
        plan_options.split = qn__split_igemm(plan_options.cpu_flags);
    QN_TRY(qn__plans_create(j->graph, j->dataset, &plan_options, j->n_workers, plans, error));
    for (uint32_t k = 0; k < j->n_workers; k++)
        QN_TRY(worker_create(j, &j->workers[k], *plans, error));
    return QN_OK;
}

/* With out: ranges, from a run or from options->stats; without: what options->stats lacks. */
static qn_status run_job(job *j, bool collect, qn_plans **plans, qn_error *error)
{
    const bool take = !collect && j->options->stats != NULL;
    QN_TRY(create_tables(j, error));
    j->n_workers = take ? 1 : j->n_workers;
    QN_TRY(create_workers(j, !take, plans, error));
    if (take) {
        QN_TRY(take_stats(j, error));
        return finish_ranges(j, error);
    }
    if (!collect) {
        QN_TRY(run_passes(j, error));
        return finish_ranges(j, error);
    }
    QN_TRY(begin_collecting(j, error));
    j->collect = true;
    qn__parallel_worker(j->graph->ctx->pool, run_sample, j, j->n_samples);
    QN_TRY(failure(j, error));
    return qn__stats_end_stage(j->options->stats, j->options->stage, error);
}

static qn_status calibrate(const qn_graph *graph, const qn_dataset *dataset,
                           const qn_calib_options *options, bool collect, qn_ranges *ranges,
                           qn_error *error)
{
    const qn_context *ctx = graph->ctx;
    const size_t n_all = qn_dataset_count(dataset);
    qn_plans *plans = NULL;
    job j = {.graph = graph,
             .dataset = dataset,
             .options = options,
             .ranges = ranges,
             .n_passes = 1,
             .n_workers = qn__pool_size(ctx->pool),
             .n_samples = options->limit > 0 && options->limit < n_all ? options->limit : n_all,
             .n_few = options->n_few < n_all ? options->n_few : n_all};
    QN_FAIL_IF(n_all == 0, error, QN_INVALID_ARGUMENT, "no calibration samples");
    j.n_wanted = j.n_samples;
    pthread_mutex_init(&j.lock, NULL);
    const qn_status status = run_job(&j, collect, &plans, error);
    for (uint32_t k = 0; j.workers != NULL && k < j.n_workers; k++)
        worker_free(&j, &j.workers[k]);
    qn__plans_destroy(plans);
    qn__free(ctx, j.rows);
    qn__free(ctx, j.workers);
    qn__free(ctx, j.item_of);
    qn__free(ctx, j.mean_of);
    qn__free(ctx, j.has_rows);
    pthread_mutex_destroy(&j.lock);
    return status;
}

qn_status qn__calibrate(const qn_graph *graph, const qn_dataset *dataset,
                        const qn_calib_options *options, qn_ranges *out, qn_error *error)
{
    qn_ranges ranges = {.ctx = graph->ctx, .count = graph->n_tensors};
    const qn_status status = calibrate(graph, dataset, options, false, &ranges, error);
    if (status == QN_OK)
        *out = ranges;
    else
        qn__ranges_free(&ranges);
    return status;
}

qn_status qn__calibrate_collect(const qn_graph *graph, const qn_dataset *dataset,
                                const qn_calib_options *options, qn_error *error)
{
    qn_ranges unused = {.ctx = graph->ctx, .count = graph->n_tensors};
    const qn_status status = calibrate(graph, dataset, options, true, &unused, error);
    qn__ranges_free(&unused);
    return status;
}

void qn__ranges_free(qn_ranges *ranges)
{
    if (ranges->ctx == NULL)
        return;
    for (size_t i = 0; ranges->means != NULL && i < ranges->count; i++)
        qn__free(ranges->ctx, ranges->means[i]);
    for (size_t i = 0; ranges->peaks != NULL && i < ranges->count; i++)
        qn__free(ranges->ctx, ranges->peaks[i]);
    for (size_t i = 0; ranges->few_means != NULL && i < ranges->count; i++)
        qn__free(ranges->ctx, ranges->few_means[i]);
    qn__free(ranges->ctx, ranges->means);
    qn__free(ranges->ctx, ranges->few_means);
    qn__free(ranges->ctx, ranges->peaks);
    qn__free(ranges->ctx, ranges->items);
    *ranges = (qn_ranges){0};
}
