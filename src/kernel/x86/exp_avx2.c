/* Exponentials for AVX2. */
#define VBYTES 32
#define EXP qn__f32_exp_avx2
#include "kernel/exp_tmpl.h"
