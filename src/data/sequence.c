/* Samples as folders: input.json with the shape of every input, NAME.txt with the numbers of input
 * NAME, separated by white space. Samples may differ where the model leaves sizes open. */
#include <jansson.h>
#include <string.h>

#include "core/checked.h"
#include "core/io.h"
#include "core/number.h"
#include "data/dataset_internal.h"
#include "data/paths.h"

#define MAX_JSON_BYTES ((size_t)16 << 20)

static qn_status load_json(const qn_context *ctx, const char *path, json_t **out, qn_error *error)
{
    qn_file_view view;
    json_error_t where;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    json_t *root = view.size_bytes > MAX_JSON_BYTES
                       ? NULL
                       : json_loadb((const char *)view.data, view.size_bytes, 0, &where);
    const size_t size_bytes = view.size_bytes;
    qn__file_close(ctx, &view);
    QN_FAIL_IF(size_bytes > MAX_JSON_BYTES, error, QN_LIMIT, "%s: %zu bytes", path, size_bytes);
    QN_FAIL_IF(root == NULL, error, QN_CORRUPT, "%s: invalid JSON at line %d, column %d: %s", path,
               where.line < 1 ? 1 : where.line, where.column < 1 ? 1 : where.column, where.text);
    *out = root;
    return QN_OK;
}

/* The shape that a sample's input.json gives input `name`. */
static qn_status shape_of(const json_t *root, const char *path, const char *name, uint32_t *rank,
                          int64_t dims[QN_MODEL_MAX_RANK], qn_error *error)
{
    const json_t *inputs = json_object_get(root, "inputs");
    QN_FAIL_IF(!json_is_array(inputs), error, QN_CORRUPT, "%s: no list \"inputs\"", path);
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        const json_t *entry = json_array_get(inputs, i);
        const char *entry_name = json_string_value(json_object_get(entry, "name"));
        const json_t *shape = json_object_get(entry, "shape");
        if (entry_name == NULL || strcmp(entry_name, name) != 0)
            continue;
        QN_FAIL_IF(!json_is_array(shape) || json_array_size(shape) > QN_MODEL_MAX_RANK, error,
                   QN_CORRUPT, "%s: input \"%s\" has no \"shape\" of at most %d sizes", path, name,
                   QN_MODEL_MAX_RANK);
        *rank = (uint32_t)json_array_size(shape);
        for (uint32_t d = 0; d < *rank; d++) {
            const json_t *size = json_array_get(shape, d);
            QN_FAIL_IF(!json_is_integer(size) || json_integer_value(size) < 1 ||
                           json_integer_value(size) > INT32_MAX,
                       error, QN_CORRUPT,
                       "%s: input \"%s\": a size of \"shape\" is no whole number above 0", path,
                       name);
            dims[d] = json_integer_value(size);
        }
        return QN_OK;
    }
    QN_FAIL(error, QN_CORRUPT, "%s: no shape for input \"%s\"", path, name);
}

static const char *file_of(qn_arena *arena, const qn_sample *sample, const char *name,
                           const char *suffix)
{
    return qn__arena_printf(arena, "%s/%s%s", sample->path, name, suffix);
}

/* The shapes of one sample, which must fit the model. */
static qn_status read_shapes(const qn_dataset *dataset, const qn_sample *sample,
                             const qn_input_spec *specs, int64_t (*dims)[QN_MODEL_MAX_RANK],
                             qn_error *error)
{
    qn_arena arena;
    json_t *root = NULL;
    qn_status status = QN_OK;
    qn__arena_init(&arena, dataset->ctx);
    const char *path = file_of(&arena, sample, "input.json", "");
    if (path == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(load_json(dataset->ctx, path, &root, error));
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        uint32_t rank = 0;
        QN_TRY_GOTO(shape_of(root, path, dataset->inputs[i].name, &rank, dims[i], error));
        bool fits = rank == specs[i].rank;
        for (uint32_t d = 0; fits && d < rank; d++)
            fits = specs[i].dims[d] < 0 || specs[i].dims[d] == dims[i][d];
        if (!fits)
            QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT,
                         "%s: the shape of input \"%s\" does not fit the model's", path,
                         dataset->inputs[i].name);
    }
done:
    json_decref(root);
    qn__arena_free(&arena);
    return status;
}

