/* What the 8-bit GEMMs for AVX2, with VNNI and without, have in common. */
#ifndef QN_KERNEL_X86_Q8_IGEMM_AVX2_H
#define QN_KERNEL_X86_Q8_IGEMM_AVX2_H

#include "kernel/kernel.h"
#include <immintrin.h>
#include <string.h>

/* The ends of rows: out of the way of whole ones, once in the code. */
static __attribute__((noinline)) void store_some(uint8_t *p, uint64_t bytes, size_t n)
{
    for (size_t i = 0; i < n; i++, bytes >>= 8)
        p[i] = (uint8_t)bytes;
}

/* Half i of the bytes; extracting the upper one to memory would take another instruction. */
static inline __attribute__((always_inline)) void store_row8(uint8_t *p, __m128i bytes,
                                                             const size_t i, size_t n)
{
    if (n != 8)
        store_some(p, (uint64_t)(i == 0 ? _mm_cvtsi128_si64(bytes) : _mm_extract_epi64(bytes, 1)),
                   n);
    else if (i == 0)
        _mm_storel_epi64((void *)p, bytes);
    else
        _mm_storeh_pi((void *)p, _mm_castsi128_ps(bytes));
}

static inline void store_floats8(float *p, __m256 v, size_t n)
{
    const __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), at), v);
}

/* The last vectors overlap the ones before. */
static inline void copy_end32(uint8_t *to, const uint8_t *from, size_t i, size_t n, __m256i sign)
{
    const __m128i sign16 = _mm256_castsi256_si128(sign);
    const size_t up = (n + 3) / 4 * 4;
    if (n >= 32) {
        const __m256i v = _mm256_loadu_si256((const void *)(from + n - 32));
        _mm256_storeu_si256((void *)(to + n - 32), _mm256_xor_si256(v, sign));
    } else if (n >= 16) {
        const __m128i v = _mm_loadu_si128((const void *)from);
        const __m128i last = _mm_loadu_si128((const void *)(from + n - 16));
        _mm_storeu_si128((void *)to, _mm_xor_si128(v, sign16));
        _mm_storeu_si128((void *)(to + n - 16), _mm_xor_si128(last, sign16));
    } else {
        for (; i + 4 <= n; i += 4)
            _mm_storeu_si32(to + i, _mm_xor_si128(_mm_loadu_si32(from + i), sign16));
        for (; i < n; i++)
            to[i] = (uint8_t)(from[i] ^ _mm_cvtsi128_si32(sign16));
    }
    for (i = n; i < up; i++)
        to[i] = 0;
}

#define VEC __m256i
#define FVEC __m256
#define LANES 8
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define LOADF(p) _mm256_loadu_ps(p)
#define SET1(x) _mm256_set1_epi32(x)
#define SET1F(x) _mm256_set1_ps(x)
#define XOR(a, b) _mm256_xor_si256(a, b)
#define ADD32(a, b) _mm256_add_epi32(a, b)
#define TO_FLOAT(v) _mm256_cvtepi32_ps(v)
#define MULF(a, b) _mm256_mul_ps(a, b)
#define MINF(a, b) _mm256_min_ps(a, b)
#define MAXF(a, b) _mm256_max_ps(a, b)
#define STORE_ALL(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define COPY_END(to, from, i, n, sign) copy_end32(to, from, i, n, sign)
#define SET1_16(x) _mm256_set1_epi16(x)
#define TO_INT(v) _mm256_cvtps_epi32(v)
#define PACK32(a, b) _mm256_packs_epi32(a, b)
#define PACK16(a, b) _mm256_packus_epi16(a, b)
#define ADD16(a, b) _mm256_adds_epi16(a, b)
#define SET1_8(x) _mm256_set1_epi8(x)
#define MIN8(a, b) _mm256_min_epu8(a, b)
#define MAX8(a, b) _mm256_max_epu8(a, b)
#define ROWS_TOGETHER(v) _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
#define STORE_ROW(p, v, i, n) store_row8(p, _mm256_extracti128_si256(v, (i) / 2), (i) % 2, n)
#define STOREF(p, v, n) store_floats8(p, v, n)

#endif
