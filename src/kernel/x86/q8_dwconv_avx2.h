/* What the 8-bit depthwise convolutions for AVX2, with VNNI and without, have in common. */
#ifndef QN_KERNEL_X86_Q8_DWCONV_AVX2_H
#define QN_KERNEL_X86_Q8_DWCONV_AVX2_H

#include "kernel/kernel.h"
#include <immintrin.h>
#include <string.h>

static inline __m128i load_bytes16(const void *p, size_t n)
{
    if (n >= 16)
        return _mm_loadu_si128(p);
    uint8_t bytes[16] = {0};
    memcpy(bytes, p, n);
    return _mm_loadu_si128((const void *)bytes);
}

static inline void store_low_bytes16(uint8_t *p, __m256i words, size_t n)
{
    const __m256i low = _mm256_and_si256(words, _mm256_set1_epi16(255));
    const __m256i halves = _mm256_packus_epi16(low, low);
    const __m128i bytes = _mm256_castsi256_si128(_mm256_permute4x64_epi64(halves, 0x08));
    if (n >= 16) {
        _mm_storeu_si128((void *)p, bytes);
        return;
    }
    uint8_t all[16];
    _mm_storeu_si128((void *)all, bytes);
    memcpy(p, all, n);
}

#define VEC __m256i
#define FVEC __m256
#define BLOCK 16
#define WIDEN_U(p, n) _mm256_cvtepu8_epi16(load_bytes16(p, n))
#define WIDEN_S(p, n) _mm256_cvtepi8_epi16(load_bytes16(p, n))
#define ZERO() _mm256_setzero_si256()
#define SET1_16(x) _mm256_set1_epi16(x)
#define SET1F(x) _mm256_set1_ps(x)
#define LOW16(a, b) _mm256_unpacklo_epi16(a, b)
#define HIGH16(a, b) _mm256_unpackhi_epi16(a, b)
#define LOW128(a, b) _mm256_permute2x128_si256(a, b, 0x20)
#define HIGH128(a, b) _mm256_permute2x128_si256(a, b, 0x31)
#define FIRST_BLOCK(low, high) LOW128(low, high)
#define SECOND_BLOCK(low, high) HIGH128(low, high)
#define LOAD(p) _mm256_loadu_si256((const void *)(p))
#define STORE_ALL_F(p, v) _mm256_storeu_ps(p, v)
#define AS_FLOAT(v) _mm256_castsi256_ps(v)
#define AS_INT(v) _mm256_castps_si256(v)
#define TO_FLOAT(v) _mm256_cvtepi32_ps(v)
#define MULF(a, b) _mm256_mul_ps(a, b)
#define FMADDF(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD32(a, b) _mm256_add_epi32(a, b)
#define SET1(x) _mm256_set1_epi32(x)
#define MINF(a, b) _mm256_min_ps(a, b)
#define MAXF(a, b) _mm256_max_ps(a, b)
#define TO_INT(v) _mm256_cvtps_epi32(v)
#define PACK32(a, b) _mm256_packs_epi32(a, b)
#define ADD16(a, b) _mm256_adds_epi16(a, b)
#define MAX16(a, b) _mm256_max_epi16(a, b)
#define STORE_UNSIGNED(p, v)                                                                       \
    _mm_storeu_si128((void *)(p),                                                                  \
                     _mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)))
#define STORE_LOW_BYTES(p, v, n) store_low_bytes16(p, v, n)

#endif
