/* Exponentials for AVX2. */
#include <immintrin.h>

#define VBYTES 32
#define BOUNDED(x, lo, hi) _mm256_min_ps(hi, _mm256_max_ps(lo, x)) /* what is no number stays */
#define EXP qn__f32_exp_avx2
#include "kernel/exp_tmpl.h"
