/* Indirect GEMM on tiles (AMX-BF16), for sums that need not keep all 24 bits of their factors. A
 * float is split into two bfloat16, x = hi + lo + rest with |rest| <= 2^-17 |x|; products are
 * hi hi + hi lo + lo hi, added in float32. Two by two tiles of 16 x 16 outputs; rows are split once
 * per call, weights when they are packed: the two rows of a panel for k and k + 1 become one row of
 * pairs of hi and one of pairs of lo, in the same place. */
#include "kernel/kernel.h"

#include <immintrin.h>

enum { TILE = 16, NR = 16, K_STEP = 32, K_MOST = 1024, TILE_BYTES = 1024, ROW_TILES = 2 };

typedef struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config;

void qn__split_repack_amx(float *packed, size_t n, size_t k)
{
    for (size_t n0 = 0; n0 < n; n0 += NR) {
        packed += NR;
        for (size_t i = 0; i < k; i += 2, packed += 2 * NR) {
            const __m512 a = _mm512_loadu_ps(packed), b = _mm512_loadu_ps(packed + NR);
            const __m512i mask = _mm512_set1_epi32(-0x10000);
            const __m256i a_hi = (__m256i)_mm512_cvtneps_pbh(a),
                          b_hi = (__m256i)_mm512_cvtneps_pbh(b);
            const __m512i a_bits = _mm512_cvtepu16_epi32(a_hi);
            const __m512i b_bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(b_hi), 16);
            const __m512 a_lo = _mm512_sub_ps(a, (__m512)_mm512_slli_epi32(a_bits, 16));
            const __m512 b_lo = _mm512_sub_ps(b, (__m512)b_bits);
            const __m512i lo_a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a_lo));
            const __m512i lo_b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(b_lo));
            _mm512_storeu_si512(packed, _mm512_or_si512(a_bits, _mm512_and_si512(b_bits, mask)));
            _mm512_storeu_si512(packed + NR, _mm512_or_si512(lo_a, _mm512_slli_epi32(lo_b, 16)));
        }
    }
}

/* Rows of one tile: for each 32 k a tile of hi and one of lo. */
static void split_rows(size_t kc, size_t ks, size_t mr, const float *const *a, uint8_t *out,
                       size_t step)
{
    for (size_t p = 0; p < ks; p++, a += ROW_TILES * TILE)
        for (size_t k = 0; k < kc; k += K_STEP, out += step)
            for (size_t m = 0; m < mr; m++) {
                const __m512 x = _mm512_loadu_ps(a[m] + k), y = _mm512_loadu_ps(a[m] + k + TILE);
                const __m512i hi = (__m512i)_mm512_cvtne2ps_pbh(y, x);
                const __m512i x_hi = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(hi));
                const __m512i y_hi = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(hi, 1));
                const __m512 x_lo = _mm512_sub_ps(x, (__m512)_mm512_slli_epi32(x_hi, 16));
                const __m512 y_lo = _mm512_sub_ps(y, (__m512)_mm512_slli_epi32(y_hi, 16));
                _mm512_store_si512(out + m * 64, hi);
                _mm512_store_si512(out + TILE_BYTES + m * 64,
                                   (__m512i)_mm512_cvtne2ps_pbh(y_lo, x_lo));
            }
}

/* One tile's sums with bias and bounds to where they belong. */
static void finish(const float *sums, size_t rows, size_t columns, const float *bias, float *c,
                   size_t c_stride, __m512 lo, __m512 hi)
{
    const __mmask16 mask = (__mmask16)(0xffffu >> (NR - columns));
    const __m512 b = _mm512_loadu_ps(bias);
    for (size_t m = 0; m < rows; m++) {
        const __m512 v = _mm512_add_ps(_mm512_load_ps(sums + m * TILE), b);
        _mm512_mask_storeu_ps(c + m * c_stride, mask, _mm512_min_ps(hi, _mm512_max_ps(lo, v)));
    }
}

/* Tile registers: 0..3 sums, 4 and 5 rows, 6 and 7 weights. */
void qn__split_igemm_32x32_amx(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                               const float *w, float *c, size_t c_stride, const qn_clamp_f32 *clamp)
{
    _Alignas(64) uint8_t rows[K_MOST / K_STEP * ROW_TILES * 2 * TILE_BYTES];
    _Alignas(64) float sums[4][TILE * TILE];
    const size_t k = kc * ks, steps = k / K_STEP, panel_floats = NR * (1 + k);
    const size_t upper = mr < TILE ? mr : TILE, lower = mr - upper;
    const size_t step = ROW_TILES * 2 * TILE_BYTES;
    const __m512 lo = _mm512_set1_ps(clamp->lo), hi = _mm512_set1_ps(clamp->hi);
    config tiles = {.palette = 1};
    for (size_t i = 0; i < 8; i++) {
        tiles.row_bytes[i] = 64;
        /* sums and rows of the upper tile, of the lower one; weights */
        tiles.rows[i] = (uint8_t)(i < 2 || i == 4 ? upper : i < 4 || i == 5 ? lower : TILE);
    }
    if (lower == 0)
        tiles.rows[2] = tiles.rows[3] = tiles.rows[5] = 1; /* none is not allowed; not used */
    split_rows(kc, ks, upper, a, rows, step);
    if (lower > 0)
        split_rows(kc, ks, lower, a + TILE, rows + 2 * TILE_BYTES, step);
    _tile_loadconfig(&tiles);
    for (size_t n = 0; n < nc; n += 2 * NR, w += 2 * panel_floats, c += 2 * NR) {
        const size_t columns = nc - n;
        const bool two = columns > NR;
        const float *w0 = w + NR, *w1 = two ? w0 + panel_floats : w0;
        const uint8_t *x = rows;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (size_t i = 0; i < steps; i++, x += step, w0 += K_STEP * NR, w1 += K_STEP * NR) {
            _tile_loadd(4, x, 64);
            _tile_loadd(6, w0, 128);
            _tile_loadd(7, w1, 128);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (lower > 0) {
                _tile_loadd(5, x + 2 * TILE_BYTES, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
                _tile_loadd(5, x + 3 * TILE_BYTES, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_loadd(4, x + TILE_BYTES, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(6, w0 + NR, 128);
            _tile_loadd(7, w1 + NR, 128);
            _tile_loadd(4, x, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (lower > 0) {
                _tile_loadd(5, x + 2 * TILE_BYTES, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[1], 64);
        _tile_stored(2, sums[2], 64);
        _tile_stored(3, sums[3], 64);
        const size_t first = two ? NR : columns, second = columns < 2 * NR ? columns - NR : NR;
        finish(sums[0], upper, first, w, c, c_stride, lo, hi);
        finish(sums[2], lower, first, w, c + upper * c_stride, c_stride, lo, hi);
        if (two) {
            finish(sums[1], upper, second, w + panel_floats, c + NR, c_stride, lo, hi);
            finish(sums[3], lower, second, w + panel_floats, c + upper * c_stride + NR, c_stride,
                   lo, hi);
        }
    }
    _tile_release();
}
