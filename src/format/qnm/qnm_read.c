/* Reading a compact file: header, table of sections, packed weights; qnm_read_graph.c has the rest.
 */
#include "format/qnm/qnm_read.h"

#include "core/context.h"

typedef struct qnm_source {
    qn_source base;
    const qn_context *ctx;
    qn_blob *bytes;
    qn_packed_store store;
    qn_packed_entry *entries;
} qnm_source;

static void destroy_source(qn_source *base)
{
    qnm_source *const source = (qnm_source *)base;
    qn__blob_unref(source->bytes);
    qn__free(source->ctx, source->entries);
    qn__free(source->ctx, source);
}

static const struct qn_source_vtable VTABLE = {destroy_source};

bool qn__qnm_probe(const uint8_t *data, size_t size_bytes)
{
    return size_bytes >= 8 && memcmp(data, QN_QNM_MAGIC, 8) == 0;
}

/* --- header and sections ---------------------------------------------------------------------- */
static qn_status check_header(const qn_blob *bytes, const char *file, bool verify_checksum,
                              qn_error *error)
{
    const uint8_t *const data = bytes->data;
    QN_FAIL_IF(!qn__qnm_probe(data, bytes->size_bytes), error, QN_CORRUPT,
               "%s: not a compact model file", file);
    QN_FAIL_IF(bytes->size_bytes < QN_QNM_HEADER_BYTES, error, QN_CORRUPT,
               "%s: the file ends in its header, at byte %zu", file, bytes->size_bytes);
    const uint32_t version = qn_qnm_u32_at(data + 8), flags = qn_qnm_u32_at(data + 12);
    QN_FAIL_IF(version != QN_QNM_VERSION, error, QN_UNSUPPORTED,
               "%s: version %u of the format, version %d can be read", file, version,
               QN_QNM_VERSION);
    QN_FAIL_IF(flags == QN_REQUANTIZE_FLOAT || flags > QN_REQUANTIZE_SHIFT, error, QN_UNSUPPORTED,
               "%s: needs unknown features (flags %#x)", file, flags);
    const uint64_t length = qn_qnm_u64_at(data + 16);
    QN_FAIL_IF(length != bytes->size_bytes, error, QN_CORRUPT,
               "%s: the file has %zu bytes, its header says %llu", file, bytes->size_bytes,
               (unsigned long long)length);
    if (!verify_checksum)
        return QN_OK;
    const uint32_t said = qn_qnm_u32_at(data + QN_QNM_CHECKSUM_AT);
    const uint32_t found = qn__qnm_checksum(data, bytes->size_bytes);
    QN_FAIL_IF(said != found, error, QN_CORRUPT,
               "%s: checksum %08x, the header says %08x: the file is damaged", file, found, said);
    return QN_OK;
}

static qn_status read_section(const qn_blob *bytes, const char *file, size_t index, size_t *end,
                              qn_qnm_layout *out, qn_error *error)
{
    const uint8_t *const row =
        bytes->data + QN_QNM_HEADER_BYTES + index * (size_t)QN_QNM_SECTION_BYTES;
    const uint32_t kind = qn_qnm_u32_at(row), flags = qn_qnm_u32_at(row + 4);
    const uint64_t offset = qn_qnm_u64_at(row + 8), length = qn_qnm_u64_at(row + 16);
    QN_FAIL_IF(offset % QN_QNM_ALIGN != 0 || offset < *end || offset > bytes->size_bytes ||
                   length > bytes->size_bytes - offset,
               error, QN_CORRUPT,
               "%s: section %zu has bytes %llu + %llu of %zu, and the one before ends at %zu", file,
               index, (unsigned long long)offset, (unsigned long long)length, bytes->size_bytes,
               *end);
    *end = (size_t)(offset + length);
    qn_qnm_range *const places[] = {&out->graph, &out->data, &out->packed};
    if (kind < QN_QNM_SECTION_GRAPH || kind > QN_QNM_SECTION_PACKED) {
        QN_FAIL_IF((flags & QN_QNM_SECTION_REQUIRED) != 0, error, QN_UNSUPPORTED,
                   "%s: section %zu is of unknown kind %u", file, index, kind);
        return QN_OK;
    }
    qn_qnm_range *const place = places[kind - QN_QNM_SECTION_GRAPH];
    QN_FAIL_IF(place->offset != 0, error, QN_CORRUPT, "%s: two sections of kind %u", file, kind);
    *place = (qn_qnm_range){(size_t)offset, (size_t)length};
    return QN_OK;
}

static qn_status read_sections(const qn_blob *bytes, const char *file, qn_qnm_layout *out,
                               qn_error *error)
{
    const uint32_t count = qn_qnm_u32_at(bytes->data + 28);
    QN_FAIL_IF(count > QN_QNM_MAX_SECTIONS, error, QN_CORRUPT, "%s: has %u sections", file, count);
    size_t end = QN_QNM_HEADER_BYTES + (size_t)count * QN_QNM_SECTION_BYTES;
    QN_FAIL_IF(end > bytes->size_bytes, error, QN_CORRUPT, "%s: the table of sections is cut off",
               file);
    *out = (qn_qnm_layout){0};
    for (size_t i = 0; i < count; i++)
        QN_TRY(read_section(bytes, file, i, &end, out, error));
    QN_FAIL_IF(out->graph.offset == 0, error, QN_CORRUPT, "%s: has no graph", file);
    return QN_OK;
}

