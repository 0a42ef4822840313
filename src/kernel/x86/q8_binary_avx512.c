/* Addition, multiplication and subtraction of bytes for AVX-512. */
#include "kernel/x86/q8_avx512.h"

#include <math.h>
#include <string.h>

#define BYTES_OF(p, turn) _mm_xor_si128(turn, _mm_loadu_si128((const void *)(p)))
#define WIDEN_U8(p) _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(p)))
#define WIDEN_U8_OF(p, turn) _mm512_cvtepu8_epi32(BYTES_OF(p, turn))
#define WIDEN_S8_OF(p, turn) _mm512_cvtepi8_epi32(BYTES_OF(p, turn))
#define ADDF(a, b) _mm512_add_ps(a, b)
#define SUBF(a, b) _mm512_sub_ps(a, b)
#define DIVF(a, b) _mm512_div_ps(a, b)
#define FMAF(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ADD qn__q8_add_avx512
#define MUL qn__q8_mul_avx512
#define SUB qn__q8_sub_avx512
#include "kernel/x86/q8_binary_tmpl.h"
