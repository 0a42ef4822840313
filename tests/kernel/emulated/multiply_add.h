/* What vpdpbusd, vpdpwssd and vpmaddubsw with what follows it do, for vectors of any width. */
#ifndef QN_TESTS_EMULATED_MULTIPLY_ADD_H
#define QN_TESTS_EMULATED_MULTIPLY_ADD_H

#include <immintrin.h>

#define EMULATED_MULTIPLY_ADD(bits, V)                                                             \
    EMULATED V dpbusd##bits(V acc, V a, V b)                                                       \
    {                                                                                              \
        uint8_t x[sizeof(V)];                                                                      \
        int8_t y[sizeof(V)];                                                                       \
        uint32_t sums[sizeof(V) / 4];                                                              \
        memcpy(x, &a, sizeof(V)), memcpy(y, &b, sizeof(V)), memcpy(sums, &acc, sizeof(V));         \
        for (size_t i = 0; i < sizeof(V); i++)                                                     \
            sums[i / 4] += (uint32_t)(x[i] * y[i]);                                                \
        memcpy(&acc, sums, sizeof(V));                                                             \
        return acc;                                                                                \
    }                                                                                              \
    EMULATED V dpwssd##bits(V acc, V a, V b)                                                       \
    {                                                                                              \
        int16_t x[sizeof(V) / 2], y[sizeof(V) / 2];                                                \
        uint32_t sums[sizeof(V) / 4];                                                              \
        memcpy(x, &a, sizeof(V)), memcpy(y, &b, sizeof(V)), memcpy(sums, &acc, sizeof(V));         \
        for (size_t i = 0; i < sizeof(V) / 2; i++)                                                 \
            sums[i / 2] += (uint32_t)(x[i] * y[i]);                                                \
        memcpy(&acc, sums, sizeof(V));                                                             \
        return acc;                                                                                \
    }                                                                                              \
    EMULATED V dpbusd##bits##_step(V acc, V a, V b)                                                \
    {                                                                                              \
        return dpbusd##bits(acc, a, b);                                                            \
    }                                                                                              \
    EMULATED V maddubs##bits##_step(V acc, V ones8, V ones16)                                      \
    {                                                                                              \
        return _mm##bits##_add_epi32(                                                              \
            acc, _mm##bits##_madd_epi16(_mm##bits##_maddubs_epi16(ones8, ones8), ones16));         \
    }

#endif
