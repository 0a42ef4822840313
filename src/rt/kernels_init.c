/* Kernels of the stand-alone runtime, linked in place of kernel/kernels_init.c. For size it does
 * without 8-bit products for AVX-512 that has no VNNI (such CPUs use the AVX2 ones: the same bytes)
 * and without the loops that measure a machine's limit. */
/* Comparing literals is done by the compiler, which then drops the row. */
#define QN_LEFT_OUT(slot, isa)                                                                     \
    (__builtin_strcmp(slot, "q8_peak") == 0                                                        \
         ? __builtin_strcmp(isa, "scalar") != 0                                                    \
         : __builtin_strcmp(isa, "avx512") == 0 && (__builtin_strcmp(slot, "q8_igemm") == 0 ||     \
                                                    __builtin_strcmp(slot, "q8_dwconv") == 0))
#include "kernel/kernels_init.h"
