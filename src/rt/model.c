/* Models of the stand-alone runtime: a compact file, read and planned. */
#include "core/io.h"
#include "format/qnm/qnm.h"
#include "rt/rt.h"

#include <string.h>

void qn_rt_options_init(qn_rt_options *options)
{
    *options = (qn_rt_options){.struct_size = sizeof(*options)};
}

/* source and wanted: what the caller passed, and may not be NULL. */
static qn_status model_new(const void *source, const void *wanted, const qn_rt_options *options,
                           qn_rt_model **out, qn_error *error)
{
    const qn_rt_options defaults = {.struct_size = sizeof(defaults)};
    QN_FAIL_IF(source == NULL || wanted == NULL, error, QN_INVALID_ARGUMENT,
               "qn_rt_model: NULL argument");
    if (options == NULL)
        options = &defaults;
    QN_TRY(qn__check_struct(options->struct_size, sizeof(*options), "qn_rt_options_init", error));
    const qn_allocator allocator = qn__allocator_of(options->allocator);
    qn_rt_model *const model = allocator.alloc(allocator.ctx, sizeof(*model));
    if (model == NULL)
        return QN_NOMEM(error);
    memset(model, 0, sizeof(*model));
    const qn_context_options context = {.struct_size = sizeof(context),
                                        .allocator = options->allocator,
                                        .io = options->io,
                                        .limits = options->limits,
                                        .cpu_mask = options->cpu_mask};
    const qn_status status = qn__context_init(&model->ctx, &context, error);
    if (status != QN_OK) {
        allocator.free(allocator.ctx, model);
        return status;
    }
    *out = model;
    return QN_OK;
}

/* Takes over a reference of bytes. */
static qn_status model_read(qn_rt_model *model, qn_blob *bytes, const char *file,
                            const qn_rt_options *options, qn_error *error)
{
    const bool checksum = options != NULL && options->verify_checksum;
    const qn_status status = qn__qnm_read(&model->ctx, bytes, file, checksum, &model->graph, error);
    qn__blob_unref(bytes);
    QN_TRY(status);
    /* Shapes and types in a file are what somebody wrote: operators get those inference finds. */
    QN_TRY(qn__graph_infer(model->graph, error));
    QN_TRY(qn__plan_create_static(model->graph, NULL, &model->plan, error));
    return qn__rt_session_layout(model, error);
}

static qn_status finish(qn_rt_model *model, qn_status status, qn_rt_model **out)
{
    if (status != QN_OK)
        qn_rt_model_destroy(model);
    else
        *out = model;
    return status;
}

static qn_status load_file(qn_rt_model *model, const char *path, const qn_rt_options *options,
                           qn_error *error)
{
    qn_file_view view;
    QN_TRY(qn__file_open(&model->ctx, path, &view, error));
    qn_blob *const bytes = qn__blob_from_file(&model->ctx, &view);
    if (bytes == NULL) {
        qn__file_close(&model->ctx, &view);
        return QN_NOMEM(error);
    }
    return model_read(model, bytes, path, options, error);
}

qn_status qn_rt_model_load(const char *path, const qn_rt_options *options, qn_rt_model **out,
                           qn_error *error)
{
    qn_rt_model *model = NULL;
    QN_TRY(model_new(path, out, options, &model, error));
    return finish(model, load_file(model, path, options, error), out);
}

static qn_status load_memory(qn_rt_model *model, const void *data, size_t size_bytes,
                             const qn_rt_options *options, qn_error *error)
{
    QN_FAIL_IF(size_bytes > model->ctx.limits.file_bytes, error, QN_LIMIT,
               "(memory): %zu bytes, the limit is %llu", size_bytes,
               (unsigned long long)model->ctx.limits.file_bytes);
    qn_blob *const bytes = qn__blob_borrow(&model->ctx, data, size_bytes);
    if (bytes == NULL)
        return QN_NOMEM(error);
    return model_read(model, bytes, "(memory)", options, error);
}

qn_status qn_rt_model_from_memory(const void *data, size_t size_bytes, const qn_rt_options *options,
                                  qn_rt_model **out, qn_error *error)
{
    qn_rt_model *model = NULL;
    QN_TRY(model_new(data, out, options, &model, error));
    return finish(model, load_memory(model, data, size_bytes, options, error), out);
}

void qn_rt_model_destroy(qn_rt_model *model)
{
    if (model == NULL)
        return;
    qn__plan_destroy(model->plan);
    qn__graph_destroy(model->graph);
    const qn_allocator allocator = model->ctx.allocator;
    allocator.free(allocator.ctx, model);
}

size_t qn_rt_model_arena_bytes(const qn_rt_model *model)
{
    return model != NULL ? model->arena_bytes : 0;
}

size_t qn_rt_model_packed_bytes(const qn_rt_model *model)
{
    return model != NULL ? qn__plan_packed_bytes(model->plan) : 0;
}

/* --- inputs and outputs ------------------------------------------------------------------------*/
static void describe(const qn_tensor *t, qn_rt_value *out)
{
    *out = (qn_rt_value){
        .name = t->name, .dtype = qn__dtype_name(t->type.dtype), .rank = t->rank, .axis = -1};
    /* Planning has found dims static and their product in range. */
    out->count = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        out->dims[i] = t->dims[i].value;
        out->count *= (size_t)t->dims[i].value;
    }
    qn__dtype_bytes(&out->size_bytes, t->type.dtype, out->count);
    if (t->type.kind != QN_TYPE_QUANT || t->type.quant->n_codebook > 0)
        return;
    const qn_quant *const q = t->type.quant;
    out->axis = q->axis;
    out->n_scales = q->n_scales;
    out->scales = q->scales;
    out->zero_points = q->zero_points;
    out->scale = q->scales[0];
    out->zero_point = q->zero_points != NULL ? q->zero_points[0] : 0;
}

size_t qn_rt_n_inputs(const qn_rt_model *model)
{
    return model != NULL ? model->graph->n_inputs : 0;
}

size_t qn_rt_n_outputs(const qn_rt_model *model)
{
    return model != NULL ? model->graph->n_outputs : 0;
}

bool qn_rt_input(const qn_rt_model *model, size_t index, qn_rt_value *out)
{
    if (model == NULL || out == NULL || index >= model->graph->n_inputs)
        return false;
    describe(model->graph->inputs[index], out);
    return true;
}

bool qn_rt_output(const qn_rt_model *model, size_t index, qn_rt_value *out)
{
    if (model == NULL || out == NULL || index >= model->graph->n_outputs)
        return false;
    describe(model->graph->outputs[index], out);
    return true;
}
