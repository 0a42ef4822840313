/* Loops between floats and bytes for AVX-512. */
#define FMA(x, y, z) __builtin_fmaf(x, y, z)
#define DIVIDED 0
#define VBYTES 64
#define QUANTIZE qn__q8_quantize_avx512
#define DEQUANTIZE qn__q8_dequantize_avx512
#define AVGPOOL qn__q8_avgpool_avx512
#include "kernel/q8_loops_tmpl.h"
