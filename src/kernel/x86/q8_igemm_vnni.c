/* 8-bit indirect GEMM for AVX-512 with VNNI: vpdpbusd is exact for all weights. A call has up to
 * 192 rows, which are cut into tiles of 6 rows x 4 panels, 8 x 3, 12 x 2 or 12 x 1: all but the
 * last have 24 accumulators for 10 to 14 loads, and the weights of a tile's panels stay in the
 * first level for the rows below. */
#include "kernel/x86/q8_igemm_vnni.h"

#include "kernel/x86/asm512.h"
#include "kernel/x86/q8_avx512.h"
#include "kernel/x86/q8_bytes_avx512.h"

#include <string.h>

enum { MR = QN_Q8_VNNI_MR, NR = 16, KR = 4, NP = 4, GROUP_BYTES = NR * KR };
/* Rows of a tile; of rows that are copied. */
enum { MOST = 12, COPIED = QN_Q8_VNNI_PART };
/* Bytes of what follows this product that are read ahead for each group of k: as fast as a third
 * level delivers. Weights of more k are read ahead too, so many bytes; products of fewer with
 * nothing to read ahead do without prefetches, which cost a twentieth. */
enum { AHEAD_STEP = GROUP_BYTES / 2, FAR_K = 1024, FAR = 16 * GROUP_BYTES };

/* What a product is made of, with what its tiles have in common. */
typedef struct product {
    size_t kc, ks;            /* kc: whole groups */
    size_t a_step;            /* row pointers of a tap */
    const ptrdiff_t *offsets; /* NULL, or of taps */
    size_t panel_bytes;
    size_t c_stride;
    bool in_bytes;  /* and small_scales: written without a detour */
    bool bounded;   /* by other numbers than the bytes' type is */
    bool rectified; /* so may sums be: byte_bounds; zero is 0 */
    byte_bounds bounds;
} product;

/* What the sums of a tile's columns begin with, and what makes outputs of them; less: -2^23 times
 * the scale (byte_bounds.rectified). */
typedef struct heads {
    __m512i base[NP];
    __m512 scale[NP], less[NP];
    bool rectified;
} heads;

/* Tiles of n rows below each other: pointers to rows, the first of `columns` outputs, the first
 * panel. Tiles may have more rows than n, which are computed for nothing. */
typedef struct place {
    const uint8_t *const *a;
    const uint8_t *w;
    const uint8_t *ahead; /* NULL: nothing is read ahead */
    size_t ahead_step;
    uint8_t *c;
    size_t times, n, columns;
    const heads *heads;
    __m512i *sums;    /* where tiles end unless bytes are written */
    size_t sums_step; /* vectors from one row to the next */
} place;

/* Rounded products as bytes with no bounds but those of their type, sixteen of each; unsigned and
 * not moved if rectified. */
static inline __attribute__((always_inline)) __m512i
open_bytes(const product *g, const bool rectified, const __m512i q[4], __m512i order)
{
    __m512i low = _mm512_packs_epi32(q[0], q[1]), high = _mm512_packs_epi32(q[2], q[3]);
    if (rectified)
        return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
    low = _mm512_adds_epi16(g->bounds.move, low);
    high = _mm512_adds_epi16(g->bounds.move, high);
    return _mm512_permutexvar_epi32(
        order, _mm512_xor_si512(g->bounds.sign, _mm512_packus_epi16(low, high)));
}

static inline __attribute__((always_inline)) __m512i
four_sums(const product *g, const __m512i sums[4], const __m512 scale[4], __m512i order)
{
    __m512i q[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), scale[i]));
    return open_bytes(g, false, q, order);
}

/* Bytes of the rows from m0 on, four, two or one of them: vectors of 16 bytes of a row below each
 * other. The first n rows exist, more than `few`; whole: all columns of the tile do, too, as stores
 * of some take one more instruction. Returns whether more rows may follow. */
