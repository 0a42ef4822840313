/* Floats that are rounded and clipped to what a byte holds become bytes, and a convolution between
 * two such tensors an integer one with the same results: Conv (whole weights and bias) -> Mul ->
 * Round -> Clip is how the integer operators of MNN's files of 2019 are read. For running only. */
#include "pass/pass.h"

#include <math.h>

#include "core/context.h"

typedef struct rewriter {
    qn_graph *graph;
    qn_uses uses;   /* of the graph as it was */
    qn_tensor **of; /* [n_tensors] the bytes of a tensor, once known */
    uint8_t *marks; /* by node id: goes away */
    size_t n_tensors;
    qn_error *error;
} rewriter;

/* A convolution's parts that go into the integer one. */
typedef struct product {
    qn_node *conv, *mul;
    const float *weights, *bias, *scales;
    size_t n_weights, n_scales, channels;
} product;

static bool whole(float x, float lo, float hi)
{
    return x >= lo && x <= hi && rintf(x) == x;
}

static bool bound_of(qn_graph *graph, const qn_node *clip, uint32_t slot, float *out)
{
    size_t count = 0;
    const qn_tensor *const t = qn_node_input(clip, slot);
    const float *const value =
        t != NULL && t->constant != NULL ? qn__tensor_floats(graph, t, &count) : NULL;
    if (value == NULL || count != 1 || !whole(value[0], INT8_MIN, INT8_MAX))
        return false;
    *out = value[0];
    return true;
}

static bool is_plain(const qn_node *node, qn_op op)
{
    return node != NULL && node->op == op && node->act == QN_ACT_NONE && node->n_inputs > 0 &&
           node->inputs[0] != NULL && node->inputs[0]->type.dtype == QN_DTYPE_F32 &&
           node->inputs[0]->type.kind == QN_TYPE_PLAIN && node->n_outputs > 0 &&
           node->outputs[0] != NULL;
}

static const float *constant(qn_graph *graph, const qn_tensor *t, size_t *count)
{
    const bool fits = t != NULL && t->constant != NULL && t->has_shape &&
                      t->type.kind == QN_TYPE_PLAIN && t->type.dtype == QN_DTYPE_F32;
    return fits ? qn__tensor_floats(graph, t, count) : NULL;
}

/* One number, or one per channel along axis 1, of a product of `rank` axes, which stay as many. */
static bool along_channels(const qn_tensor *scale, size_t count, size_t channels, size_t rank)
{
    if (count == 1)
        return scale->rank <= rank;
    return count == channels && scale->rank == rank && scale->dims[1].kind == QN_DIM_CONST &&
           (size_t)scale->dims[1].value == channels;
}

/* Sums that float32 holds exactly are those of integers. */
static bool sums_are_exact(const product *p)
{
    const size_t k = p->n_weights / p->channels;
    for (size_t c = 0; c < p->channels; c++) {
        double most = p->bias != NULL ? fabs((double)p->bias[c]) : 0.0;
        if (p->bias != NULL && !whole(p->bias[c], -0x1p24f, 0x1p24f))
            return false;
        for (size_t i = 0; i < k; i++) {
            const float w = p->weights[c * k + i];
            if (!whole(w, INT8_MIN, INT8_MAX))
                return false;
            most += 128.0 * fabs((double)w);
        }
        if (most >= 0x1p24)
            return false;
    }
    return true;
}

/* Is `sum` what a convolution of known bytes makes, times a scale? */
static bool find_product(const rewriter *r, const qn_tensor *sum, product *p)
{
    size_t n_bias = 0;
    p->mul = qn__pass_sole_producer(&r->uses, sum);
    if (!is_plain(p->mul, QN_OP_MUL) || p->mul->n_inputs != 2)
        return false;
    p->scales = constant(r->graph, p->mul->inputs[1], &p->n_scales);
    p->conv = qn__pass_sole_producer(&r->uses, p->mul->inputs[0]);
    if (p->scales == NULL || !is_plain(p->conv, QN_OP_CONV) || p->conv->n_inputs < 2)
        return false;
    const qn_tensor *const x = p->conv->inputs[0], *const w = p->conv->inputs[1];
    const qn_tensor *const b = p->conv->n_inputs > 2 ? p->conv->inputs[2] : NULL;
    p->weights = constant(r->graph, w, &p->n_weights);
    p->bias = constant(r->graph, b, &n_bias);
    if (x->id >= r->n_tensors || r->of[x->id] == NULL || p->weights == NULL || w->rank < 3 ||
        p->n_weights == 0 || (b != NULL && p->bias == NULL))
        return false;
    p->channels = (size_t)w->dims[0].value;
    if ((b != NULL && n_bias != p->channels) ||
        !along_channels(p->mul->inputs[1], p->n_scales, p->channels, w->rank))
        return false;
    for (size_t i = 0; i < p->n_scales; i++)
        if (!(p->scales[i] > 0.0f) || !isfinite(p->scales[i]))
            return false;
    return sums_are_exact(p);
}

