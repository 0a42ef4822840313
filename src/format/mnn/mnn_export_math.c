/* Operators that work element by element, and normalizations. */
#include "format/mnn/mnn_export.h"

#include <float.h>
#include <math.h>

/* Input and output of an operator that takes either layout. */
static qn_status through(qn_mnx_exporter *x, const qn_node *node, bool fused, int32_t *from,
                         int32_t *to, qn_error *error)
{
    const qn_mnx_layout layout = qn__mnx_layout(x, node, true);
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, from, error));
    *to = qn__mnx_put(x, node, 0, layout, fused);
    return QN_OK;
}

qn_status qn__mnn_export_same(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)x;
    (void)argument;
    for (uint32_t i = 1; i < node->n_outputs; i++)
        if (node->outputs[i] != NULL)
            return qn__mnx_no_form(node, error, "output %u", i);
    return QN_OK;
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

qn_status qn__mnn_export_unary(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    int32_t from, to;
    QN_TRY(through(x, node, false, &from, &to, error));
    qn_fb_object *unary = qn__mnx_unary(x, node->name, argument, from, to);
    const qn_mnx_value *in = qn__mnx_value(x, node->inputs[0]);
    const qn_mnx_value *out = qn__mnx_value(x, node->outputs[0]);
    if (argument == QN_MNN_UnaryOpOperation_SIGMOID && qn__mnx_is_quant(node->inputs[0]) &&
        qn__mnx_is_quant(node->outputs[0]))
        qn__mnx_table(x, unary, &in->quant, &out->quant, sigmoid);
    return QN_OK;
}

qn_status qn__mnn_export_relu(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    int32_t from, to;
    QN_TRY(through(x, node, false, &from, &to, error));
    qn_fb_object *relu =
        qn__mnx_op(x, node->name, QN_MNN_OpType_ReLU, QN_MNN_REC_Relu, &from, 1, &to, 1);
    qn__fb_set_real(relu, QN_MNN_Relu_slope,
                    node->op == QN_OP_RELU ? 0 : qn__attr_float(node, "alpha", 0.01f));
    return QN_OK;
}

/* Bound from an input, or the attribute of older versions. */
static qn_status bound(qn_mnx_exporter *x, const qn_node *node, uint32_t index, const char *name,
                       float fallback, float *out, qn_error *error)
{
    const float *value;
    size_t count;
    *out = qn__attr_float(node, name, fallback);
    if (qn_node_input(node, index) == NULL)
        return QN_OK;
    QN_TRY(qn__mnx_constant_floats(x, node, index, &value, &count, error));
    QN_FAIL_IF(count != 1, error, QN_CORRUPT, "node \"%s\": bound of %zu values", node->name,
               count);
    *out = value[0];
    return QN_OK;
}

qn_status qn__mnn_export_clip(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    float lo, hi;
    int32_t from, to;
    QN_TRY(bound(x, node, 1, "min", -INFINITY, &lo, error));
    QN_TRY(bound(x, node, 2, "max", INFINITY, &hi, error));
    QN_TRY(through(x, node, false, &from, &to, error));
    qn__mnx_clip(x, node->name, lo, hi, from, to);
    return QN_OK;
}