static inline __attribute__((always_inline)) bool
put_rows(const size_t mr, const size_t few, const size_t np, const bool whole, size_t m0, size_t n,
         __mmask64 first, uint8_t **c, size_t stride, __m512i bytes)
{
    const size_t rows = np >= 3 ? 1 : 4 / np;
#pragma GCC unroll 4
    for (size_t i = 0; i < rows; i++, *c += stride) {
        if (m0 + i >= mr || (m0 + i > few && m0 + i >= n))
            return false;
        const __m256i two =
            i == 0 ? _mm512_castsi512_si256(bytes) : _mm512_extracti64x4_epi64(bytes, 1);
        const __m128i one = i == 0   ? _mm512_castsi512_si128(bytes)
                            : i == 1 ? _mm512_extracti32x4_epi32(bytes, 1)
                            : i == 2 ? _mm512_extracti32x4_epi32(bytes, 2)
                                     : _mm512_extracti32x4_epi32(bytes, 3);
        if (np == 4 && whole)
            _mm512_storeu_si512(*c, bytes);
        else if (np >= 3)
            _mm512_mask_storeu_epi8(*c, first, bytes);
        else if (np == 2 && whole)
            _mm256_storeu_si256((__m256i *)(void *)*c, two);
        else if (np == 2)
            _mm256_mask_storeu_epi8(*c, (__mmask32)first, two);
        else if (whole)
            _mm_storeu_si128((__m128i *)(void *)*c, one);
        else
            _mm_mask_storeu_epi8(*c, (__mmask16)first, one);
    }
    return true;
}

/* The first n rows as bytes, more than `few`, with no bounds but those of their type. rectified: as
 * sums of these heads are, of which all columns exist and bytes are unsigned ones from zero on.
 * With anything to decide in here outputs took a tenth longer. */
static inline __attribute__((always_inline)) void put_bytes(const product *g, const size_t mr,
                                                            const size_t few, const size_t np,
                                                            const bool rectified, size_t n,
                                                            const heads *h, __mmask64 first,
                                                            uint8_t *c, __m512i acc[MOST][NP])
{
    const size_t rows = np >= 3 ? 1 : 4 / np; /* of four sums */
    const size_t stride = g->c_stride;
    const __m512i order = rows_order();
    __m512 scale[NP], less[NP];
#pragma GCC unroll 4
    for (size_t j = 0; j < np; j++) {
        scale[j] = load512_here(&h->scale[j]);
        if (rectified)
            less[j] = load512_here(&h->less[j]);
    }
#pragma GCC unroll 16
    for (size_t m0 = 0; m0 < mr; m0 += rows) {
        __m512i q[4];
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            const size_t m = m0 + (np >= 3 ? 0 : i / np);
            const size_t j = np < 3 ? i % np : i < np ? i : np - 1;
            const __m512i sum = acc[m < mr ? m : mr - 1][j];
            q[i] = _mm512_cvtps_epi32(
                rectified ? _mm512_fmadd_ps(_mm512_castsi512_ps(sum), scale[j], less[j])
                          : _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale[j]));
        }
        if (!put_rows(mr, few, np, rectified, m0, n, first, &c, stride,
                      open_bytes(g, rectified, q, order)))
            return;
    }
}

static inline __attribute__((always_inline)) const uint8_t *
one_tap(const size_t mr, const size_t np, __m512i acc[MOST][NP], const uint8_t *const rows[MOST],
        size_t k, size_t end, const uint8_t **next, size_t step, const bool look_ahead,
        const uint8_t *ahead, size_t ahead_step)
{
    const uint8_t *w = *next;
    for (; k != end; k += KR, w += GROUP_BYTES) {
        __m512i b[NP];
        /* One pointer, not one for each panel: registers are short. */
        __asm__("" : "+r"(w), "+r"(step));
        if (look_ahead) {
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
            ahead += ahead_step;
        }
#pragma GCC unroll 4
        for (size_t j = 0; j < np; j++)
            b[j] = _mm512_loadu_si512(w + j * step);
        if (look_ahead)
#pragma GCC unroll 4
            for (size_t j = 0; j < np; j++)
                _mm_prefetch((const char *)(w + j * step + FAR), _MM_HINT_T0);
#pragma GCC unroll 16
        for (size_t m = 0; m < mr; m++)
            dpbusd512_row(np, acc[m], rows[m] + k, b);
    }
    *next = w;
    return ahead;
}

