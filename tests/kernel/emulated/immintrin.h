/* x86 intrinsics in plain C, for running kernels on processors without their instruction sets:
 * SIMDe's, and here those that it lacks, or whose results for NaN, for numbers beyond int32 or in
 * the last bit are not the instruction's. Only tests see this header. */
#ifndef QN_TESTS_EMULATED_IMMINTRIN_H
#define QN_TESTS_EMULATED_IMMINTRIN_H

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <math.h>
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Versions of SIMDe differ in what they have. */
#undef _mm256_fmadd_ps
#undef _mm256_min_ps
#undef _mm256_max_ps
#undef _mm256_cvtps_epi32
#undef _mm512_fmadd_ps
#undef _mm512_min_ps
#undef _mm512_max_ps
#undef _mm512_cvtps_epi32
#undef _mm_mask_storeu_epi8
#undef _mm256_mask_storeu_epi8
#undef _mm256_maskload_ps
#undef _mm256_maskstore_ps
#undef _mm256_maskz_loadu_epi8
#undef _mm512_mask_storeu_epi8
#undef _mm512_maskz_loadu_epi8
#undef _mm512_maskz_loadu_epi64
#undef _mm512_mask_loadu_epi64
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepu8_epi16
#undef _mm512_cvtss_f32
#undef _mm256_zeroupper
#undef _mm512_mask_cmpneq_epi64_mask
#undef _mm512_reduce_max_epu32
#undef _mm512_mask_cvtepi32_storeu_epi8
#undef _mm512_cvtusepi16_epi8
#undef _mm512_madd_epi16
#undef _mm512_srav_epi32
#undef __mmask8
#undef __mmask16
#undef __mmask32
#undef __mmask64
#define __mmask8 uint8_t
#define __mmask16 uint16_t
#define __mmask32 uint32_t
#define __mmask64 uint64_t
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)

#define EMULATED static inline __attribute__((unused))

EMULATED simde__m512i emulated_srav(simde__m512i v, simde__m512i n)
{
    int32_t values[16], counts[16];
    memcpy(values, &v, sizeof values);
    memcpy(counts, &n, sizeof counts);
    for (size_t i = 0; i < 16; i++)
        values[i] >>= (uint32_t)counts[i] < 31 ? counts[i] : 31;
    memcpy(&v, values, sizeof values);
    return v;
}
#define _mm512_srav_epi32(v, n) emulated_srav(v, n)

/* --- floats: one lane after the other, as the instruction defines it --- */
EMULATED int32_t emulated_to_int(float x)
{
    const float r = nearbyintf(x);
    return r >= -2147483648.0f && r < 2147483648.0f ? (int32_t)r : INT32_MIN;
}

#define EMULATED_FLOATS(bits, F, I)                                                                \
    EMULATED F emulated_fmadd##bits(F a, F b, F c)                                                 \
    {                                                                                              \
        for (size_t i = 0; i < sizeof(a) / sizeof(float); i++)                                     \
            a[i] = fmaf(a[i], b[i], c[i]);                                                         \
        return a;                                                                                  \
    }                                                                                              \
    EMULATED F emulated_min##bits(F a, F b)                                                        \
    {                                                                                              \
        for (size_t i = 0; i < sizeof(a) / sizeof(float); i++)                                     \
            a[i] = a[i] < b[i] ? a[i] : b[i];                                                      \
        return a;                                                                                  \
    }                                                                                              \
    EMULATED F emulated_max##bits(F a, F b)                                                        \
    {                                                                                              \
        for (size_t i = 0; i < sizeof(a) / sizeof(float); i++)                                     \
            a[i] = a[i] > b[i] ? a[i] : b[i];                                                      \
        return a;                                                                                  \
    }                                                                                              \
    EMULATED I emulated_to_ints##bits(F a)                                                         \
    {                                                                                              \
        int32_t lanes[sizeof(a) / sizeof(float)];                                                  \
        I v;                                                                                       \
        for (size_t i = 0; i < sizeof(a) / sizeof(float); i++)                                     \
            lanes[i] = emulated_to_int(a[i]);                                                      \
        memcpy(&v, lanes, sizeof(v));                                                              \
        return v;                                                                                  \
    }
