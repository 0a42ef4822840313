/* The range with the least expected squared error of quantizing what was seen: rounding inside it,
 * clipping outside. Both ends are searched in turn when the values lie on both sides of zero and
 * the format is asymmetric, one threshold otherwise. */
#include "calib/histogram.h"

#include <math.h>

enum { MSE_BINS = 2048, STEPS = 64, ROUNDS = 3 };

/* Expected error of one side of zero: bins at distance x. Rounding error is taken as uniform
 * (scale^2 / 12) where bins are finer than steps; clipped values err by their distance. Exact zeros
 * cost nothing. */
static double side_error(const uint64_t *bins, size_t n, double width, double limit, double scale)
{
    double error = 0;
    for (size_t i = 0; i < n; i++) {
        if (bins[i] == 0)
            continue;
        const double x = ((double)i + 0.5) * width;
        double e;
        if (x > limit) {
            e = (x - limit) * (x - limit);
        } else if (x < scale / 2) {
            e = x * x; /* rounds to zero */
        } else {
            e = scale * scale / 12;
        }
        error += (double)bins[i] * e;
    }
    return error;
}

static double total_error(const qn_bins *b, const qn_range_format *f, double lo, double hi)
{
    const double steps = (double)f->qmax - (double)f->qmin;
    const double t = fmax(-lo, hi);
    const double scale = f->symmetric ? 2 * t / steps : (hi - lo) / steps;
    if (!(scale > 0))
        return INFINITY;
    return side_error(b->pos, b->n, b->width, f->symmetric ? t : hi, scale) +
           side_error(b->neg, b->n, b->width, f->symmetric ? t : -lo, scale);
}

/* Best of STEPS multiples of `end` around `centre` +- `reach`, the other end fixed. */
static double search_end(const qn_bins *b, const qn_range_format *f, double lo, double hi, bool top,
                         double centre, double reach)
{
    const double end = top ? hi : lo;
    double best = centre, best_error = INFINITY;
    for (int i = 0; i <= STEPS; i++) {
        const double m = centre + reach * (2.0 * i / STEPS - 1);
        if (m <= 0 || m > 1)
            continue;
        const double e = f->symmetric ? total_error(b, f, lo * m, hi * m)
                         : top        ? total_error(b, f, lo, end * m)
                                      : total_error(b, f, end * m, hi);
        if (e <= best_error) {
            best_error = e;
            best = m;
        }
    }
    return best;
}

/* Coarse over (0, 1], then fine around the best. */
static double search_fine(const qn_bins *b, const qn_range_format *f, double lo, double hi,
                          bool top)
{
    const double coarse = search_end(b, f, lo, hi, top, 0.5, 0.5);
    return search_end(b, f, lo, hi, top, coarse, 1.0 / STEPS);
}

static qn_status finish(const qn_context *ctx, const void *state, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error)
{
    (void)batch;
    qn_bins b;
    qn__histogram_range(state, out);
    if (!out->valid)
        return QN_OK;
    QN_TRY(qn__bins_create(ctx, state, MSE_BINS, &b, error));
    const double lo = fmin(out->lo, 0), hi = fmax(out->hi, 0);
    double new_lo = lo, new_hi = hi;
    if (format->symmetric && b.n > 0) {
        const double t = fmax(-lo, hi);
        const double m = search_fine(&b, format, -t, t, true);
        new_lo = fmax(lo, -t * m);
        new_hi = fmin(hi, t * m);
    } else if (b.n > 0) {
        for (int round = 0; round < (lo < 0 && hi > 0 ? ROUNDS : 1); round++) {
            if (hi > 0)
                new_hi = hi * search_fine(&b, format, new_lo, hi, true);
            if (lo < 0)
                new_lo = lo * search_fine(&b, format, lo, new_hi, false);
        }
    }
    out->lo = (float)new_lo;
    out->hi = (float)new_hi;
    qn__bins_free(&b);
    return QN_OK;
}

const qn_feature_method qn__feature_mse = {
    .name = "mse",
    .summary = "range of least expected squared error, rounding and clipping together",
    .passes = 1,
    .state_bytes = qn__histogram_state_bytes,
    .init = qn__histogram_init,
    .observe = qn__histogram_observe,
    .merge = qn__histogram_merge,
    .finish = finish,
    .release = qn__histogram_release,
};
