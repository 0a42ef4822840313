/* Operators that are written as a few of MNN's: normalizations, means, triangles, and integers'
 * bits. Samples of a grid, which MNN has itself. */
#include <string.h>

#include "format/mnn/mnn_export.h"

static int32_t unary(qn_mnx_exporter *x, const qn_node *node, const char *suffix, int32_t operation,
                     int32_t from)
{
    const int32_t to = qn__mnx_between(x, node, suffix, NULL);
    qn__mnx_unary(x, NULL, operation, from, to);
    return to;
}

static int32_t binary(qn_mnx_exporter *x, const qn_node *node, const char *suffix,
                      int32_t operation, int32_t a, int32_t b)
{
    const int32_t to = qn__mnx_between(x, node, suffix, NULL);
    qn__mnx_binary(x, NULL, operation, a, b, to);
    return to;
}

static int32_t reduced(qn_mnx_exporter *x, const qn_node *node, const char *suffix,
                       int32_t operation, const int64_t *axes, size_t n_axes, int32_t from)
{
    const int32_t to = qn__mnx_between(x, node, suffix, NULL);
    qn_fb_object *reduce =
        qn__mnx_op(x, NULL, QN_MNN_OpType_Reduction, QN_MNN_REC_ReductionParam, &from, 1, &to, 1);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_operation, operation);
    qn__mnx_set_ints(x, reduce, QN_MNN_ReductionParam_dim, axes, n_axes);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_keepDims, 1);
    qn__fb_set_int(reduce, QN_MNN_ReductionParam_dType, QN_MNN_DataType_DT_FLOAT);
    return to;
}

static qn_status need(const qn_node *node, uint32_t n, qn_error *error)
{
    for (uint32_t i = 0; i < n; i++)
        QN_FAIL_IF(qn_node_input(node, i) == NULL, error, QN_CORRUPT, "node \"%s\": no input %u",
                   node->name, i);
    return QN_OK;
}

/* --- element by element ------------------------------------------------------------------------*/
/* x * tanh(log(1 + e^x)) = x * n / (n + 2), n = e^x (e^x + 2); where e^x is cut at 20 that is x. */
qn_status qn__mnn_export_mish(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    int32_t from;
    QN_TRY(need(node, 1, error));
    const qn_mnx_layout layout = qn__mnx_layout(x, node, true);
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, &from, error));
    const int32_t two = qn__mnx_scalar(x, node, "_two", 2);
    const int32_t cut = binary(x, node, "_cut", QN_MNN_BinaryOpOperation_MINIMUM, from,
                               qn__mnx_scalar(x, node, "_most", 20));
    const int32_t power = unary(x, node, "_power", QN_MNN_UnaryOpOperation_EXP, cut);
    const int32_t more = binary(x, node, "_more", QN_MNN_BinaryOpOperation_ADD, power, two);
    const int32_t n = binary(x, node, "_above", QN_MNN_BinaryOpOperation_MUL, power, more);
    const int32_t below = binary(x, node, "_below", QN_MNN_BinaryOpOperation_ADD, n, two);
    const int32_t gate = binary(x, node, "_gate", QN_MNN_BinaryOpOperation_REALDIV, n, below);
    const int32_t to = qn__mnx_put(x, node, 0, layout, false);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_MUL, from, gate, to);
    return QN_OK;
}

/* MNN's x86 kernels compare the bits of floats: -2 is not less than -1, -0 is not equal to 0. Its
 * other comparisons are right. */
