/* Resizing bytes for AVX-512. */
#include <immintrin.h>

#define WIDEN(bytes) (pixel) _mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes))
#define COLUMNS qn__u8_columns_avx512
#define PIXELS qn__u8_pixels_avx512
#include "kernel/resize_tmpl.h"
