/* Depthwise convolution of channels-last tensors: one filter per channel. */
#ifndef QN_RUN_OPS_CONV_DEPTHWISE_H
#define QN_RUN_OPS_CONV_DEPTHWISE_H

#include "run/ops/window.h"

typedef struct qn_depthwise {
    qn_window window;
    qn_f32_dwconv kernel;
    const float *weights; /* [kh][kw][c], then bias [c] */
    qn_clamp_f32 clamp;
} qn_depthwise;

void qn__depthwise_run(const qn_depthwise *depthwise, const float *in, float *out, qn_pool *pool);

#endif
