/* Indirect float GEMM on tiles of integers. The floats of a row, and the weights of a column,
 * become integers of 24 bits with one power of two for all of them, written as three signed digits
 * of 8 bits; of the nine products of digits the six that can show in 24 bits are added, exactly, in
 * three sums by their weight. So an error is relative to the largest factors of a row and a column
 * where the other kernels' is relative to the sum so far: as large for rows of like size, larger
 * where one element towers above the rest. That is enough for calibration. A row or column with a
 * factor that is not finite is NaN. */
#include "kernel/split.h"

#include <immintrin.h>

enum { TILE = 16, NR = 16, DIGITS = 3, TILE_BYTES = 1024, ROW_BYTES = 64, MR = 2 * TILE };
enum { STEP_MOST = 64, STEPS_MOST = 24 };
/* Tiles: the sums of two panels, then the two factors. */
enum { SUMS = 2 * DIGITS, ROWS_TILE = 6, WEIGHTS_TILE = 7 };

typedef struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config;

/* How many k a tile takes: the same number in every step. 0: none fits. */
static size_t choose_step(size_t k)
{
    return k % 64 == 0 ? 64 : k % 48 == 0 ? 48 : 0;
}

bool qn__split_takes_amx(size_t n, size_t kc, size_t ks)
{
    /* Rows are split once for all columns. */
    if (n < MR || kc % TILE != 0 || kc > STEPS_MOST * STEP_MOST / ks)
        return false;
    const size_t step = choose_step(kc * ks);
    return step != 0 && kc * ks <= STEPS_MOST * step;
}

/* The exponent of the largest magnitude, biased: with it |x| * factor(exponent) < 127.99 * 2^16,
 * which has three signed digits. From a floor on, below which all digits are 0. */
static inline __m512i exponent_of(__m512i magnitude)
{
    const __m512i e =
        _mm512_srli_epi32(_mm512_add_epi32(magnitude, _mm512_set1_epi32(0x10200)), 23);
    return _mm512_min_epu32(_mm512_max_epu32(e, _mm512_set1_epi32(23)), _mm512_set1_epi32(255));
}

static inline __m512 factor(__m512i exponent)
{
    const __m512i e = _mm512_sub_epi32(_mm512_set1_epi32(276), exponent);
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

/* 1 / factor, or NaN. */
static inline __m512 inverse(__m512i exponent, __m512i magnitude)
{
    const __m512i e = _mm512_sub_epi32(exponent, _mm512_set1_epi32(22));
    const __mmask16 infinite = _mm512_cmpge_epu32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
    return _mm512_castsi512_ps(
        _mm512_mask_blend_epi32(infinite, _mm512_slli_epi32(e, 23), _mm512_set1_epi32(0x7fc00000)));
}

static inline __m512i magnitude(__m512i most, const float *x)
{
    const __m512i bits = _mm512_and_si512(_mm512_loadu_si512(x), _mm512_set1_epi32(0x7fffffff));
    return _mm512_max_epu32(most, bits);
}

/* Digits in the bytes 0 to 2 of an element, lowest first, each plus 128. */
static inline __m512i digits(__m512 x, __m512 f)
{
    return _mm512_cvtps_epi32(_mm512_fmadd_ps(x, f, _mm512_set1_ps(0x808080)));
}

/* In place: each panel's weights become tiles, `step` k of each digit after the other, highest
 * first, and then the inverses of the columns' factors. */
void qn__split_repack_amx(float *packed, size_t n, size_t k)
{
    const size_t step = choose_step(k), panel_floats = NR * (1 + k);
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    for (size_t n0 = 0; n0 < n; n0 += NR, packed += panel_floats) {
        const float *from = packed + NR;
        uint8_t *to = (uint8_t *)(packed + NR);
        __m512i most = _mm512_setzero_si512();
        for (size_t i = 0; i < k; i++)
            most = magnitude(most, from + i * NR);
        const __m512i e = exponent_of(most);
        const __m512 f = factor(e);
        for (size_t i = 0; i < k; i += step) {
            _Alignas(64) uint8_t tiles[DIGITS * TILE_BYTES];
            for (size_t r = 0; r < step / 4; r++, from += 4 * NR) {
                __m512i d[4];
                for (size_t j = 0; j < 4; j++)
                    d[j] = digits(_mm512_loadu_ps(from + j * NR), f);
                for (int digit = 0; digit < DIGITS; digit++) {
                    const __m512i byte = _mm512_set1_epi32(0xff);
                    __m512i row = _mm512_setzero_si512();
                    for (int j = 3; j >= 0; j--) {
                        const __m512i v = _mm512_and_si512(
                            byte, _mm512_srl_epi32(d[j], _mm_cvtsi32_si128(16 - 8 * digit)));
                        row = _mm512_or_si512(_mm512_slli_epi32(row, 8), v);
                    }
                    _mm512_store_si512(tiles + ((size_t)digit * step / 4 + r) * ROW_BYTES,
                                       _mm512_xor_si512(row, flip));
                }
            }
            for (size_t r = 0; r < DIGITS * step / 4; r++, to += ROW_BYTES)
                _mm512_storeu_si512(to, _mm512_load_si512(tiles + r * ROW_BYTES));
        }
        _mm512_storeu_ps(to, _mm512_mul_ps(inverse(e, most), _mm512_set1_ps(0x1p16f)));
    }
}

/* Up to 64 k of one row to a tile of each digit, highest first. */
static inline void put_digits(const __m512i d[4], uint8_t *out)
{
    const __m512i by_digit =
        _mm512_broadcast_i32x4(_mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, 3, 7, 11, 15));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const __m512i a = _mm512_shuffle_epi8(d[0], by_digit), b = _mm512_shuffle_epi8(d[1], by_digit);
    const __m512i c = _mm512_shuffle_epi8(d[2], by_digit), e = _mm512_shuffle_epi8(d[3], by_digit);
    const __m512i ab = _mm512_unpacklo_epi32(a, b), ce = _mm512_unpacklo_epi32(c, e);
    const __m512i last =
        _mm512_unpacklo_epi64(_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, e));
    const __m512i planes[] = {_mm512_unpacklo_epi64(ab, ce), _mm512_unpackhi_epi64(ab, ce), last};
    for (size_t i = 0; i < DIGITS; i++)
        _mm512_store_si512(out + i * TILE_BYTES,
                           _mm512_xor_si512(_mm512_permutexvar_epi32(order, planes[i]), flip));
}

