/* Relu and Clip become part of the node that makes their input. */
#include "pass/pass.h"

#include "core/context.h"

#include <math.h>

static bool takes_activation(qn_op op)
{
    return op == QN_OP_CONV || op == QN_OP_CONV_TRANSPOSE || op == QN_OP_GEMM ||
           op == QN_OP_MATMUL || op == QN_OP_ADD || op == QN_OP_SUB || op == QN_OP_MUL;
}

static bool plain_f32(const qn_tensor *tensor)
{
    return tensor != NULL && tensor->type.kind == QN_TYPE_PLAIN &&
           tensor->type.dtype == QN_DTYPE_F32;
}

/* Bound from input `index` (newest opsets) or attribute `name` (before 11). */
static bool read_bound(qn_graph *graph, const qn_node *node, uint32_t index, const char *name,
                       float fallback, float *out)
{
    const qn_tensor *tensor = qn_node_input(node, index);
    if (tensor == NULL) {
        *out = qn__attr_float(node, name, fallback);
        return !isnan(*out);
    }
    size_t count;
    const float *value = qn__tensor_floats(graph, tensor, &count);
    if (value == NULL || count != 1 || isnan(value[0]))
        return false;
    *out = value[0];
    return true;
}

static bool read_act(qn_graph *graph, const qn_node *node, qn_act *act, float *lo, float *hi)
{
    if (node->n_inputs < 1 || node->n_outputs != 1 || !plain_f32(node->inputs[0]) ||
        !plain_f32(node->outputs[0]) || node->act != QN_ACT_NONE)
        return false;
    if (node->op == QN_OP_RELU) {
        *act = QN_ACT_RELU;
        *lo = 0.0f;
        *hi = INFINITY;
        return true;
    }
    *act = QN_ACT_CLIP;
    return node->op == QN_OP_CLIP && read_bound(graph, node, 1, "min", -INFINITY, lo) &&
           read_bound(graph, node, 2, "max", INFINITY, hi) && *lo <= *hi;
}

qn_status qn__pass_fuse_act(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    if (!options->fuse_activations)
        return QN_OK;
    qn_status status = QN_OK;
    qn_uses uses = {0};
    uint8_t *remove = NULL;
    QN_TRY(qn__uses_build(graph, &uses, error));
    remove = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, 1);
    if (remove == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        qn_act act;
        float lo, hi;
        if ((node->op != QN_OP_RELU && node->op != QN_OP_CLIP) ||
            !read_act(graph, node, &act, &lo, &hi))
            continue;
        qn_node *before = qn__pass_sole_producer(&uses, node->inputs[0]);
        if (before == NULL || !takes_activation(before->op) || before->act != QN_ACT_NONE ||
            node->inputs[0]->producer_output != 0)
            continue;
        before->act = act;
        before->act_lo = lo;
        before->act_hi = hi;
        before->act_name = node->name;
        before->act_source = node->n_sources > 0 ? (int32_t)node->sources[0] : -1;
        qn__pass_take_output(before, node);
        remove[node->id] = 1;
    }
    qn__graph_remove_marked(graph, remove);
done:
    qn__uses_free(&uses);
    qn__free(graph->ctx, remove);
    return status;
}
