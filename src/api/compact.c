/* Compact files: the graph that a session would run, with its shapes fixed, and packed weights. */
#include "format/qnm/qnm.h"
#include "pass/pass.h"
#include "quant/model.h"
#include "run/packing.h"

#include <string.h>

enum { RESOLVE_BYTES = 1 << 28 }; /* as plans do */

void qn_compact_options_init(qn_compact_options *options)
{
    *options = (qn_compact_options){.struct_size = sizeof(*options), .batch = 1};
}

/* In the order in which a session and its plan do it, so that the same numbers come out. */
static qn_status fix_shapes(const qn_graph *graph, const qn_compact_options *options,
                            qn_graph **out, qn_error *error)
{
    const qn_context *const ctx = graph->ctx;
    qn_graph *bound = NULL;
    int64_t(*dims)[QN_MAX_RANK] = qn__calloc(ctx, graph->n_inputs + 1, sizeof(*dims));
    if (dims == NULL)
        return QN_NOMEM(error);
    qn_status status =
        qn__model_input_dims(graph, options->input_dims, options->batch, dims, error);
    if (status == QN_OK)
        status = qn__graph_bound(graph, (const int64_t(*)[QN_MAX_RANK])dims, 1, &bound, error);
    if (status == QN_OK)
        status = qn__graph_resolve(bound, RESOLVE_BYTES, error);
    if (status == QN_OK)
        status = qn__pass_dead_code(bound, NULL, error);
    qn__free(ctx, dims);
    if (status != QN_OK) {
        qn__graph_destroy(bound);
        return status;
    }
    *out = bound;
    return QN_OK;
}

static qn_status write_packed(const qn_graph *graph, const char *path,
                              const qn_compact_options *options, uint64_t *bytes, qn_error *error)
{
    qn_packed_list list = {.ctx = graph->ctx};
    qn_status status = QN_OK;
    if (options->packed != NULL)
        status = qn__graph_pack(graph, options->packed, &list, error);
    const qn_packed_store store = {list.count, list.entries};
    const qn_qnm_write_options write = {&store, options->strip_names};
    if (status == QN_OK)
        status = qn__qnm_write(graph, &write, path, bytes, error);
    qn__packed_list_free(&list);
    return status;
}

qn_status qn_model_save_compact(const qn_model *model, const char *path,
                                const qn_compact_options *options, uint64_t *bytes_written,
                                qn_error *error)
{
    qn_compact_options defaults;
    QN_FAIL_IF(model == NULL || path == NULL, error, QN_INVALID_ARGUMENT,
               "qn_model_save_compact: NULL argument");
    if (options == NULL) {
        qn_compact_options_init(&defaults);
        options = &defaults;
    }
    QN_TRY(
        qn__check_struct(options->struct_size, sizeof(*options), "qn_compact_options_init", error));
    const qn_source *const source = model->graph->source;
    QN_FAIL_IF(source != NULL && source->n_aside > 0, error, QN_UNSUPPORTED,
               "%s: a compact file cannot have the %zu nodes that were set aside, %s the first",
               path, source->n_aside, source->first_aside);
    qn_graph *simplified = NULL, *fixed = NULL;
    qn_status status =
        qn__model_runnable(model->graph, QN_REQUANTIZE_DEFAULT, true, &simplified, error);
    if (status == QN_OK)
        status = fix_shapes(simplified, options, &fixed, error);
    if (status == QN_OK)
        status = write_packed(fixed, path, options, bytes_written, error);
    qn__graph_destroy(fixed);
    qn__graph_destroy(simplified);
    return status;
}

qn_status qn_model_verify_checksum(const qn_context *ctx, const char *path, qn_error *error)
{
    qn_file_view view;
    qn_graph *graph = NULL;
    QN_FAIL_IF(ctx == NULL || path == NULL, error, QN_INVALID_ARGUMENT,
               "qn_model_verify_checksum: NULL argument");
    QN_TRY(qn__file_open(ctx, path, &view, error));
    qn_blob *const file = qn__blob_from_file(ctx, &view);
    if (file == NULL) {
        qn__file_close(ctx, &view);
        return QN_NOMEM(error);
    }
    qn_status status = QN_OK;
    if (qn__qnm_probe(file->data, file->size_bytes))
        status = qn__qnm_read(ctx, file, path, true, &graph, error);
    else
        status =
            qn__error_set(error, QN_UNSUPPORTED, "%s: only compact files have a checksum", path);
    qn__graph_destroy(graph);
    qn__blob_unref(file);
    return status;
}
