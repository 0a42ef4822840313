/* Models: loading, saving, inputs and outputs. */
#include "data/data.h"
#include "format/format.h"
#include "pass/pass.h"
#include "quant/model.h"
#include "run/op.h"

#include <assert.h>
#include <string.h>

static_assert(QN_PASS_MOST_PARTS <= QN_STEP_MAX_IO, "what passes leave can be executed");

qn_status qn__model_create(const qn_context *ctx, qn_graph *graph, const char *path,
                           uint64_t file_bytes, qn_model **out, qn_error *error)
{
    qn_model *model = qn__calloc(ctx, 1, sizeof(*model));
    char *copy = qn__strdup(ctx, path);
    if (model == NULL || copy == NULL) {
        qn__free(ctx, model);
        qn__free(ctx, copy);
        return QN_NOMEM(error);
    }
    *model = (qn_model){ctx, graph, copy, file_bytes};
    *out = model;
    return QN_OK;
}

static qn_status load(const qn_context *ctx, const char *path,
                      qn_status (*read)(const qn_context *, const char *, qn_graph **, qn_error *),
                      qn_model **out, qn_error *error)
{
    qn_graph *graph = NULL;
    qn_file_view view;
    QN_FAIL_IF(ctx == NULL || path == NULL || out == NULL, error, QN_INVALID_ARGUMENT,
               "qn_model_load: NULL argument");
    QN_TRY(qn__file_open(ctx, path, &view, error));
    uint64_t bytes = view.size_bytes;
    qn__file_close(ctx, &view);
    QN_TRY(read(ctx, path, &graph, error));
    bytes += graph->source != NULL ? graph->source->data_bytes : 0;
    const qn_status status = qn__model_create(ctx, graph, path, bytes, out, error);
    if (status != QN_OK)
        qn__graph_destroy(graph);
    return status;
}

qn_status qn_model_load(const qn_context *ctx, const char *path, qn_model **out, qn_error *error)
{
    return load(ctx, path, qn__format_read, out, error);
}

qn_status qn_model_load_partial(const qn_context *ctx, const char *path, qn_model **out,
                                qn_error *error)
{
    return load(ctx, path, qn__format_read_partial, out, error);
}

void qn_model_destroy(qn_model *model)
{
    if (model == NULL)
        return;
    qn__graph_destroy(model->graph);
    qn__free(model->ctx, model->path);
    qn__free(model->ctx, model);
}

qn_status qn_model_save(const qn_model *model, const char *path, qn_save_format format,
                        uint64_t *bytes_written, qn_error *error)
{
    QN_FAIL_IF(model == NULL || path == NULL, error, QN_INVALID_ARGUMENT,
               "qn_model_save: NULL argument");
    QN_FAIL_IF(format != QN_SAVE_QDQ && format != QN_SAVE_QOPERATOR, error, QN_INVALID_ARGUMENT,
               "qn_model_save: unknown format %d", (int)format);
    if (qn__format_is_compact(model->graph, path))
        return qn_model_save_compact(model, path, NULL, bytes_written, error);
    const qn_write_options options = {.format = format == QN_SAVE_QOPERATOR ? QN_WRITE_QOPERATOR
                                                                            : QN_WRITE_QDQ,
                                      .resolve = qn__graph_resolve};
    return qn__format_write(model->graph, path, &options, bytes_written, error);
}

size_t qn_model_n_inputs(const qn_model *model)
{
    return model != NULL ? model->graph->n_inputs : 0;
}

size_t qn_model_n_outputs(const qn_model *model)
{
    return model != NULL ? model->graph->n_outputs : 0;
}

static void describe_value(const qn_tensor *t, qn_value_info *out)
{
    memset(out, 0, sizeof(*out));
    out->name = t->name;
    out->dtype = qn__dtype_name(t->type.dtype);
    out->rank = t->has_shape ? t->rank : 0;
    for (uint32_t i = 0; i < out->rank; i++) {
        const qn_dim d = t->dims[i];
        out->dims[i] = d.kind == QN_DIM_CONST ? d.value : -1;
        out->symbols[i] = d.kind == QN_DIM_SYMBOL ? d.symbol : NULL;
    }
}

bool qn_model_input(const qn_model *model, size_t index, qn_value_info *out)
{
    if (model == NULL || out == NULL || index >= model->graph->n_inputs)
        return false;
    describe_value(model->graph->inputs[index], out);
    return true;
}

bool qn_model_output(const qn_model *model, size_t index, qn_value_info *out)
{
    if (model == NULL || out == NULL || index >= model->graph->n_outputs)
        return false;
    describe_value(model->graph->outputs[index], out);
    return true;
}

uint64_t qn_model_file_bytes(const qn_model *model)
{
    return model != NULL ? model->file_bytes : 0;
}

const char *qn_model_path(const qn_model *model)
{
    return model != NULL ? model->path : NULL;
}

qn_status qn_model_set_requantize(qn_model *model, qn_requantize kind, qn_error *error)
{
    QN_FAIL_IF(model == NULL || (unsigned)kind >= QN_REQUANTIZE_COUNT, error, QN_INVALID_ARGUMENT,
               "qn_model_set_requantize: no model, or no such kind");
    model->graph->requantize = kind;
    return QN_OK;
}

qn_requantize qn_model_requantize(const qn_model *model)
{
    const qn_requantize kind = model != NULL ? model->graph->requantize : QN_REQUANTIZE_DEFAULT;
    return kind == QN_REQUANTIZE_DEFAULT ? QN_REQUANTIZE_FLOAT : kind;
}

