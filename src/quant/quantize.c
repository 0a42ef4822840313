/* The public qn_quantize: simplify, plan, calibrate, rewrite, report. */
#include "quant/quantize.h"

#include "calib/drift.h"
#include "format/format.h"

#include <string.h>
#include <time.h>

static double seconds_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A line of the log for what has just been done. */
static void end_phase(qn_run *r, const char *name)
{
    const double now = seconds_now();
    qn__log(r->ctx, QN_LOG_INFO, "%-10s %.3f s", name, now - r->since);
    r->since = now;
}

static qn_status check_strict(const qn_run *r, qn_error *error)
{
    for (size_t n = 0; r->options->strict && n < r->graph->n_nodes; n++) {
        const qn_node *node = r->graph->nodes[n];
        const bool counts = node->op == QN_OP_CONV || node->op == QN_OP_GEMM ||
                            node->op == QN_OP_MATMUL || node->op == QN_OP_CONV_TRANSPOSE;
        QN_FAIL_IF(counts && !r->plan.nodes[n].quantized, error, QN_UNSUPPORTED,
                   "%s \"%s\" stays in float: %s", qn__op_name(node->op), node->name,
                   r->plan.nodes[n].reason);
    }
    return QN_OK;
}

static qn_status make_report(qn_run *r, qn_report **out, qn_error *error)
{
    char *text = NULL;
    qn_graph *bound = NULL;
    uint64_t *macs = NULL;
    int64_t(*dims)[QN_MAX_RANK] = NULL;
    qn_status status = QN_OK;
    if (r->dataset != NULL)
        QN_TRY_GOTO(qn__dataset_input_dims(r->graph, r->dataset, &dims, error));
    QN_TRY_GOTO(qn__graph_bound(r->graph, (const int64_t(*)[QN_MAX_RANK])dims, 1, &bound, error));
    macs = qn__calloc(r->ctx, r->graph->n_nodes, sizeof(*macs));
    if (macs == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (size_t n = 0; n < r->graph->n_nodes; n++)
        macs[n] = qn__node_macs(bound->nodes[n]);
    size_t n_done = 0;
    for (size_t n = 0; n < r->graph->n_nodes; n++)
        n_done += r->plan.nodes[n].reason == qn__reason_integers &&
                  r->graph->nodes[n]->op != QN_OP_DEQUANTIZE_LINEAR;
    if (n_done > 0 &&
        !qn__quant_plan_note(&r->plan, "quantized already: %zu nodes in integers stay as they are",
                             n_done))
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    if (!qn__recipe_has_integers(&r->plan) &&
        !qn__quant_plan_note(&r->plan, "weights too large for a recipe: replaying it chooses their "
                                       "integers again, from samples"))
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(qn__recipe_write(&r->plan, r->dataset, r->recipe.ctx == NULL ? NULL : &r->recipe,
                                 r->shifts, &r->equalization, &text, error));
    QN_TRY_GOTO(qn__report_create(&r->plan, macs, text, out, error));
    text = NULL;
done:
    qn__free(r->ctx, text);
    qn__free(r->ctx, macs);
    qn__free(r->ctx, dims);
    qn__graph_destroy(bound);
    return status;
}

static qn_status check_can_be_kept(const qn_feature_method *m, qn_error *error)
{
    QN_FAIL_IF(m->state_kind == NULL, error, QN_UNSUPPORTED,
               "features \"%s\" cannot be kept in a statistics file: it looks at all samples "
               "together, more than once or one after another",
               m->name);
    return QN_OK;
}

/* Statistics that the options name, and their samples in place of a dataset. */
static qn_status open_stats(qn_run *r, qn_dataset **stored, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    if (r->collect != NULL) {
        QN_TRY(check_can_be_kept(r->settings.features, error));
        for (size_t i = 0; i < r->settings.n_overrides; i++) {
            const qn_override *v = &r->settings.overrides[i];
            const qn_feature_method *m =
                strcmp(v->key, "features") == 0 ? qn__feature_method_find(v->value) : NULL;
            if (m != NULL)
                QN_TRY(check_can_be_kept(m, error));
        }
        return qn__stats_collect(r->graph, r->dataset, r->collect, &r->stats, error);
    }
    if (o->stats_file == NULL)
        return QN_OK;
    QN_FAIL_IF(r->dataset != NULL, error, QN_INVALID_ARGUMENT,
               "statistics take the place of samples: give one of them");
    QN_TRY(qn__stats_open(r->ctx, o->stats_file, &r->stats, error));
    QN_TRY(qn__stats_check_model(r->stats, r->graph, o->stats_preprocess, error));
    QN_TRY(qn__stats_dataset(r->stats, stored, error));
    r->dataset = *stored;
    return QN_OK;
}

/* A table's ranges are those of the tensors as they are, before channels are scaled. */
static qn_status check_ranges_file(qn_run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    if (o->ranges_file == NULL)
        return QN_OK;
    QN_FAIL_IF(o->recipe_file != NULL, error, QN_INVALID_ARGUMENT,
               "a table of ranges and a recipe exclude each other");
    QN_FAIL_IF(o->equalize != NULL && r->settings.equalize, error, QN_INVALID_ARGUMENT,
               "ranges of a table are those of channels as they are: equalize must be off");
    QN_FAIL_IF(r->settings.features->train != NULL, error, QN_INVALID_ARGUMENT,
               "features \"%s\" measures all tensors: it takes no table of ranges",
               r->settings.features->name);
    r->settings.equalize = false;
    return QN_OK;
}

/* Up to what calibration finds. */
static qn_status measure(qn_run *r, qn_dataset **stored, qn_error *error)
{
    bool biases_known = false;
    if (r->options->recipe_file != NULL)
        QN_TRY(qn__recipe_load(r->ctx, r->options->recipe_file, &r->recipe, error));
    QN_TRY(qn__run_choose(r, error));
    QN_TRY(check_ranges_file(r, error));
    r->since = seconds_now();
    QN_TRY(qn__run_simplify(r, error));
    end_phase(r, "simplify");
    QN_TRY(open_stats(r, stored, error));
    QN_TRY(qn__run_equalize(r, error));
    end_phase(r, "equalize");
    QN_TRY(qn__quant_plan_create(r->graph, &r->settings, &r->plan, error));
    r->shifts = qn__calloc(r->ctx, r->graph->n_nodes, sizeof(*r->shifts));
    if (r->shifts == NULL)
        return QN_NOMEM(error);
    if (r->options->ranges_file != NULL)
        QN_TRY(qn__quant_range_table(&r->plan, r->options->ranges_file, error));
    if (r->recipe.ctx != NULL) {
        QN_TRY(qn__recipe_ranges(&r->recipe, &r->plan, error));
        QN_TRY(qn__recipe_integers(&r->recipe, &r->plan, error));
        if (r->settings.bias_correction)
            QN_TRY(qn__recipe_biases(&r->recipe, &r->plan, r->shifts, &biases_known, error));
    }
    QN_TRY(check_strict(r, error));
    if (r->settings.scheme == QN_SCHEME_STATIC)
        QN_TRY(qn__run_calibrate(r, biases_known, error));
    else
        QN_TRY(qn__run_sample_rows(r, error));
    end_phase(r, "calibrate");
    return QN_OK;
}

static qn_status quantize(qn_run *r, qn_dataset **stored, qn_error *error)
{
    QN_TRY(measure(r, stored, error));
    const qn_mean_shifts means = {r->ranges.means, r->drifts};
    QN_TRY(qn__quant_rewrite(&r->plan, &means, r->settings.bias_correction ? r->shifts : NULL,
                             &r->quantized, error));
    end_phase(r, "quantize");
    char changes[128];
    if (qn__format_changes(r->quantized, NULL, changes, sizeof(changes)) &&
        !qn__quant_plan_note(&r->plan, "%s", changes))
        return QN_NOMEM(error);
    const qn_source *const source = r->graph->source;
    if (source != NULL && source->n_aside == 1 &&
        !qn__quant_plan_note(&r->plan, "node %s left as it is", source->first_aside))
        return QN_NOMEM(error);
    if (source != NULL && source->n_aside > 1 &&
        !qn__quant_plan_note(&r->plan, "%zu nodes left as they are, %s the first", source->n_aside,
                             source->first_aside))
        return QN_NOMEM(error);
    return QN_OK;
}

static void run_free(qn_run *r)
{
    qn__graph_destroy(r->quantized);
    qn__free(r->ctx, r->shifts);
    qn__free(r->ctx, r->equalization.exponents);
    qn__free(r->ctx, r->equalization.n_exponents);
    for (size_t i = 0; i < r->n_rows; i++)
        qn__rows_free(r->ctx, &r->rows[i]);
    qn__free(r->ctx, r->rows);
    qn__ranges_free(&r->ranges);
    qn__drift_free(r->graph, r->drifts);
    qn__quant_plan_free(&r->plan);
    qn__graph_destroy(r->graph);
    qn__train_free(&r->trained);
    qn__graph_destroy(r->unfolded);
    qn__free(r->ctx, r->overrides);
    qn__recipe_free(&r->recipe);
    qn__stats_free(r->stats);
}

static qn_status check_options(const qn_quantize_options *options, qn_error *error)
{
    QN_TRY(qn__check_struct(options->struct_size, sizeof(*options), "qn_quantize_options_init",
                            error));
    const qn_preprocess *const p = options->stats_preprocess;
    return p == NULL ? QN_OK
                     : qn__check_struct(p->struct_size, sizeof(*p), "qn_preprocess_init", error);
}

qn_status qn_quantize(const qn_model *model, const qn_dataset *dataset,
                      const qn_quantize_options *options, qn_model **out, qn_report **report,
                      qn_error *error)
{
    qn_quantize_options defaults;
    qn_report *made = NULL;
    QN_FAIL_IF(model == NULL || out == NULL, error, QN_INVALID_ARGUMENT,
               "qn_quantize: NULL argument");
    if (options == NULL) {
        qn_quantize_options_init(&defaults);
        options = &defaults;
    }
    QN_TRY(check_options(options, error));
    qn_dataset *stored = NULL;
    qn_run r = {.ctx = model->ctx, .model = model, .dataset = dataset, .options = options};
    qn_status status = quantize(&r, &stored, error);
    if (status == QN_OK && report != NULL)
        status = make_report(&r, &made, error);
    if (status == QN_OK)
        status = qn__model_create(r.ctx, r.quantized, model->path, 0, out, error);
    if (status == QN_OK) {
        r.quantized = NULL;
        if (report != NULL)
            *report = made;
        made = NULL;
    }
    qn_report_destroy(made);
    qn_dataset_destroy(stored);
    run_free(&r);
    return status;
}

void qn_stats_options_init(qn_stats_options *options)
{
    *options = (qn_stats_options){.struct_size = sizeof(*options), .part = 1, .n_parts = 1};
}

qn_status qn_stats_collect(const qn_model *model, const qn_dataset *dataset,
                           const qn_quantize_options *options, const qn_stats_options *how,
                           const char *path, qn_error *error)
{
    qn_quantize_options defaults;
    qn_stats_options whole;
    qn_dataset *stored = NULL;
    QN_FAIL_IF(model == NULL || dataset == NULL || path == NULL, error, QN_INVALID_ARGUMENT,
               "qn_stats_collect: NULL argument");
    qn_quantize_options_init(&defaults);
    qn_stats_options_init(&whole);
    options = options == NULL ? &defaults : options;
    how = how == NULL ? &whole : how;
    QN_TRY(check_options(options, error));
    QN_TRY(qn__check_struct(how->struct_size, sizeof(*how), "qn_stats_options_init", error));
    const qn_stats_collect_options collect = {path, how->part, how->n_parts, how->resume};
    qn_run r = {.ctx = model->ctx,
                .model = model,
                .dataset = dataset,
                .options = options,
                .collect = &collect};
    qn_status status = measure(&r, &stored, error);
    if (status == QN_OK)
        status = qn__stats_finish(r.stats, error);
    else
        qn__stats_give_up(r.stats);
    run_free(&r);
    return status;
}
