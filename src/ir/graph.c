/* Structure of a graph: creation, tensors, nodes, and changing them. */
#include "ir/graph.h"

#include "core/context.h"
#include "ir/names.h"

#include <string.h>

qn_source *qn__source_ref(qn_source *source)
{
    if (source != NULL)
        source->refs++;
    return source;
}

void qn__source_unref(qn_source *source)
{
    if (source != NULL && --source->refs == 0)
        source->vtable->destroy(source);
}

qn_status qn__graph_create(const qn_context *ctx, qn_graph **out, qn_error *error)
{
    qn_graph *graph = qn__calloc(ctx, 1, sizeof(*graph));
    if (graph == NULL)
        return QN_NOMEM(error);
    graph->ctx = ctx;
    qn__arena_init(&graph->arena, ctx);
    graph->names = qn__calloc(ctx, 1, sizeof(*graph->names));
    graph->name = "";
    if (graph->names == NULL) {
        qn__graph_destroy(graph);
        return QN_NOMEM(error);
    }
    *out = graph;
    return QN_OK;
}

void qn__graph_destroy(qn_graph *graph)
{
    if (graph == NULL)
        return;
    const qn_context *ctx = graph->ctx;
    for (size_t i = 0; i < graph->n_tensors; i++)
        qn__blob_unref(graph->tensors[i]->constant);
    for (size_t i = 0; i < graph->n_nodes; i++)
        for (uint32_t a = 0; a < graph->nodes[i]->n_attrs; a++)
            qn__blob_unref(graph->nodes[i]->attrs[a].t);
    if (graph->names != NULL) {
        for (size_t i = 0; i < graph->names->n_retired; i++)
            qn__blob_unref(graph->names->retired[i]);
        qn__free(ctx, graph->names->retired);
        qn__names_free(ctx, &graph->names->tensors);
        qn__names_free(ctx, &graph->names->nodes);
        qn__names_free(ctx, &graph->names->strings);
        qn__free(ctx, graph->names);
    }
    qn__source_unref(graph->source);
    qn__free(ctx, graph->tensors);
    qn__free(ctx, graph->nodes);
    qn__arena_free(&graph->arena);
    qn__free(ctx, graph);
}

const char *qn__graph_intern(qn_graph *graph, const char *text)
{
    const char *found = qn__names_get(&graph->names->strings, text);
    if (found != NULL)
        return found;
    char *copy = qn__arena_strdup(&graph->arena, text);
    if (copy == NULL || !qn__names_put(graph->ctx, &graph->names->strings, copy, copy))
        return NULL;
    return copy;
}

/* --- tensors ----------------------------------------------------------------------------------*/
qn_tensor *qn__graph_add_tensor(qn_graph *graph, const char *name, qn_type type)
{
    if (graph->n_tensors >= UINT32_MAX ||
        !QN_GROW(graph->ctx, &graph->tensors, &graph->tensors_capacity, graph->n_tensors))
        return NULL;
    qn_tensor *tensor = qn__arena_calloc(&graph->arena, 1, sizeof(*tensor));
    if (tensor == NULL)
        return NULL;
    if (name == NULL || name[0] == '\0')
        name = "tensor";
    tensor->name = qn__names_unique(&graph->names->tensors, &graph->arena, name);
    if (tensor->name == NULL ||
        !qn__names_put(graph->ctx, &graph->names->tensors, tensor->name, tensor))
        return NULL;
    tensor->id = (uint32_t)graph->n_tensors;
    tensor->type = type;
    tensor->source = -1;
    graph->tensors[graph->n_tensors++] = tensor;
    return tensor;
}

qn_tensor *qn__graph_add_twin(qn_graph *graph, const qn_tensor *of, const char *suffix,
                              qn_type type)
{
    const char *name = qn__arena_printf(&graph->arena, "%s_%s", of->name, suffix);
    qn_tensor *twin = name == NULL ? NULL : qn__graph_add_tensor(graph, name, type);
    if (twin == NULL)
        return NULL;
    twin->has_shape = of->has_shape;
    twin->rank = of->rank;
    memcpy(twin->dims, of->dims, sizeof(twin->dims));
    return twin;
}

