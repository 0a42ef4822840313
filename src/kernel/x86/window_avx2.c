/* Depthwise convolution and pooling for AVX2 + FMA; the last channels are masked. */
#include "kernel/kernel.h"
#include <immintrin.h>

#define VEC __m256
#define LANES 8
static const int32_t lane_mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
static inline __attribute__((always_inline)) __m256i mask_of(size_t left)
{
    return _mm256_loadu_si256((const __m256i *)(lane_mask + 8 - left));
}
static inline __attribute__((always_inline)) __m256 load(const float *p, size_t left)
{
    return left >= LANES ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask_of(left));
}
static inline __attribute__((always_inline)) void store(float *p, __m256 v, size_t left)
{
    if (left >= LANES)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, mask_of(left), v);
}
#define LOAD(p, c) load((p), (c))
#define STORE(p, v, c) store((p), (v), (c))
#define ZERO() _mm256_setzero_ps()
#define SET1(x) _mm256_set1_ps(x)
#define ADD(a, b) _mm256_add_ps((a), (b))
#define MUL(a, b) _mm256_mul_ps((a), (b))
#define MAX(a, b) _mm256_max_ps((a), (b))
#define FMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#define CLAMP(v, lo, hi) _mm256_min_ps((hi), _mm256_max_ps((lo), (v)))
#define DWCONV qn__f32_dwconv_avx2
#define MAXPOOL qn__f32_maxpool_avx2
#define AVGPOOL qn__f32_avgpool_avx2
#include "kernel/window_tmpl.h"