qn_status qn__mnn_export_compare(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                 qn_error *error)
{
    int32_t a, b;
    QN_TRY(need(node, 2, error));
    if (!qn__dtype_is_float(node->inputs[0]->type.dtype))
        return qn__mnn_export_binary(x, node, argument, error);
    const qn_mnx_layout layout = qn__mnx_layout(x, node, true);
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, &a, error));
    QN_TRY(qn__mnx_get(x, node->inputs[1], layout, &b, error));
    const int32_t to = qn__mnx_put(x, node, 0, layout, false);
    if (argument == QN_MNN_BinaryOpOperation_LESS) {
        qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_GREATER, b, a, to);
        return QN_OK;
    }
    const int32_t above = binary(x, node, "_above", QN_MNN_BinaryOpOperation_GREATER_EQUAL, a, b);
    const int32_t below = binary(x, node, "_below", QN_MNN_BinaryOpOperation_LESS_EQUAL, a, b);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_MUL, above, below, to);
    return QN_OK;
}

/* x + bias below -lambd, x - bias above lambd, else 0 */
qn_status qn__mnn_export_shrink(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                qn_error *error)
{
    (void)argument;
    int32_t above[3], below[3];
    const float lambd = qn__attr_float(node, "lambd", 0.5f), bias = qn__attr_float(node, "bias", 0);
    QN_TRY(need(node, 1, error));
    if (!(lambd >= 0))
        return qn__mnx_no_form(node, error, "lambd %g", (double)lambd);
    int32_t from;
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    const int32_t shift = qn__mnx_scalar(x, node, "_bias", bias);
    below[0] = binary(x, node, "_below", QN_MNN_BinaryOpOperation_GREATER,
                      qn__mnx_scalar(x, node, "_low", -lambd), from);
    below[1] = binary(x, node, "_raised", QN_MNN_BinaryOpOperation_ADD, from, shift);
    below[2] = qn__mnx_scalar(x, node, "_zero", 0);
    above[0] = binary(x, node, "_above", QN_MNN_BinaryOpOperation_GREATER, from,
                      qn__mnx_scalar(x, node, "_high", lambd));
    above[1] = binary(x, node, "_lowered", QN_MNN_BinaryOpOperation_SUB, from, shift);
    above[2] = qn__mnx_between(x, node, "_rest", NULL);
    qn__mnx_op(x, NULL, QN_MNN_OpType_Select, -1, below, 3, &above[2], 1);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_Select, -1, above, 3, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_mean(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    int32_t sum, next;
    QN_TRY(need(node, node->n_inputs < 1 ? 1 : node->n_inputs, error));
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &sum, error));
    for (uint32_t i = 1; i < node->n_inputs; i++) {
        QN_TRY(qn__mnx_get(x, node->inputs[i], QN_MNX_PLANAR, &next, error));
        sum = binary(x, node, "_sum", QN_MNN_BinaryOpOperation_ADD, sum, next);
    }
    const int32_t part = qn__mnx_scalar(x, node, "_part", 1.0f / (float)node->n_inputs);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_MUL, sum, part,
                   qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    return QN_OK;
}

/* Of integers MNN's MOD has the sign of the divisor, its FLOORMOD that of the dividend. */
qn_status qn__mnn_export_mod(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                             qn_error *error)
{
    (void)argument;
    int32_t a, b;
    QN_TRY(need(node, 2, error));
    if (qn__dtype_is_float(node->inputs[0]->type.dtype))
        return qn__mnx_no_form(node, error, "remainders of %s",
                               qn__dtype_name(node->inputs[0]->type.dtype));
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &a, error));
    QN_TRY(qn__mnx_get(x, node->inputs[1], QN_MNX_PLANAR, &b, error));
    qn__mnx_binary(x, node->name,
                   qn__attr_int(node, "fmod", 0) != 0 ? QN_MNN_BinaryOpOperation_FLOORMOD
                                                      : QN_MNN_BinaryOpOperation_MOD,
                   a, b, qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    return QN_OK;
}

/* --- normalization -----------------------------------------------------------------------------*/
static qn_status axis_of(const qn_node *node, int64_t fallback, int64_t *axis, qn_error *error)
{
    const int64_t rank = node->inputs[0]->rank;
    *axis = qn__attr_int(node, "axis", fallback);
    QN_FAIL_IF(*axis < -rank || *axis >= rank, error, QN_CORRUPT,
               "node \"%s\": axis %lld of rank %u", node->name, (long long)*axis, (unsigned)rank);
    *axis += *axis < 0 ? rank : 0;
    return QN_OK;
}

