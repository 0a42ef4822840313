/* A table of bytes as ONNX has it: Gather by the bytes as integers. Those of signed bytes count
 * from the end, as negative indices do. */
#include "core/context.h"
#include "format/onnx/onnx_lower.h"

qn_status qn__onnx_lower_table(qn_lower *l, qn_node *node, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    qn_tensor *x = node->inputs[0], *y = node->outputs[0], *unused;
    const qn_blob *table = node->n_inputs == 2 ? node->inputs[1]->constant : NULL;
    QN_FAIL_IF(!qn__onnx_is_quantized(l, x) || !qn__onnx_is_quantized(l, y) || !table ||
                   qn__dtype_bits(x->type.dtype) != 8 || qn__dtype_bits(y->type.dtype) != 8 ||
                   table->size_bytes != 256,
               error, QN_CORRUPT, "node \"%s\": is no table of 256 bytes", node->name);
    const qn_dtype made = y->type.dtype;
    qn_lowered *from;
    QN_TRY(qn__onnx_integers_of(l, x, &from, error));
    QN_TRY(qn__onnx_split_output(l, y, false, &unused, error));
    qn_tensor *to = l->entries[y->id].q;
    const char *base = l->entries[y->id].base;
    qn_tensor *index = qn__onnx_fresh(graph, qn__onnx_named(graph, base, "_index"),
                                      qn_type_plain_make(QN_DTYPE_I32));
    qn_tensor *bytes = qn__onnx_constant(graph, qn__onnx_named(graph, base, "_bytes"), made, 1,
                                         (int64_t[]){256}, node->inputs[1]->constant);
    qn_node *cast = qn__graph_add_between(graph, graph->n_nodes, QN_OP_CAST, from->q, index, y);
    if (!index || !bytes || !cast ||
        !qn__node_set_int(graph, cast, "to", qn__dtype_onnx(QN_DTYPE_I32)) ||
        !qn__onnx_push_node(graph, node))
        return QN_NOMEM(error);
    node->op = QN_OP_GATHER;
    node->inputs[0] = bytes;
    node->inputs[1] = index;
    qn__node_set_output(node, 0, to);
    return QN_OK;
}
