/* The debug table. For each picture the network runs with every tensor of a scale rounded to its
 * levels as it appears, so that errors add up on the way, and once more as it is; each tensor is
 * compared. Inputs of rasters are left out, as MNN's tool does. Workers take whole samples; what a
 * sample gives is kept by its index and added in order. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "calib/lanes.h"
#include "mnntool/exact.h"
#include "mnntool/float_conv.h"

typedef struct row {
    const char *label;
    uint32_t graph_id;
    float scale;
} row;

typedef struct measured {
    double cosine, overflow;
} measured;

typedef struct debug_job {
    const qn_mnn_run *run;
    qn_graph *rounded; /* clone whose constants are rounded too */
    size_t n_rows;
    row *rows;
    uint32_t *row_of;  /* [graph tensors] row + 1 */
    measured *results; /* [samples][n_rows] */
    struct debug_worker *workers;
    pthread_mutex_t lock; /* of what follows */
    size_t done;
    size_t failed_index;
    qn_status status;
    qn_error error;
} debug_job;

typedef struct debug_worker {
    debug_job *job;
    qn_lane plain, rounded;
    float **kept; /* [n_rows] rounded values of this sample */
    size_t *n_kept, *capacity;
    measured *results; /* of this sample */
} debug_worker;

/* Replaces values by their levels times scale; returns the share at the first or last level. */
static double round_values(float *values, size_t count, float scale, int32_t clamp)
{
    const float limit = (float)clamp;
    size_t outer = 0;
    for (size_t i = 0; i < count; i++) {
        const float level = fmaxf(-limit, fminf(limit, roundf(values[i] / scale)));
        outer += fabsf(level) == limit;
        values[i] = level * scale;
    }
    return count > 0 ? (double)outer / (double)count : 0;
}

/* Two tensors of zeros are equal. */
static double cosine(const float *a, const float *b, size_t count)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < count; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    if (aa == 0 || bb == 0)
        return aa == bb ? 1 : 0;
    return ab / sqrt(aa) / sqrt(bb);
}

static qn_status round_tensor(void *arg, const qn_view *view, qn_error *error)
{
    debug_worker *w = arg;
    const debug_job *j = w->job;
    const uint32_t slot = j->row_of[view->tensor->id];
    if (slot == 0)
        return QN_OK;
    const size_t r = slot - 1;
    w->results[r].overflow =
        round_values(view->data, view->count, j->rows[r].scale, j->run->config->feature_clamp);
    if (w->kept[r] == NULL || w->capacity[r] < view->count) {
        qn__free_aligned(j->run->ctx, w->kept[r]);
        w->kept[r] = qn__alloc_aligned(j->run->ctx, view->count * sizeof(float));
        if (w->kept[r] == NULL)
            return QN_NOMEM(error);
        w->capacity[r] = view->count;
    }
    w->n_kept[r] = view->count;
    memcpy(w->kept[r], view->data, view->count * sizeof(float));
    return QN_OK;
}

static qn_status compare_tensor(void *arg, const qn_view *view, qn_error *error)
{
    debug_worker *w = arg;
    const uint32_t slot = w->job->row_of[view->tensor->id];
    (void)error;
    if (slot != 0 && w->n_kept[slot - 1] == view->count)
        w->results[slot - 1].cosine = cosine(view->data, w->kept[slot - 1], view->count);
    return QN_OK;
}

