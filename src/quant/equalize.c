/* Equalization of channels: one scale serves a whole tensor, so a channel of small values gets few
 * steps beside one of large values. Where a tensor is made by a convolution (without activation or
 * with Relu) and everything it flows into is linear per channel and ends in convolutions, channel c
 * may be divided by 2^e[c] where it is made and multiplied back in the weights that read it. Powers
 * of two leave the float network's results as they are. (Nagel et al., Data-Free Quantization
 * Through Weight Equalization, 2019; here with measured activations.) */
#include "quant/equalize.h"

#include <math.h>
#include <string.h>

enum { MAX_DEPTH = 12 };

bool qn__eq_channels(const qn_tensor *t, size_t *out)
{
    if (!t->has_shape || t->rank != 4 || t->dims[1].kind != QN_DIM_CONST || t->dims[1].value < 1)
        return false;
    *out = (size_t)t->dims[1].value;
    return true;
}

static bool plain_constant(const qn_tensor *t)
{
    return t != NULL && t->constant != NULL && t->type.kind == QN_TYPE_PLAIN &&
           t->type.dtype == QN_DTYPE_F32;
}

/* Reshape [N, a*b, H, W] -> [N, a, b, H, W], Transpose of axes 1 and 2, Reshape back: a shuffle of
 * channels. Returns the last node. */
static qn_node *match_shuffle(const qn_eq_flow *f, qn_node *first, size_t channels, size_t *a,
                              size_t *b)
{
    const qn_tensor *t = first->outputs[0];
    static const int64_t wanted[5] = {0, 2, 1, 3, 4};
    if (first->op != QN_OP_RESHAPE || !t->has_shape || t->rank != 5 ||
        t->dims[1].kind != QN_DIM_CONST || t->dims[2].kind != QN_DIM_CONST ||
        qn_uses_count(f->uses, t) != 1 || f->uses->is_output[t->id])
        return NULL;
    *a = (size_t)t->dims[1].value;
    *b = (size_t)t->dims[2].value;
    qn_node *second = f->uses->users[f->uses->offsets[t->id]];
    size_t n_perm;
    const int64_t *perm = qn__attr_ints(second, "perm", &n_perm);
    if (*a * *b != channels || second->op != QN_OP_TRANSPOSE || n_perm != 5 ||
        memcmp(perm, wanted, sizeof(wanted)) != 0)
        return NULL;
    t = second->outputs[0];
    if (qn_uses_count(f->uses, t) != 1 || f->uses->is_output[t->id])
        return NULL;
    qn_node *third = f->uses->users[f->uses->offsets[t->id]];
    size_t out_channels;
    if (third->op != QN_OP_RESHAPE || !qn__eq_channels(third->outputs[0], &out_channels) ||
        out_channels != channels)
        return NULL;
    return third;
}

static bool follow(qn_eq_flow *f, qn_tensor *t, const int32_t *channel, int depth);

static bool add_sink(qn_eq_flow *f, qn_node *node, const int32_t *channel)
{
    if (f->n_sinks == QN_EQ_SINKS || node->n_inputs < 2 || !plain_constant(node->inputs[1]) ||
        qn_uses_count(f->uses, node->inputs[1]) != 1)
        return false;
    f->sinks[f->n_sinks++] = (qn_eq_end){node, channel};
    return true;
}

static bool follow_shuffle(qn_eq_flow *f, qn_node *node, size_t channels, const int32_t *channel,
                           int depth)
{
    size_t a = 0, b = 0;
    qn_node *last = match_shuffle(f, node, channels, &a, &b);
    int32_t *moved =
        last == NULL ? NULL : qn__arena_calloc(&f->graph->arena, channels, sizeof(*moved));
    if (moved == NULL || f->n_between + 2 > 2 * QN_EQ_TENSORS)
        return false;
    f->between[f->n_between++] = node->outputs[0];
    f->between[f->n_between++] = last->inputs[0];
    for (size_t i = 0; i < a; i++)
        for (size_t j = 0; j < b; j++)
            moved[j * a + i] = channel[i * b + j];
    return follow(f, last->outputs[0], moved, depth + 1);
}