/* The same of tiles of few rows, whose sums are in memory, of three panels or four: a sixteenth of
 * a cycle for each output. */
static __attribute__((noinline)) void put_sums_bytes(const product *g, const heads *h, size_t np,
                                                     size_t n, __mmask64 first, const __m512i *sums,
                                                     uint8_t *c)
{
    const __m512i order = rows_order();
    const size_t stride = g->c_stride, last = np - 1;
    const __m512 scale[4] = {h->scale[0], h->scale[1], h->scale[2], h->scale[last]};
    for (; n > 0; n--, sums += np, c += stride) {
        const __m512i row[4] = {sums[0], sums[1], sums[2], sums[last]};
        _mm512_mask_storeu_epi8(c, first, four_sums(g, row, scale, order));
    }
}

/* For more than `few` rows. */
static inline __attribute__((always_inline)) void
tiles(const size_t mr, const size_t few, const size_t np, const product *g, const place *p)
{
    const uint8_t *const begin = p->w + NR * (sizeof(int32_t) + sizeof(float));
    const uint8_t *const *a = p->a;
    const uint8_t *ahead = p->ahead;
    uint8_t *c = p->c;
    __m512i *sums = p->sums;
    size_t step = g->panel_bytes;
    const size_t kc = g->kc, n = p->n, a_step = g->a_step;
    const __mmask64 first = ~0ull >> (64 - p->columns);
    for (size_t times = p->times;;) {
        const uint8_t *w = begin;
        const uint8_t *const *tap = a;
        __m512i acc[MOST][NP];
#pragma GCC unroll 4
        for (size_t j = 0; j < np; j++)
            acc[0][j] = p->heads->base[j];
#pragma GCC unroll 16
        for (size_t m = 1; m < mr; m++)
#pragma GCC unroll 4
            for (size_t j = 0; j < np; j++)
                acc[m][j] = acc[0][j];
        const ptrdiff_t *offset = g->offsets;
        for (size_t t = g->ks; t > 0; t--, tap += a_step) {
            const size_t k = offset == NULL ? 0 : (size_t)*offset++;
            const uint8_t *rows[MOST];
#pragma GCC unroll 16
            for (size_t m = 0; m < mr; m++)
                rows[m] = tap[m];
            if (np >= 3 && ahead != NULL)
                ahead = one_tap(mr, np, acc, rows, k, k + kc, &w, step, true, ahead, p->ahead_step);
            else
                one_tap(mr, np, acc, rows, k, k + kc, &w, step, false, NULL, 0);
        }
        if (mr > 1 && p->heads->rectified) {
            put_bytes(g, mr, few, np, true, n, p->heads, first, c, acc);
        } else if ((np < 3 || few > 0) && g->in_bytes) {
            put_bytes(g, mr, few, np, false, n, p->heads, first, c, acc);
        } else {
            const size_t sums_step = p->sums_step;
            __m512i *to = sums;
#pragma GCC unroll 16
            for (size_t m = 0; m < mr; m++, to += sums_step) {
                __asm__("" : "+r"(to)); /* one pointer, not one for each row */
#pragma GCC unroll 4
                for (size_t j = 0; j < np; j++)
                    to[j] = acc[m][j];
            }
            if (np >= 3 && few == 0 && g->in_bytes)
                put_sums_bytes(g, p->heads, np, n, first, sums, c);
            else
                sums += n * sums_step;
        }
        if (--times == 0)
            return;
        a += n;
        c += n * g->c_stride;
    }
}

