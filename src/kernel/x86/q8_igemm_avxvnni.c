/* 8-bit indirect GEMM for AVX2 with VNNI: 6 rows x 16 columns. */
#include "kernel/x86/q8_igemm_avx2.h"

/* As in the kernels for AVX-512; without {vex} the assembler takes the AVX-512 form. */
static inline __attribute__((always_inline)) __m256i dpbusd(__m256i acc, __m256i a, __m256i b)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
    return acc;
}

#define MR 6
#define PAIRS 0
#define NP 2
#define WIDE 0
#define DOT(acc, a, b) dpbusd(acc, a, b)
#define IGEMM qn__q8_igemm_6x16_avxvnni
#include "kernel/x86/q8_igemm_tmpl.h"
