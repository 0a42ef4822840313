/* 8-bit depthwise convolution for AVX-512 with VNNI: two products and their sum at once. */
#include "kernel/x86/q8_avx512.h"

/* See the GEMM: the intrinsic copies its accumulator. */
static inline __attribute__((always_inline)) __m512i dpwssd(__m512i acc, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

#define DOT16(acc, a, b) dpwssd(acc, a, b)
#define DWCONV qn__q8_dwconv_vnni
#include "kernel/x86/q8_dwconv_tmpl.h"