#define TILE(mr, few, np)                                                                          \
    static void tile_##mr##_##np(const product *g, const place *p)                                 \
    {                                                                                              \
        tiles(mr, few, np, g, p);                                                                  \
    }
TILE(12, 0, 1)
TILE(8, 0, 2)
TILE(12, 8, 2)
TILE(7, 0, 3)
TILE(8, 7, 3)
TILE(1, 0, 4)
TILE(5, 0, 4)
TILE(6, 5, 4)

typedef struct shape {
    uint8_t most, few; /* rows of a full tile, and up to how many the other is for */
    void (*full)(const product *g, const place *p);
    void (*less)(const product *g, const place *p);
} shape;
static const shape shapes[NP] = {{12, 0, tile_12_1, tile_12_1},
                                 {12, 8, tile_12_2, tile_8_2},
                                 {8, 7, tile_8_3, tile_7_3},
                                 {6, 5, tile_6_4, tile_5_4}};

/* --- outputs by way of memory ----------------------------------------------------------------- */
static void put_sums(const product *g, const place *p, size_t np, const qn_q8_out *out)
{
    const __m512 most = _mm512_set1_ps((float)(out->hi - out->zero));
    const __m512i least = _mm512_set1_epi32(out->lo - out->zero);
    const __m512 lo = _mm512_set1_ps(out->clamp.lo), hi = _mm512_set1_ps(out->clamp.hi);
    for (size_t j = 0; j < np; j++) {
        const size_t n = p->columns - j * NR < NR ? p->columns - j * NR : NR;
        const __m512 scale = _mm512_loadu_ps(p->w + NR * sizeof(int32_t) + j * g->panel_bytes);
        for (size_t m = 0; m < p->n; m++) {
            const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(p->sums[m * NP + j]), scale);
            const size_t at = m * g->c_stride + j * NR;
            if (out->is_float) {
                _mm512_mask_storeu_ps((float *)(void *)p->c + at, first16(n),
                                      _mm512_min_ps(hi, _mm512_max_ps(lo, v)));
                continue;
            }
            const __m512i q = _mm512_max_epi32(least, _mm512_cvtps_epi32(_mm512_min_ps(most, v)));
            _mm512_mask_cvtepi32_storeu_epi8(p->c + at, first16(n),
                                             _mm512_add_epi32(q, _mm512_set1_epi32(out->zero)));
        }
    }
}

static __attribute__((noinline)) void bound_bytes(const byte_bounds *to, uint8_t *c, size_t rows,
                                                  size_t columns, size_t stride)
{
    const __mmask64 first = ~0ull >> (64 - columns);
    for (; rows > 0; rows--, c += stride) {
        const __m512i v = _mm512_xor_si512(to->sign, _mm512_maskz_loadu_epi8(first, c));
        const __m512i bounded = _mm512_min_epu8(to->hi, _mm512_max_epu8(to->lo, v));
        _mm512_mask_storeu_epi8(c, first, _mm512_xor_si512(to->sign, bounded));
    }
}

/* --- columns ---------------------------------------------------------------------------------- */
/* Panels of the next tile: four where their weights stay in the first level for the rows below
 * (outputs of four take the fewest steps), else three: more rows share what is loaded. Of few k
 * outputs are most of the work, and those of three take as many steps as those of four. */
enum { FOUR_MAX_K = 256, FEW_K = 128 };
static size_t panels_at_once(size_t mr, size_t panels, size_t k)
{
    if (mr == 1 || k <= FEW_K)
        return panels < NP ? panels : NP;
    if (k <= FOUR_MAX_K)
        return panels % 4 == 0 ? 4 : panels < 3 ? panels : 3;
    return panels < 3 ? panels : panels % 3 == 0 || panels == 5 ? 3 : 4;
}

