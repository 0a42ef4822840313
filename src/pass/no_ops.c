/* Removes nodes that hand on what there is already: their first input, or a part of a Concat that
 * is sliced off again. A graph output keeps its name: then the producer of what it is writes it. */
#include "pass/pass.h"

#include "core/context.h"

#include <string.h>

static bool same_type(const qn_tensor *a, const qn_tensor *b)
{
    return a->type.kind == b->type.kind && a->type.dtype == b->type.dtype &&
           a->type.dtype != QN_DTYPE_NONE && a->type.quant == b->type.quant;
}

static bool same_shape(const qn_tensor *a, const qn_tensor *b)
{
    bool same = a->has_shape && b->has_shape && a->rank == b->rank;
    for (size_t i = 0; same && i < a->rank; i++)
        same = qn__dim_equal(a->dims[i], b->dims[i]);
    return same;
}

static bool dropout_is_identity(qn_graph *graph, const qn_node *node, const qn_uses *uses)
{
    const qn_tensor *mask = node->n_outputs > 1 ? node->outputs[1] : NULL;
    if (mask != NULL && (qn_uses_count(uses, mask) > 0 || uses->is_output[mask->id]))
        return false;
    if (node->n_inputs < 3 || node->inputs[2] == NULL)
        return true;
    size_t count;
    const int64_t *training = qn__tensor_ints(graph, node->inputs[2], &count);
    return training != NULL && count == 1 && training[0] == 0;
}

/* Values of attribute `name`, or of constant input `index`; NULL: not constant. False: neither is
 * there. */
static bool int_param(qn_graph *graph, const qn_node *node, const char *name, uint32_t index,
                      const int64_t **values, size_t *count)
{
    const qn_tensor *tensor = qn_node_input(node, index);
    const bool attr = qn__node_attr(node, name) != NULL;
    *values = attr             ? qn__attr_ints(node, name, count)
              : tensor != NULL ? qn__tensor_ints(graph, tensor, count)
                               : NULL;
    return attr || tensor != NULL;
}

/* All values of int_param are `wanted`. Neither there: `absent`. */
static bool all_equal(qn_graph *graph, const qn_node *node, const char *name, uint32_t index,
                      int64_t wanted, bool absent)
{
    const int64_t *values;
    size_t count;
    if (!int_param(graph, node, name, index, &values, &count))
        return absent;
    for (size_t i = 0; values != NULL && i < count; i++)
        if (values[i] != wanted)
            return false;
    return values != NULL;
}

static bool transpose_is_identity(const qn_node *node)
{
    size_t count;
    const int64_t *perm = qn__attr_ints(node, "perm", &count);
    if (perm == NULL)
        return node->inputs[0]->has_shape && node->inputs[0]->rank <= 1;
    for (size_t i = 0; i < count; i++)
        if (perm[i] != (int64_t)i)
            return false;
    return true;
}

static bool is_no_op(qn_graph *graph, const qn_node *node, const qn_uses *uses)
{
    if (node->act != QN_ACT_NONE || node->n_inputs == 0 || node->inputs[0] == NULL ||
        node->n_outputs == 0 || node->outputs[0] == NULL)
        return false;
    const qn_tensor *x = node->inputs[0], *y = node->outputs[0];
    if (!same_type(x, y))
        return false;
    switch (node->op) {
    case QN_OP_IDENTITY:
    case QN_OP_CAST: /* types are equal */
        return true;
    case QN_OP_DROPOUT:
        return dropout_is_identity(graph, node, uses);
    case QN_OP_RESHAPE:
    case QN_OP_FLATTEN:
    case QN_OP_SQUEEZE:
    case QN_OP_UNSQUEEZE:
    case QN_OP_EXPAND:
    case QN_OP_TILE:
        return same_shape(x, y);
    case QN_OP_TRANSPOSE:
        return transpose_is_identity(node);
    case QN_OP_PAD:
        return all_equal(graph, node, "pads", 1, 0, false);
    case QN_OP_SLICE: /* a negative step reverses what keeps its shape */
        return same_shape(x, y) && all_equal(graph, node, "steps", 4, 1, true);
    case QN_OP_CONCAT:
        return node->n_inputs == 1;
    case QN_OP_SPLIT:
        return node->n_outputs == 1;
    default:
        return false;
    }
}

/* The only value of int_param, within -dim to dim, from the front. False: there is not one. */
static bool one_position(qn_graph *graph, const qn_node *node, const char *name, uint32_t index,
                         int64_t dim, int64_t *out)
{
    const int64_t *values;
    size_t count;
    if (!int_param(graph, node, name, index, &values, &count) || values == NULL || count != 1)
        return false;
    const int64_t at = values[0] < -dim ? -dim : values[0] > dim ? dim : values[0];
    *out = at < 0 ? at + dim : at;
    return true;
}

typedef struct remover {
    qn_graph *graph;
    qn_uses uses;
    qn_tensor **forward; /* by tensor id: what to read instead */
    uint8_t *remove;
    int64_t **ends;  /* by node id: of the parts of a Concat that was looked at */
    uint32_t *known; /* so many of them */
} remover;

