/* What the 8-bit kernels for AVX-512 have in common. */
#ifndef QN_KERNEL_X86_Q8_AVX512_H
#define QN_KERNEL_X86_Q8_AVX512_H

#include "kernel/kernel.h"
#include <immintrin.h>

static inline __mmask16 first16(size_t n)
{
    return (__mmask16)(0xffffu >> (16 - n));
}

static inline void store_bytes16(uint8_t *p, __m512 v, int32_t zero, size_t n)
{
    const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(zero));
    _mm_mask_storeu_epi8(p, first16(n), _mm512_cvtepi32_epi8(q));
}

#define VEC __m512i
#define FVEC __m512
#define LANES 16
#define LOAD(p) _mm512_loadu_si512(p)
#define LOADF(p) _mm512_loadu_ps(p)
#define SET1(x) _mm512_set1_epi32(x)
#define SET1F(x) _mm512_set1_ps(x)
#define XOR(a, b) _mm512_xor_si512(a, b)
#define TO_FLOAT(v) _mm512_cvtepi32_ps(v)
#define MULF(a, b) _mm512_mul_ps(a, b)
#define MINF(a, b) _mm512_min_ps(a, b)
#define MAXF(a, b) _mm512_max_ps(a, b)
#define STORE(p, v, zero, n) store_bytes16(p, v, zero, n)
#define STOREF(p, v, n) _mm512_mask_storeu_ps(p, first16(n), v)

#endif
