/* The range with the least expected error of quantizing what was seen: rounding inside it, clipping
 * outside. Both ends are searched in turn when the values lie on both sides of zero and the format
 * is asymmetric, one threshold otherwise. Errors count by their square (mse) or by their power 2.25
 * (lp), which clips rare large values less: Nahshan et al., "Loss Aware Post-training Quantization"
 * (2019), section 3, which finds p between 2 and 4. */
#include "calib/histogram.h"

#include <math.h>

enum { MSE_BINS = 2048, STEPS = 64, ROUNDS = 3 };

typedef double (*qn_norm)(double error);

static double square(double error)
{
    return error * error;
}

static double power_2_25(double error)
{
    return error * error * sqrt(sqrt(error));
}

/* What is searched. */
typedef struct search {
    const qn_bins *bins;
    const qn_range_format *format;
    qn_norm norm;
    double rounding; /* mean of norm(e) for e uniform in 0..1/2 */
} search;

/* Expected error of one side of zero: bins at distance x. Rounding error is taken as uniform
 * where bins are finer than steps; clipped values err by their distance. Exact zeros
 * cost nothing. */
static double side_error(const search *s, const uint64_t *bins, double limit, double scale)
{
    const double width = s->bins->width, rounding = s->rounding * s->norm(scale);
    const size_t n = s->bins->n;
    double error = 0;
    for (size_t i = 0; i < n; i++) {
        if (bins[i] == 0)
            continue;
        const double x = ((double)i + 0.5) * width;
        double e;
        if (x > limit) {
            e = s->norm(x - limit);
        } else if (x < scale / 2) {
            e = s->norm(x); /* rounds to zero */
        } else {
            e = rounding;
        }
        error += (double)bins[i] * e;
    }
    return error;
}

static double total_error(const search *s, double lo, double hi)
{
    const double steps = (double)s->format->qmax - (double)s->format->qmin;
    const bool symmetric = s->format->symmetric;
    const double t = fmax(-lo, hi);
    const double scale = symmetric ? 2 * t / steps : (hi - lo) / steps;
    if (!(scale > 0))
        return INFINITY;
    return side_error(s, s->bins->pos, symmetric ? t : hi, scale) +
           side_error(s, s->bins->neg, symmetric ? t : -lo, scale);
}

/* Best of STEPS multiples of `end` around `centre` +- `reach`, the other end fixed. */
static double search_end(const search *s, double lo, double hi, bool top, double centre,
                         double reach)
{
    const double end = top ? hi : lo;
    double best = centre, best_error = INFINITY;
    for (int i = 0; i <= STEPS; i++) {
        const double m = centre + reach * (2.0 * i / STEPS - 1);
        if (m <= 0 || m > 1)
            continue;
        const double e = s->format->symmetric ? total_error(s, lo * m, hi * m)
                         : top                ? total_error(s, lo, end * m)
                                              : total_error(s, end * m, hi);
        if (e <= best_error) {
            best_error = e;
            best = m;
        }
    }
    return best;
}

/* Coarse over (0, 1], then fine around the best. */
static double search_fine(const search *s, double lo, double hi, bool top)
{
    const double coarse = search_end(s, lo, hi, top, 0.5, 0.5);
    return search_end(s, lo, hi, top, coarse, 1.0 / STEPS);
}

static qn_status find_range(const qn_context *ctx, const void *state, const qn_range_format *format,
                            qn_norm norm, double rounding, qn_range *out, qn_error *error)
{
    qn_bins b;
    qn__histogram_range(state, out);
    if (!out->valid)
        return QN_OK;
    QN_TRY(qn__bins_create(ctx, state, MSE_BINS, &b, error));
    const search s = {&b, format, norm, rounding};
    const double lo = fmin(out->lo, 0), hi = fmax(out->hi, 0);
    double new_lo = lo, new_hi = hi;
    if (format->symmetric && b.n > 0) {
        const double t = fmax(-lo, hi);
        const double m = search_fine(&s, -t, t, true);
        new_lo = fmax(lo, -t * m);
        new_hi = fmin(hi, t * m);
    } else if (b.n > 0) {
        for (int round = 0; round < (lo < 0 && hi > 0 ? ROUNDS : 1); round++) {
            if (hi > 0)
                new_hi = hi * search_fine(&s, new_lo, hi, true);
            if (lo < 0)
                new_lo = lo * search_fine(&s, lo, new_hi, false);
        }
    }
    out->lo = (float)new_lo;
    out->hi = (float)new_hi;
    qn__bins_free(&b);
    return QN_OK;
}

static qn_status finish_mse(const qn_context *ctx, const void *state, const qn_range_format *format,
                            int64_t batch, qn_range *out, qn_error *error)
{
    (void)batch;
    return find_range(ctx, state, format, square, 1.0 / 12, out, error);
}

static qn_status finish_lp(const qn_context *ctx, const void *state, const qn_range_format *format,
                           int64_t batch, qn_range *out, qn_error *error)
{
    (void)batch;
    /* 2 * integral of e^2.25 from 0 to 1/2 */
    return find_range(ctx, state, format, power_2_25, power_2_25(0.5) / 3.25, out, error);
}

const qn_feature_method qn__feature_mse = {
    .name = "mse",
    .summary = "range of least expected squared error, rounding and clipping together",
    .passes = 1,
    .state_bytes = qn__histogram_state_bytes,
    .init = qn__histogram_init,
    .observe = qn__histogram_observe,
    .merge = qn__histogram_merge,
    .finish = finish_mse,
    .release = qn__histogram_release,
    .state_kind = QN_HISTOGRAM_KIND,
    .save = qn__histogram_save,
    .load = qn__histogram_load,
};

const qn_feature_method qn__feature_lp = {
    .name = "lp",
    .summary = "as mse, with errors to the power 2.25: clips rare large values less (LAPQ, 2019)",
    .passes = 1,
    .state_bytes = qn__histogram_state_bytes,
    .init = qn__histogram_init,
    .observe = qn__histogram_observe,
    .merge = qn__histogram_merge,
    .finish = finish_lp,
    .release = qn__histogram_release,
    .state_kind = QN_HISTOGRAM_KIND,
    .save = qn__histogram_save,
    .load = qn__histogram_load,
};
