/* Operators that move data, and resizes. */
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_export.h"

/* --- shapes ------------------------------------------------------------------------------------*/
/* Layout of an operator that moves elements of its first input: the one it has. */
static qn_mnx_layout own_layout(qn_mnx_exporter *x, const qn_node *node)
{
    const qn_tensor *in = node->inputs[0];
    return in->constant == NULL && qn__mnx_value(x, in)->ids[QN_MNX_PACKED] >= 0 ? QN_MNX_PACKED
                                                                                 : QN_MNX_PLANAR;
}

qn_status qn__mnn_export_reshape(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                 qn_error *error)
{
    (void)argument;
    const qn_tensor *out = node->outputs[0];
    int64_t dims[QN_MAX_RANK] = {0};
    int32_t from;
    const qn_mnx_layout layout = out->rank >= 2 ? own_layout(x, node) : QN_MNX_PLANAR;
    QN_FAIL_IF(!qn__tensor_static_dims(out, dims), error, QN_CORRUPT,
               "node \"%s\": output without shape", node->name);
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, &from, error));
    const int32_t to = qn__mnx_put(x, node, 0, layout, false);
    qn__mnx_reshape(x, node, "_shape", from, to, dims, out->rank, qn__mnx_free_dim(x, out));
    return QN_OK;
}

qn_status qn__mnn_export_transpose(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                   qn_error *error)
{
    (void)argument;
    const uint8_t rank = node->inputs[0]->rank;
    int64_t reversed[QN_MAX_RANK];
    size_t count;
    int32_t from;
    const int64_t *order = qn__attr_ints(node, "perm", &count);
    for (uint8_t i = 0; i < rank; i++)
        reversed[i] = rank - 1 - i;
    QN_FAIL_IF(order != NULL && count != rank, error, QN_CORRUPT,
               "node \"%s\": perm has %zu values", node->name, count);
    const qn_mnx_layout layout = own_layout(x, node);
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, &from, error));
    const int32_t to = qn__mnx_put(x, node, 0, layout, false);
    qn_fb_object *permute =
        qn__mnx_op(x, node->name, QN_MNN_OpType_Permute, QN_MNN_REC_Permute, &from, 1, &to, 1);
    qn__mnx_set_ints(x, permute, QN_MNN_Permute_dims, order ? order : reversed, rank);
    return QN_OK;
}

qn_status qn__mnn_export_concat(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                qn_error *error)
{
    (void)argument;
    const qn_mnx_layout layout = qn__mnx_layout(x, node, false);
    int64_t axis = qn__attr_int(node, "axis", 0);
    int32_t *ids = qn__arena_calloc(&x->graph->arena, node->n_inputs + 1u, sizeof(*ids));
    if (ids == NULL)
        return QN_NOMEM(error);
    for (uint32_t i = 0; i < node->n_inputs; i++)
        QN_TRY(qn__mnx_get(x, node->inputs[i], layout, &ids[i], error));
    axis += axis < 0 ? node->outputs[0]->rank : 0;
    const int32_t to = qn__mnx_put(x, node, 0, layout, false);
    qn_fb_object *concat = qn__mnx_op(x, node->name, QN_MNN_OpType_Concat, QN_MNN_REC_Axis, ids,
                                      node->n_inputs, &to, 1);
    qn__fb_set_int(concat, QN_MNN_Axis_axis, axis);
    return QN_OK;
}

