/* Operators on plain integers whose scales and zero points are tensors. */
#include "ir/infer_util.h"

qn_status qn__infer_dynamic_quantize(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    qn__infer_dtype(in, 0, QN_DTYPE_U8);
    qn__infer_dtype(in, 1, QN_DTYPE_F32);
    qn__infer_dtype(in, 2, QN_DTYPE_U8);
    for (uint32_t i = 1; i < 3; i++)
        if (qn_infer_out(in, i) != NULL)
            QN_TRY(qn__infer_shape_set(in, i, 0, NULL, error));
    return x->has_shape ? qn__infer_shape_set(in, 0, x->rank, x->dims, error) : QN_OK;
}

qn_status qn__infer_matmul_integer(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_matmul(in, error));
    qn__infer_dtype(in, 0, QN_DTYPE_I32);
    return QN_OK;
}

qn_status qn__infer_conv_integer(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_conv(in, error));
    qn__infer_dtype(in, 0, QN_DTYPE_I32);
    return QN_OK;
}
