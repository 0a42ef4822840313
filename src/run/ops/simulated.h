/* Quantized Conv, Gemm and MatMul: what their kernels on bytes and their simulation share. */
#ifndef QN_RUN_OPS_SIMULATED_H
#define QN_RUN_OPS_SIMULATED_H

#include "run/ops/broadcast.h"
#include "run/ops/qweights.h"
#include "run/ops/window.h"
#include "run/ops/window_nd.h"

typedef struct qn_qconv_shape {
    qn_window win;
    size_t groups, cin, cout; /* channels of one group */
    bool depthwise;           /* a channel in, a channel out */
} qn_qconv_shape;
qn_status qn__qconv_shape(const qn_step *step, qn_qconv_shape *out, qn_error *error);

/* Over three axes and more. */
typedef struct qn_qconv_nd_shape {
    qn_window_nd w;
    size_t n, c, oc, groups, cin, cout; /* cin, cout: of one group */
} qn_qconv_nd_shape;
qn_status qn__qconv_nd_shape(const qn_step *step, qn_qconv_nd_shape *out, qn_error *error);

/* ConvTranspose as its node says, and the layouts it wants. */
typedef struct qn_qconv_transpose {
    qn_qconv_shape shape;
    qn_qparams x;
    qn_qweights weights; /* [c][cout][kh][kw] */
    qn_requant requant;
} qn_qconv_transpose;
qn_status qn__qconv_transpose_read(const qn_plan *plan, qn_step *step, qn_qconv_transpose *out,
                                   qn_error *error);

/* Matrices a [m][k] and b [k][n]. */
typedef struct qn_qgemm_shape {
    size_t m, n, k, batches;
    size_t a_count, b_count; /* elements of the whole inputs */
    bool trans_a, trans_b, constant_b;
    qn_broadcast batch; /* two activations: matrices of a and b for each output matrix */
} qn_qgemm_shape;
qn_status qn__qgemm_shape(const qn_step *step, qn_qgemm_shape *out, qn_error *error);
/* Matrices of a and b that output matrix i is made of. */
void qn__qgemm_matrices(const qn_qgemm_shape *shape, size_t i, size_t *a, size_t *b);
/* Scales and their multipliers of a product of two activations, one for all of n columns: of which
 * *scale and *fixed, or NULL, are made. */
qn_status qn__qgemm_scales(const qn_plan *plan, const qn_step *step, size_t n, const qn_qparams *a,
                           const qn_qparams *b, float **scale, qn_multiplier **fixed,
                           qn_requant *requant, qn_error *error);

/* Whether int16 sums are to saturate, which kernels on bytes do not. */
static inline bool qn_saturates(const qn_plan *plan, const qn_tensor *w)
{
    return qn__plan_get_options(plan)->saturate16 && w->type.kind == QN_TYPE_QUANT &&
           w->type.quant->is_signed;
}
/* Has the simulation of its operator do the step. */
qn_status qn__prepare_simulated(const qn_plan *plan, qn_step *step, qn_error *error);

#endif
