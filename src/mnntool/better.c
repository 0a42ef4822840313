/* The default mode: the configuration's methods by quench's own machinery for MNN's runtime. */
#include <stdlib.h>
#include <string.h>

#include "mnntool/tool.h"
#include "quant/model.h"
#include "report/runner.h"

typedef struct progress {
    const qn_mnn_run *run;
    size_t shown;
    bool finished;
} progress;

/* The last pass, each sample (EMA: batch) once and in order, whatever thread finished it. What is
 * measured after that has no line. */
static bool show_progress(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    static const char *const labels[] = {"CollectFeatureDistribution", "ProcessCalibrationFiles",
                                         "quantize with EMA"};
    progress *p = ctx;
    const qn_mnn_config *config = p->run->config;
    const size_t n = qn_dataset_count(p->run->dataset);
    if (strcmp(phase, "calibrate") != 0 || p->finished || total == 0)
        return true;
    p->finished = done == total;
    if (config->feature == QN_MNN_EMA) {
        qn__mnn_progress(p->run, labels[2], (size_t)done, (size_t)total);
        return true;
    }
    for (; total >= n && p->shown + (total - n) < done;)
        qn__mnn_progress(p->run, labels[config->feature], ++p->shown, n);
    return true;
}

/* MNN's tool searches after the last sample, here it is over by then: a line for each scale found.
 */
static void show_scales(const qn_mnn_run *run, const qn_mnn_scales *scales)
{
    size_t found = 0, shown = 0;
    for (size_t i = 0; i < scales->n_tensors; i++)
        found += scales->tracked[i];
    while (shown < found)
        qn__mnn_progress(run, "ComputeADMM", ++shown, found);
}

static bool show_distance(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)phase;
    qn__mnn_progress(ctx, "computeDistance", (size_t)done, (size_t)total);
    return true;
}

static void find_op(const qn_mnn_source *source, const char *name, size_t *op)
{
    for (*op = 0; *op < source->n_ops; (*op)++) {
        const char *own = qn__fb_string(source->ops[*op], QN_MNN_Op_name);
        if (own != NULL && strcmp(own, name) == 0)
            return;
    }
}

/* Operators are named in the file; what quantization sees are the nodes that came from them. */
static bool is_skipped(const qn_mnn_run *run, const qn_node *node)
{
    for (size_t i = 0; i < run->config->n_skips; i++) {
        size_t op;
        find_op(run->source, run->config->skips[i], &op);
        for (uint32_t s = 0; s < node->n_sources; s++)
            if (node->sources[s] == op)
                return true;
    }
    return false;
}

/* MAX_ABS says how long a step is, and at 8 bits gptq's is as long. An output of a depthwise
 * convolution is a sum of a few products, too few for errors of rounding to nearest to cancel, and
 * of neighbours in a picture, whose errors add up: these are rounded with their inputs in view,
 * which costs next to nothing for so few weights. */
static bool is_fitted(const qn_mnn_config *config, const qn_node *node)
{
    int64_t dims[QN_MAX_RANK];
    const char *name = node->name;
    if (config->feature == QN_MNN_EMA || config->weight != QN_MNN_MAX_ABS || config->bits != 8 ||
        config->weight_clamp != 127 || (config->exact & QN_MNN_EXACT_ALL) != 0 ||
        node->op != QN_OP_CONV || node->inputs[1]->rank != 4 ||
        !qn__tensor_static_dims(node->inputs[1], dims))
        return false;
    if (dims[1] != 1 || qn__attr_int(node, "group", 1) < 2 || name == NULL || name[0] == '\0')
        return false;
    /* no name that would be read as a pattern */
    return (name[0] != '/' || name[strlen(name) - 1] != '/') && strncmp(name, "op:", 3) != 0;
}

static qn_status list_overrides(const qn_mnn_run *run, const qn_graph *simplified,
                                qn_override **overrides, size_t *count, qn_error *error)
{
    const size_t n_nodes = simplified->n_nodes;
    *count = 0;
    *overrides = qn__calloc(run->ctx, n_nodes + 1, sizeof(**overrides));
    if (*overrides == NULL)
        return QN_NOMEM(error);
    for (size_t n = 0; n < n_nodes; n++) {
        const qn_node *node = simplified->nodes[n];
        if (is_skipped(run, node))
            (*overrides)[(*count)++] = (qn_override){node->name, "skip", "1"};
        else if (is_fitted(run->config, node))
            (*overrides)[(*count)++] = (qn_override){node->name, "weights", "gptq"};
    }
    return QN_OK;
}

