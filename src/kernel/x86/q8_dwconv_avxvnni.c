/* 8-bit depthwise convolution for AVX2 with VNNI: two products and their sum at once. */
#include "kernel/x86/asm256.h"
#include "kernel/x86/q8_dwconv_avx2.h"

#define DOT16(acc, a, b) dpwssd256(acc, a, b)
#include "kernel/x86/q8_dwconv_tmpl.h"

void qn__q8_dwconv_avxvnni(const qn_q8_dwconv_args *args)
{
    dwconv_small(args);
    _mm256_zeroupper();
}
