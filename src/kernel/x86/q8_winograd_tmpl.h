/* 8-bit convolution by Winograd's algorithm for vectors of 256 bits: products of 6 tiles and 16
 * columns, two channels at a time. Files that include this define
 *   DOT(acc, a, b): acc plus the sums of two neighbouring products of 16 bits
 *   INPUTS, OUTPUTS: the functions */
#include "kernel/kernel.h"

#include <immintrin.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

enum { IN = QN_WINOGRAD_IN, CH = QN_WINOGRAD_CHANNELS };
/* Tiles whose products are on the stack before outputs are made of them: 27 KiB, most of which are
 * still in the first level then. */
enum { TILES = 12 };

/* --- inputs ------------------------------------------------------------------------------------*/
/* B times six vectors. */
ALWAYS void six_to_six(const __m256i d[6], __m256i v[6])
{
    const __m256i even = _mm256_sub_epi16(d[4], d[2]), odd = _mm256_sub_epi16(d[3], d[1]);
    const __m256i odd2 = _mm256_add_epi16(odd, odd);
    const __m256i even4 = _mm256_sub_epi16(d[4], _mm256_slli_epi16(d[2], 2));
    const __m256i odd4 = _mm256_sub_epi16(d[3], _mm256_slli_epi16(d[1], 2));
    v[0] = _mm256_add_epi16(_mm256_slli_epi16(_mm256_sub_epi16(d[0], d[2]), 2), even);
    v[1] = _mm256_add_epi16(even4, odd4);
    v[2] = _mm256_sub_epi16(even4, odd4);
    v[3] = _mm256_add_epi16(even, odd2);
    v[4] = _mm256_sub_epi16(even, odd2);
    v[5] = _mm256_sub_epi16(_mm256_sub_epi16(d[5], d[3]), _mm256_add_epi16(odd2, odd2));
}

/* Channels c on of pixel j of row i. */
ALWAYS __m256i pixel(const bool whole, const qn_q8_winograd_args *args,
                     const qn_q8_winograd_tile *tile, size_t i, size_t j, size_t c)
{
    const uint8_t *p = args->zeros;
    if (whole)
        p = tile->in[i] + j * args->channels;
    else if (j >= tile->left && j < tile->right)
        p = tile->in[i] + (j - tile->left) * args->channels;
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(p + c)));
}

/* whole: all pixels are there. */
ALWAYS void inputs_of(const bool whole, const qn_q8_winograd_args *args,
                      const qn_q8_winograd_tile *tile, int16_t *line)
{
    for (size_t c = 0; c < args->channels; c += CH) {
        __m256i columns[IN], d[6], v[6];
        for (size_t j = 0; j < 6; j++) {
#pragma GCC unroll 6
            for (size_t i = 0; i < 6; i++)
                d[i] = pixel(whole, args, tile, i, j, c);
            six_to_six(d, v);
#pragma GCC unroll 6
            for (size_t i = 0; i < 6; i++)
                columns[i * 6 + j] = v[i];
        }
        int16_t *to = line + c;
        for (size_t i = 0; i < 6; i++) {
            six_to_six(columns + i * 6, v);
#pragma GCC unroll 6
            for (size_t j = 0; j < 6; j++, to += args->v_step)
                _mm256_store_si256((void *)to, v[j]);
        }
    }
}

void INPUTS(const qn_q8_winograd_args *args)
{
    int16_t *line = args->v;
    for (size_t t = 0; t < args->tiles; t++, line += args->channels) {
        const qn_q8_winograd_tile *const tile = args->tile + t;
        if (tile->left == 0 && tile->right == 6)
            inputs_of(true, args, tile, line);
        else
            inputs_of(false, args, tile, line);
    }
}

/* --- products ----------------------------------------------------------------------------------*/
/* One product of V and U for `rows` tiles; as many bytes from `next` on as there are weights are
 * prefetched. */
ALWAYS void product(const size_t rows, size_t channels, const int16_t *v, const int16_t *u,
                    const uint8_t *next, int32_t *m)
{
    __m256i s[6][2];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++)
        s[r][0] = s[r][1] = _mm256_setzero_si256();
    const int16_t *const end = v + channels;
    for (; v < end; v += 2, u += 2 * CH, next += 64) {
        _mm_prefetch((const char *)next, _MM_HINT_T0);
        const __m256i u0 = _mm256_load_si256((const void *)u);
        const __m256i u1 = _mm256_load_si256((const void *)(u + CH));
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            int32_t two;
            memcpy(&two, v + r * channels, sizeof(two));
            const __m256i both = _mm256_set1_epi32(two);
            s[r][0] = DOT(s[r][0], both, u0);
            s[r][1] = DOT(s[r][1], both, u1);
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++, m += IN * CH) {
        _mm256_store_si256((void *)m, s[r][0]);
        _mm256_store_si256((void *)(m + CH / 2), s[r][1]);
    }
}

/* m: [tiles][36][16]. Weights of the next product may have to come from the third-level cache. */
static void products(const qn_q8_winograd_args *args, size_t t0, size_t tiles, const int16_t *u,
                     int32_t *m)
{
    const size_t channels = args->channels;
    const int16_t *line = args->v + t0 * channels;
    for (size_t p = 0; p < IN; p++, u += channels * CH, line += args->v_step, m += CH) {
        const uint8_t *const next = (const uint8_t *)(u + channels * CH);
        const int16_t *v = line;
        int32_t *to = m;
        size_t left = tiles;
        for (; left >= 6; left -= 6, v += 6 * channels, to += 6 * IN * CH)
            product(6, channels, v, u, next, to);
        if (left >= 4) {
            product(4, channels, v, u, next, to);
            v += 4 * channels;
            to += 4 * IN * CH;
            left -= 4;
        }
        if (left >= 2) {
            product(2, channels, v, u, next, to);
            v += 2 * channels;
            to += 2 * IN * CH;
            left -= 2;
        }
        if (left != 0)
            product(1, channels, v, u, next, to);
    }
}

