/* Tensor by tensor, how far a quantized model is from the float one. Per sample:
 *   1. the float model runs, its tensors are kept;
 *   2. the quantized model runs; its tensors are compared with those (errors accumulate from the
 *      input on) and kept;
 *   3. the float model runs again with every tensor replaced, once compared, by the quantized
 *      model's: each node sees the quantized model's input, so that its own error shows alone.
 * Channels that equalization scaled are brought back first, by powers of two that are found once,
 * on a few samples: what a single sample shows of a noisy channel may lie nearer to another power.
 * Sums are kept per sample and added in the order of the samples. */
#include "quench/quantize.h"
#include "report/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEARNING_SAMPLES = 16 };

#define DB_LIMIT 200.0 /* reported where there is no error at all */

typedef struct sums {
    double xx, yy, xy, ee, max_abs, outside, count;
} sums;

/* Squares of a channel's float and quantized values. */
typedef struct channel_fit {
    double xx, yy;
} channel_fit;

typedef struct store {
    float **values;   /* [n rows] row-major */
    size_t *counts;   /* [n rows] elements kept, 0: not produced */
    size_t *capacity; /* [n rows] */
} store;

typedef struct job {
    const qn_context *ctx;
    const qn_dataset *dataset;
    qn_runner reference, quantized;
    size_t n_rows;
    const qn_tensor **tensors; /* [n_rows] of the float graph */
    size_t *row_of_reference;  /* [reference tensors] row + 1 */
    size_t *row_of_quantized;  /* [quantized tensors] row + 1 */
    bool *equalized;           /* [n_rows] the quantized tensor's channels are scaled */
    channel_fit **fits;        /* [n_rows] by channel, NULL until seen */
    size_t *n_fits;            /* [n_rows] */
    sums *total, *alone;       /* [samples * n_rows] */
    struct worker *workers;
    qn_failure failure;
    qn_tally tally;
} job;

typedef struct worker {
    job *job;
    size_t sample;
    int phase;
    bool learning; /* exponents of channels are sought: nothing is compared */
    store reference, quantized;
    float *scratch;
    size_t scratch_capacity;
} worker;

struct qn_comparison {
    const qn_context *ctx;
    qn_arena arena;
    size_t n_rows;
    qn_compare_row *rows;
};

/* --- keeping and comparing ---------------------------------------------------------------------*/
static qn_status room(const qn_context *ctx, float **values, size_t *capacity, size_t count,
                      qn_error *error)
{
    if (*values != NULL && *capacity >= count)
        return QN_OK;
    float *grown = qn__reallocarray(ctx, *values, count, sizeof(float));
    if (grown == NULL)
        return QN_NOMEM(error);
    *values = grown;
    *capacity = count;
    return QN_OK;
}

static qn_status keep(worker *w, store *s, size_t row, const qn_view *view, qn_error *error)
{
    QN_TRY(room(w->job->ctx, &s->values[row], &s->capacity[row], view->count, error));
    qn__view_to_f32(view, s->values[row]);
    s->counts[row] = view->count;
    return QN_OK;
}

/* What a type can represent: values outside round to something else than the nearest step. */
static void limits_of(const qn_type *type, double *lo, double *hi)
{
    *lo = -INFINITY;
    *hi = INFINITY;
    if (type->kind != QN_TYPE_QUANT || type->quant->n_scales != 1)
        return;
    const qn_quant *q = type->quant;
    const double scale = (double)q->scales[0];
    const double zero = q->zero_points != NULL ? q->zero_points[0] : 0;
    *lo = (q->qmin - zero - 0.5) * scale;
    *hi = (q->qmax - zero + 0.5) * scale;
}

/* x: float, y: quantized; lo, hi: representable. Adds to s. */
static void compare_values(const float *x, const float *y, size_t count, double lo, double hi,
                           sums *s)
{
    for (size_t i = 0; i < count; i++) {
        const double a = (double)x[i], b = (double)y[i], e = a - b;
        s->xx += a * a;
        s->yy += b * b;
        s->xy += a * b;
        s->ee += e * e;
        s->max_abs = fmax(s->max_abs, fabs(e));
        s->outside += a < lo || a > hi;
    }
    s->count += (double)count;
}

static size_t channel_size(const qn_view *view)
{
    return (size_t)(view->dims[view->rank - 2] * view->dims[view->rank - 1]);
}

