/* The training-mode procedure. Every sample of a batch has an executor of its own, and all of them
 * advance together, a step of the plan at a time: so a network whose batch is fixed to 1 needs no
 * change, and between two steps everything that the batch has in common is known. Threads take
 * samples; what is reduced over the batch is reduced in the order of the samples. */
#include "calib/lanes.h"
#include "calib/train.h"
#include "core/threads.h"
#include "run/nd.h"
#include "calib/scan.h"

#include <math.h>
#include <string.h>

#define MOVING_CONSTANT 0.01f

/* A BatchNormalization: its node only hands its input on, the arithmetic is done here. */
typedef struct norm {
    size_t channels;
    float epsilon;
    float *gamma, *beta;    /* [channels] */
    float *mean, *variance; /* running */
    float *batch_mean, *batch_variance;
} norm;

typedef struct slot {
    struct job *job;
    qn_lane lane;
    qn_view *pending; /* made by the last step and looked at here */
    size_t n_pending;
    float lo, hi;
    double *sums; /* [most channels] */
    qn_status status;
    qn_error error;
    bool named; /* the error names the sample already */
} slot;

typedef struct job {
    const qn_context *ctx;
    qn_graph *graph; /* the caller's, with BatchNormalization replaced */
    const qn_dataset *dataset;
    const qn_calib_options *options;
    size_t *item_of; /* [n_tensors] index + 1, 0: not measured */
    size_t *norm_of; /* [n_tensors] the same for norms, by output */
    norm *norms;
    const qn_node **norm_nodes; /* of the caller's graph */
    size_t n_norms, most_channels;
    qn_plans *plans;
    slot *slots;
    size_t batch, n_steps;
    qn_train_result *result;
    size_t first;   /* sample of slot 0 */
    size_t step;    /* of the plan */
    size_t current; /* pending tensor */
    qn_train_grid grid;
} job;

/* --- BatchNormalization nodes ------------------------------------------------------------------*/
static qn_status copy_param(const qn_node *node, uint32_t input, size_t channels, float *out,
                            qn_error *error)
{
    const qn_tensor *t = qn_node_input(node, input);
    size_t count, bytes;
    QN_FAIL_IF(t == NULL || t->constant == NULL || t->type.kind != QN_TYPE_PLAIN ||
                   !qn__dtype_is_float(t->type.dtype) || !qn__tensor_count(t, &count) ||
                   count != channels || !qn__dtype_bytes(&bytes, t->type.dtype, count) ||
                   bytes > t->constant->size_bytes,
               error, QN_UNSUPPORTED,
               "BatchNormalization \"%s\": input %u is not one constant per channel", node->name,
               (unsigned)input);
    for (size_t c = 0; c < channels; c++)
        out[c] = (float)qn__load_real(t->constant->data, t->type.dtype, c);
    return QN_OK;
}

