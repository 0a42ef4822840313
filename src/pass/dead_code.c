/* Removes nodes none of whose outputs reach a graph output. */
#include "pass/pass.h"

#include "core/context.h"

qn_status qn__pass_dead_code(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    (void)options;
    uint8_t *needed = qn__calloc(graph->ctx, graph->n_tensors + 1, 1);
    uint8_t *remove = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, 1);
    if (needed == NULL || remove == NULL) {
        qn__free(graph->ctx, needed);
        qn__free(graph->ctx, remove);
        return QN_NOMEM(error);
    }
    for (size_t i = 0; i < graph->n_outputs; i++)
        needed[graph->outputs[i]->id] = 1;
    for (size_t i = graph->n_nodes; i-- > 0;) {
        const qn_node *node = graph->nodes[i];
        bool live = false;
        for (uint32_t k = 0; k < node->n_outputs && !live; k++)
            live = node->outputs[k] != NULL && needed[node->outputs[k]->id];
        remove[node->id] = !live;
        for (uint32_t k = 0; k < node->n_inputs && live; k++)
            if (node->inputs[k] != NULL)
                needed[node->inputs[k]->id] = 1;
    }
    qn__graph_remove_marked(graph, remove);
    qn__free(graph->ctx, needed);
    qn__free(graph->ctx, remove);
    return QN_OK;
}
