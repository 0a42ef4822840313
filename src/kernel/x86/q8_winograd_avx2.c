/* 8-bit convolution by Winograd's algorithm for AVX2: 6 tiles x 16 columns, 24
 * instructions for 192 products. */
#include "kernel/x86/q8_winograd_avx2.h"

#define DOT(acc, a, b) _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
#define INPUTS qn__q8_winograd_inputs_avx2
#define OUTPUTS qn__q8_winograd_avx2
#include "kernel/x86/q8_winograd_tmpl.h"
