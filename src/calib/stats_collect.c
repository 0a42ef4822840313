/* Collecting statistics while calibrating. Every sample is appended to a journal as soon as it was
 * seen; what comes of it is read from there, so that a run that was interrupted and one that was
 * not are the same computation. */
#include "calib/stats_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

typedef struct qn_stats_journal {
    char *path;
    int fd;
    pthread_mutex_t lock;
} qn_stats_journal;

void qn__stats_journal_close(qn_stats *stats)
{
    qn_stats_journal *j = stats->journal;
    if (j == NULL)
        return;
    if (j->fd >= 0)
        stats->ctx->io.close(stats->ctx->io.ctx, j->fd);
    pthread_mutex_destroy(&j->lock);
    qn__free(stats->ctx, j->path);
    qn__free(stats->ctx, j);
    stats->journal = NULL;
}

/* --- what a run is of --------------------------------------------------------------------------*/
static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
    for (; *text != '\0'; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001B3u;
    return mix(hash, 0x100);
}

static uint64_t mix_bytes(const qn_qnm_crc *crc, uint64_t hash, const void *data, size_t bytes)
{
    return mix(mix(hash, bytes), bytes == 0 ? 0 : qn__qnm_crc_update(crc, 0, data, bytes));
}

static uint64_t mix_attr(const qn_qnm_crc *crc, uint64_t hash, const qn_attr *a)
{
    hash = mix(mix_text(hash, a->name), (uint64_t)a->kind);
    hash = mix_bytes(crc, hash, &a->f, sizeof(a->f));
    hash = mix(hash, (uint64_t)a->i);
    hash = a->s != NULL ? mix_text(hash, a->s) : hash;
    if (a->floats != NULL)
        hash = mix_bytes(crc, hash, a->floats, a->count * sizeof(*a->floats));
    if (a->ints != NULL)
        hash = mix_bytes(crc, hash, a->ints, a->count * sizeof(*a->ints));
    for (size_t i = 0; a->strings != NULL && i < a->count; i++)
        hash = mix_text(hash, a->strings[i]);
    return a->t != NULL ? mix_bytes(crc, hash, a->t->data, a->t->size_bytes) : hash;
}

uint64_t qn__graph_hash(const qn_graph *g)
{
    uint64_t hash = mix(0, g->n_nodes);
    qn_qnm_crc crc;
    qn__qnm_crc_init(&crc);
    for (size_t n = 0; n < g->n_nodes; n++) {
        const qn_node *node = g->nodes[n];
        hash = mix_text(mix_text(hash, qn__op_name(node->op)), node->name);
        hash = mix(hash, (uint64_t)node->act);
        if (node->act == QN_ACT_CLIP) {
            hash = mix_bytes(&crc, hash, &node->act_lo, sizeof(float));
            hash = mix_bytes(&crc, hash, &node->act_hi, sizeof(float));
        }
        for (uint32_t i = 0; i < node->n_inputs; i++)
            hash = node->inputs[i] == NULL ? mix(hash, 1) : mix_text(hash, node->inputs[i]->name);
        for (uint32_t i = 0; i < node->n_outputs; i++)
            hash = node->outputs[i] == NULL ? mix(hash, 1) : mix_text(hash, node->outputs[i]->name);
        for (uint32_t i = 0; i < node->n_attrs; i++)
            hash = mix_attr(&crc, hash, &node->attrs[i]);
    }
    for (size_t t = 0; t < g->n_tensors; t++)
        if (g->tensors[t]->constant != NULL)
            hash = mix_bytes(&crc, mix_text(hash, g->tensors[t]->name),
                             g->tensors[t]->constant->data, g->tensors[t]->constant->size_bytes);
    return hash;
}

static qn_status make_inputs(qn_stats *stats, const qn_graph *g, const qn_dataset *dataset,
                             qn_error *error)
{
    qn_stats_head *head = &stats->head;
    head->n_inputs = g->n_inputs;
    head->inputs = qn__arena_calloc(&stats->arena, g->n_inputs + 1, sizeof(*head->inputs));
    if (head->inputs == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < g->n_inputs; i++) {
        qn_stats_input *input = &head->inputs[i];
        input->name = qn__arena_strdup(&stats->arena, g->inputs[i]->name);
        if (input->name == NULL)
            return QN_NOMEM(error);
        QN_FAIL_IF(!qn_dataset_dims(dataset, i, &input->rank, input->dims) ||
                       !qn_shape_count(&input->count, input->dims, input->rank),
                   error, QN_INVALID_ARGUMENT, "no samples for input \"%s\"", input->name);
    }
    return QN_OK;
}

