/* Kernels of the stand-alone runtime, linked in place of kernel/kernels_init.c. For size it does
 * without some that the next best one stands in for:
 *   - AVX-512, but for what has VNNI or AMX and for sums of two tensors: the AVX2 ones
 *   - depthwise convolution for AVX-VNNI: as above
 * and without any implementation of what only the toolkit calls: the loops of calibration and of
 * pictures, and those that measure a machine's limit. */
#include <stdbool.h>
#include <string.h>

/* All arguments are literals: the compiler knows the answer and drops the row. */
static inline __attribute__((always_inline)) bool left_out(const char *slot, const char *isa)
{
    if (strcmp(slot, "q8_peak") == 0 || strcmp(slot, "f32_round") == 0 ||
        strcmp(slot, "f32_sums") == 0 || strcmp(slot, "q8_winograd") == 0 ||
        strncmp(slot, "u8_", 3) == 0)
        return true;
    if (strcmp(slot, "f32_ints") == 0 && strcmp(isa, "scalar") == 0) /* never called */
        return true;
    if (strcmp(isa, "avx512") == 0)
        return strcmp(slot, "q8_add") != 0;
    return strcmp(isa, "avxvnni") == 0 && strcmp(slot, "q8_dwconv") == 0;
}

#define QN_LEFT_OUT(slot, isa) left_out(slot, isa)
#include "kernel/kernels_init.h"