static void run_sample(void *arg, uint32_t worker, size_t position)
{
    debug_job *j = arg;
    debug_worker *w = &j->workers[worker];
    const size_t index = qn__dataset_nth(j->run->dataset, position);
    const char *name = qn_dataset_name(j->run->dataset, index);
    qn_error error = {0};
    w->results = j->results + index * j->n_rows;
    qn_status status = qn__lane_load(&w->plain, index, &error);
    if (status == QN_OK)
        status = qn__lane_fit(&w->rounded, index, &error);
    if (status == QN_OK) {
        status = qn__exec_run(w->rounded.exec, w->plain.feed.pointers, &error);
        if (status == QN_OK)
            status = qn__exec_run(w->plain.exec, w->plain.feed.pointers, &error);
        if (status != QN_OK)
            qn__error_prefix(&error, status, "%s", name);
    }
    pthread_mutex_lock(&j->lock);
    if (status != QN_OK && (j->status == QN_OK || index < j->failed_index)) {
        j->status = status;
        j->failed_index = index;
        j->error = error;
    }
    if (j->status == QN_OK)
        qn__mnn_progress(j->run, "computeDistance", ++j->done, qn_dataset_count(j->run->dataset));
    pthread_mutex_unlock(&j->lock);
}

/* A constant is rounded once, for all samples. */
static qn_status round_constant(debug_job *j, size_t r, qn_error *error)
{
    const qn_context *ctx = j->run->ctx;
    qn_tensor *tensor = j->rounded->tensors[j->rows[r].graph_id];
    const size_t count = tensor->constant->size_bytes / sizeof(float);
    void *values = NULL;
    qn_blob *blob = qn__blob_create(ctx, count * sizeof(float), &values);
    float *plain = qn__alloc_aligned(ctx, count * sizeof(float));
    if (blob == NULL || plain == NULL) {
        qn__blob_unref(blob);
        qn__free_aligned(ctx, plain);
        return QN_NOMEM(error);
    }
    memcpy(plain, tensor->constant->data, count * sizeof(float));
    memcpy(values, plain, count * sizeof(float));
    const double overflow =
        round_values(values, count, j->rows[r].scale, j->run->config->feature_clamp);
    const double similarity = cosine(plain, values, count);
    for (size_t s = 0; s < qn_dataset_count(j->run->dataset); s++)
        j->results[s * j->n_rows + r] = (measured){similarity, overflow};
    qn__tensor_set_constant(tensor, blob);
    qn__blob_unref(blob);
    qn__free_aligned(ctx, plain);
    return QN_OK;
}

static qn_status worker_create(debug_job *j, debug_worker *w, qn_plans *plain, qn_plans *rounded,
                               qn_error *error)
{
    w->job = j;
    w->kept = qn__calloc(j->run->ctx, j->n_rows, sizeof(*w->kept));
    w->n_kept = qn__calloc(j->run->ctx, j->n_rows, sizeof(*w->n_kept));
    w->capacity = qn__calloc(j->run->ctx, j->n_rows, sizeof(*w->capacity));
    if (w->kept == NULL || w->n_kept == NULL || w->capacity == NULL)
        return QN_NOMEM(error);
    QN_TRY(qn__lane_init(&w->plain, plain, NULL, compare_tensor, w, error));
    return qn__lane_init(&w->rounded, rounded, NULL, round_tensor, w, error);
}

static void worker_free(debug_job *j, debug_worker *w)
{
    qn__lane_free(&w->plain);
    qn__lane_free(&w->rounded);
    for (size_t r = 0; w->kept != NULL && r < j->n_rows; r++)
        qn__free_aligned(j->run->ctx, w->kept[r]);
    qn__free(j->run->ctx, w->kept);
    qn__free(j->run->ctx, w->n_kept);
    qn__free(j->run->ctx, w->capacity);
}

static int by_label(const void *a, const void *b)
{
    return strcmp(((const row *)a)->label, ((const row *)b)->label);
}

static void list_rows(debug_job *j, const qn_mnn_trace *trace, const qn_mnn_scales *scales)
{
    for (size_t id = 0; id < trace->n_tensors; id++) {
        const qn_mnn_seen *seen = &trace->tensors[id];
        if (seen->label != NULL && !seen->raster_input && scales->items[id].scale > 0)
            j->rows[j->n_rows++] = (row){seen->label, seen->graph_id, scales->items[id].scale};
    }
    if (j->n_rows > 1)
        qsort(j->rows, j->n_rows, sizeof(*j->rows), by_label);
    for (size_t r = 0; r < j->n_rows; r++)
        j->row_of[j->rows[r].graph_id] = (uint32_t)r + 1;
}

