/* --- what no 8-bit kernel can exceed -------------------------------------------------------------
 * n times `macs` multiply-adds of bytes into 32 bits, in independent chains of registers, with the
 * instruction that the fastest kernels of the set use. All factors are 1: the result is the sum of
 * all sums, n * macs modulo 2^32. */
#ifndef QN_KERNEL_Q8_PEAK_H
#define QN_KERNEL_Q8_PEAK_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*qn_q8_peak_fn)(size_t n);
typedef struct qn_q8_peak {
    qn_q8_peak_fn fn;
    size_t macs;
    const char *instruction;
    const char *name;
} qn_q8_peak;

#endif