static qn_status add_norm(job *j, qn_node *node, const qn_node *original, qn_error *error)
{
    norm *n = &j->norms[j->n_norms];
    size_t channels;
    QN_FAIL_IF(node->n_inputs < 5 || node->inputs[0] == NULL || node->inputs[1] == NULL ||
                   !qn__tensor_count(node->inputs[1], &channels) || node->n_outputs < 1 ||
                   node->outputs[0] == NULL || node->act != QN_ACT_NONE,
               error, QN_UNSUPPORTED, "BatchNormalization \"%s\": inputs are missing", node->name);
    for (uint32_t o = 1; o < node->n_outputs; o++)
        QN_FAIL_IF(node->outputs[o] != NULL, error, QN_UNSUPPORTED,
                   "BatchNormalization \"%s\": its statistics are read", node->name);
    float *values = qn__calloc(j->ctx, channels, 6 * sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    *n = (norm){.channels = channels,
                .epsilon = qn__attr_float(node, "epsilon", 1e-5f),
                .gamma = values,
                .beta = values + channels,
                .mean = values + 2 * channels,
                .variance = values + 3 * channels,
                .batch_mean = values + 4 * channels,
                .batch_variance = values + 5 * channels};
    j->norm_nodes[j->n_norms] = original;
    j->norm_of[node->outputs[0]->id] = ++j->n_norms;
    if (channels > j->most_channels)
        j->most_channels = channels;
    float *const params[4] = {n->gamma, n->beta, n->mean, n->variance};
    for (uint32_t i = 0; i < 4; i++)
        QN_TRY(copy_param(node, i + 1, channels, params[i], error));
    node->op = QN_OP_IDENTITY;
    node->n_inputs = node->n_outputs = 1;
    node->n_attrs = 0;
    return QN_OK;
}

static qn_status replace_norms(job *j, const qn_graph *original, qn_error *error)
{
    j->norms = qn__calloc(j->ctx, j->graph->n_nodes, sizeof(*j->norms));
    j->norm_nodes = qn__calloc(j->ctx, j->graph->n_nodes, sizeof(*j->norm_nodes));
    if (j->norms == NULL || j->norm_nodes == NULL)
        return QN_NOMEM(error);
    for (size_t n = 0; n < j->graph->n_nodes; n++)
        if (j->graph->nodes[n]->op == QN_OP_BATCH_NORMALIZATION)
            QN_TRY(add_norm(j, j->graph->nodes[n], original->nodes[n], error));
    return QN_OK;
}

/* --- over the samples of a batch ---------------------------------------------------------------*/
/* Calls fn for every slot; the first failure by sample is the one reported. */
static qn_status each(job *j, qn_parallel_fn fn, qn_error *error)
{
    if (j->batch == 1)
        fn(j, 0); /* the executor has the threads */
    else
        qn__parallel(j->ctx->pool, fn, j, j->batch);
    for (size_t i = 0; i < j->batch; i++) {
        const slot *s = &j->slots[i];
        if (s->status == QN_OK)
            continue;
        if (error != NULL)
            *error = s->error;
        return s->named ? s->status
                        : qn__error_prefix(error, s->status, "%s",
                                           qn_dataset_name(j->dataset, j->first + i));
    }
    return QN_OK;
}

static qn_status remember(void *arg, const qn_view *view, qn_error *error)
{
    slot *s = arg;
    (void)error;
    const uint32_t id = view->tensor->id;
    if (s->job->item_of[id] != 0 || s->job->norm_of[id] != 0)
        s->pending[s->n_pending++] = *view;
    return QN_OK;
}

static void load(void *arg, size_t index)
{
    job *j = arg;
    slot *s = &j->slots[index];
    s->n_pending = 0;
    s->status = qn__lane_load(&s->lane, j->first + index, &s->error);
    s->named = s->status != QN_OK;
    if (s->status == QN_OK)
        s->status = qn__exec_begin(s->lane.exec, s->lane.feed.pointers, &s->error);
}

static void advance(void *arg, size_t index)
{
    job *j = arg;
    slot *s = &j->slots[index];
    s->n_pending = 0;
    s->status = qn__exec_step(s->lane.exec, j->step, &s->error);
}

/* --- BatchNormalization with the statistics of the batch ---------------------------------------*/
static const norm *norm_at(const job *j, const qn_view *view)
{
    return &j->norms[j->norm_of[view->tensor->id] - 1];
}

/* Sums over a sample of x - center, or of its square. */
static void add_up(job *j, slot *s, const float *center, bool square)
{
    const qn_view *view = &s->pending[j->current];
    const norm *n = norm_at(j, view);
    const qn_axis_view v = qn__axis_view(view->rank, view->dims, view->layout, 1);
    const float *x = view->data;
    memset(s->sums, 0, n->channels * sizeof(*s->sums));
    for (size_t o = 0; o < v.outer; o++)
        for (size_t c = 0; c < v.axis; c++) {
            const double middle = center != NULL ? (double)center[c] : 0.0;
            double sum = 0;
            for (size_t i = 0; i < v.inner; i++, x++)
                sum += square ? ((double)*x - middle) * ((double)*x - middle) : (double)*x;
            s->sums[c] += sum;
        }
}

static void sum_values(void *arg, size_t index)
{
    add_up(arg, &((job *)arg)->slots[index], NULL, false);
}

static void sum_squares(void *arg, size_t index)
{
    job *j = arg;
    slot *s = &j->slots[index];
    add_up(j, s, norm_at(j, &s->pending[j->current])->batch_mean, true);
}

static void normalize(void *arg, size_t index)
{
    job *j = arg;
    const qn_view *view = &j->slots[index].pending[j->current];
    const norm *n = norm_at(j, view);
    const qn_axis_view v = qn__axis_view(view->rank, view->dims, view->layout, 1);
    float *x = view->data;
    for (size_t o = 0; o < v.outer; o++)
        for (size_t c = 0; c < v.axis; c++) {
            const float mean = n->batch_mean[c], gamma = n->gamma[c], beta = n->beta[c];
            const float inverse = 1.0f / sqrtf(n->batch_variance[c] + n->epsilon);
            for (size_t i = 0; i < v.inner; i++, x++)
                *x = (*x - mean) * inverse * gamma + beta;
        }
}

static void reduce(const job *j, size_t channels, size_t per_channel, float *out)
{
    for (size_t c = 0; c < channels; c++) {
        double sum = 0;
        for (size_t i = 0; i < j->batch; i++)
            sum += j->slots[i].sums[c];
        out[c] = (float)(sum / (double)per_channel / (double)j->batch);
    }
}

static qn_status batch_norm(job *j, qn_error *error)
{
    const qn_view *view = &j->slots[0].pending[j->current];
    const norm *n = norm_at(j, view);
    QN_FAIL_IF(view->rank < 2 || (size_t)view->dims[1] != n->channels, error, QN_CORRUPT,
               "tensor \"%s\": BatchNormalization of %zu channels does not fit", view->tensor->name,
               n->channels);
    if (view->count == 0)
        return QN_OK;
    const size_t per_channel = view->count / n->channels;
    QN_TRY(each(j, sum_values, error));
    reduce(j, n->channels, per_channel, n->batch_mean);
    QN_TRY(each(j, sum_squares, error));
    reduce(j, n->channels, per_channel, n->batch_variance);
    for (size_t c = 0; c < n->channels; c++) {
        n->mean[c] += MOVING_CONSTANT * (n->batch_mean[c] - n->mean[c]);
        n->variance[c] += MOVING_CONSTANT * (n->batch_variance[c] - n->variance[c]);
        QN_FAIL_IF(!isfinite(n->mean[c]) || !isfinite(n->variance[c]), error, QN_NONFINITE,
                   "tensor \"%s\": statistics of channel %zu are not finite", view->tensor->name,
                   c);
    }
    return each(j, normalize, error);
}

/* --- ranges ------------------------------------------------------------------------------------*/
static void scan(void *arg, size_t index)
{
    job *j = arg;
    slot *s = &j->slots[index];
    const qn_view *view = &s->pending[j->current];
    s->lo = INFINITY;
    s->hi = -INFINITY;
    s->status = qn__scan_range(j->ctx, view->data, view->count, &s->lo, &s->hi, &s->error);
    if (s->status != QN_OK)
        qn__error_prefix(&s->error, s->status, "tensor \"%s\"", view->tensor->name);
}

static void round_values(void *arg, size_t index)
{
    job *j = arg;
    const qn_view *view = &j->slots[index].pending[j->current];
    qn__train_round(&j->grid, view->data, view->count);
}

static const qn_train_look *look_at(const job *j, uint32_t id)
{
    return j->options->items[j->item_of[id] - 1].look;
}

static void look(void *arg, size_t index)
{
    job *j = arg;
    slot *s = &j->slots[index];
    const qn_view *view = &s->pending[j->current];
    const qn_train_look *l = look_at(j, view->tensor->id);
    s->status = l->sample(l->arg, index, view, &s->error);
}

static qn_status measure(job *j, qn_error *error)
{
    const qn_view *view = &j->slots[0].pending[j->current];
    const size_t at = j->item_of[view->tensor->id] - 1;
    qn_range *r = &j->result->ranges.items[view->tensor->id];
    if (view->count == 0)
        return QN_OK;
    QN_TRY(each(j, scan, error));
    float lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < j->batch; i++) {
        lo = fminf(lo, j->slots[i].lo);
        hi = fmaxf(hi, j->slots[i].hi);
    }
    r->seen_lo = r->valid ? fminf(r->seen_lo, lo) : lo;
    r->seen_hi = r->valid ? fmaxf(r->seen_hi, hi) : hi;
    r->count += (uint64_t)view->count * j->batch;
    j->grid = qn__train_grid(&lo, &hi, &j->options->items[at].format);
    QN_FAIL_IF(!isfinite(hi - lo), error, QN_NONFINITE, "tensor \"%s\" has the range [%g, %g]",
               view->tensor->name, (double)lo, (double)hi);
    r->lo = r->valid ? (1.0f - MOVING_CONSTANT) * r->lo + MOVING_CONSTANT * lo : lo;
    r->hi = r->valid ? (1.0f - MOVING_CONSTANT) * r->hi + MOVING_CONSTANT * hi : hi;
    r->valid = true;
    const qn_train_look *l = look_at(j, view->tensor->id);
    if (l == NULL)
        return each(j, round_values, error);
    QN_TRY(each(j, look, error));
    return l->batch(l->arg, j->batch, error);
}

