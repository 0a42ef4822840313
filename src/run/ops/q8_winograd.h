/* Quantized convolution by Winograd's algorithm (kernel/q8_winograd.h): the bytes of the GEMM
 * (q8_conv.h) with a quarter of its products, where kernels have nothing better than pairs of 16
 * bits. Weights take eight times the memory. */
#ifndef QN_RUN_OPS_Q8_WINOGRAD_H
#define QN_RUN_OPS_Q8_WINOGRAD_H

#include "run/ops/qweights.h"
#include "run/ops/window.h"

typedef struct qn_q8_wino {
    qn_q8_winograd kernel;
    qn_window window;
    uint8_t *packed;                /* NULL: not this way */
    uint8_t *zeros;                 /* [c] zero points */
    size_t tiles_y, tiles_x, tiles; /* of a picture; of all */
    size_t block; /* tiles that a task transforms for itself; 0: all threads in turns, in scratch */
} qn_q8_wino;

/* Whether the node is computed so; then packs its weights and sets what qn__q8_conv_prepare does.
 * Before that *out is zeros, and stays so where packed is NULL. requant stays borrowed. */
qn_status qn__q8_wino_prepare(const qn_plan *plan, qn_step *step, const qn_window *window,
                              size_t groups, const qn_qparams *x, qn_qweights *weights,
                              const qn_requant *requant, qn_q8_wino *out, qn_error *error);
void qn__q8_wino_run(const qn_q8_wino *s, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, const qn_requant *requant);
void qn__q8_wino_free(const qn_context *ctx, qn_q8_wino *s);

#endif