qn_tensor *qn__graph_add_constant(qn_graph *graph, const char *name, qn_type type, size_t rank,
                                  const int64_t *dims, qn_blob *blob)
{
    qn_tensor *tensor = qn__graph_add_tensor(graph, name, type);
    if (tensor == NULL)
        return NULL;
    qn__tensor_set_shape(tensor, rank, dims);
    tensor->constant = qn__blob_ref(blob);
    return tensor;
}

void qn__tensor_set_shape(qn_tensor *tensor, size_t rank, const int64_t *dims)
{
    tensor->has_shape = rank <= QN_MAX_RANK;
    tensor->rank = tensor->has_shape ? (uint8_t)rank : 0;
    for (size_t i = 0; i < tensor->rank; i++)
        tensor->dims[i] = qn_dim_const(dims[i]);
}

void qn__tensor_set_constant(qn_tensor *tensor, qn_blob *blob)
{
    qn_blob *old = tensor->constant;
    tensor->constant = blob != NULL ? qn__blob_ref(blob) : NULL;
    qn__blob_unref(old);
}

qn_tensor *qn__graph_find_tensor(const qn_graph *graph, const char *name)
{
    return qn__names_get(&graph->names->tensors, name);
}

bool qn__tensor_static_dims(const qn_tensor *tensor, int64_t *out)
{
    if (!tensor->has_shape)
        return false;
    for (size_t i = 0; i < tensor->rank; i++)
        if (tensor->dims[i].kind != QN_DIM_CONST)
            return false;
    for (size_t i = 0; i < tensor->rank; i++)
        out[i] = tensor->dims[i].value;
    return true;
}

bool qn__tensor_count(const qn_tensor *tensor, size_t *out)
{
    int64_t dims[QN_MAX_RANK];
    return qn__tensor_static_dims(tensor, dims) && qn_shape_count(out, dims, tensor->rank);
}

static bool readable(const qn_tensor *tensor, size_t *count)
{
    size_t bytes;
    return tensor != NULL && tensor->constant != NULL && qn__tensor_count(tensor, count) &&
           qn__dtype_bytes(&bytes, tensor->type.dtype, *count) &&
           bytes <= tensor->constant->size_bytes;
}

const int64_t *qn__tensor_ints(qn_graph *graph, const qn_tensor *tensor, size_t *count)
{
    size_t n;
    if (!readable(tensor, &n) || qn__dtype_is_float(tensor->type.dtype))
        return NULL;
    int64_t *values = qn__arena_calloc(&graph->arena, n + 1, sizeof(*values));
    if (values == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++)
        values[i] = qn__load_int(tensor->constant->data, tensor->type.dtype, i);
    *count = n;
    return values;
}

const float *qn__tensor_floats(qn_graph *graph, const qn_tensor *tensor, size_t *count)
{
    size_t n;
    if (!readable(tensor, &n) || tensor->type.kind != QN_TYPE_PLAIN ||
        !qn__dtype_is_float(tensor->type.dtype))
        return NULL;
    float *values = qn__arena_calloc(&graph->arena, n + 1, sizeof(*values));
    if (values == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++)
        values[i] = (float)qn__load_real(tensor->constant->data, tensor->type.dtype, i);
    *count = n;
    return values;
}

const float *qn__tensor_floats_lent(const qn_context *ctx, const qn_tensor *tensor, size_t *count,
                                    float **own)
{
    size_t n;
    *own = NULL;
    if (!readable(tensor, &n) || tensor->type.kind != QN_TYPE_PLAIN ||
        !qn__dtype_is_float(tensor->type.dtype))
        return NULL;
    *count = n;
    if (tensor->type.dtype == QN_DTYPE_F32 &&
        (uintptr_t)tensor->constant->data % _Alignof(float) == 0)
        return (const float *)(const void *)tensor->constant->data;
    float *values = qn__reallocarray(ctx, NULL, n + 1, sizeof(*values));
    for (size_t i = 0; values != NULL && i < n; i++)
        values[i] = (float)qn__load_real(tensor->constant->data, tensor->type.dtype, i);
    *own = values;
    return values;
}

