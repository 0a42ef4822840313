/* Normalization and operators with one number per channel. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_read.h"
#include "format/mnn/mnn_source.h"

/* Axis of the channels in input 0. */
static size_t channel_axis(const qn_mnn_reader *r, const qn_tensor *x)
{
    return qn_mnn_is_nhwc(qn__mnn_in_format(r, 0)) && x->rank > 1 ? (size_t)x->rank - 1 : 1;
}

static qn_status check_channels(const qn_mnn_reader *r, const qn_tensor *x, size_t n,
                                qn_error *error)
{
    const qn_dim channels = x->dims[channel_axis(r, x)];
    if (n == 0 || (channels.kind == QN_DIM_CONST && channels.value != (int64_t)n))
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu channels, the input has %" PRId64, n,
                            channels.value);
    return QN_OK;
}

/* Part `index` of a vector or of the side file, as a constant that broadcasts over x. */
static qn_status channel_constant(qn_mnn_reader *r, const qn_tensor *x, uint32_t slot,
                                  uint32_t external, size_t index, const char *what,
                                  qn_tensor **out, qn_error *error)
{
    *out = NULL;
    size_t n = 0, n_parts = 0;
    int64_t dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = 1;
    qn__fb_bytes(r->main, slot, &n);
    if (n > 0) {
        QN_TRY(check_channels(r, x, n, error));
        dims[channel_axis(r, x)] = (int64_t)n;
        return qn__mnn_vector_constant(r, r->main, slot, what, x->rank, dims, out, error);
    }
    qn__fb_bytes(r->main, external, &n_parts);
    if (n_parts < index + 2)
        return QN_OK;
    int64_t at = qn__fb_int_at(r->doc, r->main, external, 0);
    const int64_t size = qn__fb_int_at(r->doc, r->main, external, index + 1);
    for (size_t i = 0; i < index; i++)
        if (__builtin_add_overflow(at, qn__fb_int_at(r->doc, r->main, external, i + 1), &at))
            return qn__mnn_fail(r, error, QN_CORRUPT, "\"external\" is too large");
    if (size == 0)
        return QN_OK;
    qn_blob *blob = NULL;
    qn_status status = qn__mnn_side_bytes(r->source, r->op, at, size, &blob, error);
    if (status != QN_OK)
        return qn__mnn_under(r, error, status);
    status = check_channels(r, x, blob->size_bytes / 4, error);
    dims[channel_axis(r, x)] = (int64_t)(blob->size_bytes / 4);
    if (status == QN_OK && blob->size_bytes % 4 != 0)
        status = qn__mnn_fail(r, error, QN_CORRUPT, "%zu external bytes", blob->size_bytes);
    if (status == QN_OK) {
        const char *name = qn__arena_printf(&r->graph->arena, "%s:%s", r->name, what);
        *out = name ? qn__graph_add_constant(r->graph, name, qn_type_plain_make(QN_DTYPE_F32),
                                             x->rank, dims, blob)
                    : NULL;
        status = *out ? QN_OK : QN_NOMEM(error);
    }
    qn__blob_unref(blob);
    return status;
}

qn_status qn__mnn_lower_scale(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Scale, error));
    qn_tensor *x = qn__mnn_in(r, 0), *scale, *bias;
    QN_TRY(qn__mnn_need_rank(r, x, 2, QN_MAX_RANK, error));
    QN_TRY(channel_constant(r, x, QN_MNN_Scale_scaleData, QN_MNN_Scale_external, 0, "scale", &scale,
                            error));
    QN_TRY(channel_constant(r, x, QN_MNN_Scale_biasData, QN_MNN_Scale_external, 1, "bias", &bias,
                            error));
    if (!scale)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has no scales");
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, scale, &x, error));
    if (bias)
        QN_TRY(qn__mnn_op2(r, QN_OP_ADD, x, bias, &x, error));
    return qn__mnn_put_like(r, x, error);
}

