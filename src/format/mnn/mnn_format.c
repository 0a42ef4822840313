/* MNN's row in the table of formats. */
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_format.h"

static uint32_t u32_at(const uint8_t *data, size_t at)
{
    return (uint32_t)data[at] | (uint32_t)data[at + 1] << 8 | (uint32_t)data[at + 2] << 16 |
           (uint32_t)data[at + 3] << 24;
}

/* There is no magic: a root table whose vtable has a list of operators or of tensor names. */
static bool probe(const qn_context *ctx, const uint8_t *data, size_t size_bytes)
{
    (void)ctx;
    if (size_bytes < 16 || size_bytes > INT32_MAX)
        return false;
    const uint32_t root = u32_at(data, 0);
    if (root < 4 || root > size_bytes - 4)
        return false;
    const int64_t vtable = (int64_t)root - (int32_t)u32_at(data, root);
    if (vtable < 4 || vtable > (int64_t)size_bytes - 4)
        return false;
    const size_t at = (size_t)vtable, bytes = data[at] | (size_t)data[at + 1] << 8;
    const size_t fields = bytes / 2 - 2;
    if (bytes < 4 + 2 * (QN_MNN_Net_oplists + 1) || bytes % 2 != 0 || bytes > size_bytes - at)
        return false;
    if (fields > 64) /* a table of models has a dozen */
        return false;
    const size_t ops =
        data[at + 4 + 2 * QN_MNN_Net_oplists] | (size_t)data[at + 5 + 2 * QN_MNN_Net_oplists] << 8;
    return ops >= 4 && root + ops <= size_bytes - 4;
}

/* A graph of another format gets a document of its own. */
static qn_status write_any(const qn_graph *graph, const char *path, const qn_write_options *options,
                           uint64_t *bytes, qn_error *error)
{
    QN_FAIL_IF(graph->requantize > QN_REQUANTIZE_FLOAT, error, QN_UNSUPPORTED,
               "%s: .mnn files cannot say that sums are requantized by %s", path,
               qn__requantize_name(graph->requantize));
    if (qn__mnn_source_of(graph))
        return qn__mnn_write(graph, path, options, bytes, error);
    qn_fb_document doc;
    QN_TRY(qn__mnn_export(graph, options, &doc, error));
    const qn_status status = qn__mnn_save(&doc, path, bytes, error);
    qn__fb_free(&doc);
    return status;
}

static bool describe_changes(const qn_graph *graph, char *text, size_t size_bytes)
{
    (void)graph;
    (void)text;
    (void)size_bytes;
    return false; /* the document's version stays */
}

const qn_format qn__format_mnn = {"mnn", probe, qn__mnn_read, write_any, describe_changes};
