/* Cuts off the rarest large values: at most 0.01 % of all values lie outside. A tensor with values
 * on both sides of zero loses half of that on each side. */
#include "calib/histogram.h"

#include <math.h>

#define OUTSIDE_SHARE 1e-4

/* Distance from zero that leaves `outside` of the side's values beyond it, linear inside a bin. */
static double cut(const uint64_t *bins, size_t n, double width, double outside)
{
    double beyond = 0;
    for (size_t i = n; i-- > 0;) {
        const double c = (double)bins[i];
        if (beyond + c > outside)
            return width * ((double)i + 1.0 - (outside - beyond) / c);
        beyond += c;
    }
    return 0;
}

static qn_status finish(const qn_context *ctx, const void *state, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error)
{
    (void)batch;
    qn_bins b;
    qn__histogram_range(state, out);
    if (!out->valid)
        return QN_OK;
    QN_TRY(qn__bins_create(ctx, state, QN_HISTOGRAM_BINS, &b, error));
    const double total = (double)out->count * OUTSIDE_SHARE;
    if (format->symmetric) {
        for (size_t i = 0; i < b.n; i++)
            b.pos[i] += b.neg[i];
        const float t = (float)cut(b.pos, b.n, b.width, total);
        qn_range_cut(out, t, t);
    } else {
        const double share = b.n_pos > 0 && b.n_neg > 0 ? total / 2 : total;
        const double above = cut(b.pos, b.n, b.width, share);
        const double below = cut(b.neg, b.n, b.width, share);
        qn_range_cut(out, (float)below, (float)above);
    }
    qn__bins_free(&b);
    return QN_OK;
}

const qn_feature_method qn__feature_percentile = {
    .name = "percentile",
    .summary = "range that leaves 0.01 % of the values outside",
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
