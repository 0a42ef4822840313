/* Graph -> .mnn file. */
#include "core/context.h"
#include "core/io.h"
#include "format/mnn/mnn_format.h"

/* Nothing was quantized and every operator is still there. */
static bool is_unchanged(const qn_graph *graph)
{
    for (size_t i = 0; i < graph->n_tensors; i++)
        if (graph->tensors[i]->type.kind != QN_TYPE_PLAIN)
            return false;
    for (size_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i]->n_sources != 1 || graph->nodes[i]->act != QN_ACT_NONE)
            return false;
    return true;
}

qn_status qn__mnn_write(const qn_graph *graph, const char *path, const qn_write_options *options,
                        uint64_t *bytes, qn_error *error)
{
    (void)options;
    const qn_mnn_source *source = qn__mnn_source_of(graph);
    QN_FAIL_IF(!source, error, QN_UNSUPPORTED,
               "%s: a graph that was not read from .mnn cannot be written as .mnn", path);
    QN_FAIL_IF(!is_unchanged(graph), error, QN_UNSUPPORTED,
               "%s: a changed graph cannot be written as .mnn", path);
    const qn_blob *file = source->doc.file;
    QN_TRY(qn__file_write_all(graph->ctx, path, file->data, file->size_bytes, error));
    if (bytes)
        *bytes = file->size_bytes;
    return QN_OK;
}
