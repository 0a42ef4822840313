/* Rows of numbers as text: one sample a line, numbers separated by commas, semicolons or tabs. A first
 * line that has something else in a column is a header. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/checked.h"
#include "core/number.h"
#include "data/tensor_file.h"

enum { NUMBER_MAX = 64 };

typedef struct csv {
    const char *path;
    const char *p, *end;
    size_t line; /* of the row read last, from 1 */
    char separator;
} csv;

/* The next line that is not blank, without its end. */
static bool next_line(csv *c, const char **begin, const char **stop)
{
    while (c->p < c->end) {
        const char *start = c->p;
        const char *newline = memchr(start, '\n', (size_t)(c->end - start));
        const char *last = newline != NULL ? newline : c->end;
        c->p = newline != NULL ? newline + 1 : c->end;
        c->line++;
        while (last > start && (last[-1] == '\r' || last[-1] == ' '))
            last--;
        if (last == start)
            continue;
        *begin = start;
        *stop = last;
        return true;
    }
    return false;
}

static const char *column_end(const csv *c, const char *p, const char *stop)
{
    const char *at = memchr(p, c->separator, (size_t)(stop - p));
    return at != NULL ? at : stop;
}

static size_t count_columns(const csv *c, const char *p, const char *stop)
{
    size_t n = 1;
    while ((p = column_end(c, p, stop)) < stop) {
        n++;
        p++;
    }
    return n;
}

/* One column's text as a number; quotes around it are allowed. */
static bool read_number(const char *p, const char *stop, double *out)
{
    char text[NUMBER_MAX];
    while (p < stop && (*p == ' ' || *p == '\t'))
        p++;
    while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    if (stop - p >= 2 && *p == '"' && stop[-1] == '"') {
        p++;
        stop--;
    }
    const size_t n = (size_t)(stop - p);
    if (n == 0 || n >= sizeof(text) || memchr(p, 0, n) != NULL)
        return false;
    memcpy(text, p, n);
    text[n] = '\0';
    return qn__parse_f64(text, NULL, out);
}

static bool is_header(const csv *c, const char *p, const char *stop)
{
    for (;;) {
        const char *end = column_end(c, p, stop);
        double value;
        if (!read_number(p, end, &value))
            return true;
        if (end == stop)
            return false;
        p = end + 1;
    }
}

static void csv_begin(csv *c, const char *path, const qn_file_view *view, char separator)
{
    *c = (csv){path, (const char *)view->data, NULL, 0, separator};
    if (view->size_bytes == 0)
        c->p = "";
    c->end = c->p + view->size_bytes;
    if (view->size_bytes >= 3 && memcmp(c->p, "\xef\xbb\xbf", 3) == 0)
        c->p += 3; /* byte order mark */
}

static char find_separator(const char *p, const char *stop)
{
    const size_t n = (size_t)(stop - p);
    return memchr(p, ';', n) != NULL ? ';' : memchr(p, '\t', n) != NULL ? '\t' : ',';
}

static qn_status read_row(const csv *c, const char *p, const char *stop, size_t columns,
                          float *values, qn_error *error)
{
    const size_t found = count_columns(c, p, stop);
    QN_FAIL_IF(found != columns, error, QN_CORRUPT, "%s: line %zu has %zu columns, the first %zu",
               c->path, c->line, found, columns);
    for (size_t i = 0; i < columns; i++) {
        const char *end = column_end(c, p, stop);
        double value;
        const int shown = end - p < 40 ? (int)(end - p) : 40;
        QN_FAIL_IF(!read_number(p, end, &value), error, QN_CORRUPT,
                   "%s: line %zu, column %zu: \"%.*s\" is not a number", c->path, c->line, i + 1,
                   memchr(p, 0, (size_t)shown) != NULL ? 0 : shown, p);
        QN_FAIL_IF(!(fabs(value) <= (double)FLT_MAX), error, QN_NONFINITE,
                   "%s: line %zu, column %zu: %.*s is not a finite float32", c->path, c->line,
                   i + 1, shown, p);
        values[i] = (float)value;
        p = end + 1;
    }
    return QN_OK;
}

qn_status qn__csv_open(qn_tensor_file *file, const char *path, qn_error *error)
{
    csv c;
    const char *p, *stop;
    csv_begin(&c, path, &file->view, ',');
    QN_FAIL_IF(!next_line(&c, &p, &stop), error, QN_CORRUPT, "%s: no samples", path);
    c.separator = find_separator(p, stop);
    const bool header = is_header(&c, p, stop);
    const size_t columns = count_columns(&c, p, stop), header_line = c.line;
    size_t rows = header ? 0 : 1, count, bytes;
    while (next_line(&c, &p, &stop))
        rows++;
    QN_FAIL_IF(rows == 0, error, QN_CORRUPT, "%s: a header and no samples", path);
    /* every number has a byte and a separator: a table larger than its file is a lie */
    QN_FAIL_IF(!qn_mul_size(&count, rows, columns) || count > file->view.size_bytes, error,
               QN_CORRUPT, "%s: lines have different numbers of columns (the first has %zu)", path,
               columns);
    QN_FAIL_IF(!qn_mul_size(&bytes, count, sizeof(float)) ||
                   bytes > file->ctx->limits.tensor_bytes,
               error, QN_LIMIT, "%s: %zu numbers, above the limit", path, count);
    file->own = qn__alloc(file->ctx, bytes);
    if (file->own == NULL)
        return QN_NOMEM(error);
    csv_begin(&c, path, &file->view, c.separator);
    for (size_t row = 0; next_line(&c, &p, &stop);) {
        if (header && c.line == header_line)
            continue;
        QN_TRY(read_row(&c, p, stop, columns, (float *)(void *)file->own + row * columns, error));
        row++;
    }
    file->data = file->own;
    file->element = QN_ELEMENT_F32;
    file->element_bytes = sizeof(float);
    file->is_raw = true; /* rows are samples */
    file->rank = 2;
    file->dims[0] = (int64_t)rows;
    file->dims[1] = (int64_t)columns;
    return QN_OK;
}
