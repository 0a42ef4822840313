/* The source document after EMA: convolutions in integers with BatchNorm folded and the activation
 * inside, the operators that went into them gone, records of their tensors. Unlike MNN, which
 * builds another net, everything else stays as it is. */
#include "mnntool/ema.h"

#include <math.h>
#include <string.h>

#define SMALLEST_SCALE 1e-6f /* MNN writes zeros for rows below */

/* BatchNorm of a block as a map per row. */
static qn_status row_map(const qn_ema *e, const qn_ema_block *b, double *scale, double *shift,
                         qn_error *error)
{
    for (size_t r = 0; r < b->rows; r++)
        scale[r] = 1, shift[r] = 0;
    if (b->norm_node == NULL)
        return QN_OK;
    const qn_train_norm *n = NULL;
    for (size_t i = 0; i < e->result.n_norms; i++)
        if (strcmp(e->result.norms[i].name, b->norm_node->name) == 0)
            n = &e->result.norms[i];
    QN_FAIL_IF(n == NULL || n->channels != b->rows, error, QN_CORRUPT,
               "operator \"%s\": its BatchNorm has another number of channels", b->node->name);
    const double epsilon = (double)qn__attr_float(b->norm_node, "epsilon", 1e-5f);
    for (size_t r = 0; r < b->rows; r++) {
        const qn_tensor *const *in = (const qn_tensor *const *)b->norm_node->inputs;
        const double gamma = qn__load_real(in[1]->constant->data, in[1]->type.dtype, r);
        const double beta = qn__load_real(in[2]->constant->data, in[2]->type.dtype, r);
        scale[r] = gamma / sqrt((double)n->variance[r] + epsilon);
        shift[r] = beta - (double)n->mean[r] * scale[r];
    }
    return QN_OK;
}

typedef struct folded {
    double *scale, *shift;
    float *weights, *bias, *scales;
    int8_t *q;
} folded;

static void folded_free(const qn_context *ctx, folded *f)
{
    qn__free(ctx, f->scale);
    qn__free(ctx, f->shift);
    qn__free(ctx, f->weights);
    qn__free(ctx, f->bias);
    qn__free(ctx, f->scales);
    qn__free(ctx, f->q);
}

static qn_status fold(const qn_ema *e, const qn_ema_block *b, folded *f, qn_error *error)
{
    const qn_context *ctx = e->run->ctx;
    const size_t count = b->rows * b->columns;
    const qn_tensor *bias = b->node->n_inputs > 2 ? b->node->inputs[2] : NULL;
    size_t n_bias = 0;
    f->scale = qn__calloc(ctx, b->rows, sizeof(*f->scale));
    f->shift = qn__calloc(ctx, b->rows, sizeof(*f->shift));
    f->weights = qn__calloc(ctx, count, sizeof(*f->weights));
    f->bias = qn__calloc(ctx, b->rows, sizeof(*f->bias));
    f->scales = qn__calloc(ctx, b->rows, sizeof(*f->scales));
    f->q = qn__alloc(ctx, count);
    if (f->scale == NULL || f->shift == NULL || f->weights == NULL || f->bias == NULL ||
        f->scales == NULL || f->q == NULL)
        return QN_NOMEM(error);
    QN_TRY(row_map(e, b, f->scale, f->shift, error));
    QN_FAIL_IF(bias != NULL && (bias->constant == NULL || bias->type.kind != QN_TYPE_PLAIN ||
                                !qn__dtype_is_float(bias->type.dtype) ||
                                !qn__tensor_count(bias, &n_bias) || n_bias != b->rows),
               error, QN_UNSUPPORTED, "operator \"%s\": its bias is not one constant per output",
               b->node->name);
    for (size_t r = 0; r < b->rows; r++) {
        const double old =
            bias != NULL ? qn__load_real(bias->constant->data, bias->type.dtype, r) : 0;
        f->bias[r] = (float)(old * f->scale[r] + f->shift[r]);
        for (size_t k = 0; k < b->columns; k++)
            f->weights[r * b->columns + k] =
                (float)((double)b->weights[r * b->columns + k] * f->scale[r]);
    }
    for (size_t i = 0; i < count; i++)
        QN_FAIL_IF(!isfinite(f->weights[i]), error, QN_NONFINITE,
                   "operator \"%s\": weight %zu is %g", b->node->name, i, (double)f->weights[i]);
    qn__ema_round_rows(f->weights, b->rows, b->columns, e->levels, f->scales, f->q);
    for (size_t r = 0; r < b->rows; r++)
        if (f->scales[r] <= SMALLEST_SCALE)
            memset(f->q + r * b->columns, 0, b->columns);
    return QN_OK;
}

/* The operator makes what the last one of its block made; a ReLU6 becomes ReLU, whose output range
 * holds the 6. */
static qn_status connect(qn_fb_document *d, qn_fb_object *op, const qn_ema_block *b,
                         qn_error *error)
{
    const int32_t out = (int32_t)b->out;
    qn_fb_object *main = qn__fb_copy(d, qn__fb_table(op, QN_MNN_Op_main));
    const qn_fb_object *old = main == NULL ? NULL : qn__fb_table(main, QN_MNN_Convolution2D_common);
    qn_fb_object *common = old == NULL ? NULL : qn__fb_copy(d, old);
    if (common == NULL || !qn__fb_set_vector(d, op, QN_MNN_Op_outputIndexes, &out, 1))
        return QN_NOMEM(error);
    if (b->act != QN_EMA_NO_OP || qn__fb_int(d, common, QN_MNN_Convolution2DCommon_relu6) != 0) {
        qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu, 1);
        qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu6, 0);
    }
    qn__fb_set_table(main, QN_MNN_Convolution2D_common, common);
    qn__fb_set_union(d, op, QN_MNN_Op_main, main);
    return QN_OK;
}

