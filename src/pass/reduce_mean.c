/* ReduceMean over the last two of four axes is GlobalAveragePool, which ONNX Runtime has in
 * integers. */
#include "pass/pass.h"

static bool over_height_and_width(qn_graph *graph, const qn_node *node)
{
    if (node->op != QN_OP_REDUCE_MEAN || node->n_inputs < 1 || node->inputs[0] == NULL ||
        !node->inputs[0]->has_shape || node->inputs[0]->rank != 4 || node->n_outputs < 1 ||
        qn__attr_int(node, "keepdims", 1) == 0)
        return false;
    size_t count = 0;
    const int64_t *axes = qn__attr_ints(node, "axes", &count);
    if (axes == NULL && node->n_inputs > 1)
        axes = qn__tensor_ints(graph, node->inputs[1], &count);
    if (axes == NULL || count != 2)
        return false;
    const int64_t a = axes[0] < 0 ? axes[0] + 4 : axes[0];
    const int64_t b = axes[1] < 0 ? axes[1] + 4 : axes[1];
    return (a == 2 && b == 3) || (a == 3 && b == 2);
}

qn_status qn__pass_reduce_mean(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    (void)options;
    (void)error;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        if (!over_height_and_width(graph, node))
            continue;
        node->op = QN_OP_GLOBAL_AVERAGE_POOL;
        node->n_inputs = 1;
        qn__node_remove_attr(node, "axes");
        qn__node_remove_attr(node, "keepdims");
        qn__node_remove_attr(node, "noop_with_empty_axes");
    }
    return QN_OK;
}