static qn_status make_head(qn_stats *stats, const qn_graph *g, const qn_dataset *dataset,
                           qn_error *error)
{
    const qn_dataset_options *o = qn__dataset_options(dataset);
    qn_stats_head *head = &stats->head;
    head->model = qn__graph_hash(g);
    head->n_samples = qn_dataset_count(dataset);
    for (size_t i = 0; i < head->n_samples; i++)
        head->names = mix_text(head->names, qn_dataset_name(dataset, i));
    head->preprocess = o->preprocess;
    head->pictures = o->data_file == NULL && o->sequences_dir == NULL;
    QN_FAIL_IF(head->n_samples == 0, error, QN_INVALID_ARGUMENT, "no calibration samples");
    return make_inputs(stats, g, dataset, error);
}

qn_status qn__stats_check_model(const qn_stats *stats, const qn_graph *simplified,
                                const qn_preprocess *preprocess, qn_error *error)
{
    QN_FAIL_IF(stats->head.model != qn__graph_hash(simplified), error, QN_INVALID_ARGUMENT,
               "%s: statistics of another model", stats->path);
    QN_FAIL_IF(preprocess != NULL && (!stats->head.pictures ||
                                      !qn__preprocess_equal(preprocess, &stats->head.preprocess)),
               error, QN_INVALID_ARGUMENT, "%s: statistics of samples preprocessed otherwise",
               stats->path);
    return QN_OK;
}

/* --- the journal -------------------------------------------------------------------------------*/
static qn_status check_journal(const qn_stats *found, const qn_stats *wanted, qn_error *error)
{
    const char *differs = qn__stats_head_differs(&found->head, &wanted->head);
    if (differs == NULL && !found->complete &&
        (found->part != wanted->part || found->n_parts != wanted->n_parts))
        differs = "the part";
    QN_FAIL_IF(differs != NULL, error, QN_INVALID_ARGUMENT,
               "%s: cannot be resumed: %s differs (take the file away to begin anew)", found->path,
               differs);
    return QN_OK;
}

/* What an earlier run has left: its journal, or the file if it got that far; or nothing. */
static qn_status find_earlier(qn_stats **stats, const char *journal, qn_error *error)
{
    qn_stats *wanted = *stats, *found = NULL;
    if (qn__file_exists(journal))
        QN_TRY(qn__stats_open_journal(wanted->ctx, journal, &found, error));
    else if (qn__file_exists(wanted->path))
        QN_TRY(qn__stats_open(wanted->ctx, wanted->path, &found, error));
    else
        return QN_OK;
    const qn_status status = check_journal(found, wanted, error);
    if (status != QN_OK) {
        qn__stats_free(found);
        return status;
    }
    found->sound = found->sound && !found->complete;
    found->path = qn__arena_strdup(&found->arena, wanted->path);
    found->part = wanted->part;
    found->n_parts = wanted->n_parts;
    found->complete = false;
    found->resumed = true;
    qn__stats_free(wanted);
    *stats = found;
    return found->path != NULL ? QN_OK : QN_NOMEM(error);
}

