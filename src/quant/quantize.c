/* The public qn_quantize: simplify, plan, calibrate, rewrite, report. */
#include "calib/drift.h"
#include "calib/stats.h"
#include "format/format.h"
#include "quant/model.h"
#include "quant/quant.h"

#include <string.h>
#include <time.h>

/* Chosen on calibration pictures; docs/results.md has the comparison. */
#define DEFAULT_TARGET "onnxruntime"
#define DEFAULT_GRANULARITY "channel"
#define DEFAULT_X86 "any"
#define DEFAULT_FEATURES "lp"
#define DEFAULT_WEIGHTS "gptq"
#define DEFAULT_CALIBRATE_WITH "float"
#define DEFAULT_BIAS_CORRECTION "on"
#define DEFAULT_EQUALIZE "on"
#define DEFAULT_WEIGHT_LEVELS "uniform"
#define EQUALIZE_SAMPLES 32

#define QN_STRING_(x) #x
#define QN_STRING(x) QN_STRING_(x)

void qn_quantize_options_init(qn_quantize_options *options)
{
    *options = (qn_quantize_options){.struct_size = sizeof(*options), .batch = 1};
}

const char *qn_quantize_default(const char *which)
{
    static const struct {
        const char *key, *value;
    } rows[] = {
        {"target", DEFAULT_TARGET},
        {"features", DEFAULT_FEATURES},
        {"weights", DEFAULT_WEIGHTS},
        {"granularity", DEFAULT_GRANULARITY},
        {"calibrate_with", DEFAULT_CALIBRATE_WITH},
        {"bias_correction", DEFAULT_BIAS_CORRECTION},
        {"equalize", DEFAULT_EQUALIZE},
        {"x86", DEFAULT_X86},
        {"weight_levels", DEFAULT_WEIGHT_LEVELS},
        {"scheme", QN_DEFAULT_SCHEME},
        {"weight_block", QN_STRING(QN_DEFAULT_BLOCK)},
    };
    for (size_t i = 0; which != NULL && i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].key, which) == 0)
            return rows[i].value;
    return NULL;
}

const char *qn_feature_method_name(size_t index)
{
    const qn_feature_method *m = qn__feature_method_at(index);
    return m == NULL ? NULL : m->name;
}

const char *qn_feature_method_summary(size_t index)
{
    const qn_feature_method *m = qn__feature_method_at(index);
    return m == NULL ? NULL : m->summary;
}

/* Everything one call holds on to. */
typedef struct run {
    const qn_context *ctx;
    const qn_model *model;
    const qn_dataset *dataset;
    const qn_quantize_options *options;
    qn_recipe recipe;       /* ctx NULL: none */
    qn_override *overrides; /* the recipe's, then the caller's */
    qn_settings settings;
    qn_graph *graph;         /* simplified float graph */
    qn_graph *unfolded;      /* what was trained before BatchNormalization was folded, or NULL */
    qn_train_result trained; /* by its tensors' ids, else by those of graph */
    qn_quant_plan plan;
    qn_ranges ranges;
    float **shifts;               /* [n_nodes] bias corrections */
    float **drifts;               /* by tensor id, or NULL */
    qn_equalization equalization; /* arrays [n_nodes] */
    qn_rows *rows;                /* [n_rows] sampled inputs */
    size_t n_rows;
    qn_graph *quantized;
    qn_stats *stats;                         /* read, or being collected; NULL: neither */
    const qn_stats_collect_options *collect; /* NULL: ranges are wanted, not statistics */
    double since;                            /* when the last phase ended, for the log */
} run;

static double seconds_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A line of the log for what has just been done. */
static void end_phase(run *r, const char *name)
{
    const double now = seconds_now();
    qn__log(r->ctx, QN_LOG_INFO, "%-10s %.3f s", name, now - r->since);
    r->since = now;
}

/* --- settings ----------------------------------------------------------------------------------*/
/* The caller's word, else the recipe's, else the default. */
static const char *choose(const run *r, const char *given, const char *key, const char *fallback)
{
    const char *recorded = r->recipe.ctx == NULL ? NULL : qn__recipe_setting(&r->recipe, key);
    return given != NULL ? given : recorded != NULL ? recorded : fallback;
}

/* Which of two words (three: c not NULL) is it? */
static qn_status one_of(const char *value, const char *key, const char *a, const char *b,
                        const char *c, int *out, qn_error *error)
{
    *out = strcmp(value, a) == 0 ? 0 : strcmp(value, b) == 0 ? 1 : 2;
    QN_FAIL_IF(*out == 2 && (c == NULL || strcmp(value, c) != 0), error, QN_INVALID_ARGUMENT,
               "%s \"%s\": expected %s%s%s%s%s", key, value, a, c != NULL ? ", " : " or ", b,
               c != NULL ? " or " : "", c != NULL ? c : "");
    return QN_OK;
}

