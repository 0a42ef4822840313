/* Sums of columns with vectors of 16 bytes, which every processor has. */
typedef float F __attribute__((vector_size(16), aligned(4), may_alias));
#define SUMS qn__f32_sums_scalar
#include "kernel/sums_tmpl.h"
