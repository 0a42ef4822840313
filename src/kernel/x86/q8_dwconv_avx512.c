/* 8-bit depthwise convolution for AVX-512 without VNNI. */
#include "kernel/x86/q8_avx512.h"

#define DOT16(acc, a, b) _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
#include "kernel/x86/q8_dwconv_tmpl.h"

void qn__q8_dwconv_avx512(const qn_q8_dwconv_args *args)
{
    dwconv_small(args);
    _mm256_zeroupper();
}