qn_status qn__sequences_open(qn_dataset *dataset, const qn_input_spec *specs, qn_error *error)
{
    /* where the model says all sizes, the first sample tells what the others are like */
    const size_t n = qn__shapes_open(specs, dataset->n_inputs) ? dataset->n_samples : 1;
    size_t n_dims;
    qn_status status = QN_OK;
    QN_FAIL_IF(!qn_mul_size(&n_dims, n, dataset->n_inputs), error, QN_LIMIT, "%zu samples", n);
    int64_t(*dims)[QN_MODEL_MAX_RANK] = qn__calloc(dataset->ctx, n_dims, sizeof(*dims));
    if (dims == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++)
        QN_TRY_GOTO(
            read_shapes(dataset, &dataset->samples[i], specs, dims + i * dataset->n_inputs, error));
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        qn_dataset_input *input = &dataset->inputs[i];
        input->rank = specs[i].rank;
        memcpy(input->dims, dims[i], sizeof(input->dims));
        if (!qn_shape_count(&input->count, input->dims, input->rank))
            QN_FAIL_GOTO(error, QN_LIMIT, "%s: input \"%s\" is too large", dataset->samples[0].name,
                         input->name);
    }
    if (n == dataset->n_samples)
        status = qn__shapes_set(dataset, (const int64_t(*)[QN_MODEL_MAX_RANK])dims, error);
done:
    qn__free(dataset->ctx, dims);
    return status;
}

static qn_status read_numbers(const qn_context *ctx, const char *path, float *dst, size_t count,
                              qn_error *error)
{
    qn_file_view view;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    const char *p = (const char *)view.data;
    const char *const end = p + view.size_bytes;
    qn_status status = QN_OK;
    size_t n = 0;
    for (;;) {
        while (p < end && (*p == ' ' || (*p >= '\t' && *p <= '\r')))
            p++;
        if (p == end)
            break;
        char word[128];
        size_t length = 0;
        while (p + length < end && length < sizeof(word) - 1 && (uint8_t)p[length] > ' ')
            length++;
        memcpy(word, p, length);
        word[length] = '\0';
        double number;
        if (!qn__parse_f64(word, NULL, &number))
            QN_FAIL_GOTO(error, QN_CORRUPT, "%s: \"%.40s\" is no number", path, word);
        if (n < count)
            dst[n] = (float)number;
        n++;
        p += length;
    }
    if (n != count)
        QN_FAIL_GOTO(error, QN_CORRUPT, "%s: %zu numbers, the shape has %zu", path, n, count);
done:
    qn__file_close(ctx, &view);
    return status;
}

qn_status qn__sequence_load(const qn_dataset *dataset, const qn_sample *sample, float *const *dst,
                            qn_error *error)
{
    qn_arena arena;
    json_t *root = NULL;
    qn_status status = QN_OK;
    qn__arena_init(&arena, dataset->ctx);
    const char *path = file_of(&arena, sample, "input.json", "");
    if (path == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(load_json(dataset->ctx, path, &root, error));
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        const qn_dataset_input *input = &dataset->inputs[i];
        int64_t dims[QN_MODEL_MAX_RANK];
        uint32_t rank = 0;
        QN_TRY_GOTO(shape_of(root, path, input->name, &rank, dims, error));
        if (rank != input->rank ||
            memcmp(dims, qn__shapes_dims(dataset, sample, i), rank * sizeof(*dims)) != 0)
            QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT,
                         "%s: the shape of input \"%s\" does not fit the model's", path,
                         input->name);
        const char *text = file_of(&arena, sample, input->name, ".txt");
        if (text == NULL)
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
        QN_TRY_GOTO(
            read_numbers(dataset->ctx, text, dst[i], qn__shapes_count(dataset, sample, i), error));
    }
done:
    json_decref(root);
    qn__arena_free(&arena);
    return status;
}

/* Every file of the sample, in the order of the inputs. */
qn_status qn__sequence_hash(const qn_dataset *dataset, const qn_sample *sample,
                            uint64_t (*add)(uint64_t hash, const uint8_t *bytes, size_t size_bytes),
                            uint64_t *hash, qn_error *error)
{
    qn_arena arena;
    qn_status status = QN_OK;
    qn__arena_init(&arena, dataset->ctx);
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        qn_file_view view;
        const char *path = file_of(&arena, sample, dataset->inputs[i].name, ".txt");
        if (path == NULL)
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
        QN_TRY_GOTO(qn__file_open(dataset->ctx, path, &view, error));
        *hash = add(*hash, view.data, view.size_bytes);
        qn__file_close(dataset->ctx, &view);
    }
done:
    qn__arena_free(&arena);
    return status;
}
