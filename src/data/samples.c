/* Which samples a dataset has: source, minus exclusions, plus labels, then the selection. */
#include <stdlib.h>
#include <string.h>

#include "data/dataset_internal.h"
#include "data/lists.h"
#include "data/paths.h"

/* --- sources -----------------------------------------------------------------------------------*/

static qn_status sample_picture(qn_dataset *dataset, qn_sample *sample, const char *dir,
                                const char *name, qn_error *error)
{
    sample->name = name;
    sample->label = -1;
    sample->path = qn__path_join(&dataset->arena, dir, name);
    sample->key = sample->path != NULL ? qn__path_normal(&dataset->arena, sample->path) : NULL;
    return sample->key != NULL ? QN_OK : QN_NOMEM(error);
}

static qn_status sample_row(qn_dataset *dataset, qn_sample *sample, uint64_t row, qn_error *error)
{
    *sample = (qn_sample){.row = row, .label = -1};
    sample->name = qn__arena_printf(&dataset->arena, "row %llu", (unsigned long long)row);
    return sample->name != NULL ? QN_OK : QN_NOMEM(error);
}

static qn_status allocate_samples(qn_dataset *dataset, size_t count, qn_error *error)
{
    dataset->samples = qn__calloc(dataset->ctx, count, sizeof(*dataset->samples));
    dataset->n_samples = count;
    return dataset->samples != NULL ? QN_OK : QN_NOMEM(error);
}

static qn_status samples_from_names(qn_dataset *dataset, const char *dir, const char *const *names,
                                    size_t count, qn_error *error)
{
    QN_TRY(allocate_samples(dataset, count, error));
    for (size_t i = 0; i < count; i++)
        QN_TRY(sample_picture(dataset, &dataset->samples[i], dir, names[i], error));
    return QN_OK;
}

static qn_status samples_from_arrays(qn_dataset *dataset, const char *dir, const char *const *lines,
                                     size_t count, qn_error *error)
{
    QN_TRY(allocate_samples(dataset, count, error));
    for (size_t i = 0; i < count; i++)
        QN_TRY(qn__tensor_list_sample(dataset, &dataset->samples[i], dir, lines[i], i, error));
    return QN_OK;
}

static qn_status samples_from_row_list(qn_dataset *dataset, const char *const *lines, size_t count,
                                       size_t n_rows, qn_error *error)
{
    QN_TRY(allocate_samples(dataset, count, error));
    for (size_t i = 0; i < count; i++) {
        uint64_t row;
        QN_FAIL_IF(!qn__list_row(lines[i], &row) || row >= n_rows, error, QN_CORRUPT,
                   "%s: \"%.80s\" is not \"row N\" with N below %zu", dataset->options.list_file,
                   lines[i], n_rows);
        QN_TRY(sample_row(dataset, &dataset->samples[i], row, error));
    }
    return QN_OK;
}

static qn_status samples_from_list(qn_dataset *dataset, size_t n_rows, qn_error *error)
{
    const char **lines = NULL;
    size_t count = 0;
    const char *path = dataset->options.list_file;
    const char *dir = dataset->options.images_dir;
    if (dir == NULL)
        dir = qn__path_dir(&dataset->arena, path);
    if (dir == NULL)
        return QN_NOMEM(error);
    QN_TRY(qn__list_read(dataset->ctx, &dataset->arena, path, &lines, &count, error));
    qn_status status =
        count == 0         ? qn__error_set(error, QN_CORRUPT, "%s: the list names no sample", path)
        : dataset->is_data ? samples_from_row_list(dataset, lines, count, n_rows, error)
        : dataset->is_list ? samples_from_arrays(dataset, dir, lines, count, error)
                           : samples_from_names(dataset, dir, lines, count, error);
    qn__free(dataset->ctx, lines);
    return status;
}

static qn_status samples_from_folders(qn_dataset *dataset, qn_error *error)
{
    const char **names = NULL;
    size_t count = 0;
    const char *dir = dataset->options.sequences_dir;
    QN_TRY(qn__dir_entries(dataset->ctx, &dataset->arena, dir, &names, &count, error));
    const qn_status status = count == 0
                                 ? qn__error_set(error, QN_IO, "%s: no folders of samples", dir)
                                 : samples_from_names(dataset, dir, names, count, error);
    qn__free(dataset->ctx, names);
    return status;
}

