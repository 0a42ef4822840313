/* 8-bit convolution by Winograd's algorithm for AVX2: 24 instructions for 192 products. */
#define DOT(acc, a, b) _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
#define INPUTS qn__q8_winograd_inputs_avx2
#define OUTPUTS qn__q8_winograd_avx2
#include "kernel/x86/q8_winograd_tmpl.h"
