/* Indirect GEMM for AVX-512. Panels are 16 columns wide so that narrow layers waste little; a tile
 * takes up to three panels at once, 8 rows x 48 columns: 24 accumulators hide the latency of the
 * multiply-add, and a broadcast value is used three times. Each output is a chain of fused
 * multiply-adds in the order p, k that starts at the bias. */
#include "kernel/kernel.h"
#include <immintrin.h>

enum { MR = 8, NR = 16 };
/* Weights are read once per tile in long streams: this many k ahead they are on their way from the
 * second or third level. */
enum { PREFETCH = 24 };

/* mr and np are compile-time constants after inlining: the arrays become registers. */
static inline __attribute__((always_inline)) void
tile(const size_t mr, const size_t np, size_t columns, size_t kc, size_t ks, const float *const *a,
     const float *w, size_t panel_floats, float *c, size_t c_stride, __m512 lo, __m512 hi)
{
    __m512 acc[MR][3];
#pragma GCC unroll 8
    for (size_t m = 0; m < mr; m++)
#pragma GCC unroll 3
        for (size_t j = 0; j < np; j++)
            acc[m][j] = _mm512_loadu_ps(w + j * panel_floats);
    const float *w0 = w + NR, *w1 = w0 + panel_floats, *w2 = w1 + panel_floats;
    for (size_t p = 0; p < ks; p++, a += MR) {
        const float *const a0 = a[0], *const a1 = a[1], *const a2 = a[2], *const a3 = a[3];
        const float *const a4 = a[4], *const a5 = a[5], *const a6 = a[6], *const a7 = a[7];
        for (size_t k = 0; k < kc; k++) {
            __m512 b[3];
            b[0] = _mm512_loadu_ps(w0);
            _mm_prefetch((const char *)(w0 + PREFETCH * NR), _MM_HINT_T0);
            if (np > 1)
                _mm_prefetch((const char *)(w1 + PREFETCH * NR), _MM_HINT_T0);
            if (np > 2)
                _mm_prefetch((const char *)(w2 + PREFETCH * NR), _MM_HINT_T0);
            if (np > 1)
                b[1] = _mm512_loadu_ps(w1);
            if (np > 2)
                b[2] = _mm512_loadu_ps(w2);
#define ROW(i)                                                                                     \
    if (mr > i) {                                                                                  \
        const __m512 v = _mm512_set1_ps(a##i[k]);                                                  \
        acc[i][0] = _mm512_fmadd_ps(v, b[0], acc[i][0]);                                           \
        if (np > 1)                                                                                \
            acc[i][1] = _mm512_fmadd_ps(v, b[1], acc[i][1]);                                       \
        if (np > 2)                                                                                \
            acc[i][2] = _mm512_fmadd_ps(v, b[2], acc[i][2]);                                       \
    }
            ROW(0)
            ROW(1)
            ROW(2)
            ROW(3)
            ROW(4)
            ROW(5)
            ROW(6)
            ROW(7)
#undef ROW
            w0 += NR;
            w1 += NR;
            w2 += NR;
        }
    }
    const __mmask16 last = (__mmask16)(0xffffu >> (np * NR - columns));
#pragma GCC unroll 8
    for (size_t m = 0; m < mr; m++) {
#pragma GCC unroll 3
        for (size_t j = 0; j < np; j++) {
            /* The bound first: a NaN sum stays NaN. */
            const __m512 v = _mm512_min_ps(hi, _mm512_max_ps(lo, acc[m][j]));
            if (j + 1 == np)
                _mm512_mask_storeu_ps(c + j * NR, last, v);
            else
                _mm512_storeu_ps(c + j * NR, v);
        }
        c += c_stride;
    }
}

typedef void (*tile_fn)(size_t columns, size_t kc, size_t ks, const float *const *a, const float *w,
                        size_t panel_floats, float *c, size_t c_stride, __m512 lo, __m512 hi);

#define TILE(mr, np)                                                                               \
    static void tile_##mr##_##np(size_t columns, size_t kc, size_t ks, const float *const *a,      \
                                 const float *w, size_t panel_floats, float *c, size_t c_stride,   \
                                 __m512 lo, __m512 hi)                                             \
    {                                                                                              \
        tile(mr, np, columns, kc, ks, a, w, panel_floats, c, c_stride, lo, hi);                    \
    }
#define TILES(mr) TILE(mr, 1) TILE(mr, 2) TILE(mr, 3)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)

#define ROW(mr)                                                                                    \
    {                                                                                              \
        tile_##mr##_1, tile_##mr##_2, tile_##mr##_3                                                \
    }
static const tile_fn tiles[MR][3] = {ROW(1), ROW(2), ROW(3), ROW(4),
                                     ROW(5), ROW(6), ROW(7), ROW(8)};

void qn__f32_igemm_8x48_avx512(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                               const float *w, float *c, size_t c_stride, const qn_clamp_f32 *clamp)
{
    const size_t panel_floats = NR * (1 + ks * kc);
    const __m512 lo = _mm512_set1_ps(clamp->lo), hi = _mm512_set1_ps(clamp->hi);
    size_t panels = (nc + NR - 1) / NR;
    while (panels > 0) {
        /* Four panels are two pairs rather than three and a slow single one. */
        const size_t np = panels == 4 ? 2 : panels < 3 ? panels : 3;
        const size_t columns = nc < np * NR ? nc : np * NR;
        tiles[mr - 1][np - 1](columns, kc, ks, a, w, panel_floats, c, c_stride, lo, hi);
        w += np * panel_floats;
        c += columns;
        nc -= columns;
        panels -= np;
    }
    /* The compiler leaves this out behind indirect calls that take vectors; without it every SSE
     * instruction that follows, all of libm among them, waits for the upper halves. */
    _mm256_zeroupper();
}
