/* Loops between floats and bytes for AVX2. */
#include "kernel/x86/q8_igemm_avx2.h"
#define FMAF(a, b, c) _mm256_fmadd_ps(a, b, c)
#define DIVF(a, b) _mm256_div_ps(a, b)
#include "kernel/x86/q8_loops_x86.h"
#undef BLOCK
#define VBYTES 32
#define QUANTIZE qn__q8_quantize_avx2
#define DEQUANTIZE qn__q8_dequantize_avx2
#define AVGPOOL qn__q8_avgpool_avx2
#include "kernel/q8_loops_tmpl.h"
