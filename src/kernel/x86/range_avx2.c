/* Range of values for AVX2. */
#include <stdint.h>

typedef float F __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(32), aligned(4), may_alias));
#define RANGE qn__f32_range_avx2
#include "kernel/range_tmpl.h"
