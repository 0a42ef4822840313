/* Blocks of the EMA method: a convolution with constant weights, the BatchNorm that alone reads it,
 * the ReLU or ReLU6 that alone reads that. ema.c finds and measures them, ema_document.c writes
 * them. */
#ifndef QN_MNNTOOL_EMA_H
#define QN_MNNTOOL_EMA_H

#include "calib/train.h"
#include "mnntool/tool.h"

#define QN_EMA_NO_OP SIZE_MAX

typedef struct qn_ema_block {
    size_t conv, norm, act; /* operators (Net.oplists); norm, act: QN_EMA_NO_OP */
    const qn_node *node;    /* the graph's Conv */
    const qn_node *norm_node;
    uint32_t in, out; /* MNN tensor ids */
    size_t rows, columns;
    const float *weights; /* [rows * columns] of the graph */
    const qn_range *range_in, *range_out;
} qn_ema_block;

typedef struct qn_ema {
    const qn_mnn_run *run;
    qn_arena arena;
    qn_ema_block *blocks;
    size_t n_blocks;
    int32_t levels; /* of weights: 2^(bits - 1) - 1 */
    qn_train_result result;
} qn_ema;

/* Scale of each row and its integers, half away from zero. */
void qn__ema_round_rows(const float *weights, size_t rows, size_t columns, int32_t levels,
                        float *scales, int8_t *q);
/* The source document with the blocks in integers and records of `scales`. */
qn_status qn__ema_document(const qn_ema *ema, const qn_mnn_scales *scales, qn_fb_document *out,
                           qn_error *error);

#endif
