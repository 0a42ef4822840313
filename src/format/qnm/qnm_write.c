/* Writing a compact file: the parts are laid out, summed up and then written in one go. */
#include "format/qnm/qnm_write.h"

#include "core/io.h"

#include <stdlib.h>

typedef struct packed_row {
    qn_packed_entry entry;
    uint64_t weights, offset; /* in the data section; in the packed section */
} packed_row;

typedef struct layout {
    const qn_graph *graph;
    qn_strbuf graph_section;
    qn_qnm_constants constants;
    packed_row *rows;
    size_t n_rows, packed_bytes;
    uint64_t offsets[3], bytes[3], file_bytes; /* graph, data, packed */
    uint32_t n_sections;
} layout;

static uint64_t align(uint64_t at)
{
    return (at + QN_QNM_ALIGN - 1) / QN_QNM_ALIGN * QN_QNM_ALIGN;
}

/* --- packed weights --------------------------------------------------------------------------- */
static int compare_rows(const void *left, const void *right)
{
    const packed_row *const a = left, *const b = right;
    if (a->weights != b->weights)
        return a->weights < b->weights ? -1 : 1;
    if (a->entry.layout != b->entry.layout)
        return a->entry.layout < b->entry.layout ? -1 : 1;
    return a->entry.key < b->entry.key ? -1 : a->entry.key > b->entry.key;
}

static qn_status lay_out_packed(layout *l, const qn_packed_store *store, qn_error *error)
{
    if (store == NULL || store->count == 0)
        return QN_OK;
    QN_FAIL_IF(store->count > UINT32_MAX, error, QN_LIMIT, "%zu packed weights", store->count);
    l->rows = qn__calloc(l->graph->ctx, store->count, sizeof(*l->rows));
    if (l->rows == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < store->count; i++) {
        const size_t at = qn__qnm_constant_find(&l->constants, store->entries[i].weights);
        if (at != SIZE_MAX)
            l->rows[l->n_rows++] = (packed_row){store->entries[i], at, 0};
    }
    qsort(l->rows, l->n_rows, sizeof(*l->rows), compare_rows);
    size_t kept = 0;
    for (size_t i = 0; i < l->n_rows; i++)
        if (kept == 0 || compare_rows(&l->rows[kept - 1], &l->rows[i]) != 0)
            l->rows[kept++] = l->rows[i];
    l->n_rows = kept;
    uint64_t at = QN_QNM_PACKED_HEADER_BYTES + kept * (uint64_t)QN_QNM_PACKED_ENTRY_BYTES;
    for (size_t i = 0; i < kept; i++) {
        l->rows[i].offset = align(at);
        at = l->rows[i].offset + l->rows[i].entry.bytes;
    }
    l->packed_bytes = kept > 0 ? at : 0;
    return QN_OK;
}

/* --- emitting --------------------------------------------------------------------------------- */
/* Goes over the file's bytes in order: summing them up, or writing them. */
typedef struct sink {
    const qn_qnm_crc *crc;
    qn_file_writer *file; /* NULL: sum */
    uint32_t sum;
    uint64_t at;
} sink;

static void emit(sink *s, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    if (s->file != NULL)
        qn__file_write(s->file, data, bytes);
    else
        s->sum = qn__qnm_crc_update(s->crc, s->sum, data, bytes);
    s->at += bytes;
}

static void pad_to(sink *s, uint64_t at)
{
    static const uint8_t ZEROS[QN_QNM_ALIGN] = {0};
    while (s->at < at) {
        const uint64_t left = at - s->at;
        emit(s, ZEROS, left < sizeof(ZEROS) ? (size_t)left : sizeof(ZEROS));
    }
}

static void emit_constant(sink *s, const qn_qnm_constant *c)
{
    const uint8_t *data = c->blob->data;
    size_t left = c->blob->size_bytes;
    if (!QN_QNM_SWAP || c->element < 2) {
        emit(s, data, left);
        return;
    }
    uint8_t part[1024]; /* a whole number of elements of any type */
    while (left > 0) {
        const size_t bytes = left < sizeof(part) ? left : sizeof(part);
        qn_qnm_swap(part, data, bytes, c->element);
        emit(s, part, bytes);
        data += bytes;
        left -= bytes;
    }
}

static void emit_packed(sink *s, const layout *l)
{
    const uint64_t begin = s->at;
    uint8_t header[QN_QNM_PACKED_HEADER_BYTES] = {0};
    qn_qnm_put(header, l->n_rows, 4);
    emit(s, header, sizeof(header));
    for (size_t i = 0; i < l->n_rows; i++) {
        const packed_row *const row = &l->rows[i];
        uint8_t record[QN_QNM_PACKED_ENTRY_BYTES] = {0};
        qn_qnm_put(record, row->weights, 8);
        qn_qnm_put(record + 8, row->entry.key, 8);
        qn_qnm_put(record + 16, row->entry.layout, 4);
        qn_qnm_put(record + 20, row->entry.flags, 4);
        qn_qnm_put(record + 24, row->offset, 8);
        qn_qnm_put(record + 32, row->entry.bytes, 8);
        emit(s, record, sizeof(record));
    }
    for (size_t i = 0; i < l->n_rows; i++) {
        pad_to(s, begin + l->rows[i].offset);
        emit(s, l->rows[i].entry.data, l->rows[i].entry.bytes);
    }
}

