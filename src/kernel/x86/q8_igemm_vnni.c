/* 8-bit indirect GEMM for AVX-512 with VNNI: vpdpbusd is exact for all weights. A full tile is 8
 * rows x 48 columns as in the float kernel: 24 accumulators for 11 loads. */
#include "kernel/x86/q8_avx512.h"

/* The intrinsic of gcc 12 copies every accumulator, and half of them then live on the stack. */
static inline __attribute__((always_inline)) __m512i dpbusd(__m512i acc, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

#define MR 8
#define PAIRS 0
#define NP 3
#define WIDE 0
#define DOT(acc, a, b) dpbusd(acc, a, b)
#define IGEMM qn__q8_igemm_8x48_vnni
#include "kernel/x86/q8_igemm_tmpl.h"
