/* Range of values with vectors of 16 bytes, which every processor has. */
#include <stdint.h>

typedef float F __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(16), aligned(4), may_alias));
#define RANGE qn__f32_range_scalar
#include "kernel/range_tmpl.h"