static void run_tiles(const product *g, const place *p, size_t np)
{
    const shape *const s = &shapes[np - 1];
    if (np == NP && p->n == 1)
        tile_1_4(g, p);
    else if (p->n <= s->few)
        s->less(g, p);
    else
        s->full(g, p);
}

typedef struct ahead {
    const uint8_t *at;
    size_t bytes, step, tile_bytes;
} ahead;

/* `times` tiles of n rows. */
static void rows_of_tiles(const product *g, place *p, size_t np, ahead *next, const qn_q8_out *out)
{
    const size_t bytes = p->times * next->tile_bytes, times = p->times;
    p->ahead = g->ks * g->kc > FAR_K ? p->w : NULL;
    p->ahead_step = 0;
    if (next->bytes > 0 && next->bytes >= bytes) {
        p->ahead = next->at;
        p->ahead_step = next->step;
        next->at += bytes;
        next->bytes -= bytes;
    }
    const size_t elem = out->is_float ? sizeof(float) : 1;
    if (out->is_sums)
        p->sums = (__m512i *)(void *)p->c;
    if (g->in_bytes || out->is_sums) {
        run_tiles(g, p, np);
        if (g->in_bytes && g->bounded)
            bound_bytes(&g->bounds, p->c, times * p->n, p->columns, g->c_stride);
        p->a += times * p->n;
        p->c += times * p->n * g->c_stride * elem;
        return;
    }
    p->times = 1;
    for (size_t i = 0; i < times; i++) {
        run_tiles(g, p, np);
        put_sums(g, p, np, out);
        p->a += p->n;
        p->c += p->n * g->c_stride * elem;
    }
}

/* Of np panels; whole: all of their columns exist, and more than a row. */
static void make_heads(const product *g, const uint8_t *w, size_t np, bool whole, heads *h)
{
    h->rectified = g->rectified && whole;
    const __m512i higher = _mm512_set1_epi32(h->rectified ? RECTIFIED_BASE : 0);
    const __m512 less = _mm512_set1_ps(-0x1p23f);
    for (size_t j = 0; j < np; j++, w += g->panel_bytes) {
        h->base[j] = _mm512_add_epi32(higher, _mm512_loadu_si512(w));
        h->scale[j] = _mm512_loadu_ps(w + NR * sizeof(int32_t));
        h->less[j] = _mm512_mul_ps(less, h->scale[j]);
    }
}

/* --- 17 to 24 columns ------------------------------------------------------------------------- */
/* As three halves of panels: vectors of eight columns times two groups of k, which are added in the
 * end. Two panels would have a quarter more products. */
enum { HALVES = 3, HALVES_MR = 8, HALVES_K = 192 };
typedef struct halves {
    __m512i w[HALVES_K / (2 * KR)][HALVES];
    __m512i base[HALVES];
    __m512 scale[2]; /* of 16 columns, and of the others for two rows */
} halves;

/* Columns of the first two alternate in twos, so that sums of both are in order. */
static void make_halves(const product *g, const uint8_t *w, halves *h)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    const __m512i order[HALVES] = {
        low, _mm512_add_epi32(low, _mm512_set1_epi32(2)),
        _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)};
    const __m512i rows = _mm512_setr_epi32(0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7);
    const uint8_t *const more = w + g->panel_bytes, *const scales = w + NR * sizeof(int32_t);
    for (size_t j = 0; j < HALVES; j++)
        h->base[j] = _mm512_permutex2var_epi32(_mm512_loadu_si512(j < 2 ? w : more), order[j],
                                               _mm512_setzero_si512());
    h->scale[0] = _mm512_loadu_ps(scales);
    h->scale[1] = _mm512_permutexvar_ps(rows, _mm512_loadu_ps(scales + g->panel_bytes));
    const uint8_t *from = scales + NR * sizeof(float);
    for (size_t i = 0; i < g->ks * g->kc / (2 * KR); i++, from += 2 * GROUP_BYTES)
        for (size_t j = 0; j < HALVES; j++) {
            const uint8_t *const groups = j < 2 ? from : from + g->panel_bytes;
            h->w[i][j] = _mm512_permutex2var_epi32(_mm512_loadu_si512(groups), order[j],
                                                   _mm512_loadu_si512(groups + GROUP_BYTES));
        }
}

