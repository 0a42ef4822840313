/* The table of model formats. */
#include "format/format.h"

#include <string.h>
#include <strings.h>

#include "core/io.h"
#include "format/mnn/mnn_format.h"
#include "format/onnx/onnx_format.h"
#include "format/qnm/qnm_format.h"

static const qn_format *const FORMATS[] = {&qn__format_qnm, &qn__format_onnx, &qn__format_mnn};

/* A FlatBuffer too, but one that says what it is. */
static bool is_tflite(const qn_blob *file)
{
    return file->size_bytes >= 8 && memcmp(file->data + 4, "TFL3", 4) == 0;
}

static qn_status read_file(const qn_context *ctx, const char *path, bool partial, qn_graph **out,
                           qn_error *error)
{
    qn_file_view view;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    qn_blob *file = qn__blob_from_file(ctx, &view);
    if (!file) {
        qn__file_close(ctx, &view);
        return QN_NOMEM(error);
    }
    qn_status status = QN_UNSUPPORTED;
    const qn_format *found = NULL;
    for (size_t i = 0; i < sizeof(FORMATS) / sizeof(FORMATS[0]) && !found; i++)
        if (FORMATS[i]->probe(ctx, file->data, file->size_bytes))
            found = FORMATS[i];
    const bool tflite = (!found || found == &qn__format_mnn) && is_tflite(file);
    if (tflite)
        found = NULL;
    if (found && partial && !found->read_partial)
        status = qn__error_set(error, QN_UNSUPPORTED,
                               "%s: a part of a .%s file cannot be set aside (ONNX only)", path,
                               found->name);
    else if (found)
        status = (partial ? found->read_partial : found->read)(ctx, path, file, out, error);
    else
        status = qn__error_set(
            error, file->size_bytes == 0 ? QN_CORRUPT : QN_UNSUPPORTED, "%s: %s", path,
            file->size_bytes == 0 ? "the file is empty"
            : tflite ? "a TensorFlow Lite model, which is not read (ONNX, MNN, QNM are)"
                     : "not a model in a known format (ONNX, MNN, QNM)");
    qn__blob_unref(file);
    return status;
}

qn_status qn__format_read(const qn_context *ctx, const char *path, qn_graph **out, qn_error *error)
{
    return read_file(ctx, path, false, out, error);
}

qn_status qn__format_read_partial(const qn_context *ctx, const char *path, qn_graph **out,
                                  qn_error *error)
{
    return read_file(ctx, path, true, out, error);
}

static const qn_format *format_of(const qn_graph *graph, const char *path)
{
    const char *dot = path ? strrchr(path, '.') : NULL;
    for (size_t i = 0; dot && i < sizeof(FORMATS) / sizeof(FORMATS[0]); i++)
        if (strcasecmp(FORMATS[i]->name, dot + 1) == 0)
            return FORMATS[i];
    for (size_t i = 0; graph->source && i < sizeof(FORMATS) / sizeof(FORMATS[0]); i++)
        if (strcmp(FORMATS[i]->name, graph->source->format) == 0)
            return FORMATS[i];
    return &qn__format_onnx;
}

qn_status qn__format_write(const qn_graph *graph, const char *path, const qn_write_options *options,
                           uint64_t *bytes, qn_error *error)
{
    const qn_write_options defaults = {.format = QN_WRITE_QDQ};
    const qn_format *const format = format_of(graph, path);
    QN_FAIL_IF(graph->source && graph->source->n_aside > 0 &&
                   strcmp(format->name, graph->source->format) != 0,
               error, QN_UNSUPPORTED,
               "%s: a .%s file cannot have the %zu nodes that were set aside, %s the first", path,
               format->name, graph->source->n_aside, graph->source->first_aside);
    return format->write(graph, path, options ? options : &defaults, bytes, error);
}

bool qn__format_changes(const qn_graph *graph, const char *path, char *text, size_t size_bytes)
{
    return format_of(graph, path)->describe_changes(graph, text, size_bytes);
}

bool qn__format_is_compact(const qn_graph *graph, const char *path)
{
    return format_of(graph, path) == &qn__format_qnm;
}
