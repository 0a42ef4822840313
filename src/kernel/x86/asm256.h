/* Multiply-adds of 256 bits as statements in assembly; with asm512.h all there are. Where kernels
 * are emulated (tests/kernel) another header of this name stands here.
 *
 * dpbusd: unsigned bytes of a times signed ones of b, dpwssd: words, added to the lanes of acc.
 * Without {vex} the assembler takes the AVX-512 form. The steps for measuring are volatile: equal
 * chains stay apart. */
#ifndef QN_KERNEL_X86_ASM256_H
#define QN_KERNEL_X86_ASM256_H

#include <immintrin.h>

static inline __attribute__((always_inline)) __m256i dpbusd256(__m256i acc, __m256i a, __m256i b)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
    return acc;
}

static inline __attribute__((always_inline)) __m256i dpwssd256(__m256i acc, __m256i a, __m256i b)
{
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
    return acc;
}

static inline __attribute__((always_inline)) __m256i dpbusd256_step(__m256i acc, __m256i a,
                                                                    __m256i b)
{
    __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
    return acc;
}

static inline __attribute__((always_inline)) __m256i maddubs256_step(__m256i acc, __m256i ones8,
                                                                     __m256i ones16)
{
    __m256i pairs;
    __asm__ volatile("vpmaddubsw %2, %2, %1\n\tvpmaddwd %3, %1, %1\n\tvpaddd %1, %0, %0"
                     : "+x"(acc), "=&x"(pairs)
                     : "x"(ones8), "x"(ones16));
    return acc;
}

#endif
