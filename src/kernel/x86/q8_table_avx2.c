/* 256-entry tables for AVX2. */
#define TABLE qn__q8_table_avx2
#define LEAST 768
#define V __m256i
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define ROW(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define SPLAT(x) _mm256_set1_epi8(x)
#define XOR _mm256_xor_si256
#define SUBTRACT _mm256_subs_epi8
#define SHUFFLE _mm256_shuffle_epi8
#include "kernel/x86/q8_table_tmpl.h"