/* An operator whose further inputs are lists of integers. */
static qn_status with_lists(qn_mnx_exporter *x, const qn_node *node, int32_t type, int32_t record,
                            const char *const *suffixes, size_t n_lists, qn_fb_object **table,
                            qn_error *error)
{
    const qn_mnx_layout layout = node->inputs[0]->rank == 4 ? own_layout(x, node) : QN_MNX_PLANAR;
    int32_t ids[8];
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, &ids[0], error));
    for (size_t i = 0; i < n_lists; i++) {
        const int64_t *values;
        size_t count;
        QN_TRY(qn__mnx_constant_ints(x, node, (uint32_t)i + 1, &values, &count, error));
        ids[i + 1] = qn__mnx_ints(x, node, suffixes[i], values, count, false);
    }
    const int32_t to = qn__mnx_put(x, node, 0, layout, false);
    *table = qn__mnx_op(x, node->name, type, record, ids, n_lists + 1, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_slice(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    (void)argument;
    static const char *const suffixes[] = {"_starts", "_ends", "_axes", "_steps"};
    size_t n = node->n_inputs - 1, n_starts, n_steps;
    const int64_t *starts, *steps;
    qn_fb_object *slice;
    QN_FAIL_IF(node->n_inputs < 3 || node->n_inputs > 5, error, QN_CORRUPT,
               "node \"%s\": %u inputs", node->name, node->n_inputs);
    if (n == 4 && node->inputs[4] == NULL)
        n = 3;
    if (n == 3 && node->inputs[3] == NULL)
        n = 2;
    if (n == 4) {
        QN_TRY(qn__mnx_constant_ints(x, node, 4, &steps, &n_steps, error));
        for (size_t i = 0; i < n_steps; i++)
            QN_FAIL_IF(steps[i] == 0, error, QN_CORRUPT, "node \"%s\": step 0", node->name);
        if (node->inputs[3] == NULL)
            return qn__mnx_no_form(node, error, "a slice with steps and no axes");
    }
    if (n == 2) {
        QN_TRY(qn__mnx_constant_ints(x, node, 1, &starts, &n_starts, error));
        if (n_starts != node->inputs[0]->rank)
            return qn__mnx_no_form(node, error, "a slice of the first %zu axes", n_starts);
    }
    QN_TRY(with_lists(x, node, QN_MNN_OpType_StridedSlice, QN_MNN_REC_StridedSliceParam, suffixes,
                      n, &slice, error));
    /* fromType 1: ONNX's way of saying it */
    qn__fb_set_int(slice, QN_MNN_StridedSliceParam_fromType, 1);
    return QN_OK;
}

qn_status qn__mnn_export_split(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    (void)argument;
    const qn_mnx_layout layout = node->inputs[0]->rank == 4 ? own_layout(x, node) : QN_MNX_PLANAR;
    int64_t axis = qn__attr_int(node, "axis", 0), at = 0;
    int64_t *points = qn__arena_calloc(&x->graph->arena, node->n_outputs + 1u, sizeof(*points));
    int32_t *ids = qn__arena_calloc(&x->graph->arena, node->n_outputs + 1u, sizeof(*ids));
    int32_t from;
    if (points == NULL || ids == NULL)
        return QN_NOMEM(error);
    axis += axis < 0 ? node->inputs[0]->rank : 0;
    QN_FAIL_IF(axis < 0 || axis >= node->inputs[0]->rank, error, QN_CORRUPT,
               "node \"%s\": axis %lld", node->name, (long long)axis);
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, &from, error));
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i] == NULL)
            return qn__mnx_no_form(node, error, "a split with a part that is not named");
        at += node->outputs[i]->dims[axis].value;
        points[i] = at;
        ids[i] = qn__mnx_put(x, node, i, layout, true);
    }
    qn_fb_object *slice = qn__mnx_op(x, node->name, QN_MNN_OpType_Slice, QN_MNN_REC_Slice, &from, 1,
                                     ids, node->n_outputs);
    qn__fb_set_int(slice, QN_MNN_Slice_axis, axis);
    qn__mnx_set_ints(x, slice, QN_MNN_Slice_slicePoints, points, node->n_outputs - 1u);
    qn__fb_set_int(slice, QN_MNN_Slice_sourceType, QN_MNN_NetSource_CAFFE);
    return QN_OK;
}

/* Indices that count from the end are made positive: here when they are constant, else by the
 * runtime. */
