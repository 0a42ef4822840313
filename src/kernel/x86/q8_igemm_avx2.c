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

typedef uint8_t wide __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint8_t half __attribute__((vector_size(16), aligned(1), may_alias));
#define AT(type, p) (*(const type *)(const void *)(p))

void qn__q8_join_avx2(uint8_t *to, const uint8_t *const from[3], const uint8_t *masks, size_t n)
{
    const uint8_t *a = from[0], *b = from[1], *c = from[2];
    const wide x = AT(wide, masks), y = AT(wide, masks + QN_Q8_JOINED),
               z = AT(wide, masks + 2 * QN_Q8_JOINED);
    const half u = AT(half, masks + 32), v = AT(half, masks + QN_Q8_JOINED + 32),
               w = AT(half, masks + 2 * QN_Q8_JOINED + 32);
    for (size_t i = 0; i < n; i += QN_Q8_JOINED) {
        *(wide *)(void *)(to + i) =
            (AT(wide, a + i) & x) | (AT(wide, b + i) & y) | (AT(wide, c + i) & z);
        *(half *)(void *)(to + i + 32) =
            (AT(half, a + i + 32) & u) | (AT(half, b + i + 32) & v) | (AT(half, c + i + 32) & w);
    }
}

void qn__spaced_rows_avx2(const uint8_t **a, const uint8_t *first, size_t step, size_t n)
{
    typedef uint64_t pointers __attribute__((vector_size(32), aligned(8), may_alias));
    const uint64_t at = (uint64_t)(uintptr_t)first;
    pointers low = {at, at + step, at + 2 * step, at + 3 * step}, high = low + 4 * step;
    for (size_t i = 0; i < n; i += 8, low += 8 * step, high += 8 * step) {
        *(pointers *)(void *)(a + i) = low;
        *(pointers *)(void *)(a + i + 4) = high;
    }
}
