/* 8-bit depthwise convolution for AVX2 with VNNI: two products and their sum at once. */
#include "kernel/x86/q8_dwconv_avx2.h"

static inline __attribute__((always_inline)) __m256i dpwssd(__m256i acc, __m256i a, __m256i b)
{
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
    return acc;
}

#define DOT16(acc, a, b) dpwssd(acc, a, b)
#include "kernel/x86/q8_dwconv_tmpl.h"

void qn__q8_dwconv_avxvnni(const qn_q8_dwconv_args *args)
{
    dwconv_small(args);
    _mm256_zeroupper();
}