/* Of lanes that belong to two groups of k; those of a and of b in twos. */
static inline __attribute__((always_inline)) __m512i add_halves(__m512i a, __m512i b)
{
    const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}

static __attribute__((noinline)) void run_halves(const product *g, size_t mr, size_t columns,
                                                 const uint8_t *const *a, const uint8_t *w,
                                                 uint8_t *c)
{
    const __m512i apart =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __mmask16 last = (__mmask16)(0xffffu >> (32 - columns));
    const __m512i order = rows_order();
    halves h;
    make_halves(g, w, &h);
    for (size_t m0 = 0; m0 < mr; m0 += HALVES_MR, a += HALVES_MR) {
        const size_t n = mr - m0 < HALVES_MR ? mr - m0 : HALVES_MR, kc = g->kc;
        const uint8_t *const *tap = a;
        const __m512i *b = h.w[0];
        __m512i acc[HALVES_MR][HALVES];
#pragma GCC unroll 8
        for (size_t m = 0; m < HALVES_MR; m++)
#pragma GCC unroll 4
            for (size_t j = 0; j < HALVES; j++)
                acc[m][j] = h.base[j];
        const ptrdiff_t *offset = g->offsets;
        for (size_t t = g->ks; t > 0; t--, tap += g->a_step) {
            const size_t begin = offset == NULL ? 0 : (size_t)*offset++;
            const uint8_t *rows[HALVES_MR];
#pragma GCC unroll 8
            for (size_t m = 0; m < HALVES_MR; m++)
                rows[m] = tap[m];
            for (size_t k = begin; k != begin + kc; k += 2 * KR, b += HALVES)
#pragma GCC unroll 8
                for (size_t m = 0; m < HALVES_MR; m++)
                    dpbusd512_row8(acc[m], rows[m] + k, b);
        }
        const __m512 scale[4] = {h.scale[0], h.scale[0], h.scale[0], h.scale[0]};
        const __m512 twice[4] = {h.scale[1], h.scale[1], h.scale[1], h.scale[1]};
        uint8_t *at = c, bytes[64];
        __m512i sums[4];
#pragma GCC unroll 2
        for (size_t m = 0; m < HALVES_MR; m += 4) {
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                sums[i] = add_halves(acc[m + i][0], acc[m + i][1]);
            put_rows(HALVES_MR, 0, 1, true, m, n, 0, &at, g->c_stride,
                     four_sums(g, sums, scale, order));
        }
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            sums[i] = add_halves(acc[2 * i][2], acc[2 * i + 1][2]);
        _mm512_storeu_si512(bytes, _mm512_shuffle_epi8(four_sums(g, sums, twice, order), apart));
        for (size_t m = 0; m < n; m++, c += g->c_stride)
            _mm_mask_storeu_epi8(c + NR, last, _mm_loadl_epi64((const __m128i *)(bytes + 8 * m)));
    }
}

