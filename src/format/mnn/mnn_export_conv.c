/* Convolutions, transposed convolutions and products with constant matrices, which MNN computes as
 * convolutions of 1x1. */
#include "format/mnn/mnn_export_conv.h"

#include <math.h>
#include <string.h>

/* --- weights -----------------------------------------------------------------------------------*/
qn_status qn__mnx_weights(qn_mnx_exporter *x, const qn_node *node, const qn_tensor *tensor,
                          int axis, size_t rows, size_t columns, qn_mnx_weights *out,
                          qn_error *error)
{
    size_t count = 0;
    *out = (qn_mnx_weights){.rows = rows, .columns = columns};
    if (tensor->constant == NULL)
        return qn__mnx_no_form(node, error, "weights that are not constant");
    QN_FAIL_IF(!qn__tensor_count(tensor, &count) || count / columns != rows || count % columns != 0,
               error, QN_CORRUPT, "node \"%s\": weights \"%s\" have %zu values for %zu x %zu",
               node->name, tensor->name, count, rows, columns);
    const qn_quant *quant = tensor->type.quant;
    if (!qn__mnx_is_quant(tensor)) {
        out->values = qn__tensor_floats(x->graph, tensor, &count);
        return out->values != NULL ? QN_OK : QN_NOMEM(error);
    }
    if (quant->bits > 8 || !quant->is_signed || quant->block != 0 || quant->n_codebook != 0 ||
        (quant->n_scales != 1 && (quant->axis != axis || quant->n_scales != rows)))
        return qn__mnx_no_form(node, error, "weights quantized like \"%s\"", tensor->name);
    int8_t *q = qn__arena_calloc(&x->graph->arena, count + 1, 1);
    float *scales = qn__arena_calloc(&x->graph->arena, rows + 1, sizeof(*scales));
    if (q == NULL || scales == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++)
        q[i] = (int8_t)qn__load_int(tensor->constant->data, tensor->type.dtype, i);
    for (size_t i = 0; i < rows; i++) {
        const size_t at = quant->n_scales == 1 ? 0 : i;
        scales[i] = quant->scales[at];
        if (quant->zero_points != NULL && quant->zero_points[at] != 0)
            return qn__mnx_no_form(node, error, "weights with a zero point (\"%s\")", tensor->name);
    }
    out->q = q;
    out->scales = scales;
    out->bits = quant->bits;
    return QN_OK;
}

/* [columns][rows] becomes [rows][columns]. */
static qn_status transpose(qn_mnx_exporter *x, qn_mnx_weights *w, qn_error *error)
{
    const size_t bytes = w->q ? 1 : sizeof(float);
    uint8_t *to = qn__arena_calloc(&x->graph->arena, w->rows * w->columns + 1, bytes);
    const uint8_t *from = w->q ? (const uint8_t *)w->q : (const uint8_t *)w->values;
    if (to == NULL)
        return QN_NOMEM(error);
    for (size_t r = 0; r < w->rows; r++)
        for (size_t c = 0; c < w->columns; c++)
            memcpy(to + (r * w->columns + c) * bytes, from + (c * w->rows + r) * bytes, bytes);
    if (w->q)
        w->q = (const int8_t *)to;
    else
        w->values = (const float *)to;
    return QN_OK;
}

/* A vector of floats in the document's memory: the tensor's real values times factor, one value
 * repeated, zeros when there is no tensor. */
