#include "data/stored.h"

#include "core/checked.h"
#include "data/dataset_internal.h"

#include <string.h>

static qn_status fill_shapes(qn_dataset *d, const qn_stored_samples *stored, qn_error *error)
{
    size_t n_dims;
    QN_FAIL_IF(!qn_mul_size(&n_dims, stored->count, d->n_inputs), error, QN_LIMIT, "%zu samples",
               stored->count);
    int64_t(*dims)[QN_MODEL_MAX_RANK] = qn__calloc(d->ctx, n_dims, sizeof(*dims));
    if (dims == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < stored->count; i++) {
        const int64_t(*const own)[QN_MODEL_MAX_RANK] = stored->dims(stored->arg, i);
        for (size_t k = 0; k < d->n_inputs; k++)
            memcpy(dims[i * d->n_inputs + k], own != NULL ? own[k] : d->inputs[k].dims,
                   d->inputs[k].rank * sizeof(**dims));
    }
    const qn_status status = qn__shapes_set(d, (const int64_t(*)[QN_MODEL_MAX_RANK])dims, error);
    qn__free(d->ctx, dims);
    return status;
}

static qn_status fill(qn_dataset *d, const qn_input_spec *specs, size_t n_inputs,
                      const qn_stored_samples *stored, qn_error *error)
{
    qn_stored_samples *copy = qn__arena_memdup(&d->arena, stored, sizeof(*stored));
    d->inputs = qn__calloc(d->ctx, n_inputs, sizeof(*d->inputs));
    d->samples = qn__calloc(d->ctx, stored->count, sizeof(*d->samples));
    if (copy == NULL || d->inputs == NULL || d->samples == NULL)
        return QN_NOMEM(error);
    d->stored = copy;
    d->n_inputs = n_inputs;
    d->n_samples = stored->count;
    for (size_t i = 0; i < n_inputs; i++) {
        qn_dataset_input *input = &d->inputs[i];
        input->name = qn__arena_strdup(&d->arena, specs[i].name);
        input->rank = specs[i].rank;
        memcpy(input->dims, specs[i].dims, sizeof(input->dims));
        if (input->name == NULL)
            return QN_NOMEM(error);
        QN_FAIL_IF(!qn_shape_count(&input->count, input->dims, input->rank), error, QN_LIMIT,
                   "input \"%s\" is too large", input->name);
    }
    for (size_t i = 0; i < stored->count; i++) {
        d->samples[i] = (qn_sample){.row = i, .label = -1};
        d->samples[i].name = qn__arena_strdup(&d->arena, stored->name(stored->arg, i));
        if (d->samples[i].name == NULL)
            return QN_NOMEM(error);
    }
    return fill_shapes(d, stored, error);
}

qn_status qn__dataset_stored(const qn_context *ctx, const qn_input_spec *inputs, size_t n_inputs,
                             const qn_preprocess *preprocess, const qn_stored_samples *samples,
                             qn_dataset **out, qn_error *error)
{
    qn_dataset *d = qn__calloc(ctx, 1, sizeof(*d));
    if (d == NULL)
        return QN_NOMEM(error);
    d->ctx = ctx;
    qn__arena_init(&d->arena, ctx);
    qn_dataset_options_init(&d->options);
    d->options.preprocess = *preprocess;
    const qn_status status = fill(d, inputs, n_inputs, samples, error);
    if (status == QN_OK)
        *out = d;
    else
        qn_dataset_destroy(d);
    return status;
}

qn_status qn__stored_load(const qn_dataset *dataset, const qn_sample *sample, float *const *dst,
                          qn_error *error)
{
    const qn_stored_samples *s = dataset->stored;
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        const float *values = s->values(s->arg, (size_t)sample->row, i);
        QN_FAIL_IF(values == NULL, error, QN_STATE, "%s: sample \"%s\" itself is not kept",
                   s->where, sample->name);
        memcpy(dst[i], values, qn__shapes_count(dataset, sample, i) * sizeof(*values));
    }
    return QN_OK;
}
