/* The public functions on statistics files. */
#include "calib/stats.h"

#include "quench/quantize.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

qn_status qn_stats_merge(const qn_context *ctx, const char *const *paths, size_t n,
                         const char *path, qn_error *error)
{
    qn_stats *total = NULL;
    QN_FAIL_IF(ctx == NULL || paths == NULL || n == 0 || path == NULL, error, QN_INVALID_ARGUMENT,
               "qn_stats_merge: NULL argument");
    for (size_t i = 0; i < n; i++)
        QN_FAIL_IF(paths[i] == NULL, error, QN_INVALID_ARGUMENT,
                   "qn_stats_merge: file %zu of %zu is NULL", i, n);
    qn_status status = qn__stats_open(ctx, paths[0], &total, error);
    for (size_t i = 1; i < n && status == QN_OK; i++) {
        qn_stats *part = NULL;
        status = qn__stats_open(ctx, paths[i], &part, error);
        if (status == QN_OK)
            status = qn__stats_merge(total, part, error);
        qn__stats_free(part);
    }
    if (status == QN_OK)
        status = qn__stats_write(total, path, error);
    qn__stats_free(total);
    return status;
}

/* --- describing --------------------------------------------------------------------------------*/
/* Names come from files: as JSON, or a line, can hold them. NULL: out of memory. */
static const char *shown(qn_stats *stats, const char *name)
{
    json_t *value = json_string(name);
    const bool utf8 = value != NULL;
    char *copy = qn__arena_strdup(&stats->arena, name);
    json_decref(value);
    for (char *p = copy; p != NULL && *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F || (!utf8 && (unsigned char)*p > 0x7F))
            *p = '?';
    return copy;
}

static void put(json_t *object, const char *key, json_t *value, bool *ok)
{
    *ok &= json_object_set_new_nocheck(object, key, value) == 0;
}

static json_t *head_json(const qn_stats *stats, bool *ok)
{
    char text[17];
    const qn_stats_stage *main = &stats->stages[QN_STATS_MAIN];
    json_t *root = json_object();
    put(root, "file", json_string_nocheck("quench statistics 1"), ok);
    (void)snprintf(text, sizeof(text), "%016" PRIx64, stats->head.model);
    put(root, "model", json_string(text), ok);
    put(root, "samples", json_integer((json_int_t)stats->head.n_samples), ok);
    put(root, "seen", json_integer((json_int_t)main->n_samples), ok);
    put(root, "equalize", json_boolean(stats->stages[QN_STATS_EQUALIZE].present), ok);
    return root;
}

/* The range seen: what a method without a search of its own gives. */
static qn_status range_json(qn_stats *stats, const qn_stats_stage *s, size_t i, json_t *ranges,
                            bool *ok, qn_error *error)
{
    const qn_range_format format = {.qmin = 0, .qmax = 255, .positions = 1};
    qn_range range;
    QN_TRY(s->methods[i]->finish(stats->ctx, s->states[i], &format, 1, &range, error));
    json_t *row = json_object();
    put(row, "tensor", json_string(shown(stats, s->item_names[i])), ok);
    put(row, "kind", json_string(s->methods[i]->state_kind), ok);
    put(row, "values", json_integer((json_int_t)range.count), ok);
    put(row, "lowest", range.valid ? json_real((double)range.seen_lo) : json_null(), ok);
    put(row, "highest", range.valid ? json_real((double)range.seen_hi) : json_null(), ok);
    *ok &= json_array_append_new(ranges, row) == 0;
    return QN_OK;
}

static int append(const char *text, size_t size_bytes, void *buf)
{
    qn__strbuf_append(buf, text, size_bytes);
    return ((qn_strbuf *)buf)->failed ? -1 : 0;
}

static qn_status describe_json(qn_stats *stats, char **text, qn_error *error)
{
    const qn_stats_stage *s = &stats->stages[QN_STATS_MAIN];
    bool ok = true;
    json_t *root = head_json(stats, &ok), *names = json_array(), *ranges = json_array();
    qn_status status = QN_OK;
    for (size_t i = 0; i < s->n_samples; i++)
        ok &= json_array_append_new(names, json_string(shown(stats, s->samples[i].name))) == 0;
    put(root, "names", names, &ok);
    put(root, "ranges", ranges, &ok);
    for (size_t i = 0; i < s->n_items && status == QN_OK; i++)
        status = range_json(stats, s, i, ranges, &ok, error);
    qn_strbuf buf;
    qn__strbuf_init(&buf, stats->ctx, SIZE_MAX / 4);
    ok = ok && json_dump_callback(root, append, &buf, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0;
    qn__strbuf_puts(&buf, "\n");
    if (status == QN_OK && (!ok || buf.failed))
        status = QN_NOMEM(error);
    if (status == QN_OK) {
        *text = buf.data;
        buf.data = NULL;
    }
    qn__strbuf_free(&buf);
    json_decref(root);
    return status;
}

static qn_status describe_text(qn_stats *stats, char **text, qn_error *error)
{
    const qn_range_format format = {.qmin = 0, .qmax = 255, .positions = 1};
    const qn_stats_stage *s = &stats->stages[QN_STATS_MAIN];
    qn_status status = QN_OK;
    qn_strbuf buf;
    qn__strbuf_init(&buf, stats->ctx, SIZE_MAX / 4);
    qn__strbuf_printf(&buf,
                      "statistics of %zu of %" PRIu64 " samples, model %016" PRIx64 "%s\n"
                      "%zu tensors, channel means of %zu, rows of %zu layers\n",
                      s->n_samples, stats->head.n_samples, stats->head.model,
                      stats->stages[QN_STATS_EQUALIZE].present ? ", equalized" : "", s->n_items,
                      s->n_means, s->n_rows);
    for (size_t i = 0; i < s->n_items && status == QN_OK; i++) {
        qn_range r;
        status = s->methods[i]->finish(stats->ctx, s->states[i], &format, 1, &r, error);
        const char *name = shown(stats, s->item_names[i]);
        if (status == QN_OK && name == NULL)
            status = QN_NOMEM(error);
        if (status == QN_OK)
            qn__strbuf_printf(&buf, "  %-40s %12g %12g\n", name, (double)r.seen_lo,
                              (double)r.seen_hi);
    }
    if (status == QN_OK && buf.failed)
        status = QN_NOMEM(error);
    if (status == QN_OK) {
        *text = buf.data;
        buf.data = NULL;
    }
    qn__strbuf_free(&buf);
    return status;
}

qn_status qn_stats_describe(const qn_context *ctx, const char *path, bool json, char **text,
                            qn_error *error)
{
    qn_stats *stats = NULL;
    QN_FAIL_IF(ctx == NULL || path == NULL || text == NULL, error, QN_INVALID_ARGUMENT,
               "qn_stats_describe: NULL argument");
    QN_TRY(qn__stats_open(ctx, path, &stats, error));
    const qn_status status =
        json ? describe_json(stats, text, error) : describe_text(stats, text, error);
    qn__stats_free(stats);
    return status;
}
