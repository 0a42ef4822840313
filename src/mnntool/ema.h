/* Blocks of the EMA method: a convolution with constant weights, the BatchNorm that alone reads it,
 * the ReLU or ReLU6 that alone reads that. ema.c finds and measures them, ema_winograd.c
 * looks at those that MNN simulates in Winograd's form, ema_document.c writes them. */
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
    struct qn_ema_winograd *winograd; /* NULL: a plain convolution */
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
/* ema_winograd.c: sets b->winograd where MNN simulates Winograd. samples: most of a batch.
 * *other_pads is set where MNN does so with pads that the convolution does not have. */
qn_status qn__ema_winograd(qn_ema *e, qn_ema_block *b, size_t samples, bool *other_pads,
                           qn_error *error);
const qn_train_look *qn__ema_winograd_look(const struct qn_ema_winograd *winograd);
/* symmetricQuan.winogradAttr; lives as long as e->arena. */
qn_status qn__ema_winograd_attr(qn_ema *e, const qn_ema_block *b, const int32_t **out,
                                size_t *count, qn_error *error);
/* The source document with the blocks in integers and records of `scales`. */
qn_status qn__ema_document(qn_ema *ema, const qn_mnn_scales *scales, qn_fb_document *out,
                           qn_error *error);

#endif
