/* Constant quantized weights as centred float integers, with their scales and the bias in int32. */
#ifndef QN_RUN_OPS_QWEIGHTS_H
#define QN_RUN_OPS_QWEIGHTS_H

#include "run/ops/qcore.h"

typedef struct qn_qweights {
    float *values;        /* q - zero, row-major as the tensor */
    const int8_t *bytes;  /* the same where the tensor's own bytes are just that, or NULL */
    int32_t max;          /* largest magnitude */
    bool fits_i8;         /* every value is in -128..127 */
    uint8_t parts;        /* once known: so many of -128..127 add up to each; 0: more than three */
    float *scale;         /* [columns] s_x * s_w, over s_y for quantized output */
    int32_t *bias;        /* [columns] */
    qn_multiplier *fixed; /* [columns], or NULL: requantization by floats, or no quantized output */
    bool is_signed;
} qn_qweights;
/* axis: of the weight tensor, whose index is the output column; columns: their number over all
 * groups. Scales are multiplied by alpha. bias_input: UINT32_MAX none. */
qn_status qn__qweights_read(const qn_plan *plan, const qn_step *step, uint32_t input, int axis,
                            size_t columns, const qn_qparams *x, float alpha, uint32_t bias_input,
                            qn_qweights *out, qn_error *error);
/* The two halves of it: scales and bias (and bytes), values NULL; then the values, with max,
 * fits_i8 and parts. */
qn_status qn__qweights_scales(const qn_plan *plan, const qn_step *step, uint32_t input, int axis,
                              size_t columns, const qn_qparams *x, float alpha, uint32_t bias_input,
                              qn_qweights *out, qn_error *error);
qn_status qn__qweights_values(const qn_plan *plan, const qn_step *step, uint32_t input, int axis,
                              qn_qweights *weights, qn_error *error);
/* Once packed, the values themselves are not needed any more. */
void qn__qweights_drop_values(const qn_context *ctx, qn_qweights *w);
void qn__qweights_free(const qn_context *ctx, qn_qweights *w);
/* Requantization of the node's output with these scales; fixed: NULL, or their multipliers. */
qn_status qn__qoutput(const qn_plan *plan, const qn_step *step, const float *scale,
                      const int32_t *bias, const qn_multiplier *fixed, qn_requant *out, float *s_y,
                      qn_error *error);
/* Multiplier of a real number, as the plan requantizes; UNSUPPORTED where there is none. */
qn_status qn__qfixed(const qn_plan *plan, const qn_step *step, double real, qn_multiplier *out,
                     qn_error *error);

#endif