static qn_status biases(qn_mnx_exporter *x, const qn_node *node, const qn_tensor *tensor,
                        float factor, size_t rows, const float **out, qn_error *error)
{
    size_t count = 0;
    float *values = qn__arena_calloc(&x->graph->arena, rows + 1, sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    *out = values;
    if (tensor == NULL)
        return QN_OK;
    if (tensor->constant == NULL || !qn__tensor_count(tensor, &count) ||
        (count != rows && count != 1))
        return qn__mnx_no_form(node, error, "bias \"%s\"", tensor->name);
    const qn_quant *quant = tensor->type.quant;
    for (size_t i = 0; i < rows; i++) {
        const size_t at = count == 1 ? 0 : i;
        double value = qn__mnx_is_quant(tensor)
                           ? (double)qn__load_int(tensor->constant->data, tensor->type.dtype, at) *
                                 quant->scales[quant->n_scales == 1 ? 0 : at]
                           : qn__load_real(tensor->constant->data, tensor->type.dtype, at);
        values[i] = (float)(value * factor);
    }
    return QN_OK;
}

/* --- geometry ----------------------------------------------------------------------------------*/
/* Numbers of the one or two axes of the picture; the second of one is `fallback`. */
static qn_status pair(const qn_node *node, const char *name, size_t axes, int64_t fallback,
                      int64_t *out, qn_error *error)
{
    size_t count;
    const int64_t *values = qn__attr_ints(node, name, &count);
    out[0] = out[1] = fallback;
    QN_FAIL_IF(values != NULL && count != axes, error, QN_CORRUPT,
               "node \"%s\": %s has %zu values for %zu axes", node->name, name, count, axes);
    for (size_t i = 0; values != NULL && i < axes; i++)
        out[i] = values[i];
    return QN_OK;
}

qn_status qn__mnx_window(const qn_node *node, size_t axes, const int64_t *kernel,
                         qn_mnx_window *out, qn_error *error)
{
    size_t count;
    if (axes < 1 || axes > 2)
        return qn__mnx_no_form(node, error, "a window over %zu axes", axes);
    out->kernel[0] = kernel[0];
    out->kernel[1] = axes == 2 ? kernel[1] : 1;
    QN_TRY(pair(node, "strides", axes, 1, out->strides, error));
    QN_TRY(pair(node, "dilations", axes, 1, out->dilations, error));
    const int64_t *pads = qn__attr_ints(node, "pads", &count);
    memset(out->pads, 0, sizeof(out->pads));
    QN_FAIL_IF(pads != NULL && count != 2 * axes, error, QN_CORRUPT,
               "node \"%s\": pads has %zu values for %zu axes", node->name, count, axes);
    for (size_t i = 0; pads != NULL && i < axes; i++) {
        out->pads[i] = pads[i];
        out->pads[i + 2] = pads[i + axes];
    }
    const char *automatic = qn__attr_string(node, "auto_pad", "NOTSET");
    if (strcmp(automatic, "NOTSET") != 0 && strcmp(automatic, "VALID") != 0)
        return qn__mnx_no_form(node, error, "auto_pad %s", automatic);
    for (size_t i = 0; i < 4; i++)
        if (out->pads[i] < 0)
            return qn__mnx_no_form(node, error, "negative pads");
    return QN_OK;
}

/* Rank 3 gets a last axis of 1. */
qn_status qn__mnx_as_image(qn_mnx_exporter *x, const qn_node *node, const qn_tensor *tensor,
                           int32_t *id, qn_error *error)
{
    int64_t dims[QN_MAX_RANK] = {0};
    if (tensor->rank == 4)
        return qn__mnx_get(x, tensor, QN_MNX_PACKED, id, error);
    if (tensor->rank != 3 || !qn__tensor_static_dims(tensor, dims))
        return qn__mnx_no_form(node, error, "an input of rank %u", tensor->rank);
    int32_t from;
    QN_TRY(qn__mnx_get(x, tensor, QN_MNX_PLANAR, &from, error));
    dims[3] = 1;
    const int32_t planar = qn__mnx_between(x, node, "_image", tensor);
    qn__mnx_reshape(x, node, "_image_shape", from, planar, dims, 4, qn__mnx_free_dim(x, tensor));
    *id = qn__mnx_between(x, node, "_image_nc4hw4", tensor);
    qn__mnx_convert(x, NULL, planar, *id, QN_MNX_PACKED);
    return QN_OK;
}

/* Where an operator on pictures writes its result, before qn__mnx_image_done. */
int32_t qn__mnx_image_out(qn_mnx_exporter *x, const qn_node *node, bool fused)
{
    if (node->outputs[0]->rank == 4)
        return qn__mnx_put(x, node, 0, QN_MNX_PACKED, fused);
    return qn__mnx_between(x, node, "_result_nc4hw4", node->outputs[0]);
}

void qn__mnx_image_done(qn_mnx_exporter *x, const qn_node *node, int32_t id, bool fused)
{
    int64_t dims[QN_MAX_RANK];
    const qn_tensor *out = node->outputs[0];
    if (out->rank == 4 || !qn__tensor_static_dims(out, dims))
        return;
    const int32_t planar = qn__mnx_between(x, node, "_result", out);
    qn__mnx_convert(x, NULL, id, planar, QN_MNX_PLANAR);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, fused);
    qn__mnx_reshape(x, node, "_result_shape", planar, to, dims, out->rank,
                    qn__mnx_free_dim(x, out));
}