/* --- outputs -----------------------------------------------------------------------------------*/
/* A times six vectors. */
ALWAYS void six_to_four(const __m256i m[6], __m256i o[4])
{
    const __m256i p = _mm256_add_epi32(m[1], m[2]), q = _mm256_sub_epi32(m[1], m[2]);
    const __m256i r = _mm256_add_epi32(m[3], m[4]), s = _mm256_sub_epi32(m[3], m[4]);
    const __m256i s2 = _mm256_add_epi32(s, s);
    const __m256i last = _mm256_add_epi32(_mm256_add_epi32(s2, s2), m[5]);
    o[0] = _mm256_add_epi32(_mm256_add_epi32(m[0], p), r);
    o[1] = _mm256_add_epi32(q, s2);
    o[2] = _mm256_add_epi32(p, _mm256_slli_epi32(r, 2));
    o[3] = _mm256_add_epi32(q, _mm256_add_epi32(last, last));
}

typedef struct requant {
    __m256 lo, hi;
    __m256i zero;
} requant;

/* Eight columns of a tile from n on, m: [36][16]. whole: all outputs are there. */
ALWAYS void outputs_of(const bool whole, const int32_t *m, const int32_t *head,
                       const requant *format, const qn_q8_winograd_args *args,
                       const qn_q8_winograd_tile *tile, size_t n)
{
    const __m256i base = _mm256_load_si256((const void *)head);
    const __m256 scale = _mm256_load_ps((const float *)(const void *)(head + CH));
    const __m256i inverse = _mm256_set1_epi32(QN_WINOGRAD_INVERSE);
    const __m256i low = _mm256_set1_epi16(255);
    const __m256i together = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i lines[4 * 6], d[6], o[4];
    for (size_t j = 0; j < 6; j++) {
#pragma GCC unroll 6
        for (size_t i = 0; i < 6; i++)
            d[i] = _mm256_load_si256((const void *)(m + (i * 6 + j) * CH));
        six_to_four(d, o);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            lines[i * 6 + j] = o[i];
    }
    uint8_t *out = tile->out + n;
    for (size_t i = 0; i < (whole ? 4 : tile->rows); i++, out += args->out_row) {
        six_to_four(lines + i * 6, o);
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            const __m256i sum = _mm256_srai_epi32(_mm256_mullo_epi32(o[j], inverse), 6);
            __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sum, base)), scale);
            f = _mm256_min_ps(_mm256_max_ps(f, format->lo), format->hi); /* NaN: lo */
            o[j] = _mm256_cvtps_epi32(f);
        }
        __m256i y0 = _mm256_add_epi16(_mm256_packs_epi32(o[0], o[1]), format->zero);
        __m256i y1 = _mm256_add_epi16(_mm256_packs_epi32(o[2], o[3]), format->zero);
        y0 = _mm256_packus_epi16(_mm256_and_si256(y0, low), _mm256_and_si256(y1, low));
        y0 = _mm256_permutevar8x32_epi32(y0, together);
        const __m128i a = _mm256_castsi256_si128(y0), b = _mm256_extracti128_si256(y0, 1);
        uint8_t *to = out;
        _mm_storel_epi64((void *)to, a);
        if (whole || tile->columns > 1)
            _mm_storeh_pi((void *)(to += args->out_step), _mm_castsi128_ps(a));
        if (whole || tile->columns > 2)
            _mm_storel_epi64((void *)(to += args->out_step), b);
        if (whole || tile->columns > 3)
            _mm_storeh_pi((void *)(to + args->out_step), _mm_castsi128_ps(b));
    }
}

static void outputs(const int32_t *m, const int32_t *head, const requant *format,
                    const qn_q8_winograd_args *args, const qn_q8_winograd_tile *tile, size_t n)
{
    if (tile->rows == 4 && tile->columns == 4)
        outputs_of(true, m, head, format, args, tile, n);
    else
        outputs_of(false, m, head, format, args, tile, n);
}

void OUTPUTS(const qn_q8_winograd_args *args)
{
    _Alignas(64) int32_t m[TILES * IN * CH];
    const qn_q8_out *const to = args->format;
    const requant format = {_mm256_set1_ps((float)(to->lo - to->zero)),
                            _mm256_set1_ps((float)(to->hi - to->zero)),
                            _mm256_set1_epi16((int16_t)to->zero)};
    const uint8_t *panel = args->w;
    for (size_t n = 0; n < args->n; n += CH) {
        const int32_t *const head = (const int32_t *)(const void *)panel;
        for (size_t t0 = 0, tiles; t0 < args->tiles; t0 += tiles) {
            tiles = args->tiles - t0 < TILES ? args->tiles - t0 : TILES;
            products(args, t0, tiles, (const int16_t *)(const void *)(head + 2 * CH), m);
            for (size_t t = 0; t < tiles; t++)
                for (size_t half = 0; half < CH; half += CH / 2)
                    outputs(m + t * IN * CH + half, head + half, &format, args, args->tile + t0 + t,
                            n + half);
        }
        panel += qn_q8_winograd_panel_bytes(args->channels);
    }
}
