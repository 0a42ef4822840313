/* Integers of weights: scale per channel or tensor, narrowed where the saturation proof asks. */
#include "quant/quant.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { QMAX = 127, SEARCH_STEPS = 14 };

#define QN_WEIGHT_METHOD(symbol) extern const qn_weight_method qn__weight_##symbol;
#include "quant/weights.def"
#undef QN_WEIGHT_METHOD

static const qn_weight_method *const methods[] = {
#define QN_WEIGHT_METHOD(symbol) &qn__weight_##symbol,
#include "quant/weights.def"
#undef QN_WEIGHT_METHOD
};

const qn_weight_method *qn__weight_method_at(size_t index)
{
    return index < sizeof(methods) / sizeof(methods[0]) ? methods[index] : NULL;
}

const qn_weight_method *qn__weight_method_find(const char *name)
{
    for (size_t i = 0; qn__weight_method_at(i) != NULL; i++)
        if (strcmp(methods[i]->name, name) == 0)
            return methods[i];
    return NULL;
}

bool qn__weight_view(const qn_node *node, qn_weight_view *out)
{
    int64_t dims[QN_MAX_RANK];
    const qn_tensor *w = node->inputs[1];
    size_t count;
    if (!w->has_shape || !qn__tensor_static_dims(w, dims) || !qn__tensor_count(w, &count) ||
        count == 0)
        return false;
    *out = (qn_weight_view){.positions = 1, .pairs = true};
    if (node->op == QN_OP_CONV) {
        if (w->rank < 3)
            return false;
        const int64_t group = qn__attr_int(node, "group", 1);
        out->channels = (size_t)dims[0];
        out->k = count / out->channels;
        out->positions = out->k / (size_t)dims[1];
        out->stride_c = out->k;
        out->stride_k = 1;
        /* One input and one output channel per group: the runtime's own exact loop, no pairs. */
        out->pairs = !(dims[1] == 1 && group > 1 && dims[0] == group);
        return true;
    }
    if (w->rank != 2)
        return false;
    const bool transposed = node->op == QN_OP_GEMM && qn__attr_int(node, "transB", 0) != 0;
    out->channels = (size_t)dims[transposed ? 0 : 1];
    out->k = (size_t)dims[transposed ? 1 : 0];
    out->stride_c = transposed ? out->k : 1;
    out->stride_k = transposed ? 1 : out->channels;
    return true;
}

/* One channel's weights in a row: values [k]. */
static void gather(const qn_weight_view *v, const float *w, size_t c, float *values)
{
    for (size_t i = 0; i < v->k; i++)
        values[i] = w[c * v->stride_c + i * v->stride_k];
}

static void quantize_row(const float *values, size_t k, float scale, int8_t *q)
{
    for (size_t i = 0; i < k; i++)
        q[i] = (int8_t)qn__quantize_value(values[i], scale, 0, -QMAX, QMAX);
}

typedef struct rows {
    const qn_weight_view *view;
    float *values; /* [channels * k] */
    int8_t *q;     /* [channels * k] */
} rows;

static bool channel_safe(const rows *r, size_t c, float scale)
{
    const size_t k = r->view->k;
    quantize_row(r->values + c * k, k, scale, r->q + c * k);
    return qn__pairs_safe_adjacent(r->q + c * k, k, r->view->positions);
}

static bool range_safe(const rows *r, size_t first, size_t count, float scale)
{
    for (size_t c = first; c < first + count; c++)
        if (!channel_safe(r, c, scale))
            return false;
    return true;
}

/* Smallest scale, to 1 part in 2^14, at which the channels are safe. Twice the scale halves every
 * weight to at most 64, which is safe by itself. */
static float narrow(const rows *r, size_t first, size_t count, float scale)
{
    float bad = scale, good = scale * 2.0f;
    for (int step = 0; step < SEARCH_STEPS; step++) {
        const float middle = bad + (good - bad) * 0.5f;
        if (range_safe(r, first, count, middle))
            good = middle;
        else
            bad = middle;
    }
    return good;
}

static bool usable(float scale)
{
    return scale >= FLT_MIN && isfinite(scale);
}

/* Channels without weights take the layer's smallest scale: positive, and small enough for their
 * bias to keep its digits. */
static void fill_empty(float *scales, size_t channels)
{
    float smallest = INFINITY;
    for (size_t c = 0; c < channels; c++)
        if (usable(scales[c]))
            smallest = fminf(smallest, scales[c]);
    if (!isfinite(smallest))
        smallest = 1.0f;
    for (size_t c = 0; c < channels; c++)
        if (!usable(scales[c]))
            scales[c] = smallest;
}

qn_status qn__quantize_weights(const qn_context *ctx, const qn_weight_view *view, const float *w,
                               const float *min_scale, bool prove_pairs, qn_weights_plan *plan,
                               float *scales, int8_t *q, qn_error *error)
{
    const size_t channels = view->channels, k = view->k;
    rows r = {view, qn__reallocarray(ctx, NULL, channels * k, sizeof(float)),
              qn__alloc(ctx, channels * k)};
    if (r.values == NULL || r.q == NULL) {
        qn__free(ctx, r.values);
        qn__free(ctx, r.q);
        return QN_NOMEM(error);
    }
    for (size_t c = 0; c < channels; c++)
        gather(view, w, c, r.values + c * k);
    const size_t group = plan->per_channel ? 1 : channels;
    for (size_t c = 0; c < channels; c += group) {
        const float s = plan->method->clip(r.values + c * k, group * k, QMAX) / (float)QMAX;
        for (size_t i = c; i < c + group; i++)
            scales[i] = s;
    }
    fill_empty(scales, channels);
    plan->saturates = false;
    plan->n_narrowed = 0;
    for (size_t c = 0; c < channels; c += group) {
        float s = scales[c];
        for (size_t i = c; min_scale != NULL && i < c + group; i++)
            s = fmaxf(s, min_scale[i]);
        if (view->pairs && !range_safe(&r, c, group, s)) {
            plan->saturates = true;
            if (prove_pairs) {
                s = narrow(&r, c, group, s);
                plan->n_narrowed += group;
            }
        }
        for (size_t i = c; i < c + group; i++) {
            scales[i] = s;
            quantize_row(r.values + i * k, k, s, r.q + i * k);
            for (size_t j = 0; j < k; j++)
                q[i * view->stride_c + j * view->stride_k] = r.q[i * k + j];
        }
    }
    plan->bits = plan->n_narrowed > 0 ? 7 : 8;
    qn__free(ctx, r.values);
    qn__free(ctx, r.q);
    return QN_OK;
}

const char *qn_weight_method_name(size_t index)
{
    const qn_weight_method *m = qn__weight_method_at(index);
    return m == NULL ? NULL : m->name;
}

const char *qn_weight_method_summary(size_t index)
{
    const qn_weight_method *m = qn__weight_method_at(index);
    return m == NULL ? NULL : m->summary;
}
