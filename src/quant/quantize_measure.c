/* What a run finds out from samples: how channels differ, what is trained, ranges and means. */
#include "quant/quantize.h"

#include "calib/drift.h"

#include <string.h>

#define EQUALIZE_SAMPLES 32

/* --- equalization ------------------------------------------------------------------------------*/
qn_status qn__run_equalize(qn_run *r, qn_error *error)
{
    uint32_t *ids = NULL;
    qn_ranges ranges = {0};
    bool recorded = false;
    qn_status status = QN_OK;
    const size_t n = r->graph->n_nodes;
    r->equalization.exponents = qn__calloc(r->ctx, n, sizeof(*r->equalization.exponents));
    r->equalization.n_exponents = qn__calloc(r->ctx, n, sizeof(*r->equalization.n_exponents));
    if (r->equalization.exponents == NULL || r->equalization.n_exponents == NULL)
        return QN_NOMEM(error);
    if (!r->settings.equalize)
        return QN_OK;
    if (r->recipe.ctx != NULL)
        QN_TRY(qn__recipe_equalization(&r->recipe, r->graph, &r->equalization, &recorded, error));
    if (recorded) {
        status = qn__equalize(r->graph, NULL, &r->equalization, error);
        return status == QN_INVALID_ARGUMENT ? qn__error_prefix(error, status, "%s", r->recipe.path)
                                             : status;
    }
    qn_calib_options o = {.batch = 1, .limit = EQUALIZE_SAMPLES};
    o.want_peaks = true;
    QN_TRY(qn__equalize_candidates(r->graph, &ids, &o.n_means, error));
    o.mean_ids = ids;
    o.stats = r->stats;
    o.stage = QN_STATS_EQUALIZE;
    if (o.n_means > 0 && r->dataset != NULL) {
        if (r->collect != NULL)
            QN_TRY_GOTO(qn__calibrate_collect(r->graph, r->dataset, &o, error));
        QN_TRY_GOTO(qn__calibrate(r->graph, r->dataset, &o, &ranges, error));
        status = qn__equalize(r->graph, ranges.peaks, &r->equalization, error);
    }
done:
    qn__ranges_free(&ranges);
    qn__free(r->ctx, ids);
    return status;
}

/* --- methods of the whole run ------------------------------------------------------------------*/
/* Plan of what would be measured, to know the tensors to train. */
static qn_status train_unfolded(qn_run *r, qn_error *error)
{
    qn_quant_plan plan = {0};
    qn_status status = QN_OK;
    QN_TRY(qn__quant_plan_create(r->graph, &r->settings, &plan, error));
    if (r->recipe.ctx != NULL)
        QN_TRY_GOTO(qn__recipe_ranges(&r->recipe, &plan, error));
    QN_TRY_GOTO(qn__quant_train(&plan, r->unfolded, r->dataset, r->options, &r->trained, error));
    if (r->trained.ctx == NULL && r->recipe.ctx != NULL)
        status = qn__recipe_norms(&r->recipe, r->unfolded, &r->trained, error);
done:
    qn__quant_plan_free(&plan);
    return status;
}

qn_status qn__run_simplify(qn_run *r, qn_error *error)
{
    QN_TRY(qn__model_simplified(r->model->graph, &r->graph, error));
    if (r->settings.features->train == NULL)
        return QN_OK;
    QN_TRY(qn__model_unfolded(r->model->graph, &r->unfolded, error));
    if (!qn__has_batch_norm(r->unfolded)) {
        qn__graph_destroy(r->unfolded);
        r->unfolded = NULL;
        return QN_OK;
    }
    QN_FAIL_IF(r->options->equalize != NULL && r->settings.equalize, error, QN_INVALID_ARGUMENT,
               "features \"%s\" measures before BatchNormalization is folded, when channels "
               "cannot be equalized yet: equalize must be off",
               r->settings.features->name);
    r->settings.equalize = false;
    QN_TRY(train_unfolded(r, error));
    QN_TRY(qn__train_set_norms(r->unfolded, r->trained.norms, r->trained.n_norms, error));
    qn__graph_destroy(r->graph);
    r->graph = NULL;
    return qn__model_simplified(r->unfolded, &r->graph, error);
}

/* Ranges of the tensors whose method trains; the other items stay in the list. */
static qn_status take_trained(qn_run *r, qn_calib_item *items, size_t *n_items, qn_error *error)
{
    size_t kept = 0;
    if (r->settings.features->train == NULL)
        return QN_OK;
    if (r->unfolded == NULL)
        QN_TRY(qn__quant_train(&r->plan, r->graph, r->dataset, r->options, &r->trained, error));
    for (size_t i = 0; i < *n_items; i++)
        if (items[i].method->train == NULL)
            items[kept++] = items[i];
    *n_items = kept;
    const uint64_t batch = (uint64_t)r->settings.batch;
    if (r->trained.steps > 0 && r->trained.batch < batch &&
        !qn__quant_plan_note(&r->plan, "%llu samples are less than a batch of %llu: one batch",
                             (unsigned long long)r->trained.batch, (unsigned long long)batch))
        return QN_NOMEM(error);
    r->plan.norms = r->trained.norms;
    r->plan.n_norms = r->trained.n_norms;
    return QN_OK;
}