static void choose_methods(const qn_mnn_config *config, qn_quantize_options *o)
{
    o->target = "mnn";
    if (config->feature == QN_MNN_EMA) {
        o->features = "ema-train";
        o->weights = "max_abs";
        o->weight_bits = (uint32_t)config->bits;
        o->batch = config->batch;
        return;
    }
    if (config->feature == QN_MNN_ADMM)
        o->features = "admm";
    else /* searches by divergence clip the rare large values that detectors live on */
        o->features = (config->exact & QN_MNN_EXACT_KL) != 0 ? "kl-mnn" : "lp";
    o->weights = config->weight == QN_MNN_WEIGHT_ADMM ? "admm" : "max_abs";
    o->weight_bits = (uint32_t)config->bits;
    o->weight_clamp = (uint32_t)config->weight_clamp;
    /* A clamp below 127 asks for fewer levels, which only symmetric tensors have. */
    if (config->feature_clamp != 127) {
        o->activations = "s8sym";
        o->feature_clamp = (uint32_t)config->feature_clamp;
    }
}

/* The records of the document, by tensor. */
static qn_status collect_scales(const qn_mnn_run *run, const qn_fb_document *document,
                                qn_mnn_scales *out, qn_error *error)
{
    const size_t n = run->source->n_tensors;
    *out = (qn_mnn_scales){.ctx = run->ctx, .n_tensors = n};
    out->items = qn__calloc(run->ctx, n, sizeof(*out->items));
    out->tracked = qn__calloc(run->ctx, n, sizeof(*out->tracked));
    if (out->items == NULL || out->tracked == NULL) {
        qn__mnn_scales_free(out);
        return QN_NOMEM(error);
    }
    size_t count;
    qn_fb_object **records = qn__fb_tables(document->root, QN_MNN_Net_extraTensorDescribe, &count);
    for (size_t i = 0; i < count; i++) {
        const int64_t index = qn__fb_int(document, records[i], QN_MNN_TensorDescribe_index);
        const qn_fb_object *info = qn__fb_table(records[i], QN_MNN_TensorDescribe_quantInfo);
        if (info == NULL || index < 0 || (uint64_t)index >= n)
            continue;
        out->items[index] = (qn_mnn_tensor_quant){
            (uint32_t)index, (float)qn__fb_real(document, info, QN_MNN_TensorQuantInfo_scale),
            (int32_t)qn__fb_real(document, info, QN_MNN_TensorQuantInfo_zero),
            (int32_t)qn__fb_real(document, info, QN_MNN_TensorQuantInfo_min),
            (int32_t)qn__fb_real(document, info, QN_MNN_TensorQuantInfo_max)};
        out->tracked[index] = true;
    }
    return QN_OK;
}

qn_status qn__mnn_better(const qn_mnn_run *run, const qn_model *model, qn_mnn_scales *scales,
                         qn_model **quantized, qn_fb_document *out, qn_error *error)
{
    qn_quantize_options options;
    progress shown = {.run = run};
    qn_override *overrides = NULL;
    qn_graph *simplified = NULL;
    qn_status status;
    qn_quantize_options_init(&options);
    choose_methods(run->config, &options);
    options.progress = show_progress;
    options.progress_ctx = &shown;
    QN_TRY_GOTO(qn__model_simplified(model->graph, &simplified, error));
    QN_TRY_GOTO(list_overrides(run, simplified, &overrides, &options.n_overrides, error));
    options.overrides = overrides;
    QN_TRY_GOTO(qn_quantize(model, run->dataset, &options, quantized, NULL, error));
    QN_TRY_GOTO(qn__mnn_document((*quantized)->graph, out, error));
    status = collect_scales(run, out, scales, error);
    if (status != QN_OK)
        qn__fb_free(out);
    else if (run->config->feature == QN_MNN_ADMM)
        show_scales(run, scales);
done:
    qn__graph_destroy(simplified);
    qn__free(run->ctx, overrides);
    return status;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted by operator. */
qn_status qn__mnn_better_debug(const qn_mnn_run *run, const qn_model *model,
                               const qn_model *quantized, qn_error *error)
{
    qn_comparison *comparison = NULL;
    qn_arena arena;
    const char **lines = NULL;
    size_t n = 0, capacity = 0;
    qn_compare_row row;
    qn_status status;
    qn__arena_init(&arena, run->ctx);
    QN_TRY_GOTO(qn__compare(model, quantized, run->dataset, show_distance, (void *)run, &comparison,
                            error));
    while (qn_comparison_row(comparison, n, &row)) {
        const char *line = qn__arena_printf(
            &arena, "%s output_tensor_0:  cos distance: %.6f, overflow ratio: %.6f",
            row.node != NULL && row.node[0] != '\0' ? row.node : row.name, row.cosine,
            row.overflow);
        if (line == NULL || !QN_GROW(run->ctx, &lines, &capacity, n))
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
        lines[n++] = line;
    }
    if (n > 0)
        qsort(lines, n, sizeof(*lines), compare_lines);
    qn__mnn_print(run, "\nDebug info:\n\n");
    for (size_t i = 0; i < n; i++)
        qn__mnn_print(run, "%s\n", lines[i]);
done:
    qn__free(run->ctx, lines);
    qn_comparison_destroy(comparison);
    qn__arena_free(&arena);
    return status;
}