static qn_status learn(job *j, size_t row, const qn_view *view, const float *x, const float *y,
                       qn_error *error)
{
    const size_t inner = channel_size(view);
    if (inner == 0)
        return QN_OK;
    if (j->fits[row] == NULL) {
        j->n_fits[row] = view->count / inner;
        j->fits[row] = qn__calloc(j->ctx, j->n_fits[row], sizeof(*j->fits[row]));
        if (j->fits[row] == NULL)
            return QN_NOMEM(error);
    }
    for (size_t i = 0; i < view->count && i / inner < j->n_fits[row]; i++) {
        j->fits[row][i / inner].xx += (double)x[i] * (double)x[i];
        j->fits[row][i / inner].yy += (double)y[i] * (double)y[i];
    }
    return QN_OK;
}

/* Exponent e with y * 2^e as large as x: what equalization divided the channel by. */
static int channel_exponent(const job *j, size_t row, size_t channel)
{
    if (channel >= j->n_fits[row])
        return 0;
    const channel_fit *f = &j->fits[row][channel];
    return f->xx > 0 && f->yy > 0 ? (int)lrint(0.5 * log2(f->xx / f->yy)) : 0;
}

/* Undoes equalization channel by channel before comparing: y gets the float model's meaning. */
static void compare_equalized(const job *j, size_t row, const float *x, float *y,
                              const qn_view *view, double lo, double hi, sums *s)
{
    const size_t inner = channel_size(view);
    for (size_t i = 0; inner > 0 && i < view->count; i += inner) {
        const int e = channel_exponent(j, row, i / inner);
        for (size_t k = i; k < i + inner; k++)
            y[k] = ldexpf(y[k], e);
        compare_values(x + i, y + i, inner, ldexp(lo, e), ldexp(hi, e), s);
    }
}

static qn_status on_reference(void *arg, const qn_view *view, qn_error *error)
{
    worker *w = arg;
    job *j = w->job;
    const size_t row = j->row_of_reference[view->tensor->id];
    if (row == 0)
        return QN_OK;
    if (w->phase == 0)
        return keep(w, &w->reference, row - 1, view, error);
    if (w->quantized.counts[row - 1] != view->count)
        return QN_OK;
    QN_TRY(room(j->ctx, &w->scratch, &w->scratch_capacity, view->count, error));
    qn__view_to_f32(view, w->scratch);
    compare_values(w->scratch, w->quantized.values[row - 1], view->count, -INFINITY, INFINITY,
                   &j->alone[w->sample * j->n_rows + row - 1]);
    qn__view_from_f32(view, w->quantized.values[row - 1]);
    return QN_OK;
}

static qn_status on_quantized(void *arg, const qn_view *view, qn_error *error)
{
    worker *w = arg;
    job *j = w->job;
    const size_t row = j->row_of_quantized[view->tensor->id];
    if (row == 0)
        return QN_OK;
    QN_TRY(keep(w, &w->quantized, row - 1, view, error));
    if (w->reference.counts[row - 1] != view->count)
        return QN_OK;
    const float *x = w->reference.values[row - 1];
    float *y = w->quantized.values[row - 1];
    const bool equalized = j->equalized[row - 1] && view->rank >= 4;
    if (w->learning)
        return equalized ? learn(j, row - 1, view, x, y, error) : QN_OK;
    sums *to = &j->total[w->sample * j->n_rows + row - 1];
    double lo, hi;
    limits_of(&view->tensor->type, &lo, &hi);
    if (equalized)
        compare_equalized(j, row - 1, x, y, view, lo, hi, to);
    else
        compare_values(x, y, view->count, lo, hi, to);
    return QN_OK;
}

static qn_status compare_sample(job *j, uint32_t k, size_t index, qn_error *error)
{
    worker *w = &j->workers[k];
    qn_lane *reference = &j->reference.lanes[k], *quantized = &j->quantized.lanes[k];
    w->sample = index;
    memset(w->reference.counts, 0, j->n_rows * sizeof(size_t));
    memset(w->quantized.counts, 0, j->n_rows * sizeof(size_t));
    QN_TRY(qn__lane_load(reference, index, error));
    QN_TRY(qn__lane_fit(quantized, index, error));
    qn__feed_convert(&quantized->feed, (const float *const *)reference->feed.values);
    qn__exec_set_hook(reference->exec, on_reference, w);
    qn__exec_set_hook(quantized->exec, on_quantized, w);
    w->phase = 0;
    QN_TRY(qn__exec_run(reference->exec, reference->feed.pointers, error));
    QN_TRY(qn__exec_run(quantized->exec, quantized->feed.pointers, error));
    if (w->learning)
        return QN_OK;
    w->phase = 1;
    return qn__exec_run(reference->exec, reference->feed.pointers, error);
}

