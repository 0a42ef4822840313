/* 8-bit convolution by Winograd's algorithm for AVX2 with VNNI: 6 tiles x 16 columns. */
#include "kernel/x86/asm256.h"
#include "kernel/x86/q8_winograd_avx2.h"

#define DOT(acc, a, b) dpwssd256(acc, a, b)
#define INPUTS qn__q8_winograd_inputs_avxvnni
#define OUTPUTS qn__q8_winograd_avxvnni
#include "kernel/x86/q8_winograd_tmpl.h"
