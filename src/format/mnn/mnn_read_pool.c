/* Pooling, reductions, positions of the largest value. */
#include <inttypes.h>

#include "format/mnn/mnn_read.h"

typedef struct pool {
    int64_t kernel[2], stride[2], pads[4]; /* height, width; top, left, bottom, right */
    int64_t type, pad_type, count_type;
    bool global, ceil, explicit_pads;
} pool;

static qn_status read_pool(qn_mnn_reader *r, pool *p, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Pool, error));
    if (r->n_out != 1)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "the output with positions");
    *p = (pool){.kernel = {qn_mnn_int(r, QN_MNN_Pool_kernelY), qn_mnn_int(r, QN_MNN_Pool_kernelX)},
                .stride = {qn_mnn_int(r, QN_MNN_Pool_strideY), qn_mnn_int(r, QN_MNN_Pool_strideX)},
                .type = qn_mnn_int(r, QN_MNN_Pool_type),
                .pad_type = qn_mnn_int(r, QN_MNN_Pool_padType),
                .count_type = qn_mnn_int(r, QN_MNN_Pool_countType),
                .global = qn_mnn_int(r, QN_MNN_Pool_isGlobal) != 0,
                .ceil = qn_mnn_int(r, QN_MNN_Pool_ceilModel) != 0};
    if (p->type != QN_MNN_PoolType_MAXPOOL && p->type != QN_MNN_PoolType_AVEPOOL)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "pooling of kind %" PRId64, p->type);
    if (p->global)
        return QN_OK;
    for (size_t i = 0; i < 2; i++)
        if (p->kernel[i] < 1 || p->stride[i] < 1)
            return qn__mnn_fail(r, error, QN_CORRUPT, "kernel %" PRId64 ", stride %" PRId64,
                                p->kernel[i], p->stride[i]);
    size_t n = 0;
    qn__fb_bytes(r->main, QN_MNN_Pool_pads, &n);
    if (n != 0 && n != 4)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "%zu pads", n);
    p->explicit_pads = n == 4;
    for (size_t i = 0; i < 4; i++) {
        p->pads[i] = n ? qn__fb_int_at(r->doc, r->main, QN_MNN_Pool_pads, i)
                       : qn_mnn_int(r, i % 2 == 0 ? QN_MNN_Pool_padY : QN_MNN_Pool_padX);
        if (p->pads[i] < 0)
            return qn__mnn_fail(r, error, QN_CORRUPT, "padding of %" PRId64, p->pads[i]);
        if (p->pad_type != QN_MNN_PoolPadType_CAFFE)
            p->pads[i] = 0;
    }
    if (p->pad_type < QN_MNN_PoolPadType_CAFFE || p->pad_type > QN_MNN_PoolPadType_SAME)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "padding of kind %" PRId64, p->pad_type);
    return QN_OK;
}

/* Pads that give MNN's output size without rounding up. A kernel larger than the input sees it
 * all once. */
static qn_status fit_axis(qn_mnn_reader *r, pool *p, size_t i, int64_t size, qn_error *error)
{
    const int64_t stride = p->stride[i], begin = p->pads[i];
    const int64_t padded = size + begin + p->pads[2 + i];
    const int64_t kernel = p->kernel[i] < padded ? p->kernel[i] : padded;
    int64_t out;
    if (p->pad_type == QN_MNN_PoolPadType_SAME)
        out = size / stride + (size % stride != 0);
    else if (p->pad_type == QN_MNN_PoolPadType_VALID || !p->ceil)
        out = (padded - kernel) / stride + 1;
    else
        out = (padded - kernel) / stride + ((padded - kernel) % stride != 0) + 1;
    if (size < 1 || p->kernel[i] > INT32_MAX || out < 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "the input has size %" PRId64, size);
    const int64_t needed = (out - 1) * stride + p->kernel[i] - size;
    if (p->pad_type == QN_MNN_PoolPadType_SAME)
        p->pads[i] = needed > 0 ? needed / 2 : 0;
    p->pads[2 + i] = needed > p->pads[i] ? needed - p->pads[i] : 0;
    if ((out - 1) * stride - p->pads[i] >= size)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "a window that lies outside the input");
    return QN_OK;
}

