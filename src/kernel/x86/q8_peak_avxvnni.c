/* Limit of AVX2 with VNNI: vpdpbusd. */
#include "kernel/x86/asm256.h"

#define PEAK qn__q8_peak_avxvnni
#define V __m256i
#define LANES 8
#define ONES8 _mm256_set1_epi8(1)
#define ONES16 ones8
#define STEP(sum, ones8, ones16) sum = dpbusd256_step(sum, ones8, ones16)
#include "kernel/q8_peak_tmpl.h"
