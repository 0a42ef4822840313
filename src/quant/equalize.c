/* Equalization of channels: one scale serves a whole tensor, so a channel of small values gets few
 * steps beside one of large values. Where a tensor is made by a convolution (without activation or
 * with Relu) and everything it flows into is linear per channel and ends in convolutions, channel c
 * may be divided by 2^e[c] where it is made and multiplied back in the weights that read it. Powers
 * of two leave the float network's results as they are. (Nagel et al., Data-Free Quantization
 * Through Weight Equalization, 2019; here with measured activations.) */
#include "quant/quant.h"

#include <math.h>
#include <string.h>

enum { FOREIGN = -1 };
enum { MAX_DEPTH = 12, MAX_EXPONENT = 6, MAX_SINKS = 32, MAX_TENSORS = 16 };

/* What one equalized tensor flows into. channel[i]: which channel of the first tensor channel i of
 * the one being looked at is, or FOREIGN: another tensor's, behind a Concat. */
typedef struct sink {
    qn_node *node;          /* Conv that reads it */
    const int32_t *channel; /* [its input channels] */
} sink;

typedef struct flow {
    qn_graph *graph;
    const qn_uses *uses;
    size_t channels;
    size_t n_sinks, n_tensors;
    sink sinks[MAX_SINKS];
    qn_tensor *tensors[MAX_TENSORS]; /* scaled: the first, then what Mul and pools make of it */
    const int32_t *channel[MAX_TENSORS];
    size_t n_between; /* tensors inside shuffles: scaled too, 5-D */
    qn_tensor *between[2 * MAX_TENSORS];
} flow;

static bool channels_of(const qn_tensor *t, size_t *out)
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
static qn_node *match_shuffle(const flow *f, qn_node *first, size_t channels, size_t *a, size_t *b)
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
    if (third->op != QN_OP_RESHAPE || !channels_of(third->outputs[0], &out_channels) ||
        out_channels != channels)
        return NULL;
    return third;
}

static bool follow(flow *f, qn_tensor *t, const int32_t *channel, int depth);

static bool add_sink(flow *f, qn_node *node, const int32_t *channel)
{
    if (f->n_sinks == MAX_SINKS || node->n_inputs < 2 || !plain_constant(node->inputs[1]) ||
        qn_uses_count(f->uses, node->inputs[1]) != 1)
        return false;
    f->sinks[f->n_sinks++] = (sink){node, channel};
    return true;
}

static bool follow_shuffle(flow *f, qn_node *node, size_t channels, const int32_t *channel,
                           int depth)
{
    size_t a = 0, b = 0;
    qn_node *last = match_shuffle(f, node, channels, &a, &b);
    int32_t *moved =
        last == NULL ? NULL : qn__arena_calloc(&f->graph->arena, channels, sizeof(*moved));
    if (moved == NULL || f->n_between + 2 > 2 * MAX_TENSORS)
        return false;
    f->between[f->n_between++] = node->outputs[0];
    f->between[f->n_between++] = last->inputs[0];
    for (size_t i = 0; i < a; i++)
        for (size_t j = 0; j < b; j++)
            moved[j * a + i] = channel[i * b + j];
    return follow(f, last->outputs[0], moved, depth + 1);
}

static bool follow_concat(flow *f, const qn_node *node, const qn_tensor *t, size_t channels,
                          const int32_t *channel, int depth)
{
    const int64_t axis = qn__attr_int(node, "axis", 0);
    size_t all, before = 0, width;
    bool found = false;
    if ((axis != 1 && axis != -3) || node->act != QN_ACT_NONE ||
        !channels_of(node->outputs[0], &all))
        return false;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == t && found)
            return false; /* its channels twice */
        found |= node->inputs[i] == t;
        if (!found &&
            (!channels_of(node->inputs[i], &width) || !qn_add_size(&before, before, width)))
            return false;
    }
    int32_t *moved = qn__arena_calloc(&f->graph->arena, all, sizeof(*moved));
    if (moved == NULL || before > all || channels > all - before)
        return false;
    for (size_t c = 0; c < all; c++)
        moved[c] = c >= before && c < before + channels ? channel[c - before] : FOREIGN;
    return follow(f, node->outputs[0], moved, depth + 1);
}

static bool follow_node(flow *f, qn_node *node, const qn_tensor *t, size_t channels,
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
    case QN_OP_CONCAT:
        return follow_concat(f, node, t, channels, channel, depth);
    case QN_OP_RESHAPE:
        return node->inputs[0] == t && follow_shuffle(f, node, channels, channel, depth);
    default:
        return false;
    }
    if (node->n_outputs != 1 || !channels_of(node->outputs[0], &out_channels) ||
        out_channels != channels)
        return false;
    return follow(f, node->outputs[0], channel, depth + 1);
}

