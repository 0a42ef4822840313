/* Loops between floats and bytes for AVX2. */
#include "kernel/x86/q8_loops_x86.h"
#define DIVIDED 32
#define VBYTES 32
#define QUANTIZE qn__q8_quantize_avx2
#define DEQUANTIZE qn__q8_dequantize_avx2
#define AVGPOOL qn__q8_avgpool_avx2
#include "kernel/q8_loops_tmpl.h"
