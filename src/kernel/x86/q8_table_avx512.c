/* 256-entry tables for AVX-512. */
#define TABLE qn__q8_table_avx512
#define LEAST 256
#define V __m512i
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define ROW(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define SPLAT(x) _mm512_set1_epi8(x)
#define XOR _mm512_xor_si512
#define SUBTRACT _mm512_subs_epi8
#define SHUFFLE _mm512_shuffle_epi8
#include "kernel/x86/q8_table_tmpl.h"