/* --- one convolution ---------------------------------------------------------------------------*/
typedef struct convolution {
    int32_t type;
    qn_mnx_window window;
    int64_t group, outputs, inputs;
    bool relu, relu6;
    const int64_t *out_pads; /* two, or NULL */
    const float *bias;       /* [outputs] */
    float scale_in, scale_out;
} convolution;

static qn_status write_conv(qn_mnx_exporter *x, const char *name, const convolution *c,
                            const qn_mnx_weights *w, int32_t from, int32_t to, qn_error *error)
{
    qn_fb_object *conv = qn__mnx_op(x, name, c->type, QN_MNN_REC_Convolution2D, &from, 1, &to, 1);
    qn_fb_object *common = qn__mnx_new(x, QN_MNN_REC_Convolution2DCommon);
    const qn_mnx_window *g = &c->window;
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_padX, g->pads[1]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_padY, g->pads[0]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelX, g->kernel[1]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelY, g->kernel[0]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_strideX, g->strides[1]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_strideY, g->strides[0]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_dilateX, g->dilations[1]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_dilateY, g->dilations[0]);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_padMode, QN_MNN_PadMode_CAFFE);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_group, c->group);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_outputCount, c->outputs);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_inputCount, c->inputs);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu, c->relu);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu6, c->relu6);
    if (g->pads[0] || g->pads[1] || g->pads[2] || g->pads[3])
        qn__mnx_set_ints(x, common, QN_MNN_Convolution2DCommon_pads, g->pads, 4);
    if (c->out_pads != NULL)
        qn__mnx_set_ints(x, common, QN_MNN_Convolution2DCommon_outPads, c->out_pads, 2);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_hasOutputShape, 0);
    qn__fb_set_table(conv, QN_MNN_Convolution2D_common, common);
    qn__mnx_set_floats(x, conv, QN_MNN_Convolution2D_bias, c->bias, (size_t)c->outputs);
    if (w->q == NULL) {
        qn__mnx_set_floats(x, conv, QN_MNN_Convolution2D_weight, w->values, w->rows * w->columns);
        return QN_OK;
    }
    if (x->doc->arena.failed)
        return QN_NOMEM(error);
    const qn_mnn_conv_edit edit = {
        .q = w->q,
        .scales = w->scales,
        .bias = c->bias,
        .rows = w->rows,
        .columns = w->columns,
        .bits = w->bits,
        .nbits = 8,
        .linear = w->bits == 8,
        .sparse = w->bits == 8,
        .scale_in = c->scale_in,
        .scale_out = c->scale_out,
        .input_channels = c->inputs,
    };
    return qn__mnn_edit_conv(x->doc, x->ops[x->n_ops - 1], &edit, error);
}

/* Does the convolution do the node's activation itself? In integers the record of the output does
 * all of it: it says where values end. */
static bool fuse(qn_mnx_exporter *x, const qn_node *node, convolution *c)
{
    float lo, hi;
    qn_mnx_value *out = qn__mnx_value(x, node->outputs[0]);
    if (!qn__mnx_act(node, &lo, &hi))
        return true;
    if (out->has_quant) {
        qn_mnn_tensor_quant *quant = &out->quant;
        const double bottom = rint((double)lo / quant->scale) + quant->zero;
        const double top = rint((double)hi / quant->scale) + quant->zero;
        if (bottom > quant->min)
            quant->min = bottom > quant->max ? quant->max : (int32_t)bottom;
        if (top < quant->max)
            quant->max = top < quant->min ? quant->min : (int32_t)top;
        c->relu = lo == 0;
        return true;
    }
    c->relu = lo == 0 && isinf(hi);
    c->relu6 = lo == 0 && hi == 6;
    return c->relu || c->relu6;
}

