/* What the 8-bit convolutions by Winograd's algorithm for AVX2, with VNNI and without, have in
 * common. */
#ifndef QN_KERNEL_X86_Q8_WINOGRAD_AVX2_H
#define QN_KERNEL_X86_Q8_WINOGRAD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

static inline __attribute__((always_inline)) void store_bytes8(uint8_t *const *out, size_t n,
                                                               const __m256i v[4], __m256i zero)
{
    const __m256i low = _mm256_set1_epi16(255), move = _mm256_packs_epi32(zero, zero);
    const __m256i a = _mm256_add_epi16(_mm256_packs_epi32(v[0], v[1]), move);
    const __m256i b = _mm256_add_epi16(_mm256_packs_epi32(v[2], v[3]), move);
    const __m256i all = _mm256_permutevar8x32_epi32(
        _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)),
        _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m128i first = _mm256_castsi256_si128(all), last = _mm256_extracti128_si256(all, 1);
    _mm_storel_epi64((void *)(out[0] + n), first);
    _mm_storeh_pi((void *)(out[1] + n), _mm_castsi128_ps(first));
    _mm_storel_epi64((void *)(out[2] + n), last);
    _mm_storeh_pi((void *)(out[3] + n), _mm_castsi128_ps(last));
}

#define VEC __m256i
#define FVEC __m256
#define LANES 8
#define ROWS 6
#define MORE_ROWS 4
#define LESS_ROWS 2
#define WIDEN(p) _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(p)))
#define LOAD(p) _mm256_load_si256((const void *)(p))
#define LOADF(p) _mm256_load_ps((const float *)(const void *)(p))
#define STORE(p, v) _mm256_store_si256((void *)(p), v)
#define ZERO() _mm256_setzero_si256()
#define SET1(x) _mm256_set1_epi32(x)
#define SET1F(x) _mm256_set1_ps(x)
#define ADD16(a, b) _mm256_add_epi16(a, b)
#define SUB16(a, b) _mm256_sub_epi16(a, b)
#define SHL16(a, n) _mm256_slli_epi16(a, n)
#define ADD32(a, b) _mm256_add_epi32(a, b)
#define SUB32(a, b) _mm256_sub_epi32(a, b)
#define SHL32(a, n) _mm256_slli_epi32(a, n)
#define SHR32(a, n) _mm256_srai_epi32(a, n)
#define MUL32(a, b) _mm256_mullo_epi32(a, b)
#define TO_FLOAT(v) _mm256_cvtepi32_ps(v)
#define TO_INT(v) _mm256_cvtps_epi32(v)
#define MULF(a, b) _mm256_mul_ps(a, b)
#define MINF(a, b) _mm256_min_ps(a, b)
#define MAXF(a, b) _mm256_max_ps(a, b)
#define STORE_BYTES(out, n, v, zero) store_bytes8(out, n, v, zero)

#endif