qn_status qn__mnn_lower_batch_norm(qn_mnn_reader *r, qn_error *error)
{
    static const struct {
        uint32_t slot;
        const char *what;
    } PARTS[] = {{QN_MNN_BatchNorm_slopeData, "scale"},
                 {QN_MNN_BatchNorm_biasData, "bias"},
                 {QN_MNN_BatchNorm_meanData, "mean"},
                 {QN_MNN_BatchNorm_varData, "variance"}};
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_BatchNorm, error));
    const int64_t channels = qn_mnn_int(r, QN_MNN_BatchNorm_channels);
    qn_tensor *inputs[5] = {qn__mnn_in(r, 0)}, *out;
    QN_TRY(qn__mnn_need_rank(r, inputs[0], 2, QN_MAX_RANK, error));
    if (channels < 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%" PRId64 " channels", channels);
    QN_TRY(check_channels(r, inputs[0], (size_t)channels, error));
    QN_TRY(qn__mnn_to_nchw(r, inputs[0], qn__mnn_in_format(r, 0), &inputs[0], error));
    for (size_t i = 0; i < 4; i++)
        QN_TRY(qn__mnn_vector_constant(r, r->main, PARTS[i].slot, PARTS[i].what, 1, &channels,
                                       &inputs[i + 1], error));
    qn_node *node = qn__mnn_node(r, QN_OP_BATCH_NORMALIZATION, inputs, 5);
    if (!node ||
        !qn__node_set_float(r->graph, node, "epsilon", qn_mnn_real(r, QN_MNN_BatchNorm_epsilon)))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    QN_TRY(qn__mnn_from_nchw(r, node->outputs[0], qn__mnn_in_format(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_lrn(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_LRN, error));
    const int64_t size = qn_mnn_int(r, QN_MNN_LRN_localSize);
    if (qn_mnn_int(r, QN_MNN_LRN_regionType) != 0)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "inside channels");
    if (size < 1 || size % 2 == 0)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "%" PRId64 " channels at once", size);
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    QN_TRY(qn__mnn_need_rank(r, x, 3, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_to_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    qn_node *node = qn__mnn_node(r, QN_OP_LRN, &x, 1);
    if (!node || !qn__node_set_int(r->graph, node, "size", size) ||
        !qn__node_set_float(r->graph, node, "alpha", qn_mnn_real(r, QN_MNN_LRN_alpha)) ||
        !qn__node_set_float(r->graph, node, "beta", qn_mnn_real(r, QN_MNN_LRN_beta)) ||
        !qn__node_set_float(r->graph, node, "bias", qn_mnn_real(r, QN_MNN_LRN_bias)))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    QN_TRY(qn__mnn_from_nchw(r, node->outputs[0], qn__mnn_in_format(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* x * scale / sqrt(sum(x^2) + eps), over the channels or over everything but the batch. */
qn_status qn__mnn_lower_normalize(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Normalize, error));
    const int64_t axes[3] = {1, 2, 3};
    qn_tensor *x = qn__mnn_in(r, 0), *sum, *scale;
    size_t n = 0;
    qn__fb_bytes(r->main, QN_MNN_Normalize_scale, &n);
    QN_TRY(qn__mnn_need_rank(r, x, 4, 4, error));
    QN_TRY(check_channels(r, x, n, error));
    QN_TRY(qn__mnn_to_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    qn_tensor *over = qn__mnn_ints_constant(r, "axes", axes,
                                            qn_mnn_int(r, QN_MNN_Normalize_acrossSpatial) ? 3 : 1);
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, x, &sum, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_REDUCE_SUM, sum, over, &sum, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_ADD, sum,
                       qn__mnn_float_constant(r, "eps", qn_mnn_real(r, QN_MNN_Normalize_eps)), &sum,
                       error));
    QN_TRY(qn__mnn_op1(r, QN_OP_SQRT, sum, &sum, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_DIV, x, sum, &x, error));
    const int64_t dims[4] = {1, (int64_t)n, 1, 1};
    QN_TRY(qn__mnn_vector_constant(r, r->main, QN_MNN_Normalize_scale, "scale", 4, dims, &scale,
                                   error));
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, scale, &x, error));
    QN_TRY(qn__mnn_from_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    return qn__mnn_put_like(r, x, error);
}

/* gamma or beta, which may lie in the side file; ones where there are none and they are needed. */
static qn_status layer_norm_part(qn_mnn_reader *r, uint32_t slot, size_t index, const char *what,
                                 size_t rank, const int64_t *dims, qn_tensor **out, qn_error *error)
{
    size_t n = 0, n_parts = 0, count, bytes;
    qn__fb_bytes(r->main, slot, &n);
    if (n > 0)
        return qn__mnn_vector_constant(r, r->main, slot, what, rank, dims, out, error);
    qn__fb_bytes(r->main, QN_MNN_LayerNorm_external, &n_parts);
    const char *name = qn__arena_printf(&r->graph->arena, "%s:%s", r->name, what);
    if (!name || !qn_shape_count(&count, dims, rank) || !qn_mul_size(&bytes, count, sizeof(float)))
        return QN_NOMEM(error);
    qn_blob *blob = NULL;
    if (n_parts >= 3) {
        const int64_t at = qn__fb_int_at(r->doc, r->main, QN_MNN_LayerNorm_external, 0);
        const int64_t first = qn__fb_int_at(r->doc, r->main, QN_MNN_LayerNorm_external, 1);
        const int64_t size = qn__fb_int_at(r->doc, r->main, QN_MNN_LayerNorm_external, index + 1);
        if (size < 0 || (uint64_t)size != bytes || (uint64_t)first != bytes ||
            at > INT64_MAX - first)
            return qn__mnn_fail(r, error, QN_CORRUPT, "%" PRId64 " external bytes for %zu values",
                                size, count);
        const qn_status status =
            qn__mnn_side_bytes(r->source, r->op, index ? at + first : at, size, &blob, error);
        if (status != QN_OK)
            return qn__mnn_under(r, error, status);
    } else if (index == 0) {
        void *values;
        if (bytes > r->graph->ctx->limits.tensor_bytes)
            return qn__mnn_fail(r, error, QN_LIMIT, "%zu values", count);
        QN_TRY(qn__mnn_spend(r, bytes, error));
        blob = qn__blob_create(r->graph->ctx, bytes, &values);
        for (size_t i = 0; blob && i < count; i++)
            ((float *)values)[i] = 1.0f;
    } else {
        *out = NULL;
        return QN_OK;
    }
    *out = blob ? qn__graph_add_constant(r->graph, name, qn_type_plain_make(QN_DTYPE_F32), rank,
                                         dims, blob)
                : NULL;
    qn__blob_unref(blob);
    return *out ? QN_OK : QN_NOMEM(error);
}

qn_status qn__mnn_lower_layer_norm(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_LayerNorm, error));
    qn_tensor *x = qn__mnn_in(r, 0), *gamma, *beta;
    int64_t axes[QN_MAX_RANK], dims[QN_MAX_RANK];
    size_t n;
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_ints(r, QN_MNN_LayerNorm_axis, axes, QN_MAX_RANK, &n, error));
    if (qn_mnn_int(r, QN_MNN_LayerNorm_group) > 1 || qn_mnn_int(r, QN_MNN_LayerNorm_useRMSNorm))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "in groups, or without the mean");
    if (n == 0 || n > x->rank)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "over %zu axes", n);
    for (size_t i = 0; i < n; i++) {
        QN_TRY(qn__mnn_axis(r, &axes[i], x->rank, error));
        if (axes[i] != (int64_t)(x->rank - n + i))
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "axes that are not the last ones");
        if (x->dims[axes[i]].kind != QN_DIM_CONST)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "an axis of unknown size");
        dims[i] = x->dims[axes[i]].value;
    }
    QN_TRY(layer_norm_part(r, QN_MNN_LayerNorm_gamma, 0, "gamma", n, dims, &gamma, error));
    QN_TRY(layer_norm_part(r, QN_MNN_LayerNorm_beta, 1, "beta", n, dims, &beta, error));
    qn_node *node = qn__mnn_node(r, QN_OP_LAYER_NORMALIZATION, (qn_tensor *[]){x, gamma, beta}, 3);
    if (!node || !qn__node_set_int(r->graph, node, "axis", axes[0]) ||
        !qn__node_set_float(r->graph, node, "epsilon", qn_mnn_real(r, QN_MNN_LayerNorm_epsilon)))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_softmax(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    int64_t axis = -1;
    if (r->main) {
        QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Axis, error));
        axis = qn_mnn_int(r, QN_MNN_Axis_axis);
    }
    qn_tensor *x = qn__mnn_in(r, 0);
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_axis(r, &axis, x->rank, error));
    qn_node *node = qn__mnn_node(r, QN_OP_SOFTMAX, &x, 1);
    if (!node || !qn__node_set_int(r->graph, node, "axis", axis))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}