/* The runtime that reads the format the model came in. */
static const char *default_target(const qn_model *model)
{
    const qn_source *source = model->graph->source;
    return source != NULL && strcmp(source->format, "mnn") == 0 ? "mnn" : DEFAULT_TARGET;
}

static qn_status choose_methods(run *r, qn_error *error)
{
    qn_settings *s = &r->settings;
    const char *name = choose(r, r->options->target, "target", default_target(r->model));
    s->target = qn__target_find(name);
    QN_FAIL_IF(s->target == NULL, error, QN_INVALID_ARGUMENT, "no target \"%s\"", name);
    name = choose(r, r->options->features, "features", DEFAULT_FEATURES);
    s->features = qn__feature_method_find(name);
    QN_FAIL_IF(s->features == NULL, error, QN_INVALID_ARGUMENT, "no feature method \"%s\"", name);
    name = choose(r, r->options->weights, "weights", DEFAULT_WEIGHTS);
    s->weights = qn__weight_method_find(name);
    QN_FAIL_IF(s->weights == NULL, error, QN_INVALID_ARGUMENT, "no weight method \"%s\"", name);
    return QN_OK;
}

static qn_status choose_words(run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    qn_settings *s = &r->settings;
    int word;
    QN_TRY(one_of(choose(r, o->granularity, "granularity", DEFAULT_GRANULARITY), "granularity",
                  "channel", "tensor", NULL, &word, error));
    s->per_channel = word == 0;
    QN_TRY(one_of(choose(r, o->calibrate_with, "calibrate_with", DEFAULT_CALIBRATE_WITH),
                  "calibrate-with", "float", "quantized-weights", NULL, &word, error));
    s->quantized_weights = word == 1;
    QN_TRY(one_of(choose(r, o->bias_correction, "bias_correction", DEFAULT_BIAS_CORRECTION),
                  "bias-correction", "on", "off", NULL, &word, error));
    s->bias_correction = word == 0;
    QN_TRY(one_of(choose(r, o->equalize, "equalize", DEFAULT_EQUALIZE), "equalize", "on", "off",
                  NULL, &word, error));
    s->equalize = word == 0;
    static const char *const x86[] = {"any", "avx2", "vnni"};
    QN_TRY(
        one_of(choose(r, o->x86, "x86", DEFAULT_X86), "x86", x86[0], x86[1], x86[2], &word, error));
    s->x86 = x86[word];
    s->x86_pairs = s->target->x86_pairs && word != 2;
    const char *activations = choose(r, o->activations, "activations", NULL);
    s->activation = s->target->activation;
    s->symmetric = s->target->symmetric;
    if (activations != NULL) {
        QN_TRY(one_of(activations, "activations", "u8", "s8", "s8sym", &word, error));
        s->activation = word == 0 ? QN_DTYPE_U8 : QN_DTYPE_I8;
        s->symmetric = word == 2;
    }
    return QN_OK;
}

/* The caller's number, else the recipe's, else 0. */
static qn_status choose_number(const run *r, uint32_t given, const char *key, uint32_t lowest,
                               uint32_t highest, uint32_t *out, qn_error *error)
{
    *out = given != 0 || r->recipe.ctx == NULL ? given : qn__recipe_number(&r->recipe, key);
    QN_FAIL_IF(*out != 0 && (*out < lowest || *out > highest), error, QN_INVALID_ARGUMENT,
               "%s %u: expected %u to %u", key, *out, lowest, highest);
    return QN_OK;
}

static qn_status choose_levels(run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    qn_settings *s = &r->settings;
    qn_levels levels;
    const char *name = choose(r, o->weight_levels, "weight_levels", DEFAULT_WEIGHT_LEVELS);
    QN_FAIL_IF(!qn__level_set_find(name, &s->level_set), error, QN_INVALID_ARGUMENT,
               "weight-levels \"%s\": expected uniform, ternary or pow2", name);
    if (s->scheme != QN_SCHEME_WEIGHTS)
        QN_TRY(choose_number(r, o->weight_bits, "weight_bits", 2, 8, &s->weight_bits, error));
    QN_TRY(choose_number(r, o->weight_clamp, "weight_clamp", 1, 127, &s->weight_clamp, error));
    QN_TRY(choose_number(r, o->feature_clamp, "feature_clamp", 1, 127, &s->feature_clamp, error));
    const char *problem = qn__levels_make(s->level_set, s->weight_bits, s->weight_clamp, &levels);
    QN_FAIL_IF(problem != NULL, error, QN_INVALID_ARGUMENT, "%s, not %u", problem, s->weight_bits);
    QN_FAIL_IF(s->feature_clamp != 0 && !s->symmetric, error, QN_INVALID_ARGUMENT,
               "feature-clamp %u: only s8sym activations have a largest integer", s->feature_clamp);
    return QN_OK;
}

