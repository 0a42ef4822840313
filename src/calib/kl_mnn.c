/* MNN's KL calibration as its quantized.out does it, to the bit of its float32 arithmetic: 2,048
 * bins over [0, max |x|] in a second pass over the data, values of at most 1e-6 not counted, the
 * rest of the histogram added to P's last bin but not to Q. Tensors of fewer than 100 positions
 * keep their maximum. Partial statistics with different maxima cannot be added. */
#include "calib/histogram.h"
#include "calib/scan.h"

#include <math.h>
#include <string.h>

enum {
    MNN_BINS = 2048,
    TARGET_BINS = 128,
    SMALL_POSITIONS = 100,
    F32_COUNT_LIMIT = 1 << 24,
    CHUNK = 64,
    IDLE_SLOTS = 8
};
#define SMALL_VALUE 1e-6f
#define SMALL_MAX 1e-5f

typedef struct state {
    float lo, hi;
    uint64_t count;
    float max_abs; /* < 0: pass 0 */
    uint64_t bins[MNN_BINS + IDLE_SLOTS];
} state;

static size_t state_bytes(void)
{
    return sizeof(state);
}

static void init(void *p)
{
    state *s = p;
    memset(s, 0, sizeof(*s));
    s->lo = INFINITY;
    s->hi = -INFINITY;
    s->max_abs = -1;
}

/* Bin of each value; those that are not counted go to slots behind the bins, several of them, so
 * that runs of zeros do not wait for each other. */
static void slots_of(const float *restrict values, size_t n, float interval,
                     int32_t *restrict slots)
{
    for (int32_t j = 0; j < (int32_t)n; j++) {
        const float v = fabsf(values[j]), bin = v * interval;
        const float last = (float)(MNN_BINS - 1);
        const int32_t slot = (int32_t)(bin < last ? bin : last);
        slots[j] = v > SMALL_VALUE ? slot : MNN_BINS + (j & (IDLE_SLOTS - 1));
    }
}

static qn_status observe(const qn_context *ctx, void *p, uint32_t pass, uint64_t sample,
                         const float *values, size_t count, qn_error *error)
{
    (void)sample;
    state *s = p;
    if (pass == 0) {
        QN_TRY(qn__scan_range(ctx, values, count, &s->lo, &s->hi, error));
        s->count += count;
        return QN_OK;
    }
    if (s->max_abs <= SMALL_MAX)
        return QN_OK;
    const float interval = (float)MNN_BINS / s->max_abs;
    for (size_t i = 0; i < count; i += CHUNK) {
        int32_t slots[CHUNK];
        const size_t n = count - i < CHUNK ? count - i : CHUNK;
        slots_of(values + i, n, interval, slots);
        for (size_t j = 0; j < n; j++)
            s->bins[slots[j]]++;
    }
    return QN_OK;
}

static qn_status between_passes(const qn_context *ctx, void *p, qn_error *error)
{
    (void)ctx, (void)error;
    state *s = p;
    s->max_abs = s->count > 0 ? fmaxf(fabsf(s->lo), fabsf(s->hi)) : 0;
    return QN_OK;
}

static qn_status merge(const qn_context *ctx, void *into, const void *from, qn_error *error)
{
    (void)ctx;
    state *a = into;
    const state *b = from;
    const bool fresh = a->max_abs < 0 && a->count == 0;
    QN_FAIL_IF(!fresh && a->max_abs != b->max_abs, error, QN_STATE,
               "histograms over [0, %g] and [0, %g] cannot be added", (double)a->max_abs,
               (double)b->max_abs);
    a->max_abs = b->max_abs;
    a->lo = fminf(a->lo, b->lo);
    a->hi = fmaxf(a->hi, b->hi);
    /* After the first pass every state carries the whole count. */
    a->count = b->max_abs < 0 ? a->count + b->count : b->count;
    for (size_t i = 0; i < MNN_BINS; i++)
        a->bins[i] += b->bins[i];
    return QN_OK;
}

/* A float32 counter that starts at 1e-7 and is incremented n times. */
static float counter(uint64_t n)
{
    if (n < 2)
        return 1e-7f + (float)n;
    return n > F32_COUNT_LIMIT ? (float)F32_COUNT_LIMIT : (float)n;
}

