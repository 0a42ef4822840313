#include "calib/histogram.h"
#include "calib/scan.h"
#include "calib/stats_wire.h"

#include <math.h>
#include <string.h>

enum {
    BINS = QN_HISTOGRAM_BINS,
    ZERO_SLOTS = 8, /* zeros come in runs: spread, so that increments do not wait for each other */
    SLOTS = 2 * BINS + ZERO_SLOTS,
    CHUNK = 64,
    MAX_CHUNKS = 256, /* of one tensor in one sample */
    LOG2_BINS = 13,
    MIN_EXPONENT = -126 /* the reciprocal of the width stays a normal float */
};
#define SPILL_LIMIT ((uint64_t)1 << 31)

size_t qn__histogram_state_bytes(void)
{
    return sizeof(qn_histogram);
}

void qn__histogram_init(void *state)
{
    *(qn_histogram *)state = (qn_histogram){.lo = INFINITY, .hi = -INFINITY};
}

void qn__histogram_release(const qn_context *ctx, void *state)
{
    qn_histogram *h = state;
    qn__free(ctx, h->hot);
    qn__free(ctx, h->spill);
}

/* Smallest exponent at which max_abs falls into the last bin or before. */
static int exponent_for(float max_abs)
{
    int e;
    (void)frexpf(max_abs, &e); /* max_abs < 2^e */
    e -= LOG2_BINS;
    return e < MIN_EXPONENT ? MIN_EXPONENT : e;
}

static qn_status spill(const qn_context *ctx, qn_histogram *h, qn_error *error)
{
    if (h->spill == NULL) {
        h->spill = qn__calloc(ctx, SLOTS, sizeof(*h->spill));
        if (h->spill == NULL)
            return QN_NOMEM(error);
    }
    for (size_t i = 0; i < SLOTS; i++)
        h->spill[i] += h->hot[i];
    memset(h->hot, 0, SLOTS * sizeof(*h->hot));
    h->hot_count = 0;
    return QN_OK;
}

/* Doubles the width `times` times. */
#define DEFINE_FOLD(name, type)                                                                    \
    static void name(type *bins, unsigned times)                                                   \
    {                                                                                              \
        for (size_t i = 1; i < BINS; i++) {                                                        \
            const size_t to = times >= LOG2_BINS ? 0 : i >> times;                                 \
            const type n = bins[i];                                                                \
            bins[i] = 0;                                                                           \
            bins[to] += n;                                                                         \
        }                                                                                          \
    }
DEFINE_FOLD(fold_hot, uint32_t)
DEFINE_FOLD(fold_spill, uint64_t)

static void widen(qn_histogram *h, int exponent)
{
    if (h->any && exponent > h->exponent) {
        const unsigned times = (unsigned)(exponent - h->exponent);
        for (size_t side = 0; side < 2; side++) {
            fold_hot(h->hot + side * BINS, times);
            if (h->spill != NULL)
                fold_spill(h->spill + side * BINS, times);
        }
    }
    if (!h->any || exponent > h->exponent)
        h->exponent = exponent;
    h->any = true;
}

/* Slot of each of CHUNK values. |v| * 2^-exponent is exact, so a bin's values do not depend on how
 * often the width was doubled; negative ones are offset by BINS. */
static void slots_of(const float *restrict values, float inv_width, int32_t *restrict slots)
{
    int32_t bits[CHUNK];
    memcpy(bits, values, sizeof(bits));
    for (int32_t j = 0; j < CHUNK; j++) {
        const int32_t bin = (int32_t)(fabsf(values[j]) * inv_width);
        const int32_t slot = bin + ((bits[j] >> 31) & BINS);
        const int32_t is_zero = -((bits[j] & 0x7FFFFFFF) == 0);
        slots[j] = (slot & ~is_zero) | ((2 * BINS + (j & (ZERO_SLOTS - 1))) & is_zero);
    }
}

static qn_status count_chunk(const qn_context *ctx, qn_histogram *h, const float *values, size_t n,
                             float inv_width, qn_error *error)
{
    int32_t slots[CHUNK];
    float padded[CHUNK];
    if (h->hot_count + n >= SPILL_LIMIT)
        QN_TRY(spill(ctx, h, error));
    if (n < CHUNK) {
        memset(padded, 0, sizeof(padded));
        memcpy(padded, values, n * sizeof(*values));
        values = padded;
    }
    slots_of(values, inv_width, slots);
    for (size_t j = 0; j < n; j++)
        h->hot[slots[j]]++;
    h->hot_count += n;
    h->count += n;
    return QN_OK;
}