/* A slope per channel is an operator of its own; other shapes are max(x, 0) + slope * min(x, 0). */
qn_status qn__mnn_export_prelu(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    (void)argument;
    const qn_tensor *in = qn_node_input(node, 0), *slope = qn_node_input(node, 1);
    int64_t dims[QN_MAX_RANK], slopes[QN_MAX_RANK];
    size_t count;
    int32_t from, to, factor;
    QN_FAIL_IF(in == NULL || slope == NULL || !qn__tensor_static_dims(in, dims) ||
                   !qn__tensor_static_dims(slope, slopes) || !qn__tensor_count(slope, &count),
               error, QN_CORRUPT, "node \"%s\": inputs without shapes", node->name);
    const bool by_channel = in->rank == 4 && slope->rank == 3 && count == (size_t)slopes[0];
    if (slope->constant != NULL && (count == 1 || by_channel)) {
        const float *values;
        QN_TRY(qn__mnx_constant_floats(x, node, 1, &values, &count, error));
        if (by_channel) {
            QN_TRY(qn__mnx_get(x, in, QN_MNX_PACKED, &from, error));
            to = qn__mnx_put(x, node, 0, QN_MNX_PACKED, false);
        } else {
            QN_TRY(through(x, node, false, &from, &to, error));
        }
        if (count == 1) {
            qn_fb_object *relu =
                qn__mnx_op(x, node->name, QN_MNN_OpType_ReLU, QN_MNN_REC_Relu, &from, 1, &to, 1);
            qn__fb_set_real(relu, QN_MNN_Relu_slope, values[0]);
            return QN_OK;
        }
        qn_fb_object *prelu =
            qn__mnx_op(x, node->name, QN_MNN_OpType_PReLU, QN_MNN_REC_PRelu, &from, 1, &to, 1);
        qn__fb_set_int(prelu, QN_MNN_PRelu_slopeCount, (int64_t)count);
        qn__mnx_set_floats(x, prelu, QN_MNN_PRelu_slope, values, count);
        return QN_OK;
    }
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, &from, error));
    QN_TRY(qn__mnx_get(x, slope, QN_MNX_PLANAR, &factor, error));
    to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    const int32_t above = qn__mnx_between(x, node, "_above", NULL);
    const int32_t below = qn__mnx_between(x, node, "_below", NULL);
    const int32_t sloped = qn__mnx_between(x, node, "_sloped", NULL);
    const int32_t zero = qn__mnx_scalar(x, node, "_zero", 0);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MAXIMUM, from, zero, above);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MINIMUM, from, zero, below);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MUL, below, factor, sloped);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_ADD, above, sloped, to);
    return QN_OK;
}

qn_status qn__mnn_export_elu(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                             qn_error *error)
{
    (void)argument;
    int32_t from, to;
    QN_TRY(through(x, node, false, &from, &to, error));
    qn_fb_object *elu =
        qn__mnx_op(x, node->name, QN_MNN_OpType_ELU, QN_MNN_REC_ELU, &from, 1, &to, 1);
    qn__fb_set_real(elu, QN_MNN_ELU_alpha, qn__attr_float(node, "alpha", 1));
    return QN_OK;
}

qn_status qn__mnn_export_selu(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    int32_t from, to;
    QN_TRY(through(x, node, false, &from, &to, error));
    qn_fb_object *selu =
        qn__mnx_op(x, node->name, QN_MNN_OpType_Selu, QN_MNN_REC_Selu, &from, 1, &to, 1);
    qn__fb_set_real(selu, QN_MNN_Selu_alpha, qn__attr_float(node, "alpha", 1.67326319f));
    qn__fb_set_real(selu, QN_MNN_Selu_scale, qn__attr_float(node, "gamma", 1.05070102f));
    return QN_OK;
}

/* clip(alpha * x + beta, 0, 1) */
qn_status qn__mnn_export_hard_sigmoid(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                      qn_error *error)
{
    (void)argument;
    int32_t from, to;
    QN_TRY(through(x, node, false, &from, &to, error));
    const int32_t scaled = qn__mnx_between(x, node, "_scaled", NULL);
    const int32_t shifted = qn__mnx_between(x, node, "_shifted", NULL);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MUL, from,
                   qn__mnx_scalar(x, node, "_alpha", qn__attr_float(node, "alpha", 0.2f)), scaled);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_ADD, scaled,
                   qn__mnx_scalar(x, node, "_beta", qn__attr_float(node, "beta", 0.5f)), shifted);
    qn__mnx_clip(x, node->name, 0, 1, shifted, to);
    return QN_OK;
}

