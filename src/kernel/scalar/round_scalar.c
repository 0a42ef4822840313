/* Rounding that moves its errors with vectors of 16 bytes, which every processor has. */
#include <stdint.h>

typedef float F __attribute__((vector_size(16), may_alias));
typedef int32_t I __attribute__((vector_size(16), may_alias));
#define ROUND qn__f32_round_scalar
#include "kernel/round_tmpl.h"
