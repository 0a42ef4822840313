/* Stands in for src/kernel/x86/asm512.h where kernels are emulated. */
#ifndef QN_KERNEL_X86_ASM512_H
#define QN_KERNEL_X86_ASM512_H

#include "multiply_add.h"

EMULATED_MULTIPLY_ADD(512, __m512i)

EMULATED __m512i dpbusd512_mem(__m512i acc, __m512i a, const __m512i *b)
{
    return dpbusd512(acc, a, *b);
}

EMULATED void dpbusd512_row(size_t np, __m512i *acc, const uint8_t *row, const __m512i *b)
{
    int32_t four;
    memcpy(&four, row, sizeof(four));
    for (size_t i = 0; i < np; i++)
        acc[i] = dpbusd512(acc[i], _mm512_set1_epi32(four), b[i]);
}

EMULATED void dpbusd512_row8(__m512i *acc, const uint8_t *row, const __m512i *b)
{
    int64_t eight;
    memcpy(&eight, row, sizeof(eight));
    for (size_t i = 0; i < 3; i++)
        acc[i] = dpbusd512(acc[i], _mm512_set1_epi64(eight), b[i]);
}

EMULATED __m512 load512_here(const void *p)
{
    return _mm512_loadu_ps(p);
}
#endif