static qn_status write_block(qn_ema *e, const qn_ema_block *b, const qn_mnn_scales *scales,
                             qn_fb_document *d, qn_fb_object **slot, qn_error *error)
{
    folded f = {0};
    qn_status status = QN_OK;
    qn_fb_object *op = qn__fb_copy(d, *slot);
    if (op == NULL)
        return QN_NOMEM(error);
    QN_TRY_GOTO(fold(e, b, &f, error));
    QN_TRY_GOTO(connect(d, op, b, error));
    const int64_t group = qn__attr_int(b->node, "group", 1);
    const qn_tensor *w = b->node->inputs[1];
    qn_mnn_conv_edit edit = {.q = f.q,
                             .scales = f.scales,
                             .bias = f.bias,
                             .rows = b->rows,
                             .columns = b->columns,
                             .bits = 8,
                             .nbits = (uint32_t)e->run->config->bits,
                             .scale_in = scales->items[b->in].scale,
                             .scale_out = scales->items[b->out].scale,
                             .zero_in = scales->items[b->in].zero,
                             .zero_out = scales->items[b->out].zero,
                             .clamp_min = -127,
                             .clamp_max = 127,
                             .linear = true,
                             .sparse = true,
                             .input_channels = w->dims[1].value * group};
    if (b->winograd != NULL)
        QN_TRY_GOTO(qn__ema_winograd_attr(e, b, &edit.winograd, &edit.n_winograd, error));
    QN_TRY_GOTO(qn__mnn_edit_conv(d, op, &edit, error));
    *slot = op;
done:
    folded_free(e->run->ctx, &f);
    return status;
}

/* A BatchNorm outside blocks keeps its place, with the statistics that it has now. */
static qn_status write_norm(const qn_train_norm *n, qn_fb_document *d, qn_fb_object **slot,
                            qn_error *error)
{
    qn_fb_object *op = qn__fb_copy(d, *slot);
    const qn_fb_object *old = qn__fb_table(*slot, QN_MNN_Op_main);
    if (op == NULL)
        return QN_NOMEM(error);
    QN_FAIL_IF(old == NULL || old->record != QN_MNN_REC_BatchNorm, error, QN_CORRUPT,
               "operator \"%s\" has no BatchNorm's parameters", n->name);
    qn_fb_object *main = qn__fb_copy(d, old);
    if (main == NULL ||
        !qn__fb_set_vector(d, main, QN_MNN_BatchNorm_meanData, n->mean, n->channels) ||
        !qn__fb_set_vector(d, main, QN_MNN_BatchNorm_varData, n->variance, n->channels))
        return QN_NOMEM(error);
    qn__fb_set_union(d, op, QN_MNN_Op_main, main);
    *slot = op;
    return QN_OK;
}

static qn_status write_ops(qn_ema *e, const qn_mnn_scales *scales, qn_fb_object **ops, bool *drop,
                           qn_fb_document *d, qn_error *error)
{
    const qn_mnn_source *s = e->run->source;
    for (size_t i = 0; i < e->n_blocks; i++) {
        const qn_ema_block *b = &e->blocks[i];
        QN_TRY(write_block(e, b, scales, d, &ops[b->conv], error));
        if (b->norm != QN_EMA_NO_OP)
            drop[b->norm] = true;
        if (b->act != QN_EMA_NO_OP)
            drop[b->act] = true;
    }
    for (size_t i = 0; i < e->result.n_norms; i++) {
        const qn_node *node = qn__graph_find_node(e->run->graph, e->result.norms[i].name);
        const size_t op = node != NULL && node->n_sources > 0 ? node->sources[0] : s->n_ops;
        if (op < s->n_ops && !drop[op])
            QN_TRY(write_norm(&e->result.norms[i], d, &ops[op], error));
    }
    size_t kept = 0;
    for (size_t i = 0; i < s->n_ops; i++)
        if (!drop[i])
            ops[kept++] = ops[i];
    return qn__fb_set_tables(d, d->root, QN_MNN_Net_oplists, ops, kept) ? QN_OK : QN_NOMEM(error);
}

qn_status qn__ema_document(qn_ema *ema, const qn_mnn_scales *scales, qn_fb_document *out,
                           qn_error *error)
{
    const qn_mnn_source *s = ema->run->source;
    const qn_context *ctx = ema->run->ctx;
    qn_fb_document d;
    qn_status status = QN_OK;
    QN_TRY(qn__fb_edit(&s->doc, &d, error));
    qn_fb_object **ops = qn__calloc(ctx, s->n_ops, sizeof(*ops));
    bool *drop = qn__calloc(ctx, s->n_ops, sizeof(*drop));
    qn_mnn_tensor_quant *records = qn__calloc(ctx, scales->n_tensors, sizeof(*records));
    size_t n = 0;
    if (ops == NULL || drop == NULL || records == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    memcpy(ops, s->ops, s->n_ops * sizeof(*ops));
    for (size_t op = 0; op < s->n_ops; op++)
        QN_TRY_GOTO(qn__mnn_take_inside(ema->run->source, &d, &ops[op], error));
    QN_TRY_GOTO(write_ops(ema, scales, ops, drop, &d, error));
    for (size_t i = 0; i < scales->n_tensors; i++)
        if (scales->items[i].scale > 0)
            records[n++] = scales->items[i];
    QN_TRY_GOTO(qn__mnn_edit_quants(&d, records, n, error));
done:
    qn__free(ctx, records);
    qn__free(ctx, drop);
    qn__free(ctx, ops);
    if (status == QN_OK)
        *out = d;
    else
        qn__fb_free(&d);
    return status;
}
