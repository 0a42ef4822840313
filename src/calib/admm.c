/* The scale of least squared error by alternation (Leng et al., "Extremely Low Bit Neural Network:
 * Squeeze the Last Bit Out with ADMM", 2018, the form MNN's tool uses for activations): start at
 * a = max|x| / (2.5 B); 300 times q = clamp(round(x / a)), a = sum(q x) / sum(q q).
 *
 * The sums only need, for each level, how many values lie beyond its lower boundary and their sum.
 * So the state is a histogram of magnitudes by their float32 bits: 2^FINE_BITS bins in the octave
 * of the largest, half as many in each octave below (bins of one width), never fewer than
 * 2^COARSE_BITS. A bin keeps its count and the sum of the mantissa bits below its index: integers,
 * exact, independent of order, and exact still when bins merge because a larger value raised the
 * top octave. Only where a boundary cuts a bin is anything assumed: that its values are spread
 * evenly around their mean. Up to FEW values are kept as they are. */
#include "calib/histogram.h"
#include "calib/scan.h"
#include "calib/stats_wire.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FINE_BITS = 13,
    COARSE_BITS = 6,
    OCTAVES = 40, /* smaller values round to zero whatever the scale */
    MANTISSA_BITS = 23,
    EXPONENT_BIAS = 127,
    N_EXPONENTS = 256,
    IDLE_SLOTS = 8, /* zeros come in runs: spread, so that increments do not wait for each other */
    ITERATIONS = 300,
    FEW = 8192
};

typedef struct bin {
    uint64_t count;
    uint64_t sum; /* of the mantissa bits that do not choose the bin */
} bin;

/* Magnitudes of one sign. */
typedef struct side {
    uint32_t top; /* biased float exponent of the finest octave; 0: bins is NULL */
    bin *bins;
} side;

typedef struct state {
    float lo, hi;
    uint64_t count;
    side sides[2]; /* positive, negative */
    float *few;    /* [FEW] all values, while there are no more; then bins hold them */
    bool many;
} state;

/* log2 of the bins of the octave d below the top, and where they start: octaves from the top down.
 */
static uint32_t octave_bits(uint32_t d)
{
    return d < FINE_BITS - COARSE_BITS ? FINE_BITS - d : COARSE_BITS;
}

static size_t octave_start(uint32_t d)
{
    size_t start = 0;
    for (uint32_t i = 0; i < d; i++)
        start += (size_t)1 << octave_bits(i);
    return start;
}

static size_t total_bins(void)
{
    return octave_start(OCTAVES) + IDLE_SLOTS;
}

static size_t state_bytes(void)
{
    return sizeof(state);
}

static void init(void *p)
{
    *(state *)p = (state){.lo = INFINITY, .hi = -INFINITY};
}

static void release(const qn_context *ctx, void *p)
{
    state *s = p;
    for (size_t i = 0; i < 2; i++) {
        qn__free(ctx, s->sides[i].bins);
        s->sides[i] = (side){0};
    }
    qn__free(ctx, s->few);
    s->few = NULL;
}

/* Adds bins counted with a top octave `top` to a side whose top is at least that. */
static void add_bins(side *into, const bin *from, uint32_t top)
{
    const uint32_t raise = into->top - top;
    size_t start = 0;
    for (uint32_t d = 0; d < OCTAVES; d++) {
        const uint32_t bits = octave_bits(d);
        if (d + raise < OCTAVES) {
            const uint32_t fewer = bits - octave_bits(d + raise);
            const uint32_t shift = MANTISSA_BITS - bits;
            bin *to = into->bins + octave_start(d + raise);
            for (size_t i = 0; i < (size_t)1 << bits; i++) {
                const bin b = from[start + i];
                const uint64_t low = (i & (((size_t)1 << fewer) - 1)) << shift;
                to[i >> fewer].count += b.count;
                to[i >> fewer].sum += b.sum + b.count * low;
            }
        }
        start += (size_t)1 << bits;
    }
}

/* Makes room for magnitudes of a biased exponent. */
static qn_status raise_top(const qn_context *ctx, side *s, uint32_t top, qn_error *error)
{
    if (s->bins != NULL && top <= s->top)
        return QN_OK;
    side raised = {.top = top, .bins = qn__calloc(ctx, total_bins(), sizeof(bin))};
    if (raised.bins == NULL)
        return QN_NOMEM(error);
    if (s->bins != NULL)
        add_bins(&raised, s->bins, s->top);
    qn__free(ctx, s->bins);
    *s = raised;
    return QN_OK;
}