static bool follow_concat(qn_eq_flow *f, const qn_node *node, const qn_tensor *t, size_t channels,
                          const int32_t *channel, int depth)
{
    const int64_t axis = qn__attr_int(node, "axis", 0);
    size_t all, before = 0, width;
    bool found = false;
    if ((axis != 1 && axis != -3) || node->act != QN_ACT_NONE ||
        !qn__eq_channels(node->outputs[0], &all))
        return false;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == t && found)
            return false; /* its channels twice */
        found |= node->inputs[i] == t;
        if (!found &&
            (!qn__eq_channels(node->inputs[i], &width) || !qn_add_size(&before, before, width)))
            return false;
    }
    int32_t *moved = qn__arena_calloc(&f->graph->arena, all, sizeof(*moved));
    if (moved == NULL || before > all || channels > all - before)
        return false;
    for (size_t c = 0; c < all; c++)
        moved[c] = c >= before && c < before + channels ? channel[c - before] : QN_EQ_FOREIGN;
    return follow(f, node->outputs[0], moved, depth + 1);
}

static bool add_maker(qn_eq_flow *f, qn_node *node, const int32_t *channel)
{
    const bool biased = node->n_inputs > 2 && node->inputs[2] != NULL;
    size_t channels, count;
    if (f->n_makers == QN_EQ_MAKERS || node->op != QN_OP_CONV || node->act == QN_ACT_CLIP ||
        node->n_inputs < 2 || !plain_constant(node->inputs[1]) ||
        qn_uses_count(f->uses, node->inputs[1]) != 1 ||
        !qn__eq_channels(node->outputs[0], &channels))
        return false;
    if (biased &&
        (!plain_constant(node->inputs[2]) || qn_uses_count(f->uses, node->inputs[2]) != 1 ||
         !qn__tensor_count(node->inputs[2], &count) || count != channels))
        return false;
    f->makers[f->n_makers++] = (qn_eq_end){node, channel};
    return true;
}

bool qn__eq_same(const int32_t *a, const int32_t *b, size_t channels)
{
    for (size_t c = 0; c < channels; c++)
        if (a[c] != b[c] || a[c] == QN_EQ_FOREIGN)
            return false;
    return true;
}

size_t qn__eq_find(const qn_eq_flow *f, const qn_tensor *t)
{
    size_t i = 0;
    while (i < f->n_tensors && f->tensors[i] != t)
        i++;
    return i;
}

/* A sum keeps its channels' scales when both terms have them: the other term is in the flow
 * already, or a convolution makes it, which is then scaled alike. */
static bool follow_add(qn_eq_flow *f, const qn_node *node, const qn_tensor *t, size_t channels,
                       const int32_t *channel, int depth)
{
    qn_tensor *other = node->inputs[node->inputs[0] == t];
    size_t width;
    if (node->act == QN_ACT_CLIP || !qn__eq_same(channel, channel, channels) ||
        !qn__eq_channels(other, &width) || width != channels ||
        !qn__eq_channels(node->outputs[0], &width) || width != channels)
        return false;
    const size_t known = qn__eq_find(f, other);
    if (known < f->n_tensors) {
        if (!qn__eq_same(channel, f->channel[known], channels))
            return false;
    } else if (other->producer == NULL || !add_maker(f, other->producer, channel) ||
               !follow(f, other, channel, depth + 1)) {
        return false;
    }
    /* the other term came by here first */
    const size_t sum = qn__eq_find(f, node->outputs[0]);
    if (sum < f->n_tensors)
        return qn__eq_same(channel, f->channel[sum], channels);
    return follow(f, node->outputs[0], channel, depth + 1);
}

static bool follow_node(qn_eq_flow *f, qn_node *node, const qn_tensor *t, size_t channels,
                        const int32_t *channel, int depth)
{
    size_t out_channels;
    switch (node->op) {
    case QN_OP_CONV:
        return node->inputs[0] == t && node->inputs[1] != t && add_sink(f, node, channel);
    case QN_OP_MUL:
        if (node->inputs[0] == node->inputs[1] || node->act == QN_ACT_CLIP)
            return false;
        break;
    case QN_OP_MAX_POOL:
    case QN_OP_AVERAGE_POOL:
    case QN_OP_GLOBAL_AVERAGE_POOL:
    case QN_OP_RELU:
        break;
    case QN_OP_RESIZE:
        if (node->inputs[0] != t)
            return false;
        break;
    case QN_OP_ADD:
        return follow_add(f, node, t, channels, channel, depth);
    case QN_OP_CONCAT:
        return follow_concat(f, node, t, channels, channel, depth);
    case QN_OP_RESHAPE:
        return node->inputs[0] == t && follow_shuffle(f, node, channels, channel, depth);
    default:
        return false;
    }
    if (node->n_outputs != 1 || !qn__eq_channels(node->outputs[0], &out_channels) ||
        out_channels != channels)
        return false;
    return follow(f, node->outputs[0], channel, depth + 1);
}

