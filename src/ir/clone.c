/* Copy of a graph: new structure, shared blobs, equal ids and order. */
#include "ir/graph.h"
#include "ir/names.h"

#include <string.h>

typedef struct cloner {
    const qn_graph *from;
    qn_graph *to;
} cloner;

static qn_tensor *mapped(const cloner *c, const qn_tensor *tensor)
{
    return tensor != NULL ? c->to->tensors[tensor->id] : NULL;
}

static bool clone_dim(const cloner *c, qn_dim *dim)
{
    if (dim->symbol != NULL) {
        dim->symbol = qn__graph_intern(c->to, dim->symbol);
        return dim->symbol != NULL;
    }
    return true;
}

static bool clone_tensor(const cloner *c, const qn_tensor *old)
{
    qn_tensor *tensor = qn__graph_add_tensor(c->to, old->name, old->type);
    if (tensor == NULL)
        return false;
    if (old->type.quant != NULL) {
        tensor->type.quant = qn__graph_quant(c->to, old->type.quant);
        if (tensor->type.quant == NULL)
            return false;
    }
    tensor->has_shape = old->has_shape;
    tensor->rank = old->rank;
    tensor->source = old->source;
    tensor->producer_output = old->producer_output;
    for (size_t i = 0; i < old->rank; i++) {
        tensor->dims[i] = old->dims[i];
        if (!clone_dim(c, &tensor->dims[i]))
            return false;
    }
    if (old->value_dims != NULL) {
        qn_dim *dims = qn__arena_calloc(&c->to->arena, old->n_value_dims, sizeof(*dims));
        if (dims == NULL)
            return false;
        for (uint32_t i = 0; i < old->n_value_dims; i++) {
            dims[i] = old->value_dims[i];
            if (!clone_dim(c, &dims[i]))
                return false;
        }
        tensor->value_dims = dims;
        tensor->n_value_dims = old->n_value_dims;
    }
    tensor->constant = old->constant != NULL ? qn__blob_ref(old->constant) : NULL;
    return true;
}

static bool clone_strings(qn_arena *arena, qn_attr *attr, const qn_attr *old)
{
    const char **strings = qn__arena_calloc(arena, old->count, sizeof(*strings));
    if (strings == NULL)
        return false;
    for (size_t i = 0; i < old->count; i++) {
        strings[i] = qn__arena_strdup(arena, old->strings[i]);
        if (strings[i] == NULL)
            return false;
    }
    attr->strings = strings;
    return true;
}

/* NULL stays NULL; true unless out of memory. */
static bool clone_array(qn_arena *arena, const void **out, const void *items, size_t count,
                        size_t item_bytes)
{
    if (items == NULL)
        return true;
    void *copy = qn__arena_calloc(arena, count, item_bytes);
    if (copy == NULL)
        return false;
    if (count > 0)
        memcpy(copy, items, count * item_bytes);
    *out = copy;
    return true;
}

static bool clone_attr(qn_arena *arena, qn_attr *attr, const qn_attr *old)
{
    *attr = (qn_attr){.kind = old->kind,
                      .f = old->f,
                      .i = old->i,
                      .count = old->count,
                      .t_dtype = old->t_dtype,
                      .t_rank = old->t_rank};
    attr->name = qn__arena_strdup(arena, old->name);
    attr->t = old->t != NULL ? qn__blob_ref(old->t) : NULL;
    if (attr->name == NULL)
        return false;
    if (old->s != NULL) {
        attr->s = qn__arena_strdup(arena, old->s);
        if (attr->s == NULL)
            return false;
    }
    return clone_array(arena, (const void **)&attr->floats, old->floats, old->count,
                       sizeof(float)) &&
           clone_array(arena, (const void **)&attr->ints, old->ints, old->count, sizeof(int64_t)) &&
           clone_array(arena, (const void **)&attr->t_dims, old->t_dims, old->t_rank,
                       sizeof(int64_t)) &&
           (old->strings == NULL || clone_strings(arena, attr, old));
}

static bool clone_node(const cloner *c, const qn_node *old)
{
    qn_node *node =
        qn__graph_add_node(c->to, SIZE_MAX, old->op, old->name, old->n_inputs, old->n_outputs);
    if (node == NULL)
        return false;
    node->id = old->id;
    node->act = old->act;
    node->act_lo = old->act_lo;
    node->act_hi = old->act_hi;
    node->act_source = old->act_source;
    node->n_sources = old->n_sources;
    for (uint32_t i = 0; i < old->n_inputs; i++)
        node->inputs[i] = mapped(c, old->inputs[i]);
    for (uint32_t i = 0; i < old->n_outputs; i++) {
        node->outputs[i] = mapped(c, old->outputs[i]);
        if (node->outputs[i] != NULL && old->outputs[i]->producer == old)
            node->outputs[i]->producer = node;
    }
    qn_arena *arena = &c->to->arena;
    if (old->act_name != NULL && (node->act_name = qn__arena_strdup(arena, old->act_name)) == NULL)
        return false;
    if (!clone_array(arena, (const void **)&node->sources, old->sources, old->n_sources,
                     sizeof(uint32_t)))
        return false;
    node->attrs = qn__arena_calloc(arena, old->n_attrs, sizeof(*node->attrs));
    if (node->attrs == NULL)
        return false;
    for (uint32_t i = 0; i < old->n_attrs; i++) {
        node->n_attrs = i + 1; /* so that destroy sees its blob if the copy fails half way */
        if (!clone_attr(arena, &node->attrs[i], &old->attrs[i]))
            return false;
    }
    return true;
}

static bool clone_list(const cloner *c, qn_tensor ***out, size_t *n_out, qn_tensor **list,
                       size_t count)
{
    qn_tensor **copy = qn__arena_calloc(&c->to->arena, count, sizeof(*copy));
    if (copy == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        copy[i] = mapped(c, list[i]);
    *out = copy;
    *n_out = count;
    return true;
}

static bool clone_all(const cloner *c)
{
    const qn_graph *from = c->from;
    qn_graph *to = c->to;
    to->opset = from->opset;
    to->source = qn__source_ref(from->source);
    to->name = qn__arena_strdup(&to->arena, from->name != NULL ? from->name : "");
    if (to->name == NULL)
        return false;
    if (from->file != NULL && (to->file = qn__arena_strdup(&to->arena, from->file)) == NULL)
        return false;
    for (size_t i = 0; i < from->n_tensors; i++)
        if (!clone_tensor(c, from->tensors[i]))
            return false;
    for (size_t i = 0; i < from->n_nodes; i++)
        if (!clone_node(c, from->nodes[i]))
            return false;
    to->next_node_id = from->next_node_id;
    to->requantize = from->requantize;
    return clone_list(c, &to->inputs, &to->n_inputs, from->inputs, from->n_inputs) &&
           clone_list(c, &to->outputs, &to->n_outputs, from->outputs, from->n_outputs);
}

qn_status qn__graph_clone(const qn_graph *graph, qn_graph **out, qn_error *error)
{
    qn_graph *copy = NULL;
    QN_TRY(qn__graph_create(graph->ctx, &copy, error));
    const cloner c = {graph, copy};
    if (!clone_all(&c)) {
        qn__graph_destroy(copy);
        return QN_NOMEM(error);
    }
    *out = copy;
    return QN_OK;
}
