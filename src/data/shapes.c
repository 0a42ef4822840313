/* Samples of different shapes. Equal shapes share a number, so that whoever runs samples knows when
 * a plan fits, and lie side by side in `order`, so that plans need not be made twice. */
#include <stdlib.h>
#include <string.h>

#include "core/checked.h"
#include "data/dataset_internal.h"

bool qn__shapes_open(const qn_input_spec *specs, size_t n_inputs)
{
    for (size_t i = 0; i < n_inputs; i++)
        for (uint32_t d = 0; d < specs[i].rank; d++)
            if (specs[i].dims[d] < 0)
                return true;
    return false;
}

typedef struct shaped {
    const void *dims;
    size_t bytes, index;
} shaped;

static int by_shape(const void *a, const void *b)
{
    const shaped *x = a, *y = b;
    const int dims = memcmp(x->dims, y->dims, x->bytes);
    if (dims != 0)
        return dims;
    return x->index < y->index ? -1 : x->index > y->index;
}

static bool same_shape(const shaped *a, const shaped *b)
{
    return memcmp(a->dims, b->dims, a->bytes) == 0;
}

static qn_status keep_shape(qn_dataset *d, const shaped *from, qn_error *error)
{
    qn_sample_shape *shape = &d->shapes[d->n_shapes++];
    shape->dims = qn__arena_memdup(&d->arena, from->dims, from->bytes);
    shape->counts = qn__arena_calloc(&d->arena, d->n_inputs, sizeof(*shape->counts));
    if (shape->dims == NULL || shape->counts == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < d->n_inputs; i++) {
        qn_dataset_input *input = &d->inputs[i];
        QN_FAIL_IF(!qn_shape_count(&shape->counts[i], shape->dims[i], input->rank), error, QN_LIMIT,
                   "%s: input \"%s\" is too large", d->samples[from->index].name, input->name);
        if (shape->counts[i] > input->most)
            input->most = shape->counts[i];
    }
    return QN_OK;
}

static qn_status number_samples(qn_dataset *d, const shaped *sorted, size_t n_kinds,
                                qn_error *error)
{
    d->shapes = qn__arena_calloc(&d->arena, n_kinds, sizeof(*d->shapes));
    d->order = qn__arena_calloc(&d->arena, d->n_samples, sizeof(*d->order));
    if (d->shapes == NULL || d->order == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < d->n_samples; i++) {
        if (i == 0 || !same_shape(&sorted[i - 1], &sorted[i]))
            QN_TRY(keep_shape(d, &sorted[i], error));
        d->samples[sorted[i].index].shape = d->n_shapes - 1;
        d->order[i] = sorted[i].index;
    }
    return QN_OK;
}

qn_status qn__shapes_set(qn_dataset *dataset, const int64_t (*dims)[QN_MODEL_MAX_RANK],
                         qn_error *error)
{
    const size_t n = dataset->n_samples;
    size_t n_kinds = 1;
    qn_status status = QN_OK;
    shaped *sorted = qn__calloc(dataset->ctx, n, sizeof(*sorted));
    if (sorted == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++)
        sorted[i] = (shaped){dims + i * dataset->n_inputs, dataset->n_inputs * sizeof(*dims), i};
    if (n > 1)
        qsort(sorted, n, sizeof(*sorted), by_shape);
    for (size_t i = 1; i < n; i++)
        n_kinds += !same_shape(&sorted[i - 1], &sorted[i]);
    if (n_kinds > 1)
        status = number_samples(dataset, sorted, n_kinds, error);
    qn__free(dataset->ctx, sorted);
    return status;
}

const int64_t *qn__shapes_dims(const qn_dataset *dataset, const qn_sample *sample, size_t input)
{
    return dataset->shapes == NULL ? dataset->inputs[input].dims
                                   : dataset->shapes[sample->shape].dims[input];
}

size_t qn__shapes_count(const qn_dataset *dataset, const qn_sample *sample, size_t input)
{
    return dataset->shapes == NULL ? dataset->inputs[input].count
                                   : dataset->shapes[sample->shape].counts[input];
}

size_t qn__dataset_n_shapes(const qn_dataset *dataset)
{
    return dataset->shapes == NULL ? 1 : dataset->n_shapes;
}

size_t qn__dataset_shape_of(const qn_dataset *dataset, size_t index)
{
    return dataset->shapes == NULL ? 0 : dataset->samples[index].shape;
}

size_t qn__dataset_nth(const qn_dataset *dataset, size_t position)
{
    return dataset->order == NULL ? position : dataset->order[position];
}

bool qn_dataset_sample_dims(const qn_dataset *dataset, size_t index, size_t input, uint32_t *rank,
                            int64_t dims[QN_MODEL_MAX_RANK])
{
    if (index >= dataset->n_samples || input >= dataset->n_inputs)
        return false;
    *rank = dataset->inputs[input].rank;
    memcpy(dims, qn__shapes_dims(dataset, &dataset->samples[index], input), *rank * sizeof(*dims));
    return true;
}
