/* Limit of AVX-512 without VNNI: vpmaddubsw, vpmaddwd, vpaddd. */
#include <immintrin.h>

#define PEAK qn__q8_peak_avx512
#define V __m512i
#define LANES 16
#define ONES8 _mm512_set1_epi8(1)
#define ONES16 _mm512_set1_epi16(1)
#define STEP(sum, ones8, ones16)                                                                   \
    do {                                                                                           \
        V pairs_;                                                                                  \
        __asm__ volatile("vpmaddubsw %2, %2, %1\n\tvpmaddwd %3, %1, %1\n\tvpaddd %1, %0, %0"       \
                         : "+v"(sum), "=&v"(pairs_)                                                \
                         : "v"(ones8), "v"(ones16));                                               \
    } while (0)
#include "kernel/q8_peak_tmpl.h"
