/* Requantization by integers for AVX2. */
#include "kernel/x86/q8_igemm_avx2.h"

#define FIXED qn__q8_fixed_avx2
#define AS_FLOAT(v) _mm256_castsi256_ps(v)
#define EVENS(a, b) _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xd8)
#define ODDS(a, b) _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xd8)
#define SHUFFLE(a, b, way) _mm256_castps_si256(_mm256_shuffle_ps(AS_FLOAT(a), AS_FLOAT(b), way))
#define LOWS(a, b) SHUFFLE(a, b, 0x88)
#define HIGHS(a, b) SHUFFLE(a, b, 0xdd)
#define MUL_EVEN(a, b) _mm256_mul_epi32(a, b)
#define ADD64(a, b) _mm256_add_epi64(a, b)
#define SLLV64(v, n) _mm256_sllv_epi64(v, n)
#define SHR64(v, n) _mm256_srli_epi64(v, n)
#define SET1_64(x) _mm256_set1_epi64x(x)
#define OR(a, b) _mm256_or_si256(a, b)
#define ANDNOT(a, b) _mm256_andnot_si256(a, b)
#define SUB32(a, b) _mm256_sub_epi32(a, b)
#define SRAV(v, n) _mm256_srav_epi32(v, n)
#define SIGNS(v) _mm256_movemask_ps(AS_FLOAT(v))
#define SWAP_MIDDLE(v)                                                                             \
    _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(                                            \
                               _mm_set_epi32(0x0f0d0e0c, 0x0b090a08, 0x07050604, 0x03010200)))
#define PUT(p, v, i, n) STORE_ROW(p, v, i, n)
#include "kernel/x86/q8_fixed_tmpl.h"
