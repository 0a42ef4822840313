/* Few rows times weights kept as integers, for AVX2: each weight becomes a float in a register,
 * once for up to three rows; two panels at a time, so that sums do not wait for each other. */
#include "kernel/kernel.h"

#include <immintrin.h>
#include <string.h>

enum { NR = 16, PANELS = 2, VECTORS = 2 * PANELS };

#define INLINE static inline __attribute__((always_inline))

/* Row k of a panel, less its zero points, times its scales: the dequantized weights. */
INLINE void load_weights(__m256 w[2], const uint8_t *q, bool halves, const float *heads,
                         const __m256 zero[2])
{
    __m256i low, high;
    if (halves) {
        const __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)q));
        low = _mm256_and_si256(both, _mm256_set1_epi32(15));
        high = _mm256_srli_epi32(both, 4);
    } else {
        low = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)q));
        high = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q + 8)));
    }
    w[0] = _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(low), zero[0]), _mm256_loadu_ps(heads));
    w[1] =
        _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(high), zero[1]), _mm256_loadu_ps(heads + 8));
}

/* A row times two panels, which may be the same one. */
INLINE void tile(const qn_f32_ints_args *p, const uint8_t *const panels[PANELS], const float *a,
                 float sums[PANELS * NR])
{
    const bool halves = p->halves;
    const size_t row = halves ? NR / 2 : NR, head = p->zeros ? 2 * NR : NR;
    const size_t blocks = (p->k + p->block - 1) / p->block;
    const size_t q_at = (NR + blocks * head) * sizeof(float);
    __m256 acc[VECTORS];
    for (size_t v = 0; v < VECTORS; v++)
        acc[v] = _mm256_loadu_ps((const float *)(const void *)panels[v / 2] + v % 2 * 8);
    for (size_t k = 0; k < p->k;) {
        const size_t end = p->k - k < p->block ? p->k : k + p->block;
        const float *heads[PANELS];
        __m256 zero[PANELS][2];
        for (size_t i = 0; i < PANELS; i++) {
            heads[i] = (const float *)(const void *)panels[i] + NR + k / p->block * head;
            for (size_t j = 0; j < 2; j++)
                zero[i][j] =
                    p->zeros ? _mm256_loadu_ps(heads[i] + NR + j * 8) : _mm256_set1_ps(p->zero);
        }
        for (; k < end; k++) {
            const __m256 x = _mm256_broadcast_ss(a + k);
            __m256 w[VECTORS];
            for (size_t i = 0; i < PANELS; i++)
                load_weights(w + 2 * i, panels[i] + q_at + k * row, halves, heads[i], zero[i]);
            for (size_t v = 0; v < VECTORS; v++)
                acc[v] = _mm256_fmadd_ps(x, w[v], acc[v]);
        }
    }
    const __m256 lo = _mm256_set1_ps(p->clamp.lo), hi = _mm256_set1_ps(p->clamp.hi);
    for (size_t v = 0; v < VECTORS; v++)
        _mm256_storeu_ps(sums + v * 8, _mm256_min_ps(hi, _mm256_max_ps(lo, acc[v])));
}

void qn__f32_ints_avx2(const qn_f32_ints_args *p)
{
    for (size_t n = 0; n < p->n; n += PANELS * NR) {
        const uint8_t *const first = p->w + n / NR * p->panel_bytes;
        const size_t left = p->n - n < PANELS * NR ? p->n - n : PANELS * NR;
        const uint8_t *const panels[PANELS] = {first, left > NR ? first + p->panel_bytes : first};
        for (size_t m = 0; m < p->m; m++) {
            float sums[PANELS * NR];
            tile(p, panels, p->a + m * p->a_stride, sums);
            memcpy(p->c + m * p->c_stride + n, sums, left * sizeof(float));
        }
    }
}

void qn__f32_ints_expand_avx2(const qn_f32_ints_args *p, float *out)
{
    const size_t row = p->halves ? NR / 2 : NR, head = p->zeros ? 2 * NR : NR;
    const size_t blocks = (p->k + p->block - 1) / p->block;
    const float *const heads = (const float *)(const void *)p->w;
    const uint8_t *const q = p->w + (NR + blocks * head) * sizeof(float);
    memcpy(out, heads, NR * sizeof(float));
    for (size_t k = 0; k < p->k;) {
        const size_t end = p->k - k < p->block ? p->k : k + p->block;
        const float *const h = heads + NR + k / p->block * head;
        __m256 zero[2], w[2];
        for (size_t j = 0; j < 2; j++)
            zero[j] = p->zeros ? _mm256_loadu_ps(h + NR + j * 8) : _mm256_set1_ps(p->zero);
        for (; k < end; k++) {
            load_weights(w, q + k * row, p->halves, h, zero);
            out += NR;
            _mm256_storeu_ps(out, w[0]);
            _mm256_storeu_ps(out + 8, w[1]);
        }
    }
}
