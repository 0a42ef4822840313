/* Unary functions by operator, shared by the float operators and the quantized tables. */
#ifndef QN_RUN_OPS_UNARY_H
#define QN_RUN_OPS_UNARY_H

#include "run/op.h"

typedef struct qn_unary {
    qn_op op;
    float alpha, beta;  /* the operator's own parameters; Clip: bounds */
    bool approximate;   /* Gelu by tanh */
    qn_clamp_f32 clamp; /* fused activation */
    qn_f32_exp_fn exp;
} qn_unary;
/* Parameters from attributes and constant inputs. UNSUPPORTED for other operators. */
qn_status qn__unary_read(const qn_plan *plan, const qn_step *step, qn_unary *out, qn_error *error);
/* dst may be src. */
void qn__unary_f32(const qn_unary *unary, const float *src, float *dst, size_t count);

#endif