/* x / sqrt(mean(x^2) + epsilon) * scale, over the last axes */
qn_status qn__mnn_export_rms_norm(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                  qn_error *error)
{
    (void)argument;
    int64_t axis, axes[QN_MAX_RANK];
    int32_t from, scale;
    size_t n = 0;
    QN_TRY(need(node, 2, error));
    QN_TRY(axis_of(node, -1, &axis, error));
    for (int64_t i = axis; i < node->inputs[0]->rank; i++)
        axes[n++] = i;
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    QN_TRY(qn__mnx_get(x, node->inputs[1], QN_MNX_PLANAR, &scale, error));
    const int32_t squares = unary(x, node, "_squares", QN_MNN_UnaryOpOperation_SQUARE, from);
    const int32_t mean = reduced(x, node, "_mean", QN_MNN_ReductionType_MEAN, axes, n, squares);
    const int32_t sum =
        binary(x, node, "_sum", QN_MNN_BinaryOpOperation_ADD, mean,
               qn__mnx_scalar(x, node, "_epsilon", qn__attr_float(node, "epsilon", 1e-5f)));
    const int32_t inverse = unary(x, node, "_inverse", QN_MNN_UnaryOpOperation_RSQRT, sum);
    const int32_t normal = binary(x, node, "_normal", QN_MNN_BinaryOpOperation_MUL, from, inverse);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_MUL, normal, scale,
                   qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    return QN_OK;
}

/* (x - mean) / (deviation + 1e-9) */
qn_status qn__mnn_export_mean_variance(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                       qn_error *error)
{
    (void)argument;
    static const int64_t usual[] = {0, 2, 3};
    size_t n = 0;
    int32_t from;
    QN_TRY(need(node, 1, error));
    const int64_t *axes = qn__attr_ints(node, "axes", &n);
    if (axes == NULL) {
        axes = usual;
        n = sizeof(usual) / sizeof(usual[0]);
    }
    for (size_t i = 0; i < n; i++)
        QN_FAIL_IF(axes[i] < -(int64_t)node->inputs[0]->rank || axes[i] >= node->inputs[0]->rank,
                   error, QN_CORRUPT, "node \"%s\": axis %lld of rank %u", node->name,
                   (long long)axes[i], node->inputs[0]->rank);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    const int32_t mean = reduced(x, node, "_mean", QN_MNN_ReductionType_MEAN, axes, n, from);
    const int32_t centred = binary(x, node, "_centred", QN_MNN_BinaryOpOperation_SUB, from, mean);
    const int32_t squares = unary(x, node, "_squares", QN_MNN_UnaryOpOperation_SQUARE, centred);
    const int32_t variance =
        reduced(x, node, "_variance", QN_MNN_ReductionType_MEAN, axes, n, squares);
    const int32_t root = unary(x, node, "_root", QN_MNN_UnaryOpOperation_SQRT, variance);
    const int32_t below = binary(x, node, "_below", QN_MNN_BinaryOpOperation_ADD, root,
                                 qn__mnx_scalar(x, node, "_epsilon", 1e-9f));
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_REALDIV, centred, below,
                   qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    return QN_OK;
}

