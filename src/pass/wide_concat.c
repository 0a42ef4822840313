/* A Concat of more parts than a node may have when it runs becomes one of Concats of neighbours. */
#include "pass/pass.h"

#include <string.h>

/* One Concat of n of the parts. */
static qn_status join_some(qn_graph *graph, const qn_node *wide, qn_tensor **parts, uint32_t n,
                           qn_tensor **out, qn_error *error)
{
    const qn_tensor *const whole = wide->outputs[0];
    qn_node *const node = qn__graph_add_node(graph, SIZE_MAX, QN_OP_CONCAT, wide->name, n, 1);
    qn_tensor *const joined = qn__graph_add_tensor(graph, whole->name, whole->type);
    if (node == NULL || joined == NULL || !qn__node_copy_attrs(graph, node, wide) ||
        !qn__node_add_sources(graph, node, wide))
        return QN_NOMEM(error);
    memcpy(node->inputs, parts, n * sizeof(qn_tensor *));
    qn__node_set_output(node, 0, joined);
    *out = joined;
    return QN_OK;
}

static qn_status narrow(qn_graph *graph, qn_node *node, qn_error *error)
{
    while (node->n_inputs > QN_PASS_MOST_PARTS) {
        uint32_t groups = 0;
        for (uint32_t at = 0, n; at < node->n_inputs; at += n) {
            n = node->n_inputs - at < QN_PASS_MOST_PARTS ? node->n_inputs - at : QN_PASS_MOST_PARTS;
            qn_tensor *joined = node->inputs[at];
            if (n > 1)
                QN_TRY(join_some(graph, node, node->inputs + at, n, &joined, error));
            node->inputs[groups++] = joined; /* not behind what was read */
        }
        node->n_inputs = groups;
    }
    return QN_OK;
}

qn_status qn__pass_wide_concat(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    const size_t n_nodes = graph->n_nodes;
    (void)options;
    for (size_t i = 0; i < n_nodes; i++) {
        qn_node *const node = graph->nodes[i];
        if (node->op == QN_OP_CONCAT && node->n_outputs == 1 && node->outputs[0] != NULL)
            QN_TRY(narrow(graph, node, error));
    }
    return graph->n_nodes > n_nodes ? qn__graph_sort(graph, error) : QN_OK;
}
