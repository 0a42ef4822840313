/* Sums of columns for AVX-512. */
typedef float F __attribute__((vector_size(64), aligned(4), may_alias));
#define SUMS qn__f32_sums_avx512
#include "kernel/sums_tmpl.h"