/* x / norm; where the norm is 0 so is x. */
qn_status qn__mnn_export_lp_norm(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                 qn_error *error)
{
    (void)argument;
    const int64_t p = qn__attr_int(node, "p", 2);
    int64_t axis;
    int32_t from;
    QN_TRY(need(node, 1, error));
    QN_TRY(axis_of(node, -1, &axis, error));
    QN_FAIL_IF(p != 1 && p != 2, error, QN_CORRUPT, "node \"%s\": p is %lld", node->name,
               (long long)p);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    const int32_t terms =
        unary(x, node, "_terms",
              p == 1 ? QN_MNN_UnaryOpOperation_ABS : QN_MNN_UnaryOpOperation_SQUARE, from);
    int32_t norm = reduced(x, node, "_reduced", QN_MNN_ReductionType_SUM, &axis, 1, terms);
    if (p == 2)
        norm = unary(x, node, "_root", QN_MNN_UnaryOpOperation_SQRT, norm);
    norm = binary(x, node, "_norm", QN_MNN_BinaryOpOperation_MAXIMUM, norm,
                  qn__mnx_scalar(x, node, "_least", 1e-30f));
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_REALDIV, from, norm,
                   qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    return QN_OK;
}

/* One value for each channel, repeated over what follows: [channels, 1, 1...]. */
static qn_status per_channel(qn_mnx_exporter *x, const qn_node *node, uint32_t index,
                             const char *suffix, int64_t channels, int32_t *to, qn_error *error)
{
    const qn_tensor *in = node->inputs[index];
    int64_t dims[QN_MAX_RANK] = {channels}, own[QN_MAX_RANK];
    int32_t from;
    if (!qn__tensor_static_dims(in, own) || in->rank != 1 || own[0] != channels)
        return qn__mnx_no_form(node, error, "input %u that is not one value per channel", index);
    const size_t rank = node->inputs[0]->rank - 1u;
    for (size_t i = 1; i < rank; i++)
        dims[i] = 1;
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, &from, error));
    *to = qn__mnx_between(x, node, suffix, NULL);
    qn__mnx_reshape(x, node, suffix, from, *to, dims, rank, -1);
    return QN_OK;
}

/* Groups as rows, normalized, then a scale and a shift for each channel. */
qn_status qn__mnn_export_group_norm(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                    qn_error *error)
{
    (void)argument;
    const int64_t groups = qn__attr_int(node, "num_groups", 1);
    int64_t dims[QN_MAX_RANK];
    int32_t from, scale, shift;
    QN_TRY(need(node, 3, error));
    const qn_tensor *in = node->inputs[0];
    QN_FAIL_IF(
        !qn__tensor_static_dims(in, dims) || in->rank < 3 || groups < 1 || dims[1] % groups != 0,
        error, QN_CORRUPT, "node \"%s\": %lld groups do not fit", node->name, (long long)groups);
    int64_t rows[3] = {dims[0], groups, dims[1] / groups};
    for (uint32_t i = 2; i < in->rank; i++)
        rows[2] *= dims[i];
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, &from, error));
    QN_TRY(per_channel(x, node, 1, "_scale", dims[1], &scale, error));
    QN_TRY(per_channel(x, node, 2, "_shift", dims[1], &shift, error));
    const int free_dim = qn__mnx_free_dim(x, in) == 0 ? 0 : -1;
    const int32_t flat = qn__mnx_between(x, node, "_rows", NULL);
    const int32_t even = qn__mnx_between(x, node, "_normal", NULL);
    const int32_t back = qn__mnx_between(x, node, "_back", NULL);
    qn__mnx_reshape(x, node, "_groups", from, flat, rows, 3, free_dim);
    qn__mnx_layer_norm(x, NULL, 1, qn__attr_float(node, "epsilon", 1e-5f), flat, even);
    qn__mnx_reshape(x, node, "_shape", even, back, dims, in->rank, free_dim);
    const int32_t scaled = binary(x, node, "_scaled", QN_MNN_BinaryOpOperation_MUL, back, scale);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_ADD, scaled, shift,
                   qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false));
    return QN_OK;
}