static void scales(qn_mnx_exporter *x, const qn_tensor *in, const qn_tensor *out, convolution *c)
{
    const qn_mnx_value *from = qn__mnx_value(x, in), *to = qn__mnx_value(x, out);
    c->scale_in = from->has_quant ? from->quant.scale : 0;
    c->scale_out = to->has_quant ? to->quant.scale : 0;
}

/* A group at a time: the runtime has no convolution of groups other than depthwise. */
static qn_status write_groups(qn_mnx_exporter *x, const qn_node *node, convolution *c,
                              const qn_mnx_weights *w, int64_t group, int32_t from, int32_t to,
                              qn_error *error)
{
    const qn_tensor *in = node->inputs[0], *out = node->outputs[0];
    const size_t n = (size_t)group;
    int64_t *points = qn__arena_calloc(&x->graph->arena, n, sizeof(*points));
    int32_t *parts = qn__arena_calloc(&x->graph->arena, 2 * n, sizeof(*parts));
    if (points == NULL || parts == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++) {
        points[i] = c->inputs / group * (int64_t)(i + 1);
        parts[i] = qn__mnx_between(x, node, "_part", in);
        parts[n + i] = qn__mnx_between(x, node, "_group", out);
    }
    qn_fb_object *slice =
        qn__mnx_op(x, NULL, QN_MNN_OpType_Slice, QN_MNN_REC_Slice, &from, 1, parts, n);
    qn__fb_set_int(slice, QN_MNN_Slice_axis, 1);
    qn__mnx_set_ints(x, slice, QN_MNN_Slice_slicePoints, points, n - 1);
    qn__fb_set_int(slice, QN_MNN_Slice_sourceType, QN_MNN_NetSource_CAFFE);
    const bool transposed = c->type == QN_MNN_OpType_Deconvolution;
    for (size_t i = 0; i < n; i++) {
        convolution one = *c;
        one.group = 1;
        one.inputs = c->inputs / group;
        one.outputs = c->outputs / group;
        one.bias = c->bias + i * (size_t)one.outputs;
        const size_t rows = w->rows / n;
        const qn_mnx_weights part = {
            .rows = rows,
            .columns = w->columns,
            .values = w->values ? w->values + i * rows * w->columns : NULL,
            .q = w->q ? w->q + i * rows * w->columns : NULL,
            .scales = w->scales && !transposed ? w->scales + i * rows : w->scales,
            .bits = w->bits,
        };
        QN_TRY(write_conv(x, NULL, &one, &part, parts[i], parts[n + i], error));
    }
    qn_fb_object *concat =
        qn__mnx_op(x, NULL, QN_MNN_OpType_Concat, QN_MNN_REC_Axis, parts + n, n, &to, 1);
    qn__fb_set_int(concat, QN_MNN_Axis_axis, 1);
    return QN_OK;
}

/* [C][K] of the weights, group and window. */
static qn_status geometry(const qn_node *node, convolution *c, int64_t *dims, qn_error *error)
{
    const qn_tensor *in = qn_node_input(node, 0), *weights = qn_node_input(node, 1);
    int64_t in_dims[QN_MAX_RANK];
    QN_FAIL_IF(in == NULL || weights == NULL || !qn__tensor_static_dims(in, in_dims) ||
                   !qn__tensor_static_dims(weights, dims) || weights->rank != in->rank,
               error, QN_CORRUPT, "node \"%s\": input and weights do not fit", node->name);
    if (in->rank < 3 || in->rank > 4)
        return qn__mnx_no_form(node, error, "a convolution of rank %u", in->rank);
    QN_TRY(qn__mnx_window(node, in->rank - 2u, dims + 2, &c->window, error));
    c->group = qn__attr_int(node, "group", 1);
    c->inputs = in_dims[1];
    QN_FAIL_IF(c->group < 1 || c->inputs < 1 || c->inputs % c->group != 0 || dims[0] < 1 ||
                   dims[1] < 1,
               error, QN_CORRUPT, "node \"%s\": %lld channels in %lld groups", node->name,
               (long long)c->inputs, (long long)c->group);
    return QN_OK;
}

