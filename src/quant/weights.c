/* Integers of weights: scale per channel or tensor, narrowed where the saturation proof asks. */
#include "core/threads.h"
#include "quant/quant.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { SEARCH_STEPS = 8, MAX_DOUBTFUL = 256 };

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

typedef struct rows {
    const qn_weight_view *view;
    const qn_levels *levels;
    float *values; /* [channels * k] */
    int8_t *q;     /* [channels * k] */
} rows;

typedef struct doubtful {
    size_t n;
    float values[2 * MAX_DOUBTFUL]; /* the pairs' */
} doubtful;

static bool channel_safe(const rows *r, size_t c, float scale)
{
    const size_t k = r->view->k;
    qn__levels_round(r->levels, r->values + c * k, k, scale, r->q + c * k);
    return qn__pairs_safe_adjacent(r->q + c * k, k, r->view->positions);
}

static bool range_safe(const rows *r, size_t first, size_t count, float scale)
{
    for (size_t c = first; c < first + count; c++)
        if (!channel_safe(r, c, scale))
            return false;
    return true;
}

/* The larger of the sums of the positive and of the negative ones. */
static inline float pair_sum(float a, float b)
{
    const float up = (a > 0 ? a : 0) + (b > 0 ? b : 0);
    const float down = (a < 0 ? -a : 0) + (b < 0 ? -b : 0);
    return up > down ? up : down;
}

/* Weight i of a channel in the runtime's order: channels are innermost there, positions here. */
static inline float weight_at(const float *w, size_t i, size_t positions, size_t cin)
{
    return positions == 1 ? w[i] : w[i % cin * positions + i / cin];
}

/* Largest sum of the weights of one sign in a pair of the channels. */
static float largest_pair(const rows *r, size_t first, size_t count)
{
    const size_t k = r->view->k, positions = r->view->positions, cin = k / positions;
    float largest = 0;
    for (size_t c = first; c < first + count; c++) {
        const float *w = r->values + c * k;
        for (size_t i = 0; i + 1 < k; i += 2) {
            const float pair =
                pair_sum(weight_at(w, i, positions, cin), weight_at(w, i + 1, positions, cin));
            largest = pair > largest ? pair : largest;
        }
    }
    return largest;
}

/* Pairs of the channels that can be unsafe at `scale` or above: rounding to steps moves the sum of
 * one by one step at most. False: too many to list. */
static bool list_doubtful(const rows *r, size_t first, size_t count, float scale, doubtful *out)
{
    const size_t k = r->view->k, positions = r->view->positions, cin = k / positions;
    const float least = 127.0f * scale;
    out->n = 0;
    for (size_t c = first; c < first + count; c++) {
        const float *w = r->values + c * k;
        for (size_t i = 0; i + 1 < k; i += 2) {
            const float a = weight_at(w, i, positions, cin),
                        b = weight_at(w, i + 1, positions, cin);
            if (pair_sum(a, b) < least)
                continue;
            if (out->n == MAX_DOUBTFUL)
                return false;
            out->values[2 * out->n] = a;
            out->values[2 * out->n++ + 1] = b;
        }
    }
    return r->levels->set == QN_LEVELS_UNIFORM;
}

static bool still_safe(const rows *r, size_t first, size_t count, const doubtful *few, float scale)
{
    int8_t q[2 * MAX_DOUBTFUL];
    if (few == NULL)
        return range_safe(r, first, count, scale);
    qn__levels_round(r->levels, few->values, 2 * few->n, scale, q);
    return qn__pairs_safe_adjacent(q, 2 * few->n, 1);
}

/* Smallest scale, to 1 part in 2^13, at which the channels are safe. Rounding moves a pair's sum by
 * one step at most, so the scale lies between 1/129 and 1/127 of the largest pair (with a margin
 * for the rounding of these numbers themselves). Twice the scale halves every weight to at most 64,
 * which is safe by itself. */