static uint32_t magnitude_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits & 0x7FFFFFFF;
}

/* How a value's bits choose its bin: bins[base + (bits >> shift)]; idle values go to slots that
 * nothing reads. */
typedef struct place {
    bin *bins;
    uint32_t shift, spread;
} place;

static void fill_places(const side *s, place *places)
{
    bin *idle = s->bins + octave_start(OCTAVES);
    for (uint32_t e = 0; e < N_EXPONENTS; e++)
        places[e] = (place){idle, 31, IDLE_SLOTS - 1};
    size_t start = 0;
    for (uint32_t d = 0; d < OCTAVES && d < s->top; d++) {
        const uint32_t bits = octave_bits(d), e = s->top - d;
        /* bits >> shift holds the exponent above the index */
        places[e] = (place){s->bins + start - ((size_t)e << bits), MANTISSA_BITS - bits, 0};
        start += (size_t)1 << bits;
    }
}

/* Counts values within [s->lo, s->hi]. */
static qn_status bin_values(const qn_context *ctx, state *s, const float *values, size_t count,
                            qn_error *error)
{
    const float ends[2] = {s->hi, -s->lo};
    /* Both signs' places lie side by side, so that the sign bit chooses between them. */
    place places[2 * N_EXPONENTS];
    bin unused[IDLE_SLOTS];
    memset(unused, 0, sizeof(unused));
    for (size_t i = 0; i < 2; i++) {
        const uint32_t top = ends[i] > 0 ? magnitude_bits(ends[i]) >> MANTISSA_BITS : 0;
        if (top > 0)
            QN_TRY(raise_top(ctx, &s->sides[i], top, error));
        if (s->sides[i].bins != NULL) {
            fill_places(&s->sides[i], places + i * N_EXPONENTS);
            continue;
        }
        for (size_t e = 0; e < N_EXPONENTS; e++)
            places[i * N_EXPONENTS + e] = (place){unused, 31, IDLE_SLOTS - 1};
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        const place to = places[bits >> MANTISSA_BITS];
        bits &= 0x7FFFFFFF;
        bin *b = to.bins + (bits >> to.shift) + (i & to.spread);
        b->count++;
        b->sum += bits & ((1u << to.shift) - 1);
    }
    return QN_OK;
}

static qn_status bin_few(const qn_context *ctx, state *s, qn_error *error)
{
    if (!s->many && s->count > 0)
        QN_TRY(bin_values(ctx, s, s->few, (size_t)s->count, error));
    s->many = true;
    qn__free(ctx, s->few);
    s->few = NULL;
    return QN_OK;
}

/* Adds count values, of which s->lo and s->hi know but s->count does not yet. */
static qn_status add_values(const qn_context *ctx, state *s, const float *values, size_t count,
                            qn_error *error)
{
    if (!s->many && s->count + count <= FEW) {
        if (s->few == NULL)
            s->few = qn__calloc(ctx, FEW, sizeof(*s->few));
        if (s->few == NULL)
            return QN_NOMEM(error);
        if (count > 0)
            memcpy(s->few + s->count, values, count * sizeof(*values));
        s->count += count;
        return QN_OK;
    }
    QN_TRY(bin_few(ctx, s, error));
    s->count += count;
    return bin_values(ctx, s, values, count, error);
}

static qn_status observe(const qn_context *ctx, void *p, uint32_t pass, uint64_t sample,
                         const float *values, size_t count, qn_error *error)
{
    (void)pass, (void)sample;
    state *s = p;
    float lo = s->lo, hi = s->hi;
    QN_TRY(qn__scan_range(ctx, values, count, &lo, &hi, error));
    s->lo = lo;
    s->hi = hi;
    return add_values(ctx, s, values, count, error);
}

