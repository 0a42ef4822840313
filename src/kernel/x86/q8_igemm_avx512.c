/* 8-bit indirect GEMM for AVX-512 without VNNI. */
#include "kernel/x86/q8_avx512.h"

#define MR 8
#define ROWS 32
#define PAIRS 0
#define NP 3
#define WIDE 1
#define DOT(acc, a, b)                                                                             \
    _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)))
#define AND(a, b) _mm512_and_si512(a, b)
#define MADD16(a, b) _mm512_madd_epi16(a, b)
#define SLLI16(a, n) _mm512_slli_epi16(a, n)
#define SRAI16(a, n) _mm512_srai_epi16(a, n)
#define SRLI16(a, n) _mm512_srli_epi16(a, n)
#define IGEMM qn__q8_igemm_8x48_avx512
#include "kernel/x86/q8_igemm_tmpl.h"
