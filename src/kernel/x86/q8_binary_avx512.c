/* Addition, multiplication and subtraction of bytes for AVX-512. */
#define FMA(x, y, z) __builtin_fmaf(x, y, z)
#define ADD qn__q8_add_avx512
#define MUL qn__q8_mul_avx512
#define SUB qn__q8_sub_avx512
#include "kernel/q8_binary_tmpl.h"
