/* Requantization by integers for AVX-512. */
#include "kernel/x86/q8_avx512.h"

#define FIXED qn__q8_fixed_avx512
#define EVENS(a, b) _mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), b)
#define ODDS(a, b) _mm512_permutex2var_epi64(a, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), b)
#define SHUFFLE(a, b, way) _mm512_castps_si512(_mm512_shuffle_ps(AS_FLOAT(a), AS_FLOAT(b), way))
#define LOWS(a, b) SHUFFLE(a, b, 0x88)
#define HIGHS(a, b) SHUFFLE(a, b, 0xdd)
#define MUL_EVEN(a, b) _mm512_mul_epi32(a, b)
#define ADD64(a, b) _mm512_add_epi64(a, b)
#define SLLV64(v, n) _mm512_sllv_epi64(v, n)
#define SHR64(v, n) _mm512_srli_epi64(v, n)
#define SET1_64(x) _mm512_set1_epi64(x)
#define OR(a, b) _mm512_or_si512(a, b)
#define ANDNOT(a, b) _mm512_andnot_si512(a, b)
#define SUB32(a, b) _mm512_sub_epi32(a, b)
#define SRAV(v, n) _mm512_srav_epi32(v, n)
#define SIGNS(v) _mm512_movepi32_mask(v)
#define SWAP_MIDDLE(v)                                                                             \
    _mm512_shuffle_epi8(v, _mm512_set4_epi32(0x0f0d0e0c, 0x0b090a08, 0x07050604, 0x03010200))
#define PUT(p, v, i, n) _mm_mask_storeu_epi8(p, first16(n), _mm512_extracti32x4_epi32(v, i))
#include "kernel/x86/q8_fixed_tmpl.h"