/* max(x, 0) + log(1 + exp(-|x|)), which does not overflow. */
qn_status qn__mnn_export_softplus(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                  qn_error *error)
{
    (void)argument;
    static const struct {
        int32_t operation;
        const char *suffix;
    } steps[] = {{QN_MNN_UnaryOpOperation_ABS, "_size"},
                 {QN_MNN_UnaryOpOperation_NEG, "_minus"},
                 {QN_MNN_UnaryOpOperation_EXP, "_exp"},
                 {QN_MNN_UnaryOpOperation_LOG1P, "_log"}};
    int32_t from, to;
    QN_TRY(through(x, node, false, &from, &to, error));
    int32_t last = from;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        const int32_t next = qn__mnx_between(x, node, steps[i].suffix, NULL);
        qn__mnx_unary(x, NULL, steps[i].operation, last, next);
        last = next;
    }
    const int32_t positive = qn__mnx_between(x, node, "_positive", NULL);
    qn__mnx_clip(x, NULL, 0, INFINITY, from, positive);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_ADD, positive, last, to);
    return QN_OK;
}

qn_status qn__mnn_export_gelu(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    const bool tanh_form = qn__attr_string(node, "approximate", "none")[0] == 't';
    return qn__mnn_export_unary(
        x, node, tanh_form ? QN_MNN_UnaryOpOperation_GELU : QN_MNN_UnaryOpOperation_GELU_STANDARD,
        error);
}

static int32_t cast_type(qn_dtype dtype)
{
    if (qn__dtype_is_float(dtype))
        return QN_MNN_DataType_DT_FLOAT;
    return dtype == QN_DTYPE_U8   ? QN_MNN_DataType_DT_UINT8
           : dtype == QN_DTYPE_I8 ? QN_MNN_DataType_DT_INT8
                                  : QN_MNN_DataType_DT_INT32;
}

/* Integers and truth values are int32 in the runtime. */
qn_status qn__mnn_export_cast(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    int32_t from, to;
    const qn_dtype have = node->inputs[0]->type.dtype, want = node->outputs[0]->type.dtype;
    if (want == QN_DTYPE_BOOL && have != QN_DTYPE_BOOL)
        return qn__mnx_no_form(node, error, "a cast to %s", qn__dtype_name(want));
    QN_TRY(through(x, node, false, &from, &to, error));
    qn_fb_object *cast =
        qn__mnx_op(x, node->name, QN_MNN_OpType_Cast, QN_MNN_REC_CastParam, &from, 1, &to, 1);
    qn__fb_set_int(cast, QN_MNN_CastParam_srcT, cast_type(have));
    qn__fb_set_int(cast, QN_MNN_CastParam_dstT, cast_type(want));
    return QN_OK;
}

/* What becomes of the node's activation. In integers the runtime's own rectifier compares with the
 * integer 0, which is the real 0 only without a zero point; where the activation's bounds are at or
 * beyond the ends of the integers, there is nothing left to do. */
static bool binary_act(qn_mnx_exporter *x, const qn_node *node, bool *relu)
{
    const qn_mnx_value *out = qn__mnx_value(x, node->outputs[0]);
    float lo, hi;
    *relu = false;
    if (!qn__mnx_act(node, &lo, &hi))
        return true;
    if (out->has_quant) {
        const qn_mnn_tensor_quant *quant = &out->quant;
        if (rint((double)lo / quant->scale) + quant->zero <= quant->min &&
            rint((double)hi / quant->scale) + quant->zero >= quant->max)
            return true;
    }
    *relu = lo == 0 && isinf(hi) && (!out->has_quant || out->quant.zero == 0);
    return *relu;
}

