/* Addition, multiplication and subtraction of bytes for AVX2. */
#include "kernel/x86/q8_igemm_avx2.h"
#define WIDEN_U8(p) _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p)))
#define WIDEN_S8(p, turn)                                                                          \
    _mm256_cvtepi8_epi32(_mm_xor_si128(turn, _mm_loadl_epi64((const void *)(p))))
#define FMAF(a, b, c) _mm256_fmadd_ps(a, b, c)
#include "kernel/x86/q8_add_tmpl.h"

#define ADD_FIRST(args) add_bytes(args)
#define FMA(x, y, z) __builtin_fmaf(x, y, z)
#define ADD qn__q8_add_avx2
#define MUL qn__q8_mul_avx2
#define SUB qn__q8_sub_avx2
#include "kernel/q8_binary_tmpl.h"