static qn_status choose_scheme(run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    uint32_t block = 0;
    QN_TRY(choose_number(r, o->weight_block, "weight_block", 16, 256, &block, error));
    return qn__scheme_choose(choose(r, o->scheme, "scheme", QN_DEFAULT_SCHEME), block,
                             r->dataset != NULL || r->recipe.ctx != NULL, o, &r->settings, error);
}

static qn_status choose_settings(run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    const size_t n_recorded = r->recipe.ctx == NULL ? 0 : qn__recipe_n_overrides(&r->recipe);
    QN_TRY(choose_methods(r, error));
    QN_TRY(choose_words(r, error));
    QN_TRY(choose_scheme(r, error));
    QN_TRY(choose_levels(r, error));
    r->settings.batch =
        r->recipe.ctx == NULL || o->batch > 1 ? o->batch : qn__recipe_batch(&r->recipe, o->batch);
    QN_FAIL_IF(r->settings.batch < 1, error, QN_INVALID_ARGUMENT, "batch %lld is not positive",
               (long long)r->settings.batch);
    QN_FAIL_IF(o->n_overrides > 0 && o->overrides == NULL, error, QN_INVALID_ARGUMENT,
               "overrides are missing");
    r->overrides = qn__calloc(r->ctx, n_recorded + o->n_overrides, sizeof(*r->overrides));
    if (r->overrides == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n_recorded; i++)
        qn__recipe_override(&r->recipe, i, &r->overrides[i]);
    for (size_t i = 0; i < o->n_overrides; i++) {
        const qn_override *const v = &o->overrides[i];
        QN_FAIL_IF(v->pattern == NULL || v->key == NULL || v->value == NULL, error,
                   QN_INVALID_ARGUMENT, "override %zu: pattern, key or value is missing", i);
        r->overrides[n_recorded + i] = *v;
    }
    r->settings.overrides = r->overrides;
    r->settings.n_overrides = n_recorded + o->n_overrides;
    r->settings.recipe_path = r->recipe.path;
    r->settings.n_recorded = n_recorded;
    return QN_OK;
}

/* --- equalization ------------------------------------------------------------------------------*/
static qn_status equalize(run *r, qn_error *error)
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
static qn_status train_unfolded(run *r, qn_error *error)
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

/* A method that trains does so before BatchNormalization is folded, with its statistics. */
static qn_status simplify(run *r, qn_error *error)
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
static qn_status take_trained(run *r, qn_calib_item *items, size_t *n_items, qn_error *error)
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
static qn_status list_means(const run *r, uint32_t **ids, size_t *count, qn_error *error)
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

static qn_status list_rows(run *r, qn_error *error)
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

static void take_ranges(run *r)
{
    const qn_graph *from = r->unfolded != NULL ? r->unfolded : r->graph;
    qn__train_take(&r->trained, from, r->graph, &r->ranges);
}

/* Nothing is left to calibrate: ranges are known or were trained. */
static qn_status own_ranges(run *r, qn_error *error)
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

/* All that a scheme without calibrated ranges wants of samples: inputs of layers. */
static qn_status sample_rows(run *r, qn_error *error)
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

static qn_status calibrate(run *r, bool biases_known, qn_error *error)
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

static qn_status check_strict(const run *r, qn_error *error)
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

static qn_status make_report(run *r, qn_report **out, qn_error *error)
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
static qn_status open_stats(run *r, qn_dataset **stored, qn_error *error)
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
static qn_status check_ranges_file(run *r, qn_error *error)
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
static qn_status measure(run *r, qn_dataset **stored, qn_error *error)
{
    bool biases_known = false;
    if (r->options->recipe_file != NULL)
        QN_TRY(qn__recipe_load(r->ctx, r->options->recipe_file, &r->recipe, error));
    QN_TRY(choose_settings(r, error));
    QN_TRY(check_ranges_file(r, error));
    r->since = seconds_now();
    QN_TRY(simplify(r, error));
    end_phase(r, "simplify");
    QN_TRY(open_stats(r, stored, error));
    QN_TRY(equalize(r, error));
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
        QN_TRY(calibrate(r, biases_known, error));
    else
        QN_TRY(sample_rows(r, error));
    end_phase(r, "calibrate");
    return QN_OK;
}

static qn_status quantize(run *r, qn_dataset **stored, qn_error *error)
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

static void run_free(run *r)
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
    qn_dataset *stored = NULL;
    run r = {.ctx = model->ctx, .model = model, .dataset = dataset, .options = options};
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
    const qn_stats_collect_options collect = {path, how->part, how->n_parts, how->resume};
    run r = {.ctx = model->ctx,
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
