/* Addition, multiplication and subtraction of bytes for AVX2. */
#define FMA(x, y, z) __builtin_fmaf(x, y, z)
#define ADD qn__q8_add_avx2
#define MUL qn__q8_mul_avx2
#define SUB qn__q8_sub_avx2
#include "kernel/q8_binary_tmpl.h"