qn_status qn__mnn_export_gather(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                qn_error *error)
{
    (void)argument;
    const qn_tensor *in = node->inputs[0], *indices = qn_node_input(node, 1);
    int64_t axis = qn__attr_int(node, "axis", 0);
    int32_t ids[3];
    axis += axis < 0 ? in->rank : 0;
    QN_FAIL_IF(indices == NULL || axis < 0 || axis >= in->rank, error, QN_CORRUPT,
               "node \"%s\": axis %lld", node->name, (long long)axis);
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, &ids[0], error));
    const int64_t size = in->dims[axis].value;
    if (indices->constant != NULL && indices->rank <= 1) {
        const int64_t *values;
        size_t count;
        QN_TRY(qn__mnx_constant_ints(x, node, 1, &values, &count, error));
        int64_t *positive = qn__arena_calloc(&x->graph->arena, count + 1, sizeof(*positive));
        if (positive == NULL)
            return QN_NOMEM(error);
        for (size_t i = 0; i < count; i++)
            positive[i] = values[i] + (values[i] < 0 ? size : 0);
        ids[1] = qn__mnx_ints(x, node, "_indices", positive, count, indices->rank == 0);
    } else {
        const int32_t shifted = qn__mnx_between(x, node, "_shifted", NULL);
        const int32_t n = qn__mnx_ints(x, node, "_size", &size, 1, true);
        QN_TRY(qn__mnx_get(x, indices, QN_MNX_PLANAR, &ids[1], error));
        qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_ADD, ids[1], n, shifted);
        ids[1] = qn__mnx_between(x, node, "_indices", NULL);
        qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MOD, shifted, n, ids[1]);
    }
    ids[2] = qn__mnx_ints(x, node, "_axis", &axis, 1, true);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_GatherV2, QN_MNN_REC_GatherV2, ids, 3, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_pad(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                             qn_error *error)
{
    (void)argument;
    static const struct {
        const char *name;
        int32_t mode;
    } modes[] = {{"constant", QN_MNN_PadValueMode_CONSTANT},
                 {"reflect", QN_MNN_PadValueMode_REFLECT},
                 {"edge", QN_MNN_PadValueMode_EDGE}};
    const qn_tensor *in = node->inputs[0];
    const qn_mnx_layout layout = in->rank == 4 ? own_layout(x, node) : QN_MNX_PLANAR;
    const char *mode = qn__attr_string(node, "mode", "constant");
    int64_t pairs[2 * QN_MAX_RANK];
    const int64_t *pads;
    const float *value = NULL;
    size_t count, n = 2;
    int32_t ids[3], number = -1;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(modes[i].name, mode) == 0)
            number = modes[i].mode;
    if (number < 0)
        return qn__mnx_no_form(node, error, "mode %s", mode);
    if (qn_node_input(node, 3) != NULL)
        return qn__mnx_no_form(node, error, "pads of some axes");
    QN_TRY(qn__mnx_constant_ints(x, node, 1, &pads, &count, error));
    QN_FAIL_IF(count != 2u * in->rank, error, QN_CORRUPT, "node \"%s\": %zu pads for rank %u",
               node->name, count, in->rank);
    for (size_t i = 0; i < in->rank; i++) {
        pairs[2 * i] = pads[i];
        pairs[2 * i + 1] = pads[i + in->rank];
        if (pads[i] < 0 || pads[i + in->rank] < 0)
            return qn__mnx_no_form(node, error, "negative pads");
    }
    QN_TRY(qn__mnx_get(x, in, layout, &ids[0], error));
    ids[1] = qn__mnx_ints(x, node, "_pads", pairs, count, false);
    if (qn_node_input(node, 2) != NULL) {
        QN_TRY(qn__mnx_constant_floats(x, node, 2, &value, &count, error));
        if (count == 1 && value[0] != 0)
            ids[n++] = qn__mnx_scalar(x, node, "_value", value[0]);
    }
    const int32_t to = qn__mnx_put(x, node, 0, layout, false);
    qn_fb_object *pad =
        qn__mnx_op(x, node->name, QN_MNN_OpType_Padding, QN_MNN_REC_PadParam, ids, n, &to, 1);
    qn__fb_set_int(pad, QN_MNN_PadParam_mode, number);
    return QN_OK;
}