static void all_columns(const product *g, size_t mr, size_t nc, const uint8_t *const *a,
                        const uint8_t *w, uint8_t *c, const qn_q8_out *out)
{
    const size_t elem = out->is_float ? sizeof(float) : 1;
    const size_t step = out->ahead_twice ? 2 * AHEAD_STEP : AHEAD_STEP;
    ahead next = {out->ahead, out->ahead_bytes, step, g->ks * (g->kc / KR) * step};
    __m512i sums[MOST * NP];
    heads h;
    for (size_t panels = (nc + NR - 1) / NR, np; panels > 0; panels -= np) {
        if (panels == 2 && nc <= NR * HALVES / 2 && g->in_bytes && g->kc % (2 * KR) == 0 &&
            g->ks * g->kc <= HALVES_K) {
            run_halves(g, mr, nc, a, w, c);
            if (g->bounded)
                bound_bytes(&g->bounds, c, mr, nc, g->c_stride);
            return;
        }
        np = panels_at_once(mr, panels, g->ks * g->kc);
        const size_t columns = nc < np * NR ? nc : np * NR;
        const uint32_t most = shapes[np - 1].most, cuts = ((uint32_t)mr + most - 1) / most;
        const uint32_t longer = (uint32_t)mr % cuts;
        make_heads(g, w, np, mr > 1 && columns == np * NR, &h);
        /* `most` divides MR: no tile reads pointers behind it. */
        place p = {.a = a,
                   .w = w,
                   .c = c,
                   .times = cuts - longer,
                   .n = (uint32_t)mr / cuts,
                   .columns = columns,
                   .heads = &h,
                   .sums = sums,
                   .sums_step = out->is_sums  ? g->c_stride / NR
                                : g->in_bytes ? np
                                              : NP};
        rows_of_tiles(g, &p, np, &next, out);
        if (longer > 0) {
            p.times = longer;
            p.n++;
            rows_of_tiles(g, &p, np, &next, out);
        }
        w += np * g->panel_bytes;
        c += columns * elem;
        nc -= columns;
    }
}

/* --- copied rows ------------------------------------------------------------------------------ */
/* Rows that need flipping, or that end inside a group, are copied to the stack: once for all
 * columns, or what has room for it part by part. */
enum { ROOM = 36864, ROOM_TAPS = 128, PART = ROOM / COPIED / 64 * 64 };
typedef struct copies {
    uint8_t bytes[ROOM];
    const uint8_t *rows[ROOM_TAPS * COPIED];
} copies;

static size_t row_step(size_t kc)
{
    return (kc + sizeof(__m512i) - 1) / sizeof(__m512i) * sizeof(__m512i);
}

/* Bytes k to k + kc of the rows of ks taps, and pointers to them. Stores are as wide as the room
 * allows: loads of four bytes must not straddle two of them. */
static void copy_rows(copies *to, size_t mr, size_t k, size_t kc, size_t ks,
                      const uint8_t *const *a, size_t a_step, uint8_t flip)
{
    const __m512i sign = SET1_8((char)flip);
    uint8_t *room = to->bytes;
    for (size_t t = 0; t < ks; t++, a += a_step) {
        const uint8_t **const rows = to->rows + t * COPIED;
        for (size_t m = 0; m < mr; m++) {
            const uint8_t *const from = a[m] + k;
            size_t i = 0;
            rows[m] = room;
            for (; i + sizeof sign <= kc; i += sizeof sign)
                STORE_ALL(room + i, XOR(LOAD(from + i), sign));
            if (i < kc)
                COPY_END(room, from, i, kc, sign);
            room += row_step(kc);
        }
        for (size_t m = mr; m < COPIED; m++)
            rows[m] = rows[mr - 1];
    }
}

