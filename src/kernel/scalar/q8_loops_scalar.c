/* Loops between floats and bytes for the reference. */
#define VBYTES 0
#define QUANTIZE qn__q8_quantize_scalar
#define DEQUANTIZE qn__q8_dequantize_scalar
#define AVGPOOL qn__q8_avgpool_scalar
#include "kernel/q8_loops_tmpl.h"

#include <math.h>

/* Both ways to round rise with x: they are the same where the numbers around all changes are. Those
 * lie a rounding of the quotient, which is at most one of x, from (k + 0.5) * scale. */
static bool rounds_alike(const qn_q8_quantize_args *args)
{
    for (float k = args->lo + 0.5f; k < args->hi; k += 1.0f)
        for (uint32_t i = 0; i < 7; i++) {
            uint32_t bits;
            float x = k * args->scale;
            memcpy(&bits, &x, sizeof(bits));
            bits += i - 3;
            memcpy(&x, &bits, sizeof(bits));
            if (qn_rounded_byte(x / args->scale, 0) !=
                qn_rounded_byte(fmaf(x, args->factor, x * args->rest), 0))
                return false;
        }
    return true;
}

/* The reciprocal as two floats: its quotients are rounded like the true ones unless those lie
 * within 2^-46 of where rounding turns (none of 20,000 scales). */
void qn__q8_quantize_factors(qn_q8_quantize_args *args)
{
    const double reciprocal = 1.0 / (double)args->scale;
    args->factor = (float)reciprocal;
    args->rest = (float)(reciprocal - (double)args->factor);
    if (!rounds_alike(args))
        args->factor = 0.0f;
}

void qn__q8_table_scalar(const uint8_t table[256], const uint8_t *src, uint8_t *dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = table[src[i]];
}
