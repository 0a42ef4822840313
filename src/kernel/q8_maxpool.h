/* --- largest bytes of windows, channels last ----------------------------------------------------
 * A run of n outputs:
 * out[x * channels + c] = the largest of in[x * step + i * row + j * col + c], i < rows, j < cols,
 * and `least`, limited to lo..hi. All of these are bytes in unsigned order: signed ones are given
 * as byte ^ 0x80 with flip 0x80, which is undone in the output; input bytes are stored as they are.
 * No over-read. */
#ifndef QN_KERNEL_Q8_MAXPOOL_H
#define QN_KERNEL_Q8_MAXPOOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct qn_q8_maxpool_args {
    size_t n, channels, rows, cols;
    const uint8_t *in;
    size_t step, row, col;
    uint8_t *out;
    uint8_t flip, least, lo, hi;
} qn_q8_maxpool_args;
typedef void (*qn_q8_maxpool_fn)(const qn_q8_maxpool_args *args);
typedef struct qn_q8_maxpool {
    qn_q8_maxpool_fn fn;
    const char *name;
} qn_q8_maxpool;

#endif