/* Constant of integers whose steps are the scales. */
static qn_status add_integers(const rewriter *r, const product *p, const qn_tensor *from,
                              const float *values, size_t count, qn_dtype dtype, qn_tensor **out)
{
    qn_graph *const graph = r->graph;
    const bool bytes = dtype == QN_DTYPE_I8;
    const qn_quant quant = {.bits = bytes ? 8 : 32,
                            .is_signed = true,
                            .axis = p->n_scales > 1 ? 0 : -1,
                            .qmin = bytes ? INT8_MIN : INT32_MIN,
                            .qmax = bytes ? INT8_MAX : INT32_MAX,
                            .n_scales = p->n_scales,
                            .scales = p->scales};
    int64_t dims[QN_MAX_RANK];
    void *data = NULL;
    size_t size;
    if (!qn__tensor_static_dims(from, dims) || !qn__dtype_bytes(&size, dtype, count))
        return QN_NOMEM(r->error);
    const char *const name = qn__arena_printf(&graph->arena, "%s_quantized", from->name);
    const qn_quant *const kept = qn__graph_quant(graph, &quant);
    qn_blob *const blob = qn__blob_create(graph->ctx, size, &data);
    *out = NULL;
    if (name != NULL && kept != NULL && blob != NULL) {
        for (size_t i = 0; i < count; i++)
            qn__store_int(data, dtype, i, (int64_t)values[i]);
        *out = qn__graph_add_constant(graph, name, qn_type_quant_make(dtype, kept), from->rank,
                                      dims, blob);
    }
    qn__blob_unref(blob);
    return *out != NULL ? QN_OK : QN_NOMEM(r->error);
}

static qn_status add_cast(const rewriter *r, qn_op op, qn_tensor *from, qn_tensor *to,
                          const qn_tensor *named_for)
{
    return qn__graph_add_between(r->graph, SIZE_MAX, op, from, to, named_for) != NULL
               ? QN_OK
               : QN_NOMEM(r->error);
}

static qn_status make_integer(const rewriter *r, const product *p, qn_tensor *bytes)
{
    qn_node *const conv = p->conv;
    qn_tensor *w, *b = NULL;
    QN_TRY(add_integers(r, p, conv->inputs[1], p->weights, p->n_weights, QN_DTYPE_I8, &w));
    if (p->bias != NULL)
        QN_TRY(add_integers(r, p, conv->inputs[2], p->bias, p->channels, QN_DTYPE_I32, &b));
    conv->inputs[0] = r->of[conv->inputs[0]->id];
    conv->inputs[1] = w;
    if (b != NULL)
        conv->inputs[2] = b;
    r->marks[p->mul->id] = 1;
    qn__node_set_output(conv, 0, bytes);
    return QN_OK;
}

/* clip: of what a Round makes, to whole numbers. */
static qn_status rewrite(rewriter *r, qn_node *clip, qn_node *round, float lo, float hi)
{
    static const float one = 1.0f;
    const qn_quant levels = {.bits = 8,
                             .is_signed = true,
                             .axis = -1,
                             .qmin = (int32_t)lo,
                             .qmax = (int32_t)hi,
                             .n_scales = 1,
                             .scales = &one};
    qn_graph *const graph = r->graph;
    qn_tensor *const y = clip->outputs[0], *const sum = round->inputs[0];
    const qn_quant *const kept = qn__graph_quant(graph, &levels);
    qn_tensor *const bytes =
        kept != NULL
            ? qn__graph_add_twin(graph, y, "quantized", qn_type_quant_make(QN_DTYPE_I8, kept))
            : NULL;
    product p = {0};
    if (bytes == NULL)
        return QN_NOMEM(r->error);
    r->of[y->id] = bytes;
    r->marks[clip->id] = r->marks[round->id] = 1;
    qn__node_set_output(clip, 0, NULL);
    QN_TRY(add_cast(r, QN_OP_DEQUANTIZE_LINEAR, bytes, y, y));
    return find_product(r, sum, &p) ? make_integer(r, &p, bytes)
                                    : add_cast(r, QN_OP_QUANTIZE_LINEAR, sum, bytes, y);
}

static qn_status rewrite_all(rewriter *r)
{
    qn_graph *const graph = r->graph;
    const size_t n_nodes = graph->n_nodes;
    bool any = false;
    for (size_t i = 0; i < n_nodes; i++) {
        qn_node *const clip = graph->nodes[i];
        float lo, hi;
        if (!is_plain(clip, QN_OP_CLIP) || !bound_of(graph, clip, 1, &lo) ||
            !bound_of(graph, clip, 2, &hi) || !(lo <= 0.0f && hi >= 0.0f && lo < hi))
            continue;
        qn_node *const round = qn__pass_sole_producer(&r->uses, clip->inputs[0]);
        if (!is_plain(round, QN_OP_ROUND))
            continue;
        QN_TRY(rewrite(r, clip, round, lo, hi));
        any = true;
    }
    if (!any)
        return QN_OK;
    qn__graph_remove_marked(graph, r->marks);
    return qn__graph_sort(graph, r->error);
}

qn_status qn__whole_numbers_to_bytes(qn_graph *graph, qn_error *error)
{
    const qn_context *const ctx = graph->ctx;
    rewriter r = {.graph = graph, .n_tensors = graph->n_tensors, .error = error};
    QN_TRY(qn__uses_build(graph, &r.uses, error));
    r.of = qn__calloc(ctx, graph->n_tensors + 1, sizeof(*r.of));
    /* each Clip that goes away makes at most two nodes */
    r.marks = qn__calloc(ctx, (size_t)graph->next_node_id + 2 * graph->n_nodes + 1, 1);
    const qn_status status = r.of != NULL && r.marks != NULL ? rewrite_all(&r) : QN_NOMEM(error);
    qn__free(ctx, r.of);
    qn__free(ctx, r.marks);
    qn__uses_free(&r.uses);
    return status;
}
