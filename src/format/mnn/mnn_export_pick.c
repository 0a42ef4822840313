/* Operators that pick, place, order or count elements by indices. */
#include "format/mnn/mnn_export.h"

#include <string.h>

/* Indices that count from the end are made positive by the runtime: n sizes, one for all or one
 * for each part of the last axis. */
static qn_status positive(qn_mnx_exporter *x, const qn_node *node, const qn_tensor *indices,
                          const int64_t *sizes, size_t n, int32_t *id, qn_error *error)
{
    size_t count = 0;
    const int64_t *values =
        indices->constant != NULL ? qn__tensor_ints(x->graph, indices, &count) : NULL;
    bool below = values == NULL;
    for (size_t i = 0; !below && i < count; i++)
        below = values[i] < 0;
    QN_TRY(qn__mnx_get(x, indices, QN_MNX_PLANAR, id, error));
    if (!below)
        return QN_OK;
    const int32_t shifted = qn__mnx_between(x, node, "_shifted", NULL);
    const int32_t size = qn__mnx_ints(x, node, "_sizes", sizes, n, n == 1);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_ADD, *id, size, shifted);
    *id = qn__mnx_between(x, node, "_indices", NULL);
    qn__mnx_binary(x, NULL, QN_MNN_BinaryOpOperation_MOD, shifted, size, *id);
    return QN_OK;
}

static qn_status need(const qn_node *node, uint32_t n, qn_error *error)
{
    for (uint32_t i = 0; i < n; i++) {
        const qn_tensor *t = qn_node_input(node, i);
        QN_FAIL_IF(t == NULL || !t->has_shape, error, QN_CORRUPT, "node \"%s\": no input %u",
                   node->name, i);
    }
    return QN_OK;
}

/* The attribute "axis", from 0 on. */
static qn_status axis_of(const qn_node *node, size_t rank, int64_t fallback, int64_t *axis,
                         qn_error *error)
{
    *axis = qn__attr_int(node, "axis", fallback);
    *axis += *axis < 0 ? (int64_t)rank : 0;
    QN_FAIL_IF(*axis < 0 || *axis >= (int64_t)rank, error, QN_CORRUPT, "node \"%s\": axis %lld",
               node->name, (long long)*axis);
    return QN_OK;
}

/* Sizes of the axes that indices of several parts count along. */
static qn_status part_sizes(const qn_node *node, int64_t *sizes, size_t *n, qn_error *error)
{
    const qn_tensor *data = node->inputs[0], *indices = node->inputs[1];
    int64_t dims[QN_MAX_RANK];
    QN_FAIL_IF(!qn__tensor_static_dims(data, sizes) || !qn__tensor_static_dims(indices, dims) ||
                   indices->rank < 1 || dims[indices->rank - 1] < 1 ||
                   dims[indices->rank - 1] > data->rank,
               error, QN_CORRUPT, "node \"%s\": indices do not fit", node->name);
    *n = (size_t)dims[indices->rank - 1];
    return QN_OK;
}