static qn_status merge(const qn_context *ctx, void *into, const void *from, qn_error *error)
{
    state *a = into;
    const state *b = from;
    a->lo = fminf(a->lo, b->lo);
    a->hi = fmaxf(a->hi, b->hi);
    if (!b->many)
        return add_values(ctx, a, b->few, (size_t)b->count, error);
    QN_TRY(bin_few(ctx, a, error));
    for (size_t i = 0; i < 2; i++) {
        const side *other = &b->sides[i];
        if (other->bins == NULL)
            continue;
        QN_TRY(raise_top(ctx, &a->sides[i], other->top, error));
        add_bins(&a->sides[i], other->bins, other->top);
    }
    a->count += b->count;
    return QN_OK;
}

/* --- in a statistics file ----------------------------------------------------------------------*/
#define MOST_VALUES ((uint64_t)1 << 56)

static int by_bits(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x < y ? -1 : x > y;
}

/* In an order that is always the same. */
static void save_few(const qn_context *ctx, const state *s, qn_strbuf *buf)
{
    float *sorted = qn__alloc(ctx, FEW * sizeof(*sorted));
    buf->failed |= sorted == NULL;
    if (sorted == NULL)
        return;
    memcpy(sorted, s->few, (size_t)s->count * sizeof(*sorted));
    qsort(sorted, (size_t)s->count, sizeof(*sorted), by_bits);
    qn__put_floats(buf, sorted, (size_t)s->count);
    qn__free(ctx, sorted);
}

static void save_side(const side *s, qn_strbuf *buf)
{
    const size_t n = s->bins == NULL ? 0 : octave_start(OCTAVES);
    size_t filled = 0, last = 0;
    qn__put_fixed(buf, s->bins == NULL ? 0 : s->top, 1);
    for (size_t i = 0; i < n; i++)
        filled += s->bins[i].count != 0;
    if (s->bins != NULL)
        qn__put_varint(buf, filled);
    for (size_t i = 0; i < n; i++) {
        if (s->bins[i].count == 0)
            continue;
        qn__put_varint(buf, i - last);
        qn__put_varint(buf, s->bins[i].count);
        qn__put_varint(buf, s->bins[i].sum);
        last = i;
    }
}

static void save(const qn_context *ctx, const void *p, qn_strbuf *buf)
{
    const state *s = p;
    qn__put_varint(buf, s->count);
    if (s->count == 0)
        return;
    qn__put_f32(buf, s->lo);
    qn__put_f32(buf, s->hi);
    if (!s->many)
        save_few(ctx, s, buf);
    for (size_t i = 0; i < 2 && s->many; i++)
        save_side(&s->sides[i], buf);
}

static qn_status load_side(const qn_context *ctx, side *s, qn_qnm_cursor *from, qn_error *error)
{
    const size_t n = octave_start(OCTAVES);
    const uint32_t top = qn_qnm_u8(from);
    if (top == 0 || from->failed)
        return QN_OK;
    const uint64_t filled = qn__get_varint(from);
    from->failed |= top >= N_EXPONENTS - 1 || filled > n;
    if (from->failed)
        return QN_OK;
    QN_TRY(raise_top(ctx, s, top, error));
    size_t at = 0;
    for (uint64_t i = 0; i < filled; i++) {
        const uint64_t gap = qn__get_varint(from), count = qn__get_varint(from);
        const uint64_t sum = qn__get_varint(from);
        from->failed |= gap >= n - at || (i > 0 && gap == 0) || count == 0 || count > MOST_VALUES ||
                        sum >> MANTISSA_BITS > count;
        if (from->failed)
            return QN_OK;
        at += (size_t)gap;
        s->bins[at] = (bin){count, sum};
    }
    return QN_OK;
}

static qn_status load_few(const qn_context *ctx, state *s, qn_qnm_cursor *from, qn_error *error)
{
    s->few = qn__calloc(ctx, FEW, sizeof(*s->few));
    if (s->few == NULL)
        return QN_NOMEM(error);
    qn__get_floats(from, s->few, (size_t)s->count);
    for (size_t i = 0; i < s->count; i++)
        from->failed |= !(s->few[i] >= s->lo && s->few[i] <= s->hi);
    return QN_OK;
}

