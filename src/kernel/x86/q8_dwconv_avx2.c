/* 8-bit depthwise convolution for AVX2. */
#include "kernel/x86/q8_dwconv_avx2.h"

#define DOT16(acc, a, b) _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
#include "kernel/x86/q8_dwconv_tmpl.h"

void qn__q8_dwconv_avx2(const qn_q8_dwconv_args *args)
{
    dwconv_small(args);
    _mm256_zeroupper();
}
