/* 8-bit depthwise convolution over a window, channels last, split into rows over the pool. */
#ifndef QN_RUN_OPS_Q8_DEPTHWISE_H
#define QN_RUN_OPS_Q8_DEPTHWISE_H

#include "run/ops/q8_run.h"
#include "run/ops/window.h"

typedef struct qn_q8_depthwise {
    qn_window window; /* oc = c */
    qn_q8_dwconv kernel;
    qn_q8_out format;
    uint8_t flip, zero;    /* what makes bytes unsigned; the zero point's byte before that */
    size_t fold;           /* pixels that the kernel takes for one of so many times the channels */
    size_t phases;         /* the columns of copied rows lie apart by their remainder */
    size_t part_c, part_x; /* channels and outputs of a row that are copied and computed together */
    size_t slots, ring;    /* copied rows; whether they stay until they are overwritten */
    size_t rows;           /* of outputs computed together */
    size_t most_rows;      /* the same in place, at most */
    size_t picture_rows;   /* and where all rows of a picture follow each other */
    size_t parts;          /* of the weights: so many times the rows of a window */
    bool in_place, right;  /* nothing is copied; whether the last window ends behind its row */
    void *memory;          /* own, of what follows; NULL: a model file's */
    qn_multiplier *multipliers; /* own: of fixed, or NULL */
    qn_packed_entry entry;      /* what files keep it under; bytes: its size */
    const int32_t *bias;        /* [fold * c], with what the zero point adds */
    const float *scale;         /* [fold * c] */
    qn_q8_by_fixed fixed;       /* columns: [fold * c] */
    const int8_t *weights;      /* [parts][taps][fold * c] */
} qn_q8_depthwise;

/* Whether windows are small enough for qn__q8_depthwise_run's memory, weights in so many parts. */
bool qn__q8_depthwise_fits(const qn_window *window, size_t parts);
/* What the model file has packed of constant input 1 of the node, in so many parts; false: it has
 * not. Begins `out` either way. salt: as qn__q8_look_up has it. */
bool qn__q8_depthwise_find(const qn_plan *plan, const qn_step *step, const qn_window *window,
                           const qn_qparams *x, const qn_requant *requant, size_t parts,
                           uint64_t salt, qn_q8_depthwise *out);
/* After that. weights: [parts][taps][c]. All is copied. */
qn_status qn__q8_depthwise_prepare(const qn_plan *plan, const qn_step *step, const int8_t *weights,
                                   const qn_requant *requant, qn_q8_depthwise *out,
                                   qn_error *error);
void qn__q8_depthwise_run(const qn_q8_depthwise *depthwise, const void *in, void *out,
                          qn_pool *pool);
void qn__q8_depthwise_free(const qn_context *ctx, qn_q8_depthwise *depthwise);

#endif
