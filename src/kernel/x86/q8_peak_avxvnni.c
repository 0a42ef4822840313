/* Limit of AVX2 with VNNI: vpdpbusd. Without {vex} the assembler takes the AVX-512 form. */
#include <immintrin.h>

#define PEAK qn__q8_peak_avxvnni
#define V __m256i
#define LANES 8
#define ONES8 _mm256_set1_epi8(1)
#define ONES16 ones8
#define STEP(sum, ones8, ones16)                                                                   \
    __asm__ volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(sum) : "x"(ones8), "x"(ones16))
#include "kernel/q8_peak_tmpl.h"
