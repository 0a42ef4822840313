/* MNN's offline quantizer: configuration, model and samples in, a quantized .mnn and its scales
 * out. */
#include "mnntool/operators.h"
#include "mnntool/tool.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "calib/calib.h"
#include "data/paths.h"
#include "quant/model.h"

void qn_mnn_options_init(qn_mnn_options *options)
{
    *options = (qn_mnn_options){.struct_size = sizeof(*options)};
}

/* Everything one call holds on to. */
typedef struct job {
    const qn_context *ctx;
    const char *source, *destination;
    qn_mnn_config config;
    qn_model *model;     /* as read */
    qn_model *quantized; /* default mode: the document borrows from it */
    qn_model *sized;     /* inputs as configured; NULL: the model's are */
    qn_dataset *dataset;
    qn_mnn_run run;
    qn_mnn_scales scales;
    qn_fb_document document;
    bool has_document;
    bool has_integers; /* the model has tensors in integers already */
} job;

static void print_nothing(void *ctx, const char *text)
{
    (void)ctx;
    (void)text;
}

/* --- what MNN's tool says before it starts -----------------------------------------------------*/

static void print_files(const job *j, const char *config)
{
    const qn_mnn_run *r = &j->run;
    qn__mnn_log(r, 1725, ">>> modelFile: %s", j->source);
    qn__mnn_log(r, 1726, ">>> preTreatConfig: %s", config);
    qn__mnn_log(r, 1727, ">>> dstFile: %s", j->destination);
    qn__mnn_log(r, 1755, "Calibrate the feature and quantize model...");
}

static void print_settings(const job *j)
{
    static const char *const features[] = {"KL", "ADMM", "EMA"};
    static const char *const weights[] = {"MAX_ABS", "ADMM"};
    const qn_mnn_config *c = &j->config;
    const qn_mnn_run *r = &j->run;
    qn__mnn_log(r, 512, "Use feature quantization method: %s", features[c->feature]);
    qn__mnn_log(r, 513, "Use weight quantization method: %s", weights[c->weight]);
    qn__mnn_log(r, 533, "feature_clamp_value: %d", (int)c->feature_clamp);
    qn__mnn_log(r, 534, "weight_clamp_value: %d", (int)c->weight_clamp);
    if (c->feature != QN_MNN_EMA)
        qn__mnn_log(r, 538, "winogradOpt only be available under EMA");
    if (c->has_winograd && !c->winograd)
        qn__mnn_log(r, 541, "Close winogradOpt because set winogradOpt as false");
    for (size_t i = 0; i < c->n_skips; i++)
        qn__mnn_log(r, 549, "skip quant op name: %s", c->skips[i]);
    for (size_t i = 0; i < c->n_inputs; i++)
        qn__mnn_print(r, "input: %s\n", c->inputs[i].name);
}

/* --- model and samples -------------------------------------------------------------------------*/

static qn_status load_model(job *j, qn_error *error)
{
    QN_TRY(qn_model_load(j->ctx, j->source, &j->model, error));
    j->run.source = qn__mnn_source_of(j->model->graph);
    QN_FAIL_IF(j->run.source == NULL, error, QN_UNSUPPORTED, "%s: not an MNN model", j->source);
    QN_FAIL_IF(j->model->graph->n_inputs == 0, error, QN_UNSUPPORTED, "%s: the model has no inputs",
               j->source);
    return QN_OK;
}

/* Sizes of inputs that all samples agree on, -1 for others. False: the model says so itself. */
static bool sizes_of_samples(const qn_graph *graph, const qn_dataset *dataset,
                             int64_t (*dims)[QN_MAX_RANK])
{
    bool changed = false;
    for (size_t i = 0; i < graph->n_inputs; i++) {
        uint32_t rank = 0;
        (void)qn_dataset_dims(dataset, i, &rank, dims[i]);
        for (size_t s = 1; s < qn_dataset_count(dataset); s++) {
            int64_t other[QN_MODEL_MAX_RANK];
            (void)qn_dataset_sample_dims(dataset, s, i, &rank, other);
            for (uint32_t d = 0; d < rank; d++)
                dims[i][d] = dims[i][d] == other[d] ? dims[i][d] : -1;
        }
        for (uint32_t d = 0; d < rank; d++) {
            const qn_dim own = graph->inputs[i]->dims[d];
            if (own.kind != QN_DIM_CONST)
                dims[i][d] = -1; /* stays open */
            else
                changed |= own.value != dims[i][d];
        }
    }
    return changed;
}