static bool follow(qn_eq_flow *f, qn_tensor *t, const int32_t *channel, int depth)
{
    size_t channels;
    if (depth > MAX_DEPTH || f->n_tensors == QN_EQ_TENSORS || f->uses->is_output[t->id] ||
        !qn__eq_channels(t, &channels) || qn_uses_count(f->uses, t) == 0)
        return false;
    if (qn__eq_find(f, t) < f->n_tensors)
        return false; /* both factors of a Mul: not linear */
    f->channel[f->n_tensors] = channel;
    f->tensors[f->n_tensors++] = t;
    for (size_t u = f->uses->offsets[t->id]; u < f->uses->offsets[t->id + 1]; u++)
        if (!follow_node(f, f->uses->users[u], t, channels, channel, depth))
            return false;
    return true;
}

/* The flow of a convolution's output; false when it cannot be equalized. */
static bool trace(qn_graph *g, const qn_uses *uses, qn_node *node, qn_eq_flow *out)
{
    *out = (qn_eq_flow){.graph = g, .uses = uses};
    if (node->op != QN_OP_CONV || !qn__eq_channels(node->outputs[0], &out->channels))
        return false;
    int32_t *channel = qn__arena_calloc(&g->arena, out->channels, sizeof(*channel));
    for (size_t c = 0; channel != NULL && c < out->channels; c++)
        channel[c] = (int32_t)c;
    return channel != NULL && add_maker(out, node, channel) &&
           follow(out, node->outputs[0], channel, 0) && out->n_sinks > 0;
}

size_t qn__eq_input_channel(const qn_weight_view *v, size_t group, size_t i)
{
    const size_t o = i / v->k, cin = v->k / v->positions;
    return o / (v->channels / group) * cin + i % v->k / v->positions;
}

/* --- applying ----------------------------------------------------------------------------------*/
static qn_status scale_constant(qn_graph *g, qn_tensor *t, const qn_eq_end *at, bool makes,
                                const int32_t *e, qn_error *error)
{
    size_t count;
    qn_weight_view v;
    const qn_node *node = at->node;
    const float *w = qn__tensor_floats(g, t, &count);
    void *data = NULL;
    qn_blob *blob = qn__blob_create(g->ctx, count * sizeof(float), &data);
    if (w == NULL || blob == NULL || !qn__weight_view(node, &v)) {
        qn__blob_unref(blob);
        return QN_NOMEM(error);
    }
    const size_t group = (size_t)qn__attr_int(node, "group", 1);
    const bool is_bias = t == (node->n_inputs > 2 ? node->inputs[2] : NULL);
    for (size_t i = 0; i < count; i++) {
        /* reading weights are multiplied, making ones divided */
        const size_t own = is_bias ? i : makes ? i / v.k : qn__eq_input_channel(&v, group, i);
        const int32_t c = at->channel[own];
        const int32_t shift = c == QN_EQ_FOREIGN ? 0 : makes ? -e[c] : e[c];
        ((float *)data)[i] = ldexpf(w[i], shift);
    }
    qn__tensor_set_constant(t, blob);
    qn__blob_unref(blob);
    return QN_OK;
}

/* A scaled tensor gets a name of its own: its values are no longer the ones the old name means. */
static qn_status rename_tensor(qn_graph *g, qn_tensor *t, qn_error *error)
{
    qn_tensor *fresh = qn__graph_add_twin(g, t, "equalized", t->type);
    if (fresh == NULL)
        return QN_NOMEM(error);
    fresh->source = t->source;
    qn__node_set_output(t->producer, t->producer_output, fresh);
    qn__graph_replace_uses(g, t, fresh);
    return QN_OK;
}

