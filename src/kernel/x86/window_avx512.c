/* Depthwise convolution and pooling for AVX-512; the last channels are masked. */
#include "kernel/kernel.h"
#include <immintrin.h>

#define VEC __m512
#define LANES 16
static inline __attribute__((always_inline)) __mmask16 mask_of(size_t left)
{
    return left >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1u);
}
#define LOAD(p, c) _mm512_maskz_loadu_ps(mask_of(c), (p))
#define STORE(p, v, c) _mm512_mask_storeu_ps((p), mask_of(c), (v))
#define ZERO() _mm512_setzero_ps()
#define SET1(x) _mm512_set1_ps(x)
#define ADD(a, b) _mm512_add_ps((a), (b))
#define MUL(a, b) _mm512_mul_ps((a), (b))
#define MAX(a, b) _mm512_max_ps((a), (b))
#define FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define CLAMP(v, lo, hi) _mm512_min_ps((hi), _mm512_max_ps((lo), (v)))
#define DWCONV qn__f32_dwconv_avx512
#define MAXPOOL qn__f32_maxpool_avx512
#define AVGPOOL qn__f32_avgpool_avx512
#include "kernel/window_tmpl.h"
