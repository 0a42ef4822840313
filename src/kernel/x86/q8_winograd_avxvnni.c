/* 8-bit convolution by Winograd's algorithm for AVX2 with VNNI. */
#include "kernel/x86/asm256.h"

#define DOT(acc, a, b) dpwssd256(acc, a, b)
#define INPUTS qn__q8_winograd_inputs_avxvnni
#define OUTPUTS qn__q8_winograd_avxvnni
#include "kernel/x86/q8_winograd_tmpl.h"
