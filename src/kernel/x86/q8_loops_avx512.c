/* Loops between floats and bytes for AVX-512. */
#include "kernel/x86/q8_loops_x86.h"
#define DIVIDED 0
#define VBYTES 64
#define QUANTIZE qn__q8_quantize_avx512
#define DEQUANTIZE qn__q8_dequantize_avx512
#define AVGPOOL qn__q8_avgpool_avx512
#include "kernel/q8_loops_tmpl.h"
