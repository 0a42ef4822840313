/* Multiply-add as the vector units do it, so that float results, and with them ranges and weights
 * chosen on one machine, are those of another. */
#ifndef QN_KERNEL_SCALAR_FUSED_H
#define QN_KERNEL_SCALAR_FUSED_H

#include "kernel/kernel.h"

/* a * b + c rounded once: the product of two floats is exact in double. The sum is rounded to
 * double first, which changes a result about once in 2^29; fmaf without the instruction is far
 * slower. */
static inline float qn_fused(float a, float b, float c)
{
    return (float)((double)a * (double)b + (double)c);
}

#endif