/* One row; a: its taps, MR pointers apart. Returns the inverse of its factor. */
static float split_row(const float *const *a, size_t kc, size_t ks, size_t step, uint8_t *out)
{
    __m512i most = _mm512_setzero_si512();
    for (size_t p = 0; p < ks; p++)
        for (size_t k = 0; k < kc; k += TILE)
            most = magnitude(most, a[p * MR] + k);
    most = _mm512_set1_epi32((int)_mm512_reduce_max_epu32(most));
    const __m512i e = exponent_of(most);
    const __m512 f = factor(e);
    __m512i d[4];
    for (size_t j = 0; j < 4; j++)
        d[j] = _mm512_set1_epi32(0x808080);
    if (kc % STEP_MOST == 0) {
        for (size_t p = 0; p < ks; p++)
            for (size_t k = 0; k < kc; k += STEP_MOST, out += DIGITS * TILE_BYTES) {
                for (size_t j = 0; j < 4; j++)
                    d[j] = digits(_mm512_loadu_ps(a[p * MR] + k + j * TILE), f);
                put_digits(d, out);
            }
    } else {
        for (size_t i = 0, p = 0, k = 0; i < kc * ks; i += step, out += DIGITS * TILE_BYTES) {
            for (size_t j = 0; j < step / TILE; j++) {
                d[j] = digits(_mm512_loadu_ps(a[p * MR] + k), f);
                k += TILE;
                if (k == kc) {
                    k = 0;
                    p++;
                }
            }
            put_digits(d, out);
        }
    }
    return _mm512_cvtss_f32(inverse(e, most));
}

/* Loads of tiles by gcc 12 do not tell that they read memory: what they read is written before
 * this. */
