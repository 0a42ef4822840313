/* Statistics files: records, whole files, merging. */
#include "calib/stats.h"

#include "calib/stats_journal.h"

#include <string.h>

enum { VERSION = 1, RECORD_BYTES = 16, BATCH = 64, TAG_HEAD = 1, TAG_PART, TAG_TABLE, TAG_END = 5 };
#define MOST_BYTES (SIZE_MAX / 4)
static const uint8_t MAGIC[8] = {0x8A, 'Q', 'N', 'S', 'T', 'A', 'T', '\n'};

qn_status qn__stats_new(const qn_context *ctx, const char *path, qn_stats **out, qn_error *error)
{
    qn_stats *s = qn__calloc(ctx, 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    s->ctx = ctx;
    qn__arena_init(&s->arena, ctx);
    s->path = qn__arena_strdup(&s->arena, path);
    if (s->path == NULL) {
        qn__stats_free(s);
        return QN_NOMEM(error);
    }
    *out = s;
    return QN_OK;
}

void qn__stats_free(qn_stats *stats)
{
    if (stats == NULL)
        return;
    for (size_t i = 0; i < QN_STATS_STAGES; i++) {
        qn_stats_stage *s = &stats->stages[i];
        qn__stats_stage_clear(stats, s);
        for (size_t k = 0; k < s->n_items; k++)
            qn__free(stats->ctx, s->states[k]);
    }
    qn__stats_journal_close(stats);
    qn__arena_free(&stats->arena);
    qn__free(stats->ctx, stats);
}

/* --- records -----------------------------------------------------------------------------------*/
size_t qn__stats_begin_record(qn_strbuf *buf, uint32_t tag)
{
    const size_t at = buf->length;
    qn__put_fixed(buf, tag, 4);
    qn__put_fixed(buf, 0, 8); /* length and checksum: qn__stats_end_record */
    qn__put_fixed(buf, 0, 4);
    return at;
}

static uint32_t record_checksum(const uint8_t *record, size_t bytes)
{
    qn_qnm_crc crc;
    qn__qnm_crc_init(&crc);
    const uint32_t head = qn__qnm_crc_update(&crc, 0, record, RECORD_BYTES - 4);
    return qn__qnm_crc_update(&crc, head, record + RECORD_BYTES, bytes);
}

void qn__stats_end_record(qn_strbuf *buf, size_t at)
{
    if (buf->failed)
        return;
    uint8_t *record = (uint8_t *)buf->data + at;
    const size_t bytes = buf->length - at - RECORD_BYTES;
    qn_qnm_put(record + 4, bytes, 8);
    qn_qnm_put(record + 12, record_checksum(record, bytes), 4);
}

/* The next record; false at the end, or (*good then false) where it is damaged. */
bool qn__stats_next_record(qn_qnm_cursor *file, uint32_t *tag, qn_qnm_cursor *payload, bool *good)
{
    const uint8_t *record = file->at;
    *good = true;
    if (file->left == 0)
        return false;
    *good = file->left >= RECORD_BYTES;
    const uint64_t bytes = *good ? qn_qnm_u64_at(record + 4) : 0;
    *good = *good && bytes <= file->left - RECORD_BYTES &&
            record_checksum(record, (size_t)bytes) == qn_qnm_u32_at(record + 12);
    if (!*good)
        return false;
    *tag = qn_qnm_u32_at(record);
    *payload = (qn_qnm_cursor){record + RECORD_BYTES, (size_t)bytes, false};
    (void)qn_qnm_take(file, RECORD_BYTES + (size_t)bytes);
    return true;
}

/* Behind a file's magic and version. */
qn_status qn__stats_open_records(const char *path, const qn_file_view *view, qn_qnm_cursor *out,
                                 qn_error *error)
{
    qn_qnm_cursor c = {view->data, view->size_bytes, false};
    const uint8_t *magic = qn_qnm_take(&c, sizeof(MAGIC));
    QN_FAIL_IF(magic == NULL || memcmp(magic, MAGIC, sizeof(MAGIC)) != 0, error,
               QN_INVALID_ARGUMENT, "%s: not a statistics file", path);
    const uint32_t version = qn_qnm_u32(&c);
    QN_FAIL_IF(c.failed, error, QN_CORRUPT, "%s: cut off", path);
    QN_FAIL_IF(version != VERSION, error, QN_UNSUPPORTED,
               "%s: version %u of statistics files, this program reads %d", path, version, VERSION);
    *out = c;
    return QN_OK;
}

/* --- reading -----------------------------------------------------------------------------------*/
typedef struct batch {
    qn_qnm_cursor seen[BATCH];
    size_t n;
    uint8_t stage;
} batch;

static qn_status flush(qn_stats *stats, batch *b, qn_error *error)
{
    const size_t n = b->n;
    b->n = 0;
    return n == 0 ? QN_OK : qn__stats_add_seen(stats, &stats->stages[b->stage], b->seen, n, error);
}

static qn_status add_to_batch(qn_stats *stats, batch *b, uint8_t stage, qn_qnm_cursor seen,
                              qn_error *error)
{
    if (b->n == BATCH || b->stage != stage)
        QN_TRY(flush(stats, b, error));
    b->stage = stage;
    b->seen[b->n++] = seen;
    return QN_OK;
}

static qn_status read_part(qn_stats *stats, qn_qnm_cursor *c, qn_error *error)
{
    stats->part = qn__get_varint(c);
    stats->n_parts = qn__get_varint(c);
    QN_FAIL_IF(c->failed || c->left > 0 || stats->part == 0 || stats->part > stats->n_parts, error,
               QN_CORRUPT, "%s: damaged statistics: its part", stats->path);
    return QN_OK;
}

static qn_status read_record(qn_stats *stats, batch *b, uint32_t tag, qn_qnm_cursor c, size_t n,
                             qn_error *error)
{
    QN_FAIL_IF((n == 0) != (tag == TAG_HEAD), error, QN_CORRUPT,
               "%s: damaged statistics: record %zu is out of place", stats->path, n);
    if (tag == TAG_HEAD)
        return qn__stats_get_head(stats, &c, error);
    if (tag == TAG_PART)
        return read_part(stats, &c, error);
    const uint8_t stage = tag == TAG_TABLE || tag == QN_STATS_TAG_SEEN ? qn_qnm_u8(&c) : 0xFF;
    const bool known = !c.failed && stage < QN_STATS_STAGES;
    if (known && tag == TAG_TABLE && !stats->stages[stage].present)
        return qn__stats_get_table(stats, &c, &stats->stages[stage], error);
    if (known && tag == QN_STATS_TAG_SEEN && stats->stages[stage].present)
        return add_to_batch(stats, b, stage, c, error);
    QN_FAIL_IF(tag != TAG_END || stats->complete || c.left > 0, error, QN_CORRUPT,
               "%s: damaged statistics: record %zu is out of place", stats->path, n);
    stats->complete = true;
    return QN_OK;
}

static qn_status read_records(qn_stats *stats, const char *path, const qn_file_view *view,
                              bool journal, qn_error *error)
{
    qn_qnm_cursor file, payload;
    uint32_t tag = 0;
    batch b = {.n = 0};
    bool good = true;
    size_t n = 0;
    QN_TRY(qn__stats_open_records(path, view, &file, error));
    while (!stats->complete && qn__stats_next_record(&file, &tag, &payload, &good))
        QN_TRY(read_record(stats, &b, tag, payload, n++, error));
    QN_FAIL_IF(n == 0, error, QN_CORRUPT, "%s: damaged statistics: no head", path);
    QN_FAIL_IF(!journal && (!good || !stats->complete || file.left > 0 || stats->n_parts > 0),
               error, QN_CORRUPT, "%s: cut off or damaged at byte %zu", path,
               view->size_bytes - file.left);
    stats->sound = good && file.left == 0;
    QN_TRY(flush(stats, &b, error));
    for (size_t i = 0; i < QN_STATS_STAGES; i++)
        QN_TRY(qn__stats_sort(stats, &stats->stages[i], error));
    return QN_OK;
}

/* Statistics may be larger than models: their own limits are on what is in them. */
qn_status qn__stats_view(const qn_context *ctx, const char *path, qn_file_view *out,
                         qn_error *error)
{
    qn_context any_size = *ctx;
    any_size.limits.file_bytes = UINT64_MAX;
    return qn__file_open(&any_size, path, out, error);
}

static qn_status open_any(const qn_context *ctx, const char *path, bool journal, qn_stats **out,
                          qn_error *error)
{
    qn_file_view view;
    qn_stats *stats = NULL;
    QN_TRY(qn__stats_view(ctx, path, &view, error));
    qn_status status = qn__stats_new(ctx, path, &stats, error);
    if (status == QN_OK)
        status = read_records(stats, path, &view, journal, error);
    qn__file_close(ctx, &view);
    if (status == QN_OK)
        *out = stats;
    else
        qn__stats_free(stats);
    return status;
}

qn_status qn__stats_open(const qn_context *ctx, const char *path, qn_stats **out, qn_error *error)
{
    return open_any(ctx, path, false, out, error);
}

qn_status qn__stats_open_journal(const qn_context *ctx, const char *path, qn_stats **out,
                                 qn_error *error)
{
    return open_any(ctx, path, true, out, error);
}

/* --- writing -----------------------------------------------------------------------------------*/
void qn__stats_put_stage_record(const qn_stats *stats, qn_strbuf *buf, uint32_t stage, bool seen,
                                const qn_stats_stage *what)
{
    const size_t at = qn__stats_begin_record(buf, seen ? QN_STATS_TAG_SEEN : TAG_TABLE);
    qn__put_fixed(buf, stage, 1);
    if (seen)
        qn__stats_put_seen(stats, buf, what);
    else
        qn__stats_put_table(buf, what);
    qn__stats_end_record(buf, at);
}

static qn_status write_buffer(qn_file_writer *writer, qn_strbuf *buf, qn_error *error)
{
    if (buf->failed)
        return QN_NOMEM(error);
    qn__file_write(writer, buf->data, buf->length);
    buf->length = 0;
    return QN_OK;
}

static qn_status write_records(const qn_stats *stats, qn_file_writer *writer, qn_strbuf *buf,
                               bool journal, qn_error *error)
{
    qn__strbuf_append(buf, MAGIC, sizeof(MAGIC));
    qn__put_fixed(buf, VERSION, 4);
    size_t at = qn__stats_begin_record(buf, TAG_HEAD);
    qn__stats_put_head(buf, &stats->head);
    qn__stats_end_record(buf, at);
    if (journal) {
        at = qn__stats_begin_record(buf, TAG_PART);
        qn__put_varint(buf, stats->part);
        qn__put_varint(buf, stats->n_parts);
        qn__stats_end_record(buf, at);
    }
    for (uint32_t i = 0; i < QN_STATS_STAGES; i++) {
        const qn_stats_stage *s = &stats->stages[i];
        if (!s->present)
            continue;
        qn__stats_put_stage_record(stats, buf, i, false, s);
        qn__stats_put_stage_record(stats, buf, i, true, s);
        QN_TRY(write_buffer(writer, buf, error));
    }
    if (!journal)
        qn__stats_end_record(buf, qn__stats_begin_record(buf, TAG_END));
    return write_buffer(writer, buf, error);
}

qn_status qn__stats_write_as(const qn_stats *stats, const char *path, bool journal, qn_error *error)
{
    qn_file_writer *writer = NULL;
    qn_strbuf buf;
    QN_TRY(qn__file_create(stats->ctx, path, &writer, error));
    qn__strbuf_init(&buf, stats->ctx, MOST_BYTES);
    const qn_status status = write_records(stats, writer, &buf, journal, error);
    qn__strbuf_free(&buf);
    if (status == QN_OK)
        return qn__file_commit(writer, error);
    qn__file_abandon(writer);
    return status;
}

qn_status qn__stats_write(const qn_stats *stats, const char *path, qn_error *error)
{
    return qn__stats_write_as(stats, path, false, error);
}

/* --- merging -----------------------------------------------------------------------------------*/
static bool same_inputs(const qn_stats_head *a, const qn_stats_head *b)
{
    bool same = a->n_inputs == b->n_inputs;
    for (size_t i = 0; same && i < a->n_inputs; i++) {
        const qn_stats_input *x = &a->inputs[i], *y = &b->inputs[i];
        same = strcmp(x->name, y->name) == 0 && x->rank == y->rank &&
               memcmp(x->dims, y->dims, x->rank * sizeof(*x->dims)) == 0;
    }
    return same;
}

bool qn__preprocess_equal(const qn_preprocess *a, const qn_preprocess *b)
{
    return a->channels == b->channels && a->filter == b->filter && a->n_mean == b->n_mean &&
           a->n_normal == b->n_normal && memcmp(a->mean, b->mean, a->n_mean * sizeof(float)) == 0 &&
           memcmp(a->normal, b->normal, a->n_normal * sizeof(float)) == 0 &&
           a->resize_shorter == b->resize_shorter && a->resize_width == b->resize_width &&
           a->resize_height == b->resize_height && a->crop_width == b->crop_width &&
           a->crop_height == b->crop_height && a->letterbox_width == b->letterbox_width &&
           a->letterbox_height == b->letterbox_height && a->centre_width == b->centre_width &&
           a->centre_height == b->centre_height;
}

const char *qn__stats_head_differs(const qn_stats_head *a, const qn_stats_head *b)
{
    if (a->model != b->model)
        return "the model";
    if (!same_inputs(a, b))
        return "the shapes of its inputs";
    if (a->pictures != b->pictures || !qn__preprocess_equal(&a->preprocess, &b->preprocess))
        return "the preprocessing";
    if (a->n_samples != b->n_samples)
        return "the number of samples";
    return a->names != b->names ? "the list of samples" : NULL;
}

/* One stage of both as bytes: their tables, or what they saw. */
static qn_status stage_bytes(const qn_stats *a, const qn_stats *b, size_t stage, bool seen,
                             qn_strbuf *bytes, qn_error *error)
{
    const qn_stats *const both[] = {a, b};
    for (size_t i = 0; i < 2; i++) {
        qn__strbuf_init(&bytes[i], a->ctx, MOST_BYTES);
        if (seen)
            qn__stats_put_seen(both[i], &bytes[i], &both[i]->stages[stage]);
        else
            qn__stats_put_table(&bytes[i], &both[i]->stages[stage]);
    }
    return bytes[0].failed || bytes[1].failed ? QN_NOMEM(error) : QN_OK;
}

static qn_status compare_stage(const qn_stats *a, const qn_stats *b, size_t stage, bool seen,
                               const char *what, qn_error *error)
{
    qn_strbuf bytes[2];
    qn_status status = stage_bytes(a, b, stage, seen, bytes, error);
    if (status == QN_OK && (bytes[0].length != bytes[1].length ||
                            memcmp(bytes[0].data, bytes[1].data, bytes[0].length) != 0))
        status = qn__error_set(error, QN_INVALID_ARGUMENT, "%s and %s cannot be merged: %s",
                               a->path, b->path, what);
    qn__strbuf_free(&bytes[0]);
    qn__strbuf_free(&bytes[1]);
    return status;
}

qn_status qn__stats_merge(qn_stats *into, const qn_stats *from, qn_error *error)
{
    const char *differs = qn__stats_head_differs(&into->head, &from->head);
    QN_FAIL_IF(differs != NULL, error, QN_INVALID_ARGUMENT,
               "%s and %s cannot be merged: %s differs", into->path, from->path, differs);
    for (size_t i = 0; i < QN_STATS_STAGES; i++) {
        QN_FAIL_IF(into->stages[i].present != from->stages[i].present, error, QN_INVALID_ARGUMENT,
                   "%s and %s cannot be merged: %s", into->path, from->path,
                   i == QN_STATS_EQUALIZE ? "one was made with --equalize off"
                                          : "one of them is empty");
        if (into->stages[i].present)
            QN_TRY(compare_stage(into, from, i, false,
                                 "options of quantization differ that decide what is observed",
                                 error));
    }
    if (into->stages[QN_STATS_EQUALIZE].present)
        QN_TRY(compare_stage(into, from, QN_STATS_EQUALIZE, true,
                             "the samples that equalization looks at, the same for all parts, gave "
                             "other values",
                             error));
    if (!into->stages[QN_STATS_MAIN].present)
        return QN_OK;
    qn_stats_stage *main = &into->stages[QN_STATS_MAIN];
    qn_strbuf bytes;
    for (size_t i = 0; i < from->stages[QN_STATS_MAIN].n_samples; i++) {
        const qn_stats_sample *sample = &from->stages[QN_STATS_MAIN].samples[i];
        QN_FAIL_IF(qn__stats_has(main, sample->index), error, QN_INVALID_ARGUMENT,
                   "%s: sample %llu, \"%s\", is in the other statistics already", from->path,
                   (unsigned long long)sample->index, sample->name);
    }
    qn__strbuf_init(&bytes, into->ctx, MOST_BYTES);
    qn__stats_put_seen(from, &bytes, &from->stages[QN_STATS_MAIN]);
    const qn_qnm_cursor seen = {(const uint8_t *)bytes.data, bytes.length, false};
    qn_status status = bytes.failed ? QN_NOMEM(error) : QN_OK;
    if (status == QN_OK)
        status = qn__stats_add_seen(into, main, &seen, 1, error);
    qn__strbuf_free(&bytes);
    return status == QN_OK ? qn__stats_sort(into, main, error) : status;
}