/* How sums are requantized, floats being 0. */
static uint32_t flags_of(const qn_graph *graph)
{
    return graph->requantize == QN_REQUANTIZE_FLOAT ? 0 : (uint32_t)graph->requantize;
}

static void emit_header(sink *s, const layout *l, uint32_t checksum)
{
    uint8_t header[QN_QNM_HEADER_BYTES] = {0};
    memcpy(header, QN_QNM_MAGIC, 8);
    qn_qnm_put(header + 8, QN_QNM_VERSION, 4);
    qn_qnm_put(header + 12, flags_of(l->graph), 4);
    qn_qnm_put(header + 16, l->file_bytes, 8);
    qn_qnm_put(header + QN_QNM_CHECKSUM_AT, checksum, 4);
    qn_qnm_put(header + 28, l->n_sections, 4);
    emit(s, header, sizeof(header));
    for (uint32_t i = 0; i < l->n_sections; i++) {
        uint8_t row[QN_QNM_SECTION_BYTES] = {0};
        const bool optional = i + 1 == QN_QNM_SECTION_PACKED;
        qn_qnm_put(row, i + 1, 4);
        qn_qnm_put(row + 4, optional ? 0 : QN_QNM_SECTION_REQUIRED, 4);
        qn_qnm_put(row + 8, l->offsets[i], 8);
        qn_qnm_put(row + 16, l->bytes[i], 8);
        emit(s, row, sizeof(row));
    }
}

static void emit_file(sink *s, const layout *l, uint32_t checksum)
{
    emit_header(s, l, checksum);
    pad_to(s, l->offsets[0]);
    emit(s, l->graph_section.data, l->graph_section.length);
    pad_to(s, l->offsets[1]);
    const uint64_t data = s->at;
    for (size_t i = 0; i < l->constants.n_placed; i++) {
        pad_to(s, data + l->constants.order[i]->offset);
        emit_constant(s, l->constants.order[i]);
    }
    if (l->n_sections > 2) {
        pad_to(s, l->offsets[2]);
        emit_packed(s, l);
    }
}

/* --- whole ------------------------------------------------------------------------------------ */
static qn_status lay_out(layout *l, const qn_qnm_write_options *options, qn_error *error)
{
    QN_TRY(qn__qnm_constants_collect(l->graph, &l->constants, error));
    QN_TRY(qn__qnm_write_graph(l->graph, options->strip_names, &l->constants, &l->graph_section,
                               error));
    QN_TRY(lay_out_packed(l, options->packed, error));
    l->n_sections = l->packed_bytes > 0 ? 3 : 2;
    l->bytes[0] = l->graph_section.length;
    l->bytes[1] = l->constants.bytes;
    l->bytes[2] = l->packed_bytes;
    uint64_t at = QN_QNM_HEADER_BYTES + (uint64_t)l->n_sections * QN_QNM_SECTION_BYTES;
    for (uint32_t i = 0; i < l->n_sections; i++) {
        l->offsets[i] = align(at);
        at = l->offsets[i] + l->bytes[i];
    }
    l->file_bytes = at;
    return QN_OK;
}

static qn_status write_file(const layout *l, const char *path, qn_error *error)
{
    qn_qnm_crc crc;
    qn__qnm_crc_init(&crc);
    sink sum = {.crc = &crc};
    emit_file(&sum, l, 0);
    sink out = {.crc = &crc};
    QN_TRY(qn__file_create(l->graph->ctx, path, &out.file, error));
    emit_file(&out, l, sum.sum);
    return qn__file_commit(out.file, error);
}

qn_status qn__qnm_write(const qn_graph *graph, const qn_qnm_write_options *options,
                        const char *path, uint64_t *bytes_written, qn_error *error)
{
    static const qn_qnm_write_options DEFAULTS = {0};
    layout l = {.graph = graph};
    qn__strbuf_init(&l.graph_section, graph->ctx, UINT32_MAX);
    qn_status status = qn__graph_verify(graph, error);
    if (status == QN_OK)
        status = lay_out(&l, options != NULL ? options : &DEFAULTS, error);
    if (status == QN_OK)
        status = write_file(&l, path, error);
    if (status == QN_OK && bytes_written != NULL)
        *bytes_written = l.file_bytes;
    qn__strbuf_free(&l.graph_section);
    qn__qnm_constants_free(graph->ctx, &l.constants);
    qn__free(graph->ctx, l.rows);
    return status;
}
