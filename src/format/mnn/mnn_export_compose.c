/* Element by element operators that MNN has in parts, and choices between two tensors. */
#include "format/mnn/mnn_export.h"

static qn_status ends(qn_mnx_exporter *x, const qn_node *node, int32_t *from, int32_t *to,
                      qn_error *error)
{
    const qn_mnx_layout layout = qn__mnx_layout(x, node, true);
    QN_TRY(qn__mnx_get(x, node->inputs[0], layout, from, error));
    *to = qn__mnx_put(x, node, 0, layout, false);
    return QN_OK;
}

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

/* x / (1 + |x|) */
qn_status qn__mnn_export_softsign(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                  qn_error *error)
{
    (void)argument;
    int32_t from, to;
    QN_TRY(ends(x, node, &from, &to, error));
    const int32_t size = unary(x, node, "_size", QN_MNN_UnaryOpOperation_ABS, from);
    const int32_t below = binary(x, node, "_below", QN_MNN_BinaryOpOperation_ADD, size,
                                 qn__mnx_scalar(x, node, "_one", 1));
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_REALDIV, from, below, to);
    return QN_OK;
}

/* x * sigmoid(alpha * x) */
qn_status qn__mnn_export_swish(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    (void)argument;
    int32_t from, to;
    QN_TRY(ends(x, node, &from, &to, error));
    const int32_t scaled =
        binary(x, node, "_scaled", QN_MNN_BinaryOpOperation_MUL, from,
               qn__mnx_scalar(x, node, "_alpha", qn__attr_float(node, "alpha", 1)));
    const int32_t gate = unary(x, node, "_gate", QN_MNN_UnaryOpOperation_SIGMOID, scaled);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_MUL, from, gate, to);
    return QN_OK;
}

/* max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1), which does not overflow. */
qn_status qn__mnn_export_celu(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                              qn_error *error)
{
    (void)argument;
    int32_t from, to;
    const float alpha = qn__attr_float(node, "alpha", 1);
    QN_FAIL_IF(alpha == 0, error, QN_CORRUPT, "node \"%s\": alpha is 0", node->name);
    QN_TRY(ends(x, node, &from, &to, error));
    const int32_t zero = qn__mnx_scalar(x, node, "_zero", 0);
    const int32_t factor = qn__mnx_scalar(x, node, "_alpha", alpha);
    const int32_t above = binary(x, node, "_above", QN_MNN_BinaryOpOperation_MAXIMUM, from, zero);
    const int32_t below = binary(x, node, "_below", QN_MNN_BinaryOpOperation_MINIMUM, from, zero);
    const int32_t part = binary(x, node, "_part", QN_MNN_BinaryOpOperation_REALDIV, below, factor);
    const int32_t power = unary(x, node, "_power", QN_MNN_UnaryOpOperation_EXPM1, part);
    const int32_t scaled = binary(x, node, "_scaled", QN_MNN_BinaryOpOperation_MUL, power, factor);
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_ADD, above, scaled, to);
    return QN_OK;
}

/* x above alpha, else 0 */
qn_status qn__mnn_export_thresholded(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                                     qn_error *error)
{
    (void)argument;
    int32_t ids[3];
    QN_TRY(qn__mnx_get(x, node->inputs[0], QN_MNX_PLANAR, &ids[1], error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    ids[0] = binary(x, node, "_above", QN_MNN_BinaryOpOperation_GREATER, ids[1],
                    qn__mnx_scalar(x, node, "_alpha", qn__attr_float(node, "alpha", 1)));
    ids[2] = qn__mnx_scalar(x, node, "_zero", 0);
    qn__mnx_op(x, node->name, QN_MNN_OpType_Select, -1, ids, 3, &to, 1);
    return QN_OK;
}

/* Truth values are the integers 0 and 1. */
qn_status qn__mnn_export_not(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                             qn_error *error)
{
    (void)argument;
    static const int64_t one = 1;
    int32_t from, to;
    QN_TRY(ends(x, node, &from, &to, error));
    qn__mnx_binary(x, node->name, QN_MNN_BinaryOpOperation_SUB,
                   qn__mnx_ints(x, node, "_one", &one, 1, true), from, to);
    return QN_OK;
}

/* The runtime's Select repeats single values only: everything else is made as large as the output.
 */
static qn_status spread(qn_mnx_exporter *x, const qn_node *node, uint32_t index, int32_t *id,
                        qn_error *error)
{
    static const char *const suffixes[] = {"_condition", "_true", "_false"};
    const qn_tensor *in = node->inputs[index], *out = node->outputs[0];
    int64_t dims[QN_MAX_RANK], wanted[QN_MAX_RANK];
    size_t count;
    QN_FAIL_IF(in == NULL || !qn__tensor_static_dims(in, dims) || !qn__tensor_count(in, &count) ||
                   !qn__tensor_static_dims(out, wanted),
               error, QN_CORRUPT, "node \"%s\": input %u without shape", node->name, index);
    QN_TRY(qn__mnx_get(x, in, QN_MNX_PLANAR, id, error));
    bool same = in->rank == out->rank;
    for (size_t i = 0; same && i < in->rank; i++)
        same = dims[i] == wanted[i];
    if (same || count == 1)
        return QN_OK;
    const int32_t shape = qn__mnx_ints(x, node, "_shape", wanted, out->rank, false);
    const int32_t ids[2] = {*id, shape};
    *id = qn__mnx_between(x, node, suffixes[index], NULL);
    qn__mnx_op(x, NULL, QN_MNN_OpType_BroadcastTo, -1, ids, 2, id, 1);
    return QN_OK;
}

qn_status qn__mnn_export_where(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                               qn_error *error)
{
    (void)argument;
    int32_t ids[3];
    QN_FAIL_IF(node->n_inputs != 3, error, QN_CORRUPT, "node \"%s\": %u inputs", node->name,
               node->n_inputs);
    for (uint32_t i = 0; i < 3; i++)
        QN_TRY(spread(x, node, i, &ids[i], error));
    const int32_t to = qn__mnx_put(x, node, 0, QN_MNX_PLANAR, false);
    qn__mnx_op(x, node->name, QN_MNN_OpType_Select, -1, ids, 3, &to, 1);
    return QN_OK;
}