/* Where the parts of a Concat end, as far as their sizes are known. */
static qn_status find_ends(remover *r, const qn_tensor *whole, size_t axis, qn_error *error)
{
    const qn_node *const concat = whole->producer;
    int64_t at = 0;
    int64_t *const ends = qn__calloc(r->graph->ctx, concat->n_inputs + (size_t)1, sizeof(*ends));
    if (ends == NULL)
        return QN_NOMEM(error);
    r->ends[concat->id] = ends;
    for (uint32_t i = 0; i < concat->n_inputs; i++) {
        const qn_tensor *const part = concat->inputs[i];
        if (part == NULL || !part->has_shape || part->rank != whole->rank ||
            part->dims[axis].kind != QN_DIM_CONST ||
            part->dims[axis].value > whole->dims[axis].value - at)
            break;
        ends[i] = at += part->dims[axis].value;
        r->known[concat->id] = i + 1;
    }
    return QN_OK;
}

/* Detectors put coordinates together and take them apart again: *out is the part that a Slice takes
 * off, or stays NULL. */
static qn_status sliced_part(remover *r, const qn_node *node, qn_tensor **out, qn_error *error)
{
    qn_graph *const graph = r->graph;
    const qn_tensor *const x = node->n_inputs > 0 ? node->inputs[0] : NULL;
    const qn_node *const concat = x != NULL ? x->producer : NULL;
    int64_t axis, start, end;
    if (node->op != QN_OP_SLICE || node->act != QN_ACT_NONE || node->n_outputs == 0 ||
        node->outputs[0] == NULL || concat == NULL || concat->op != QN_OP_CONCAT ||
        concat->act != QN_ACT_NONE || !x->has_shape ||
        !one_position(graph, node, "axes", 3, (int64_t)x->rank, &axis) ||
        axis >= (int64_t)x->rank || x->dims[axis].kind != QN_DIM_CONST ||
        !all_equal(graph, node, "steps", 4, 1, true))
        return QN_OK;
    const int64_t dim = x->dims[axis].value, joined = qn__attr_int(concat, "axis", 0);
    if ((joined < 0 ? joined + (int64_t)x->rank : joined) != axis ||
        !one_position(graph, node, "starts", 1, dim, &start) ||
        !one_position(graph, node, "ends", 2, dim, &end) || end <= start)
        return QN_OK;
    if (r->ends[concat->id] == NULL)
        QN_TRY(find_ends(r, x, (size_t)axis, error));
    /* The first part that ends behind the start. */
    const int64_t *const ends = r->ends[concat->id];
    uint32_t low = 0, high = r->known[concat->id];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (ends[middle] > start)
            high = middle;
        else
            low = middle + 1;
    }
    if (low < r->known[concat->id] && ends[low] == end && (low > 0 ? ends[low - 1] : 0) == start &&
        same_type(concat->inputs[low], node->outputs[0]))
        *out = concat->inputs[low];
    return QN_OK;
}

/* Chains stay short: entries point at tensors that were resolved themselves; only a tensor renamed
 * to a graph output adds a step. */
static qn_tensor *resolved(const remover *r, qn_tensor *tensor)
{
    while (tensor != NULL && r->forward[tensor->id] != NULL)
        tensor = r->forward[tensor->id];
    return tensor;
}

/* The output of `node` is x. */
static void bypass(remover *r, qn_node *node, qn_tensor *x)
{
    qn_tensor *y = node->outputs[0];
    x = resolved(r, x);
    if (!r->uses.is_output[y->id]) {
        r->forward[y->id] = x;
        r->remove[node->id] = 1;
        return;
    }
    /* Inputs, constants and other outputs cannot take y's name. */
    qn_node *producer = x->producer;
    if (producer == NULL || r->uses.is_output[x->id])
        return;
    qn__node_set_output(node, 0, NULL);
    qn__node_set_output(producer, x->producer_output, y);
    x->producer = NULL;
    r->forward[x->id] = y;
    r->remove[node->id] = 1;
}

qn_status qn__pass_no_ops(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    remover r = {.graph = graph};
    qn_status status = QN_OK;
    QN_TRY(qn__uses_build(graph, &r.uses, error));
    r.forward = qn__calloc(graph->ctx, graph->n_tensors + 1, sizeof(*r.forward));
    r.remove = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, 1);
    r.ends = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, sizeof(*r.ends));
    r.known = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, sizeof(*r.known));
    if (r.forward == NULL || r.remove == NULL || r.ends == NULL || r.known == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs; k++)
            node->inputs[k] = resolved(&r, node->inputs[k]);
        qn_tensor *same = is_no_op(graph, node, &r.uses) ? node->inputs[0] : NULL;
        if (same == NULL) {
            status = sliced_part(&r, node, &same, error);
            if (status != QN_OK)
                goto done;
        }
        if (same != NULL)
            bypass(&r, node, same);
    }
    /* Readers that stood before a tensor got an output's name. */
    for (size_t i = 0; i < graph->n_nodes; i++)
        for (uint32_t k = 0; k < graph->nodes[i]->n_inputs; k++)
            graph->nodes[i]->inputs[k] = resolved(&r, graph->nodes[i]->inputs[k]);
    qn__graph_remove_marked(graph, r.remove);
    status = qn__pass_dead_code(graph, options, error); /* Concats all of which was taken off */
done:
    for (size_t i = 0; r.ends != NULL && i < graph->next_node_id; i++)
        qn__free(graph->ctx, r.ends[i]);
    qn__free(graph->ctx, r.ends);
    qn__free(graph->ctx, r.known);
    qn__uses_free(&r.uses);
    qn__free(graph->ctx, r.forward);
    qn__free(graph->ctx, r.remove);
    return status;
}
