/* Loops between floats and bytes for AVX-512. */
#include "kernel/x86/q8_avx512.h"
#define FMAF(a, b, c) _mm512_fmadd_ps(a, b, c)
#define DIVF(a, b) _mm512_div_ps(a, b)
#include "kernel/x86/q8_loops_x86.h"
#undef BLOCK
#define VBYTES 64
#define QUANTIZE qn__q8_quantize_avx512
#define DEQUANTIZE qn__q8_dequantize_avx512
#define AVGPOOL qn__q8_avgpool_avx512
#include "kernel/q8_loops_tmpl.h"
