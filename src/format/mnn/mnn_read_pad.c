/* Operators that make a tensor larger, or fold it. */
#include <inttypes.h>

#include "core/context.h"
#include "format/mnn/mnn_read.h"

/* Paddings are pairs per axis; ONNX wants all beginnings, then all ends. */
static qn_status pads_of(qn_mnn_reader *r, size_t rank, qn_tensor **out, qn_error *error)
{
    int64_t given[2 * QN_MAX_RANK], pads[2 * QN_MAX_RANK];
    size_t n;
    qn_error ignored;
    if (qn__mnn_const_input(r, 1, given, 2 * QN_MAX_RANK, &n, &ignored) == QN_OK) {
        if (n < 2 * rank)
            return qn__mnn_fail(r, error, QN_CORRUPT, "%zu paddings for rank %zu", n, rank);
        for (size_t i = 0; i < rank; i++) {
            pads[i] = given[2 * i];
            pads[rank + i] = given[2 * i + 1];
        }
        *out = qn__mnn_ints_constant(r, "pads", pads, 2 * rank);
        return *out ? QN_OK : QN_NOMEM(error);
    }
    qn_tensor *pairs = qn__mnn_in(r, 1);
    const int64_t table[2] = {-1, 2}, flat[1] = {-1}, perm[2] = {1, 0};
    QN_TRY(qn__mnn_reshape(r, pairs, table, 2, &pairs, error));
    QN_TRY(qn__mnn_transpose(r, pairs, perm, 2, &pairs, error));
    return qn__mnn_reshape(r, pairs, flat, 1, out, error);
}

/* Mirrored with the border itself: a Gather per padded axis. */
static qn_status mirror_axis(qn_mnn_reader *r, qn_tensor *x, int64_t axis, int64_t before,
                             int64_t after, qn_tensor **out, qn_error *error)
{
    const int64_t n = x->dims[axis].value;
    *out = x;
    if (before == 0 && after == 0)
        return QN_OK;
    if (x->dims[axis].kind != QN_DIM_CONST || n < 1 || before < 0 || before > n || after < 0 ||
        after > n)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED,
                            "axis %" PRId64 " mirrored by %" PRId64 " and %" PRId64, axis, before,
                            after);
    const size_t total = (size_t)(before + n + after);
    QN_TRY(qn__mnn_spend(r, total * sizeof(int64_t), error));
    int64_t *index = qn__calloc(r->graph->ctx, total, sizeof(*index));
    if (!index)
        return QN_NOMEM(error);
    for (int64_t i = 0; i < (int64_t)total; i++) {
        const int64_t at = i - before;
        index[i] = at < 0 ? -1 - at : at >= n ? 2 * n - 1 - at : at;
    }
    qn_tensor *indices = qn__mnn_ints_constant(r, "mirror", index, total);
    qn__free(r->graph->ctx, index);
    qn_node *node = indices ? qn__mnn_node(r, QN_OP_GATHER, (qn_tensor *[]){x, indices}, 2) : NULL;
    if (!node || !qn__node_set_int(r->graph, node, "axis", axis))
        return QN_NOMEM(error);
    *out = node->outputs[0];
    return qn__mnn_infer(r, node, error);
}

static qn_status mirror(qn_mnn_reader *r, qn_tensor *x, qn_error *error)
{
    int64_t pads[2 * QN_MAX_RANK];
    size_t n;
    QN_TRY(qn__mnn_const_input(r, 1, pads, 2 * QN_MAX_RANK, &n, error));
    if (n < 2u * x->rank)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu paddings for rank %u", n, x->rank);
    for (int64_t i = 0; i < x->rank; i++)
        QN_TRY(mirror_axis(r, x, i, pads[2 * i], pads[2 * i + 1], &x, error));
    return qn__mnn_put_like(r, x, error);
}

qn_status qn__mnn_lower_padding(qn_mnn_reader *r, qn_error *error)
{
    static const char *const MODES[] = {[QN_MNN_PadValueMode_CONSTANT] = "constant",
                                        [QN_MNN_PadValueMode_REFLECT] = "reflect",
                                        [QN_MNN_PadValueMode_EDGE] = "edge"};
    QN_TRY(qn__mnn_need_inputs(r, 2, 3, error));
    qn_tensor *x = qn__mnn_in(r, 0), *pads, *value = qn__mnn_in(r, 2);
    int64_t mode = QN_MNN_PadValueMode_CONSTANT;
    if (r->main && r->main->record == QN_MNN_REC_PadParam)
        mode = qn_mnn_int(r, QN_MNN_PadParam_mode);
    if (mode < 0 || mode > QN_MNN_PadValueMode_EDGE)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "padding mode %" PRId64, mode);
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    if (mode == QN_MNN_PadValueMode_SYMMETRIC)
        return mirror(r, x, error);
    QN_TRY(pads_of(r, x->rank, &pads, error));
    if (value && mode == QN_MNN_PadValueMode_CONSTANT && value->rank != 0)
        QN_TRY(qn__mnn_reshape(r, value, NULL, 0, &value, error));
    if (mode != QN_MNN_PadValueMode_CONSTANT)
        value = NULL;
    qn_node *node = qn__mnn_node(r, QN_OP_PAD, (qn_tensor *[]){x, pads, value}, 3);
    if (!node || !qn__node_set_string(r->graph, node, "mode", MODES[mode]))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_broadcast_to(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *out;
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_EXPAND, qn__mnn_in(r, 0), qn__mnn_in(r, 1), &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_tile(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *out;
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_TILE, qn__mnn_in(r, 0), qn__mnn_in(r, 1), &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_depth_to_space(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_DepthSpaceParam, error));
    const bool to_space = r->type == QN_MNN_OpType_DepthToSpace;
    const int64_t mode = qn_mnn_int(r, QN_MNN_DepthSpaceParam_mode);
    if (mode != QN_MNN_DepthToSpaceMode_DCR && (mode != QN_MNN_DepthToSpaceMode_CRD || !to_space))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "mode %" PRId64, mode);
    qn_tensor *x = qn__mnn_in(r, 0);
    QN_TRY(qn__mnn_need_rank(r, x, 4, 4, error));
    QN_TRY(qn__mnn_to_nchw(r, x, qn__mnn_in_format(r, 0), &x, error));
    qn_node *node = qn__mnn_node(r, to_space ? QN_OP_DEPTH_TO_SPACE : QN_OP_SPACE_TO_DEPTH, &x, 1);
    if (!node ||
        !qn__node_set_int(r->graph, node, "blocksize",
                          qn_mnn_int(r, QN_MNN_DepthSpaceParam_blockSize)) ||
        (to_space && !qn__node_set_string(r->graph, node, "mode", mode ? "CRD" : "DCR")))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    QN_TRY(qn__mnn_from_nchw(r, node->outputs[0], qn__mnn_in_format(r, 0), &x, error));
    return qn__mnn_put_like(r, x, error);
}
