/* Range of values for AVX-512. */
#include <stdint.h>

typedef float F __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(64), aligned(4), may_alias));
#define RANGE qn__f32_range_avx512
#include "kernel/range_tmpl.h"