static qn_status learn_exponents(job *j, qn_error *error)
{
    const size_t count = qn_dataset_count(j->dataset);
    const size_t n = count < LEARNING_SAMPLES ? count : LEARNING_SAMPLES;
    bool any = false;
    for (size_t i = 0; i < j->n_rows; i++)
        any |= j->equalized[i];
    j->workers[0].learning = true;
    for (size_t i = 0; any && i < n; i++)
        QN_TRY(compare_sample(j, 0, i * count / n, error));
    j->workers[0].learning = false;
    return QN_OK;
}

static void run_sample(void *arg, uint32_t worker_index, size_t position)
{
    job *j = arg;
    const size_t index = qn__dataset_nth(j->dataset, position);
    qn_error error = {0};
    if (j->failure.any)
        return;
    qn_status status = compare_sample(j, worker_index, index, &error);
    if (status == QN_OK)
        status = qn__tally_sample(j->ctx, &j->tally, &error);
    if (status != QN_OK)
        qn__failure_note(&j->failure, index, status, &error);
}

/* --- which tensors belong together -------------------------------------------------------------*/
static bool is_input(const qn_graph *g, const qn_tensor *t)
{
    for (size_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] == t)
            return true;
    return false;
}

/* The tensor of the quantized graph that stands for `name`: a quantized one where there is one. */
static const qn_tensor *find_twin(const qn_graph *g, const char *name, bool *equalized)
{
    static const char *const suffixes[] = {"",
                                           "_quantized",
                                           "_QuantizeLinear_Output",
                                           "_dequantized",
                                           "_DequantizeLinear_Output",
                                           "_equalized"};
    enum { N_PLAIN = 5 };
    const qn_tensor *found = NULL;
    char buf[512];
    *equalized = false;
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        const size_t length = strlen(name), more = strlen(suffixes[i]);
        if (length + more >= sizeof(buf))
            continue;
        memcpy(buf, name, length);
        memcpy(buf + length, suffixes[i], more + 1);
        const qn_tensor *t = qn__graph_find_tensor(g, buf);
        if (t == NULL || t->constant != NULL)
            continue;
        if (t->producer == NULL && !is_input(g, t))
            continue;
        if (t->type.kind == QN_TYPE_QUANT || i >= N_PLAIN) {
            *equalized = i >= N_PLAIN;
            return t;
        }
        if (found == NULL)
            found = t;
    }
    return found;
}

static qn_status match(job *j, qn_error *error)
{
    const qn_graph *f = j->reference.graph, *q = j->quantized.graph;
    j->tensors = qn__calloc(j->ctx, f->n_tensors, sizeof(*j->tensors));
    j->row_of_reference = qn__calloc(j->ctx, f->n_tensors, sizeof(size_t));
    j->row_of_quantized = qn__calloc(j->ctx, q->n_tensors, sizeof(size_t));
    j->equalized = qn__calloc(j->ctx, f->n_tensors, sizeof(*j->equalized));
    if (j->tensors == NULL || j->equalized == NULL || j->row_of_reference == NULL ||
        j->row_of_quantized == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < f->n_tensors; i++) {
        const qn_tensor *t = f->tensors[i];
        if (t->constant != NULL || t->type.dtype != QN_DTYPE_F32 ||
            (t->producer == NULL && !is_input(f, t)))
            continue;
        const qn_tensor *twin = find_twin(q, t->name, &j->equalized[j->n_rows]);
        if (twin == NULL || j->row_of_quantized[twin->id] != 0)
            continue;
        j->tensors[j->n_rows++] = t;
        j->row_of_reference[t->id] = j->row_of_quantized[twin->id] = j->n_rows;
    }
    QN_FAIL_IF(j->n_rows == 0, error, QN_INVALID_ARGUMENT,
               "the two models have no tensor name in common");
    return QN_OK;
}

