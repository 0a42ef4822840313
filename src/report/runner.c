#include "report/runner.h"

#include <sched.h>
#include <stdatomic.h>

qn_status qn__runner_create(const qn_model *model, const qn_dataset *dataset, bool simplify,
                            bool keep_all, bool saturate16, qn_requantize requantize,
                            qn_runner *out, qn_error *error)
{
    const qn_context *ctx = model->ctx;
    qn_status status = QN_OK;
    *out = (qn_runner){.ctx = ctx};
    QN_TRY_GOTO(simplify
                    ? qn__model_runnable(model->graph, requantize, !keep_all, &out->graph, error)
                    : qn__graph_clone(model->graph, &out->graph, error));
    qn_plan_options options;
    qn__plan_options_init(&options, ctx);
    options.keep_all = keep_all;
    options.saturate16 = saturate16;
    options.requantize = requantize;
    const uint32_t n = qn__pool_size(ctx->pool);
    QN_TRY_GOTO(qn__plans_create(out->graph, dataset, &options, n, &out->plans, error));
    out->lanes = qn__calloc(ctx, n, sizeof(*out->lanes));
    if (out->lanes == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < n; i++) {
        out->n_workers = i + 1;
        QN_TRY_GOTO(qn__lane_init(&out->lanes[i], out->plans, NULL, NULL, NULL, error));
    }
done:
    if (status != QN_OK)
        qn__runner_free(out);
    return status;
}

void qn__runner_free(qn_runner *runner)
{
    if (runner->ctx == NULL)
        return;
    for (uint32_t i = 0; i < runner->n_workers; i++)
        qn__lane_free(&runner->lanes[i]);
    qn__free(runner->ctx, runner->lanes);
    qn__plans_destroy(runner->plans);
    qn__graph_destroy(runner->graph);
    *runner = (qn_runner){0};
}

qn_status qn__tally_sample(const qn_context *ctx, qn_tally *tally, qn_error *error)
{
    const qn_progress_fn progress = tally->progress != NULL ? tally->progress : ctx->progress;
    void *progress_ctx = tally->progress != NULL ? tally->progress_ctx : ctx->progress_ctx;
    if (progress == NULL)
        return QN_OK;
    while (atomic_exchange(&tally->lock, true))
        sched_yield();
    const uint64_t done = ++tally->done;
    /* Samples that other threads had begun end in silence. */
    const bool go_on = tally->stopped || progress(progress_ctx, tally->phase, done, tally->total);
    tally->stopped = tally->stopped || !go_on;
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
