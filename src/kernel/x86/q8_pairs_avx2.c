#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

static inline bool no_sum_over(const uint8_t *a, const uint8_t *b, int most)
{
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)a);
    const __m256i y = _mm256_loadu_si256((const __m256i *)(const void *)b);
    const __m256i over = _mm256_subs_epu8(x, _mm256_sub_epi8(_mm256_set1_epi8((char)most), y));
    return _mm256_testz_si256(over, over) != 0;
}

static inline __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Sums of eight lanes, of four vectors at a time. */
static inline void halve_sums(uint16_t *to, const void *from, size_t n, int shift)
{
    const __m256i *v = from;
    for (size_t i = 0; i < n; i += 4, v += 4) {
        const __m256i two = _mm256_hadd_epi32(load(v), load(v + 1));
        const __m256i four = _mm256_hadd_epi32(two, _mm256_hadd_epi32(load(v + 2), load(v + 3)));
        const __m128i sums =
            _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
        const __m128i halves = _mm_srli_epi32(sums, shift);
        _mm_storel_epi64((__m128i *)(void *)(to + i), _mm_packus_epi32(halves, halves));
    }
}

#define ADD_SQUARES(up, down)                                                                      \
    ((pair_dwords)_mm256_add_epi32(_mm256_madd_epi16((__m256i)(up), (__m256i)(up)),                \
                                   _mm256_madd_epi16((__m256i)(down), (__m256i)(down))))
#define HALVE_SUMS(to, from, n) halve_sums(to, from, n, HEAVY_SHIFT)
#define NO_SUM_OVER no_sum_over
#define PAIRS_NAME qn__q8_pairs_avx2
#include "kernel/q8_pairs_tmpl.h"
