/* Indirect GEMM for AVX2 + FMA: 6 rows x 16 columns, 12 of 16 registers accumulate. Each output is
 * a chain of fused multiply-adds in the order p, k that starts at the bias. */
#include "kernel/kernel.h"
#include <immintrin.h>

enum { MR = 6, NR = 16 };
/* Weights are read once per tile in one long stream: this many k ahead they are on their way. */
enum { PREFETCH = 32 };

static inline __attribute__((always_inline)) void store_part(float *c, size_t columns, __m256 v0,
                                                             __m256 v1)
{
    float row[NR];
    _mm256_storeu_ps(row, v0);
    _mm256_storeu_ps(row + 8, v1);
    for (size_t j = 0; j < columns; j++)
        c[j] = row[j];
}

/* mr is a compile-time constant after inlining: the array becomes registers. */
static inline __attribute__((always_inline)) void tile(const size_t mr, size_t columns, size_t kc,
                                                       size_t ks, const float *const *a,
                                                       const float *w, float *c, size_t c_stride,
                                                       __m256 lo, __m256 hi)
{
    __m256 acc[MR][2];
#pragma GCC unroll 6
    for (size_t m = 0; m < mr; m++) {
        acc[m][0] = _mm256_loadu_ps(w);
        acc[m][1] = _mm256_loadu_ps(w + 8);
    }
    w += NR;
    for (size_t p = 0; p < ks; p++, a += MR) {
        const float *const a0 = a[0], *const a1 = a[1], *const a2 = a[2];
        const float *const a3 = a[3], *const a4 = a[4], *const a5 = a[5];
        for (size_t k = 0; k < kc; k++) {
            const __m256 b0 = _mm256_loadu_ps(w), b1 = _mm256_loadu_ps(w + 8);
            _mm_prefetch((const char *)(w + PREFETCH * NR), _MM_HINT_T0);
            w += NR;
#define ROW(i)                                                                                     \
    if (mr > i) {                                                                                  \
        const __m256 v = _mm256_broadcast_ss(a##i + k);                                            \
        acc[i][0] = _mm256_fmadd_ps(v, b0, acc[i][0]);                                             \
        acc[i][1] = _mm256_fmadd_ps(v, b1, acc[i][1]);                                             \
    }
            ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5)
#undef ROW
        }
    }
#pragma GCC unroll 6
    for (size_t m = 0; m < mr; m++) {
        /* The bound first: a NaN sum stays NaN. */
        const __m256 v0 = _mm256_min_ps(hi, _mm256_max_ps(lo, acc[m][0]));
        const __m256 v1 = _mm256_min_ps(hi, _mm256_max_ps(lo, acc[m][1]));
        if (columns == NR) {
            _mm256_storeu_ps(c, v0);
            _mm256_storeu_ps(c + 8, v1);
        } else {
            store_part(c, columns, v0, v1);
        }
        c += c_stride;
    }
}

typedef void (*tile_fn)(size_t columns, size_t kc, size_t ks, const float *const *a, const float *w,
                        float *c, size_t c_stride, __m256 lo, __m256 hi);

#define TILE(mr)                                                                                   \
    static void tile_##mr(size_t columns, size_t kc, size_t ks, const float *const *a,             \
                          const float *w, float *c, size_t c_stride, __m256 lo, __m256 hi)         \
    {                                                                                              \
        tile(mr, columns, kc, ks, a, w, c, c_stride, lo, hi);                                      \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5) TILE(6) static const tile_fn tiles[MR] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

void qn__f32_igemm_6x16_avx2(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                             const float *w, float *c, size_t c_stride, const qn_clamp_f32 *clamp)
{
    const size_t panel_floats = NR * (1 + ks * kc);
    const __m256 lo = _mm256_set1_ps(clamp->lo), hi = _mm256_set1_ps(clamp->hi);
    while (nc > 0) {
        const size_t columns = nc < NR ? nc : NR;
        tiles[mr - 1](columns, kc, ks, a, w, c, c_stride, lo, hi);
        w += panel_floats;
        c += columns;
        nc -= columns;
    }
    /* The compiler leaves this out behind indirect calls that take vectors; without it every SSE
     * instruction that follows, all of libm among them, waits for the upper halves. */
    _mm256_zeroupper();
}