/* --- types ------------------------------------------------------------------------------------*/
static void *copy_array(qn_graph *graph, const void *items, size_t count, size_t item_bytes)
{
    size_t bytes;
    if (!qn_mul_size(&bytes, count, item_bytes))
        return NULL;
    return qn__arena_memdup(&graph->arena, items, bytes);
}

const qn_quant *qn__graph_quant(qn_graph *graph, const qn_quant *values)
{
    qn_quant *quant = qn__arena_memdup(&graph->arena, values, sizeof(*values));
    if (quant == NULL)
        return NULL;
    if (values->scales != NULL) {
        quant->scales = copy_array(graph, values->scales, values->n_scales, sizeof(float));
        if (quant->scales == NULL)
            return NULL;
    }
    if (values->zero_points != NULL) {
        quant->zero_points =
            copy_array(graph, values->zero_points, values->n_scales, sizeof(int32_t));
        if (quant->zero_points == NULL)
            return NULL;
    }
    if (values->codebook != NULL) {
        quant->codebook = copy_array(graph, values->codebook, values->n_codebook, sizeof(float));
        if (quant->codebook == NULL)
            return NULL;
    }
    return quant;
}

qn_type qn__graph_dynamic_type(qn_graph *graph, bool by_rows)
{
    const qn_quant one = {.bits = 8, .axis = -1, .qmin = 0, .qmax = 255};
    const qn_quant rows = {.bits = 8, .is_signed = true, .axis = 0, .qmin = -127, .qmax = 127};
    return (qn_type){QN_TYPE_DYNAMIC, by_rows ? QN_DTYPE_I8 : QN_DTYPE_U8,
                     qn__graph_quant(graph, by_rows ? &rows : &one)};
}

qn_type qn_type_plain_make(qn_dtype dtype)
{
    return (qn_type){QN_TYPE_PLAIN, dtype, NULL};
}

qn_type qn_type_quant_make(qn_dtype storage, const qn_quant *quant)
{
    return (qn_type){QN_TYPE_QUANT, storage, quant};
}

/* --- nodes ------------------------------------------------------------------------------------*/
qn_node *qn__graph_find_node(const qn_graph *graph, const char *name)
{
    return qn__names_get(&graph->names->nodes, name);
}

qn_node *qn__graph_add_node(qn_graph *graph, size_t at, qn_op op, const char *name,
                            uint32_t n_inputs, uint32_t n_outputs)
{
    if (graph->next_node_id == UINT32_MAX ||
        !QN_GROW(graph->ctx, &graph->nodes, &graph->nodes_capacity, graph->n_nodes))
        return NULL;
    qn_node *node = qn__arena_calloc(&graph->arena, 1, sizeof(*node));
    if (node == NULL)
        return NULL;
    node->inputs = qn__arena_calloc(&graph->arena, n_inputs, sizeof(*node->inputs));
    node->outputs = qn__arena_calloc(&graph->arena, n_outputs, sizeof(*node->outputs));
    const char *base = name != NULL && name[0] != '\0' ? name : qn__op_name(op);
    node->name = qn__names_unique(&graph->names->nodes, &graph->arena, base);
    if (node->inputs == NULL || node->outputs == NULL || node->name == NULL ||
        !qn__names_put(graph->ctx, &graph->names->nodes, node->name, node))
        return NULL;
    node->id = graph->next_node_id++;
    node->op = op;
    node->n_inputs = n_inputs;
    node->n_outputs = n_outputs;
    node->act_source = -1;
    if (at > graph->n_nodes)
        at = graph->n_nodes;
    memmove(graph->nodes + at + 1, graph->nodes + at, (graph->n_nodes - at) * sizeof(qn_node *));
    graph->nodes[at] = node;
    graph->n_nodes++;
    return node;
}

