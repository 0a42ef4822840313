/* The integer operators of 2019: their tensors become float tensors that hold whole numbers, which
 * is what the operators compute (products below 2^24 are exact). */
#include <inttypes.h>
#include <math.h>

#include "core/context.h"
#include "format/mnn/mnn_read.h"

/* One float per channel (or one for all) of a vector, broadcast over x of rank 4 at axis 1. */
static qn_status channel_floats(qn_mnn_reader *r, const qn_fb_object *object, uint32_t slot,
                                const char *what, const qn_tensor *x, qn_tensor **out,
                                qn_error *error)
{
    size_t n = 0;
    qn__fb_bytes(object, slot, &n);
    int64_t dims[QN_MAX_RANK];
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = i == 1 ? (int64_t)n : 1;
    const bool fits =
        n == 1 ||
        (x->rank > 1 && (x->dims[1].kind != QN_DIM_CONST || x->dims[1].value == (int64_t)n));
    if (n == 0 || !fits)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu scales", n);
    return qn__mnn_vector_constant(r, object, slot, what, x->rank, dims, out, error);
}

/* Rounded and limited to the levels there are. */
static qn_status to_levels(qn_mnn_reader *r, qn_tensor *x, float low, float high, qn_tensor **out,
                           qn_error *error)
{
    QN_TRY(qn__mnn_op1(r, QN_OP_ROUND, x, &x, error));
    return qn__mnn_clip(r, x, low, high, out, error);
}

qn_status qn__mnn_lower_float_to_int8(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_QuantizedFloatParam, error));
    qn_tensor *x = qn__mnn_in(r, 0), *scale;
    const float zero = (float)qn_mnn_int(r, QN_MNN_QuantizedFloatParam_zeroPoint);
    QN_TRY(channel_floats(r, r->main, QN_MNN_QuantizedFloatParam_tensorScale, "scale", x, &scale,
                          error));
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, scale, &x, error));
    if (zero != 0.0f)
        QN_TRY(qn__mnn_op2(r, QN_OP_ADD, x, qn__mnn_float_constant(r, "zero", zero), &x, error));
    QN_TRY(to_levels(r, x, (float)qn_mnn_int(r, QN_MNN_QuantizedFloatParam_clampMin),
                     (float)qn_mnn_int(r, QN_MNN_QuantizedFloatParam_clampMax), &x, error));
    return qn__mnn_put_like(r, x, error);
}

qn_status qn__mnn_lower_int8_to_float(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_QuantizedFloatParam, error));
    qn_tensor *x = qn__mnn_in(r, 0), *scale;
    const float zero = (float)qn_mnn_int(r, QN_MNN_QuantizedFloatParam_zeroPoint);
    QN_TRY(channel_floats(r, r->main, QN_MNN_QuantizedFloatParam_tensorScale, "scale", x, &scale,
                          error));
    if (zero != 0.0f)
        QN_TRY(qn__mnn_op2(r, QN_OP_SUB, x, qn__mnn_float_constant(r, "zero", zero), &x, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, scale, &x, error));
    return qn__mnn_put_like(r, x, error);
}

/* An integer vector of symmetricQuan as a float constant. */
static qn_status integers(qn_mnn_reader *r, const qn_fb_object *quan, uint32_t slot,
                          qn_dtype stored, const char *what, size_t rank, const int64_t *dims,
                          qn_tensor **out, qn_error *error)
{
    size_t n = 0, wanted;
    const uint8_t *bytes = qn__fb_bytes(quan, slot, &n);
    if (!qn_shape_count(&wanted, dims, rank) || n == 0 || n != wanted)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu values of %s do not fit", n, what);
    QN_TRY(qn__mnn_spend(r, n * sizeof(float), error));
    float *values = qn__reallocarray(r->graph->ctx, NULL, n, sizeof(*values));
    if (!values)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)qn__load_int(bytes, stored, i);
    *out = qn__mnn_floats_constant(r, what, values, rank, dims);
    qn__free(r->graph->ctx, values);
    return *out ? QN_OK : QN_NOMEM(error);
}

qn_status qn__mnn_integer_weights(qn_mnn_reader *r, const qn_fb_object *quan, const int64_t *dims,
                                  qn_tensor **weight, qn_tensor **bias, qn_error *error)
{
    *bias = NULL;
    QN_TRY(integers(r, quan, QN_MNN_QuantizedFloatParam_weight, QN_DTYPE_I8, "weight", 4, dims,
                    weight, error));
    if (qn__fb_has(quan, QN_MNN_QuantizedFloatParam_bias))
        QN_TRY(integers(r, quan, QN_MNN_QuantizedFloatParam_bias, QN_DTYPE_I32, "bias", 1, dims,
                        bias, error));
    return QN_OK;
}

qn_status qn__mnn_scaled_levels(qn_mnn_reader *r, const qn_fb_object *quan, qn_tensor *x,
                                bool positive, qn_tensor **out, qn_error *error)
{
    qn_tensor *scale;
    const float low = (float)qn__fb_int(r->doc, quan, QN_MNN_QuantizedFloatParam_clampMin);
    const float high = (float)qn__fb_int(r->doc, quan, QN_MNN_QuantizedFloatParam_clampMax);
    QN_TRY(channel_floats(r, quan, QN_MNN_QuantizedFloatParam_scale, "scale", x, &scale, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, scale, &x, error));
    return to_levels(r, x, positive && low < 0.0f ? 0.0f : low, high, out, error);
}

/* Sum of two tensors with scales of their own. */
qn_status qn__mnn_lower_eltwise_int8(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_EltwiseInt8, error));
    const qn_fb_object *in[2] = {qn__fb_table(r->main, QN_MNN_EltwiseInt8_inputQuan0),
                                 qn__fb_table(r->main, QN_MNN_EltwiseInt8_inputQuan1)};
    const qn_fb_object *to = qn__fb_table(r->main, QN_MNN_EltwiseInt8_outputQuan);
    const int64_t kind = qn_mnn_int(r, QN_MNN_EltwiseInt8_type);
    if (!in[0] || !in[1] || !to)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has no scales");
    /* The quantizer of that time left the kind out; there was only the sum. */
    if (kind != QN_MNN_EltwiseType_SUM && kind != QN_MNN_EltwiseType_PROD)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "kind %" PRId64, kind);
    qn_tensor *x[2], *scale, *sum;
    for (size_t i = 0; i < 2; i++) {
        x[i] = qn__mnn_in(r, i);
        QN_TRY(channel_floats(r, in[i], QN_MNN_QuantizedFloatParam_tensorScale, "scale", x[i],
                              &scale, error));
        QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x[i], scale, &x[i], error));
    }
    QN_TRY(qn__mnn_op2(r, QN_OP_ADD, x[0], x[1], &sum, error));
    QN_TRY(
        channel_floats(r, to, QN_MNN_QuantizedFloatParam_tensorScale, "scale", sum, &scale, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, sum, scale, &sum, error));
    QN_TRY(to_levels(r, sum, (float)qn__fb_int(r->doc, to, QN_MNN_QuantizedFloatParam_clampMin),
                     (float)qn__fb_int(r->doc, to, QN_MNN_QuantizedFloatParam_clampMax), &sum,
                     error));
    return qn__mnn_put_like(r, sum, error);
}
