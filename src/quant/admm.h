/* Levels and scales of least error of a layer's output, by the alternating direction method of
 * multipliers. Source: Leng, Dou, Li, Zhu, Jin, "Extremely Low Bit Neural Network: Squeeze the Last
 * Bit Out with ADMM" (AAAI 2018), section 3. There f is the training loss; here, after training, it
 * is the error of the layer's output on sampled inputs,
 *
 *     f(w) = (w - w0)^T H (w - w0) / 2,   H the damped second moment of the inputs,
 *
 * whose proximal step is exact (a linear system) where the paper takes gradient steps:
 *
 *     w <- argmin f(w) + rho / 2 ||w - g + u||^2 = w0 + rho (H + rho I)^-1 (g - u - w0)
 *     g <- the nearest s q to w + u, s and q in turn
 *     u <- u + w - g
 *
 * Of all g that come by, and of what changing single weights makes of the last, the one with the
 * least f is kept whose squared distance to w0 is at most `slack` times that of the start: with
 * max_abs's error over the start's, a layer as a whole is never further from its weights than with
 * max_abs. The way is gone several times, with more and more damping, for channels that leave these
 * bounds. */
#ifndef QN_QUANT_ADMM_H
#define QN_QUANT_ADMM_H

#include "quant/gptq.h"

/* scales: [channels], in: where to start, with the levels nearest to w; out: what belongs to q.
 * With shared_scale all channels keep theirs. q: [channels][k]. */
qn_status qn__admm_round(const qn_context *ctx, const qn_gptq_problem *problem, float *scales,
                         int8_t *q, qn_error *error);

#endif