/* Max and Min take any number of inputs: a chain. */
qn_status qn__mnn_export_binary(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                qn_error *error)
{
    const qn_mnx_layout layout = qn__mnx_layout(x, node, true);
    bool relu;
    const bool fused = binary_act(x, node, &relu);
    int32_t a, b;
    QN_FAIL_IF(node->n_inputs < 1 || node->inputs[0] == NULL, error, QN_CORRUPT,
               "node \"%s\": no inputs", node->name);
    if (argument == QN_MNN_BinaryOpOperation_REALDIV &&
        !qn__dtype_is_float(node->outputs[0]->type.dtype) && !qn__mnx_is_quant(node->outputs[0]))
        argument = QN_MNN_BinaryOpOperation_DIV;
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, &a, error));
    for (uint32_t i = 1; i < node->n_inputs; i++) {
        QN_FAIL_IF(node->inputs[i] == NULL, error, QN_CORRUPT, "node \"%s\": no input %u",
                   node->name, i);
        QN_TRY(qn__mnx_get(x, node->inputs[i], layout, &b, error));
        const bool last = i + 1 == node->n_inputs;
        const int32_t to = last ? qn__mnx_put(x, node, 0, layout, fused)
                                : qn__mnx_between(x, node, "_step", node->outputs[0]);
        qn_fb_object *binary = qn__mnx_binary(x, last ? node->name : NULL, argument, a, b, to);
        if (last && relu)
            qn__fb_set_int(binary, QN_MNN_BinaryOp_activationType, 1);
        a = to;
    }
    if (node->n_inputs == 1) {
        int64_t dims[QN_MAX_RANK];
        if (!qn__tensor_static_dims(node->outputs[0], dims))
            return QN_OK;
        QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &a, error));
        b = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
        qn__mnx_reshape(x, node, "_shape", a, b, dims, node->outputs[0]->rank, -1);
    }
    return QN_OK;
}

/* --- normalizations ----------------------------------------------------------------------------*/
static void write_scale(qn_mnx_exporter *x, const char *name, const float *scale,
                        const float *shift, size_t channels, int32_t from, int32_t to)
{
    qn_fb_object *table =
        qn__mnx_op(x, name, QN_MNN_OpType_Scale, QN_MNN_REC_Scale, &from, 1, &to, 1);
    qn__fb_set_int(table, QN_MNN_Scale_channels, (int64_t)channels);
    qn__mnx_set_floats(x, table, QN_MNN_Scale_scaleData, scale, channels);
    qn__mnx_set_floats(x, table, QN_MNN_Scale_biasData, shift, channels);
}

qn_status qn__mnn_export_batch_norm(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                    qn_error *error)
{
    (void)argument;
    const float *in[4];
    size_t n = 0, count;
    int32_t from, to;
    if (node->inputs[0]->rank != 4 || qn__attr_int(node, "training_mode", 0) != 0)
        return qn__mnx_no_form(node, error, "this normalization (rank %u)", node->inputs[0]->rank);
    for (uint32_t i = 0; i < 4; i++) {
        QN_TRY(qn__mnx_constant_floats(x, node, i + 1, &in[i], &count, error));
        QN_FAIL_IF(i > 0 && count != n, error, QN_CORRUPT, "node \"%s\": %zu and %zu channels",
                   node->name, n, count);
        n = count;
    }
    float *scale = qn__arena_calloc(&x->graph->arena, n + 1, sizeof(*scale));
    float *shift = qn__arena_calloc(&x->graph->arena, n + 1, sizeof(*shift));
    if (scale == NULL || shift == NULL)
        return QN_NOMEM(error);
    const double epsilon = (double)qn__attr_float(node, "epsilon", 1e-5f);
    for (size_t i = 0; i < n; i++) {
        const double a = (double)in[0][i] / sqrt((double)in[3][i] + epsilon);
        scale[i] = (float)a;
        shift[i] = (float)((double)in[1][i] - a * (double)in[2][i]);
    }
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PACKED, &from, error));
    to = qn__mnx_put(x, node, 0, QN_MNX_PACKED, false);
    write_scale(x, node->name, scale, shift, n, from, to);
    return QN_OK;
}