static qn_status samples_from_dir(qn_dataset *dataset, qn_error *error)
{
    const char **names = NULL;
    size_t count = 0;
    const char *dir = dataset->options.images_dir;
    QN_TRY(qn__dir_pictures(dataset->ctx, &dataset->arena, dir, &names, &count, error));
    const qn_status status =
        count == 0 ? qn__error_set(error, QN_IO,
                                   "%s: no pictures (jpg jpeg png webp bmp pgm ppm pnm)", dir)
                   : samples_from_names(dataset, dir, names, count, error);
    qn__free(dataset->ctx, names);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static qn_status samples_from_labels(qn_dataset *dataset, const qn_label *labels, size_t count,
                                     qn_error *error)
{
    const char *dir = qn__path_dir(&dataset->arena, dataset->options.labels_file);
    if (dir == NULL)
        return QN_NOMEM(error);
    QN_FAIL_IF(count == 0, error, QN_CORRUPT, "%s: no labels", dataset->options.labels_file);
    const char **names = qn__calloc(dataset->ctx, count, sizeof(*names));
    if (names == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++)
        names[i] = labels[i].name;
    qsort(names, count, sizeof(*names), compare_names);
    const qn_status status = samples_from_names(dataset, dir, names, count, error);
    qn__free(dataset->ctx, names);
    return status;
}

static qn_status samples_from_rows(qn_dataset *dataset, size_t n_rows, qn_error *error)
{
    QN_TRY(allocate_samples(dataset, n_rows, error));
    for (size_t i = 0; i < n_rows; i++)
        QN_TRY(sample_row(dataset, &dataset->samples[i], i, error));
    return QN_OK;
}

/* --- looking samples up by path or row ---------------------------------------------------------*/

typedef struct qn_key {
    const char *key; /* NULL: by row */
    uint64_t row;
    int64_t value; /* label, or number of the exclude line */
    size_t line;
} qn_key;

static int compare_keys(const void *a, const void *b)
{
    const qn_key *x = a, *y = b;
    if (x->key != NULL && y->key != NULL)
        return strcmp(x->key, y->key);
    return (x->row > y->row) - (x->row < y->row);
}

static const qn_key *find_key(const qn_key *keys, size_t n, const qn_sample *sample)
{
    const qn_key wanted = {sample->key, sample->row, 0, 0};
    return n == 0 ? NULL : bsearch(&wanted, keys, n, sizeof(*keys), compare_keys);
}

static const char *line_key(qn_dataset *dataset, const char *dir, const char *name)
{
    const char *path = qn__path_join(&dataset->arena, dir, name);
    return path != NULL ? qn__path_normal(&dataset->arena, path) : NULL;
}

/* --- exclusion ---------------------------------------------------------------------------------*/

/* A line means the path as seen from the list's folder and, with images_dir, as seen from there. */
static qn_status exclude_keys(qn_dataset *dataset, const char *const *lines, size_t count,
                              qn_key *keys, size_t *n_keys, qn_error *error)
{
    const char *path = dataset->options.exclude_file;
    const char *list_dir = qn__path_dir(&dataset->arena, path);
    if (list_dir == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++) {
        qn_key key = {NULL, 0, (int64_t)i, i};
        if (dataset->is_data) {
            QN_FAIL_IF(!qn__list_row(lines[i], &key.row), error, QN_CORRUPT,
                       "%s: \"%.80s\" is not \"row N\"", path, lines[i]);
            keys[(*n_keys)++] = key;
            continue;
        }
        const char *dirs[2] = {list_dir, dataset->options.images_dir};
        for (size_t k = 0; k < 2; k++) {
            if (dirs[k] == NULL)
                continue;
            key.key = line_key(dataset, dirs[k], lines[i]);
            if (key.key == NULL)
                return QN_NOMEM(error);
            keys[(*n_keys)++] = key;
        }
    }
    return QN_OK;
}

static qn_status exclude_samples(qn_dataset *dataset, qn_error *error)
{
    const qn_context *ctx = dataset->ctx;
    const char *path = dataset->options.exclude_file;
    const char **lines = NULL;
    qn_key *keys = NULL;
    bool *used = NULL;
    size_t count = 0, n_keys = 0, kept = 0, unused = 0;
    QN_TRY(qn__list_read(ctx, &dataset->arena, path, &lines, &count, error));
    qn_status status = QN_OK;
    keys = qn__calloc(ctx, count, 2 * sizeof(*keys));
    used = qn__calloc(ctx, count, sizeof(*used));
    if (keys == NULL || used == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    QN_TRY_GOTO(exclude_keys(dataset, lines, count, keys, &n_keys, error));
    if (n_keys > 0)
        qsort(keys, n_keys, sizeof(*keys), compare_keys);
    for (size_t i = 0; i < dataset->n_samples; i++) {
        const qn_key *key = find_key(keys, n_keys, &dataset->samples[i]);
        if (key == NULL)
            dataset->samples[kept++] = dataset->samples[i];
        else
            used[key->value] = true;
    }
    for (size_t i = 0; i < count; i++)
        unused += used[i] ? 0 : 1;
    if (unused > 0)
        qn__log(ctx, QN_LOG_WARNING, "%s: %zu of %zu lines name no sample", path, unused, count);
    dataset->n_samples = kept;
    if (kept == 0)
        status = qn__error_set(error, QN_INVALID_ARGUMENT, "%s: excludes every sample", path);
done:
    qn__free(ctx, used);
    qn__free(ctx, keys);
    qn__free(ctx, lines);
    return status;
}

/* --- labels ------------------------------------------------------------------------------------*/

static qn_status attach_labels(qn_dataset *dataset, const qn_label *labels, size_t count,
                               qn_error *error)
{
    const char *path = dataset->options.labels_file;
    const char *dir = dataset->options.images_dir;
    if (dir == NULL)
        dir = qn__path_dir(&dataset->arena, path);
    qn_key *keys = qn__calloc(dataset->ctx, count, sizeof(*keys));
    qn_status status = QN_OK;
    if (dir == NULL || keys == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        keys[i] = (qn_key){NULL, 0, labels[i].value, labels[i].line};
        if (dataset->is_data && !qn__list_row(labels[i].name, &keys[i].row))
            QN_FAIL_GOTO(error, QN_CORRUPT, "%s: line %zu: \"%.60s\" is no row number", path,
                         labels[i].line, labels[i].name);
        if (!dataset->is_data && (keys[i].key = line_key(dataset, dir, labels[i].name)) == NULL) {
            status = QN_NOMEM(error);
            goto done;
        }
    }
    if (count > 0)
        qsort(keys, count, sizeof(*keys), compare_keys);
    for (size_t i = 1; i < count; i++)
        if (compare_keys(&keys[i - 1], &keys[i]) == 0 && keys[i - 1].value != keys[i].value)
            QN_FAIL_GOTO(error, QN_CORRUPT, "%s: lines %zu and %zu give one sample two labels",
                         path, keys[i - 1].line, keys[i].line);
    for (size_t i = 0; i < dataset->n_samples; i++) {
        const qn_key *key = find_key(keys, count, &dataset->samples[i]);
        if (key != NULL)
            dataset->samples[i].label = key->value;
    }
done:
    qn__free(dataset->ctx, keys);
    return status;
}

/* --- selection ---------------------------------------------------------------------------------*/

static qn_status select_samples(qn_dataset *dataset, qn_error *error)
{
    const qn_dataset_options *o = &dataset->options;
    const size_t n = dataset->n_samples;
    if (o->first != 0 && o->first < n)
        dataset->n_samples = (size_t)o->first;
    if (o->first > n || o->count > n)
        qn__log(dataset->ctx, QN_LOG_WARNING, "only %zu samples, %llu were asked for", n,
                (unsigned long long)(o->first != 0 ? o->first : o->count));
    if (o->count == 0 || o->count >= n)
        return QN_OK;
    const size_t count = (size_t)o->count;
    size_t *indices = qn__calloc(dataset->ctx, count, sizeof(*indices));
    if (indices == NULL)
        return QN_NOMEM(error);
    const qn_status status =
        qn__select_samples(dataset->ctx, n, count, o->use_seed, o->seed, indices, error);
    if (status == QN_OK) {
        for (size_t i = 0; i < count;
             i++) /* indices rise, so none is overwritten before its turn */
            dataset->samples[i] = dataset->samples[indices[i]];
        dataset->n_samples = count;
    }
    qn__free(dataset->ctx, indices);
    return status;
}

qn_status qn__dataset_gather(qn_dataset *dataset, size_t n_rows, qn_error *error)
{
    const qn_dataset_options *o = &dataset->options;
    qn_label *labels = NULL;
    size_t n_labels = 0;
    qn_status status;
    if (o->labels_file != NULL)
        QN_TRY(qn__labels_read(dataset->ctx, &dataset->arena, o->labels_file, &labels, &n_labels,
                               error));
    if (o->list_file != NULL)
        QN_TRY_GOTO(samples_from_list(dataset, n_rows, error));
    else if (dataset->is_data)
        QN_TRY_GOTO(samples_from_rows(dataset, n_rows, error));
    else if (o->sequences_dir != NULL)
        QN_TRY_GOTO(samples_from_folders(dataset, error));
    else if (o->images_dir != NULL)
        QN_TRY_GOTO(samples_from_dir(dataset, error));
    else if (o->n_files > 0)
        QN_TRY_GOTO(samples_from_names(dataset, "", o->files, o->n_files, error));
    else
        QN_TRY_GOTO(samples_from_labels(dataset, labels, n_labels, error));
    if (o->exclude_file != NULL)
        QN_TRY_GOTO(exclude_samples(dataset, error));
    if (o->labels_file != NULL)
        QN_TRY_GOTO(attach_labels(dataset, labels, n_labels, error));
    status = select_samples(dataset, error);
done:
    qn__free(dataset->ctx, labels);
    return status;
}
