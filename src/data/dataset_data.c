/* Fits the arrays of data files to the inputs of a model. */
#include <string.h>
#include <strings.h>

#include "core/checked.h"
#include "core/strbuf.h"
#include "data/dataset_internal.h"
#include "data/paths.h"

static bool dims_match(const int64_t *have, const int64_t *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (want[i] >= 0 && have[i] != want[i])
            return false;
    return true;
}

static void format_dims(const int64_t *dims, uint32_t rank, char *out, size_t capacity,
                        const qn_context *ctx)
{
    qn_strbuf text;
    qn__strbuf_init(&text, ctx, capacity);
    for (uint32_t i = 0; i < rank; i++)
        if (dims[i] < 0)
            qn__strbuf_printf(&text, "%s?", i > 0 ? "," : "");
        else
            qn__strbuf_printf(&text, "%s%lld", i > 0 ? "," : "", (long long)dims[i]);
    const size_t n = text.data == NULL || text.failed ? 0 : text.length;
    if (n > 0)
        memcpy(out, text.data, n);
    out[n] = '\0';
    qn__strbuf_free(&text);
}

static bool same_count(const qn_tensor_file *file, const qn_input_spec *spec)
{
    const uint32_t skip = spec->rank > 0 && (spec->dims[0] == 1 || spec->dims[0] < 0) ? 1 : 0;
    size_t have, want;
    for (uint32_t i = skip; i < spec->rank; i++)
        if (spec->dims[i] < 0)
            return false;
    return file->rank > 0 && qn_shape_count(&have, file->dims + 1, file->rank - 1) &&
           qn_shape_count(&want, spec->dims + skip, spec->rank - skip) && have == want;
}

/* The first reading of the array's shape that fits the input:
 *   [M, rest]    for an input [1 or ?, rest]: M samples
 *   [M, dims]    for an input [dims]: M samples
 *   [dims]       for an input [dims]: one sample         (.npy only)
 *   [rest]       for an input [1 or ?, rest]: one sample (.npy only)
 *   [M, ...]     with as many elements per row as the input: M samples */
static bool fit_shape(qn_dataset_input *input, const qn_tensor_file *file,
                      const qn_input_spec *spec, size_t *n_rows)
{
    const int64_t *have = file->dims, *want = spec->dims;
    const uint32_t r = file->rank, s = spec->rank;
    const bool batched = s > 0 && (want[0] == 1 || want[0] < 0);
    input->rank = s;
    memcpy(input->dims, want, s * sizeof(*want));
    if (batched)
        input->dims[0] = 1;
    if (batched && r == s && dims_match(have + 1, want + 1, s - 1)) {
        memcpy(input->dims + 1, have + 1, (s - 1) * sizeof(*have));
        *n_rows = (size_t)have[0];
        return true;
    }
    if (r == s + 1 && dims_match(have + 1, want, s)) {
        memcpy(input->dims, have + 1, s * sizeof(*have));
        *n_rows = (size_t)have[0];
        return true;
    }
    if (!file->is_raw && r == s && dims_match(have, want, s)) {
        memcpy(input->dims, have, s * sizeof(*have));
        *n_rows = 1;
        return true;
    }
    if (!file->is_raw && batched && r + 1 == s && dims_match(have, want + 1, r)) {
        memcpy(input->dims + 1, have, r * sizeof(*have));
        *n_rows = 1;
        return true;
    }
    if (same_count(file, spec)) {
        *n_rows = (size_t)have[0];
        return true;
    }
    return false;
}

/* Raw samples without a shape have the input's. */
static qn_status raw_shape(const qn_dataset *dataset, const qn_input_spec *spec, uint32_t *rank,
                           int64_t dims[QN_MODEL_MAX_RANK], qn_error *error)
{
    const char *text = dataset->options.raw_shape;
    if (text != NULL) {
        QN_FAIL_IF(!qn__parse_shape(text, rank, dims), error, QN_INVALID_ARGUMENT,
                   "--raw-shape %s is not a list of sizes like 1,49,10", text);
        return QN_OK;
    }
    *rank = spec->rank;
    memcpy(dims, spec->dims, spec->rank * sizeof(*dims));
    if (*rank > 0 && dims[0] < 0)
        dims[0] = 1;
    for (uint32_t i = 0; i < *rank; i++)
        QN_FAIL_IF(dims[i] < 0, error, QN_INVALID_ARGUMENT,
                   "--raw-type needs --raw-shape: input \"%s\" has unknown sizes", spec->name);
    return QN_OK;
}