/* Where chunk g of a large tensor is read from: somewhere in the g-th of equal groups of chunks.
 * The hash keeps the choice from falling in step with rows or channels. */
static size_t chunk_in_group(size_t g, size_t group)
{
    uint64_t x = (uint64_t)g * 0x9E3779B97F4A7C15u;
    x ^= x >> 32;
    return g * group + (size_t)(x % group);
}

qn_status qn__histogram_observe(const qn_context *ctx, void *state, uint32_t pass, uint64_t sample,
                                const float *values, size_t count, qn_error *error)
{
    (void)pass, (void)sample;
    qn_histogram *h = state;
    if (count == 0)
        return QN_OK;
    float lo = h->lo, hi = h->hi;
    QN_TRY(qn__scan_range(ctx, values, count, &lo, &hi, error));
    if (h->hot == NULL) {
        h->hot = qn__calloc(ctx, SLOTS, sizeof(*h->hot));
        if (h->hot == NULL)
            return QN_NOMEM(error);
    }
    const float max_abs = fmaxf(fabsf(lo), fabsf(hi));
    if (max_abs > 0)
        widen(h, exponent_for(max_abs));
    h->lo = lo;
    h->hi = hi;
    const float inv_width = h->any ? ldexpf(1.0f, -h->exponent) : 1.0f;
    const size_t n_chunks = (count + CHUNK - 1) / CHUNK;
    const size_t group = (n_chunks + MAX_CHUNKS - 1) / MAX_CHUNKS;
    for (size_t g = 0; g * group < n_chunks; g++) {
        const size_t chunk = chunk_in_group(g, group);
        if (chunk >= n_chunks)
            continue;
        const size_t i = chunk * CHUNK;
        const size_t n = count - i < CHUNK ? count - i : CHUNK;
        QN_TRY(count_chunk(ctx, h, values + i, n, inv_width, error));
    }
    return QN_OK;
}

static uint64_t slot_count(const qn_histogram *h, size_t slot)
{
    return h->hot == NULL ? 0 : h->hot[slot] + (h->spill != NULL ? h->spill[slot] : 0);
}

qn_status qn__histogram_merge(const qn_context *ctx, void *into, const void *from, qn_error *error)
{
    qn_histogram *a = into;
    const qn_histogram *b = from;
    if (b->count == 0)
        return QN_OK;
    if (a->hot == NULL) {
        a->hot = qn__calloc(ctx, SLOTS, sizeof(*a->hot));
        if (a->hot == NULL)
            return QN_NOMEM(error);
    }
    const bool large = b->spill != NULL || a->hot_count + b->hot_count >= SPILL_LIMIT;
    if (large)
        QN_TRY(spill(ctx, a, error));
    if (b->any)
        widen(a, b->exponent);
    const unsigned shift =
        b->any && a->exponent > b->exponent ? (unsigned)(a->exponent - b->exponent) : 0;
    for (size_t i = 0; i < SLOTS; i++) {
        const uint64_t n = slot_count(b, i);
        if (n == 0)
            continue;
        const size_t bin = i % BINS, side = i / BINS;
        const size_t to = side >= 2 ? i : side * BINS + (shift >= LOG2_BINS ? 0 : bin >> shift);
        if (large)
            a->spill[to] += n;
        else
            a->hot[to] += (uint32_t)n;
    }
    if (!large)
        a->hot_count += b->hot_count;
    a->count += b->count;
    a->lo = fminf(a->lo, b->lo);
    a->hi = fmaxf(a->hi, b->hi);
    return QN_OK;
}

void qn__histogram_range(const qn_histogram *h, qn_range *out)
{
    *out = (qn_range){.valid = h->count > 0, .count = h->count};
    if (out->valid) {
        out->lo = out->seen_lo = h->lo;
        out->hi = out->seen_hi = h->hi;
    }
}

qn_status qn__bins_create(const qn_context *ctx, const qn_histogram *h, size_t n_bins, qn_bins *out,
                          qn_error *error)
{
    *out = (qn_bins){.ctx = ctx};
    const size_t group = BINS / n_bins;
    uint64_t *counts = qn__calloc(ctx, 2 * n_bins, sizeof(*counts));
    if (counts == NULL)
        return QN_NOMEM(error);
    out->pos = counts;
    out->neg = counts + n_bins;
    out->width = h->any ? ldexp((double)group, h->exponent) : 1.0;
    for (size_t i = 0; i < BINS; i++) {
        const uint64_t pos = slot_count(h, i), neg = slot_count(h, BINS + i);
        out->pos[i / group] += pos;
        out->neg[i / group] += neg;
        out->n_pos += pos;
        out->n_neg += neg;
        if (pos + neg > 0)
            out->n = i / group + 1;
    }
    for (size_t i = 0; i < ZERO_SLOTS; i++)
        out->zeros += slot_count(h, 2 * BINS + i);
    return QN_OK;
}