/* The network is shaped for the configured input, as MNN resizes its session. */
static qn_status open_samples(job *j, qn_error *error)
{
    const qn_graph *graph = j->model->graph;
    int64_t(*dims)[QN_MAX_RANK] = qn__calloc(j->ctx, graph->n_inputs, sizeof(*dims));
    bool changed = false;
    qn_graph *bound = NULL;
    qn_status status;
    if (dims == NULL)
        return QN_NOMEM(error);
    QN_TRY_GOTO(qn__mnn_input_dims(graph, &j->config, dims, &changed, error));
    QN_TRY_GOTO(qn__mnn_dataset(j->ctx, graph, &j->config, (const int64_t(*)[QN_MAX_RANK])dims,
                                &j->dataset, error));
    if (j->config.sequence)
        changed = sizes_of_samples(graph, j->dataset, dims);
    for (size_t i = 0; i < graph->n_inputs && !j->config.sequence; i++) {
        uint32_t rank;
        qn_dataset_dims(j->dataset, i, &rank, dims[i]);
    }
    if (changed) {
        QN_TRY_GOTO(qn__graph_bound(graph, (const int64_t(*)[QN_MAX_RANK])dims, 1, &bound, error));
        QN_TRY_GOTO(qn__model_create(j->ctx, bound, j->source, 0, &j->sized, error));
        bound = NULL;
    }
    j->run.dataset = j->dataset;
    j->run.graph = (j->sized != NULL ? j->sized : j->model)->graph;
done:
    qn__graph_destroy(bound);
    qn__free(j->ctx, dims);
    return status;
}

static void warn_unknown_skips(const job *j)
{
    const qn_mnn_source *source = j->run.source;
    for (size_t i = 0; i < j->config.n_skips; i++) {
        bool found = false;
        for (size_t k = 0; k < source->n_ops && !found; k++) {
            const char *name = qn__fb_string(source->ops[k], QN_MNN_Op_name);
            found = name != NULL && strcmp(name, j->config.skips[i]) == 0;
        }
        if (!found)
            qn__log(j->ctx, QN_LOG_WARNING,
                    "%s: \"skip_quant_op_names\": %s has no operator \"%.80s\"", j->config.file,
                    j->source, j->config.skips[i]);
    }
}

/* A network that was not folded for inference can only be quantized in training mode. */
static bool has_batch_norm(const qn_mnn_source *source)
{
    for (size_t i = 0; i < source->n_ops; i++)
        if (qn__fb_int(&source->doc, source->ops[i], QN_MNN_Op_type) == QN_MNN_OpType_BatchNorm)
            return true;
    return false;
}

/* Numbers that are integers already stay as they are: not what somebody who asks for this expects.
 */
static void warn_quantized(job *j)
{
    const qn_graph *graph = j->model->graph;
    for (size_t i = 0; i < graph->n_tensors; i++)
        if (graph->tensors[i]->type.kind == QN_TYPE_QUANT) {
            qn__log(j->ctx, QN_LOG_WARNING,
                    "%s: is quantized already (tensor \"%.80s\"): what is in integers stays so",
                    j->source, graph->tensors[i]->name);
            j->has_integers = true;
            return;
        }
}

/* Exact mode writes what MNN's tool writes, which MNN's runtime computes wrongly. */
static void warn_groups(const job *j)
{
    const qn_mnn_source *source = j->run.source;
    for (size_t i = 0; i < source->n_ops; i++) {
        const qn_fb_object *main = qn__fb_table(source->ops[i], QN_MNN_Op_main);
        if (qn__mnn_op_type(source, i) != QN_MNN_OpType_Convolution || main == NULL ||
            main->record != QN_MNN_REC_Convolution2D || qn__mnn_op_skipped(&j->run, i))
            continue;
        const qn_fb_object *common = qn__fb_table(main, QN_MNN_Convolution2D_common);
        if (common == NULL ||
            qn__fb_int(&source->doc, common, QN_MNN_Convolution2DCommon_group) < 2)
            continue;
        qn__log(
            j->ctx, QN_LOG_WARNING,
            "%s: operator \"%.80s\" is a convolution in groups: MNN computes it wrongly in int8 "
            "(\"skip_quant_op_names\" keeps it in float)",
            j->source, qn__mnn_op_title(source, i));
        return;
    }
}

/* --- outputs -----------------------------------------------------------------------------------*/

