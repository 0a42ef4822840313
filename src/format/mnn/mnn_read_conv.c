/* Convolutions and matrix products. */
#include <inttypes.h>

#include "format/mnn/mnn_read.h"

/* Convolution2DCommon in ONNX's order: height, width. */
typedef struct geometry {
    const qn_fb_object *common;
    int64_t kernel[2], stride[2], dilation[2], pads[4]; /* pads: top, left, bottom, right */
    int64_t mode, group, outputs;
} geometry;

static qn_status read_geometry(qn_mnn_reader *r, geometry *g, qn_error *error)
{
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Convolution2D, error));
    const qn_fb_object *c = g->common = qn__fb_table(r->main, QN_MNN_Convolution2D_common);
    if (!c)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has no \"common\"");
    static const struct {
        uint32_t y, x;
    } PAIRS[] = {{QN_MNN_Convolution2DCommon_kernelY, QN_MNN_Convolution2DCommon_kernelX},
                 {QN_MNN_Convolution2DCommon_strideY, QN_MNN_Convolution2DCommon_strideX},
                 {QN_MNN_Convolution2DCommon_dilateY, QN_MNN_Convolution2DCommon_dilateX}};
    int64_t *const to[] = {g->kernel, g->stride, g->dilation};
    for (size_t i = 0; i < 3; i++) {
        to[i][0] = qn__fb_int(r->doc, c, PAIRS[i].y);
        to[i][1] = qn__fb_int(r->doc, c, PAIRS[i].x);
        if (to[i][0] < 1 || to[i][1] < 1)
            return qn__mnn_fail(r, error, QN_CORRUPT,
                                "kernel, stride or dilation is %" PRId64 "x%" PRId64, to[i][0],
                                to[i][1]);
    }
    g->mode = qn__fb_int(r->doc, c, QN_MNN_Convolution2DCommon_padMode);
    g->group = qn__fb_int(r->doc, c, QN_MNN_Convolution2DCommon_group);
    g->outputs = qn__fb_int(r->doc, c, QN_MNN_Convolution2DCommon_outputCount);
    if (g->mode < QN_MNN_PadMode_CAFFE || g->mode > QN_MNN_PadMode_SAME)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "padding of kind %" PRId64, g->mode);
    size_t n_pads = 0;
    qn__fb_bytes(c, QN_MNN_Convolution2DCommon_pads, &n_pads);
    if (n_pads != 0 && n_pads < 4)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has %zu pads", n_pads);
    for (size_t i = 0; i < 4; i++) {
        g->pads[i] = n_pads > 0 ? qn__fb_int_at(r->doc, c, QN_MNN_Convolution2DCommon_pads, i)
                                : qn__fb_int(r->doc, c,
                                             i % 2 == 0 ? QN_MNN_Convolution2DCommon_padY
                                                        : QN_MNN_Convolution2DCommon_padX);
        if (g->mode != QN_MNN_PadMode_CAFFE)
            g->pads[i] = 0;
        if (g->pads[i] < 0)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "padding of %" PRId64, g->pads[i]);
    }
    return QN_OK;
}

/* SAME as MNN computes it: the odd element at the end, nothing below zero. */
static qn_status same_pads(qn_mnn_reader *r, geometry *g, const qn_tensor *x, bool *known,
                           qn_error *error)
{
    *known = true;
    for (size_t i = 0; i < 2; i++)
        *known &= x->dims[2 + i].kind == QN_DIM_CONST;
    for (size_t i = 0; *known && i < 2; i++) {
        const int64_t size = x->dims[2 + i].value, stride = g->stride[i];
        const int64_t out = size / stride + (size % stride != 0);
        int64_t total;
        if (__builtin_mul_overflow(out - 1, stride, &total))
            return qn__mnn_fail(r, error, QN_CORRUPT, "the input is too large");
        total += (g->kernel[i] - 1) * g->dilation[i] + 1 - size;
        if (total < -1)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED,
                                "SAME padding below zero (stride above the kernel's size)");
        g->pads[i] = total / 2;
        g->pads[2 + i] = total < 0 ? 0 : total - g->pads[i];
    }
    return QN_OK;
}

static bool set_geometry(qn_mnn_reader *r, qn_node *node, const geometry *g, bool same)
{
    qn_graph *graph = r->graph;
    if (!node || !qn__node_set_ints(graph, node, "kernel_shape", g->kernel, 2) ||
        !qn__node_set_ints(graph, node, "strides", g->stride, 2) ||
        !qn__node_set_ints(graph, node, "dilations", g->dilation, 2) ||
        !qn__node_set_int(graph, node, "group", g->group))
        return false;
    return same ? qn__node_set_string(graph, node, "auto_pad", "SAME_UPPER")
                : qn__node_set_ints(graph, node, "pads", g->pads, 4);
}

