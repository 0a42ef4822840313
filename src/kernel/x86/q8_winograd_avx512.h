/* What the 8-bit convolutions by Winograd's algorithm for AVX-512, with VNNI and without, have in
 * common. */
#ifndef QN_KERNEL_X86_Q8_WINOGRAD_AVX512_H
#define QN_KERNEL_X86_Q8_WINOGRAD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

static inline __attribute__((always_inline)) void store_bytes16(uint8_t *const *out, size_t n,
                                                                const __m512i v[4], __m512i zero)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        _mm_storeu_si128((void *)(out[i] + n), _mm512_cvtepi32_epi8(_mm512_add_epi32(v[i], zero)));
}

#define VEC __m512i
#define FVEC __m512
#define LANES 16
#define ROWS 12
#define MORE_ROWS 8
#define LESS_ROWS 4
#define WIDEN(p) _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(p)))
#define LOAD(p) _mm512_load_si512((const void *)(p))
#define LOADF(p) _mm512_load_ps((const float *)(const void *)(p))
#define STORE(p, v) _mm512_store_si512((void *)(p), v)
#define ZERO() _mm512_setzero_si512()
#define SET1(x) _mm512_set1_epi32(x)
#define SET1F(x) _mm512_set1_ps(x)
#define ADD16(a, b) _mm512_add_epi16(a, b)
#define SUB16(a, b) _mm512_sub_epi16(a, b)
#define SHL16(a, n) _mm512_slli_epi16(a, n)
#define ADD32(a, b) _mm512_add_epi32(a, b)
#define SUB32(a, b) _mm512_sub_epi32(a, b)
#define SHL32(a, n) _mm512_slli_epi32(a, n)
#define SHR32(a, n) _mm512_srai_epi32(a, n)
#define MUL32(a, b) _mm512_mullo_epi32(a, b)
#define TO_FLOAT(v) _mm512_cvtepi32_ps(v)
#define TO_INT(v) _mm512_cvtps_epi32(v)
#define MULF(a, b) _mm512_mul_ps(a, b)
#define MINF(a, b) _mm512_min_ps(a, b)
#define MAXF(a, b) _mm512_max_ps(a, b)
#define STORE_BYTES(out, n, v, zero) store_bytes16(out, n, v, zero)

#endif
