/* 8-bit convolution by Winograd's algorithm for AVX-512: 12 tiles x 32 columns. */
#include "kernel/x86/q8_winograd_avx512.h"

#define DOT(acc, a, b) _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
#define INPUTS qn__q8_winograd_inputs_avx512
#define OUTPUTS qn__q8_winograd_avx512
#include "kernel/x86/q8_winograd_tmpl.h"
