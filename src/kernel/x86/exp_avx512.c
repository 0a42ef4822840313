/* Exponentials for AVX-512. */
#include <immintrin.h>

#define VBYTES 64
#define BOUNDED(x, lo, hi) _mm512_min_ps(hi, _mm512_max_ps(lo, x)) /* what is no number stays */
#define EXP qn__f32_exp_avx512
#include "kernel/exp_tmpl.h"