static inline void written(const void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

/* The digits of a step: rows times one panel, or two. */
static inline __attribute__((always_inline)) void
one_step(bool two, const uint8_t *x, const uint8_t *w0, const uint8_t *w1, size_t tile)
{
    _tile_loadd(6, x, ROW_BYTES);
#define PRODUCT(sums, weights)                                                                     \
    _tile_loadd(7, weights, ROW_BYTES);                                                            \
    _tile_dpbssd(sums, 6, 7);
    PRODUCT(0, w0)
    if (two) {
        PRODUCT(3, w1)
    }
    PRODUCT(1, w0 + tile)
    if (two) {
        PRODUCT(4, w1 + tile)
    }
    PRODUCT(2, w0 + 2 * tile)
    if (two) {
        PRODUCT(5, w1 + 2 * tile)
    }
    _tile_loadd(6, x + TILE_BYTES, ROW_BYTES);
    PRODUCT(1, w0)
    if (two) {
        PRODUCT(4, w1)
    }
    PRODUCT(2, w0 + tile)
    if (two) {
        PRODUCT(5, w1 + tile)
    }
    _tile_loadd(6, x + 2 * TILE_BYTES, ROW_BYTES);
    PRODUCT(2, w0)
    if (two) {
        PRODUCT(5, w1)
    }
#undef PRODUCT
}

/* One panel's sums with bias and bounds to where they belong. */
static void finish(const int32_t sums[DIGITS][TILE * NR], const float *inverses, size_t rows,
                   size_t columns, const float *bias, const float *scales, float *c,
                   size_t c_stride, const qn_clamp_f32 *clamp)
{
    const __m512 lo = _mm512_set1_ps(clamp->lo), hi = _mm512_set1_ps(clamp->hi);
    const __mmask16 mask = (__mmask16)(0xffffu >> (NR - columns));
    const __m512 b = _mm512_loadu_ps(bias), scale = _mm512_loadu_ps(scales);
    const __m512 digit = _mm512_set1_ps(256.0f);
    for (size_t m = 0; m < rows; m++) {
        __m512 v[DIGITS];
        for (size_t i = 0; i < DIGITS; i++)
            v[i] = _mm512_cvtepi32_ps(_mm512_load_si512(sums[i] + m * NR));
        const __m512 sum = _mm512_fmadd_ps(_mm512_fmadd_ps(v[0], digit, v[1]), digit, v[2]);
        const __m512 x = _mm512_fmadd_ps(_mm512_mul_ps(sum, _mm512_set1_ps(inverses[m])), scale, b);
        _mm512_mask_storeu_ps(c + m * c_stride, mask, _mm512_min_ps(hi, _mm512_max_ps(lo, x)));
    }
}

typedef struct panel {
    const float *bias, *scales;
    const uint8_t *tiles;
} panel;

static panel panel_at(const float *w, size_t k)
{
    return (panel){w, w + NR + k * NR / 4 * DIGITS, (const uint8_t *)(w + NR)};
}

void qn__split_igemm_32x32_amx(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                               const float *w, float *c, size_t c_stride, const qn_clamp_f32 *clamp)
{
    _Alignas(64) uint8_t rows[2 * STEPS_MOST * DIGITS * TILE_BYTES];
    _Alignas(64) int32_t sums[SUMS][TILE * NR];
    float inverses[MR];
    const size_t k = kc * ks, step = choose_step(k), steps = k / step, panel_floats = NR * (1 + k);
    const size_t half = mr > TILE ? (mr + 1) / 2 : mr, tile = step / 4 * ROW_BYTES;
    config tiles = {.palette = 1};
    for (size_t i = 0; i < 8; i++) {
        tiles.row_bytes[i] = i == ROWS_TILE ? (uint16_t)step : ROW_BYTES;
        tiles.rows[i] = i == WEIGHTS_TILE ? (uint8_t)(step / 4) : (uint8_t)half;
    }
    for (size_t m = 0; m < mr; m++)
        inverses[m] =
            split_row(a + m, kc, ks, step,
                      rows + m / half * steps * DIGITS * TILE_BYTES + m % half * ROW_BYTES);
    written(rows);
    _tile_loadconfig(&tiles);
    for (size_t n = 0; n < nc; n += 2 * NR, w += 2 * panel_floats) {
        const size_t columns = nc - n;
        const bool two = columns > NR;
        const panel p0 = panel_at(w, k), p1 = panel_at(two ? w + panel_floats : w, k);
        for (size_t m = 0; m < mr; m += half) {
            const uint8_t *x = rows + m / half * steps * DIGITS * TILE_BYTES;
            const size_t count = mr - m < half ? mr - m : half;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            _tile_zero(4);
            _tile_zero(5);
            for (size_t i = 0; i < steps; i++, x += DIGITS * TILE_BYTES) {
                if (two)
                    one_step(true, x, p0.tiles + i * DIGITS * tile, p1.tiles + i * DIGITS * tile,
                             tile);
                else
                    one_step(false, x, p0.tiles + i * DIGITS * tile, NULL, tile);
            }
            _tile_stored(0, sums[0], ROW_BYTES);
            _tile_stored(1, sums[1], ROW_BYTES);
            _tile_stored(2, sums[2], ROW_BYTES);
            float *const out = c + m * c_stride + n;
            finish((const int32_t(*)[TILE * NR]) sums, inverses + m, count, two ? NR : columns,
                   p0.bias, p0.scales, out, c_stride, clamp);
            if (two) {
                _tile_stored(3, sums[3], ROW_BYTES);
                _tile_stored(4, sums[4], ROW_BYTES);
                _tile_stored(5, sums[5], ROW_BYTES);
                finish((const int32_t(*)[TILE * NR])(sums + DIGITS), inverses + m, count,
                       columns < 2 * NR ? columns - NR : NR, p1.bias, p1.scales, out + NR, c_stride,
                       clamp);
            }
        }
    }
    _tile_release();
}
