/* Scales of activations as MNN's tool finds them, with KL or ADMM, from the original float weights.
 * ADMM runs in double on bounded memory (calib/admm.c): the tool's own float32 sums are off by up
 * to a fifth. */
#include "calib/calib.h"
#include "mnntool/exact.h"
#include "mnntool/float_conv.h"

#include <math.h>
#include <string.h>

#define SMALL_MAX 1e-5f /* tensors that stay below have no scale */
enum { BINS = 2048 };   /* of the histogram: a threshold lies in the middle of one */

typedef struct collector {
    const qn_mnn_run *run;
    const qn_mnn_trace *trace;
    const qn_feature_method *method;
    qn_mnn_scales *scales;
    qn_calib_item *items;
    uint32_t *ids; /* MNN ids of items */
    size_t n_items;
} collector;

static qn_range_format format_of(const collector *c, uint32_t id)
{
    const int32_t clamp = c->run->config->feature_clamp;
    return (qn_range_format){.qmin = -clamp,
                             .qmax = clamp,
                             .symmetric = true,
                             .positions = c->trace->tensors[id].positions};
}

static void set_scale(collector *c, uint32_t id, const qn_range *range)
{
    const float largest = fmaxf(fabsf(range->seen_lo), fabsf(range->seen_hi));
    const float clamp = (float)c->run->config->feature_clamp;
    if (!range->valid || largest <= SMALL_MAX)
        return;
    float scale = range->hi / clamp;
    if (c->run->config->feature == QN_MNN_KL) { /* from the threshold, rounded where MNN rounds */
        const float per_bin = (float)BINS / largest, bin = range->hi * per_bin;
        scale = (float)(((double)floorf(bin) + 0.5) / (double)per_bin / (double)clamp);
    }
    c->scales->items[id].scale = scale;
}

static qn_status observe_all(const collector *c, void *state, const float *values, size_t count,
                             qn_error *error)
{
    const qn_feature_method *m = c->method;
    for (uint32_t pass = 0; pass < m->passes; pass++) {
        QN_TRY(m->observe(c->run->ctx, state, pass, 0, values, count, error));
        if (pass + 1 < m->passes && m->between_passes != NULL)
            QN_TRY(m->between_passes(c->run->ctx, state, error));
    }
    return QN_OK;
}

/* Constants that operators compute with: the same values for every sample. */
static qn_status measure_constant(collector *c, uint32_t id, const qn_tensor *tensor,
                                  qn_error *error)
{
    const qn_context *ctx = c->run->ctx;
    const qn_feature_method *m = c->method;
    const size_t count = tensor->constant->size_bytes / sizeof(float);
    const qn_range_format format = format_of(c, id);
    qn_range range;
    void *state = qn__alloc(ctx, m->state_bytes());
    float *values = qn__alloc_aligned(ctx, count * sizeof(*values));
    if (state == NULL || values == NULL) {
        qn__free(ctx, state);
        qn__free_aligned(ctx, values);
        return QN_NOMEM(error);
    }
    memcpy(values, tensor->constant->data, count * sizeof(*values));
    m->init(state);
    qn_status status = observe_all(c, state, values, count, error);
    if (status == QN_OK)
        status = m->finish(ctx, state, &format, 0, &range, error);
    if (status == QN_OK)
        set_scale(c, id, &range);
    else
        qn__error_prefix(error, status, "constant \"%s\"", tensor->name);
    m->release(ctx, state);
    qn__free(ctx, state);
    qn__free_aligned(ctx, values);
    return status;
}

static qn_status list_items(collector *c, qn_error *error)
{
    for (size_t id = 0; id < c->trace->n_tensors; id++) {
        const qn_mnn_seen *seen = &c->trace->tensors[id];
        c->scales->tracked[id] = seen->label != NULL;
        if (seen->label == NULL)
            continue;
        const qn_tensor *tensor = c->run->graph->tensors[seen->graph_id];
        if (tensor->constant != NULL) {
            QN_TRY(measure_constant(c, (uint32_t)id, tensor, error));
            continue;
        }
        c->ids[c->n_items] = (uint32_t)id;
        c->items[c->n_items++] = (qn_calib_item){
            .tensor_id = seen->graph_id, .method = c->method, .format = format_of(c, (uint32_t)id)};
    }
    return QN_OK;
}

/* MNN's tool shows the images of its last pass. */
static bool show_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    const collector *c = arg;
    (void)phase;
    const uint64_t n = total / c->method->passes, before = total - n;
    if (done > before)
        qn__mnn_progress(c->run,
                         c->method->passes > 1 ? "CollectFeatureDistribution"
                                               : "ProcessCalibrationFiles",
                         (size_t)(done - before), (size_t)n);
    return true;
}

