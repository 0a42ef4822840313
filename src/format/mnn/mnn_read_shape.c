/* Shapes as values, and tensors made from shapes. */
#include <inttypes.h>

#include "format/mnn/mnn_read.h"

qn_status qn__mnn_lower_shape(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    QN_TRY(qn__mnn_need_rank(r, x, 0, QN_MAX_RANK, error));
    const int64_t format = qn__fb_int(r->doc, r->op, QN_MNN_Op_defaultDimentionFormat);
    QN_TRY(qn__mnn_op1(r, QN_OP_SHAPE, x, &out, error));
    /* Files from TensorFlow ask for the order they know. */
    if (qn__mnn_in_format(r, 0) == QN_MNN_MNN_DATA_FORMAT_NC4HW4 && qn_mnn_is_nhwc(format)) {
        const int64_t order[4] = {0, 2, 3, 1};
        if (x->rank != 4)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "an NC4HW4 tensor of rank %u", x->rank);
        QN_TRY(qn__mnn_op2(r, QN_OP_GATHER, out, qn__mnn_ints_constant(r, "order", order, 4), &out,
                           error));
    }
    if (r->main && r->main->record == QN_MNN_REC_ShapeParam) {
        const bool begins = qn_mnn_int(r, QN_MNN_ShapeParam_hasStart) != 0;
        const bool ends = qn_mnn_int(r, QN_MNN_ShapeParam_hasEnd) != 0;
        if (begins || ends)
            QN_TRY(qn__mnn_slice(r, out, 0, begins ? qn_mnn_int(r, QN_MNN_ShapeParam_start) : 0,
                                 ends ? qn_mnn_int(r, QN_MNN_ShapeParam_end) : INT64_MAX, &out,
                                 error));
    }
    return qn__mnn_put(r, 0, out, format, error);
}

qn_status qn__mnn_lower_size(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *out;
    QN_TRY(qn__mnn_op1(r, QN_OP_SIZE, qn__mnn_in(r, 0), &out, error));
    return qn__mnn_put(r, 0, out, qn__fb_int(r->doc, r->op, QN_MNN_Op_defaultDimentionFormat),
                       error);
}

qn_status qn__mnn_lower_rank(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0);
    QN_TRY(qn__mnn_need_rank(r, x, 0, QN_MAX_RANK, error));
    return qn__mnn_put_like(r, qn__mnn_int_constant(r, "rank", x->rank), error);
}

static qn_status scalar(qn_mnn_reader *r, size_t i, qn_tensor **out, qn_error *error)
{
    *out = qn__mnn_in(r, i);
    if ((*out)->has_shape && (*out)->rank == 0)
        return QN_OK;
    return qn__mnn_reshape(r, *out, NULL, 0, out, error);
}

qn_status qn__mnn_lower_range(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *from, *to, *step, *out;
    QN_TRY(qn__mnn_need_inputs(r, 3, 3, error));
    QN_TRY(scalar(r, 0, &from, error));
    QN_TRY(scalar(r, 1, &to, error));
    QN_TRY(scalar(r, 2, &step, error));
    QN_TRY(qn__mnn_op3(r, QN_OP_RANGE, from, to, step, &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_fill(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *out;
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_EXPAND, qn__mnn_in(r, 1), qn__mnn_in(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_zeros_like(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0), *shape, *out;
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_op1(r, QN_OP_SHAPE, x, &shape, error));
    qn_tensor *zero = x->type.dtype == QN_DTYPE_F32 ? qn__mnn_float_constant(r, "zero", 0.0f)
                                                    : qn__mnn_int_constant(r, "zero", 0);
    QN_TRY(qn__mnn_op2(r, QN_OP_EXPAND, zero, shape, &out, error));
    return qn__mnn_put_like(r, out, error);
}
