/* One-pass histogram whose state depends only on the multiset of values seen: bins of a
 * power-of-two width aligned at zero; the width doubles and neighbours add when a value falls
 * outside. So any split of the data over threads, merged in any order, gives the same counts.
 * Percentile, KL and MSE read from it. Exact zeros are counted apart (after a ReLU they would drown
 * everything else). */
#ifndef QN_CALIB_HISTOGRAM_H
#define QN_CALIB_HISTOGRAM_H

#include "calib/calib.h"

#define QN_HISTOGRAM_BINS 8192 /* on each side of zero */

typedef struct qn_histogram {
    bool any;           /* a value other than zero was seen: exponent is set */
    int exponent;       /* bin width = 2^exponent */
    float lo, hi;       /* seen */
    uint64_t count;     /* all values, zeros included */
    uint64_t hot_count; /* values in hot since it was spilled; < 2^31 */
    uint32_t *hot;      /* [2 * BINS + ZERO_SLOTS]: positive, negative, exact zeros */
    uint64_t *spill;    /* the same, NULL until 2^31 values */
} qn_histogram;

size_t qn__histogram_state_bytes(void);
void qn__histogram_init(void *state);
qn_status qn__histogram_observe(const qn_context *ctx, void *state, uint32_t pass, uint64_t sample,
                                const float *values, size_t count, qn_error *error);
qn_status qn__histogram_merge(const qn_context *ctx, void *into, const void *from, qn_error *error);
void qn__histogram_release(const qn_context *ctx, void *state);
#define QN_HISTOGRAM_KIND "histogram"
void qn__histogram_save(const qn_context *ctx, const void *state, struct qn_strbuf *buf);
qn_status qn__histogram_load(const qn_context *ctx, void *state, struct qn_qnm_cursor *from,
                             qn_error *error);

/* What the methods work on: up to n_bins bins per side (a power of two <= BINS), no empty bins at
 * the outer end beyond the larger side. Bin i of a side covers (i * width, (i + 1) * width). */
typedef struct qn_bins {
    const qn_context *ctx;
    double width;
    size_t n; /* bins per side in use */
    uint64_t zeros;
    uint64_t n_pos, n_neg; /* values */
    uint64_t *pos, *neg;   /* [n] */
} qn_bins;
qn_status qn__bins_create(const qn_context *ctx, const qn_histogram *histogram, size_t n_bins,
                          qn_bins *out, qn_error *error);
void qn__bins_free(qn_bins *bins);
/* Range seen and counts of a histogram; lo/hi the same, for methods to narrow. */
void qn__histogram_range(const qn_histogram *histogram, qn_range *out);

/* Cuts a range to [-below, above]; it then contains 0, which every scale must represent. */
static inline void qn_range_cut(qn_range *range, float below, float above)
{
    range->lo = range->lo > 0 ? 0 : range->lo < -below ? -below : range->lo;
    range->hi = range->hi < 0 ? 0 : range->hi > above ? above : range->hi;
}

#endif
