/* Addition, multiplication and subtraction of bytes for NEON. */
#define FMA(x, y, z) __builtin_fmaf(x, y, z)
#define ADD qn__q8_add_neon
#define MUL qn__q8_mul_neon
#define SUB qn__q8_sub_neon
#include "kernel/q8_binary_tmpl.h"
