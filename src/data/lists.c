#include "data/lists.h"

#include <string.h>

#include "core/io.h"

#define QN_LIST_LINE_MAX 4096

typedef struct qn_line_reader {
    const char *path;
    const char *p, *end;
    size_t number; /* of the line returned last, from 1 */
} qn_line_reader;

static void lines_begin(qn_line_reader *reader, const char *path, const qn_file_view *view)
{
    *reader = (qn_line_reader){path, (const char *)view->data, NULL, 0};
    if (view->size_bytes == 0)
        reader->p = "";
    reader->end = reader->p + view->size_bytes;
    if (view->size_bytes >= 3 && memcmp(reader->p, "\xef\xbb\xbf", 3) == 0)
        reader->p += 3; /* byte order mark */
}

/* Next line that is not empty; *line is NULL at the end. */
static qn_status lines_next(qn_line_reader *reader, const char **line, size_t *length,
                            qn_error *error)
{
    *line = NULL;
    while (reader->p < reader->end) {
        const char *start = reader->p;
        const char *stop = memchr(start, '\n', (size_t)(reader->end - start));
        reader->p = stop != NULL ? stop + 1 : reader->end;
        size_t n = (size_t)((stop != NULL ? stop : reader->end) - start);
        reader->number++;
        while (n > 0 && (start[n - 1] == '\r' || start[n - 1] == ' ' || start[n - 1] == '\t'))
            n--;
        if (n == 0)
            continue;
        QN_FAIL_IF(n > QN_LIST_LINE_MAX, error, QN_CORRUPT,
                   "%s: line %zu has %zu bytes, at most %d", reader->path, reader->number, n,
                   QN_LIST_LINE_MAX);
        QN_FAIL_IF(memchr(start, 0, n) != NULL, error, QN_CORRUPT, "%s: line %zu: NUL byte",
                   reader->path, reader->number);
        *line = start;
        *length = n;
        return QN_OK;
    }
    return QN_OK;
}

qn_status qn__list_read(const qn_context *ctx, qn_arena *arena, const char *path,
                        const char ***lines, size_t *count, qn_error *error)
{
    qn_file_view view;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    qn_status status;
    const char **list = NULL;
    size_t n = 0, capacity = 0;
    qn_line_reader reader;
    lines_begin(&reader, path, &view);
    for (;;) {
        const char *line;
        size_t length;
        QN_TRY_GOTO(lines_next(&reader, &line, &length, error));
        if (line == NULL)
            break;
        char *copy = qn__arena_strndup(arena, line, length);
        if (copy == NULL || !QN_GROW(ctx, &list, &capacity, n)) {
            status = QN_NOMEM(error);
            goto done;
        }
        list[n++] = copy;
    }
    *lines = list;
    *count = n;
    list = NULL;
done:
    qn__free(ctx, list);
    qn__file_close(ctx, &view);
    return status;
}

static bool parse_number(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || value > (INT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *out = value;
    return true;
}

bool qn__list_row(const char *text, uint64_t *row)
{
    return parse_number(strncmp(text, "row ", 4) == 0 ? text + 4 : text, row);
}

/* Reads one csv field at p, without surrounding blanks; returns what follows it (the comma or the
 * end), NULL when a quote is not closed. out has room for the whole line. */
static const char *csv_field(const char *p, const char *end, char *out)
{
    size_t n = 0;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    if (p < end && *p == '"') {
        for (p++;; p++) {
            if (p == end)
                return NULL;
            if (*p == '"') {
                if (p + 1 == end || p[1] != '"')
                    break;
                p++; /* a doubled quote stands for one */
            }
            out[n++] = *p;
        }
        for (p++; p < end && *p != ',';)
            p++;
    } else {
        while (p < end && *p != ',')
            out[n++] = *p++;
        while (n > 0 && (out[n - 1] == ' ' || out[n - 1] == '\t'))
            n--;
    }
    out[n] = '\0';
    return p;
}

static qn_status parse_label(const qn_line_reader *reader, const char *line, size_t length,
                             char *name, int64_t *value, bool *is_header, qn_error *error)
{
    char number[QN_LIST_LINE_MAX + 1];
    const char *end = line + length;
    const char *p = csv_field(line, end, name);
    QN_FAIL_IF(p == NULL, error, QN_CORRUPT, "%s: line %zu: quote not closed", reader->path,
               reader->number);
    QN_FAIL_IF(p == end, error, QN_CORRUPT, "%s: line %zu has one column, needs name,class_index",
               reader->path, reader->number);
    p = csv_field(p + 1, end, number);
    QN_FAIL_IF(p == NULL, error, QN_CORRUPT, "%s: line %zu: quote not closed", reader->path,
               reader->number);
    uint64_t parsed = 0;
    const bool ok = parse_number(number, &parsed);
    *is_header = !ok && reader->number == 1;
    QN_FAIL_IF(!ok && !*is_header, error, QN_CORRUPT, "%s: line %zu: \"%.60s\" is no class index",
               reader->path, reader->number, number);
    QN_FAIL_IF(name[0] == '\0', error, QN_CORRUPT, "%s: line %zu: empty name", reader->path,
               reader->number);
    *value = (int64_t)parsed;
    return QN_OK;
}

qn_status qn__labels_read(const qn_context *ctx, qn_arena *arena, const char *path,
                          qn_label **labels, size_t *count, qn_error *error)
{
    qn_file_view view;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    qn_status status;
    qn_label *list = NULL;
    size_t n = 0, capacity = 0;
    char name[QN_LIST_LINE_MAX + 1];
    qn_line_reader reader;
    lines_begin(&reader, path, &view);
    for (;;) {
        const char *line;
        size_t length;
        bool is_header = false;
        int64_t value = -1;
        QN_TRY_GOTO(lines_next(&reader, &line, &length, error));
        if (line == NULL)
            break;
        QN_TRY_GOTO(parse_label(&reader, line, length, name, &value, &is_header, error));
        if (is_header)
            continue;
        char *copy = qn__arena_strdup(arena, name);
        if (copy == NULL || !QN_GROW(ctx, &list, &capacity, n)) {
            status = QN_NOMEM(error);
            goto done;
        }
        list[n++] = (qn_label){copy, value, reader.number};
    }
    *labels = list;
    *count = n;
    list = NULL;
done:
    qn__free(ctx, list);
    qn__file_close(ctx, &view);
    return status;
}