qn_status qn__mnn_lower_pool(qn_mnn_reader *r, qn_error *error)
{
    pool p;
    qn_tensor *x, *out;
    QN_TRY(read_pool(r, &p, error));
    QN_TRY(qn__mnn_to_plane(r, &x, error));
    const bool max = p.type == QN_MNN_PoolType_MAXPOOL;
    if (p.global) {
        QN_TRY(qn__mnn_op1(r, max ? QN_OP_GLOBAL_MAX_POOL : QN_OP_GLOBAL_AVERAGE_POOL, x, &out,
                           error));
    } else {
        const bool same = p.pad_type == QN_MNN_PoolPadType_SAME;
        /* By default pads count where one number pads both sides. */
        const bool counts = !max && (p.count_type == QN_MNN_AvgPoolCountType_INCLUDE_PADDING ||
                                     (p.count_type == QN_MNN_AvgPoolCountType_DEFAULT &&
                                      p.pad_type == QN_MNN_PoolPadType_CAFFE && !p.explicit_pads));
        const bool known = x->dims[2].kind == QN_DIM_CONST && x->dims[3].kind == QN_DIM_CONST;
        /* A window that is cut off counts only up to the pad: rounding up says so. */
        const bool fit = known && !(counts && p.ceil);
        for (size_t i = 0; fit && i < 2; i++)
            QN_TRY(fit_axis(r, &p, i, x->dims[2 + i].value, error));
        qn_node *node = qn__mnn_node(r, max ? QN_OP_MAX_POOL : QN_OP_AVERAGE_POOL, &x, 1);
        if (!node || !qn__node_set_ints(r->graph, node, "kernel_shape", p.kernel, 2) ||
            !qn__node_set_ints(r->graph, node, "strides", p.stride, 2) ||
            (!max && !qn__node_set_int(r->graph, node, "count_include_pad", counts)) ||
            (!fit && p.ceil && p.pad_type == QN_MNN_PoolPadType_CAFFE &&
             !qn__node_set_int(r->graph, node, "ceil_mode", 1)) ||
            !(!fit && same ? qn__node_set_string(r->graph, node, "auto_pad", "SAME_UPPER")
                           : qn__node_set_ints(r->graph, node, "pads", p.pads, 4)))
            return QN_NOMEM(error);
        QN_TRY(qn__mnn_infer(r, node, error));
        out = node->outputs[0];
    }
    QN_TRY(qn__mnn_from_plane(r, out, &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* The converter's form of a global pool. */
qn_status qn__mnn_lower_pool_3d(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Pool3D, error));
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    if (!qn_mnn_int(r, QN_MNN_Pool3D_isGlobal))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "pooling in three dimensions");
    QN_TRY(qn__mnn_need_rank(r, x, 3, 5, error));
    const bool max = qn_mnn_int(r, QN_MNN_Pool3D_type) == QN_MNN_PoolType_MAXPOOL;
    QN_TRY(qn__mnn_to_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    QN_TRY(qn__mnn_op1(r, max ? QN_OP_GLOBAL_MAX_POOL : QN_OP_GLOBAL_AVERAGE_POOL, x, &out, error));
    QN_TRY(qn__mnn_from_nchw(r, out, qn__mnn_in_format(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* --- reductions -------------------------------------------------------------------------------*/
qn_status qn__mnn_lower_reduction(qn_mnn_reader *r, qn_error *error)
{
    static const qn_op OPS[] = {[QN_MNN_ReductionType_SUM] = QN_OP_REDUCE_SUM,
                                [QN_MNN_ReductionType_ASUM] = QN_OP_REDUCE_SUM,
                                [QN_MNN_ReductionType_SUMSQ] = QN_OP_REDUCE_SUM,
                                [QN_MNN_ReductionType_MEAN] = QN_OP_REDUCE_MEAN,
                                [QN_MNN_ReductionType_MAXIMUM] = QN_OP_REDUCE_MAX,
                                [QN_MNN_ReductionType_MINIMUM] = QN_OP_REDUCE_MIN,
                                [QN_MNN_ReductionType_PROD] = QN_OP_REDUCE_PROD};
    QN_TRY(qn__mnn_need_inputs(r, 1, 2, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_ReductionParam, error));
    const int64_t kind = qn_mnn_int(r, QN_MNN_ReductionParam_operation);
    if (kind < 0 || kind > QN_MNN_ReductionType_PROD)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "reduction of kind %" PRId64, kind);
    qn_tensor *x = qn__mnn_in(r, 0);
    int64_t axes[QN_MAX_RANK];
    size_t n = 0;
    if (qn__fb_has(r->main, QN_MNN_ReductionParam_dim))
        QN_TRY(qn__mnn_ints(r, QN_MNN_ReductionParam_dim, axes, QN_MAX_RANK, &n, error));
    else if (r->n_in > 1)
        QN_TRY(qn__mnn_const_input(r, 1, axes, QN_MAX_RANK, &n, error));
    if (kind == QN_MNN_ReductionType_SUMSQ)
        QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, x, &x, error));
    if (kind == QN_MNN_ReductionType_ASUM)
        QN_TRY(qn__mnn_op1(r, QN_OP_ABS, x, &x, error));
    qn_tensor *list = n > 0 ? qn__mnn_ints_constant(r, "axes", axes, n) : NULL;
    if (n > 0 && !list)
        return QN_NOMEM(error);
    qn_node *node = qn__mnn_node(r, OPS[kind], (qn_tensor *[]){x, list}, 2);
    if (!node || !qn__node_set_int(r->graph, node, "keepdims",
                                   qn_mnn_int(r, QN_MNN_ReductionParam_keepDims) != 0))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_arg(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_ArgMax, error));
    /* On NC4HW4 it is Caffe's operator, which lists the best few as floats. */
    if (qn__mnn_in_format(r, 0) == QN_MNN_MNN_DATA_FORMAT_NC4HW4)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "Caffe's form, on an NC4HW4 tensor");
    qn_tensor *x = qn__mnn_in(r, 0);
    int64_t axis = qn_mnn_int(r, QN_MNN_ArgMax_axis);
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_axis(r, &axis, x->rank, error));
    const qn_op op = r->type == QN_MNN_OpType_ArgMin ? QN_OP_ARG_MIN : QN_OP_ARG_MAX;
    qn_node *node = qn__mnn_node(r, op, &x, 1);
    if (!node || !qn__node_set_int(r->graph, node, "axis", axis) ||
        !qn__node_set_int(r->graph, node, "keepdims", 0))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}
