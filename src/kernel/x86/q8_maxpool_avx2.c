/* Largest bytes for AVX2. */
#include <immintrin.h>
#define VBYTES 32
#define MOST(a, b) _mm256_max_epu8((__m256i)(a), (__m256i)(b))
#define LEAST(a, b) _mm256_min_epu8((__m256i)(a), (__m256i)(b))
#define MAXPOOL qn__q8_maxpool_avx2
#include "kernel/q8_maxpool_tmpl.h"
