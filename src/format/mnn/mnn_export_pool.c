/* Poolings and reductions. */
#include "format/mnn/mnn_export_conv.h"

/* --- pooling -----------------------------------------------------------------------------------*/
static qn_fb_object *write_pool(qn_mnx_exporter *x, const qn_node *node, int32_t type, int32_t from,
                                int32_t to)
{
    qn_fb_object *pool =
        qn__mnx_op(x, node->name, QN_MNN_OpType_Pooling, QN_MNN_REC_Pool, &from, 1, &to, 1);
    qn__fb_set_int(pool, QN_MNN_Pool_type, type);
    qn__fb_set_int(pool, QN_MNN_Pool_padType, 0);
    qn__fb_set_int(pool, QN_MNN_Pool_dataType, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(pool, QN_MNN_Pool_ceilModel, 0);
    return pool;
}

/* ONNX drops a window that rounding up would put behind the input, MNN does not. Without the end
 * padding that no window reaches there is nothing to round. */
static bool trim_pads(const qn_node *node, qn_mnx_window *w, size_t axes)
{
    int64_t in[QN_MAX_RANK], out[QN_MAX_RANK];
    if (!qn__tensor_static_dims(node->inputs[0], in) ||
        !qn__tensor_static_dims(node->outputs[0], out))
        return false;
    for (size_t i = 0; i < axes; i++) {
        const int64_t free = in[2 + i] + w->pads[i] + w->pads[2 + i] - w->kernel[i];
        if (out[2 + i] == free / w->strides[i] + 1)
            w->pads[2 + i] -= free % w->strides[i];
        if (w->pads[2 + i] < 0)
            return false;
    }
    return true;
}

qn_status qn__mnn_export_pool(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    const qn_tensor *in = node->inputs[0];
    qn_mnx_window w;
    size_t n;
    int32_t from;
    const int64_t *kernel = qn__attr_ints(node, "kernel_shape", &n);
    if (in->rank < 3 || in->rank > 4)
        return qn__mnx_no_form(node, error, "a pooling of rank %u", in->rank);
    QN_FAIL_IF(kernel == NULL || n != in->rank - 2u, error, QN_CORRUPT,
               "node \"%s\": kernel_shape has %zu values", node->name, n);
    QN_TRY(qn__mnx_window(node, n, kernel, &w, error));
    if (w.dilations[0] != 1 || w.dilations[1] != 1)
        return qn__mnx_no_form(node, error, "dilated windows");
    const bool ceil_mode = qn__attr_int(node, "ceil_mode", 0) != 0;
    if (ceil_mode && !trim_pads(node, &w, n))
        return qn__mnx_no_form(node, error, "windows that lie outside the input");
    if (node->n_outputs > 1 && node->outputs[1] != NULL)
        return qn__mnx_no_form(node, error, "the indices of the largest values");
    QN_TRY(qn__mnx_as_image(x, node, in, &from, error));
    const int32_t to = qn__mnx_image_out(x, node, false);
    qn_fb_object *pool = write_pool(x, node, argument, from, to);
    qn__fb_set_int(pool, QN_MNN_Pool_padX, w.pads[1]);
    qn__fb_set_int(pool, QN_MNN_Pool_padY, w.pads[0]);
    qn__fb_set_int(pool, QN_MNN_Pool_isGlobal, 0);
    qn__fb_set_int(pool, QN_MNN_Pool_kernelX, w.kernel[1]);
    qn__fb_set_int(pool, QN_MNN_Pool_kernelY, w.kernel[0]);
    qn__fb_set_int(pool, QN_MNN_Pool_strideX, w.strides[1]);
    qn__fb_set_int(pool, QN_MNN_Pool_strideY, w.strides[0]);
    qn__fb_set_int(pool, QN_MNN_Pool_ceilModel, ceil_mode);
    if (w.pads[0] || w.pads[1] || w.pads[2] || w.pads[3])
        qn__mnx_set_ints(x, pool, QN_MNN_Pool_pads, w.pads, 4);
    qn__fb_set_int(pool, QN_MNN_Pool_countType,
                   qn__attr_int(node, "count_include_pad", 0)
                       ? QN_MNN_AvgPoolCountType_INCLUDE_PADDING
                       : QN_MNN_AvgPoolCountType_EXCLUDE_PADDING);
    qn__mnx_image_done(x, node, to, false);
    return QN_OK;
}

qn_status qn__mnn_export_global_pool(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                     qn_error *error)
{
    int32_t from;
    QN_TRY(qn__mnx_as_image(x, node, node->inputs[0], &from, error));
    const int32_t to = qn__mnx_image_out(x, node, false);
    qn_fb_object *pool = write_pool(x, node, argument, from, to);
    qn__fb_set_int(pool, QN_MNN_Pool_isGlobal, 1);
    qn__mnx_image_done(x, node, to, false);
    return QN_OK;
}

/* --- reductions --------------------------------------------------------------------------------*/
/* Axes from the attribute of older versions or the second input; none: all, unless the node says
 * that none means none. */
static qn_status reduce_axes(qn_mnx_exporter *x, const qn_node *node, const int64_t **axes,
                             size_t *count, qn_error *error)
{
    *axes = qn__attr_ints(node, "axes", count);
    if (*axes == NULL && qn_node_input(node, 1) != NULL)
        QN_TRY(qn__mnx_constant_ints(x, node, 1, axes, count, error));
    if (*count == 0 && qn__attr_int(node, "noop_with_empty_axes", 0) != 0)
        return qn__mnx_no_form(node, error, "a reduction of no axes");
    if (*count == 0) {
        int64_t *all = qn__arena_calloc(&x->graph->arena, QN_MAX_RANK, sizeof(*all));
        if (all == NULL)
            return QN_NOMEM(error);
        *count = node->inputs[0]->rank;
        for (size_t i = 0; i < *count; i++)
            all[i] = (int64_t)i;
        *axes = all;
    }
    return QN_OK;
}

/* Unary operations before and after, -1: none. */
typedef struct around {
    qn_op op;
    int32_t before, after;
} around;

static const around *around_of(qn_op op)
{
    static const around rows[] = {
        {QN_OP_REDUCE_L1, QN_MNN_UnaryOpOperation_ABS, -1},
        {QN_OP_REDUCE_L2, QN_MNN_UnaryOpOperation_SQUARE, QN_MNN_UnaryOpOperation_SQRT},
        {QN_OP_REDUCE_SUM_SQUARE, QN_MNN_UnaryOpOperation_SQUARE, -1},
        {QN_OP_REDUCE_LOG_SUM, -1, QN_MNN_UnaryOpOperation_LOG},
        {QN_OP_REDUCE_LOG_SUM_EXP, QN_MNN_UnaryOpOperation_EXP, QN_MNN_UnaryOpOperation_LOG},
        {QN_OP_IDENTITY, -1, -1}};
    size_t i = 0;
    while (rows[i].op != QN_OP_IDENTITY && rows[i].op != op)
        i++;
    return &rows[i];
}

qn_status qn__mnn_export_reduce(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                qn_error *error)
{
    const int64_t *axes;
    size_t count;
    int32_t from;
    QN_TRY(reduce_axes(x, node, &axes, &count, error));
    const around *a = around_of(node->op);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    const int32_t sum = a->after >= 0 ? qn__mnx_between(x, node, "_reduced", NULL) : to;
    if (a->before >= 0) {
        const int32_t first = qn__mnx_between(x, node, "_terms", NULL);
        qn__mnx_unary(x, NULL, a->before, from, first);
        from = first;
    }
    qn_fb_object *reduce = qn__mnx_op(x, node->name, QN_MNN_OpType_Reduction,
                                      QN_MNN_REC_ReductionParam, &from, 1, &sum, 1);
    if (a->after >= 0)
        qn__mnx_unary(x, NULL, a->after, sum, to);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_operation, argument);
    qn__mnx_set_ints(x, reduce, QN_MNN_ReductionParam_dim, axes, count);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_keepDims, qn__attr_int(node, "keepdims", 1) != 0);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_dType, QN_MNN_DataType_DT_FLOAT);
    return QN_OK;
}

