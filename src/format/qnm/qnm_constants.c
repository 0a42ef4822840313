/* Where constants go in the data section: sorted by address to find them, placed in the order in
 * which the graph names them, so that the same graph makes the same file wherever it lies. */
#include "format/qnm/qnm_write.h"

#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    const qn_qnm_constant *const a = left, *const b = right;
    const uintptr_t da = (uintptr_t)a->blob->data, db = (uintptr_t)b->blob->data;
    if (da != db)
        return da < db ? -1 : 1;
    if (a->blob->size_bytes != b->blob->size_bytes)
        return a->blob->size_bytes < b->blob->size_bytes ? -1 : 1;
    return a->element < b->element ? -1 : a->element > b->element;
}

static bool add(const qn_context *ctx, qn_qnm_constants *c, const qn_blob *blob, qn_dtype dtype)
{
    if (!QN_GROW(ctx, &c->items, &c->capacity, c->count))
        return false;
    c->items[c->count++] = (qn_qnm_constant){blob, qn__dtype_bits(dtype) / 8, SIZE_MAX};
    return true;
}

static bool add_node(const qn_context *ctx, qn_qnm_constants *c, const qn_node *node)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < node->n_inputs; i++)
        if (node->inputs[i] != NULL && node->inputs[i]->constant != NULL)
            ok = add(ctx, c, node->inputs[i]->constant, node->inputs[i]->type.dtype);
    for (uint32_t i = 0; ok && i < node->n_attrs; i++)
        if (node->attrs[i].kind == QN_ATTR_TENSOR)
            ok = add(ctx, c, node->attrs[i].t, node->attrs[i].t_dtype);
    return ok;
}

qn_status qn__qnm_constants_collect(const qn_graph *graph, qn_qnm_constants *out, qn_error *error)
{
    const qn_context *const ctx = graph->ctx;
    bool ok = true;
    *out = (qn_qnm_constants){0};
    for (size_t i = 0; ok && i < graph->n_nodes; i++)
        ok = add_node(ctx, out, graph->nodes[i]);
    for (size_t i = 0; ok && i < graph->n_outputs; i++)
        if (graph->outputs[i]->constant != NULL)
            ok = add(ctx, out, graph->outputs[i]->constant, graph->outputs[i]->type.dtype);
    out->order = ok ? qn__calloc(ctx, out->count + 1, sizeof(*out->order)) : NULL;
    if (out->order == NULL) {
        qn__qnm_constants_free(ctx, out);
        return QN_NOMEM(error);
    }
    if (out->count == 0)
        return QN_OK;
    qsort(out->items, out->count, sizeof(*out->items), compare);
    size_t kept = 1;
    for (size_t i = 1; i < out->count; i++)
        if (compare(&out->items[kept - 1], &out->items[i]) != 0)
            out->items[kept++] = out->items[i];
    out->count = kept;
    return QN_OK;
}

void qn__qnm_constants_free(const qn_context *ctx, qn_qnm_constants *constants)
{
    qn__free(ctx, constants->items);
    qn__free(ctx, constants->order);
    *constants = (qn_qnm_constants){0};
}

/* First item that is not before the wanted one. */
static size_t lower_bound(const qn_qnm_constants *c, const qn_qnm_constant *wanted)
{
    size_t begin = 0, end = c->count;
    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        if (compare(&c->items[middle], wanted) < 0)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

size_t qn__qnm_constant_place(qn_qnm_constants *constants, const qn_blob *blob, size_t element)
{
    const qn_qnm_constant wanted = {blob, element, 0};
    qn_qnm_constant *const item = &constants->items[lower_bound(constants, &wanted)];
    if (item->offset == SIZE_MAX) {
        item->offset = (constants->bytes + QN_QNM_ALIGN - 1) / QN_QNM_ALIGN * QN_QNM_ALIGN;
        constants->bytes = item->offset + blob->size_bytes;
        constants->order[constants->n_placed++] = item;
    }
    return item->offset;
}

size_t qn__qnm_constant_find(const qn_qnm_constants *constants, const void *data)
{
    const qn_blob blob = {.data = data, .size_bytes = 1};
    const qn_qnm_constant wanted = {&blob, 0, 0};
    const size_t at = lower_bound(constants, &wanted);
    return at < constants->count && constants->items[at].blob->data == data
               ? constants->items[at].offset
               : SIZE_MAX;
}