qn_status qn__mnn_export_conv(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    convolution c = {.type = QN_MNN_OpType_Convolution};
    int64_t dims[QN_MAX_RANK];
    qn_mnx_weights w;
    int32_t from;
    QN_TRY(geometry(node, &c, dims, error));
    c.outputs = dims[0];
    QN_FAIL_IF(c.outputs % c.group != 0 || dims[1] != c.inputs / c.group, error, QN_CORRUPT,
               "node \"%s\": weights do not fit %lld channels in %lld groups", node->name,
               (long long)c.inputs, (long long)c.group);
    const int64_t columns = dims[1] * c.window.kernel[0] * c.window.kernel[1];
    QN_FAIL_IF(columns < 1, error, QN_CORRUPT, "node \"%s\": empty weights", node->name);
    QN_TRY(
        qn__mnx_weights(x, node, node->inputs[1], 0, (size_t)dims[0], (size_t)columns, &w, error));
    QN_TRY(biases(x, node, qn_node_input(node, 2), 1, w.rows, &c.bias, error));
    QN_TRY(qn__mnx_as_image(x, node, node->inputs[0], &from, error));
    scales(x, node->inputs[0], node->outputs[0], &c);
    const bool fused = fuse(x, node, &c);
    const int32_t to = qn__mnx_image_out(x, node, fused);
    if (c.group > 1 && c.group == c.inputs && c.group == c.outputs)
        c.type = QN_MNN_OpType_ConvolutionDepthwise;
    if (c.group == 1 || c.type == QN_MNN_OpType_ConvolutionDepthwise)
        QN_TRY(write_conv(x, node->name, &c, &w, from, to, error));
    else
        QN_TRY(write_groups(x, node, &c, &w, c.group, from, to, error));
    qn__mnx_image_done(x, node, to, fused);
    return QN_OK;
}

qn_status qn__mnn_export_conv_transpose(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                        qn_error *error)
{
    (void)argument;
    convolution c = {.type = QN_MNN_OpType_Deconvolution};
    int64_t dims[QN_MAX_RANK], extra[2];
    qn_mnx_weights w;
    int32_t from;
    QN_TRY(geometry(node, &c, dims, error));
    c.outputs = dims[1] * c.group;
    QN_FAIL_IF(dims[0] != c.inputs, error, QN_CORRUPT,
               "node \"%s\": weights do not fit %lld channels", node->name, (long long)c.inputs);
    if (qn__mnx_is_quant(node->inputs[1]))
        return qn__mnx_no_form(node, error, "a transposed convolution in integers");
    if (qn__node_attr(node, "output_shape") != NULL)
        return qn__mnx_no_form(node, error, "output_shape");
    QN_TRY(pair(node, "output_padding", node->inputs[0]->rank - 2u, 0, extra, error));
    if (extra[0] != 0 || extra[1] != 0)
        c.out_pads = extra;
    const int64_t columns = dims[1] * c.window.kernel[0] * c.window.kernel[1];
    QN_FAIL_IF(columns < 1, error, QN_CORRUPT, "node \"%s\": empty weights", node->name);
    QN_TRY(
        qn__mnx_weights(x, node, node->inputs[1], 1, (size_t)dims[0], (size_t)columns, &w, error));
    QN_TRY(biases(x, node, qn_node_input(node, 2), 1, (size_t)c.outputs, &c.bias, error));
    QN_TRY(qn__mnx_as_image(x, node, node->inputs[0], &from, error));
    const bool fused = node->act == QN_ACT_NONE;
    const int32_t to = qn__mnx_image_out(x, node, fused);
    if (c.group > 1 && c.group == c.inputs && c.group == c.outputs)
        c.type = QN_MNN_OpType_DeconvolutionDepthwise;
    if (c.group == 1 || c.type == QN_MNN_OpType_DeconvolutionDepthwise)
        QN_TRY(write_conv(x, node->name, &c, &w, from, to, error));
    else
        QN_TRY(write_groups(x, node, &c, &w, c.group, from, to, error));
    qn__mnx_image_done(x, node, to, fused);
    return QN_OK;
}

