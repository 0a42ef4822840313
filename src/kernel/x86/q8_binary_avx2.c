/* Addition, multiplication and subtraction of bytes for AVX2. */
#include "kernel/x86/q8_igemm_avx2.h"

#include <math.h>
#include <string.h>

#define BYTES_OF(p, turn) _mm_xor_si128(turn, _mm_loadl_epi64((const void *)(p)))
#define WIDEN_U8(p) _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p)))
#define WIDEN_U8_OF(p, turn) _mm256_cvtepu8_epi32(BYTES_OF(p, turn))
#define WIDEN_S8_OF(p, turn) _mm256_cvtepi8_epi32(BYTES_OF(p, turn))
#define ADDF(a, b) _mm256_add_ps(a, b)
#define SUBF(a, b) _mm256_sub_ps(a, b)
#define DIVF(a, b) _mm256_div_ps(a, b)
#define FMAF(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD qn__q8_add_avx2
#define MUL qn__q8_mul_avx2
#define SUB qn__q8_sub_avx2
#include "kernel/x86/q8_binary_tmpl.h"
