/* Operators that pick, place, order or count elements by indices. */
#include <inttypes.h>
#include <string.h>

#include "format/mnn/mnn_read.h"

/* Attributes of one node, inferred. */
typedef struct named_int {
    const char *name;
    int64_t value;
} named_int;

static qn_status node_with(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, size_t n_inputs,
                           size_t n_outputs, const named_int *ints, size_t n_ints, qn_node **out,
                           qn_error *error)
{
    qn_node *node = qn__mnn_node_outputs(r, op, inputs, n_inputs, n_outputs);
    bool ok = node != NULL;
    for (size_t i = 0; ok && i < n_ints; i++)
        ok = qn__node_set_int(r->graph, node, ints[i].name, ints[i].value);
    if (!ok)
        return QN_NOMEM(error);
    *out = node;
    return qn__mnn_infer(r, node, error);
}

/* Constant input i as an axis of x; `fallback` when the operator has no such input. */
static qn_status axis_input(qn_mnn_reader *r, size_t i, const qn_tensor *x, int64_t fallback,
                            int64_t *axis, qn_error *error)
{
    size_t n = 1;
    *axis = fallback;
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    if (i < r->n_in)
        QN_TRY(qn__mnn_const_input(r, i, axis, 1, &n, error));
    if (n != 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu axes", n);
    return qn__mnn_axis(r, axis, x->rank, error);
}

/* With batches the indices of one part count through all of them: the first axes are one. */
static qn_status join_batches(qn_mnn_reader *r, int64_t batches, qn_tensor **x, qn_error *error)
{
    const qn_tensor *data = *x, *index = qn__mnn_in(r, 1);
    int64_t dims[QN_MAX_RANK];
    QN_TRY(qn__mnn_need_rank(r, data, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_need_rank(r, index, 1, QN_MAX_RANK, error));
    const qn_dim parts = index->dims[index->rank - 1];
    if (batches < 0 || batches >= data->rank || parts.kind != QN_DIM_CONST || parts.value != 1)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED,
                            "%" PRId64 " axes of batches with indices of several parts", batches);
    dims[0] = -1;
    for (size_t i = (size_t)batches + 1; i < data->rank; i++) {
        if (data->dims[i].kind != QN_DIM_CONST)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "dimension %zu is not known", i);
        dims[i - (size_t)batches] = data->dims[i].value;
    }
    return qn__mnn_reshape(r, *x, dims, data->rank - (size_t)batches, x, error);
}

