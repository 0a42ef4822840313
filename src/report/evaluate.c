/* Classification accuracy of a model over a dataset. */
#include "quench/quantize.h"
#include "report/runner.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

typedef struct outcome {
    int64_t top; /* class with the largest score; the first of equals */
    bool top1, top5;
    double ms;
} outcome;

typedef struct job {
    qn_runner runner;
    const qn_dataset *dataset;
    outcome *outcomes; /* [samples] */
    float **scores;    /* [n_workers] */
    qn_failure failure;
    qn_tally tally;
} job;

static double now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Classes ranked before `label`: larger scores, and equal ones with a smaller index. */
static size_t rank_of(const float *scores, size_t count, size_t label)
{
    size_t before = 0;
    for (size_t i = 0; i < count; i++)
        before += scores[i] > scores[label] || (scores[i] == scores[label] && i < label);
    return before;
}

static void judge(const float *scores, size_t count, int64_t label, outcome *out)
{
    size_t top = 0;
    for (size_t i = 1; i < count; i++)
        if (scores[i] > scores[top])
            top = i;
    out->top = (int64_t)top;
    if (label >= 0 && (uint64_t)label < count) {
        const size_t before = rank_of(scores, count, (size_t)label);
        out->top1 = before == 0;
        out->top5 = before < 5;
    }
}

static qn_status classify(job *j, uint32_t worker, size_t index, qn_error *error)
{
    qn_lane *lane = &j->runner.lanes[worker];
    QN_TRY(qn__lane_load(lane, index, error));
    qn_exec *exec = lane->exec;
    const double start = now_ms();
    QN_TRY(qn__exec_run(exec, lane->feed.pointers, error));
    j->outcomes[index].ms = now_ms() - start;
    const qn_view *view = qn__exec_output(exec, 0);
    QN_FAIL_IF(view->count == 0, error, QN_UNSUPPORTED, "the first output is empty");
    float *scores = qn__reallocarray(j->runner.ctx, j->scores[worker], view->count, sizeof(float));
    if (scores == NULL)
        return QN_NOMEM(error);
    j->scores[worker] = scores;
    qn__view_to_f32(view, scores);
    judge(scores, view->count, qn_dataset_label(j->dataset, index), &j->outcomes[index]);
    return QN_OK;
}

static void run_sample(void *arg, uint32_t worker, size_t position)
{
    job *j = arg;
    const size_t index = qn__dataset_nth(j->dataset, position);
    qn_error error = {0};
    if (j->failure.any)
        return;
    qn_status status = classify(j, worker, index, &error);
    if (status == QN_OK)
        status = qn__tally_sample(j->runner.ctx, &j->tally, &error);
    if (status != QN_OK)
        qn__failure_note(&j->failure, index, status, &error);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return count % 2 != 0 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Wilson's score interval, 95 %. */
static void wilson(uint64_t hits, uint64_t n, double *lo, double *hi)
{
    const double z = 1.959963984540054;
    *lo = 0;
    *hi = 1;
    if (n == 0)
        return;
    const double p = (double)hits / (double)n, zz = z * z / (double)n;
    const double centre = (p + zz / 2) / (1 + zz);
    const double half = z * sqrt(p * (1 - p) / (double)n + zz / (4 * (double)n)) / (1 + zz);
    *lo = fmax(0, centre - half);
    *hi = fmin(1, centre + half);
}

static qn_status summarize(const job *j, const int64_t *reference, int64_t *predictions,
                           qn_evaluation *out, qn_error *error)
{
    const size_t n = qn_dataset_count(j->dataset);
    qn_evaluation e = {.agreement = 1};
    double *times = qn__reallocarray(j->runner.ctx, NULL, n, sizeof(*times));
    if (times == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++) {
        const outcome *o = &j->outcomes[i];
        times[i] = o->ms;
        e.n += qn_dataset_label(j->dataset, i) >= 0;
        e.top1 += o->top1;
        e.top5 += o->top5;
        if (reference != NULL)
            e.changed += o->top != reference[i];
        if (predictions != NULL)
            predictions[i] = o->top;
    }
    e.agreement = 1 - (double)e.changed / (double)n;
    e.ms = median(times, n);
    wilson(e.top1, e.n, &e.ci95_lo, &e.ci95_hi);
    qn__free(j->runner.ctx, times);
    *out = e;
    return QN_OK;
}

qn_status qn_evaluate(const qn_model *model, const qn_dataset *dataset,
                      const qn_session_options *session, const int64_t *reference,
                      int64_t *predictions, qn_evaluation *out, qn_error *error)
{
    qn_status status = QN_OK;
    job j = {.dataset = dataset};
    QN_FAIL_IF(model == NULL || dataset == NULL || out == NULL, error, QN_INVALID_ARGUMENT,
               "qn_evaluate: NULL argument");
    if (session != NULL)
        QN_TRY(qn__check_struct(session->struct_size, sizeof(*session), "qn_session_options_init",
                                error));
    const size_t n = qn_dataset_count(dataset);
    QN_FAIL_IF(n == 0, error, QN_INVALID_ARGUMENT, "no samples to evaluate");
    QN_FAIL_IF(qn_model_n_outputs(model) == 0, error, QN_UNSUPPORTED, "the model has no output");
    QN_TRY(qn__runner_create(model, dataset, session == NULL || session->simplify, false,
                             session != NULL && session->saturate16,
                             session != NULL ? session->requantize : QN_REQUANTIZE_DEFAULT,
                             &j.runner, error));
    j.outcomes = qn__calloc(model->ctx, n, sizeof(*j.outcomes));
    j.scores = qn__calloc(model->ctx, j.runner.n_workers, sizeof(*j.scores));
    if (j.outcomes == NULL || j.scores == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    j.tally = (qn_tally){.phase = "evaluate", .total = n};
    qn__parallel_worker(model->ctx->pool, run_sample, &j, n);
    if (j.failure.any)
        QN_FAIL_GOTO(error, j.failure.status, "%s", j.failure.error.message);
    status = summarize(&j, reference, predictions, out, error);
done:
    for (uint32_t i = 0; j.scores != NULL && i < j.runner.n_workers; i++)
        qn__free(model->ctx, j.scores[i]);
    qn__free(model->ctx, j.scores);
    qn__free(model->ctx, j.outcomes);
    qn__runner_free(&j.runner);
    return status;
}
