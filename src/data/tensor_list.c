/* A list of arrays: each line is a sample and names a file for every input, separated by commas:
 * NAME=FILE, or files in the order of the inputs. A lone input's line is its file. */
#include <string.h>
#include <strings.h>

#include "core/checked.h"
#include "data/dataset_internal.h"
#include "data/lists.h"
#include "data/paths.h"

static bool is_array_name(const char *name)
{
    static const char *const endings[] = {".npy", ".npz", ".csv"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot != NULL && i < sizeof(endings) / sizeof(endings[0]); i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return true;
    return false;
}

qn_status qn__tensor_list_detect(qn_dataset *dataset, bool *is_list, qn_error *error)
{
    const qn_dataset_options *o = &dataset->options;
    const char **lines = NULL;
    size_t count = 0;
    *is_list = false;
    if (o->list_file == NULL || o->data_file != NULL)
        return QN_OK;
    QN_TRY(qn__list_read(dataset->ctx, &dataset->arena, o->list_file, &lines, &count, error));
    *is_list = o->raw_type != NULL || (count > 0 && is_array_name(lines[0]));
    qn__free(dataset->ctx, lines);
    return QN_OK;
}

/* The file that a line gives input `index`; NULL: none, or no memory (then the arena has failed).
 */
static const char *file_of(qn_dataset *dataset, const char *line, size_t index)
{
    const char *name = dataset->inputs[index].name;
    const size_t n = strlen(name);
    if (dataset->n_inputs == 1)
        return strncmp(line, name, n) == 0 && line[n] == '=' ? line + n + 1 : line;
    const char *nth = NULL;
    size_t nth_length = 0, at = 0;
    for (const char *p = line; *p != '\0'; at++) {
        while (*p == ' ' || *p == '\t')
            p++;
        const size_t field = strcspn(p, ",");
        size_t length = field;
        while (length > 0 && (p[length - 1] == ' ' || p[length - 1] == '\t'))
            length--;
        if (length > n && strncmp(p, name, n) == 0 && p[n] == '=')
            return qn__arena_strndup(&dataset->arena, p + n + 1, length - n - 1);
        if (at == index) {
            nth = p;
            nth_length = length;
        }
        p += p[field] == ',' ? field + 1 : field;
    }
    /* a field that names another input is not this one's by its place */
    for (size_t i = 0; nth != NULL && i < dataset->n_inputs; i++) {
        const size_t m = strlen(dataset->inputs[i].name);
        if (nth_length > m && strncmp(nth, dataset->inputs[i].name, m) == 0 && nth[m] == '=')
            return NULL;
    }
    return nth != NULL && nth_length > 0 ? qn__arena_strndup(&dataset->arena, nth, nth_length)
                                         : NULL;
}

qn_status qn__tensor_list_sample(qn_dataset *dataset, qn_sample *sample, const char *dir,
                                 const char *line, size_t number, qn_error *error)
{
    qn_arena *arena = &dataset->arena;
    const char **files = qn__arena_calloc(arena, dataset->n_inputs, sizeof(*files));
    if (files == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        const char *file = file_of(dataset, line, i);
        QN_TRY(qn__arena_check(arena, error));
        QN_FAIL_IF(file == NULL || file[0] == '\0', error, QN_CORRUPT,
                   "%s: sample %zu \"%.80s\": no file for input \"%s\"", dataset->options.list_file,
                   number + 1, line, dataset->inputs[i].name);
        files[i] = qn__path_join(arena, dir, file);
        if (files[i] == NULL)
            return QN_NOMEM(error);
    }
    *sample = (qn_sample){.name = line, .path = files[0], .files = files, .label = -1};
    sample->key = qn__path_normal(arena, files[0]);
    return sample->key != NULL ? QN_OK : QN_NOMEM(error);
}

/* Opens one file of a sample, for an input as far as it is known; *out is then to be closed. */
static qn_status open_file(const qn_dataset *dataset, const qn_sample *sample, size_t index,
                           const qn_input_spec *spec, qn_dataset_input *out, qn_error *error)
{
    const char *path = sample->files[index];
    size_t n = 0;
    *out = (qn_dataset_input){.name = dataset->inputs[index].name};
    QN_TRY(qn__dataset_open_input(dataset, out, spec, path, &n, error));
    if (n == 1)
        return QN_OK;
    qn__tensor_file_close(&out->file);
    QN_FAIL(error, QN_INVALID_ARGUMENT,
            "%s: %zu samples for input \"%s\", a line of a list names one", path, n, out->name);
}

qn_status qn__tensor_list_open(qn_dataset *dataset, const qn_input_spec *specs, qn_error *error)
{
    /* where the model says all sizes, the first sample tells what the others are like */
    const size_t n_inputs = dataset->n_inputs;
    const size_t n = qn__shapes_open(specs, n_inputs) ? dataset->n_samples : 1;
    size_t n_dims;
    qn_status status = QN_OK;
    QN_FAIL_IF(!qn_mul_size(&n_dims, n, n_inputs), error, QN_LIMIT, "%zu samples", n);
    int64_t(*dims)[QN_MODEL_MAX_RANK] = qn__calloc(dataset->ctx, n_dims, sizeof(*dims));
    if (dims == NULL)
        return QN_NOMEM(error);
    for (size_t s = 0; s < n; s++)
        for (size_t i = 0; i < n_inputs; i++) {
            qn_dataset_input input;
            QN_TRY_GOTO(open_file(dataset, &dataset->samples[s], i, &specs[i], &input, error));
            qn__tensor_file_close(&input.file);
            memcpy(dims[s * n_inputs + i], input.dims, sizeof(input.dims));
            if (s > 0)
                continue;
            dataset->inputs[i].rank = input.rank;
            dataset->inputs[i].count = input.count;
            memcpy(dataset->inputs[i].dims, input.dims, sizeof(input.dims));
        }
    if (n == dataset->n_samples)
        status = qn__shapes_set(dataset, (const int64_t(*)[QN_MODEL_MAX_RANK])dims, error);
done:
    qn__free(dataset->ctx, dims);
    return status;
}

qn_status qn__tensor_list_load(const qn_dataset *dataset, const qn_sample *sample,
                               float *const *dst, qn_error *error)
{
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        const size_t count = qn__shapes_count(dataset, sample, i);
        qn_input_spec spec = {.name = dataset->inputs[i].name, .rank = dataset->inputs[i].rank};
        qn_dataset_input input;
        memcpy(spec.dims, qn__shapes_dims(dataset, sample, i), sizeof(spec.dims));
        QN_TRY(open_file(dataset, sample, i, &spec, &input, error));
        const bool fits = input.count == count;
        if (fits)
            qn__tensor_file_read(&input.file, 0, count, dst[i]);
        qn__tensor_file_close(&input.file);
        QN_FAIL_IF(!fits, error, QN_INVALID_ARGUMENT, "%s: %zu values for input \"%s\", not %zu",
                   sample->files[i], input.count, spec.name, count);
    }
    return QN_OK;
}
