/* Attributes of nodes: a small array per node in the graph's arena. */
#include "ir/graph.h"

#include <string.h>

const qn_attr *qn__node_attr(const qn_node *node, const char *name)
{
    for (uint32_t i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) == 0)
            return &node->attrs[i];
    return NULL;
}

int64_t qn__attr_int(const qn_node *node, const char *name, int64_t fallback)
{
    const qn_attr *attr = qn__node_attr(node, name);
    return attr != NULL && attr->kind == QN_ATTR_INT ? attr->i : fallback;
}

float qn__attr_float(const qn_node *node, const char *name, float fallback)
{
    const qn_attr *attr = qn__node_attr(node, name);
    return attr != NULL && attr->kind == QN_ATTR_FLOAT ? attr->f : fallback;
}

const char *qn__attr_string(const qn_node *node, const char *name, const char *fallback)
{
    const qn_attr *attr = qn__node_attr(node, name);
    return attr != NULL && attr->kind == QN_ATTR_STRING && attr->s != NULL ? attr->s : fallback;
}

const int64_t *qn__attr_ints(const qn_node *node, const char *name, size_t *count)
{
    const qn_attr *attr = qn__node_attr(node, name);
    const bool ok = attr != NULL && attr->kind == QN_ATTR_INTS && attr->count > 0;
    *count = ok ? attr->count : 0;
    return ok ? attr->ints : NULL;
}

/* Slot for name, emptied but for name and kind. */
static qn_attr *slot(qn_graph *graph, qn_node *node, const char *name, qn_attr_kind kind)
{
    qn_attr *attr = (qn_attr *)qn__node_attr(node, name);
    if (attr == NULL) {
        qn_attr *attrs = qn__arena_calloc(&graph->arena, (size_t)node->n_attrs + 1, sizeof(*attrs));
        char *copy = qn__arena_strdup(&graph->arena, name);
        if (attrs == NULL || copy == NULL)
            return NULL;
        if (node->n_attrs > 0)
            memcpy(attrs, node->attrs, node->n_attrs * sizeof(*attrs));
        node->attrs = attrs;
        attr = &attrs[node->n_attrs++];
        attr->name = copy;
    }
    qn_blob *old = attr->t;
    *attr = (qn_attr){.name = attr->name, .kind = kind};
    if (!qn__graph_retire_blob(graph, old)) {
        qn__blob_unref(old);
        return NULL;
    }
    return attr;
}

bool qn__node_set_int(qn_graph *graph, qn_node *node, const char *name, int64_t value)
{
    qn_attr *attr = slot(graph, node, name, QN_ATTR_INT);
    if (attr != NULL)
        attr->i = value;
    return attr != NULL;
}

bool qn__node_set_float(qn_graph *graph, qn_node *node, const char *name, float value)
{
    qn_attr *attr = slot(graph, node, name, QN_ATTR_FLOAT);
    if (attr != NULL)
        attr->f = value;
    return attr != NULL;
}

bool qn__node_set_string(qn_graph *graph, qn_node *node, const char *name, const char *value)
{
    char *copy = qn__arena_strdup(&graph->arena, value);
    qn_attr *attr = copy != NULL ? slot(graph, node, name, QN_ATTR_STRING) : NULL;
    if (attr != NULL)
        attr->s = copy;
    return attr != NULL;
}

bool qn__node_set_ints(qn_graph *graph, qn_node *node, const char *name, const int64_t *values,
                       size_t count)
{
    int64_t *copy = qn__arena_calloc(&graph->arena, count, sizeof(*copy));
    qn_attr *attr = copy != NULL ? slot(graph, node, name, QN_ATTR_INTS) : NULL;
    if (attr == NULL)
        return false;
    if (count > 0)
        memcpy(copy, values, count * sizeof(*copy));
    attr->ints = copy;
    attr->count = count;
    return true;
}

bool qn__node_set_tensor(qn_graph *graph, qn_node *node, const char *name, qn_blob *blob,
                         qn_dtype dtype, size_t rank, const int64_t *dims)
{
    if (rank > QN_MAX_RANK)
        return false;
    int64_t *copy = qn__arena_calloc(&graph->arena, rank, sizeof(*copy));
    qn_attr *attr = copy != NULL ? slot(graph, node, name, QN_ATTR_TENSOR) : NULL;
    if (attr == NULL)
        return false;
    if (rank > 0)
        memcpy(copy, dims, rank * sizeof(*copy));
    attr->t = qn__blob_ref(blob);
    attr->t_dtype = dtype;
    attr->t_rank = (uint8_t)rank;
    attr->t_dims = copy;
    return true;
}

void qn__node_remove_attr(qn_node *node, const char *name)
{
    const qn_attr *attr = qn__node_attr(node, name);
    if (attr == NULL)
        return;
    const size_t index = (size_t)(attr - node->attrs);
    qn__blob_unref(attr->t);
    memmove(node->attrs + index, node->attrs + index + 1,
            (node->n_attrs - index - 1) * sizeof(*attr));
    node->n_attrs--;
}

bool qn__node_copy_attrs(qn_graph *graph, qn_node *node, const qn_node *from)
{
    for (uint32_t i = 0; i < from->n_attrs; i++) {
        const qn_attr *attr = &from->attrs[i];
        if (qn__node_attr(node, attr->name) != NULL)
            continue;
        qn_attr *copy = slot(graph, node, attr->name, attr->kind);
        if (copy == NULL)
            return false;
        const char *name = copy->name;
        *copy = *attr; /* arrays are immutable and live in the same arena */
        copy->name = name;
        if (copy->t != NULL)
            qn__blob_ref(copy->t);
    }
    return true;
}
