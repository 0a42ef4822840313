/* 8-bit indirect GEMM for AVX-512 with VNNI: vpdpbusd is exact for all weights. A full tile is 8
 * rows x 48 columns as in the float kernel: 24 accumulators for 11 loads. */
#include "kernel/x86/q8_avx512.h"

/* The intrinsic of gcc 12 copies every accumulator, and half of them then live on the stack. */
static inline __attribute__((always_inline)) __m512i dpbusd(__m512i acc, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

/* A row at once: compilers given single multiply-adds copy some accumulators in every step. */
static inline __attribute__((always_inline)) void dot_row(const size_t np, __m512i acc[3],
                                                          const uint8_t *row, const __m512i b[3])
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
    else
        __asm__("vpbroadcastd %4, %3\n\tvpdpbusd %5, %3, %0\n\tvpdpbusd %6, %3, %1\n\t"
                "vpdpbusd %7, %3, %2"
                : "+v"(acc[0]), "+v"(acc[1]), "+v"(acc[2]), "=&v"(a)
                : "m"(*(const int32_t(*)[1])row), "v"(b[0]), "v"(b[1]), "v"(b[2]));
}

#define MR 8
#define DOT_ROW(np, acc, row, b) dot_row(np, acc, row, b)
#define PAIRS 0
#define NP 3
#define WIDE 0
#define DOT(acc, a, b) dpbusd(acc, a, b)
#define IGEMM qn__q8_igemm_8x48_vnni
#include "kernel/x86/q8_igemm_tmpl.h"
