/* What the 8-bit kernels for AVX-512 have in common. */
#ifndef QN_KERNEL_X86_Q8_AVX512_H
#define QN_KERNEL_X86_Q8_AVX512_H

#include "kernel/kernel.h"
#include <immintrin.h>

static inline __mmask16 first16(size_t n)
{
    return (__mmask16)(0xffffu >> (16 - n));
}

static inline __attribute__((always_inline)) void store_row16(uint8_t *p, __m128i v, size_t n)
{
    if (n == 16)
        _mm_storeu_si128((void *)p, v);
    else
        _mm_mask_storeu_epi8(p, first16(n), v);
}

/* Loaded where it is used: compilers would keep it in a register that inner loops need. */
static inline __attribute__((always_inline)) __m512i rows_together(__m512i v)
{
    static const int32_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const int32_t *at = order;
    __asm__ volatile("" : "+r"(at));
    return _mm512_permutexvar_epi32(_mm512_loadu_si512(at), v);
}

#define VEC __m512i
#define FVEC __m512
#define LANES 16
#define LOAD(p) _mm512_loadu_si512(p)
#define LOADF(p) _mm512_loadu_ps(p)
#define SET1(x) _mm512_set1_epi32(x)
#define SET1F(x) _mm512_set1_ps(x)
#define XOR(a, b) _mm512_xor_si512(a, b)
#define ADD32(a, b) _mm512_add_epi32(a, b)
#define TO_FLOAT(v) _mm512_cvtepi32_ps(v)
#define MULF(a, b) _mm512_mul_ps(a, b)
#define MINF(a, b) _mm512_min_ps(a, b)
#define MAXF(a, b) _mm512_max_ps(a, b)
#define STORE_ALL(p, v) _mm512_storeu_si512(p, v)
#define COPY_END(to, from, i, n, sign)                                                             \
    STORE_ALL((to) + (i),                                                                          \
              XOR(_mm512_maskz_loadu_epi8(~0ull >> (64 - ((n) - (i))), (from) + (i)), sign))
#define SET1_8(x) _mm512_set1_epi8(x)
#define MIN8(a, b) _mm512_min_epu8(a, b)
#define MAX8(a, b) _mm512_max_epu8(a, b)
#define PACK16(a, b) _mm512_packus_epi16(a, b)
#define ROWS_TOGETHER(v) rows_together(v)
#define STORE_ROW(p, v, i, n) store_row16(p, _mm512_extracti32x4_epi32(v, i), n)
#define STOREF(p, v, n) _mm512_mask_storeu_ps(p, first16(n), v)

/* Depthwise: 32 channels. */
static inline __m256i load_bytes32(const void *p, size_t n)
{
    return n >= 32 ? _mm256_loadu_si256(p)
                   : _mm256_maskz_loadu_epi8((__mmask32)(0xffffffffu >> (32 - n)), p);
}

#define BLOCK 32
#define WIDEN_U(p, n) _mm512_cvtepu8_epi16(load_bytes32(p, n))
#define WIDEN_S(p, n) _mm512_cvtepi8_epi16(load_bytes32(p, n))
#define ZERO() _mm512_setzero_si512()
#define SET1_16(x) _mm512_set1_epi16(x)
#define LOW16(a, b) _mm512_unpacklo_epi16(a, b)
#define HIGH16(a, b) _mm512_unpackhi_epi16(a, b)
#define LOW128(a, b) _mm512_shuffle_i32x4(a, b, 0x88)
#define HIGH128(a, b) _mm512_shuffle_i32x4(a, b, 0xdd)
#define FMADDF(a, b, c) _mm512_fmadd_ps(a, b, c)
static inline __m512i whole_block(__m512i halves)
{
    return _mm512_shuffle_i32x4(halves, halves, 0xd8);
}
#define FIRST_BLOCK(low, high) whole_block(_mm512_shuffle_i32x4(low, high, 0x44))
#define SECOND_BLOCK(low, high) whole_block(_mm512_shuffle_i32x4(low, high, 0xee))
#define STORE_ALL_F(p, v) _mm512_storeu_ps(p, v)
#define AS_FLOAT(v) _mm512_castsi512_ps(v)
#define AS_INT(v) _mm512_castps_si512(v)
#define TO_INT(v) _mm512_cvtps_epi32(v)
#define PACK32(a, b) _mm512_packs_epi32(a, b)
#define ADD16(a, b) _mm512_adds_epi16(a, b)
#define MAX16(a, b) _mm512_max_epi16(a, b)
static inline void store_unsigned32(void *p, __m512i words)
{
    const __m256i bytes =
        _mm256_packus_epi16(_mm512_castsi512_si256(words), _mm512_extracti64x4_epi64(words, 1));
    _mm256_storeu_si256(p, _mm256_permute4x64_epi64(bytes, 0xd8));
}
#define STORE_UNSIGNED(p, v) store_unsigned32(p, v)
#define STORE_LOW_BYTES(p, v, n)                                                                   \
    _mm256_mask_storeu_epi8(p, (n) >= 32 ? 0xffffffffu : 0xffffffffu >> (32 - (n)),                \
                            _mm512_cvtepi16_epi8(v))

#endif