/* Mass of h in [j * w, (j + 1) * w), partial bins by their overlap; with spread set, *spread of the
 * mass over the interval is written to q instead. */
static void spread_group(const float *h, size_t i, size_t j, float *q)
{
    const float w = (float)i / (float)TARGET_BINS;
    const float start = (float)j * w, end = start + w;
    const size_t left = (size_t)ceilf(start), right = (size_t)floorf(end);
    const float left_share = (float)left - start, right_share = end - (float)right;
    float mass = 0, filled = 0;
    if (left_share > 0 && left > 0) {
        mass += left_share * h[left - 1];
        filled += h[left - 1] != 0 ? left_share : 0;
    }
    if (right_share > 0 && right < i) {
        mass += right_share * h[right];
        filled += h[right] != 0 ? right_share : 0;
    }
    for (size_t k = left; k < right && k < i; k++) {
        mass += h[k];
        filled += h[k] != 0 ? 1.0f : 0.0f;
    }
    if (!(filled > 0))
        return;
    const float each = mass / filled;
    if (left_share > 0 && left > 0 && h[left - 1] != 0)
        q[left - 1] += each * left_share;
    if (right_share > 0 && right < i && h[right] != 0)
        q[right] += each * right_share;
    for (size_t k = left; k < right && k < i; k++)
        if (h[k] != 0)
            q[k] += each;
}

static float divergence(const float *p, const float *q, size_t n)
{
    float sum = 0;
    for (size_t k = 0; k < n; k++) {
        if (p[k] != 0)
            sum += q[k] == 0 ? 1.0f : p[k] * logf(p[k] / q[k]);
    }
    return sum;
}

/* The divergence as MNN computes it. tail: what lies in bins i and up. */
static float exact_divergence(const float *h, size_t i, float tail)
{
    float p[MNN_BINS], q[MNN_BINS];
    memcpy(p, h, i * sizeof(*p));
    p[i - 1] += tail;
    memset(q, 0, i * sizeof(*q));
    for (size_t j = 0; j < TARGET_BINS; j++)
        spread_group(h, i, j, q);
    return divergence(p, q, i);
}

/* Natural logarithms of n positive normal numbers, to 1e-7: the series of 2 artanh((m-1)/(m+1)) for
 * a mantissa m between sqrt(1/2) and sqrt(2). */
static void logarithms(const float *restrict x, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        union {
            float f;
            int32_t i;
        } u = {x[i]};
        const int32_t e = (u.i - 0x3F3504F3) >> 23;
        u.i -= e * (1 << 23);
        const float t = (u.f - 1.0f) / (u.f + 1.0f), t2 = t * t;
        const float series =
            1.0f + t2 * (1.0f / 3 + t2 * (1.0f / 5 + t2 * (1.0f / 7 + t2 * (1.0f / 9))));
        out[i] = 2.0f * t * series + (float)e * 0.69314718f;
    }
}

/* What the quick search needs: running sums over bins 0..i-1. */
typedef struct running {
    double mass[MNN_BINS + 1], plogp[MNN_BINS + 1];
} running;

/* The same divergence by running sums: Q is constant inside a group, and only the bin that two
 * groups share differs. Every bin counts as filled, which is so: counters begin above zero. tail:
 * MNN's float32, which may be rounded below zero; where P is negative there is no divergence. */
