/* Constant nodes become constant tensors. */
#include "pass/pass.h"

#include "core/context.h"

#include <string.h>

static qn_status make_constant(qn_graph *graph, qn_tensor *out, const qn_attr *attr, bool *done,
                               qn_error *error)
{
    qn_blob *blob = NULL;
    *done = false;
    switch (attr->kind) {
    case QN_ATTR_TENSOR:
        out->type = qn_type_plain_make(attr->t_dtype);
        qn__tensor_set_shape(out, attr->t_rank, attr->t_dims);
        qn__tensor_set_constant(out, attr->t);
        *done = true;
        return QN_OK;
    case QN_ATTR_INT:
    case QN_ATTR_INTS: {
        const bool one = attr->kind == QN_ATTR_INT;
        const int64_t dims[1] = {(int64_t)attr->count};
        blob = qn__blob_copy(graph->ctx, one ? &attr->i : attr->ints,
                             (one ? 1 : attr->count) * sizeof(int64_t));
        out->type = qn_type_plain_make(QN_DTYPE_I64);
        qn__tensor_set_shape(out, one ? 0 : 1, dims);
        break;
    }
    case QN_ATTR_FLOAT:
    case QN_ATTR_FLOATS: {
        const bool one = attr->kind == QN_ATTR_FLOAT;
        const int64_t dims[1] = {(int64_t)attr->count};
        blob = qn__blob_copy(graph->ctx, one ? &attr->f : attr->floats,
                             (one ? 1 : attr->count) * sizeof(float));
        out->type = qn_type_plain_make(QN_DTYPE_F32);
        qn__tensor_set_shape(out, one ? 0 : 1, dims);
        break;
    }
    default:
        return QN_OK; /* strings, sparse tensors */
    }
    if (blob == NULL)
        return QN_NOMEM(error);
    qn__tensor_set_constant(out, blob);
    qn__blob_unref(blob);
    *done = true;
    return QN_OK;
}

qn_status qn__pass_constant_nodes(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    (void)options;
    qn_status status = QN_OK;
    uint8_t *remove = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, 1);
    if (remove == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        bool done;
        if (node->op != QN_OP_CONSTANT || node->n_outputs != 1 || node->outputs[0] == NULL ||
            node->outputs[0]->type.kind != QN_TYPE_PLAIN)
            continue;
        for (uint32_t a = 0; a < node->n_attrs; a++) {
            /* value, value_int, value_floats... */
            if (strncmp(node->attrs[a].name, "value", 5) != 0)
                continue;
            QN_TRY_GOTO(make_constant(graph, node->outputs[0], &node->attrs[a], &done, error));
            remove[node->id] = done;
            break;
        }
    }
    qn__graph_remove_marked(graph, remove);
done:
    qn__free(graph->ctx, remove);
    return status;
}