qn_node *qn__graph_add_between(qn_graph *graph, size_t at, qn_op op, qn_tensor *from, qn_tensor *to,
                               const qn_tensor *named_for)
{
    const char *name = qn__arena_printf(&graph->arena, "%s_%s", named_for->name, qn__op_name(op));
    qn_node *node = name == NULL ? NULL : qn__graph_add_node(graph, at, op, name, 1, 1);
    if (node == NULL)
        return NULL;
    node->inputs[0] = from;
    qn__node_set_output(node, 0, to);
    return node;
}

void qn__node_set_output(qn_node *node, uint32_t index, qn_tensor *tensor)
{
    qn_tensor *old = node->outputs[index];
    if (old != NULL && old->producer == node && old->producer_output == index)
        old->producer = NULL;
    node->outputs[index] = tensor;
    if (tensor != NULL) {
        tensor->producer = node;
        tensor->producer_output = index;
    }
}

bool qn__graph_retire_blob(qn_graph *graph, qn_blob *blob)
{
    struct qn_name_map *names = graph->names;
    if (blob == NULL)
        return true;
    if (!QN_GROW(graph->ctx, &names->retired, &names->retired_capacity, names->n_retired))
        return false;
    names->retired[names->n_retired++] = blob;
    return true;
}

/* What removal does to a node besides taking its place in the order. */
static void detach(qn_graph *graph, qn_node *node)
{
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        qn_tensor *tensor = node->outputs[i];
        if (tensor != NULL && tensor->producer == node)
            tensor->producer = NULL;
    }
    for (uint32_t a = 0; a < node->n_attrs; a++) {
        if (!qn__graph_retire_blob(graph, node->attrs[a].t)) {
            qn__blob_unref(node->attrs[a].t);
            node->attrs[a].t = NULL;
        }
    }
    qn__names_remove(&graph->names->nodes, node->name);
}

void qn__graph_remove_node(qn_graph *graph, qn_node *node)
{
    for (size_t i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i] != node)
            continue;
        detach(graph, node);
        memmove(graph->nodes + i, graph->nodes + i + 1,
                (graph->n_nodes - i - 1) * sizeof(qn_node *));
        graph->n_nodes--;
        return;
    }
}

void qn__graph_remove_marked(qn_graph *graph, const uint8_t *marks)
{
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        if (marks[node->id])
            detach(graph, node);
        else
            graph->nodes[kept++] = node;
    }
    graph->n_nodes = kept;
}

void qn__graph_replace_uses(qn_graph *graph, qn_tensor *from, qn_tensor *to)
{
    for (size_t i = 0; i < graph->n_nodes; i++)
        for (uint32_t k = 0; k < graph->nodes[i]->n_inputs; k++)
            if (graph->nodes[i]->inputs[k] == from)
                graph->nodes[i]->inputs[k] = to;
    for (size_t i = 0; i < graph->n_outputs; i++)
        if (graph->outputs[i] == from)
            graph->outputs[i] = to;
}

bool qn__node_add_sources(qn_graph *graph, qn_node *node, const qn_node *from)
{
    const uint32_t extra = from->act_source >= 0 ? 1 : 0;
    const size_t total = (size_t)node->n_sources + from->n_sources + extra;
    if (total == node->n_sources)
        return true;
    uint32_t *sources =
        total <= UINT32_MAX ? qn__arena_calloc(&graph->arena, total, sizeof(*sources)) : NULL;
    if (sources == NULL)
        return false;
    uint32_t count = 0;
    for (uint32_t i = 0; i < node->n_sources; i++)
        sources[count++] = node->sources[i];
    const uint32_t old = count;
    for (uint32_t i = 0; i < from->n_sources + extra; i++) {
        const uint32_t source = i < from->n_sources ? from->sources[i] : (uint32_t)from->act_source;
        bool known = false;
        for (uint32_t k = 0; k < old && !known; k++)
            known = sources[k] == source;
        if (!known)
            sources[count++] = source;
    }
    node->sources = sources;
    node->n_sources = count;
    return true;
}
