/* Loops between floats and bytes for the reference. */
#define VBYTES 0
#define QUANTIZE qn__q8_quantize_scalar
#define DEQUANTIZE qn__q8_dequantize_scalar
#define AVGPOOL qn__q8_avgpool_scalar
#include "kernel/q8_loops_tmpl.h"

void qn__q8_table_scalar(const uint8_t table[256], const uint8_t *src, uint8_t *dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = table[src[i]];
}
