/* Limit of AVX-512 without VNNI: vpmaddubsw, vpmaddwd, vpaddd. */
#include "kernel/x86/asm512.h"

#define PEAK qn__q8_peak_avx512
#define V __m512i
#define LANES 16
#define ONES8 _mm512_set1_epi8(1)
#define ONES16 _mm512_set1_epi16(1)
#define STEP(sum, ones8, ones16) sum = maddubs512_step(sum, ones8, ones16)
#include "kernel/q8_peak_tmpl.h"
