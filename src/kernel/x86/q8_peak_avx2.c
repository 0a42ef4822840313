/* Limit of AVX2: vpmaddubsw, vpmaddwd, vpaddd. */
#include <immintrin.h>

#define PEAK qn__q8_peak_avx2
#define V __m256i
#define LANES 8
#define ONES8 _mm256_set1_epi8(1)
#define ONES16 _mm256_set1_epi16(1)
#define STEP(sum, ones8, ones16)                                                                   \
    do {                                                                                           \
        V pairs_;                                                                                  \
        __asm__ volatile("vpmaddubsw %2, %2, %1\n\tvpmaddwd %3, %1, %1\n\tvpaddd %1, %0, %0"       \
                         : "+x"(sum), "=&x"(pairs_)                                                \
                         : "x"(ones8), "x"(ones16));                                               \
    } while (0)
#include "kernel/q8_peak_tmpl.h"
