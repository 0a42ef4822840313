/* The graph that is exported: a copy whose sizes are fixed, simplified or resolved. */
#include <math.h>

#include "format/mnn/mnn_export.h"
#include "pass/pass.h"

/* Relu and Clip behind a quantized node, as they stand in graphs read from quantized files: part
 * of the node, whose own float result nobody else sees. (pass/fuse_act.c is for float graphs.) */
static qn_status fuse_quantized(qn_graph *g, qn_error *error)
{
    qn_uses uses = {0};
    QN_TRY(qn__uses_build(g, &uses, error));
    for (size_t i = g->n_nodes; i-- > 0;) {
        qn_node *node = g->nodes[i];
        if ((node->op != QN_OP_RELU && node->op != QN_OP_CLIP) || node->act != QN_ACT_NONE ||
            node->inputs[0] == NULL || qn__mnx_is_quant(node->inputs[0]) ||
            !qn__mnx_is_quant(node->outputs[0]))
            continue;
        qn_node *before = qn__pass_sole_producer(&uses, node->inputs[0]);
        if (before == NULL || before->act != QN_ACT_NONE || before->n_outputs != 1 ||
            !qn__mnx_is_quant(before->inputs[0]) ||
            (before->op != QN_OP_CONV && before->op != QN_OP_GEMM && before->op != QN_OP_MATMUL &&
             before->op != QN_OP_ADD && before->op != QN_OP_SUB && before->op != QN_OP_MUL))
            continue;
        const float *bounds[2] = {NULL, NULL};
        size_t counts[2] = {1, 1};
        bool known = true;
        for (uint32_t k = 0; k < 2 && node->op == QN_OP_CLIP; k++) {
            const qn_tensor *t = qn_node_input(node, k + 1);
            if (t == NULL)
                continue;
            bounds[k] = t->constant ? qn__tensor_floats(g, t, &counts[k]) : NULL;
            known = known && bounds[k] != NULL && counts[k] == 1;
        }
        if (!known || qn__node_attr(node, "min") != NULL || qn__node_attr(node, "max") != NULL)
            continue;
        before->act = node->op == QN_OP_RELU ? QN_ACT_RELU : QN_ACT_CLIP;
        before->act_lo = bounds[0] ? bounds[0][0] : node->op == QN_OP_RELU ? 0 : -INFINITY;
        before->act_hi = bounds[1] ? bounds[1][0] : INFINITY;
        before->act_name = node->name;
        qn__pass_take_output(before, node);
        qn__graph_remove_node(g, node);
    }
    qn__uses_free(&uses);
    return qn__arena_check(&g->arena, error);
}

qn_status qn__mnx_prepare(const qn_graph *graph, const qn_write_options *how, qn_graph **out,
                          qn_error *error)
{
    qn_graph *g = NULL;
    QN_TRY(qn__graph_clone(graph, &g, error));
    bool quantized = false;
    for (size_t i = 0; i < g->n_tensors; i++) {
        quantized = quantized || g->tensors[i]->type.kind != QN_TYPE_PLAIN;
        if (g->tensors[i]->producer != NULL)
            g->tensors[i]->has_shape = false;
    }
    for (size_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i]->has_shape && g->inputs[i]->rank > 0 &&
            g->inputs[i]->dims[0].kind != QN_DIM_CONST)
            g->inputs[i]->dims[0] = qn_dim_const(1);
    qn_pass_options options;
    qn__pass_options_init(&options);
    options.resolve = how != NULL ? how->resolve : NULL;
    qn_status status;
    if (!quantized)
        status = qn__passes_simplify(g, &options, error);
    else if (options.resolve != NULL)
        status = options.resolve(g, options.resolve_max_bytes, error);
    else
        status = qn__graph_infer(g, error);
    if (status == QN_OK && quantized)
        status = fuse_quantized(g, error);
    if (status != QN_OK) {
        qn__graph_destroy(g);
        return status;
    }
    *out = g;
    return QN_OK;
}