qn_status qn_dataset_create(const qn_context *ctx, const qn_model *model,
                            const qn_dataset_options *options, qn_dataset **out, qn_error *error)
{
    QN_FAIL_IF(ctx == NULL || model == NULL || options == NULL || out == NULL, error,
               QN_INVALID_ARGUMENT, "qn_dataset_create: NULL argument");
    const qn_preprocess *const p = &options->preprocess;
    QN_TRY(
        qn__check_struct(options->struct_size, sizeof(*options), "qn_dataset_options_init", error));
    QN_TRY(qn__check_struct(p->struct_size, sizeof(*p), "qn_preprocess_init", error));
    const size_t n = model->graph->n_inputs;
    qn_input_spec *specs = qn__calloc(ctx, n, sizeof(*specs));
    if (specs == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++) {
        qn_value_info info;
        describe_value(model->graph->inputs[i], &info);
        specs[i].name = info.name;
        specs[i].rank = info.rank;
        memcpy(specs[i].dims, info.dims, sizeof(specs[i].dims));
        for (uint32_t d = 0; options->input_dims != NULL && d < info.rank; d++)
            if (specs[i].dims[d] < 0)
                specs[i].dims[d] = options->input_dims[i][d];
    }
    const qn_status status = qn__dataset_create(ctx, specs, n, options, out, error);
    qn__free(ctx, specs);
    return status;
}

/* --- graphs made from a model's ----------------------------------------------------------------*/
static qn_status simplified(const qn_graph *graph, bool fold, bool runs, qn_graph **out,
                            qn_error *error)
{
    qn_graph *clone = NULL;
    QN_TRY(qn__graph_clone(graph, &clone, error));
    qn_pass_options options;
    qn__pass_options_init(&options);
    options.resolve = qn__graph_resolve;
    options.fold_batch_norm = options.fuse_activations = fold;
    qn_status status = runs ? qn__whole_numbers_to_bytes(clone, error) : QN_OK;
    if (status == QN_OK)
        status = qn__passes_simplify(clone, &options, error);
    if (status != QN_OK) {
        qn__graph_destroy(clone);
        return status;
    }
    *out = clone;
    return QN_OK;
}

qn_status qn__model_simplified(const qn_graph *graph, qn_graph **out, qn_error *error)
{
    return simplified(graph, true, false, out, error);
}

/* A file whose scales are half floats says where it rounds to them: it runs node by node as it
 * stands. Elsewhere nothing tells halves from floats that are stored in less. */
static bool has_half_scales(const qn_graph *graph)
{
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *const node = graph->nodes[i];
        const qn_dtype dtype = node->n_outputs > 0 && node->outputs[0] != NULL
                                   ? node->outputs[0]->type.dtype
                                   : QN_DTYPE_NONE;
        if (node->op == QN_OP_QUANTIZE_LINEAR && qn__node_attr(node, "precision") != NULL)
            return true;
        if (node->op == QN_OP_DEQUANTIZE_LINEAR &&
            (dtype == QN_DTYPE_F16 || dtype == QN_DTYPE_BF16))
            return true;
    }
    return false;
}

qn_status qn__model_runnable(const qn_graph *graph, qn_requantize requantize, bool tables,
                             qn_graph **out, qn_error *error)
{
    const char *const format = graph->source != NULL ? graph->source->format : "";
    if (strcmp(format, "qnm") == 0 || has_half_scales(graph))
        return qn__graph_clone(graph, out, error);
    qn_graph *made = NULL;
    QN_TRY(simplified(graph, true, strcmp(format, "mnn") == 0, &made, error));
    qn_status status = qn__signed_bytes_to_unsigned(made, error);
    if (status == QN_OK && tables)
        status = qn__bytes_to_tables(
            made, requantize != QN_REQUANTIZE_DEFAULT ? requantize : graph->requantize,
            qn__graph_resolve, error);
    if (status != QN_OK) {
        qn__graph_destroy(made);
        return status;
    }
    *out = made;
    return QN_OK;
}

qn_status qn__model_unfolded(const qn_graph *graph, qn_graph **out, qn_error *error)
{
    return simplified(graph, false, false, out, error);
}

qn_status qn__graph_bound(const qn_graph *graph, const int64_t (*dims)[QN_MAX_RANK], int64_t batch,
                          qn_graph **out, qn_error *error)
{
    qn_graph *g = NULL;
    QN_TRY(qn__graph_clone(graph, &g, error));
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->producer != NULL)
            g->tensors[i]->has_shape = false;
    for (size_t i = 0; i < g->n_inputs; i++) {
        qn_tensor *t = g->inputs[i];
        for (uint32_t d = 0; t->has_shape && d < t->rank; d++) {
            if (dims != NULL && dims[i][d] >= 0)
                t->dims[d] = qn_dim_const(dims[i][d]);
            else if (dims != NULL && t->dims[d].kind == QN_DIM_CONST)
                t->dims[d] = qn_dim_unknown();
            else if (dims == NULL && d == 0 && t->dims[d].kind != QN_DIM_CONST)
                t->dims[d] = qn_dim_const(batch);
        }
    }
    const qn_status status = qn__graph_infer(g, error);
    if (status != QN_OK) {
        qn__graph_destroy(g);
        return status;
    }
    *out = g;
    return QN_OK;
}