static qn_status run_all(debug_job *j, qn_error *error)
{
    const qn_mnn_run *run = j->run;
    const qn_context *ctx = run->ctx;
    const uint32_t n_workers = qn__pool_size(ctx->pool);
    qn_plans *plain = NULL, *rounded = NULL;
    qn_plan_options options;
    qn_status status = QN_OK;
    qn__plan_options_init(&options, ctx);
    options.keep_all = true;
    options.instead = qn__mnn_float_op;
    QN_TRY_GOTO(qn__plans_create(run->graph, run->dataset, &options, n_workers, &plain, error));
    QN_TRY_GOTO(qn__plans_create(j->rounded, run->dataset, &options, n_workers, &rounded, error));
    j->workers = qn__calloc(ctx, n_workers, sizeof(*j->workers));
    if (j->workers == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (uint32_t k = 0; k < n_workers; k++)
        QN_TRY_GOTO(worker_create(j, &j->workers[k], plain, rounded, error));
    qn__parallel_worker(ctx->pool, run_sample, j, qn_dataset_count(run->dataset));
    if (j->status != QN_OK)
        QN_FAIL_GOTO(error, j->status, "%s", j->error.message);
done:
    for (uint32_t k = 0; j->workers != NULL && k < n_workers; k++)
        worker_free(j, &j->workers[k]);
    qn__free(ctx, j->workers);
    qn__plans_destroy(plain);
    qn__plans_destroy(rounded);
    return status;
}

static void print_rows(const debug_job *j)
{
    const size_t n = qn_dataset_count(j->run->dataset);
    qn__mnn_print(j->run, "\nDebug info:\n\n");
    for (size_t r = 0; r < j->n_rows; r++) {
        measured sum = {0, 0};
        for (size_t s = 0; s < n; s++) {
            sum.cosine += j->results[s * j->n_rows + r].cosine;
            sum.overflow += j->results[s * j->n_rows + r].overflow;
        }
        qn__mnn_print(j->run, "%s:  cos distance: %f, overflow ratio: %f\n", j->rows[r].label,
                      sum.cosine / (double)n, sum.overflow / (double)n);
    }
}

qn_status qn__mnn_debug(const qn_mnn_run *run, const qn_mnn_scales *scales, qn_error *error)
{
    const qn_context *ctx = run->ctx;
    const size_t n_samples = qn_dataset_count(run->dataset);
    qn_mnn_trace trace;
    QN_TRY(qn__mnn_trace_create(run, &trace, error));
    debug_job j = {.run = run,
                   .rows = qn__calloc(ctx, trace.n_tensors, sizeof(*j.rows)),
                   .row_of = qn__calloc(ctx, run->graph->n_tensors, sizeof(*j.row_of))};
    qn_status status = QN_OK;
    pthread_mutex_init(&j.lock, NULL);
    if (j.rows == NULL || j.row_of == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    list_rows(&j, &trace, scales);
    size_t n_results;
    if (!qn_mul_size(&n_results, n_samples, j.n_rows))
        QN_FAIL_GOTO(error, QN_LIMIT, "%zu samples", n_samples);
    j.results = qn__calloc(ctx, n_results, sizeof(*j.results));
    if (j.results == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(qn__graph_clone(run->graph, &j.rounded, error));
    for (size_t r = 0; r < j.n_rows; r++)
        if (run->graph->tensors[j.rows[r].graph_id]->constant != NULL)
            QN_TRY_GOTO(round_constant(&j, r, error));
    QN_TRY_GOTO(run_all(&j, error));
    print_rows(&j);
done:
    qn__graph_destroy(j.rounded);
    qn__free(ctx, j.results);
    qn__free(ctx, j.row_of);
    qn__free(ctx, j.rows);
    qn__mnn_trace_free(&trace);
    pthread_mutex_destroy(&j.lock);
    return status;
}