/* What the last step made. Executors of one plan make the same tensors in the same order. */
static qn_status settle(job *j, qn_error *error)
{
    for (j->current = 0; j->current < j->slots[0].n_pending; j->current++) {
        const uint32_t id = j->slots[0].pending[j->current].tensor->id;
        if (j->norm_of[id] != 0)
            QN_TRY(batch_norm(j, error));
        if (j->item_of[id] != 0)
            QN_TRY(measure(j, error));
    }
    return QN_OK;
}

/* --- the loop ----------------------------------------------------------------------------------*/
static qn_status run_batch(job *j, qn_error *error)
{
    QN_TRY(each(j, load, error));
    QN_TRY(settle(j, error));
    const size_t n_steps = qn__exec_n_steps(j->slots[0].lane.exec);
    for (j->step = 0; j->step < n_steps; j->step++) {
        QN_TRY(each(j, advance, error));
        QN_TRY(settle(j, error));
    }
    return QN_OK;
}

static qn_status run_batches(job *j, qn_error *error)
{
    const qn_calib_options *o = j->options;
    for (size_t b = 0; b < j->n_steps; b++) {
        j->first = b * j->batch;
        QN_TRY(run_batch(j, error));
        if (o->progress != NULL && !o->progress(o->progress_ctx, "calibrate", (b + 1) * j->batch,
                                                (uint64_t)j->n_steps * j->batch))
            QN_FAIL(error, QN_CANCELLED, "cancelled while calibrating");
    }
    return QN_OK;
}

