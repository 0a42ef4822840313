/* Registers of 32 bytes for q8_loops_tmpl.h. */
#include <immintrin.h>

#define FMA(x, y, z) __builtin_fmaf(x, y, z)
#define SHUFFLE(p, order)                                                                          \
    _mm256_shuffle_epi8(_mm256_loadu_si256((const void *)(p)),                                     \
                        _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(order))))
#define OR3(a, b, c) _mm256_or_si256(_mm256_or_si256(a, b), c)
#define STORE_HALVES(p, q, v) _mm256_storeu2_m128i((void *)(q), (void *)(p), v)
