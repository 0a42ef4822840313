/* What preparing and running a depthwise convolution both know. */
#ifndef QN_RUN_OPS_Q8_DEPTHWISE_SIZES_H
#define QN_RUN_OPS_Q8_DEPTHWISE_SIZES_H

#include "run/ops/q8_depthwise.h"

/* Bytes of copied rows, within the first-level cache; rows of them; rows of outputs computed at
 * once; taps of a window along an axis. In place more rows, of few bytes, are computed at once. */
enum {
    QN_Q8_DW_ROOM = 32 << 10,
    QN_Q8_DW_SLOTS = 40,
    QN_Q8_DW_ROWS = 8,
    QN_Q8_DW_SMALL_ROWS = 28,
    QN_Q8_DW_TAPS = 32
};
/* Rows lie at multiples of this. */
enum { QN_Q8_DW_ALIGN = 64 };

/* Input columns under n outputs. */
static inline size_t qn_q8_dw_columns(const qn_window *w, size_t n)
{
    return (n - 1) * w->sw + (w->kw - 1) * w->dw + 1;
}

/* Channels of sums that are requantized at once: what a kernel takes together, or all. */
static inline size_t qn_q8_dw_fixed_channels(const qn_q8_depthwise *d, size_t channels)
{
    const size_t block = d->kernel.block > QN_Q8_SUMS_STEP ? d->kernel.block : QN_Q8_SUMS_STEP;
    return block < channels ? block : channels;
}

/* Rows of outputs that are computed at once in place, of `rows` that follow each other: shares of
 * about the same size. Kernels may take two at once. */
static inline size_t qn_q8_dw_even_rows(const qn_q8_depthwise *d, size_t rows)
{
    return qn_round_up(qn_div_up(rows, qn_div_up(rows, d->most_rows)), 2);
}

#endif