/* --- products ----------------------------------------------------------------------------------*/
/* op(A) * B of two activations (or a constant that is not a plain matrix), in float. */
static qn_status general_product(qn_mnx_exporter *x, const qn_node *node, qn_error *error)
{
    const bool gemm = node->op == QN_OP_GEMM;
    const qn_tensor *bias = gemm ? qn_node_input(node, 2) : NULL;
    const float alpha = gemm ? qn__attr_float(node, "alpha", 1) : 1;
    const float beta = gemm ? qn__attr_float(node, "beta", 1) : 1;
    int32_t ids[2], addend = -1;
    for (uint32_t i = 0; i < 2; i++) {
        if (node->inputs[i]->rank < 2)
            return qn__mnx_no_form(node, error, "a product with a vector");
        QN_TRY(qn__mnx_get(x, node->inputs[i], QN_MNX_PLANAR, &ids[i], error));
    }
    if (bias != NULL)
        QN_TRY(qn__mnx_get(x, bias, QN_MNX_PLANAR, &addend, error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    int32_t product = to, scaled = to;
    if (bias != NULL && beta != 1) {
        const int32_t grown = qn__mnx_between(x, node, "_beta", bias);
        qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MUL, addend,
                       qn__mnx_scalar(x, node, "_beta_value", beta), grown);
        addend = grown;
    }
    if (bias != NULL)
        product = scaled = qn__mnx_between(x, node, "_product", node->outputs[0]);
    if (alpha != 1)
        product = qn__mnx_between(x, node, "_unscaled", node->outputs[0]);
    qn_fb_object *matmul =
        qn__mnx_op(x, node->name, QN_MNN_OpType_MatMul, QN_MNN_REC_MatMul, ids, 2, &product, 1);
    qn__fb_set_int(matmul, QN_MNN_MatMul_T, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(matmul, QN_MNN_MatMul_transposeA, gemm && qn__attr_int(node, "transA", 0));
    qn__fb_set_int(matmul, QN_MNN_MatMul_transposeB, gemm && qn__attr_int(node, "transB", 0));
    if (alpha != 1)
        qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MUL, product,
                       qn__mnx_scalar(x, node, "_alpha_value", alpha), scaled);
    if (bias != NULL)
        qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_ADD, scaled, addend, to);
    return QN_OK;
}

/* One value, or one per column of the result. */
static bool is_vector(const qn_tensor *tensor, int64_t n)
{
    int64_t dims[QN_MAX_RANK];
    size_t count;
    if (tensor == NULL)
        return true;
    if (tensor->constant == NULL || !qn__tensor_static_dims(tensor, dims) ||
        !qn__tensor_count(tensor, &count))
        return false;
    return count == 1 || (count == (size_t)n && tensor->rank > 0 && dims[tensor->rank - 1] == n);
}

/* Rows of K values as pictures of 1x1 with K channels. */
static qn_status product_input(qn_mnx_exporter *x, const qn_node *node, bool transposed, int64_t k,
                               int32_t *id, qn_error *error)
{
    const qn_tensor *in = node->inputs[0];
    const bool packed =
        !transposed && in->rank == 2 && qn__mnx_value(x, in)->ids[QN_MNX_PACKED] >= 0;
    size_t count;
    int32_t from;
    QN_TRY(qn__mnx_get(x, in, packed ? QN_MNX_PACKED : QN_MNX_PLANAR, &from, error));
    if (transposed) {
        const int64_t swap[2] = {1, 0};
        const int32_t turned = qn__mnx_between(x, node, "_transposed", in);
        qn_fb_object *permute =
            qn__mnx_op(x, NULL, QN_MNN_OpType_Permute, QN_MNN_REC_Permute, &from, 1, &turned, 1);
        qn__mnx_set_ints(x, permute, QN_MNN_Permute_dims, swap, 2);
        from = turned;
    }
    QN_FAIL_IF(!qn__tensor_count(in, &count), error, QN_CORRUPT, "node \"%s\": input without shape",
               node->name);
    const int64_t dims[4] = {(int64_t)count / k, k, 1, 1};
    *id = qn__mnx_between(x, node, "_rows", in);
    qn__mnx_reshape(x, node, "_rows_shape", from, *id, dims, 4, 0);
    if (packed)
        return QN_OK;
    from = *id;
    *id = qn__mnx_between(x, node, "_rows_nc4hw4", in);
    qn__mnx_convert(x, NULL, from, *id, QN_MNX_PACKED);
    return QN_OK;
}