static qn_status slot_create(job *j, slot *s, qn_error *error)
{
    s->job = j;
    s->pending = qn__calloc(j->ctx, j->graph->n_tensors, sizeof(*s->pending));
    s->sums = qn__calloc(j->ctx, j->most_channels, sizeof(*s->sums));
    if (s->pending == NULL || s->sums == NULL)
        return QN_NOMEM(error);
    return qn__lane_init(&s->lane, j->plans, j->batch == 1 ? j->ctx->pool : NULL, remember, s,
                         error);
}

static void job_free(job *j)
{
    for (size_t i = 0; j->slots != NULL && i < j->batch; i++) {
        qn__lane_free(&j->slots[i].lane);
        qn__free(j->ctx, j->slots[i].pending);
        qn__free(j->ctx, j->slots[i].sums);
    }
    qn__free(j->ctx, j->slots);
    qn__plans_destroy(j->plans);
    for (size_t i = 0; i < j->n_norms; i++)
        qn__free(j->ctx, j->norms[i].gamma);
    qn__free(j->ctx, j->norms);
    qn__free(j->ctx, (void *)j->norm_nodes);
    qn__free(j->ctx, j->norm_of);
    qn__free(j->ctx, j->item_of);
    qn__graph_destroy(j->graph);
}

static qn_status prepare(job *j, const qn_graph *graph, qn_error *error)
{
    const qn_calib_options *o = j->options;
    j->item_of = qn__calloc(j->ctx, j->graph->n_tensors, sizeof(*j->item_of));
    j->norm_of = qn__calloc(j->ctx, j->graph->n_tensors, sizeof(*j->norm_of));
    j->slots = qn__calloc(j->ctx, j->batch, sizeof(*j->slots));
    j->result->ranges.items =
        qn__calloc(j->ctx, j->graph->n_tensors, sizeof(*j->result->ranges.items));
    if (j->item_of == NULL || j->norm_of == NULL || j->slots == NULL ||
        j->result->ranges.items == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < o->n_items; i++) {
        QN_FAIL_IF(o->items[i].tensor_id >= j->graph->n_tensors, error, QN_INVALID_ARGUMENT,
                   "calibration item %zu: no tensor %u", i, (unsigned)o->items[i].tensor_id);
        const qn_tensor *t = j->graph->tensors[o->items[i].tensor_id];
        QN_FAIL_IF(t->type.kind != QN_TYPE_PLAIN || t->type.dtype != QN_DTYPE_F32, error,
                   QN_INVALID_ARGUMENT, "tensor \"%s\" is not float32", t->name);
        j->item_of[t->id] = i + 1;
    }
    QN_TRY(replace_norms(j, graph, error));
    qn_plan_options options;
    qn__plan_options_init(&options, j->ctx);
    options.keep_all = true;
    QN_TRY(qn__plans_create(j->graph, j->dataset, &options, j->batch, &j->plans, error));
    for (size_t i = 0; i < j->batch; i++)
        QN_TRY(slot_create(j, &j->slots[i], error));
    return QN_OK;
}