qn_status qn__mnn_lower_gather_nd(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    const bool has = r->main != NULL && r->main->record == QN_MNN_REC_Axis;
    const int64_t batches = has ? qn_mnn_int(r, QN_MNN_Axis_axis) : 0;
    if (batches != 0)
        QN_TRY(join_batches(r, batches, &x, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_GATHER_ND, x, qn__mnn_in(r, 1), &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_gather_elements(qn_mnn_reader *r, qn_error *error)
{
    int64_t axis;
    qn_node *node;
    QN_TRY(qn__mnn_need_inputs(r, 2, 3, error));
    qn_tensor *inputs[] = {qn__mnn_in(r, 0), qn__mnn_in(r, 1)};
    QN_TRY(axis_input(r, 2, inputs[0], 0, &axis, error));
    QN_TRY(node_with(r, QN_OP_GATHER_ELEMENTS, inputs, 2, 1, (named_int[]){{"axis", axis}}, 1,
                     &node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_top_k(qn_mnn_reader *r, qn_error *error)
{
    int64_t axis;
    qn_node *node;
    qn_tensor *k;
    const int64_t one[1] = {1};
    QN_TRY(qn__mnn_need_inputs(r, 2, 3, error));
    const bool has = r->main != NULL && r->main->record == QN_MNN_REC_TopKV2;
    const int64_t largest = has ? qn_mnn_int(r, QN_MNN_TopKV2_largest) : 1;
    QN_TRY(axis_input(r, 2, qn__mnn_in(r, 0), -1, &axis, error));
    QN_TRY(qn__mnn_reshape(r, qn__mnn_in(r, 1), one, 1, &k, error));
    const named_int ints[] = {{"axis", axis}, {"largest", largest != 0}, {"sorted", 1}};
    QN_TRY(node_with(r, QN_OP_TOP_K, (qn_tensor *[]){qn__mnn_in(r, 0), k}, 2, 2, ints, 3, &node,
                     error));
    for (size_t i = 0; i < 2 && i < r->n_out; i++)
        QN_TRY(qn__mnn_put(r, i, node->outputs[i], qn__mnn_in_format(r, 0), error));
    return QN_OK;
}

/* What several updates of one element do; ONNX's word for it. */
static qn_status reduction_of(qn_mnn_reader *r, const char **out, qn_error *error)
{
    *out = "none";
    if (r->main == NULL)
        return QN_OK;
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_BinaryOp, error));
    const int64_t kind = qn_mnn_int(r, QN_MNN_BinaryOp_opType);
    if (kind >= 0 && kind != QN_MNN_BinaryOpOperation_ADD)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "updates by binary operation %" PRId64, kind);
    if (kind == QN_MNN_BinaryOpOperation_ADD)
        *out = "add";
    return QN_OK;
}

static qn_status scatter(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, int64_t axis,
                         qn_error *error)
{
    const char *reduction;
    QN_TRY(reduction_of(r, &reduction, error));
    qn_node *node = qn__mnn_node(r, op, inputs, 3);
    if (!node ||
        (strcmp(reduction, "none") != 0 &&
         !qn__node_set_string(r->graph, node, "reduction", reduction)) ||
        (op == QN_OP_SCATTER_ELEMENTS && !qn__node_set_int(r->graph, node, "axis", axis)))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

/* Indices, updates, shape, and what is written into: zeros unless it is given. */
qn_status qn__mnn_lower_scatter_nd(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 3, 4, error));
    qn_tensor *index = qn__mnn_in(r, 0), *updates = qn__mnn_in(r, 1), *data = qn__mnn_in(r, 3);
    if (data == NULL || (data->has_shape && data->rank == 0)) {
        if (data == NULL)
            data = updates->type.dtype == QN_DTYPE_F32 ? qn__mnn_float_constant(r, "zero", 0.0f)
                                                       : qn__mnn_int_constant(r, "zero", 0);
        QN_TRY(qn__mnn_op2(r, QN_OP_EXPAND, data, qn__mnn_in(r, 2), &data, error));
    }
    return scatter(r, QN_OP_SCATTER_ND, (qn_tensor *[]){data, index, updates}, 0, error);
}

qn_status qn__mnn_lower_scatter_elements(qn_mnn_reader *r, qn_error *error)
{
    int64_t axis;
    QN_TRY(qn__mnn_need_inputs(r, 3, 4, error));
    qn_tensor *inputs[] = {qn__mnn_in(r, 0), qn__mnn_in(r, 1), qn__mnn_in(r, 2)};
    QN_TRY(axis_input(r, 3, inputs[0], 0, &axis, error));
    return scatter(r, QN_OP_SCATTER_ELEMENTS, inputs, axis, error);
}

/* Indices, depth, the value of what is hit and of the rest. */
qn_status qn__mnn_lower_one_hot(qn_mnn_reader *r, qn_error *error)
{
    static const int64_t one[1] = {1};
    qn_tensor *on, *off;
    qn_node *both, *node;
    QN_TRY(qn__mnn_need_inputs(r, 4, 4, error));
    const bool has = r->main != NULL && r->main->record == QN_MNN_REC_OneHotParam;
    const int64_t axis = has ? qn_mnn_int(r, QN_MNN_OneHotParam_axis) : -1;
    QN_TRY(qn__mnn_reshape(r, qn__mnn_in(r, 2), one, 1, &on, error));
    QN_TRY(qn__mnn_reshape(r, qn__mnn_in(r, 3), one, 1, &off, error));
    QN_TRY(node_with(r, QN_OP_CONCAT, (qn_tensor *[]){off, on}, 2, 1, (named_int[]){{"axis", 0}}, 1,
                     &both, error));
    qn_tensor *inputs[] = {qn__mnn_in(r, 0), qn__mnn_in(r, 1), both->outputs[0]};
    QN_TRY(
        node_with(r, QN_OP_ONE_HOT, inputs, 3, 1, (named_int[]){{"axis", axis}}, 1, &node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_cum_sum(qn_mnn_reader *r, qn_error *error)
{
    qn_node *node;
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    const bool has = r->main != NULL && r->main->record == QN_MNN_REC_CumSum;
    const named_int ints[] = {{"exclusive", has && qn_mnn_int(r, QN_MNN_CumSum_exclusive) != 0},
                              {"reverse", has && qn_mnn_int(r, QN_MNN_CumSum_reverse) != 0}};
    qn_tensor *inputs[] = {qn__mnn_in(r, 0), qn__mnn_in(r, 1)};
    QN_TRY(node_with(r, QN_OP_CUM_SUM, inputs, 2, 1, ints, 2, &node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_eye_like(qn_mnn_reader *r, qn_error *error)
{
    int64_t k = 0;
    size_t n = 1;
    qn_node *node;
    QN_TRY(qn__mnn_need_inputs(r, 1, 2, error));
    if (r->n_in > 1)
        QN_TRY(qn__mnn_const_input(r, 1, &k, 1, &n, error));
    if (n != 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu diagonals", n);
    qn_tensor *x = qn__mnn_in(r, 0);
    QN_TRY(node_with(r, QN_OP_EYE_LIKE, &x, 1, 1, (named_int[]){{"k", k}}, 1, &node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_grid_sample(qn_mnn_reader *r, qn_error *error)
{
    static const char *const borders[] = {"zeros", "border", "reflection"};
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_GridSample, error));
    const int64_t mode = qn_mnn_int(r, QN_MNN_GridSample_mode);
    const int64_t border = qn_mnn_int(r, QN_MNN_GridSample_paddingMode);
    QN_TRY(qn__mnn_need_rank(r, qn__mnn_in(r, 0), 4, 4, error));
    QN_TRY(qn__mnn_need_rank(r, qn__mnn_in(r, 1), 4, 4, error));
    if (border < 0 || border > QN_MNN_BorderMode_REFLECTION || mode < 0 ||
        mode > QN_MNN_SampleMode_NEAREST || qn_mnn_int(r, QN_MNN_GridSample_backward))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "mode %lld, border %lld, or backward",
                            (long long)mode, (long long)border);
    qn_node *node =
        qn__mnn_node(r, QN_OP_GRID_SAMPLE, (qn_tensor *[]){qn__mnn_in(r, 0), qn__mnn_in(r, 1)}, 2);
    if (!node ||
        !qn__node_set_string(r->graph, node, "mode",
                             mode == QN_MNN_SampleMode_NEAREST ? "nearest" : "linear") ||
        !qn__node_set_string(r->graph, node, "padding_mode", borders[border]) ||
        !qn__node_set_int(r->graph, node, "align_corners",
                          qn_mnn_int(r, QN_MNN_GridSample_alignCorners) != 0))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

/* Elements up to so many below and above the diagonal; below zero: all of them. */
qn_status qn__mnn_lower_band_part(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 3, 3, error));
    qn_tensor *x = qn__mnn_in(r, 0);
    QN_TRY(qn__mnn_need_rank(r, x, 2, QN_MAX_RANK, error));
    for (uint32_t side = 0; side < 2; side++) {
        int64_t reach = 0;
        size_t n;
        qn_node *node;
        QN_TRY(qn__mnn_const_input(r, side + 1, &reach, 1, &n, error));
        if (n != 1)
            return qn__mnn_fail(r, error, QN_CORRUPT, "%zu widths of a band", n);
        if (reach < 0)
            continue;
        const int64_t k = side == 0 ? -reach : reach;
        qn_tensor *inputs[] = {x, qn__mnn_ints_constant(r, "k", &k, 1)};
        const named_int ints[] = {{"upper", side == 0}};
        if (inputs[1] == NULL)
            return QN_NOMEM(error);
        QN_TRY(node_with(r, QN_OP_TRILU, inputs, 2, 1, ints, 1, &node, error));
        x = node->outputs[0];
    }
    return qn__mnn_put_like(r, x, error);
}
