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
static inline uint32_t add_lanes(uint32_t *to, const void *from, size_t n)
{
    const __m256i *v = from;
    __m128i all = _mm_setzero_si128();
    for (size_t i = 0; i < n; i += 4, v += 4) {
        const __m256i two = _mm256_hadd_epi32(load(v), load(v + 1));
        const __m256i four = _mm256_hadd_epi32(two, _mm256_hadd_epi32(load(v + 2), load(v + 3)));
        const __m128i sums =
            _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
        all = _mm_or_si128(all, sums);
        _mm_storeu_si128((__m128i *)(void *)(to + i), sums);
    }
    all = _mm_or_si128(all, _mm_unpackhi_epi64(all, all));
    return (uint32_t)(_mm_cvtsi128_si32(all) | _mm_extract_epi32(all, 1));
}

/* Bytes above zero, and those below as positive numbers (128 is one, too), in pairs. */
#define SUM_SIGNS(v, up, down)                                                                     \
    do {                                                                                           \
        const __m256i above = _mm256_max_epi8((__m256i)(v), _mm256_setzero_si256());               \
        const __m256i below = _mm256_sub_epi8(above, (__m256i)(v));                                \
        (up) = (pair_words)_mm256_maddubs_epi16(above, _mm256_set1_epi8(1));                       \
        (down) = (pair_words)_mm256_maddubs_epi16(below, _mm256_set1_epi8(1));                     \
    } while (0)
#define ADD_SQUARES(up, down)                                                                      \
    ((pair_dwords)_mm256_add_epi32(_mm256_madd_epi16((__m256i)(up), (__m256i)(up)),                \
                                   _mm256_madd_epi16((__m256i)(down), (__m256i)(down))))
#define ADD_LANES add_lanes
#define NO_SUM_OVER no_sum_over
#define PAIRS_NAME qn__q8_pairs_avx2
#include "kernel/q8_pairs_tmpl.h"
