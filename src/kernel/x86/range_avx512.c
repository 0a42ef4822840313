/* Range of values for AVX-512. */
#include <immintrin.h>
#include <stdint.h>

typedef float F __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(64), aligned(4), may_alias));
#define LESSER(a, b) (F) _mm512_min_ps((__m512)(a), (__m512)(b))
#define GREATER(a, b) (F) _mm512_max_ps((__m512)(a), (__m512)(b))
#define RANGE qn__f32_range_avx512
#include "kernel/range_tmpl.h"