static bool follow(flow *f, qn_tensor *t, const int32_t *channel, int depth)
{
    size_t channels;
    if (depth > MAX_DEPTH || f->n_tensors == MAX_TENSORS || f->uses->is_output[t->id] ||
        !channels_of(t, &channels) || qn_uses_count(f->uses, t) == 0)
        return false;
    for (size_t i = 0; i < f->n_tensors; i++)
        if (f->tensors[i] == t)
            return false; /* both factors of a Mul: not linear */
    f->channel[f->n_tensors] = channel;
    f->tensors[f->n_tensors++] = t;
    for (size_t u = f->uses->offsets[t->id]; u < f->uses->offsets[t->id + 1]; u++)
        if (!follow_node(f, f->uses->users[u], t, channels, channel, depth))
            return false;
    return true;
}

/* The flow of a convolution's output; false when it cannot be equalized. */
static bool trace(qn_graph *g, const qn_uses *uses, qn_node *node, flow *out)
{
    *out = (flow){.graph = g, .uses = uses};
    if (node->op != QN_OP_CONV || node->act == QN_ACT_CLIP || node->n_inputs < 2 ||
        !plain_constant(node->inputs[1]) || qn_uses_count(uses, node->inputs[1]) != 1 ||
        (node->n_inputs > 2 && node->inputs[2] != NULL &&
         (!plain_constant(node->inputs[2]) || qn_uses_count(uses, node->inputs[2]) != 1)) ||
        !channels_of(node->outputs[0], &out->channels))
        return false;
    int32_t *channel = qn__arena_calloc(&g->arena, out->channels, sizeof(*channel));
    for (size_t c = 0; channel != NULL && c < out->channels; c++)
        channel[c] = (int32_t)c;
    return channel != NULL && follow(out, node->outputs[0], channel, 0) && out->n_sinks > 0;
}

/* --- exponents ---------------------------------------------------------------------------------*/
/* Input channel of weight i of a Conv: i runs over [O][I/group][kh][kw]. */
static size_t input_channel(const qn_weight_view *v, size_t group, size_t i)
{
    const size_t o = i / v->k, cin = v->k / v->positions;
    return o / (v->channels / group) * cin + i % v->k / v->positions;
}

/* How much of a reading row's range channel c takes, at most; 0 where only depthwise convolutions
 * read it, which have a scale per channel. */
static bool weight_share(flow *f, double *share)
{
    for (size_t s = 0; s < f->n_sinks; s++) {
        qn_weight_view v;
        size_t count;
        const float *w = qn__tensor_floats(f->graph, f->sinks[s].node->inputs[1], &count);
        if (w == NULL || !qn__weight_view(f->sinks[s].node, &v))
            return false;
        const size_t group = (size_t)qn__attr_int(f->sinks[s].node, "group", 1);
        if (v.k == v.positions)
            continue;
        for (size_t o = 0; o < v.channels; o++) {
            float row = 0;
            for (size_t k = 0; k < v.k; k++)
                row = fmaxf(row, fabsf(w[o * v.k + k]));
            for (size_t k = 0; row > 0 && k < v.k; k++) {
                const size_t i = input_channel(&v, group, o * v.k + k);
                const int32_t c = f->sinks[s].channel[i];
                double *to = c == FOREIGN ? NULL : &share[c];
                if (to != NULL)
                    *to = fmax(*to, (double)(fabsf(w[o * v.k + k]) / row));
            }
        }
    }
    return true;
}

/* e[c]: channel c is divided by 2^e[c]. Activations and weights share the gain: where a channel
 * fills A of its tensors' ranges and B of the rows that read it, dividing by A^p / B^(1-p) leaves
 * A^(1-p) B^(1-p) and (A B)^p. Weights have a scale per row and are rounded with care, so p is
 * above one half (0.5, 0.7 and 1 were compared on calibration pictures of MENet and SqueezeNet). */
#define ACTIVATION_PART 0.7

