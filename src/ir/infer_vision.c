/* Sampling at computed places, detection, recurrence. */
#include "ir/infer_util.h"

#include <inttypes.h>
#include <string.h>

qn_status qn__infer_grid_sample(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = in->node->inputs[0], *grid = in->node->inputs[1];
    qn__infer_dtype_like(in, 0, x);
    if (!x->has_shape || !grid->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank >= 3 && grid->rank == x->rank,
                   "input has rank %u, grid has rank %u", x->rank, grid->rank);
    const qn_dim last = grid->dims[grid->rank - 1];
    QN_INFER_CHECK(in, error, last.kind != QN_DIM_CONST || last.value == x->rank - 2,
                   "grid has %" PRId64 " coordinates for %u axes", last.value, x->rank - 2u);
    qn_dim dims[QN_MAX_RANK] = {x->dims[0], x->dims[1]};
    for (size_t i = 2; i < x->rank; i++)
        dims[i] = grid->dims[i - 1];
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}

qn_status qn__infer_roi_align(qn_infer *in, qn_error *error)
{
    for (uint32_t i = 0; i < 3; i++)
        QN_TRY(qn__infer_need(in, i, error));
    const qn_tensor *x = in->node->inputs[0], *rois = in->node->inputs[1];
    const int64_t height = qn__attr_int(in->node, "output_height", 1);
    const int64_t width = qn__attr_int(in->node, "output_width", 1);
    qn__infer_dtype_like(in, 0, x);
    QN_INFER_CHECK(in, error, height >= 1 && width >= 1, "output of %" PRId64 " x %" PRId64, height,
                   width);
    if (!x->has_shape || !rois->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank == 4 && rois->rank == 2,
                   "input has rank %u, regions have rank %u", x->rank, rois->rank);
    const qn_dim dims[4] = {rois->dims[0], x->dims[1], qn_dim_const(height), qn_dim_const(width)};
    return qn__infer_shape_set(in, 0, 4, dims, error);
}

/* Rows are as many as are selected; at most so many per class and image as asked for. */
qn_status qn__infer_non_max_suppression(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *boxes = in->node->inputs[0], *scores = in->node->inputs[1];
    const qn_tensor *most = qn_infer_in(in, 2);
    qn__infer_dtype(in, 0, QN_DTYPE_I64);
    if (!boxes->has_shape || !scores->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, boxes->rank == 3 && scores->rank == 3,
                   "boxes have rank %u, scores have rank %u", boxes->rank, scores->rank);
    const int64_t *values = NULL;
    size_t count = 0;
    qn_dim rows = boxes->dims[1];
    if (most == NULL)
        rows = qn_dim_const(0);
    else if (qn__infer_ints(in, most, &values, &count) && count == 1 && rows.kind == QN_DIM_CONST &&
             values[0] < rows.value)
        rows = qn_dim_const(values[0] > 0 ? values[0] : 0);
    rows = qn__dim_mul(qn__dim_mul(scores->dims[0], scores->dims[1]), rows);
    qn_dim dims[2] = {{QN_DIM_DATA, rows.kind == QN_DIM_CONST ? rows.value : -1, NULL},
                      qn_dim_const(3)};
    return qn__infer_shape_set(in, 0, 2, dims, error);
}

qn_status qn__infer_recurrent(qn_infer *in, qn_error *error)
{
    for (uint32_t i = 0; i < 3; i++)
        QN_TRY(qn__infer_need(in, i, error));
    const qn_tensor *x = in->node->inputs[0], *r = in->node->inputs[2];
    const bool batch_first = qn__attr_int(in->node, "layout", 0) != 0;
    const bool both =
        strcmp(qn__attr_string(in->node, "direction", "forward"), "bidirectional") == 0;
    for (uint32_t i = 0; i < 3; i++)
        qn__infer_dtype_like(in, i, x);
    if (!x->has_shape || !r->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank == 3 && r->rank == 3,
                   "input has rank %u, recurrent weights have rank %u", x->rank, r->rank);
    const qn_dim steps = x->dims[batch_first ? 1 : 0], batch = x->dims[batch_first ? 0 : 1];
    const qn_dim directions = qn_dim_const(both ? 2 : 1), hidden = r->dims[2];
    const qn_dim all[2][4] = {{steps, directions, batch, hidden},
                              {batch, steps, directions, hidden}};
    const qn_dim last[2][3] = {{directions, batch, hidden}, {batch, directions, hidden}};
    QN_TRY(qn__infer_shape_set(in, 0, 4, all[batch_first], error));
    QN_TRY(qn__infer_shape_set(in, 1, 3, last[batch_first], error));
    return qn__infer_shape_set(in, 2, 3, last[batch_first], error);
}