static qn_status fit_input(const qn_dataset *dataset, qn_dataset_input *input,
                           const qn_input_spec *spec, const char *path, size_t *n_rows,
                           qn_error *error)
{
    if (!fit_shape(input, &input->file, spec, n_rows)) {
        char have[256], want[256];
        format_dims(input->file.dims, input->file.rank, have, sizeof(have), dataset->ctx);
        format_dims(spec->dims, spec->rank, want, sizeof(want), dataset->ctx);
        QN_FAIL(error, QN_INVALID_ARGUMENT, "%s: array [%s] does not fit input \"%s\" [%s]", path,
                have, spec->name, want);
    }
    QN_FAIL_IF(!qn_shape_count(&input->count, input->dims, input->rank), error, QN_LIMIT,
               "%s: samples too large", path);
    QN_FAIL_IF(*n_rows == 0 || input->count == 0, error, QN_CORRUPT, "%s: no samples", path);
    return QN_OK;
}

qn_status qn__dataset_open_input(const qn_dataset *dataset, qn_dataset_input *input,
                                 const qn_input_spec *spec, const char *path, size_t *n_rows,
                                 qn_error *error)
{
    int64_t dims[QN_MODEL_MAX_RANK];
    uint32_t rank = 0;
    if (dataset->options.raw_type != NULL)
        QN_TRY(raw_shape(dataset, spec, &rank, dims, error));
    QN_TRY(qn__tensor_file_open(dataset->ctx, path, spec->name, dataset->n_inputs == 1,
                                dataset->options.raw_type, dims, rank, &input->file, error));
    const qn_status status = fit_input(dataset, input, spec, path, n_rows, error);
    if (status != QN_OK)
        qn__tensor_file_close(&input->file);
    return status;
}

/* The part of "name=FILE,name=FILE" (or a line each, when a file's name has a comma) that belongs to
 * spec; the whole text for a lone input without a name, and for an .npz, which names its arrays. NULL:
 * none. */
static const char *file_of_input(qn_dataset *dataset, const qn_input_spec *spec, size_t n_specs)
{
    const char *p = dataset->options.data_file;
    const char *const between = strchr(p, '\n') != NULL ? "\n" : ",";
    const size_t n = strlen(spec->name), all = strlen(p);
    if (n_specs == 1)
        return strncmp(p, spec->name, n) == 0 && p[n] == '=' ? p + n + 1 : p;
    const bool npz = all > 4 && strcasecmp(p + all - 4, ".npz") == 0;
    const bool one = strpbrk(p, between) == NULL && strchr(p, '=') == NULL;
    while (*p != '\0') {
        const size_t length = strcspn(p, between);
        if (length > n && strncmp(p, spec->name, n) == 0 && p[n] == '=')
            return qn__arena_strndup(&dataset->arena, p + n + 1, length - n - 1);
        p += p[length] == *between ? length + 1 : length;
    }
    return npz && one ? dataset->options.data_file : NULL;
}

qn_status qn__dataset_open_data(qn_dataset *dataset, const qn_input_spec *specs, size_t *n_rows,
                                qn_error *error)
{
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        const char *path = file_of_input(dataset, &specs[i], dataset->n_inputs);
        QN_FAIL_IF(path == NULL, error, QN_INVALID_ARGUMENT,
                   "--data %s: no file for input \"%s\" (several inputs: name=FILE,name=FILE, or an "
                   ".npz)",
                   dataset->options.data_file, specs[i].name);
        size_t n = 0;
        QN_TRY(qn__dataset_open_input(dataset, &dataset->inputs[i], &specs[i], path, &n, error));
        QN_FAIL_IF(i > 0 && n != *n_rows, error, QN_INVALID_ARGUMENT,
                   "%s: %zu samples for input \"%s\", %zu for input \"%s\"", path, n, specs[i].name,
                   *n_rows, specs[0].name);
        *n_rows = n;
    }
    return QN_OK;
}