qn_status qn__mnn_export_gather_nd(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                   qn_error *error)
{
    (void)argument;
    int64_t sizes[QN_MAX_RANK];
    size_t n;
    int32_t ids[2];
    if (qn__attr_int(node, "batch_dims", 0) != 0)
        return qn__mnx_no_form(node, error, "batch_dims");
    QN_TRY(need(node, 2, error));
    QN_TRY(part_sizes(node, sizes, &n, error));
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    QN_TRY(positive(x, node, node->inputs[1], sizes, n, &ids[1], error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_GatherND, -1, ids, 2, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_gather_elements(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                         qn_error *error)
{
    (void)argument;
    int64_t axis;
    int32_t ids[3];
    QN_TRY(need(node, 2, error));
    QN_TRY(axis_of(node, node->inputs[0]->rank, 0, &axis, error));
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    QN_TRY(
        positive(x, node, node->inputs[1], &node->inputs[0]->dims[axis].value, 1, &ids[1], error));
    ids[2] = qn__mnx_ints(x, node, "_axis", &axis, 1, true);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_GatherElements, -1, ids, 3, &to, 1);
    return QN_OK;
}

static qn_status only_replaces(const qn_node *node, qn_error *error)
{
    const char *reduction = qn__attr_string(node, "reduction", "none");
    if (strcmp(reduction, "none") != 0)
        return qn__mnx_no_form(node, error, "reduction %s", reduction);
    return QN_OK;
}

qn_status qn__mnn_export_scatter_nd(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                    qn_error *error)
{
    (void)argument;
    int64_t sizes[QN_MAX_RANK];
    size_t n;
    int32_t ids[4];
    QN_TRY(only_replaces(node, error));
    QN_TRY(need(node, 3, error));
    QN_TRY(part_sizes(node, sizes, &n, error));
    QN_TRY(positive(x, node, node->inputs[1], sizes, n, &ids[0], error));
    QN_TRY(qn__mnx_get(x, node->inputs[2], QN_MNX_PLANAR, &ids[1], error));
    ids[2] = qn__mnx_ints(x, node, "_shape", sizes, node->inputs[0]->rank, false);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[3], error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_ScatterNd, -1, ids, 4, &to, 1);
    return QN_OK;
}

qn_status qn__mnn_export_scatter_elements(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                          qn_error *error)
{
    (void)argument;
    int64_t axis;
    int32_t ids[4];
    QN_TRY(only_replaces(node, error));
    QN_TRY(need(node, 3, error));
    QN_TRY(axis_of(node, node->inputs[0]->rank, 0, &axis, error));
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    QN_TRY(
        positive(x, node, node->inputs[1], &node->inputs[0]->dims[axis].value, 1, &ids[1], error));
    QN_TRY(qn__mnx_get(x, node->inputs[2], QN_MNX_PLANAR, &ids[2], error));
    ids[3] = qn__mnx_ints(x, node, "_axis", &axis, 1, true);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn_fb_object *how = qn__mnx_op(x, node->name, QN_MNN_OpType_ScatterElements,
                                   QN_MNN_REC_BinaryOp, ids, 4, &to, 1);
    qn__fb_set_int(how, QN_MNN_BinaryOp_opType, -1); /* replaces */
    return QN_OK;
}

qn_status qn__mnn_export_top_k(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    (void)argument;
    const int64_t *k;
    int64_t axis;
    size_t count;
    int32_t ids[3], to[2];
    QN_TRY(need(node, 2, error));
    QN_TRY(axis_of(node, node->inputs[0]->rank, -1, &axis, error));
    QN_TRY(qn__mnx_constant_ints(x, node, 1, &k, &count, error));
    QN_FAIL_IF(count != 1, error, QN_CORRUPT, "node \"%s\": k of %zu values", node->name, count);
    if (node->inputs[0]->type.dtype != QN_DTYPE_F32)
        return qn__mnx_no_form(node, error, "an order of %s",
                               qn__dtype_name(node->inputs[0]->type.dtype));
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    ids[1] = qn__mnx_ints(x, node, "_k", k, 1, false);
    ids[2] = qn__mnx_ints(x, node, "_axis", &axis, 1, true);
    for (uint32_t i = 0; i < 2; i++)
        to[i] = i < node->n_outputs && node->outputs[i] != NULL
                    ? qn__mnx_put(x, node, i, QN_MNX_PLANAR, false)
                    : qn__mnx_between(x, node, "_unused", NULL);
    qn_fb_object *top =
        qn__mnx_op(x, node->name, QN_MNN_OpType_TopKV2, QN_MNN_REC_TopKV2, ids, 3, to, 2);
    qn__fb_set_int(top, QN_MNN_TopKV2_T, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(top, QN_MNN_TopKV2_sorted, 1);
    qn__fb_set_int(top, QN_MNN_TopKV2_largest, qn__attr_int(node, "largest", 1) != 0);
    return QN_OK;
}

qn_status qn__mnn_export_one_hot(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                 qn_error *error)
{
    (void)argument;
    const int64_t *depth;
    const float *values;
    size_t count;
    int32_t ids[4];
    QN_TRY(need(node, 3, error));
    const qn_tensor *indices = node->inputs[0];
    if (qn__dtype_is_float(indices->type.dtype) || node->inputs[2]->type.dtype != QN_DTYPE_F32)
        return qn__mnx_no_form(node, error, "%s by %s indices",
                               qn__dtype_name(node->inputs[2]->type.dtype),
                               qn__dtype_name(indices->type.dtype));
    QN_TRY(qn__mnx_constant_ints(x, node, 1, &depth, &count, error));
    QN_FAIL_IF(count != 1, error, QN_CORRUPT, "node \"%s\": depth of %zu values", node->name,
               count);
    QN_TRY(qn__mnx_constant_floats(x, node, 2, &values, &count, error));
    QN_FAIL_IF(count != 2, error, QN_CORRUPT, "node \"%s\": %zu values", node->name, count);
    QN_TRY(positive(x, node, indices, depth, 1, &ids[0], error));
    ids[1] = qn__mnx_ints(x, node, "_depth", depth, 1, true);
    ids[2] = qn__mnx_scalar(x, node, "_on", values[1]);
    ids[3] = qn__mnx_scalar(x, node, "_off", values[0]);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn_fb_object *hot =
        qn__mnx_op(x, node->name, QN_MNN_OpType_OneHot, QN_MNN_REC_OneHotParam, ids, 4, &to, 1);
    qn__fb_set_int(hot, QN_MNN_OneHotParam_dType, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(hot, QN_MNN_OneHotParam_axis, qn__attr_int(node, "axis", -1));
    return QN_OK;
}

qn_status qn__mnn_export_cum_sum(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                 qn_error *error)
{
    (void)argument;
    const int64_t *axis;
    size_t count;
    int32_t ids[2];
    QN_TRY(need(node, 2, error));
    QN_TRY(qn__mnx_constant_ints(x, node, 1, &axis, &count, error));
    const int64_t from_0 = count == 1 ? axis[0] + (axis[0] < 0 ? node->inputs[0]->rank : 0) : -1;
    QN_FAIL_IF(from_0 < 0 || from_0 >= node->inputs[0]->rank, error, QN_CORRUPT,
               "node \"%s\": axis %lld", node->name, (long long)from_0);
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    ids[1] = qn__mnx_ints(x, node, "_axis", &from_0, 1, true);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn_fb_object *sum =
        qn__mnx_op(x, node->name, QN_MNN_OpType_CumSum, QN_MNN_REC_CumSum, ids, 2, &to, 1);
    qn__fb_set_int(sum, QN_MNN_CumSum_exclusive, qn__attr_int(node, "exclusive", 0) != 0);
    qn__fb_set_int(sum, QN_MNN_CumSum_reverse, qn__attr_int(node, "reverse", 0) != 0);
    return QN_OK;
}

qn_status qn__mnn_export_eye_like(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                  qn_error *error)
{
    (void)argument;
    const int64_t k = qn__attr_int(node, "k", 0);
    int32_t ids[2];
    QN_TRY(need(node, 1, error));
    if (node->inputs[0]->type.dtype != node->outputs[0]->type.dtype)
        return qn__mnx_no_form(node, error, "an output of another type");
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[0], error));
    ids[1] = qn__mnx_ints(x, node, "_k", &k, 1, true);
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_EyeLike, -1, ids, 2, &to, 1);
    return QN_OK;
}
