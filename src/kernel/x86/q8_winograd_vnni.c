/* 8-bit convolution by Winograd's algorithm for AVX-512 with VNNI: 12 tiles x 32
 * columns. */
#include "kernel/x86/asm512.h"
#include "kernel/x86/q8_winograd_avx512.h"

#define DOT(acc, a, b) dpwssd512(acc, a, b)
#define INPUTS qn__q8_winograd_inputs_vnni
#define OUTPUTS qn__q8_winograd_vnni
#include "kernel/x86/q8_winograd_tmpl.h"