/* --- the result --------------------------------------------------------------------------------*/
static sums add_up(const sums *all, size_t n_samples, size_t n_rows, size_t row)
{
    sums s = {0};
    for (size_t i = 0; i < n_samples; i++) {
        const sums *one = &all[i * n_rows + row];
        s.xx += one->xx;
        s.yy += one->yy;
        s.xy += one->xy;
        s.ee += one->ee;
        s.max_abs = fmax(s.max_abs, one->max_abs);
        s.outside += one->outside;
        s.count += one->count;
    }
    return s;
}

static double cosine(const sums *s)
{
    if (s->xx == 0 || s->yy == 0)
        return s->xx == s->yy ? 1 : 0;
    return s->xy / (sqrt(s->xx) * sqrt(s->yy));
}

static double sqnr(const sums *s)
{
    if (s->ee == 0)
        return DB_LIMIT;
    if (s->xx == 0)
        return -DB_LIMIT;
    return fmax(-DB_LIMIT, fmin(DB_LIMIT, 10 * log10(s->xx / s->ee)));
}

static int worst_first(const void *a, const void *b)
{
    const qn_compare_row *x = a, *y = b;
    if (x->sqnr_db != y->sqnr_db)
        return x->sqnr_db < y->sqnr_db ? -1 : 1;
    return strcmp(x->name, y->name);
}

static qn_status collect(const job *j, qn_comparison **out, qn_error *error)
{
    const size_t n_samples = qn_dataset_count(j->dataset);
    qn_comparison *c = qn__calloc(j->ctx, 1, sizeof(*c));
    if (c == NULL)
        return QN_NOMEM(error);
    c->ctx = j->ctx;
    qn__arena_init(&c->arena, j->ctx);
    c->rows = qn__arena_calloc(&c->arena, j->n_rows, sizeof(*c->rows));
    for (size_t i = 0; c->rows != NULL && i < j->n_rows; i++) {
        const qn_tensor *t = j->tensors[i];
        const sums total = add_up(j->total, n_samples, j->n_rows, i);
        const sums alone = add_up(j->alone, n_samples, j->n_rows, i);
        if (total.count == 0)
            continue;
        c->rows[c->n_rows++] = (qn_compare_row){
            .name = qn__arena_strdup(&c->arena, t->name),
            .node = qn__arena_strdup(&c->arena, t->producer != NULL ? t->producer->name : ""),
            .cosine = cosine(&total),
            .sqnr_db = sqnr(&total),
            .max_abs = total.max_abs,
            .overflow = total.outside / total.count,
            .alone_cosine = cosine(&alone),
            .alone_sqnr_db = sqnr(&alone),
        };
        if (c->rows[c->n_rows - 1].name == NULL || c->rows[c->n_rows - 1].node == NULL) {
            qn_comparison_destroy(c);
            return QN_NOMEM(error);
        }
    }
    if (c->rows == NULL) {
        qn_comparison_destroy(c);
        return QN_NOMEM(error);
    }
    qsort(c->rows, c->n_rows, sizeof(*c->rows), worst_first);
    *out = c;
    return QN_OK;
}

static qn_status store_create(const job *j, store *s, qn_error *error)
{
    s->values = qn__calloc(j->ctx, j->n_rows, sizeof(*s->values));
    s->counts = qn__calloc(j->ctx, j->n_rows, sizeof(*s->counts));
    s->capacity = qn__calloc(j->ctx, j->n_rows, sizeof(*s->capacity));
    return s->values == NULL || s->counts == NULL || s->capacity == NULL ? QN_NOMEM(error) : QN_OK;
}

static void store_free(const job *j, store *s)
{
    for (size_t i = 0; s->values != NULL && i < j->n_rows; i++)
        qn__free(j->ctx, s->values[i]);
    qn__free(j->ctx, s->values);
    qn__free(j->ctx, s->counts);
    qn__free(j->ctx, s->capacity);
}

