/* Sums of the 8-bit GEMMs of AVX-512 as bytes, four vectors of them at once, where all scales are
 * small (qn_q8_out). */
#ifndef QN_KERNEL_X86_Q8_BYTES_AVX512_H
#define QN_KERNEL_X86_Q8_BYTES_AVX512_H

#include "kernel/kernel.h"

#include <immintrin.h>

/* Packing saturates to unsigned bytes, and so are the bounds: signed bytes are 128 higher until the
 * end. */
typedef struct byte_bounds {
    bool plain; /* all unsigned bytes are allowed, and numbers are not moved */
    /* qn_q8_out.rectified: sums come with the bits of 2^23 added, which makes of those above zero
     * floats 2^23 higher, of others floats below it. Multiplied by the scale less 2^23 times the
     * scale, which is exact, they are rounded once as products of converted sums are; what is below
     * zero stays there. */
    bool rectified;
    __m512i move, lo, hi, sign;
} byte_bounds;
enum { RECTIFIED_BASE = 0x4B000000 };

static inline byte_bounds byte_bounds_of(const qn_q8_out *out)
{
    const int32_t lower = out->lo < 0 ? 128 : 0;
    return (byte_bounds){.plain = out->zero == 0 && out->lo == 0 && out->hi == UINT8_MAX,
                         .rectified = out->short_sums && out->small_scales && !out->is_float &&
                                      out->lo == out->zero,
                         .move = _mm512_set1_epi16((short)(out->zero + lower)),
                         .lo = _mm512_set1_epi8((char)(out->lo + lower)),
                         .hi = _mm512_set1_epi8((char)(out->hi + lower)),
                         .sign = _mm512_set1_epi8((char)lower)};
}

/* Words as bytes within the bounds. */
static inline __attribute__((always_inline)) __m512i bounded_bytes(const byte_bounds *to,
                                                                   __m512i low, __m512i high)
{
    low = _mm512_adds_epi16(to->move, low);
    high = _mm512_adds_epi16(to->move, high);
    const __m512i bytes = _mm512_packus_epi16(low, high);
    return _mm512_xor_si512(to->sign, _mm512_min_epu8(to->hi, _mm512_max_epu8(to->lo, bytes)));
}

/* Rounded numbers as bytes, of 16 numbers four from each vector in turn. What is below all
 * integers, and a NaN, become the smallest integer. */
static inline __attribute__((always_inline)) __m512i rounded_bytes(const byte_bounds *to, __m512 v0,
                                                                   __m512 v1, __m512 v2, __m512 v3)
{
    const __m512i q0 = _mm512_cvtps_epi32(v0), q1 = _mm512_cvtps_epi32(v1);
    const __m512i q2 = _mm512_cvtps_epi32(v2), q3 = _mm512_cvtps_epi32(v3);
    const __m512i low = _mm512_packs_epi32(q0, q1), high = _mm512_packs_epi32(q2, q3);
    return to->plain ? _mm512_packus_epi16(low, high) : bounded_bytes(to, low, high);
}

/* Brings 32-bit lane i of each 128 bits to part i of the vector. Loaded where it is used: compilers
 * would keep it in a register that inner loops need. */
static inline __attribute__((always_inline)) __m512i rows_order(void)
{
    static const int32_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const int32_t *at = order;
    __asm__ volatile("" : "+r"(at));
    return _mm512_loadu_si512(at);
}

/* Sixteen bytes of each. */
static inline __attribute__((always_inline)) __m512i
to_bytes(const byte_bounds *to, const __m512i v[4], const __m512 scale[4])
{
    __m512 by[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        by[i] = _mm512_mul_ps(_mm512_cvtepi32_ps(v[i]), scale[i]);
    return _mm512_permutexvar_epi32(rows_order(), rounded_bytes(to, by[0], by[1], by[2], by[3]));
}

#endif
