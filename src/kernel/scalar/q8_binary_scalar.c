/* Without an instruction for it: products of a byte and a float are exact in double, and so are
 * these sums; rounding them to float is the only rounding. */
#define FMA(x, y, z) ((float)((double)(x) * (double)(y) + (double)(z)))
#define ADD qn__q8_add_scalar
#define MUL qn__q8_mul_scalar
#define SUB qn__q8_sub_scalar
#include "kernel/q8_binary_tmpl.h"
