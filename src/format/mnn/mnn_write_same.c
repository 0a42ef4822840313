/* Is a graph still what its file says? Then the file's own bytes are the best way to write it. */
#include <string.h>

#include "format/mnn/mnn_write.h"

static bool same_quant(const qn_quant *a, const qn_quant *b)
{
    if (a == b)
        return true;
    if (!a || !b || a->bits != b->bits || a->is_signed != b->is_signed || a->axis != b->axis ||
        a->block != b->block || a->qmin != b->qmin || a->qmax != b->qmax ||
        a->n_scales != b->n_scales || a->n_codebook != b->n_codebook)
        return false;
    for (size_t i = 0; i < a->n_scales; i++)
        if (a->scales[i] != b->scales[i] ||
            (a->zero_points ? a->zero_points[i] : 0) != (b->zero_points ? b->zero_points[i] : 0))
            return false;
    return a->n_codebook == 0 ||
           memcmp(a->codebook, b->codebook, a->n_codebook * sizeof(*a->codebook)) == 0;
}

static bool same_constant(const qn_blob *a, const qn_blob *b)
{
    if (a == b)
        return true;
    return a && b && a->size_bytes == b->size_bytes &&
           (a->data == b->data || memcmp(a->data, b->data, a->size_bytes) == 0);
}

static bool same_tensor(const qn_tensor *a, const qn_tensor *b)
{
    if (!a || !b)
        return a == b;
    return a->source == b->source && strcmp(a->name, b->name) == 0 &&
           a->type.kind == b->type.kind && a->type.dtype == b->type.dtype &&
           same_quant(a->type.quant, b->type.quant) && same_constant(a->constant, b->constant);
}

/* Attributes need no look: nothing changes them but with the node. */
static bool same_node(const qn_node *a, const qn_node *b)
{
    if (a->op != b->op || a->n_inputs != b->n_inputs || a->n_outputs != b->n_outputs ||
        a->n_sources != b->n_sources || a->n_attrs != b->n_attrs || a->act != b->act ||
        a->act_lo != b->act_lo || a->act_hi != b->act_hi || a->act_source != b->act_source)
        return false;
    for (uint32_t i = 0; i < a->n_sources; i++)
        if (a->sources[i] != b->sources[i])
            return false;
    for (uint32_t i = 0; i < a->n_inputs; i++)
        if (!same_tensor(a->inputs[i], b->inputs[i]))
            return false;
    for (uint32_t i = 0; i < a->n_outputs; i++)
        if (!same_tensor(a->outputs[i], b->outputs[i]))
            return false;
    return true;
}

static bool same_graph(const qn_graph *a, const qn_graph *b)
{
    bool same =
        a->n_nodes == b->n_nodes && a->n_inputs == b->n_inputs && a->n_outputs == b->n_outputs;
    for (size_t i = 0; same && i < a->n_nodes; i++)
        same = same_node(a->nodes[i], b->nodes[i]);
    for (size_t i = 0; same && i < a->n_inputs; i++)
        same = same_tensor(a->inputs[i], b->inputs[i]);
    for (size_t i = 0; same && i < a->n_outputs; i++)
        same = same_tensor(a->outputs[i], b->outputs[i]);
    return same;
}

qn_status qn__mnn_is_unchanged(const qn_graph *graph, qn_mnn_source *source, bool *same,
                               qn_error *error)
{
    qn_graph *again = NULL;
    QN_TRY(qn__mnn_read(graph->ctx, source->path, source->doc.file, &again, error));
    *same = same_graph(graph, again);
    qn__graph_destroy(again);
    return QN_OK;
}
