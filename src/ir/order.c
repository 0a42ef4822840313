/* Who reads what, and topological order. */
#include "ir/graph.h"

#include "core/context.h"

#include <string.h>

qn_status qn__uses_build(const qn_graph *graph, qn_uses *out, qn_error *error)
{
    qn_uses uses = {.ctx = graph->ctx, .n_tensors = graph->n_tensors};
    uses.offsets = qn__calloc(graph->ctx, graph->n_tensors + 2, sizeof(*uses.offsets));
    uses.is_output = qn__calloc(graph->ctx, graph->n_tensors + 1, 1);
    if (uses.offsets == NULL || uses.is_output == NULL)
        goto no_memory;
    /* Counts go one place up, so that filling below turns starts into ends of the slot before. */
    for (size_t i = 0; i < graph->n_nodes; i++)
        for (uint32_t k = 0; k < graph->nodes[i]->n_inputs; k++)
            if (graph->nodes[i]->inputs[k] != NULL)
                uses.offsets[graph->nodes[i]->inputs[k]->id + 2]++;
    for (size_t i = 2; i < graph->n_tensors + 2; i++)
        uses.offsets[i] += uses.offsets[i - 1];
    uses.users =
        qn__calloc(graph->ctx, uses.offsets[graph->n_tensors + 1] + 1, sizeof(*uses.users));
    if (uses.users == NULL)
        goto no_memory;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs; k++)
            if (node->inputs[k] != NULL)
                uses.users[uses.offsets[node->inputs[k]->id + 1]++] = node;
    }
    for (size_t i = 0; i < graph->n_outputs; i++)
        uses.is_output[graph->outputs[i]->id] = 1;
    *out = uses;
    return QN_OK;
no_memory:
    qn__uses_free(&uses);
    return QN_NOMEM(error);
}

void qn__uses_free(qn_uses *uses)
{
    if (uses == NULL || uses->ctx == NULL)
        return;
    qn__free(uses->ctx, uses->offsets);
    qn__free(uses->ctx, uses->users);
    qn__free(uses->ctx, uses->is_output);
    *uses = (qn_uses){0};
}

/* Min-heap of positions: of the nodes that are ready, the one that stood first goes first, so a
 * sorted list stays as it is. */
typedef struct heap {
    size_t *items;
    size_t count;
} heap;

static void heap_push(heap *h, size_t value)
{
    size_t i = h->count++;
    while (i > 0 && h->items[(i - 1) / 2] > value) {
        h->items[i] = h->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->items[i] = value;
}

static size_t heap_pop(heap *h)
{
    const size_t top = h->items[0];
    const size_t last = h->items[--h->count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->items[child + 1] < h->items[child])
            child++;
        if (h->items[child] >= last)
            break;
        h->items[i] = h->items[child];
        i = child;
    }
    h->items[i] = last;
    return top;
}

typedef struct sorter {
    size_t *position;  /* [next_node_id] by node id */
    uint32_t *waiting; /* [n_nodes] inputs not yet produced, by position */
    heap ready;
    qn_node **order;
} sorter;

static void sorter_free(const qn_context *ctx, sorter *s)
{
    qn__free(ctx, s->position);
    qn__free(ctx, s->waiting);
    qn__free(ctx, s->ready.items);
    qn__free(ctx, s->order);
}

static void release_users(sorter *s, const qn_uses *uses, const qn_node *node)
{
    for (uint32_t k = 0; k < node->n_outputs; k++) {
        const qn_tensor *tensor = node->outputs[k];
        if (tensor == NULL || tensor->producer != node)
            continue;
        for (size_t u = uses->offsets[tensor->id]; u < uses->offsets[tensor->id + 1]; u++) {
            const size_t at = s->position[uses->users[u]->id];
            if (--s->waiting[at] == 0)
                heap_push(&s->ready, at);
        }
    }
}

/* A node of the cycle itself, not one that merely waits behind it: walk back until one repeats. */
static const qn_node *on_cycle(const sorter *s, const qn_graph *graph)
{
    const qn_node *node = NULL;
    for (size_t i = 0; i < graph->n_nodes && node == NULL; i++)
        if (s->waiting[i] > 0)
            node = graph->nodes[i];
    for (size_t step = 0; node != NULL && step < graph->n_nodes; step++) {
        const qn_node *before = NULL;
        for (uint32_t k = 0; k < node->n_inputs && before == NULL; k++) {
            const qn_tensor *in = node->inputs[k];
            if (in != NULL && in->producer != NULL && s->waiting[s->position[in->producer->id]] > 0)
                before = in->producer;
        }
        if (before == NULL)
            break;
        node = before;
    }
    return node;
}

qn_status qn__graph_sort(qn_graph *graph, qn_error *error)
{
    const qn_context *ctx = graph->ctx;
    qn_status status = QN_OK;
    sorter s = {0};
    qn_uses uses = {0};
    size_t done = 0;
    QN_TRY(qn__uses_build(graph, &uses, error));
    s.position = qn__calloc(ctx, (size_t)graph->next_node_id + 1, sizeof(*s.position));
    s.waiting = qn__calloc(ctx, graph->n_nodes + 1, sizeof(*s.waiting));
    s.ready.items = qn__calloc(ctx, graph->n_nodes + 1, sizeof(*s.ready.items));
    s.order = qn__calloc(ctx, graph->n_nodes + 1, sizeof(*s.order));
    if (s.position == NULL || s.waiting == NULL || s.ready.items == NULL || s.order == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t i = 0; i < graph->n_nodes; i++)
        s.position[graph->nodes[i]->id] = i;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs; k++)
            if (node->inputs[k] != NULL && node->inputs[k]->producer != NULL)
                s.waiting[i]++;
        if (s.waiting[i] == 0)
            heap_push(&s.ready, i);
    }
    while (s.ready.count > 0) {
        qn_node *node = graph->nodes[heap_pop(&s.ready)];
        s.order[done++] = node;
        release_users(&s, &uses, node);
    }
    if (done < graph->n_nodes) {
        const qn_node *node = on_cycle(&s, graph);
        QN_FAIL_GOTO(error, QN_CORRUPT, "%s: node %s \"%s\" is part of a cycle",
                     graph->file != NULL ? graph->file : "graph",
                     node != NULL ? qn__op_name(node->op) : "?", node != NULL ? node->name : "?");
    }
    if (graph->n_nodes > 0)
        memcpy(graph->nodes, s.order, graph->n_nodes * sizeof(*s.order));
done:
    sorter_free(ctx, &s);
    qn__uses_free(&uses);
    return status;
}