/* Sizes of the output as the second input of an operator. */
qn_status qn__mnn_export_expand(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                qn_error *error)
{
    (void)argument;
    int64_t dims[QN_MAX_RANK];
    int32_t ids[2];
    QN_FAIL_IF(!qn__tensor_static_dims(node->outputs[0], dims), error, QN_CORRUPT,
               "node \"%s\": output without shape", node->name);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    ids[1] = qn__mnx_ints(x, node, "_shape", dims, node->outputs[0]->rank, false);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_BroadcastTo, -1, ids, 2, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_tile(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    const int64_t *repeats;
    size_t count;
    int32_t ids[2];
    QN_TRY(qn__mnx_constant_ints(x, node, 1, &repeats, &count, error));
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    ids[1] = qn__mnx_ints(x, node, "_repeats", repeats, count, false);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_Tile, -1, ids, 2, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_depth_space(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                     qn_error *error)
{
    int32_t from;
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &from, error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn_fb_object *table =
        qn__mnx_op(x, node->name, argument, QN_MNN_REC_DepthSpaceParam, &from, 1, &to, 1);
    qn__fb_set_int(table, QN_MNN_DepthSpaceParam_blockSize, qn__attr_int(node, "blocksize", 1));
    qn__fb_set_int(table, QN_MNN_DepthSpaceParam_mode,
                   strcmp(qn__attr_string(node, "mode", "DCR"), "CRD") == 0);
    return QN_OK;
}

/* --- resize ------------------------------------------------------------------------------------*/
/* No cubic: the runtime's is not ONNX's. */
static qn_status resize_type(const qn_node *node, int32_t *type, qn_error *error)
{
    const char *mode = qn__attr_string(node, "mode", "nearest");
    const char *nearest = qn__attr_string(node, "nearest_mode", "round_prefer_floor");
    if (strcmp(mode, "linear") == 0)
        *type = 2;
    else if (strcmp(mode, "nearest") == 0 && strcmp(nearest, "floor") == 0)
        *type = 1;
    else if (strcmp(mode, "nearest") == 0 && strncmp(nearest, "round", 5) == 0)
        *type = 4;
    else
        return qn__mnx_no_form(node, error, "mode %s (%s)", mode, nearest);
    if (qn__attr_int(node, "antialias", 0) != 0 || qn__attr_int(node, "exclude_outside", 0) != 0)
        return qn__mnx_no_form(node, error, "antialias or exclude_outside");
    return QN_OK;
}

qn_status qn__mnn_export_resize(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                qn_error *error)
{
    (void)argument;
    static const struct {
        const char *name;
        int32_t rule;
    } rules[] = {
        {"align_corners", QN_MNN_CoordinateTransformationMode_AlignCorners},
        {"half_pixel", QN_MNN_CoordinateTransformationMode_HalfPixels},
        {"pytorch_half_pixel", QN_MNN_CoordinateTransformationMode_PytorchHalfPixels},
        {"asymmetric", QN_MNN_CoordinateTransformationMode_Asymmetric},
    };
    const qn_tensor *in = node->inputs[0], *out = node->outputs[0];
    const char *how = qn__attr_string(node, "coordinate_transformation_mode", "half_pixel");
    int64_t dims[QN_MAX_RANK], wanted[QN_MAX_RANK];
    int32_t type = 0, rule = -1, ids[2];
    QN_TRY(resize_type(node, &type, error));
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (strcmp(rules[i].name, how) == 0)
            rule = rules[i].rule;
    if (rule < 0)
        return qn__mnx_no_form(node, error, "coordinate_transformation_mode %s", how);
    if (in->rank != 4 || !qn__tensor_static_dims(in, dims) ||
        !qn__tensor_static_dims(out, wanted) || dims[0] != wanted[0] || dims[1] != wanted[1])
        return qn__mnx_no_form(node, error, "a resize of other axes than height and width");
    if (qn__attr_int(node, "truncates", 0) != 0)
        qn__log(
            x->graph->ctx, QN_LOG_WARNING,
            "node \"%s\" (Resize) truncates sums of bytes, which a .mnn file cannot say: values "
            "may differ by a step",
            node->name);
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PACKED, &ids[0], error));
    if (qn_node_input(node, 2) != NULL && node->inputs[2]->rank == 1 &&
        qn_dim_const(0).kind == node->inputs[2]->dims[0].kind &&
        node->inputs[2]->dims[0].value == 4) {
        QN_TRY(qn__mnx_get(x, node->inputs[2], QN_MNX_PLANAR, &ids[1], error));
    } else {
        ids[1] = qn__mnx_ints(x, node, "_sizes", wanted, 4, false);
    }
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PACKED, false);
    qn_fb_object *interp =
        qn__mnx_op(x, node->name, QN_MNN_OpType_Interp, QN_MNN_REC_Interp, ids, 2, &to, 1);
    qn__fb_set_int(interp, QN_MNN_Interp_resizeType, type);
    qn__fb_set_int(interp, QN_MNN_Interp_alignCorners,
                   rule == QN_MNN_CoordinateTransformationMode_AlignCorners);
    qn__fb_set_int(interp, QN_MNN_Interp_halfPixelCenters,
                   rule == QN_MNN_CoordinateTransformationMode_HalfPixels);
    qn__fb_set_int(interp, QN_MNN_Interp_ctm, rule);
    if (x->n_ops > 0)
        qn__fb_set_int(x->ops[x->n_ops - 1], QN_MNN_Op_defaultDimentionFormat,
                       QN_MNN_MNN_DATA_FORMAT_NCHW);
    return QN_OK;
}
