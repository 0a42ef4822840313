/* Padded copies of pictures of bytes, which convolutions read as rows of taps. */
#ifndef QN_RUN_OPS_Q8_PADDED_H
#define QN_RUN_OPS_Q8_PADDED_H

#include "run/op.h"

/* Of each picture blocks of as many rows as windows move down, one for each row of outputs at
 * least. In front of the pixels of a row and behind them is room for their padding, in whole
 * vectors, and what may be read with it: that is not written, and meets weights of zero. Behind the
 * rows of a block comes one of `tails` (qn_q8_conv.spread). */
typedef struct qn_q8_padded {
    size_t front, back, pitch; /* bytes in front of pixels, behind them, and of the whole row */
    size_t before, behind;     /* what of it is written */
    size_t tails_at, block;    /* bytes to the row of tails, and of a block */
    size_t rows, blocks;       /* of a block, and of a picture */
    size_t top, h, all;        /* rows above a picture, its own, and with those below it */
    size_t row;                /* bytes of its own in a row */
} qn_q8_padded;

enum { QN_Q8_VECTOR = 16 };

/* Writes n rows from number `first` of all pictures on to `rows`. */
typedef void (*qn_q8_put_rows)(const void *ctx, size_t first, uint8_t *const *rows, size_t n);
/* Writes blocks `begin` to `end` of all pictures: padding of zero, the rest with `put`. to: where
 * block `begin` goes. */
void qn__q8_pad(const qn_q8_padded *p, uint8_t *to, size_t begin, size_t end, uint8_t zero,
                qn_q8_put_rows put, const void *ctx);

/* A QuantizeLinear that leaves its work to the step that reads it (qn_step.makes_rows): what
 * qn__q8_quantize_rows has as ctx. */
typedef struct qn_quantized_rows {
    const qn_step *step;
    const qn_view *in;
    size_t row; /* bytes of rows of pictures */
} qn_quantized_rows;
void qn__q8_quantize_rows(const void *ctx, size_t first, uint8_t *const *rows, size_t n);

#endif