/* The activation in Convolution2DCommon, then the axes of the file. */
static qn_status finish_conv(qn_mnn_reader *r, const geometry *g, qn_tensor *x, qn_error *error)
{
    if (qn__fb_int(r->doc, g->common, QN_MNN_Convolution2DCommon_relu6))
        QN_TRY(qn__mnn_clip(r, x, 0.0f, 6.0f, &x, error));
    else if (qn__fb_int(r->doc, g->common, QN_MNN_Convolution2DCommon_relu))
        QN_TRY(qn__mnn_op1(r, QN_OP_RELU, x, &x, error));
    QN_TRY(qn__mnn_from_plane(r, x, &x, error));
    return qn__mnn_put_like(r, x, error);
}

/* Weights given by an operator: dimensions decide kernel and outputs. */
static qn_status weight_input(qn_mnn_reader *r, geometry *g, qn_tensor **weight, qn_tensor **bias,
                              qn_error *error)
{
    *weight = qn__mnn_in(r, 1);
    *bias = qn__mnn_in(r, 2);
    QN_TRY(qn__mnn_need_rank(r, *weight, 4, 4, error));
    if (qn_mnn_is_nhwc(qn__mnn_in_format(r, 1)))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "weights from an NHWC tensor");
    for (size_t i = 0; i < 2; i++) {
        if ((*weight)->dims[2 + i].kind != QN_DIM_CONST)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "weights of unknown size");
        g->kernel[i] = (*weight)->dims[2 + i].value;
    }
    if (*bias) {
        const int64_t flat[1] = {-1};
        QN_TRY(qn__mnn_reshape(r, *bias, flat, 1, bias, error));
    }
    return QN_OK;
}

/* group from the channels that there are: files of some converters say 1 for grouped ones. */
static qn_status find_group(qn_mnn_reader *r, geometry *g, const qn_tensor *x,
                            const qn_tensor *weight, qn_error *error)
{
    if (x->dims[1].kind != QN_DIM_CONST || weight->dims[1].kind != QN_DIM_CONST)
        return QN_OK;
    const int64_t channels = x->dims[1].value, per_group = weight->dims[1].value;
    if (per_group < 1 || channels % per_group != 0)
        return qn__mnn_fail(r, error, QN_CORRUPT,
                            "weights for %" PRId64 " channels, the input has %" PRId64, per_group,
                            channels);
    g->group = channels / per_group;
    return QN_OK;
}

qn_status qn__mnn_lower_conv(qn_mnn_reader *r, qn_error *error)
{
    geometry g;
    qn_tensor *x, *weight, *bias = NULL;
    QN_TRY(qn__mnn_need_inputs(r, 1, 3, error));
    QN_TRY(read_geometry(r, &g, error));
    QN_TRY(qn__mnn_to_plane(r, &x, error));
    if (r->n_in > 1) {
        QN_TRY(weight_input(r, &g, &weight, &bias, error));
    } else {
        int64_t dims[4] = {g.outputs, 0, g.kernel[0], g.kernel[1]};
        if (g.outputs < 1)
            return qn__mnn_fail(r, error, QN_CORRUPT, "\"outputCount\" is %" PRId64, g.outputs);
        QN_TRY(qn__mnn_weights(r, (size_t)g.outputs, 4, dims, 1, &weight, error));
        QN_TRY(qn__mnn_bias(r, (size_t)g.outputs, &bias, error));
    }
    QN_TRY(find_group(r, &g, x, weight, error));
    bool known = true;
    if (g.mode == QN_MNN_PadMode_SAME)
        QN_TRY(same_pads(r, &g, x, &known, error));
    qn_node *node = qn__mnn_node(r, QN_OP_CONV, (qn_tensor *[]){x, weight, bias}, 3);
    if (!set_geometry(r, node, &g, !known))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return finish_conv(r, &g, node->outputs[0], error);
}