static float narrow(const rows *r, size_t first, size_t count, float scale)
{
    doubtful list;
    const doubtful *few = list_doubtful(r, first, count, scale, &list) ? &list : NULL;
    const float pair = largest_pair(r, first, count);
    float bad = fmaxf(scale, pair / 129.5f), good = fminf(pair / 126.5f, scale * 2.0f);
    if (bad > good || !still_safe(r, first, count, few, good)) {
        bad = scale;
        good = scale * 2.0f;
    }
    for (int step = 0; step < SEARCH_STEPS; step++) {
        const float middle = bad + (good - bad) * 0.5f;
        if (still_safe(r, first, count, few, middle))
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

/* Groups of channels that share a scale are quantized by different threads. */
typedef struct job {
    const qn_context *ctx;
    rows rows;
    const float *w, *min_scale;
    bool prove_pairs;
    size_t group; /* channels of one scale */
    const qn_weight_method *method;
    float *scales;
    int8_t *q;
    uint8_t *saturates; /* [groups] */
    uint8_t *failed;    /* [groups] out of memory */
} job;

static void choose_scale(void *arg, size_t index)
{
    const job *j = arg;
    const size_t first = index * j->group, k = j->rows.view->k;
    for (size_t c = first; c < first + j->group; c++)
        gather(j->rows.view, j->w, c, j->rows.values + c * k);
    float s = 0;
    if (!j->method->scale(j->ctx, j->rows.values + first * k, j->group * k, j->rows.levels, &s))
        j->failed[index] = 1;
    for (size_t c = first; c < first + j->group; c++)
        j->scales[c] = s;
}

static void quantize_group(void *arg, size_t index)
{
    const job *j = arg;
    const qn_weight_view *view = j->rows.view;
    const size_t first = index * j->group, k = view->k;
    float s = j->scales[first];
    for (size_t c = first; j->min_scale != NULL && c < first + j->group; c++)
        s = fmaxf(s, j->min_scale[c]);
    bool rounded = false;
    if (view->pairs) {
        rounded = range_safe(&j->rows, first, j->group, s);
        j->saturates[index] = !rounded;
        if (!rounded && j->prove_pairs)
            s = narrow(&j->rows, first, j->group, s);
    }
    for (size_t c = first; c < first + j->group; c++) {
        int8_t *row = j->rows.q + c * k;
        j->scales[c] = s;
        if (!rounded)
            qn__levels_round(j->rows.levels, j->rows.values + c * k, k, s, row);
        for (size_t i = 0; i < k; i++)
            j->q[c * view->stride_c + i * view->stride_k] = row[i];
    }
}

qn_status qn__quantize_weights(const qn_context *ctx, const qn_weight_view *view, const float *w,
                               const float *min_scale, bool prove_pairs, qn_weights_plan *plan,
                               float *scales, int8_t *q, qn_error *error)
{
    const size_t channels = view->channels, k = view->k;
    job j = {.ctx = ctx,
             .rows = {view, &plan->levels, qn__reallocarray(ctx, NULL, channels * k, sizeof(float)),
                      qn__alloc(ctx, channels * k)},
             .w = w,
             .min_scale = min_scale,
             .prove_pairs = prove_pairs,
             .group = plan->per_channel ? 1 : channels,
             .method = plan->method,
             .scales = scales,
             .q = q};
    const size_t n_groups = channels / j.group;
    qn_status status = QN_OK;
    j.saturates = qn__calloc(ctx, n_groups, 1);
    j.failed = qn__calloc(ctx, n_groups, 1);
    if (j.rows.values == NULL || j.rows.q == NULL || j.saturates == NULL || j.failed == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    qn__parallel(ctx->pool, choose_scale, &j, n_groups);
    for (size_t i = 0; i < n_groups; i++)
        if (j.failed[i])
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    fill_empty(scales, channels);
    qn__parallel(ctx->pool, quantize_group, &j, n_groups);
    size_t n_saturating = 0;
    for (size_t i = 0; i < n_groups; i++)
        n_saturating += j.saturates[i];
    plan->saturates = n_saturating > 0;
    plan->n_narrowed = prove_pairs ? n_saturating * j.group : 0;
    plan->bits = plan->n_narrowed > 0 ? 7 : plan->levels.bits;
done:
    qn__free(ctx, j.saturates);
    qn__free(ctx, j.failed);
    qn__free(ctx, j.rows.values);
    qn__free(ctx, j.rows.q);
    return status;
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
