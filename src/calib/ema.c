/* Moving range by batch: the first batch sets the range, each later one moves it by 1 % (the
 * constant onnxruntime's CalibMovingAverage and MNN's EMA use). Ordered: every sample's own range
 * is kept and reduced by sample index when finishing, so that threads do not show. */
#include "calib/calib.h"
#include "calib/scan.h"
#include "calib/stats_wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOVING_CONSTANT 0.01

typedef struct entry {
    uint64_t sample;
    float lo, hi;
} entry;

typedef struct state {
    entry *items;
    size_t n_items, capacity;
    uint64_t count;
} state;

static size_t state_bytes(void)
{
    return sizeof(state);
}

static void init(void *p)
{
    *(state *)p = (state){0};
}

static qn_status observe(const qn_context *ctx, void *p, uint32_t pass, uint64_t sample,
                         const float *values, size_t count, qn_error *error)
{
    (void)pass;
    state *s = p;
    entry e = {sample, INFINITY, -INFINITY};
    QN_TRY(qn__scan_range(ctx, values, count, &e.lo, &e.hi, error));
    if (count == 0)
        return QN_OK;
    if (!QN_GROW(ctx, &s->items, &s->capacity, s->n_items))
        return QN_NOMEM(error);
    s->items[s->n_items++] = e;
    s->count += count;
    return QN_OK;
}

static qn_status merge(const qn_context *ctx, void *into, const void *from, qn_error *error)
{
    state *a = into;
    const state *b = from;
    for (size_t i = 0; i < b->n_items; i++) {
        if (!QN_GROW(ctx, &a->items, &a->capacity, a->n_items))
            return QN_NOMEM(error);
        a->items[a->n_items++] = b->items[i];
    }
    a->count += b->count;
    return QN_OK;
}

static int by_sample(const void *a, const void *b)
{
    const uint64_t x = ((const entry *)a)->sample, y = ((const entry *)b)->sample;
    return x < y ? -1 : x > y;
}

/* A copy in order of samples, freed with qn__free; NULL: out of memory. */
static entry *sorted_copy(const qn_context *ctx, const state *s)
{
    entry *sorted = qn__reallocarray(ctx, NULL, s->n_items, sizeof(*sorted));
    if (sorted == NULL)
        return NULL;
    memcpy(sorted, s->items, s->n_items * sizeof(*sorted));
    qsort(sorted, s->n_items, sizeof(*sorted), by_sample);
    return sorted;
}

static void reduce(const entry *items, size_t n_items, uint64_t batch, qn_range *out)
{
    double lo = 0, hi = 0;
    bool first = true;
    for (size_t i = 0; i < n_items;) {
        const uint64_t group = items[i].sample / batch;
        double batch_lo = items[i].lo, batch_hi = items[i].hi;
        for (; i < n_items && items[i].sample / batch == group; i++) {
            batch_lo = fmin(batch_lo, items[i].lo);
            batch_hi = fmax(batch_hi, items[i].hi);
        }
        lo = first ? batch_lo : lo + MOVING_CONSTANT * (batch_lo - lo);
        hi = first ? batch_hi : hi + MOVING_CONSTANT * (batch_hi - hi);
        first = false;
    }
    out->lo = (float)lo;
    out->hi = (float)hi;
}

static qn_status finish(const qn_context *ctx, const void *p, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error)
{
    (void)format;
    const state *s = p;
    *out = (qn_range){.valid = s->n_items > 0, .count = s->count};
    if (s->n_items == 0)
        return QN_OK;
    entry *sorted = sorted_copy(ctx, s);
    if (sorted == NULL)
        return QN_NOMEM(error);
    out->seen_lo = INFINITY;
    out->seen_hi = -INFINITY;
    for (size_t i = 0; i < s->n_items; i++) {
        out->seen_lo = fminf(out->seen_lo, sorted[i].lo);
        out->seen_hi = fmaxf(out->seen_hi, sorted[i].hi);
    }
    reduce(sorted, s->n_items, batch > 0 ? (uint64_t)batch : 1, out);
    qn__free(ctx, sorted);
    return QN_OK;
}

static void release(const qn_context *ctx, void *p)
{
    qn__free(ctx, ((state *)p)->items);
}

static void save(const qn_context *ctx, const void *p, qn_strbuf *buf)
{
    const state *s = p;
    uint64_t last = 0;
    qn__put_varint(buf, s->n_items);
    if (s->n_items == 0)
        return;
    entry *sorted = sorted_copy(ctx, s);
    buf->failed |= sorted == NULL;
    for (size_t i = 0; sorted != NULL && i < s->n_items; i++) {
        qn__put_varint(buf, sorted[i].sample - last);
        qn__put_f32(buf, sorted[i].lo);
        qn__put_f32(buf, sorted[i].hi);
        last = sorted[i].sample;
    }
    qn__put_varint(buf, s->count);
    qn__free(ctx, sorted);
}

static qn_status load(const qn_context *ctx, void *p, qn_qnm_cursor *from, qn_error *error)
{
    enum { LEAST_BYTES = 9 }; /* of an entry */
    state *s = p;
    uint64_t last = 0;
    const uint64_t n = qn__get_varint(from);
    if (n == 0 || !qn_qnm_fits(from, (size_t)n, LEAST_BYTES)) {
        from->failed |= n > 0;
        return QN_OK;
    }
    s->items = qn__reallocarray(ctx, NULL, (size_t)n, sizeof(*s->items));
    if (s->items == NULL)
        return QN_NOMEM(error);
    s->capacity = s->n_items = (size_t)n;
    for (size_t i = 0; i < n; i++) {
        const uint64_t gap = qn__get_varint(from);
        entry *e = &s->items[i];
        *e = (entry){.sample = last + gap};
        e->lo = qn_qnm_f32(from);
        e->hi = qn_qnm_f32(from);
        from->failed |= (i > 0 && gap == 0) || e->sample < last || !isfinite(e->lo) ||
                        !isfinite(e->hi) || e->lo > e->hi;
        last = e->sample;
    }
    s->count = qn__get_varint(from);
    return QN_OK;
}

const qn_feature_method qn__feature_ema = {
    .name = "ema",
    .summary = "range moving by 1 % per batch (onnxruntime's CalibMovingAverage)",
    .passes = 1,
    .ordered = true,
    .state_bytes = state_bytes,
    .init = init,
    .observe = observe,
    .merge = merge,
    .finish = finish,
    .release = release,
    .state_kind = "ranges by sample",
    .save = save,
    .load = load,
};