void qn__bins_free(qn_bins *bins)
{
    qn__free(bins->ctx, bins->pos);
    bins->pos = bins->neg = NULL;
}

/* --- in a statistics file ----------------------------------------------------------------------*/
#define MOST_VALUES ((uint64_t)1 << 56)
enum { MAX_EXPONENT = 128 - LOG2_BINS };

static void save_side(const qn_histogram *h, size_t side, qn_strbuf *buf)
{
    size_t filled = 0, last = 0;
    for (size_t i = 0; i < BINS; i++)
        filled += slot_count(h, side * BINS + i) != 0;
    qn__put_varint(buf, filled);
    for (size_t i = 0; i < BINS; i++) {
        const uint64_t n = slot_count(h, side * BINS + i);
        if (n == 0)
            continue;
        qn__put_varint(buf, i - last);
        qn__put_varint(buf, n);
        last = i;
    }
}

void qn__histogram_save(const qn_context *ctx, const void *state, qn_strbuf *buf)
{
    (void)ctx;
    const qn_histogram *h = state;
    uint64_t zeros = 0;
    qn__put_varint(buf, h->count);
    if (h->count == 0)
        return;
    for (size_t i = 0; i < ZERO_SLOTS; i++)
        zeros += slot_count(h, 2 * BINS + i);
    qn__put_f32(buf, h->lo);
    qn__put_f32(buf, h->hi);
    qn__put_varint(buf, zeros);
    qn__put_fixed(buf, h->any ? (uint64_t)(h->exponent - MIN_EXPONENT) + 1 : 0, 1);
    for (size_t side = 0; side < 2 && h->any; side++)
        save_side(h, side, buf);
}

/* Counts of a side into the slots; their sum is added to *total. */
static void load_side(qn_qnm_cursor *from, uint64_t *slots, uint64_t *total)
{
    const uint64_t filled = qn__get_varint(from);
    uint64_t at = 0;
    from->failed |= filled > BINS;
    for (uint64_t i = 0; i < filled && !from->failed; i++) {
        const uint64_t gap = qn__get_varint(from), n = qn__get_varint(from);
        if (gap >= BINS - at || (i > 0 && gap == 0) || n == 0 || n > MOST_VALUES) {
            from->failed = true;
            return;
        }
        at += gap;
        slots[at] = n;
        *total += n; /* at most BINS * MOST_VALUES */
    }
}

qn_status qn__histogram_load(const qn_context *ctx, void *state, qn_qnm_cursor *from,
                             qn_error *error)
{
    qn_histogram *h = state;
    h->count = qn__get_varint(from);
    if (h->count == 0 || from->failed)
        return QN_OK;
    h->lo = qn_qnm_f32(from);
    h->hi = qn_qnm_f32(from);
    const uint64_t zeros = qn__get_varint(from);
    const int exponent = (int)qn_qnm_u8(from);
    h->any = exponent > 0;
    h->exponent = h->any ? exponent - 1 + MIN_EXPONENT : 0;
    from->failed |= h->count > MOST_VALUES || zeros > h->count || h->exponent > MAX_EXPONENT ||
                    !isfinite(h->lo) || !isfinite(h->hi) || h->lo > h->hi;
    if (from->failed)
        return QN_OK;
    h->hot = qn__calloc(ctx, SLOTS, sizeof(*h->hot));
    h->spill = qn__calloc(ctx, SLOTS, sizeof(*h->spill));
    if (h->hot == NULL || h->spill == NULL)
        return QN_NOMEM(error);
    uint64_t total = h->spill[2 * BINS] = zeros;
    for (size_t side = 0; side < 2 && h->any; side++)
        load_side(from, h->spill + side * BINS, &total);
    from->failed |= total != h->count;
    if (h->count >= SPILL_LIMIT || from->failed)
        return QN_OK;
    for (size_t i = 0; i < SLOTS; i++)
        h->hot[i] = (uint32_t)h->spill[i];
    qn__free(ctx, h->spill);
    h->spill = NULL;
    h->hot_count = h->count;
    return QN_OK;
}