qn_fb_object *qn__mnx_layer_norm(qn_mnx_exporter *x, const char *name, size_t axes, float epsilon,
                                 int32_t from, int32_t to)
{
    int64_t axis[QN_MAX_RANK];
    for (size_t i = 0; i < axes; i++)
        axis[i] = (int64_t)i - (int64_t)axes;
    qn_fb_object *norm =
        qn__mnx_op(x, name, QN_MNN_OpType_LayerNorm, QN_MNN_REC_LayerNorm, &from, 1, &to, 1);
    qn__mnx_set_ints(x, norm, QN_MNN_LayerNorm_axis, axis, axes);
    qn__fb_set_real(norm, QN_MNN_LayerNorm_epsilon, epsilon);
    qn__fb_set_int(norm, QN_MNN_LayerNorm_group, 1);
    qn__fb_set_int(norm, QN_MNN_LayerNorm_useRMSNorm, 0);
    return norm;
}

/* Each channel as one row, normalized, then a scale per channel. */
qn_status qn__mnn_export_instance_norm(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                       qn_error *error)
{
    (void)argument;
    const qn_tensor *in = node->inputs[0];
    const float *scale, *shift;
    size_t n, n_shift;
    int64_t dims[QN_MAX_RANK];
    int32_t from;
    if (in->rank != 4 || !qn__tensor_static_dims(in, dims))
        return qn__mnx_no_form(node, error, "this normalization (rank %u)", in->rank);
    QN_TRY(qn__mnx_constant_floats(x, node, 1, &scale, &n, error));
    QN_TRY(qn__mnx_constant_floats(x, node, 2, &shift, &n_shift, error));
    QN_FAIL_IF(n != n_shift || (int64_t)n != dims[1], error, QN_CORRUPT,
               "node \"%s\": scales do not fit %lld channels", node->name, (long long)dims[1]);
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, &from, error));
    const int64_t rows[3] = {dims[0], dims[1], dims[2] * dims[3]};
    const int free_dim = qn__mnx_free_dim(x, in);
    const int32_t flat = qn__mnx_between(x, node, "_rows", NULL);
    const int32_t norm = qn__mnx_between(x, node, "_norm", NULL);
    const int32_t image = qn__mnx_between(x, node, "_image", NULL);
    const int32_t packed = qn__mnx_between(x, node, "_image_nc4hw4", NULL);
    qn__mnx_reshape(x, node, "_rows_shape", from, flat, rows, 3, free_dim == 0 ? 0 : -1);
    qn__mnx_layer_norm(x, NULL, 1, qn__attr_float(node, "epsilon", 1e-5f), flat, norm);
    qn__mnx_reshape(x, node, "_image_shape", norm, image, dims, 4, free_dim);
    qn__mnx_convert(x, NULL, image, packed, QN_MNX_PACKED);
    write_scale(x, node->name, scale, shift, n, packed,
                qn__mnx_put(x, node, 0, QN_MNX_PACKED, false));
    return QN_OK;
}

qn_status qn__mnn_export_layer_norm(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                    qn_error *error)
{
    (void)argument;
    const qn_tensor *in = node->inputs[0];
    int64_t dims[QN_MAX_RANK], axis = qn__attr_int(node, "axis", -1);
    const float *gamma, *beta = NULL;
    size_t n = 1, n_gamma, n_beta;
    int32_t from;
    QN_FAIL_IF(!qn__tensor_static_dims(in, dims) || axis < -(int64_t)in->rank ||
                   axis >= (int64_t)in->rank,
               error, QN_CORRUPT, "node \"%s\": axis %lld of rank %u", node->name, (long long)axis,
               in->rank);
    for (uint32_t i = 1; i < node->n_outputs; i++)
        if (node->outputs[i] != NULL)
            return qn__mnx_no_form(node, error, "output %u", i);
    axis += axis < 0 ? in->rank : 0;
    for (size_t i = (size_t)axis; i < in->rank; i++)
        n *= (size_t)dims[i];
    QN_TRY(qn__mnx_constant_floats(x, node, 1, &gamma, &n_gamma, error));
    if (qn_node_input(node, 2) != NULL)
        QN_TRY(qn__mnx_constant_floats(x, node, 2, &beta, &n_beta, error));
    if (beta == NULL) {
        beta = qn__arena_calloc(&x->graph->arena, n + 1, sizeof(*beta));
        n_beta = n;
        if (beta == NULL)
            return QN_NOMEM(error);
    }
    if (n_gamma != n || n_beta != n)
        return qn__mnx_no_form(node, error, "scales of %zu values for %zu", n_gamma, n);
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, &from, error));
    qn_fb_object *norm = qn__mnx_layer_norm(x, node->name, in->rank - (size_t)axis,
                                            qn__attr_float(node, "epsilon", 1e-5f), from,
                                            qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    qn__mnx_set_floats(x, norm, QN_MNN_LayerNorm_gamma, gamma, n);
    qn__mnx_set_floats(x, norm, QN_MNN_LayerNorm_beta, beta, n);
    return QN_OK;
}

