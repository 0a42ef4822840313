/* Rounding that moves its errors for AVX2. */
#include <stdint.h>

typedef float F __attribute__((vector_size(32), may_alias));
typedef int32_t I __attribute__((vector_size(32), may_alias));
#define ROUND qn__f32_round_avx2
#include "kernel/round_tmpl.h"