qn_status qn__mnn_export_arg(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                             qn_error *error)
{
    const bool keep = qn__attr_int(node, "keepdims", 1) != 0;
    int64_t axis = qn__attr_int(node, "axis", 0), dims[QN_MAX_RANK];
    int32_t from;
    if (qn__attr_int(node, "select_last_index", 0) != 0)
        return qn__mnx_no_form(node, error, "select_last_index");
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    const int32_t index = keep ? qn__mnx_between(x, node, "_index", NULL) : to;
    qn_fb_object *arg = qn__mnx_op(x, node->name, argument, QN_MNN_REC_ArgMax, &from, 1, &index, 1);
    qn__fb_set_int(arg, QN_MNN_ArgMax_outMaxVal, 0);
    qn__fb_set_int(arg, QN_MNN_ArgMax_topK, 1);
    qn__fb_set_int(arg, QN_MNN_ArgMax_axis, axis + (axis < 0 ? node->inputs[0]->rank : 0));
    qn__fb_set_int(arg, QN_MNN_ArgMax_softmaxThreshold, 0);
    if (keep && qn__tensor_static_dims(node->outputs[0], dims))
        qn__mnx_reshape(x, node, "_shape", index, to, dims, node->outputs[0]->rank,
                        qn__mnx_free_dim(x, node->outputs[0]));
    return QN_OK;
}
