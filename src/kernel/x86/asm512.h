/* Multiply-adds of 512 bits as statements in assembly (see asm256.h): the intrinsics of gcc 12 for
 * VNNI copy every accumulator, and half of them then live on the stack. */
#ifndef QN_KERNEL_X86_ASM512_H
#define QN_KERNEL_X86_ASM512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

static inline __attribute__((always_inline)) __m512i dpbusd512(__m512i acc, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

/* With weights in memory. */
static inline __attribute__((always_inline)) __m512i dpbusd512_mem(__m512i acc, __m512i a,
                                                                   const __m512i *b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "m"(*b));
    return acc;
}

static inline __attribute__((always_inline)) __m512i dpwssd512(__m512i acc, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

/* dpbusd of four bytes of a row and of np vectors of weights, 1 to 4. A row at once: compilers
 * given single multiply-adds copy some accumulators in every step. */
static inline __attribute__((always_inline)) void
dpbusd512_row(const size_t np, __m512i *acc, const uint8_t *row, const __m512i *b)
{
    __m512i a;
    if (np == 1)
        __asm__("vpbroadcastd %2, %1\n\tvpdpbusd %3, %1, %0"
                : "+v"(acc[0]), "=&v"(a)
                : "m"(*(const int32_t(*)[1])row), "v"(b[0]));
    else if (np == 2)
        __asm__("vpbroadcastd %3, %2\n\tvpdpbusd %4, %2, %0\n\tvpdpbusd %5, %2, %1"
                : "+v"(acc[0]), "+v"(acc[1]), "=&v"(a)
                : "m"(*(const int32_t(*)[1])row), "v"(b[0]), "v"(b[1]));
    else if (np == 3)
        __asm__("vpbroadcastd %4, %3\n\tvpdpbusd %5, %3, %0\n\tvpdpbusd %6, %3, %1\n\t"
                "vpdpbusd %7, %3, %2"
                : "+v"(acc[0]), "+v"(acc[1]), "+v"(acc[2]), "=&v"(a)
                : "m"(*(const int32_t(*)[1])row), "v"(b[0]), "v"(b[1]), "v"(b[2]));
    else
        __asm__("vpbroadcastd %5, %4\n\tvpdpbusd %6, %4, %0\n\tvpdpbusd %7, %4, %1\n\t"
                "vpdpbusd %8, %4, %2\n\tvpdpbusd %9, %4, %3"
                : "+v"(acc[0]), "+v"(acc[1]), "+v"(acc[2]), "+v"(acc[3]), "=&v"(a)
                : "m"(*(const int32_t(*)[1])row), "v"(b[0]), "v"(b[1]), "v"(b[2]), "v"(b[3]));
}

/* dpbusd of eight bytes of a row, of which lanes take four in turn, and of three vectors. */
static inline __attribute__((always_inline)) void dpbusd512_row8(__m512i acc[3], const uint8_t *row,
                                                                 const __m512i b[3])
{
    __m512i a;
    __asm__("vpbroadcastq %4, %3\n\tvpdpbusd %5, %3, %0\n\tvpdpbusd %6, %3, %1\n\t"
            "vpdpbusd %7, %3, %2"
            : "+v"(acc[0]), "+v"(acc[1]), "+v"(acc[2]), "=&v"(a)
            : "m"(*(const int64_t(*)[1])row), "v"(b[0]), "v"(b[1]), "v"(b[2]));
}

static inline __attribute__((always_inline)) __m512i dpbusd512_step(__m512i acc, __m512i a,
                                                                    __m512i b)
{
    __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

static inline __attribute__((always_inline)) __m512i maddubs512_step(__m512i acc, __m512i ones8,
                                                                     __m512i ones16)
{
    __m512i pairs;
    __asm__ volatile("vpmaddubsw %2, %2, %1\n\tvpmaddwd %3, %1, %1\n\tvpaddd %1, %0, %0"
                     : "+v"(acc), "=&v"(pairs)
                     : "v"(ones8), "v"(ones16));
    return acc;
}

/* A load that stays where it is, in a register of its own: as an operand of what it is for it takes
 * a third of another instruction. */
static inline __attribute__((always_inline)) __m512 load512_here(const void *p)
{
    __m512 v;
    __asm__ volatile("vmovups %1, %0" : "=v"(v) : "m"(*(const float(*)[16])p));
    return v;
}

#endif
