/* Sums of columns for AVX2. */
typedef float F __attribute__((vector_size(32), aligned(4), may_alias));
#define SUMS qn__f32_sums_avx2
#include "kernel/sums_tmpl.h"