qn_status qn__mnn_export_product(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                 qn_error *error)
{
    (void)argument;
    const qn_tensor *in = qn_node_input(node, 0), *matrix = qn_node_input(node, 1);
    const bool gemm = node->op == QN_OP_GEMM;
    int64_t a[QN_MAX_RANK], b[QN_MAX_RANK], out[QN_MAX_RANK];
    QN_FAIL_IF(in == NULL || matrix == NULL || !qn__tensor_static_dims(in, a) ||
                   !qn__tensor_static_dims(matrix, b) ||
                   !qn__tensor_static_dims(node->outputs[0], out),
               error, QN_CORRUPT, "node \"%s\": inputs without shapes", node->name);
    const bool turn_a = gemm && qn__attr_int(node, "transA", 0) != 0;
    const bool turn_b = gemm && qn__attr_int(node, "transB", 0) != 0;
    const qn_tensor *bias = gemm ? qn_node_input(node, 2) : NULL;
    if (matrix->constant == NULL || matrix->rank != 2 || in->rank < 2 || in->constant != NULL ||
        !is_vector(bias, b[turn_b ? 0 : 1]))
        return general_product(x, node, error);
    const int64_t m = b[turn_b ? 0 : 1], k = b[turn_b ? 1 : 0];
    QN_FAIL_IF(m < 1 || k < 1, error, QN_CORRUPT, "node \"%s\": empty weights", node->name);
    convolution c = {
        .type = QN_MNN_OpType_Convolution,
        .window = {.kernel = {1, 1}, .strides = {1, 1}, .dilations = {1, 1}},
        .group = 1,
        .outputs = m,
        .inputs = k,
    };
    qn_mnx_weights w;
    int32_t from = -1;
    QN_TRY(qn__mnx_weights(x, node, matrix, turn_b ? 0 : 1, (size_t)m, (size_t)k, &w, error));
    if (!turn_b)
        QN_TRY(transpose(x, &w, error));
    const float alpha = gemm ? qn__attr_float(node, "alpha", 1) : 1;
    if (alpha != 1) {
        const size_t n = w.q ? w.rows : w.rows * w.columns;
        float *scaled = qn__arena_calloc(&x->graph->arena, n + 1, sizeof(*scaled));
        if (scaled == NULL)
            return QN_NOMEM(error);
        for (size_t i = 0; i < n; i++)
            scaled[i] = alpha * (w.q ? w.scales[i] : w.values[i]);
        if (w.q && !(alpha > 0))
            return qn__mnx_no_form(node, error, "alpha %g in integers", (double)alpha);
        *(w.q ? &w.scales : &w.values) = scaled;
    }
    QN_TRY(
        biases(x, node, bias, gemm ? qn__attr_float(node, "beta", 1) : 1, w.rows, &c.bias, error));
    QN_TRY(product_input(x, node, turn_a, k, &from, error));
    scales(x, in, node->outputs[0], &c);
    const qn_tensor *result = node->outputs[0];
    const bool fused = fuse(x, node, &c);
    const int32_t columns = qn__mnx_between(x, node, "_columns", result);
    QN_TRY(write_conv(x, node->name, &c, &w, from, columns, error));
    int32_t last = columns;
    if (result->rank != 2) {
        last = qn__mnx_between(x, node, "_columns_nchw", result);
        qn__mnx_convert(x, NULL, columns, last, QN_MNX_PLANAR);
    }
    const int32_t to =
        qn__mnx_put(x, node, 0, result->rank == 2 ? QN_MNX_PACKED : QN_MNX_PLANAR, fused);
    qn__mnx_reshape(x, node, "_result_shape", last, to, out, result->rank,
                    qn__mnx_free_dim(x, result));
    return QN_OK;
}
