/* 8-bit indirect GEMM for AVX2 with VNNI: 6 rows x 16 columns. */
#include "kernel/x86/asm256.h"
#include "kernel/x86/q8_igemm_avx2.h"

#define MR 6
#define ROWS 24
#define PAIRS 0
#define NP 2
#define WIDE 0
#define DOT(acc, a, b) dpbusd256(acc, a, b)
#define IGEMM qn__q8_igemm_6x16_avxvnni
#include "kernel/x86/q8_igemm_tmpl.h"