/* --- by position -------------------------------------------------------------------------------*/
/* What lies on one side of a diagonal, chosen by a constant of ones and zeros. */
qn_status qn__mnn_export_trilu(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    (void)argument;
    const bool upper = qn__attr_int(node, "upper", 1) != 0;
    const int64_t *given = NULL;
    int64_t dims[QN_MAX_RANK], k = 0;
    size_t count = 0, n;
    int32_t ids[3];
    QN_TRY(need(node, 1, error));
    const qn_tensor *in = node->inputs[0];
    QN_FAIL_IF(in->rank < 2 || !qn__tensor_static_dims(in, dims) ||
                   !qn_shape_count(&n, dims + in->rank - 2, 2),
               error, QN_CORRUPT, "node \"%s\": no matrices", node->name);
    if (in->type.dtype != QN_DTYPE_F32)
        return qn__mnx_no_form(node, error, "triangles of %s", qn__dtype_name(in->type.dtype));
    if (qn_node_input(node, 1) != NULL) {
        QN_TRY(qn__mnx_constant_ints(x, node, 1, &given, &count, error));
        QN_FAIL_IF(count != 1, error, QN_CORRUPT, "node \"%s\": %zu diagonals", node->name, count);
        k = given[0];
    }
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, &ids[1], error));
    int64_t *mask = qn__arena_calloc(&x->graph->arena, n, sizeof(*mask));
    if (mask == NULL && n > 0)
        return QN_NOMEM(error);
    const int64_t columns = dims[in->rank - 1];
    for (size_t i = 0; i < n; i++) { /* k may be any number: no difference with it */
        const int64_t right = (int64_t)i % columns - (int64_t)i / columns;
        mask[i] = upper ? right >= k : right <= k;
    }
    const int32_t list = qn__mnx_ints(x, node, "_list", mask, n, false);
    const int32_t matrix = qn__mnx_between(x, node, "_matrix", NULL);
    const int32_t wide = qn__mnx_between(x, node, "_mask", NULL);
    qn__mnx_reshape(x, node, "_sides", list, matrix, dims + in->rank - 2, 2, -1);
    const int32_t spread[2] = {matrix, qn__mnx_ints(x, node, "_shape", dims, in->rank, false)};
    qn__mnx_op(x, NULL, QN_MNN_OpType_BroadcastTo, -1, spread, 2, &wide, 1);
    ids[0] = wide;
    ids[2] = qn__mnx_scalar(x, node, "_zero", 0);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_Select, -1, ids, 3, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_grid_sample(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                     qn_error *error)
{
    (void)argument;
    static const char *const borders[] = {"zeros", "border", "reflection"};
    const char *mode = qn__attr_string(node, "mode", "linear");
    const char *padding = qn__attr_string(node, "padding_mode", "zeros");
    const bool linear = strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0;
    int32_t ids[2], border = 0;
    QN_TRY(need(node, 2, error));
    if (node->inputs[0]->rank != 4)
        return qn__mnx_no_form(node, error, "rank %u", node->inputs[0]->rank);
    if (!linear && strcmp(mode, "nearest") != 0)
        return qn__mnx_no_form(node, error, "mode %s", mode);
    while (border < 3 && strcmp(borders[border], padding) != 0)
        border++;
    if (border == 3 || (border == 2 && linear)) /* MNN weighs what it reflects wrongly */
        return qn__mnx_no_form(node, error, "mode %s with padding_mode %s", mode, padding);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PACKED, &ids[0], error));
    QN_TRY(qn__mnx_get(x, node->inputs[1], QN_MNX_PLANAR, &ids[1], error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PACKED, false);
    qn_fb_object *sample =
        qn__mnx_op(x, node->name, QN_MNN_OpType_GridSample, QN_MNN_REC_GridSample, ids, 2, &to, 1);
    qn__fb_set_int(sample, QN_MNN_GridSample_mode,
                   linear ? QN_MNN_SampleMode_BILINEAR : QN_MNN_SampleMode_NEAREST);
    qn__fb_set_int(sample, QN_MNN_GridSample_paddingMode, border);
    qn__fb_set_int(sample, QN_MNN_GridSample_alignCorners,
                   qn__attr_int(node, "align_corners", 0) != 0);
    return QN_OK;
}
