/* Rounding that compensates its errors. Weights of one output channel are rounded one after the
 * other; each rounding error is moved, as far as the inputs' second moments allow, onto the weights
 * not yet rounded, so that the layer's output changes least.
 *
 * Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for
 * Generative Pre-trained Transformers" (2022), in the equivalent form of Chee, Cai, Kuleshov, De
 * Sa, "QuIP" (2023), section 3: q_k = round(w_k + sum over j < k of (w_j - q_j) u_jk), where H = U
 * D U^T with U unit upper triangular, H the damped second moment of the inputs. */
#ifndef QN_QUANT_GPTQ_H
#define QN_QUANT_GPTQ_H

#include "kernel/kernel.h"
#include "quant/quant.h"

/* Fields from min_scales to shared_scale are admm's alone (quant/admm.h). */
typedef struct qn_gptq_problem {
    size_t channels;     /* output channels that share the inputs */
    size_t k;            /* weights of one channel */
    const float *w;      /* [channels][k], in the order of the rows' columns */
    const float *scales; /* [channels] */
    qn_levels levels;    /* integers to choose from */
    size_t n_rows;
    size_t row_stride;
    const float *rows;       /* n_rows observed input vectors of k floats */
    bool center;             /* a bias correction removes the mean error: weigh deviations only */
    struct qn_pool *pool;    /* threads to use, or NULL; the result does not depend on them */
    const float *min_scales; /* [channels] smallest that the biases allow, or NULL */
    double slack;            /* 1 or more: squared error allowed, times that of the scales given */
    bool shared_scale;       /* all channels have one scale, which stays */
    bool pairs; /* keep products of columns 2i and 2i+1 inside int16 (quant/saturation.c) */
} qn_gptq_problem;

/* q: [channels][k], levels of the problem; scales are kept. Deterministic for one instruction set.
 */
qn_status qn__gptq_round(const qn_context *ctx, const qn_gptq_problem *problem, float *scales,
                         int8_t *q, qn_error *error);

#endif
