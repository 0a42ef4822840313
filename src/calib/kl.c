/* The threshold whose clipped and requantized distribution is nearest, by Kullback-Leibler
 * divergence, to the one seen (S. Migacz, 8-bit Inference with TensorRT, GTC 2017), on the one-pass
 * histogram: |x|, exact zeros left out.
 *
 * For a threshold of i bins, P is bins 0..i-1 with everything beyond added to bin i-1; Q is the
 * same bins without that, merged into `levels` groups and spread evenly over each group's non-empty
 * bins. Within a group Q is constant, so
 *     D = sum P log P - sum over groups (mass of P in the group) * log(Q of the group)
 * and running sums make a threshold cost `levels` logarithms instead of i. */
#include "calib/histogram.h"

#include <math.h>

enum { KL_BINS = 8192 };

/* Thresholds are tried at the first distance, then around the best at the next. */
static const size_t STRIDES[] = {256, 32, 4};

typedef struct sums { /* over bins 0..i-1 */
    double *mass;     /* counts */
    double *plogp;    /* count * log(count) */
    uint32_t *filled; /* non-empty bins */
} sums;

/* Divergence of a threshold of i bins, times the total count and without constants. */
static double divergence(const sums *s, const double *h, size_t i, size_t n, size_t levels)
{
    const double total = s->mass[n], inside = s->mass[i], tail = total - inside;
    const double last = h[i - 1];
    if (inside <= 0)
        return INFINITY;
    double d = s->plogp[i] - total * log(total);
    if (tail > 0)
        d += (last + tail) * log(last + tail) - (last > 0 ? last * log(last) : 0);
    /* Q is 0 in an empty last bin, P is not: Q counts as one value there. */
    const double lone = last > 0 ? 0 : tail;
    d += lone * log(inside);
    size_t begin = 0;
    for (size_t j = 0; j < levels; j++) {
        const size_t end = (j + 1) * i / levels;
        const double mass = s->mass[end] - s->mass[begin];
        if (mass > 0) {
            const double q = mass / ((s->filled[end] - s->filled[begin]) * inside);
            d -= (mass + (end == i ? tail - lone : 0)) * log(q);
        }
        begin = end;
    }
    return d / total;
}

static size_t search_between(const sums *s, const double *h, size_t n, size_t levels, size_t first,
                             size_t last, size_t stride)
{
    size_t best = last;
    double best_d = INFINITY;
    for (size_t i = first; i <= last; i += stride) {
        const double d = divergence(s, h, i, n, levels);
        if (d < best_d) {
            best_d = d;
            best = i;
        }
    }
    /* the end itself, which the stride may step over; without a tail it is always possible */
    return divergence(s, h, last, n, levels) < best_d ? last : best;
}

static size_t search(const sums *s, const double *h, size_t n, size_t levels)
{
    size_t best = search_between(s, h, n, levels, levels, n, STRIDES[0]);
    for (size_t i = 1; i < sizeof(STRIDES) / sizeof(STRIDES[0]); i++) {
        const size_t reach = STRIDES[i - 1];
        const size_t first = best < levels + reach ? levels : best - reach;
        const size_t last = best + reach > n ? n : best + reach;
        best = search_between(s, h, n, levels, first, last, STRIDES[i]);
    }
    return best;
}

static void accumulate(const sums *s, const double *h, size_t n)
{
    s->mass[0] = s->plogp[0] = 0;
    s->filled[0] = 0;
    for (size_t i = 0; i < n; i++) {
        s->mass[i + 1] = s->mass[i] + h[i];
        s->plogp[i + 1] = s->plogp[i] + (h[i] > 0 ? h[i] * log(h[i]) : 0);
        s->filled[i + 1] = s->filled[i] + (h[i] > 0);
    }
}

static qn_status finish(const qn_context *ctx, const void *state, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error)
{
    (void)batch;
    qn__histogram_range(state, out);
    if (!out->valid)
        return QN_OK;
    qn_bins b;
    qn_status status = qn__bins_create(ctx, state, KL_BINS, &b, error);
    if (status != QN_OK)
        return status;
    double *h = qn__calloc(ctx, 3 * (KL_BINS + 1), sizeof(*h));
    uint32_t *filled = qn__calloc(ctx, KL_BINS + 1, sizeof(*filled));
    if (h == NULL || filled == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t i = 0; i < b.n; i++)
        h[i] = (double)(b.pos[i] + b.neg[i]);
    const sums s = {h + KL_BINS + 1, h + 2 * (KL_BINS + 1), filled};
    accumulate(&s, h, b.n);
    /* All levels on one side when the values are, half of them otherwise. */
    const bool one_sided = !format->symmetric && (b.n_pos == 0 || b.n_neg == 0);
    const size_t steps = (size_t)(format->qmax - format->qmin);
    const size_t levels = one_sided ? steps : (steps + 1) / 2;
    if (b.n > levels && levels > 0) {
        const double t = (double)search(&s, h, b.n, levels) * b.width;
        qn_range_cut(out, (float)t, (float)t);
    }
done:
    qn__free(ctx, filled);
    qn__free(ctx, h);
    qn__bins_free(&b);
    return status;
}

const qn_feature_method qn__feature_kl = {
    .name = "kl",
    .summary = "threshold of least Kullback-Leibler divergence (TensorRT's method)",
    .passes = 1,
    .state_bytes = qn__histogram_state_bytes,
    .init = qn__histogram_init,
    .observe = qn__histogram_observe,
    .merge = qn__histogram_merge,
    .finish = finish,
    .release = qn__histogram_release,
    .state_kind = QN_HISTOGRAM_KIND,
    .save = qn__histogram_save,
    .load = qn__histogram_load,
};