EMULATED_FLOATS(256, __m256, __m256i)
EMULATED_FLOATS(512, __m512, __m512i)
#define _mm256_fmadd_ps(a, b, c) emulated_fmadd256(a, b, c)
#define _mm256_min_ps(a, b) emulated_min256(a, b)
#define _mm256_max_ps(a, b) emulated_max256(a, b)
#define _mm256_cvtps_epi32(a) emulated_to_ints256(a)
#define _mm512_fmadd_ps(a, b, c) emulated_fmadd512(a, b, c)
#define _mm512_min_ps(a, b) emulated_min512(a, b)
#define _mm512_max_ps(a, b) emulated_max512(a, b)
#define _mm512_cvtps_epi32(a) emulated_to_ints512(a)

/* Words that are taken as unsigned saturate. */
EMULATED __m256i emulated_cvtusepi16_epi8(__m512i words)
{
    uint16_t from[32];
    uint8_t to[32];
    __m256i v;
    memcpy(from, &words, sizeof(from));
    for (size_t i = 0; i < 32; i++)
        to[i] = (uint8_t)(from[i] < 255 ? from[i] : 255);
    memcpy(&v, to, sizeof(v));
    return v;
}
#define _mm512_cvtusepi16_epi8(v) emulated_cvtusepi16_epi8(v)

/* --- memory under masks: only what the mask names is touched --- */
#define EMULATED_MASKED(name, V, element)                                                          \
    EMULATED V emulated_load_##name(uint64_t mask, const void *p)                                  \
    {                                                                                              \
        element lanes[sizeof(V) / sizeof(element)] = {0};                                          \
        V v;                                                                                       \
        for (size_t i = 0; i < sizeof(V) / sizeof(element); i++)                                   \
            if (mask >> i & 1)                                                                     \
                memcpy(&lanes[i], (const char *)p + i * sizeof(element), sizeof(element));         \
        memcpy(&v, lanes, sizeof(v));                                                              \
        return v;                                                                                  \
    }                                                                                              \
    EMULATED void emulated_store_##name(void *p, uint64_t mask, V v)                               \
    {                                                                                              \
        element lanes[sizeof(V) / sizeof(element)];                                                \
        memcpy(lanes, &v, sizeof(v));                                                              \
        for (size_t i = 0; i < sizeof(V) / sizeof(element); i++)                                   \
            if (mask >> i & 1)                                                                     \
                memcpy((char *)p + i * sizeof(element), &lanes[i], sizeof(element));               \
    }
EMULATED_MASKED(16x8, __m128i, uint8_t)
EMULATED_MASKED(32x8, __m256i, uint8_t)
EMULATED_MASKED(64x8, __m512i, uint8_t)
EMULATED_MASKED(8x64, __m512i, uint64_t)
EMULATED_MASKED(16xf, __m512, float)
EMULATED_MASKED(8xf, __m256, float)
#define _mm_mask_storeu_epi8(p, mask, v) emulated_store_16x8(p, mask, v)
#define _mm256_mask_storeu_epi8(p, mask, v) emulated_store_32x8(p, mask, v)
#define _mm256_maskz_loadu_epi8(mask, p) emulated_load_32x8(mask, p)
#define _mm512_mask_storeu_epi8(p, mask, v) emulated_store_64x8(p, mask, v)
#define _mm512_maskz_loadu_epi8(mask, p) emulated_load_64x8(mask, p)
EMULATED simde__m512i emulated_or_load_8x64(simde__m512i rest, uint8_t mask, const void *p)
{
    uint64_t lanes[8];
    memcpy(lanes, &rest, sizeof lanes);
    for (size_t i = 0; i < 8; i++)
        if (mask >> i & 1)
            memcpy(&lanes[i], (const char *)p + i * sizeof lanes[0], sizeof lanes[0]);
    memcpy(&rest, lanes, sizeof lanes);
    return rest;
}
#define _mm512_mask_loadu_epi64(rest, mask, p) emulated_or_load_8x64(rest, mask, p)
#define _mm512_maskz_loadu_epi64(mask, p) emulated_load_8x64(mask, p)
#define _mm512_maskz_loadu_ps(mask, p) emulated_load_16xf(mask, p)
#define _mm512_mask_storeu_ps(p, mask, v) emulated_store_16xf(p, mask, v)