static qn_status load(const qn_context *ctx, void *p, qn_qnm_cursor *from, qn_error *error)
{
    state *s = p;
    s->count = qn__get_varint(from);
    if (s->count == 0 || from->failed)
        return QN_OK;
    s->lo = qn_qnm_f32(from);
    s->hi = qn_qnm_f32(from);
    s->many = s->count > FEW;
    from->failed |= s->count > MOST_VALUES || !isfinite(s->lo) || !isfinite(s->hi) || s->lo > s->hi;
    if (from->failed)
        return QN_OK;
    if (!s->many)
        return load_few(ctx, s, from, error);
    for (size_t i = 0; i < 2; i++)
        QN_TRY(load_side(ctx, &s->sides[i], from, error));
    return QN_OK;
}

/* A side in ascending order with running totals. */
typedef struct line {
    uint32_t top;
    const bin *bins;
    double *counts, *sums; /* [octaves' bins]: of this bin and all above it */
} line;

static double octave_ulp(uint32_t top, uint32_t d)
{
    return ldexp(1.0, (int)top - (int)d - EXPONENT_BIAS - MANTISSA_BITS);
}

/* Real sum of a bin's values. */
static double bin_sum(const bin *b, size_t index, uint32_t bits, double ulp)
{
    const double low = ldexp(1.0, MANTISSA_BITS) + ldexp((double)index, MANTISSA_BITS - (int)bits);
    return ((double)b->count * low + (double)b->sum) * ulp;
}

static void line_totals(line *l)
{
    double count = 0, sum = 0;
    size_t start = 0;
    for (uint32_t d = 0; d < OCTAVES; d++) {
        const uint32_t bits = octave_bits(d);
        const size_t n = (size_t)1 << bits;
        const double ulp = octave_ulp(l->top, d);
        for (size_t i = n; i-- > 0;) {
            count += (double)l->bins[start + i].count;
            sum += bin_sum(&l->bins[start + i], i, bits, ulp);
            l->counts[start + i] = count;
            l->sums[start + i] = sum;
        }
        start += n;
    }
}

/* Adds how many values are at least t, and their sum. */
static void line_above(const line *l, double t, double *count, double *sum)
{
    int e;
    const double mantissa = 2 * frexp(t, &e); /* [1, 2) */
    const int d = (int)l->top - EXPONENT_BIAS - (e - 1);
    if (d < 0)
        return;
    if (d >= OCTAVES) {
        const size_t last = octave_start(OCTAVES - 1);
        *count += l->counts[last];
        *sum += l->sums[last];
        return;
    }
    const uint32_t bits = octave_bits((uint32_t)d);
    const double at_bin = ldexp(mantissa - 1, (int)bits);
    const size_t index = (size_t)at_bin;
    const size_t at = octave_start((uint32_t)d) + index;
    const bin *b = &l->bins[at];
    *count += l->counts[at];
    *sum += l->sums[at];
    if (b->count == 0)
        return;
    /* The bin's values are taken as spread evenly over the widest interval around their mean that
     * lies in the bin; a single value is where it is. All in bin widths. */
    const double n = (double)b->count;
    const double total = bin_sum(b, index, bits, octave_ulp(l->top, (uint32_t)d));
    const double mean = ldexp((double)b->sum / n, (int)bits - MANTISSA_BITS);
    const double reach = b->count == 1 ? 0 : fmin(mean, 1 - mean);
    const double cut = at_bin - (double)index;
    if (cut <= mean - reach)
        return;
    if (cut > mean + reach) {
        *count -= n;
        *sum -= total;
        return;
    }
    const double below = (cut - (mean - reach)) / (2 * reach);
    const double below_mean = (mean - reach + cut) / 2; /* place of the mean of what is below */
    *count -= n * below;
    *sum -= n * below * (total / n + (below_mean - mean) * t / (ldexp(1.0, (int)bits) + at_bin));
}

/* q runs to `levels`: value x has one level for each boundary (k + 1/2) a at or below it. */
static void add_levels(const line *l, double a, int32_t levels, double *qx, double *qq)
{
    if (l->bins == NULL)
        return;
    for (int32_t k = 0; k < levels; k++) {
        double count = 0, sum = 0;
        line_above(l, (k + 0.5) * a, &count, &sum);
        *qx += sum;
        *qq += (2.0 * k + 1) * count;
    }
}

/* What the iteration runs over: lines, or all values in ascending order. */
typedef struct values {
    line lines[2];
    size_t n_few;
    float *few;
} values;

