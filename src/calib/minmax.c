/* The range seen, as it is. */
#include "calib/calib.h"
#include "calib/scan.h"
#include "calib/stats_wire.h"

#include <math.h>

typedef struct state {
    float lo, hi;
    uint64_t count;
} state;

static size_t state_bytes(void)
{
    return sizeof(state);
}

static void init(void *p)
{
    *(state *)p = (state){INFINITY, -INFINITY, 0};
}

static qn_status observe(const qn_context *ctx, void *p, uint32_t pass, uint64_t sample,
                         const float *values, size_t count, qn_error *error)
{
    (void)pass, (void)sample;
    state *s = p;
    QN_TRY(qn__scan_range(ctx, values, count, &s->lo, &s->hi, error));
    s->count += count;
    return QN_OK;
}

static qn_status merge(const qn_context *ctx, void *into, const void *from, qn_error *error)
{
    (void)ctx, (void)error;
    state *a = into;
    const state *b = from;
    a->lo = b->lo < a->lo ? b->lo : a->lo;
    a->hi = b->hi > a->hi ? b->hi : a->hi;
    a->count += b->count;
    return QN_OK;
}

static qn_status finish(const qn_context *ctx, const void *p, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error)
{
    (void)ctx, (void)format, (void)batch, (void)error;
    const state *s = p;
    *out = (qn_range){.valid = s->count > 0, .count = s->count};
    if (out->valid) {
        out->lo = out->seen_lo = s->lo;
        out->hi = out->seen_hi = s->hi;
    }
    return QN_OK;
}

static void release(const qn_context *ctx, void *p)
{
    (void)ctx, (void)p;
}

static void save(const qn_context *ctx, const void *p, qn_strbuf *buf)
{
    (void)ctx;
    const state *s = p;
    qn__put_varint(buf, s->count);
    if (s->count == 0)
        return;
    qn__put_f32(buf, s->lo);
    qn__put_f32(buf, s->hi);
}

static qn_status load(const qn_context *ctx, void *p, qn_qnm_cursor *from, qn_error *error)
{
    (void)ctx, (void)error;
    state *s = p;
    s->count = qn__get_varint(from);
    if (s->count == 0 || from->failed)
        return QN_OK;
    s->lo = qn_qnm_f32(from);
    s->hi = qn_qnm_f32(from);
    from->failed |= !isfinite(s->lo) || !isfinite(s->hi) || s->lo > s->hi;
    return QN_OK;
}

const qn_feature_method qn__feature_minmax = {
    .name = "minmax",
    .summary = "smallest and largest value seen",
    .passes = 1,
    .state_bytes = state_bytes,
    .init = init,
    .observe = observe,
    .merge = merge,
    .finish = finish,
    .release = release,
    .state_kind = "range",
    .save = save,
    .load = load,
};