static bool choose(flow *f, float *const *peaks, size_t n_peaks, int32_t *e)
{
    double *share = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*share));
    double *fill = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*fill));
    size_t n_measured = 0;
    bool any = false, among_others = false;
    if (share == NULL || fill == NULL || !weight_share(f, share))
        return false;
    for (size_t i = 0; i < f->n_tensors; i++) {
        /* a tensor renamed by an earlier scaling was not measured */
        const float *p = f->tensors[i]->id < n_peaks ? peaks[f->tensors[i]->id] : NULL;
        float largest = 0, foreign = 0;
        size_t width = 0;
        if (p == NULL || !channels_of(f->tensors[i], &width))
            continue;
        for (size_t c = 0; c < width; c++) {
            largest = fmaxf(largest, p[c]);
            if (f->channel[i][c] == FOREIGN)
                foreign = fmaxf(foreign, p[c]);
        }
        if (!(largest > 0) || (foreign == 0 && among_others))
            continue;
        /* Beside another tensor's channels, in a Concat, theirs is the range to come to. */
        if (foreign > 0 && !among_others) {
            among_others = true;
            n_measured = 0;
            memset(fill, 0, f->channels * sizeof(*fill));
        }
        n_measured++;
        const float level = foreign > 0 ? foreign : largest;
        for (size_t c = 0; c < width; c++)
            if (f->channel[i][c] != FOREIGN)
                fill[f->channel[i][c]] += log2(fmax((double)(p[c] / level), 1e-6));
    }
    if (n_measured == 0)
        return false;
    for (size_t c = 0; c < f->channels; c++) {
        const double a = fill[c] / (double)n_measured;
        const double x =
            share[c] > 0 ? ACTIVATION_PART * a - (1 - ACTIVATION_PART) * log2(share[c]) : a;
        /* A channel that is (nearly) always zero stays what it is. */
        e[c] = a < -15 ? 0 : (int32_t)rint(fmax(-MAX_EXPONENT, fmin(MAX_EXPONENT, x)));
        any |= e[c] != 0;
    }
    return any;
}

/* --- applying ----------------------------------------------------------------------------------*/
static qn_status scale_constant(qn_graph *g, qn_tensor *t, const qn_node *node,
                                const int32_t *channel, const int32_t *e, qn_error *error)
{
    size_t count;
    qn_weight_view v;
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
        /* channel: reading weights are multiplied; without it, making ones are divided */
        int32_t shift = 0;
        if (channel == NULL)
            shift = -e[is_bias ? i : i / v.k];
        else if (channel[input_channel(&v, group, i)] != FOREIGN)
            shift = e[channel[input_channel(&v, group, i)]];
        ((float *)data)[i] = ldexpf(w[i], shift);
    }
    qn__tensor_set_constant(t, blob);
    qn__blob_unref(blob);
    return QN_OK;
}

/* A scaled tensor gets a name of its own: its values are no longer the ones the old name means. */
static qn_status rename_tensor(qn_graph *g, qn_tensor *t, qn_error *error)
{
    const char *name = qn__arena_printf(&g->arena, "%s_equalized", t->name);
    qn_tensor *fresh = name == NULL ? NULL : qn__graph_add_tensor(g, name, t->type);
    if (fresh == NULL)
        return QN_NOMEM(error);
    fresh->source = t->source;
    fresh->has_shape = t->has_shape;
    fresh->rank = t->rank;
    memcpy(fresh->dims, t->dims, sizeof(fresh->dims));
    qn__node_set_output(t->producer, t->producer_output, fresh);
    qn__graph_replace_uses(g, t, fresh);
    return QN_OK;
}

static qn_status apply(qn_graph *g, const flow *f, const int32_t *e, qn_error *error)
{
    qn_node *node = f->tensors[0]->producer;
    size_t bias_count;
    if (node->n_inputs > 2 && node->inputs[2] != NULL &&
        (!qn__tensor_count(node->inputs[2], &bias_count) || bias_count != f->channels))
        return QN_OK;
    QN_TRY(scale_constant(g, node->inputs[1], node, NULL, e, error));
    if (node->n_inputs > 2 && node->inputs[2] != NULL)
        QN_TRY(scale_constant(g, node->inputs[2], node, NULL, e, error));
    for (size_t s = 0; s < f->n_sinks; s++)
        QN_TRY(scale_constant(g, f->sinks[s].node->inputs[1], f->sinks[s].node, f->sinks[s].channel,
                              e, error));
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
        flow f;
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
        flow f;
        QN_TRY(qn__uses_build(graph, &uses, error));
        int32_t *e = NULL;
        qn_status status = QN_OK;
        if (trace(graph, &uses, graph->nodes[n], &f)) {
            const char *name = f.tensors[0]->name;
            e = list->exponents[n] != NULL && list->n_exponents[n] == f.channels
                    ? list->exponents[n]
                    : NULL;
            if (e == NULL && peaks != NULL) {
                e = qn__arena_calloc(&graph->arena, f.channels, sizeof(*e));
                if (e != NULL && !choose(&f, peaks, n_peaks, e))
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
