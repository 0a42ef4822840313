/* 8-bit indirect GEMM for AVX2, eight accumulators: 8 rows x 8 columns of safe weights, whose
 * products of two groups of k are added in 16 bits where that is exact; 4 rows x 16 columns
 * otherwise. */
#include "kernel/x86/q8_igemm_avx2.h"

#define MR 8
#define ROWS 128
#define PAIRS 1
#define ADD_PAIR(acc, a0, b0, a1, b1)                                                              \
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_add_epi16(_mm256_maddubs_epi16(a0, b0),         \
                                                             _mm256_maddubs_epi16(a1, b1)),        \
                                            _mm256_set1_epi16(1)))
#define NP 2
#define WIDE 1
#define DOT(acc, a, b)                                                                             \
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#define AND(a, b) _mm256_and_si256(a, b)
#define MADD16(a, b) _mm256_madd_epi16(a, b)
#define SLLI16(a, n) _mm256_slli_epi16(a, n)
#define SRAI16(a, n) _mm256_srai_epi16(a, n)
#define SRLI16(a, n) _mm256_srli_epi16(a, n)
#define IGEMM qn__q8_igemm_8x8_avx2
#include "kernel/x86/q8_igemm_tmpl.h"
