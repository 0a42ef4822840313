/* Addition, multiplication and subtraction of bytes for AVX-512. */
#include "kernel/x86/q8_avx512.h"
#define WIDEN_U8(p) _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(p)))
#define WIDEN_S8(p, turn)                                                                          \
    _mm512_cvtepi8_epi32(_mm_xor_si128(turn, _mm_loadu_si128((const void *)(p))))
#define FMAF(a, b, c) _mm512_fmadd_ps(a, b, c)

#include "kernel/x86/q8_add_tmpl.h"

#define ADD_FIRST(args) add_bytes(args)
#define FMA(x, y, z) __builtin_fmaf(x, y, z)
#define ADD qn__q8_add_avx512
#define MUL qn__q8_mul_avx512
#define SUB qn__q8_sub_avx512
#include "kernel/q8_binary_tmpl.h"
