/* Loops between floats and bytes for NEON. */
#define VBYTES 16
#define QUANTIZE qn__q8_quantize_neon
#define DEQUANTIZE qn__q8_dequantize_neon
#define AVGPOOL qn__q8_avgpool_neon
#include "kernel/q8_loops_tmpl.h"