/* sum(q x) and sum(q q) at scale a. */
static void add_all(const values *v, double a, const int32_t levels[2], double *qx, double *qq)
{
    for (size_t i = 0; i < v->n_few; i++) {
        const double x = (double)v->few[i];
        const double q = fmax(-levels[1], fmin(levels[0], round(x / a)));
        *qx += q * x;
        *qq += q * q;
    }
    for (size_t k = 0; v->few == NULL && k < 2; k++)
        add_levels(&v->lines[k], a, levels[k], qx, qq);
}

static double alternate(const values *v, const int32_t levels[2], double largest)
{
    const int32_t most = levels[0] > levels[1] ? levels[0] : levels[1];
    double a = largest / (2.5 * most);
    for (int i = 0; i < ITERATIONS; i++) {
        double qx = 0, qq = 0;
        add_all(v, a, levels, &qx, &qq);
        if (!(qx > 0) || !(qq > 0))
            break;
        const double next = qx / qq;
        if (next == a)
            break;
        a = next;
    }
    return a;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* What is made is freed with line_free, also after a failure. */
static qn_status line_create(const qn_context *ctx, const side *s, line *out, qn_error *error)
{
    *out = (line){.top = s->top, .bins = s->bins};
    if (s->bins == NULL)
        return QN_OK;
    out->counts = qn__calloc(ctx, total_bins(), sizeof(double));
    out->sums = qn__calloc(ctx, total_bins(), sizeof(double));
    if (out->counts == NULL || out->sums == NULL)
        return QN_NOMEM(error);
    line_totals(out);
    return QN_OK;
}

static void line_free(const qn_context *ctx, line *l)
{
    qn__free(ctx, l->counts);
    qn__free(ctx, l->sums);
}

/* Levels above and below zero: all on each side when symmetric; otherwise shared as the values'
 * ends are. */
static void share_levels(const qn_range_format *format, double lo, double hi, int32_t levels[2])
{
    if (format->symmetric) {
        levels[0] = levels[1] = format->qmax > -format->qmin ? format->qmax : -format->qmin;
        return;
    }
    const int32_t all = format->qmax - format->qmin;
    levels[0] = (int32_t)lround(all * (hi / (hi - lo)));
    levels[1] = all - levels[0];
}

static qn_status values_create(const qn_context *ctx, const state *s, values *out, qn_error *error)
{
    for (size_t i = 0; s->many && i < 2; i++)
        QN_TRY(line_create(ctx, &s->sides[i], &out->lines[i], error));
    if (s->many)
        return QN_OK;
    out->n_few = (size_t)s->count;
    out->few = qn__calloc(ctx, out->n_few, sizeof(*out->few));
    if (out->few == NULL)
        return QN_NOMEM(error);
    memcpy(out->few, s->few, out->n_few * sizeof(*out->few));
    qsort(out->few, out->n_few, sizeof(*out->few), by_value);
    return QN_OK;
}

static qn_status finish(const qn_context *ctx, const void *p, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error)
{
    (void)batch;
    const state *s = p;
    values v = {.few = NULL};
    int32_t levels[2];
    *out = (qn_range){.valid = s->count > 0, .count = s->count};
    if (!out->valid)
        return QN_OK;
    out->lo = out->seen_lo = s->lo;
    out->hi = out->seen_hi = s->hi;
    const double lo = fmin(s->lo, 0), hi = fmax(s->hi, 0);
    if (!(fmax(-lo, hi) >= FLT_MIN))
        return QN_OK;
    share_levels(format, lo, hi, levels);
    const qn_status status = values_create(ctx, s, &v, error);
    if (status == QN_OK) {
        const double a = alternate(&v, levels, fmax(-lo, hi));
        out->lo = (float)fmax(0 - a * levels[1], -FLT_MAX);
        out->hi = (float)fmin(a * levels[0], FLT_MAX);
    }
    line_free(ctx, &v.lines[0]);
    line_free(ctx, &v.lines[1]);
    qn__free(ctx, v.few);
    return status;
}

const qn_feature_method qn__feature_admm = {
    .name = "admm",
    .summary = "scale of least squared error by alternating levels and scale (ADMM, 2018)",
    .passes = 1,
    .state_bytes = state_bytes,
    .init = init,
    .observe = observe,
    .merge = merge,
    .finish = finish,
    .release = release,
    .state_kind = "magnitudes",
    .save = save,
    .load = load,
};
