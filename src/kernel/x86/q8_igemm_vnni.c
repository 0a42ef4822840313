/* 8-bit indirect GEMM for AVX-512 with VNNI: vpdpbusd is exact for all weights. A full tile is 8
 * rows x 48 columns as in the float kernel: 24 accumulators for 11 loads. */
#include "kernel/x86/asm512.h"
#include "kernel/x86/q8_avx512.h"

#define MR 8
#define DOT_ROW(np, acc, row, b) dpbusd512_row(np, acc, row, b)
#define PAIRS 0
#define NP 3
#define WIDE 0
#define DOT(acc, a, b) dpbusd512(acc, a, b)
#define IGEMM qn__q8_igemm_8x48_vnni
#include "kernel/x86/q8_igemm_tmpl.h"
