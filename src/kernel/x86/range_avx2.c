/* Range of values for AVX2. */
#include <immintrin.h>
#include <stdint.h>

typedef float F __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(32), aligned(4), may_alias));
#define LESSER(a, b) (F) _mm256_min_ps((__m256)(a), (__m256)(b))
#define GREATER(a, b) (F) _mm256_max_ps((__m256)(a), (__m256)(b))
#define RANGE qn__f32_range_avx2
#include "kernel/range_tmpl.h"