static qn_status keep_norms(job *j, qn_error *error)
{
    qn_train_result *r = j->result;
    r->norms = qn__calloc(j->ctx, j->n_norms, sizeof(*r->norms));
    if (r->norms == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < j->n_norms; i++) {
        const norm *n = &j->norms[i];
        float *values = qn__calloc(j->ctx, n->channels, 2 * sizeof(*values));
        if (values == NULL)
            return QN_NOMEM(error);
        memcpy(values, n->mean, n->channels * sizeof(*values));
        memcpy(values + n->channels, n->variance, n->channels * sizeof(*values));
        r->norms[r->n_norms++] = (qn_train_norm){.node_id = j->norm_nodes[i]->id,
                                                 .name = j->norm_nodes[i]->name,
                                                 .channels = n->channels,
                                                 .mean = values,
                                                 .variance = values + n->channels};
    }
    return QN_OK;
}

qn_status qn__train(const qn_graph *graph, const qn_dataset *dataset,
                    const qn_calib_options *options, qn_train_result *out, qn_error *error)
{
    const qn_context *ctx = graph->ctx;
    const size_t n_samples = qn_dataset_count(dataset);
    qn_train_result result = {.ctx = ctx, .ranges = {.ctx = ctx, .count = graph->n_tensors}};
    QN_FAIL_IF(n_samples == 0, error, QN_INVALID_ARGUMENT, "no calibration samples");
    QN_FAIL_IF(options->batch < 1, error, QN_INVALID_ARGUMENT, "batch %lld is not positive",
               (long long)options->batch);
    job j = {.ctx = ctx, .dataset = dataset, .options = options, .result = &result};
    j.batch = (uint64_t)options->batch < n_samples ? (size_t)options->batch : n_samples;
    j.n_steps = n_samples / j.batch;
    /* their plans have steps of their own, and a batch shares them */
    QN_FAIL_IF(j.batch > 1 && qn__dataset_n_shapes(dataset) > 1, error, QN_UNSUPPORTED,
               "samples of different shapes cannot be in one batch: give a batch of 1");
    result.batch = j.batch;
    result.steps = j.n_steps;
    qn_status status = qn__graph_clone(graph, &j.graph, error);
    if (status == QN_OK)
        status = prepare(&j, graph, error);
    if (status == QN_OK)
        status = run_batches(&j, error);
    if (status == QN_OK)
        status = keep_norms(&j, error);
    job_free(&j);
    if (status == QN_OK)
        *out = result;
    else
        qn__train_free(&result);
    return status;
}

void qn__train_free(qn_train_result *result)
{
    if (result->ctx == NULL)
        return;
    for (size_t i = 0; i < result->n_norms; i++)
        qn__free(result->ctx, result->norms[i].mean);
    qn__free(result->ctx, result->norms);
    qn__ranges_free(&result->ranges);
    *result = (qn_train_result){0};
}

static qn_status new_param(qn_graph *graph, qn_node *node, uint32_t input, const char *suffix,
                           const float *values, size_t count, qn_error *error)
{
    const int64_t dims[1] = {(int64_t)count};
    const char *name = qn__arena_printf(&graph->arena, "%s%s", node->name, suffix);
    qn_blob *blob = qn__blob_copy(graph->ctx, values, count * sizeof(*values));
    qn_tensor *t =
        name == NULL || blob == NULL
            ? NULL
            : qn__graph_add_constant(graph, name, qn_type_plain_make(QN_DTYPE_F32), 1, dims, blob);
    qn__blob_unref(blob);
    if (t == NULL)
        return QN_NOMEM(error);
    node->inputs[input] = t;
    return QN_OK;
}

qn_status qn__train_set_norms(qn_graph *graph, const qn_train_norm *norms, size_t n_norms,
                              qn_error *error)
{
    for (size_t n = 0; n < graph->n_nodes; n++) {
        qn_node *node = graph->nodes[n];
        for (size_t i = 0; i < n_norms; i++) {
            if (norms[i].node_id != node->id || node->op != QN_OP_BATCH_NORMALIZATION)
                continue;
            QN_TRY(new_param(graph, node, 3, "_mean", norms[i].mean, norms[i].channels, error));
            QN_TRY(new_param(graph, node, 4, "_variance", norms[i].variance, norms[i].channels,
                             error));
        }
    }
    return QN_OK;
}
