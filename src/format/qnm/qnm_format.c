/* The compact format's row in the table of formats. */
#include "format/qnm/qnm_format.h"

#include "format/qnm/qnm.h"

static bool probe(const qn_context *ctx, const uint8_t *data, size_t size_bytes)
{
    (void)ctx;
    return qn__qnm_probe(data, size_bytes);
}

/* What the file says of shapes that operators make is not believed. */
static qn_status read_model(const qn_context *ctx, const char *path, qn_blob *file, qn_graph **out,
                            qn_error *error)
{
    qn_graph *graph = NULL;
    QN_TRY(qn__qnm_read(ctx, file, path, false, &graph, error));
    qn_status status = qn__graph_infer(graph, error);
    if (status == QN_OK)
        status = qn__graph_verify(graph, error);
    if (status != QN_OK) {
        qn__graph_destroy(graph);
        return status;
    }
    *out = graph;
    return QN_OK;
}

static qn_status write_model(const qn_graph *graph, const char *path,
                             const qn_write_options *options, uint64_t *bytes, qn_error *error)
{
    (void)options;
    return qn__qnm_write(graph, NULL, path, bytes, error);
}

static bool describe_changes(const qn_graph *graph, char *text, size_t size_bytes)
{
    (void)graph;
    (void)text;
    (void)size_bytes;
    return false;
}

const qn_format qn__format_qnm = {"qnm", probe, read_model, write_model, describe_changes};
