/* Work done by a node. */
#include "ir/graph.h"

static uint64_t saturating_mul(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t product(const int64_t *dims, size_t from, size_t to)
{
    uint64_t total = 1;
    for (size_t i = from; i < to; i++)
        total = saturating_mul(total, (uint64_t)dims[i]);
    return total;
}

uint64_t qn__node_macs(const qn_node *node)
{
    if (node->n_inputs < 2 || node->n_outputs < 1 || node->inputs[0] == NULL ||
        node->inputs[1] == NULL || node->outputs[0] == NULL)
        return 0;
    int64_t in[QN_MAX_RANK], weight[QN_MAX_RANK], out[QN_MAX_RANK];
    if (!qn__tensor_static_dims(node->inputs[0], in) ||
        !qn__tensor_static_dims(node->inputs[1], weight) ||
        !qn__tensor_static_dims(node->outputs[0], out))
        return 0;
    const size_t in_rank = node->inputs[0]->rank, weight_rank = node->inputs[1]->rank;
    const size_t out_rank = node->outputs[0]->rank;
    switch (node->op) {
    case QN_OP_CONV: /* weight [M, C/group, k...]: every output element sums C/group * k... */
        return saturating_mul(product(out, 0, out_rank), product(weight, 1, weight_rank));
    case QN_OP_CONV_TRANSPOSE: /* weight [C, M/group, k...]: every input element is spread */
        return saturating_mul(product(in, 0, in_rank), product(weight, 1, weight_rank));
    case QN_OP_GEMM:
        if (in_rank != 2)
            return 0;
        return saturating_mul(product(out, 0, out_rank),
                              (uint64_t)in[qn__attr_int(node, "transA", 0) != 0 ? 0 : 1]);
    case QN_OP_MATMUL:
        if (in_rank == 0)
            return 0;
        return saturating_mul(product(out, 0, out_rank), (uint64_t)in[in_rank - 1]);
    default:
        return 0;
    }
}