/* One row of more bytes or taps than there is room for. */
static void long_row(product *g, size_t nc, size_t kc, const uint8_t *const *a, uint8_t flip,
                     const uint8_t *w, uint8_t *c, const qn_q8_out *out, copies *room)
{
    const size_t ks = g->ks, a_step = g->a_step;
    const size_t elem = out->is_float ? sizeof(float) : 1;
    __m512i sums[MOST * NP];
    heads h;
    g->in_bytes = g->rectified = false;
    g->ks = 1;
    g->a_step = COPIED;
    for (size_t n = 0; n < nc; n += NR, w += g->panel_bytes, c += NR * elem) {
        place p = {.a = room->rows,
                   .w = w,
                   .c = c,
                   .times = 1,
                   .n = 1,
                   .columns = nc - n < NR ? nc - n : NR,
                   .heads = &h,
                   .sums = sums,
                   .sums_step = NP};
        make_heads(g, w, 1, false, &h);
        for (size_t t = 0; t < ks; t++) {
            for (size_t k = 0; k < kc; k += PART) {
                const size_t part = kc - k < PART ? kc - k : PART;
                g->kc = (part + KR - 1) / KR * KR;
                copy_rows(room, 1, k, part, 1, a + t * a_step, a_step, flip);
                run_tiles(g, &p, 1);
                p.w += g->kc * NR;
                h.base[0] = sums[0];
            }
        }
        p.w = w;
        if (out->is_sums)
            memcpy(c, sums, sizeof sums[0]);
        else
            put_sums(g, &p, 1, out);
    }
}

void qn__q8_igemm_vnni_rows(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                            size_t a_step, uint8_t flip, const void *w, void *c, size_t c_stride,
                            const qn_q8_out *out)
{
    const size_t k_up = (kc + KR - 1) / KR * KR, elem = out->is_float ? sizeof(float) : 1;
    product g = {.kc = k_up,
                 .ks = ks,
                 .a_step = out->offsets == NULL ? a_step : 0,
                 .offsets = out->offsets,
                 .panel_bytes = NR * (sizeof(int32_t) + sizeof(float) + ks * k_up),
                 .c_stride = c_stride,
                 .in_bytes = out->small_scales && !out->is_float,
                 .bounded = out->hi - out->lo != UINT8_MAX,
                 .bounds = byte_bounds_of(out)};
    g.rectified = g.bounds.rectified && out->zero == 0;
    if ((flip == 0 && k_up == kc) || kc == 0 || ks == 0) {
        all_columns(&g, mr, nc, a, w, c, out);
    } else {
        copies room;
        const size_t row_bytes = ks * row_step(kc);
        const size_t fit = ks > ROOM_TAPS || row_bytes > ROOM ? 0 : ROOM / row_bytes;
        const size_t most = fit < 1 ? 1 : fit < COPIED ? fit : COPIED;
        for (size_t m = 0, n; m < mr; m += n) {
            uint8_t *const to = (uint8_t *)c + m * c_stride * elem;
            n = mr - m < most ? mr - m : most;
            if (fit == 0) {
                g.ks = ks;
                g.a_step = a_step;
                long_row(&g, nc, kc, a + m, flip, w, to, out, &room);
                continue;
            }
            g.a_step = COPIED;
            copy_rows(&room, n, 0, kc, ks, a + m, a_step, flip);
            all_columns(&g, n, nc, room.rows, w, to, out);
        }
    }
    /* Left out by the compiler behind indirect calls: see the float kernel. */
    _mm256_zeroupper();
}

void qn__q8_igemm_192x64_vnni(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                              uint8_t flip, bool safe, const void *w, void *c, size_t c_stride,
                              const qn_q8_out *out)
{
    (void)safe;
    qn__q8_igemm_vnni_rows(mr, nc, kc, ks, a, MR, flip, w, c, c_stride, out);
}

void qn__spaced_rows_vnni(const uint8_t **a, const uint8_t *first, size_t step, size_t n)
{
    const __m512i eight = _mm512_set1_epi64((long long)(8 * step));
    const __m512i numbers = _mm512_cvtepi8_epi64(_mm_cvtsi64_si128(0x0706050403020100));
    __m512i at = _mm512_mullo_epi64(numbers, _mm512_set1_epi64((long long)step));
    at = _mm512_add_epi64(at, _mm512_set1_epi64((long long)(uintptr_t)first));
    for (size_t i = 0; i < n; i += 8, at = _mm512_add_epi64(at, eight))
        _mm512_storeu_si512((void *)(a + i), at);
}