static bool same_file(const struct stat *a, const char *path)
{
    struct stat b;
    return stat(path, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

static qn_status check_place(const job *j, const char *path, const char *config, qn_error *error)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return QN_OK;
    QN_FAIL_IF(!S_ISREG(info.st_mode), error, QN_IO,
               "%s: cannot write: exists and is not a regular file", path);
    QN_FAIL_IF(same_file(&info, j->source), error, QN_INVALID_ARGUMENT,
               "%s: the output is the model itself", path);
    QN_FAIL_IF(same_file(&info, config), error, QN_INVALID_ARGUMENT,
               "%s: the output is the configuration itself", path);
    char weights[PATH_MAX];
    const int length = snprintf(weights, sizeof(weights), "%s.weight", j->source);
    QN_FAIL_IF(length > 0 && (size_t)length < sizeof(weights) && same_file(&info, weights), error,
               QN_INVALID_ARGUMENT, "%s: the output is the model's file of weights", path);
    return QN_OK;
}

/* What can be known before minutes of calibration are spent. */
static qn_status check_destination(const job *j, const char *config, qn_error *error)
{
    const char *path = j->destination;
    struct stat info;
    qn_arena arena;
    qn_status status = QN_OK;
    QN_FAIL_IF(path[0] == '\0', error, QN_INVALID_ARGUMENT, "the name of the output is empty");
    qn__arena_init(&arena, j->ctx);
    const char *scales = qn__arena_printf(&arena, "%s.json", path);
    const char *folder = qn__path_dir(&arena, path);
    if (scales == NULL || folder == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(check_place(j, path, config, error));
    QN_TRY_GOTO(check_place(j, scales, config, error));
    if (folder[0] != '\0' && (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)))
        QN_FAIL_GOTO(error, QN_IO, "%s: cannot write: there is no folder \"%s\"", path, folder);
done:
    qn__arena_free(&arena);
    return status;
}

/* What lies at path, to be put back should the new pair not come about; NULL: nothing. */
static qn_status keep_old(const qn_context *ctx, const char *path, qn_file_writer **out,
                          qn_error *error)
{
    struct stat info;
    qn_file_view view;
    *out = NULL;
    if (stat(path, &info) != 0)
        return QN_OK;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    const qn_status status = qn__file_create(ctx, path, out, error);
    if (status == QN_OK)
        qn__file_write(*out, view.data, view.size_bytes);
    qn__file_close(ctx, &view);
    return status;
}

/* The scales first: a new model is never without its own. */
static qn_status save(job *j, qn_error *error)
{
    const size_t name_bytes = strlen(j->destination) + sizeof(".json");
    char *json_path = qn__alloc(j->ctx, name_bytes), *text = NULL;
    uint8_t *bytes = NULL;
    size_t size_bytes = 0;
    bool upgraded;
    qn_file_writer *model = NULL, *json = NULL, *old = NULL;
    qn_status status;
    if (json_path == NULL)
        return QN_NOMEM(error);
    snprintf(json_path, name_bytes, "%s.json", j->destination);
    QN_TRY_GOTO(qn__mnn_scales_json(j->run.source, &j->scales, &text, error));
    QN_TRY_GOTO(qn__mnn_upgrade(&j->document, &upgraded, error));
    QN_TRY_GOTO(qn__fb_build(&j->document, &bytes, &size_bytes, error));
    QN_TRY_GOTO(keep_old(j->ctx, json_path, &old, error));
    QN_TRY_GOTO(qn__file_create(j->ctx, j->destination, &model, error));
    QN_TRY_GOTO(qn__file_create(j->ctx, json_path, &json, error));
    qn__file_write(model, bytes, size_bytes);
    qn__file_write(json, text, strlen(text));
    status = qn__file_commit_pair(json, model, old, error);
    model = json = old = NULL;
done:
    qn__file_abandon(model);
    qn__file_abandon(json);
    qn__file_abandon(old);
    qn__free(j->ctx, bytes);
    qn__free(j->ctx, text);
    qn__free(j->ctx, json_path);
    return status;
}

/* --- the run -----------------------------------------------------------------------------------*/

static qn_status quantize(job *j, qn_error *error)
{
    qn_mnn_run *r = &j->run;
    qn_status status;
    const bool ema = j->config.feature == QN_MNN_EMA;
    if (!ema)
        qn__mnn_log(r, 1107, "fake quant weights done.");
    /* Choices that only the imitation knows; the others are settings of both. There is nothing to
     * imitate on a model that has integers already: MNN's tool crashes. */
    const uint32_t imitated = QN_MNN_EXACT_SYMMETRIC | QN_MNN_EXACT_ADMM | QN_MNN_EXACT_BITS;
    if (j->has_integers ||
        (j->config.exact & (ema ? imitated | QN_MNN_EXACT_WINOGRAD : imitated)) == 0) {
        QN_TRY(qn__mnn_better(r, j->sized != NULL ? j->sized : j->model, &j->scales, &j->quantized,
                              &j->document, error));
        j->has_document = true;
        if (!j->config.debug || ema)
            return QN_OK;
        return qn__mnn_better_debug(r, j->sized != NULL ? j->sized : j->model, j->quantized, error);
    }
    warn_groups(j);
    if (ema) {
        status = qn__mnn_ema(r, &j->scales, &j->document, error);
        j->has_document = status == QN_OK;
        return status;
    }
    QN_TRY(qn__mnn_exact_scales(r, &j->scales, error));
    if (j->config.debug)
        QN_TRY(qn__mnn_debug(r, &j->scales, error));
    status = qn__mnn_exact_document(r, &j->scales, &j->document, error);
    j->has_document = status == QN_OK;
    return status;
}

/* Samples of a step: the configuration's, the model's or 32; not more than there are. */
static void settle_batch(job *j)
{
    qn_mnn_config *c = &j->config;
    const size_t n = qn_dataset_count(j->dataset);
    const qn_tensor *input = j->model->graph->inputs[0];
    if (c->feature != QN_MNN_EMA)
        return;
    if (c->batch == 0) {
        const bool fixed = input->rank > 0 && input->dims[0].kind == QN_DIM_CONST;
        c->batch = fixed && input->dims[0].value > 0 ? input->dims[0].value : 32;
        qn__mnn_log(&j->run, 1342, "batch_size not set, use model batch: %lld",
                    (long long)c->batch);
    }
    if (c->sequence)
        c->batch = 1;
    qn__mnn_log(&j->run, 1358, "batch size: %lld", (long long)c->batch);
    qn__mnn_log(&j->run, 1359, "quant bits: %d", (int)c->bits);
    if ((uint64_t)c->batch > n) {
        qn__mnn_print(&j->run, "_calibrationFileNum %zu < batch size %lld, set batch size as %zu\n",
                      n, (long long)c->batch, n);
        c->batch = (int64_t)n;
    }
}

static qn_status run_job(job *j, const char *config, uint32_t exact, qn_error *error)
{
    print_files(j, config);
    QN_TRY(check_destination(j, config, error));
    QN_TRY(qn__mnn_config_read(j->ctx, config, exact, &j->config, error));
    j->run.config = &j->config;
    QN_TRY(load_model(j, error));
    print_settings(j);
    QN_TRY(open_samples(j, error));
    warn_quantized(j);
    warn_unknown_skips(j);
    qn__mnn_log(&j->run, 137, "used dataset num: %zu", qn_dataset_count(j->dataset));
    if (has_batch_norm(j->run.source) && j->config.feature != QN_MNN_EMA) {
        qn__mnn_log(&j->run, 1739, "this model has BatchNorm, use EMA quantize method instead");
        j->config.feature = QN_MNN_EMA;
    }
    settle_batch(j);
    QN_TRY(quantize(j, error));
    QN_TRY(save(j, error));
    qn__mnn_log(&j->run, 1763, "Quantize model done!");
    return QN_OK;
}

qn_status qn_mnn_quantize(const qn_context *ctx, const char *source, const char *destination,
                          const char *config, const qn_mnn_options *options, qn_error *error)
{
    qn_mnn_options defaults;
    uint32_t exact = 0;
    QN_FAIL_IF(ctx == NULL || source == NULL || destination == NULL || config == NULL, error,
               QN_INVALID_ARGUMENT, "qn_mnn_quantize: NULL argument");
    if (options == NULL) {
        qn_mnn_options_init(&defaults);
        options = &defaults;
    }
    QN_TRY(qn__check_struct(options->struct_size, sizeof(*options), "qn_mnn_options_init", error));
    if (options->exact != NULL)
        QN_TRY(qn__mnn_exact_parse(options->exact, "--exact-mnn", &exact, error));
    job j = {.ctx = ctx, .source = source, .destination = destination};
    j.run.ctx = ctx;
    j.run.print = options->print != NULL ? options->print : print_nothing;
    j.run.print_ctx = options->print_ctx;
    const qn_status status = run_job(&j, config, exact, error);
    if (j.has_document)
        qn__fb_free(&j.document);
    qn__mnn_scales_free(&j.scales);
    qn_model_destroy(j.quantized);
    qn_dataset_destroy(j.dataset);
    qn_model_destroy(j.sized);
    qn_model_destroy(j.model);
    qn__mnn_config_free(&j.config);
    return status;
}