EMULATED unsigned emulated_signs(__m256i lanes)
{
    int32_t v[8];
    unsigned mask = 0;
    memcpy(v, &lanes, sizeof(v));
    for (size_t i = 0; i < 8; i++)
        mask |= (unsigned)(v[i] < 0) << i;
    return mask;
}
#define _mm256_maskload_ps(p, mask) emulated_load_8xf(emulated_signs(mask), p)
#define _mm256_maskstore_ps(p, mask, v) emulated_store_8xf(p, emulated_signs(mask), v)

/* --- conversions and comparisons --- */
#define EMULATED_CONVERT(name, FROM, from, TO, to)                                                 \
    EMULATED TO emulated_##name(FROM a)                                                            \
    {                                                                                              \
        from in[sizeof(FROM) / sizeof(from)];                                                      \
        to out[sizeof(TO) / sizeof(to)];                                                           \
        TO v;                                                                                      \
        memcpy(in, &a, sizeof(a));                                                                 \
        for (size_t i = 0; i < sizeof(TO) / sizeof(to); i++)                                       \
            out[i] = (to)in[i];                                                                    \
        memcpy(&v, out, sizeof(v));                                                                \
        return v;                                                                                  \
    }
EMULATED_CONVERT(cvtepi32_ps, __m512i, int32_t, __m512, float)
EMULATED_CONVERT(cvtepi8_epi32, __m128i, int8_t, __m512i, int32_t)
EMULATED_CONVERT(cvtepu8_epi32, __m128i, uint8_t, __m512i, int32_t)
EMULATED_CONVERT(cvtepu8_epi16, __m256i, uint8_t, __m512i, int16_t)
EMULATED_CONVERT(cvtepi8_epi64, __m128i, int8_t, __m512i, int64_t)
#define _mm512_cvtepi32_ps(a) emulated_cvtepi32_ps(a)
#define _mm512_cvtepi8_epi32(a) emulated_cvtepi8_epi32(a)
#define _mm512_cvtepu8_epi32(a) emulated_cvtepu8_epi32(a)
#define _mm512_cvtepu8_epi16(a) emulated_cvtepu8_epi16(a)
#define _mm512_cvtepi8_epi64(a) emulated_cvtepi8_epi64(a)
#define _mm512_cvtss_f32(a) ((a)[0])
#define _mm256_zeroupper() ((void)0)

EMULATED uint8_t emulated_differ(uint8_t mask, __m512i a, __m512i b)
{
    uint64_t x[8], y[8];
    unsigned found = 0;
    memcpy(x, &a, sizeof(a)), memcpy(y, &b, sizeof(b));
    for (size_t i = 0; i < 8; i++)
        found |= (unsigned)(x[i] != y[i]) << i;
    return (uint8_t)(found & mask);
}
#define _mm512_mask_cmpneq_epi64_mask(mask, a, b) emulated_differ(mask, a, b)

EMULATED uint32_t emulated_largest(__m512i a)
{
    uint32_t lanes[16], most = 0;
    memcpy(lanes, &a, sizeof(a));
    for (size_t i = 0; i < 16; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
}
#define _mm512_reduce_max_epu32(a) emulated_largest(a)

EMULATED void emulated_store_low_bytes(void *p, uint16_t mask, __m512i a)
{
    int32_t lanes[16];
    memcpy(lanes, &a, sizeof(a));
    for (size_t i = 0; i < 16; i++)
        if (mask >> i & 1)
            ((uint8_t *)p)[i] = (uint8_t)lanes[i];
}
#define _mm512_mask_cvtepi32_storeu_epi8(p, mask, a) emulated_store_low_bytes(p, mask, a)

#include "tiles.h"
#endif
