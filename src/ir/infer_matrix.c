/* Matrix products. */
#include "ir/infer_util.h"

#include <inttypes.h>

static bool contradict(qn_dim a, qn_dim b)
{
    return a.kind == QN_DIM_CONST && b.kind == QN_DIM_CONST && a.value != b.value;
}

qn_status qn__infer_gemm(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *a = in->node->inputs[0], *b = in->node->inputs[1], *c = qn_infer_in(in, 2);
    qn__infer_dtype_like(in, 0, a);
    if (!a->has_shape || !b->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, a->rank == 2 && b->rank == 2,
                   "inputs \"%s\" and \"%s\" have ranks %u and %u, both must be 2", a->name,
                   b->name, a->rank, b->rank);
    const size_t ta = qn__attr_int(in->node, "transA", 0) != 0;
    const size_t tb = qn__attr_int(in->node, "transB", 0) != 0;
    QN_INFER_CHECK(in, error, !contradict(a->dims[1 - ta], b->dims[tb]),
                   "weight \"%s\" has %" PRId64 " rows, input \"%s\" has %" PRId64 " columns",
                   b->name, b->dims[tb].value, a->name, a->dims[1 - ta].value);
    const qn_dim dims[2] = {a->dims[ta], b->dims[1 - tb]};
    if (qn_has_shape(c)) {
        QN_INFER_CHECK(in, error, c->rank <= 2, "bias \"%s\" has rank %u", c->name, c->rank);
        for (size_t i = 0; i < c->rank; i++) {
            const qn_dim have = c->dims[i], want = dims[2 - c->rank + i];
            QN_INFER_CHECK(in, error, qn_dim_is(have, 1) || !contradict(have, want),
                           "bias \"%s\" has dimension %zu of %" PRId64 ", the product has %" PRId64,
                           c->name, i, have.value, want.value);
        }
    }
    return qn__infer_shape_set(in, 0, 2, dims, error);
}

qn_status qn__infer_matmul(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *a = in->node->inputs[0], *b = in->node->inputs[1];
    qn__infer_dtype_like(in, 0, a);
    if (!a->has_shape || !b->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, a->rank >= 1 && b->rank >= 1, "input \"%s\" is a scalar",
                   a->rank == 0 ? a->name : b->name);
    const qn_dim inner_a = a->dims[a->rank - 1];
    const qn_dim inner_b = b->dims[b->rank >= 2 ? b->rank - 2 : 0];
    QN_INFER_CHECK(in, error, !contradict(inner_a, inner_b),
                   "input \"%s\" has %" PRId64 " rows, input \"%s\" has %" PRId64 " columns",
                   b->name, inner_b.value, a->name, inner_a.value);
    /* Leading axes broadcast. */
    const size_t lead_a = a->rank > 2 ? a->rank - 2u : 0, lead_b = b->rank > 2 ? b->rank - 2u : 0;
    const size_t lead = lead_a > lead_b ? lead_a : lead_b;
    qn_dim dims[QN_MAX_RANK];
    size_t rank = 0;
    for (size_t i = 0; i < lead; i++) {
        const qn_dim da = i + lead_a >= lead ? a->dims[i + lead_a - lead] : qn_dim_const(1);
        const qn_dim db = i + lead_b >= lead ? b->dims[i + lead_b - lead] : qn_dim_const(1);
        QN_INFER_CHECK(in, error, qn__dim_broadcast(&dims[rank++], da, db),
                       "inputs \"%s\" and \"%s\" have %" PRId64 " and %" PRId64
                       " matrices along axis %zu",
                       a->name, b->name, da.value, db.value, i);
    }
    if (a->rank >= 2)
        dims[rank++] = a->dims[a->rank - 2];
    if (b->rank >= 2)
        dims[rank++] = b->dims[b->rank - 1];
    return qn__infer_shape_set(in, 0, rank, dims, error);
}