static qn_status apply(qn_graph *g, const qn_eq_flow *f, const int32_t *e, qn_error *error)
{
    for (size_t m = 0; m < f->n_makers; m++) {
        const qn_node *node = f->makers[m].node;
        QN_TRY(scale_constant(g, node->inputs[1], &f->makers[m], true, e, error));
        if (node->n_inputs > 2 && node->inputs[2] != NULL)
            QN_TRY(scale_constant(g, node->inputs[2], &f->makers[m], true, e, error));
    }
    for (size_t s = 0; s < f->n_sinks; s++)
        QN_TRY(scale_constant(g, f->sinks[s].node->inputs[1], &f->sinks[s], false, e, error));
    for (size_t i = 0; i < f->n_tensors; i++)
        QN_TRY(rename_tensor(g, f->tensors[i], error));
    for (size_t i = 0; i < f->n_between; i++)
        QN_TRY(rename_tensor(g, f->between[i], error));
    return QN_OK;
}

/* --- interface ---------------------------------------------------------------------------------*/
qn_status qn__equalize_candidates(qn_graph *graph, uint32_t **ids, size_t *count, qn_error *error)
{
    qn_uses uses;
    QN_TRY(qn__uses_build(graph, &uses, error));
    uint8_t *wanted = qn__calloc(graph->ctx, graph->n_tensors, 1);
    uint32_t *list = qn__calloc(graph->ctx, graph->n_tensors, sizeof(*list));
    *count = 0;
    for (size_t n = 0; wanted != NULL && list != NULL && n < graph->n_nodes; n++) {
        qn_eq_flow f;
        if (!trace(graph, &uses, graph->nodes[n], &f))
            continue;
        for (size_t i = 0; i < f.n_tensors; i++)
            wanted[f.tensors[i]->id] = 1;
    }
    for (uint32_t t = 0; wanted != NULL && list != NULL && t < graph->n_tensors; t++)
        if (wanted[t])
            list[(*count)++] = t;
    qn__uses_free(&uses);
    qn_status status = wanted != NULL && list != NULL ? QN_OK : QN_NOMEM(error);
    qn__free(graph->ctx, wanted);
    if (status == QN_OK)
        status = qn__arena_check(&graph->arena, error); /* a flow that could not be followed */
    if (status != QN_OK) {
        qn__free(graph->ctx, list);
        return status;
    }
    *ids = list;
    return QN_OK;
}

qn_status qn__equalize(qn_graph *graph, float *const *peaks, qn_equalization *list, qn_error *error)
{
    const size_t n_nodes = graph->n_nodes, n_peaks = graph->n_tensors;
    for (size_t n = 0; n < n_nodes; n++) {
        /* Scaling renames tensors, so uses are counted anew for every node. */
        qn_uses uses;
        qn_eq_flow f;
        QN_TRY(qn__uses_build(graph, &uses, error));
        int32_t *e = NULL;
        qn_status status = QN_OK;
        const bool traced = trace(graph, &uses, graph->nodes[n], &f);
        if (list->exponents[n] != NULL && (!traced || list->n_exponents[n] != f.channels)) {
            status =
                qn__error_set(error, QN_INVALID_ARGUMENT,
                              "equalization[\"%s\"]: %zu exponents for %zu channels that can "
                              "be scaled",
                              graph->nodes[n]->name, list->n_exponents[n], traced ? f.channels : 0);
        } else if (traced) {
            const char *name = f.tensors[0]->name;
            e = list->exponents[n];
            if (e == NULL && peaks != NULL) {
                e = qn__arena_calloc(&graph->arena, f.channels, sizeof(*e));
                if (e != NULL && !qn__eq_choose(&f, peaks, n_peaks, e))
                    e = NULL;
            }
            if (e != NULL) {
                list->exponents[n] = e;
                list->n_exponents[n] = f.channels;
                status = apply(graph, &f, e, error);
                if (status != QN_OK)
                    qn__error_prefix(error, status, "tensor \"%s\"", name);
            }
        }
        qn__uses_free(&uses);
        QN_TRY(status);
    }
    QN_TRY(qn__arena_check(&graph->arena, error)); /* a flow that could not be followed */
    return qn__graph_verify(graph, error);
}