static qn_status prepare(job *j, const qn_model *model, const qn_model *quantized, qn_error *error)
{
    QN_TRY(qn__runner_create(model, j->dataset, true, true, false, QN_REQUANTIZE_DEFAULT,
                             &j->reference, error));
    QN_TRY(qn__runner_create(quantized, j->dataset, true, true, false, QN_REQUANTIZE_DEFAULT,
                             &j->quantized, error));
    QN_TRY(match(j, error));
    size_t cells;
    QN_FAIL_IF(!qn_mul_size(&cells, j->n_rows, qn_dataset_count(j->dataset)), error, QN_LIMIT,
               "too many samples");
    j->total = qn__calloc(j->ctx, cells, sizeof(*j->total));
    j->alone = qn__calloc(j->ctx, cells, sizeof(*j->alone));
    j->fits = qn__calloc(j->ctx, j->n_rows, sizeof(*j->fits));
    j->n_fits = qn__calloc(j->ctx, j->n_rows, sizeof(*j->n_fits));
    j->workers = qn__calloc(j->ctx, j->reference.n_workers, sizeof(*j->workers));
    if (j->total == NULL || j->alone == NULL || j->fits == NULL || j->n_fits == NULL ||
        j->workers == NULL)
        return QN_NOMEM(error);
    for (uint32_t i = 0; i < j->reference.n_workers; i++) {
        j->workers[i].job = j;
        QN_TRY(store_create(j, &j->workers[i].reference, error));
        QN_TRY(store_create(j, &j->workers[i].quantized, error));
    }
    return QN_OK;
}

qn_status qn__compare(const qn_model *model, const qn_model *quantized, const qn_dataset *dataset,
                      qn_progress_fn progress, void *progress_ctx, qn_comparison **out,
                      qn_error *error)
{
    QN_FAIL_IF(model == NULL || quantized == NULL || dataset == NULL || out == NULL, error,
               QN_INVALID_ARGUMENT, "qn_compare: NULL argument");
    QN_FAIL_IF(model->graph->n_inputs != quantized->graph->n_inputs, error, QN_INVALID_ARGUMENT,
               "the models have %zu and %zu inputs", model->graph->n_inputs,
               quantized->graph->n_inputs);
    QN_FAIL_IF(qn_dataset_count(dataset) == 0, error, QN_INVALID_ARGUMENT, "no samples to compare");
    qn_status status = QN_OK;
    job j = {.ctx = model->ctx, .dataset = dataset};
    QN_TRY_GOTO(prepare(&j, model, quantized, error));
    QN_TRY_GOTO(learn_exponents(&j, error));
    j.tally = (qn_tally){.phase = "compare",
                         .progress = progress,
                         .progress_ctx = progress_ctx,
                         .total = qn_dataset_count(dataset)};
    qn__parallel_worker(j.ctx->pool, run_sample, &j, qn_dataset_count(dataset));
    if (j.failure.any)
        QN_FAIL_GOTO(error, j.failure.status, "%s", j.failure.error.message);
    status = collect(&j, out, error);
done:
    for (uint32_t i = 0; j.workers != NULL && i < j.reference.n_workers; i++) {
        store_free(&j, &j.workers[i].reference);
        store_free(&j, &j.workers[i].quantized);
        qn__free(j.ctx, j.workers[i].scratch);
    }
    for (size_t i = 0; j.fits != NULL && i < j.n_rows; i++)
        qn__free(j.ctx, j.fits[i]);
    qn__free(j.ctx, j.fits);
    qn__free(j.ctx, j.n_fits);
    qn__free(j.ctx, j.workers);
    qn__free(j.ctx, j.total);
    qn__free(j.ctx, j.alone);
    qn__free(j.ctx, j.tensors);
    qn__free(j.ctx, j.equalized);
    qn__free(j.ctx, j.row_of_reference);
    qn__free(j.ctx, j.row_of_quantized);
    qn__runner_free(&j.reference);
    qn__runner_free(&j.quantized);
    return status;
}

qn_status qn_compare(const qn_model *model, const qn_model *quantized, const qn_dataset *dataset,
                     qn_comparison **out, qn_error *error)
{
    return qn__compare(model, quantized, dataset, NULL, NULL, out, error);
}

void qn_comparison_destroy(qn_comparison *comparison)
{
    if (comparison == NULL)
        return;
    qn__arena_free(&comparison->arena);
    qn__free(comparison->ctx, comparison);
}

bool qn_comparison_row(const qn_comparison *comparison, size_t index, qn_compare_row *out)
{
    if (comparison == NULL || out == NULL || index >= comparison->n_rows)
        return false;
    *out = comparison->rows[index];
    return true;
}
