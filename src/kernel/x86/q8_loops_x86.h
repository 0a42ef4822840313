/* What the loops of q8_loops_tmpl.h have on x86: vectors from end to end, and registers of 32 bytes
 * for what becomes pixels. */
#include "kernel/x86/q8_quantize_tmpl.h"

#define QUANTIZES(args) quantizes_in_registers(args)
#define SHUFFLE(p, order)                                                                          \
    _mm256_shuffle_epi8(_mm256_loadu_si256((const void *)(p)),                                     \
                        _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(order))))
#define OR3(a, b, c) _mm256_or_si256(_mm256_or_si256(a, b), c)
#define STORE_HALVES(p, q, v) _mm256_storeu2_m128i((void *)(q), (void *)(p), v)
