/* Sliding windows over any number of spatial axes, for the operators that are seldom met: 3-D
 * convolutions and pools, LpPool, indices of maxima, weights that are computed. */
#ifndef QN_RUN_OPS_WINDOW_ND_H
#define QN_RUN_OPS_WINDOW_ND_H

#include "run/op.h"

#define QN_ND_AXES (QN_MAX_RANK - 2)

typedef struct qn_window_nd {
    size_t n; /* spatial axes */
    size_t in_count, out_count, taps;
    int64_t in[QN_ND_AXES], out[QN_ND_AXES], kernel[QN_ND_AXES];
    int64_t stride[QN_ND_AXES], dilation[QN_ND_AXES], begin[QN_ND_AXES], end[QN_ND_AXES];
} qn_window_nd;

/* Row-major float32 tensors of rank 3 and more, or quantized ones. kernel: from the weights, or
 * NULL: the attribute. Positions may lie outside the input, also after the last pad. */
qn_status qn__window_nd_read(const qn_step *step, const int64_t *kernel, qn_window_nd *out,
                             qn_error *error);
/* Coordinates of element `index` of an array with these dims. */
void qn__coordinates(size_t index, size_t rank, const int64_t *dims, int64_t *at);

extern const qn_run_op qn__op_pool_nd, qn__op_conv_nd, qn__op_qconv_nd, qn__op_qconv_nd_simulated;
/* What the fast operators leave to these: prepares `step` for the other implementation. */
static inline qn_status qn_prepare_as(const qn_run_op *op, const qn_plan *plan, qn_step *step,
                                      qn_error *error)
{
    step->impl = op;
    return op->prepare(plan, step, error);
}

#endif
