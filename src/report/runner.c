#include "report/runner.h"

#include <sched.h>
#include <stdatomic.h>

qn_status qn__runner_create(const qn_model *model, const qn_dataset *dataset, bool simplify,
                            bool keep_all, bool saturate16, qn_runner *out, qn_error *error)
{
    const qn_context *ctx = model->ctx;
    qn_status status = QN_OK;
    int64_t(*dims)[QN_MAX_RANK] = NULL;
    *out = (qn_runner){.ctx = ctx};
    QN_TRY_GOTO(simplify ? qn__model_runnable(model->graph, &out->graph, error)
                         : qn__graph_clone(model->graph, &out->graph, error));
    QN_TRY_GOTO(qn__dataset_input_dims(out->graph, dataset, &dims, error));
    qn_plan_options options;
    qn__plan_options_init(&options, ctx);
    options.input_dims = (const int64_t(*)[QN_MAX_RANK])dims;
    options.keep_all = keep_all;
    options.saturate16 = saturate16;
    QN_TRY_GOTO(qn__plan_create(out->graph, &options, &out->plan, error));
    const uint32_t n = qn__pool_size(ctx->pool);
    out->execs = qn__calloc(ctx, n, sizeof(*out->execs));
    out->feeds = qn__calloc(ctx, n, sizeof(*out->feeds));
    if (out->execs == NULL || out->feeds == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < n; i++) {
        out->n_workers = i + 1;
        QN_TRY_GOTO(qn__feed_create(out->graph, (const int64_t(*)[QN_MAX_RANK])dims, &out->feeds[i],
                                    error));
        QN_TRY_GOTO(qn__exec_create(out->plan, NULL, &out->execs[i], error));
    }
done:
    qn__free(ctx, dims);
    if (status != QN_OK)
        qn__runner_free(out);
    return status;
}

void qn__runner_free(qn_runner *runner)
{
    if (runner->ctx == NULL)
        return;
    for (uint32_t i = 0; i < runner->n_workers; i++) {
        qn__exec_destroy(runner->execs[i]);
        qn__feed_free(&runner->feeds[i]);
    }
    qn__free(runner->ctx, runner->execs);
    qn__free(runner->ctx, runner->feeds);
    qn__plan_destroy(runner->plan);
    qn__graph_destroy(runner->graph);
    *runner = (qn_runner){0};
}

qn_status qn__tally_sample(const qn_context *ctx, qn_tally *tally, qn_error *error)
{
    if (ctx->progress == NULL)
        return QN_OK;
    while (atomic_exchange(&tally->lock, true))
        sched_yield();
    const uint64_t done = ++tally->done;
    const bool go_on = ctx->progress(ctx->progress_ctx, tally->phase, done, tally->total);
    tally->lock = false;
    QN_FAIL_IF(!go_on, error, QN_CANCELLED, "%s: cancelled after %llu of %llu samples",
               tally->phase, (unsigned long long)done, (unsigned long long)tally->total);
    return QN_OK;
}

void qn__failure_note(qn_failure *failure, uint64_t index, qn_status status, const qn_error *error)
{
    while (atomic_exchange(&failure->lock, true))
        sched_yield();
    if (!failure->any || index < failure->index) {
        failure->index = index;
        failure->status = status;
        failure->error = *error;
        failure->any = true;
    }
    failure->lock = false;
}