static qn_status open_journal(qn_stats *stats, char *path, qn_error *error)
{
    qn_stats_journal *j = qn__calloc(stats->ctx, 1, sizeof(*j));
    if (j == NULL) {
        qn__free(stats->ctx, path);
        return QN_NOMEM(error);
    }
    j->path = path;
    j->fd = -1;
    pthread_mutex_init(&j->lock, NULL);
    stats->journal = j;
    /* whole under its name before anything is appended: what an earlier run left damaged is gone */
    if (!stats->sound)
        QN_TRY(qn__stats_write_as(stats, path, true, error));
    const qn_io *io = &stats->ctx->io;
    j->fd = io->open(io->ctx, path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    QN_FAIL_IF(j->fd < 0, error, QN_IO, "%s: cannot write: %s", path, strerror(errno));
    return QN_OK;
}

static char *journal_path(const qn_context *ctx, const char *path)
{
    static const char SUFFIX[] = ".partial";
    const size_t length = strlen(path);
    char *name = qn__alloc(ctx, length + sizeof(SUFFIX));
    if (name == NULL)
        return NULL;
    memcpy(name, path, length);
    memcpy(name + length, SUFFIX, sizeof(SUFFIX));
    return name;
}

qn_status qn__stats_collect(const qn_graph *simplified, const qn_dataset *dataset,
                            const qn_stats_collect_options *options, qn_stats **out,
                            qn_error *error)
{
    const qn_context *ctx = simplified->ctx;
    qn_stats *stats = NULL;
    QN_FAIL_IF(options->part == 0 || options->part > options->n_parts, error, QN_INVALID_ARGUMENT,
               "part %llu of %llu", (unsigned long long)options->part,
               (unsigned long long)options->n_parts);
    QN_TRY(qn__stats_new(ctx, options->path, &stats, error));
    stats->part = options->part;
    stats->n_parts = options->n_parts;
    qn_status status = make_head(stats, simplified, dataset, error);
    char *path = status == QN_OK ? journal_path(ctx, options->path) : NULL;
    if (status == QN_OK && path == NULL)
        status = QN_NOMEM(error);
    if (status == QN_OK && options->resume)
        status = find_earlier(&stats, path, error);
    if (status == QN_OK)
        status = open_journal(stats, path, error);
    else
        qn__free(ctx, path);
    if (status == QN_OK)
        *out = stats;
    else
        qn__stats_free(stats);
    return status;
}

static qn_status append(qn_stats *stats, const qn_strbuf *buf, qn_error *error)
{
    const qn_io *io = &stats->ctx->io;
    qn_stats_journal *j = stats->journal;
    size_t done = 0;
    int reason = 0;
    if (buf->failed)
        return QN_NOMEM(error);
    pthread_mutex_lock(&j->lock);
    while (done < buf->length && reason == 0) {
        const int64_t n = io->write(io->ctx, j->fd, buf->data + done, buf->length - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            reason = n == 0 ? EIO : errno;
    }
    pthread_mutex_unlock(&j->lock);
    QN_FAIL_IF(reason != 0, error, QN_IO, "%s: cannot write: %s", j->path, strerror(reason));
    return QN_OK;
}

static qn_status append_stage(qn_stats *stats, uint32_t stage, bool seen, const qn_stats_stage *s,
                              qn_error *error)
{
    qn_strbuf buf;
    qn__strbuf_init(&buf, stats->ctx, SIZE_MAX / 4);
    qn__stats_put_stage_record(stats, &buf, stage, seen, s);
    const qn_status status = append(stats, &buf, error);
    qn__strbuf_free(&buf);
    return status;
}

qn_status qn__stats_append(qn_stats *stats, uint32_t stage, const qn_stats_stage *seen,
                           qn_error *error)
{
    stats->appended = true;
    return append_stage(stats, stage, true, seen, error);
}

/* --- stages ------------------------------------------------------------------------------------*/
static qn_status fill_items(qn_stats *stats, qn_stats_stage *s, const qn_graph *g,
                            const qn_calib_options *o, qn_error *error)
{
    qn_arena *a = &stats->arena;
    s->item_names = qn__arena_calloc(a, o->n_items + 1, sizeof(*s->item_names));
    s->methods = qn__arena_calloc(a, o->n_items + 1, sizeof(*s->methods));
    s->states = qn__arena_calloc(a, o->n_items + 1, sizeof(*s->states));
    if (s->item_names == NULL || s->methods == NULL || s->states == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < o->n_items; i++) {
        const qn_feature_method *m = o->items[i].method;
        const char *kind = m->state_kind;
        QN_FAIL_IF(kind == NULL, error, QN_UNSUPPORTED,
                   "features \"%s\" cannot be kept in a statistics file", m->name);
        s->methods[i] = qn__feature_method_of_kind(kind, strlen(kind));
        s->item_names[i] = qn__arena_strdup(a, g->tensors[o->items[i].tensor_id]->name);
        s->states[i] = qn__alloc(stats->ctx, s->methods[i]->state_bytes());
        if (s->item_names[i] == NULL || s->states[i] == NULL)
            return QN_NOMEM(error);
        s->methods[i]->init(s->states[i]);
        s->n_items = i + 1;
    }
    return QN_OK;
}

static qn_status fill_table(qn_stats *stats, qn_stats_stage *s, const qn_graph *g,
                            const qn_calib_options *o, qn_error *error)
{
    qn_arena *a = &stats->arena;
    QN_TRY(fill_items(stats, s, g, o, error));
    s->mean_names = qn__arena_calloc(a, o->n_means + 1, sizeof(*s->mean_names));
    s->means = qn__arena_calloc(a, o->n_means + 1, sizeof(*s->means));
    s->rows = qn__arena_calloc(a, o->n_rows + 1, sizeof(*s->rows));
    if (s->mean_names == NULL || s->means == NULL || s->rows == NULL)
        return QN_NOMEM(error);
    s->n_means = o->n_means;
    for (size_t i = 0; i < o->n_means; i++)
        s->mean_names[i] = qn__arena_strdup(a, g->tensors[o->mean_ids[i]]->name);
    for (size_t i = 0; i < o->n_rows; i++) {
        const qn_rows *r = &o->rows[i];
        if (r->data == NULL)
            continue;
        s->rows[s->n_rows++] = (qn_stats_row){.node = qn__arena_strdup(a, g->nodes[r->node]->name),
                                              .groups = r->groups,
                                              .k = r->k,
                                              .n_rows = r->n_rows};
    }
    return qn__arena_check(a, error);
}

static bool same_table(const qn_stats *stats, const qn_stats_stage *a, const qn_stats_stage *b)
{
    qn_strbuf x, y;
    qn__strbuf_init(&x, stats->ctx, SIZE_MAX / 4);
    qn__strbuf_init(&y, stats->ctx, SIZE_MAX / 4);
    qn__stats_put_table(&x, a);
    qn__stats_put_table(&y, b);
    const bool same =
        !x.failed && !y.failed && x.length == y.length && memcmp(x.data, y.data, x.length) == 0;
    qn__strbuf_free(&x);
    qn__strbuf_free(&y);
    return same;
}

static void free_states(const qn_stats *stats, qn_stats_stage *s)
{
    for (size_t i = 0; i < s->n_items; i++) {
        s->methods[i]->release(stats->ctx, s->states[i]);
        qn__free(stats->ctx, s->states[i]);
    }
    s->n_items = 0;
}

qn_status qn__stats_begin_stage(qn_stats *stats, uint32_t stage, const qn_graph *graph,
                                const qn_calib_options *options, uint64_t n_used, uint64_t n_few,
                                qn_error *error)
{
    qn_stats_stage *s = &stats->stages[stage];
    qn_stats_stage table = {.present = true,
                            .graph = qn__graph_hash(graph),
                            .n_used = n_used,
                            .n_few = n_few,
                            .want_peaks = options->want_peaks};
    qn_status status = fill_table(stats, &table, graph, options, error);
    if (status == QN_OK && !s->present) {
        *s = table;
        return append_stage(stats, stage, false, s, error);
    }
    if (status == QN_OK && !same_table(stats, s, &table))
        status = qn__error_set(error, QN_INVALID_ARGUMENT,
                               "%s: cannot be resumed: options of quantization differ that decide "
                               "what is observed (take the file away to begin anew)",
                               stats->journal->path);
    free_states(stats, &table);
    return status;
}

bool qn__stats_lacks(const qn_stats *stats, uint32_t stage, uint64_t sample)
{
    const uint64_t n = stats->head.n_samples;
    if (stage == QN_STATS_MAIN &&
        (sample < qn_stats_part_begin(n, stats->part, stats->n_parts) ||
         sample >= qn_stats_part_begin(n, stats->part + 1, stats->n_parts)))
        return false;
    return !qn__stats_has(&stats->stages[stage], sample);
}

static qn_status read_stage(qn_stats *stats, uint32_t stage, qn_qnm_cursor file, qn_error *error)
{
    enum { BATCH = 64 };
    qn_qnm_cursor seen[BATCH], payload;
    size_t n = 0;
    uint32_t tag = 0;
    bool good = true;
    while (qn__stats_next_record(&file, &tag, &payload, &good)) {
        if (tag != QN_STATS_TAG_SEEN || qn_qnm_u8(&payload) != stage)
            continue;
        seen[n++] = payload;
        if (n < BATCH)
            continue;
        QN_TRY(qn__stats_add_seen(stats, &stats->stages[stage], seen, n, error));
        n = 0;
    }
    QN_FAIL_IF(!good, error, QN_CORRUPT, "%s: damaged while it was written", stats->journal->path);
    QN_TRY(qn__stats_add_seen(stats, &stats->stages[stage], seen, n, error));
    return qn__stats_sort(stats, &stats->stages[stage], error);
}

qn_status qn__stats_end_stage(qn_stats *stats, uint32_t stage, qn_error *error)
{
    const char *path = stats->journal->path;
    qn_file_view view;
    qn_qnm_cursor file;
    QN_TRY(qn__stats_view(stats->ctx, path, &view, error));
    qn__stats_stage_clear(stats, &stats->stages[stage]);
    qn_status status = qn__stats_open_records(path, &view, &file, error);
    if (status == QN_OK)
        status = read_stage(stats, stage, file, error);
    qn__file_close(stats->ctx, &view);
    return status;
}

void qn__stats_give_up(qn_stats *stats)
{
    if (stats == NULL || stats->journal == NULL || stats->resumed || stats->appended)
        return;
    stats->ctx->io.unlink(stats->ctx->io.ctx, stats->journal->path);
}

qn_status qn__stats_finish(qn_stats *stats, qn_error *error)
{
    const qn_io *io = &stats->ctx->io;
    QN_TRY(qn__stats_write(stats, stats->path, error));
    io->unlink(io->ctx, stats->journal->path);
    qn__stats_journal_close(stats);
    return QN_OK;
}
