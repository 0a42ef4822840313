/* Limit of AVX2: vpmaddubsw, vpmaddwd, vpaddd. */
#include "kernel/x86/asm256.h"

#define PEAK qn__q8_peak_avx2
#define V __m256i
#define LANES 8
#define ONES8 _mm256_set1_epi8(1)
#define ONES16 _mm256_set1_epi16(1)
#define STEP(sum, ones8, ones16) sum = maddubs256_step(sum, ones8, ones16)
#include "kernel/q8_peak_tmpl.h"