/* --- steps -------------------------------------------------------------------------------------*/
/* Inputs of nodes whose bias will be corrected. Caller frees *ids. */
static qn_status list_means(const qn_run *r, uint32_t **ids, size_t *count, qn_error *error)
{
    *count = 0;
    *ids = qn__calloc(r->ctx, r->graph->n_nodes, sizeof(**ids));
    if (*ids == NULL)
        return QN_NOMEM(error);
    for (size_t n = 0; r->settings.bias_correction && n < r->graph->n_nodes; n++) {
        if (!r->plan.nodes[n].quantized || r->plan.nodes[n].rule != QN_RULE_WEIGHTS ||
            r->graph->nodes[n]->op == QN_OP_MATMUL || r->shifts[n] != NULL)
            continue;
        const uint32_t id = r->graph->nodes[n]->inputs[0]->id;
        bool known = false;
        for (size_t i = 0; i < *count; i++)
            known |= (*ids)[i] == id;
        if (!known)
            (*ids)[(*count)++] = id;
    }
    return QN_OK;
}

/* A layer whose weight method looks at its inputs. */
static bool wants_rows(const qn_node_plan *p)
{
    return p->quantized && p->rule == QN_RULE_WEIGHTS && p->weights.method->round != NULL &&
           p->integers == NULL;
}

static qn_status list_rows(qn_run *r, qn_error *error)
{
    size_t n_layers = 0;
    r->rows = qn__calloc(r->ctx, r->graph->n_nodes, sizeof(*r->rows));
    if (r->rows == NULL)
        return QN_NOMEM(error);
    for (size_t n = 0; n < r->graph->n_nodes; n++)
        n_layers += wants_rows(&r->plan.nodes[n]);
    for (size_t n = 0; n < r->graph->n_nodes; n++) {
        qn_node_plan *p = &r->plan.nodes[n];
        if (!wants_rows(p))
            continue;
        QN_TRY(qn__rows_create(r->graph, (uint32_t)n, QN_ROWS_BYTES / n_layers, &r->rows[r->n_rows],
                               error));
        p->rows = &r->rows[r->n_rows++];
    }
    return QN_OK;
}

static void take_ranges(qn_run *r)
{
    const qn_graph *from = r->unfolded != NULL ? r->unfolded : r->graph;
    qn__train_take(&r->trained, from, r->graph, &r->ranges);
}

/* Nothing is left to calibrate: ranges are known or were trained. */
static qn_status own_ranges(qn_run *r, qn_error *error)
{
    if (r->trained.ctx == NULL)
        return qn__quant_plan_ranges(&r->plan, NULL, error);
    r->ranges = (qn_ranges){.ctx = r->ctx, .count = r->graph->n_tensors};
    r->ranges.items = qn__calloc(r->ctx, r->graph->n_tensors, sizeof(*r->ranges.items));
    if (r->ranges.items == NULL)
        return QN_NOMEM(error);
    take_ranges(r);
    return qn__quant_plan_ranges(&r->plan, &r->ranges, error);
}

qn_status qn__run_sample_rows(qn_run *r, qn_error *error)
{
    if (r->dataset == NULL)
        return QN_OK;
    QN_TRY(list_rows(r, error));
    const qn_calib_options o = {.batch = 1,
                                .progress = r->options->progress,
                                .progress_ctx = r->options->progress_ctx,
                                .rows = r->rows,
                                .n_rows = r->n_rows,
                                .stats = r->stats,
                                .stage = QN_STATS_MAIN};
    if (r->collect != NULL)
        return qn__calibrate_collect(r->graph, r->dataset, &o, error);
    return r->n_rows > 0 ? qn__calibrate(r->graph, r->dataset, &o, &r->ranges, error) : QN_OK;
}

qn_status qn__run_calibrate(qn_run *r, bool biases_known, qn_error *error)
{
    qn_calib_item *items = NULL;
    uint32_t *mean_ids = NULL;
    qn_graph *fake = NULL;
    qn_status status = QN_OK;
    qn_calib_options o = {.batch = r->settings.batch,
                          .progress = r->options->progress,
                          .progress_ctx = r->options->progress_ctx,
                          .stats = r->stats,
                          .stage = QN_STATS_MAIN};
    QN_TRY_GOTO(qn__quant_plan_items(&r->plan, &items, &o.n_items, error));
    QN_TRY_GOTO(list_means(r, &mean_ids, &o.n_means, error));
    if (biases_known)
        o.n_means = 0;
    QN_TRY_GOTO(list_rows(r, error));
    o.items = items;
    o.mean_ids = mean_ids;
    o.rows = r->rows;
    o.n_rows = r->n_rows;
    QN_TRY_GOTO(take_trained(r, items, &o.n_items, error));
    if (o.n_items == 0 && r->collect == NULL &&
        ((o.n_means == 0 && o.n_rows == 0) || r->dataset == NULL)) {
        status = own_ranges(r, error);
        goto done;
    }
    if (r->dataset == NULL)
        QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT,
                     "no calibration data, and no recipe or table with a range for tensor \"%s\"",
                     r->graph->tensors[items[0].tensor_id]->name);
    if (r->settings.quantized_weights)
        QN_TRY_GOTO(qn__quant_fake_weights(&r->plan, &fake, error));
    if (o.n_means > 0)
        QN_TRY_GOTO(qn__drift_samples(r->graph, r->dataset, &o.n_few, error));
    if (r->collect != NULL) {
        status = qn__calibrate_collect(fake != NULL ? fake : r->graph, r->dataset, &o, error);
        goto done;
    }
    QN_TRY_GOTO(qn__calibrate(fake != NULL ? fake : r->graph, r->dataset, &o, &r->ranges, error));
    take_ranges(r);
    QN_TRY_GOTO(qn__quant_plan_ranges(&r->plan, &r->ranges, error));
    if (o.n_means > 0)
        status = qn__quant_drift(&r->plan, fake != NULL ? fake : r->graph, r->dataset,
                                 r->ranges.few_means, o.n_few, r->shifts, &r->drifts, error);
done:
    qn__graph_destroy(fake);
    qn__free(r->ctx, items);
    qn__free(r->ctx, mean_ids);
    return status;
}
