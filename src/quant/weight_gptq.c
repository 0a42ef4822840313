/* Steps of the largest magnitude, as max_abs, at 8 bits; at fewer, where a channel's outliers cost
 * all others their steps, the steps of least squared error, as admm. The rounding itself is
 * quant/gptq.c's. */
#include "quant/gptq.h"

enum { FINE = 64 /* levels above zero from which on outliers may set the steps */ };

static bool scale(const qn_context *ctx, const float *w, size_t count, const qn_levels *levels,
                  float *out)
{
    return (levels->qmax >= FINE ? qn__weight_max_abs : qn__weight_admm)
        .scale(ctx, w, count, levels, out);
}

const qn_weight_method qn__weight_gptq = {
    .name = "gptq",
    .summary =
        "rounding errors are moved onto other weights by the inputs' correlation (Frantar et "
        "al. 2022)",
    .scale = scale,
    .round = qn__gptq_round,
};
