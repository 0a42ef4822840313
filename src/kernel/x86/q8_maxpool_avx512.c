/* Largest bytes for AVX-512. */
#include <immintrin.h>
#define VBYTES 64
#define MOST(a, b) _mm512_max_epu8((__m512i)(a), (__m512i)(b))
#define LEAST(a, b) _mm512_min_epu8((__m512i)(a), (__m512i)(b))
#define MAXPOOL qn__q8_maxpool_avx512
#include "kernel/q8_maxpool_tmpl.h"
