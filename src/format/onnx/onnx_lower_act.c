/* Activations that passes fused into their nodes, as nodes of the file again. */
#include "format/onnx/onnx_lower.h"

#include <math.h>
#include <string.h>

/* Tensor to carry a value the fused graph has no tensor for: the one of the file where it is free.
 */
qn_tensor *qn__onnx_before_act(qn_graph *graph, const qn_onnx_source *source, const qn_node *node,
                               const qn_tensor *after)
{
    const char *name = qn__arena_printf(&graph->arena, "%s_linear", after->name);
    if (source && node->act_source >= 0 && source->nodes[node->act_source].n_inputs > 0)
        name = source->nodes[node->act_source].inputs[0];
    return name ? qn__onnx_fresh(graph, name, qn_type_plain_make(QN_DTYPE_F32)) : NULL;
}

static qn_tensor *bound(qn_graph *graph, const qn_onnx_source *source, const qn_node *node,
                        uint32_t slot, float value, const char *suffix)
{
    const qn_onnx_node *old =
        source && node->act_source >= 0 ? &source->nodes[node->act_source] : NULL;
    if (old && old->n_inputs > slot) {
        qn_tensor *tensor = qn__graph_find_tensor(graph, old->inputs[slot]);
        if (tensor && tensor->constant && tensor->type.kind == QN_TYPE_PLAIN &&
            tensor->type.dtype == QN_DTYPE_F32 && tensor->constant->size_bytes == sizeof(value) &&
            memcmp(tensor->constant->data, &value, sizeof(value)) == 0)
            return tensor;
    }
    const char *name = qn__arena_printf(&graph->arena, "%s%s",
                                        node->act_name ? node->act_name : node->name, suffix);
    return name ? qn__onnx_const_float(graph, name, value) : NULL;
}

/* The node's output goes through its activation again; `after` is what the activation makes. */
qn_status qn__onnx_emit_act(qn_lower *l, qn_node *node, qn_tensor *before, qn_tensor *after,
                            qn_error *error)
{
    qn_graph *graph = l->w->graph;
    const qn_onnx_source *source = l->w->source;
    const bool clip = node->act == QN_ACT_CLIP;
    const char *name =
        node->act_name ? node->act_name : qn__arena_printf(&graph->arena, "%s_act", node->name);
    if (!name)
        return QN_NOMEM(error);
    qn_node *act =
        qn__graph_add_node(graph, SIZE_MAX, clip ? QN_OP_CLIP : QN_OP_RELU, name, clip ? 3 : 1, 1);
    uint32_t *sources = qn__arena_calloc(&graph->arena, 1, sizeof(*sources));
    if (!act || !sources)
        return QN_NOMEM(error);
    act->inputs[0] = before;
    if (clip && node->act_lo > -INFINITY &&
        !(act->inputs[1] = bound(graph, source, node, 1, node->act_lo, "_min")))
        return QN_NOMEM(error);
    if (clip && node->act_hi < INFINITY &&
        !(act->inputs[2] = bound(graph, source, node, 2, node->act_hi, "_max")))
        return QN_NOMEM(error);
    while (act->n_inputs > 1 && !act->inputs[act->n_inputs - 1])
        act->n_inputs--;
    if (source && node->act_source >= 0) {
        sources[0] = (uint32_t)node->act_source;
        act->sources = sources;
        act->n_sources = 1;
    }
    qn__node_set_output(act, 0, after);
    node->act = QN_ACT_NONE;
    return QN_OK;
}