/* The integer form of 2019: round((conv(x, w) + bias) * scale). */
qn_status qn__mnn_lower_conv_int8(qn_mnn_reader *r, qn_error *error)
{
    geometry g;
    qn_tensor *x = qn__mnn_in(r, 0), *weight, *bias, *out;
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(read_geometry(r, &g, error));
    const qn_fb_object *quan = qn__fb_table(r->main, QN_MNN_Convolution2D_symmetricQuan);
    if (!quan || !qn__fb_has(quan, QN_MNN_QuantizedFloatParam_weight))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "without integer weights of its own");
    if (qn__fb_int(r->doc, quan, QN_MNN_QuantizedFloatParam_zeroPoint) != 0 ||
        qn__fb_int(r->doc, quan, QN_MNN_QuantizedFloatParam_outputZeroPoint) != 0)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "zero points");
    QN_TRY(qn__mnn_need_rank(r, x, 4, 4, error));
    QN_TRY(qn__mnn_to_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    size_t count = 0;
    qn__fb_bytes(quan, QN_MNN_QuantizedFloatParam_weight, &count);
    int64_t others;
    if (g.outputs < 1 || __builtin_mul_overflow(g.outputs, g.kernel[0], &others) ||
        __builtin_mul_overflow(others, g.kernel[1], &others) || (int64_t)count % others != 0)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu weights do not fit", count);
    const int64_t dims[4] = {g.outputs, (int64_t)count / others, g.kernel[0], g.kernel[1]};
    QN_TRY(qn__mnn_integer_weights(r, quan, dims, &weight, &bias, error));
    QN_TRY(find_group(r, &g, x, weight, error));
    bool known = true;
    if (g.mode == QN_MNN_PadMode_SAME)
        QN_TRY(same_pads(r, &g, x, &known, error));
    qn_node *node = qn__mnn_node(r, QN_OP_CONV, (qn_tensor *[]){x, weight, bias}, 3);
    if (!set_geometry(r, node, &g, !known))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    const bool relu = qn__fb_int(r->doc, g.common, QN_MNN_Convolution2DCommon_relu) != 0 ||
                      qn__fb_int(r->doc, g.common, QN_MNN_Convolution2DCommon_relu6) != 0;
    QN_TRY(qn__mnn_scaled_levels(r, quan, node->outputs[0], relu, &out, error));
    QN_TRY(qn__mnn_from_nchw(r, out, qn__mnn_in_format(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* --- transposed -------------------------------------------------------------------------------*/
static qn_status deconv_pads(qn_mnn_reader *r, geometry *g, const qn_tensor *x, int64_t *extra,
                             qn_error *error)
{
    const qn_fb_object *c = g->common;
    size_t n_extra = 0;
    qn__fb_bytes(c, QN_MNN_Convolution2DCommon_outPads, &n_extra);
    if (n_extra == 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has 1 output pad");
    int64_t wanted[3] = {0};
    const bool shaped = qn__fb_int(r->doc, c, QN_MNN_Convolution2DCommon_hasOutputShape) != 0;
    if (shaped) {
        size_t n = 0;
        int64_t shape[QN_MAX_RANK];
        QN_TRY(qn__mnn_const_input(r, r->n_in - 1, shape, QN_MAX_RANK, &n, error));
        if (r->n_in < 2 || n < 3)
            return qn__mnn_fail(r, error, QN_CORRUPT, "the output shape has %zu values", n);
        wanted[0] = shape[1];
        wanted[1] = shape[2];
    }
    for (size_t i = 0; i < 2; i++) {
        extra[i] = n_extra ? qn__fb_int_at(r->doc, c, QN_MNN_Convolution2DCommon_outPads, i) : 0;
        if (!shaped && g->mode != QN_MNN_PadMode_SAME)
            continue;
        if (x->dims[2 + i].kind != QN_DIM_CONST)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED,
                                "SAME padding of an input of unknown size");
        const int64_t size = x->dims[2 + i].value;
        int64_t full, out = wanted[i];
        if (__builtin_mul_overflow(size - 1, g->stride[i], &full) ||
            (!shaped && __builtin_mul_overflow(size, g->stride[i], &out)))
            return qn__mnn_fail(r, error, QN_CORRUPT, "the output is too large");
        /* MNN finds the start without the dilation. */
        const int64_t before =
            g->mode == QN_MNN_PadMode_SAME ? (full + g->kernel[i] - out) / 2 : g->pads[i];
        const int64_t after = full + (g->kernel[i] - 1) * g->dilation[i] + 1 - out - before;
        if (before < 0)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "padding of %" PRId64, before);
        g->pads[i] = before;
        g->pads[2 + i] = after > 0 ? after : 0;
        extra[i] = after < 0 ? -after : 0;
    }
    return QN_OK;
}

qn_status qn__mnn_lower_deconv(qn_mnn_reader *r, qn_error *error)
{
    geometry g;
    int64_t extra[2] = {0};
    qn_tensor *x = qn__mnn_in(r, 0), *weight, *bias = NULL;
    QN_TRY(read_geometry(r, &g, error));
    const bool shaped =
        qn__fb_int(r->doc, g.common, QN_MNN_Convolution2DCommon_hasOutputShape) != 0;
    if (r->n_in > (shaped ? 2u : 1u))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "weights from an operator");
    QN_TRY(qn__mnn_need_rank(r, x, 4, 4, error));
    QN_TRY(qn__mnn_to_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    const bool depthwise = r->type == QN_MNN_OpType_DeconvolutionDepthwise;
    if (depthwise)
        g.group = g.outputs;
    if (g.outputs < 1 || g.group < 1 || g.outputs % g.group != 0)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%" PRId64 " outputs in %" PRId64 " groups",
                            g.outputs, g.group);
    int64_t dims[4] = {0, g.outputs / g.group, g.kernel[0], g.kernel[1]};
    QN_TRY(qn__mnn_weights(r, (size_t)g.outputs, 4, dims, 0, &weight, error));
    QN_TRY(qn__mnn_bias(r, (size_t)g.outputs, &bias, error));
    QN_TRY(deconv_pads(r, &g, x, extra, error));
    qn_node *node = qn__mnn_node(r, QN_OP_CONV_TRANSPOSE, (qn_tensor *[]){x, weight, bias}, 3);
    if (!set_geometry(r, node, &g, false) ||
        !qn__node_set_ints(r->graph, node, "output_padding", extra, 2))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return finish_conv(r, &g, node->outputs[0], error);
}

/* --- matrix products --------------------------------------------------------------------------*/
qn_status qn__mnn_lower_inner_product(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_InnerProduct, error));
    qn_tensor *x = qn__mnn_in(r, 0), *weight, *bias = NULL;
    const int64_t outputs = qn_mnn_int(r, QN_MNN_InnerProduct_outputCount);
    if (outputs < 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "\"outputCount\" is %" PRId64, outputs);
    if (qn_mnn_int(r, QN_MNN_InnerProduct_transpose))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "transposed weights");
    int64_t axis = qn_mnn_int(r, QN_MNN_InnerProduct_axis), dims[2] = {outputs, 0};
    QN_TRY(qn__mnn_need_rank(r, x, 2, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_axis(r, &axis, x->rank, error));
    if (x->rank > 2 && axis != 1)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "axis %" PRId64, axis);
    QN_TRY(qn__mnn_to_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    if (x->rank > 2) {
        qn_node *flat = qn__mnn_side_node(r, QN_OP_FLATTEN, &x, 1);
        QN_TRY(qn__mnn_infer(r, flat, error));
        x = flat->outputs[0];
    }
    QN_TRY(qn__mnn_weights(r, (size_t)outputs, 2, dims, 1, &weight, error));
    QN_TRY(qn__mnn_bias(r, (size_t)outputs, &bias, error));
    qn_node *node = qn__mnn_node(r, QN_OP_GEMM, (qn_tensor *[]){x, weight, bias}, 3);
    if (!node || !qn__node_set_int(r->graph, node, "transB", 1))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

static qn_status swap_last(qn_mnn_reader *r, qn_tensor *x, bool wanted, qn_tensor **out,
                           qn_error *error)
{
    *out = x;
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    if (!wanted || x->rank < 2)
        return QN_OK;
    int64_t perm[QN_MAX_RANK];
    for (int64_t i = 0; i < x->rank; i++)
        perm[i] = i;
    perm[x->rank - 2] = x->rank - 1;
    perm[x->rank - 1] = x->rank - 2;
    qn_node *node = qn__mnn_side_node(r, QN_OP_TRANSPOSE, &x, 1);
    if (!node || !qn__node_set_ints(r->graph, node, "perm", perm, x->rank))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    *out = node->outputs[0];
    return QN_OK;
}

qn_status qn__mnn_lower_matmul(qn_mnn_reader *r, qn_error *error)
{
    const bool batch = r->type == QN_MNN_OpType_BatchMatMul;
    QN_TRY(qn__mnn_need_inputs(r, 2, 3, error));
    QN_TRY(qn__mnn_need_main(r, batch ? QN_MNN_REC_BatchMatMulParam : QN_MNN_REC_MatMul, error));
    qn_tensor *a, *b, *out;
    QN_TRY(swap_last(r, qn__mnn_in(r, 0),
                     qn_mnn_int(r, batch ? QN_MNN_BatchMatMulParam_adjX : QN_MNN_MatMul_transposeA),
                     &a, error));
    QN_TRY(swap_last(r, qn__mnn_in(r, 1),
                     qn_mnn_int(r, batch ? QN_MNN_BatchMatMulParam_adjY : QN_MNN_MatMul_transposeB),
                     &b, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_MATMUL, a, b, &out, error));
    if (r->n_in > 2)
        QN_TRY(qn__mnn_op2(r, QN_OP_ADD, out, qn__mnn_in(r, 2), &out, error));
    return qn__mnn_put_like(r, out, error);
}