static qn_status collect(collector *c, qn_error *error)
{
    qn_ranges ranges = {0};
    const qn_calib_options options = {.items = c->items,
                                      .n_items = c->n_items,
                                      .batch = 1,
                                      .plain = true, /* its sums are further from MNN's */
                                      .instead = qn__mnn_float_op,
                                      .progress = show_progress,
                                      .progress_ctx = c};
    if (c->n_items == 0)
        return QN_OK;
    QN_TRY(qn__calibrate(c->run->graph, c->run->dataset, &options, &ranges, error));
    for (size_t i = 0; i < c->n_items; i++) {
        set_scale(c, c->ids[i], &ranges.items[c->items[i].tensor_id]);
        if (c->run->config->feature == QN_MNN_ADMM)
            qn__mnn_progress(c->run, "ComputeADMM", i + 1, c->n_items);
    }
    qn__ranges_free(&ranges);
    return QN_OK;
}

/* Operators whose output has the scale of their input: pooling, and resizing to nearest values. */
static bool keeps_scale(const qn_mnn_source *source, size_t op)
{
    const qn_fb_object *main = qn__fb_table(source->ops[op], QN_MNN_Op_main);
    switch (qn__mnn_op_type(source, op)) {
    case QN_MNN_OpType_Pooling:
    case QN_MNN_OpType_Pooling3D:
        return true;
    case QN_MNN_OpType_Interp:
        return main != NULL && main->record == QN_MNN_REC_Interp &&
               qn__fb_int(&source->doc, main, QN_MNN_Interp_resizeType) == 1;
    default:
        return false;
    }
}

/* A scale of zeros ties nothing: a slice of zeros must not take the scale of the whole. */
static void take_scale(qn_mnn_tensor_quant *to, const qn_mnn_tensor_quant *from)
{
    if (from->scale > 0)
        to->scale = from->scale;
}

/* The runtime moves and pools integers only between tensors of one scale. */
static void tie_scales(const qn_mnn_run *run, const qn_mnn_trace *trace, qn_mnn_scales *scales)
{
    qn_mnn_tensor_quant *items = scales->items;
    for (size_t i = 0; i < trace->n_rasters; i++) {
        const qn_mnn_raster *r = &trace->rasters[i];
        if (r->n_inputs == 1)
            take_scale(&items[r->output], &items[r->inputs[0]]);
        for (size_t k = 0; r->n_inputs > 1 && k < r->n_inputs; k++)
            take_scale(&items[r->inputs[k]], &items[r->output]);
    }
    for (size_t op = 0; op < run->source->n_ops; op++) {
        if (!keeps_scale(run->source, op) || qn__mnn_op_count(run->source, op, false) == 0 ||
            qn__mnn_op_count(run->source, op, true) == 0)
            continue;
        const int64_t from = qn__mnn_op_tensor(run->source, op, false, 0);
        const int64_t to = qn__mnn_op_tensor(run->source, op, true, 0);
        if (from >= 0 && to >= 0 && scales->tracked[from] && scales->tracked[to])
            take_scale(&items[to], &items[from]);
    }
}

static qn_status scales_create(const qn_mnn_run *run, qn_mnn_scales *out, qn_error *error)
{
    const size_t n = run->source->n_tensors;
    *out = (qn_mnn_scales){.ctx = run->ctx, .n_tensors = n};
    out->items = qn__calloc(run->ctx, n, sizeof(*out->items));
    out->tracked = qn__calloc(run->ctx, n, sizeof(*out->tracked));
    if (out->items == NULL || out->tracked == NULL) {
        qn__mnn_scales_free(out);
        return QN_NOMEM(error);
    }
    const int32_t clamp = run->config->feature_clamp;
    for (size_t i = 0; i < n; i++)
        out->items[i] = (qn_mnn_tensor_quant){.index = (uint32_t)i, .min = -clamp, .max = clamp};
    return QN_OK;
}

void qn__mnn_scales_free(qn_mnn_scales *scales)
{
    if (scales->ctx == NULL)
        return;
    qn__free(scales->ctx, scales->items);
    qn__free(scales->ctx, scales->tracked);
    *scales = (qn_mnn_scales){0};
}

qn_status qn__mnn_exact_scales(const qn_mnn_run *run, qn_mnn_scales *out, qn_error *error)
{
    const char *method = run->config->feature == QN_MNN_ADMM ? "admm" : "kl-mnn";
    qn_mnn_trace trace;
    *out = (qn_mnn_scales){0};
    QN_TRY(qn__mnn_trace_create(run, &trace, error));
    const size_t n = trace.n_tensors;
    collector c = {.run = run,
                   .trace = &trace,
                   .method = qn__feature_method_find(method),
                   .scales = out,
                   .items = qn__calloc(run->ctx, n, sizeof(*c.items)),
                   .ids = qn__calloc(run->ctx, n, sizeof(*c.ids))};
    qn_status status = QN_OK;
    if (c.items == NULL || c.ids == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(scales_create(run, out, error));
    QN_TRY_GOTO(list_items(&c, error));
    QN_TRY_GOTO(collect(&c, error));
    if (run->config->feature != QN_MNN_ADMM)
        tie_scales(run, &trace, out);
done:
    qn__free(run->ctx, c.items);
    qn__free(run->ctx, c.ids);
    qn__mnn_trace_free(&trace);
    if (status != QN_OK)
        qn__mnn_scales_free(out);
    return status;
}