static double quick_divergence(const float *h, const running *r, size_t i, float tail)
{
    float q[2 * TARGET_BINS], logs[2 * TARGET_BINS];
    double p[2 * TARGET_BINS];
    size_t n = 0;
    const double per_width = (double)TARGET_BINS / (double)i;
    const double last = (double)h[i - 1], whole = (double)(h[i - 1] + tail), extra = whole - last;
    double each = 0;
    if (whole < 0)
        return INFINITY;
    for (size_t j = 0; j < TARGET_BINS; j++) {
        /* group j is [start, end) / TARGET_BINS */
        const size_t start = j * i, end = start + i;
        const size_t left = (start + TARGET_BINS - 1) / TARGET_BINS, right = end / TARGET_BINS;
        const double left_share = (double)(left * TARGET_BINS - start) / TARGET_BINS;
        const double right_share = (double)(end - right * TARGET_BINS) / TARGET_BINS;
        double mass = r->mass[right] - r->mass[left];
        mass += left_share > 0 ? left_share * (double)h[left - 1] : 0;
        mass += right_share > 0 && right < i ? right_share * (double)h[right] : 0;
        const double before = each;
        each = mass * per_width;
        if (left_share > 0) {
            q[n] = (float)(before * (1 - left_share) + each * left_share);
            p[n++] = (double)h[left - 1] + (left == i ? extra : 0);
        }
        q[n] = (float)each;
        p[n++] = r->mass[right] - r->mass[left] + (right == i && left < i ? extra : 0);
    }
    logarithms(q, n, logs);
    double d[4] = {r->plogp[i] - last * log(last) + (whole > 0 ? whole * log(whole) : 0)};
    for (size_t k = n; k % 4 != 0; k++)
        p[k] = logs[k] = 0; /* (n is at most 2 * TARGET_BINS, which 4 divides) */
    for (size_t k = 0; k < n; k += 4)
        for (size_t l = 0; l < 4; l++) /* sums that do not wait for each other */
            d[l] -= p[k + l] * (double)logs[k + l];
    return d[0] + d[1] + (d[2] + d[3]);
}

/* The threshold of least divergence, the first one on ties. The float32 sum of at most 2,048 terms
 * decides, so it is taken wherever the quick value comes near the least quick value. */
#define NEAR 1e-4

static size_t threshold(const float *h)
{
    running r;
    double quick[MNN_BINS], least = INFINITY;
    float tails[MNN_BINS], tail = 0;
    r.mass[0] = r.plogp[0] = 0;
    for (size_t k = 0; k < MNN_BINS; k++) {
        r.mass[k + 1] = r.mass[k] + (double)h[k];
        r.plogp[k + 1] = r.plogp[k] + (double)h[k] * log((double)h[k]);
    }
    for (size_t k = TARGET_BINS; k < MNN_BINS; k++)
        tail += h[k];
    for (size_t i = TARGET_BINS; i < MNN_BINS; i++) {
        tails[i] = tail;
        tail -= h[i];
        quick[i] = quick_divergence(h, &r, i, tails[i]);
        least = fmin(least, quick[i]);
    }
    size_t best = TARGET_BINS;
    float best_d = 10000.0f;
    for (size_t i = TARGET_BINS; i < MNN_BINS; i++) {
        const float d = quick[i] <= least + NEAR ? exact_divergence(h, i, tails[i]) : INFINITY;
        if (d < best_d) {
            best_d = d;
            best = i;
        }
    }
    return best;
}

static qn_status finish(const qn_context *ctx, const void *p, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error)
{
    (void)batch, (void)error, (void)ctx;
    const state *s = p;
    *out = (qn_range){.valid = s->count > 0, .count = s->count};
    if (!out->valid)
        return QN_OK;
    out->lo = out->seen_lo = s->lo;
    out->hi = out->seen_hi = s->hi;
    if (s->max_abs <= SMALL_MAX)
        return QN_OK;
    size_t t = MNN_BINS - 1;
    if (format->positions >= SMALL_POSITIONS) {
        float h[MNN_BINS];
        float sum = 0;
        for (size_t k = 0; k < MNN_BINS; k++) {
            h[k] = counter(s->bins[k]);
            sum += h[k];
        }
        for (size_t k = 0; k < MNN_BINS; k++)
            h[k] /= sum;
        t = threshold(h);
    }
    const float limit = ((float)t + 0.5f) * (s->max_abs / (float)MNN_BINS);
    if (format->symmetric) {
        out->lo = -limit;
        out->hi = limit;
    } else {
        qn_range_cut(out, limit, limit);
    }
    return QN_OK;
}

static void release(const qn_context *ctx, void *p)
{
    (void)ctx, (void)p;
}

const qn_feature_method qn__feature_kl_mnn = {
    .name = "kl-mnn",
    .summary = "MNN's KL search on 2,048 bins, in two passes over the data",
    .passes = 2,
    .state_bytes = state_bytes,
    .init = init,
    .observe = observe,
    .merge = merge,
    .between_passes = between_passes,
    .finish = finish,
    .release = release,
};
