/* 8-bit depthwise convolution over a window, channels last, split into rows over the pool. */
#ifndef QN_RUN_OPS_Q8_DEPTHWISE_H
#define QN_RUN_OPS_Q8_DEPTHWISE_H

#include "run/ops/window.h"

typedef struct qn_q8_depthwise {
    qn_window window; /* oc = c */
    qn_q8_dwconv kernel;
    const int8_t *weights; /* [taps][c] */
    const int32_t *bias;   /* [c] */
    const float *scale;    /* [c] */
    bool in_signed;
    int32_t in_zero;
    qn_q8_out format;
} qn_q8_depthwise;
void qn__q8_depthwise_run(const qn_q8_depthwise *depthwise, const void *in, void *out,
                          qn_pool *pool);

#endif