qn_status qn__mnn_export_lrn(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                             qn_error *error)
{
    (void)argument;
    int32_t from;
    if (node->inputs[0]->rank != 4)
        return qn__mnx_no_form(node, error, "this normalization (rank %u)", node->inputs[0]->rank);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PACKED, &from, error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PACKED, false);
    qn_fb_object *lrn =
        qn__mnx_op(x, node->name, QN_MNN_OpType_LRN, QN_MNN_REC_LRN, &from, 1, &to, 1);
    qn__fb_set_int(lrn, QN_MNN_LRN_regionType, 0);
    qn__fb_set_int(lrn, QN_MNN_LRN_localSize, qn__attr_int(node, "size", 1));
    qn__fb_set_real(lrn, QN_MNN_LRN_alpha, qn__attr_float(node, "alpha", 1e-4f));
    qn__fb_set_real(lrn, QN_MNN_LRN_beta, qn__attr_float(node, "beta", 0.75f));
    qn__fb_set_real(lrn, QN_MNN_LRN_bias, qn__attr_float(node, "bias", 1));
    return QN_OK;
}

static void softmax(qn_mnx_exporter *x, const char *name, int64_t axis, int32_t from, int32_t to)
{
    qn_fb_object *table =
        qn__mnx_op(x, name, QN_MNN_OpType_Softmax, QN_MNN_REC_Axis, &from, 1, &to, 1);
    qn__fb_set_int(table, QN_MNN_Axis_axis, axis);
}

qn_status qn__mnn_export_softmax(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                 qn_error *error)
{
    (void)argument;
    int32_t from;
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    softmax(x, node->name, qn__attr_int(node, "axis", -1), from,
            qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    return QN_OK;
}

static int32_t reduced(qn_mnx_exporter *x, const qn_node *node, const char *suffix,
                       int32_t operation, int64_t axis, int32_t from)
{
    const int32_t to = qn__mnx_between(x, node, suffix, NULL);
    qn_fb_object *reduce =
        qn__mnx_op(x, NULL, QN_MNN_OpType_Reduction, QN_MNN_REC_ReductionParam, &from, 1, &to, 1);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_operation, operation);
    qn__mnx_set_ints(x, reduce, QN_MNN_ReductionParam_dim, &axis, 1);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_keepDims, 1);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_dType, QN_MNN_DataType_DT_FLOAT);
    return to;
}

/* x - max - log(sum(exp(x - max))) */
qn_status qn__mnn_export_log_softmax(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                     qn_error *error)
{
    (void)argument;
    const int64_t axis = qn__attr_int(node, "axis", -1);
    int32_t from;
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    const int32_t top = reduced(x, node, "_max", QN_MNN_ReductionType_MAXIMUM, axis, from);
    const int32_t below = qn__mnx_between(x, node, "_below", NULL);
    const int32_t powers = qn__mnx_between(x, node, "_exp", NULL);
    const int32_t logarithm = qn__mnx_between(x, node, "_log", NULL);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_SUB, from, top, below);
    qn__mnx_unary(x, NULL, QN_MNN_UnaryOpOperation_EXP, below, powers);
    const int32_t sum = reduced(x, node, "_sum", QN_MNN_ReductionType_SUM, axis, powers);
    qn__mnx_unary(x, NULL, QN_MNN_UnaryOpOperation_LOG, sum, logarithm);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_SUB, below, logarithm, to);
    return QN_OK;
}
