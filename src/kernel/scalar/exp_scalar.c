/* Exponentials for any processor. */
#define VBYTES 16
#define EXP qn__f32_exp_scalar
#include "kernel/exp_tmpl.h"