/* --- packed weights --------------------------------------------------------------------------- */
/* Entries are in rising order, so that finding one takes no time whatever the file says. */
static qn_status read_entry(const qn_blob *bytes, const char *file, const qn_qnm_layout *layout,
                            size_t index, qn_packed_entry *out, qn_error *error)
{
    const uint8_t *const section = bytes->data + layout->packed.offset;
    const uint8_t *const row =
        section + QN_QNM_PACKED_HEADER_BYTES + index * (size_t)QN_QNM_PACKED_ENTRY_BYTES;
    const uint64_t weights = qn_qnm_u64_at(row), offset = qn_qnm_u64_at(row + 24);
    const uint64_t length = qn_qnm_u64_at(row + 32);
    QN_FAIL_IF(weights > layout->data.bytes || offset % QN_QNM_ALIGN != 0 ||
                   offset > layout->packed.bytes || length > layout->packed.bytes - offset,
               error, QN_CORRUPT,
               "%s: packed weights %zu have bytes %llu + %llu of %zu, made from constant %llu",
               file, index, (unsigned long long)offset, (unsigned long long)length,
               layout->packed.bytes, (unsigned long long)weights);
    *out = (qn_packed_entry){.weights = bytes->data + layout->data.offset + weights,
                             .key = qn_qnm_u64_at(row + 8),
                             .layout = qn_qnm_u32_at(row + 16),
                             .flags = qn_qnm_u32_at(row + 20),
                             .data = section + offset,
                             .bytes = (size_t)length};
    return QN_OK;
}

static qn_status read_packed(qnm_source *source, const char *file, const qn_qnm_layout *layout,
                             qn_error *error)
{
    const qn_blob *const bytes = source->bytes;
    if (layout->packed.bytes == 0 || QN_QNM_SWAP)
        return QN_OK;
    QN_FAIL_IF(layout->packed.bytes < QN_QNM_PACKED_HEADER_BYTES, error, QN_CORRUPT,
               "%s: the section of packed weights has %zu bytes", file, layout->packed.bytes);
    const size_t count = qn_qnm_u32_at(bytes->data + layout->packed.offset);
    const size_t room =
        (layout->packed.bytes - QN_QNM_PACKED_HEADER_BYTES) / QN_QNM_PACKED_ENTRY_BYTES;
    QN_FAIL_IF(count > room, error, QN_CORRUPT,
               "%s: %zu packed weights, there is room for %zu in their section", file, count, room);
    source->entries = qn__calloc(source->ctx, count + 1, sizeof(*source->entries));
    if (source->entries == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++) {
        QN_TRY(read_entry(bytes, file, layout, i, &source->entries[i], error));
        QN_FAIL_IF(i > 0 && qn__packed_order(&source->entries[i - 1], &source->entries[i]) >= 0,
                   error, QN_CORRUPT, "%s: packed weights %zu are out of order", file, i);
    }
    source->store = (qn_packed_store){count, source->entries};
    source->base.packed = &source->store;
    return QN_OK;
}

/* --- whole ------------------------------------------------------------------------------------ */
static qn_status read_into(qn_graph *graph, qn_blob *bytes, bool verify_checksum, qn_error *error)
{
    qn_qnm_layout layout;
    qnm_source *const source = qn__calloc(graph->ctx, 1, sizeof(*source));
    if (source == NULL)
        return QN_NOMEM(error);
    source->base.format = "qnm";
    source->base.vtable = &VTABLE;
    source->base.refs = 1;
    source->ctx = graph->ctx;
    source->bytes = qn__blob_ref(bytes);
    graph->source = &source->base;
    QN_TRY(check_header(bytes, graph->file, verify_checksum, error));
    graph->requantize = (qn_requantize)qn_qnm_u32_at((const uint8_t *)bytes->data + 12);
    QN_TRY(read_sections(bytes, graph->file, &layout, error));
    QN_TRY(read_packed(source, graph->file, &layout, error));
    QN_TRY(qn__qnm_read_graph(graph, bytes, &layout, error));
    return qn__graph_verify(graph, error);
}

qn_status qn__qnm_read(const qn_context *ctx, qn_blob *bytes, const char *file,
                       bool verify_checksum, qn_graph **out, qn_error *error)
{
    qn_graph *graph = NULL;
    QN_TRY(qn__graph_create(ctx, &graph, error));
    graph->file = qn__arena_strdup(&graph->arena, file);
    const qn_status status =
        graph->file == NULL ? QN_NOMEM(error) : read_into(graph, bytes, verify_checksum, error);
    if (status != QN_OK) {
        qn__graph_destroy(graph);
        return status;
    }
    *out = graph;
    return QN_OK;
}
