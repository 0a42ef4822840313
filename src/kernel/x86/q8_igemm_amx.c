/* 8-bit indirect GEMM on AMX tiles: up to 32 rows times 32 columns at once, up to 64 bytes of k a
 * step. A panel's groups of four k are the rows of a tile as they lie. Rows are read where they are
 * if they lie evenly spaced and a tap is made of whole steps, otherwise from one copy for all
 * columns. */
#include "kernel/x86/q8_bytes_avx512.h"
#include "kernel/x86/q8_igemm_vnni.h"

#include <immintrin.h>
#include <string.h>

enum { MR = 32, NR = 16, KR = 4, TILE_ROWS = 16, TILE_ROW_BYTES = 64 };
/* Copied rows; 3x3 of 512 channels fit. */
enum { ROOM = 32 * 9 * 512 };

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t columns[16]; /* bytes */
    uint8_t rows[16];
} tile_config;

/* Tiles: 0 to 3 sums (row half, panel), 4 and 5 rows, 6 and 7 weights. */
static void configure(size_t upper, size_t lower, size_t step)
{
    tile_config config = {.palette = 1};
    for (size_t i = 0; i < 8; i++)
        config.columns[i] = TILE_ROW_BYTES;
    config.columns[4] = config.columns[5] = (uint16_t)step;
    config.rows[0] = config.rows[1] = config.rows[4] = (uint8_t)upper;
    config.rows[2] = config.rows[3] = config.rows[5] = (uint8_t)(lower > 0 ? lower : 1);
    config.rows[6] = config.rows[7] = (uint8_t)(step / KR);
    _tile_loadconfig(&config);
}

/* Loads of tiles by gcc 12 do not tell that they read memory: what they read is written before
 * this. */
static inline void written(const void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

/* Half of the rows: row m at `stride` bytes times m from the first one. */
typedef struct half {
    size_t rows;
    ptrdiff_t stride;
    const uint8_t *copy; /* NULL: where a says */
} half;

static bool evenly_spaced(const uint8_t *const *a, size_t ks, size_t rows, ptrdiff_t *stride)
{
    const __m512i low = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i high = _mm512_add_epi64(low, _mm512_set1_epi64(8));
    if (rows == 0)
        return true;
    *stride = rows > 1 ? a[1] - a[0] : 0;
    const __m512i step = _mm512_set1_epi64(*stride);
    const __m512i low_offsets = _mm512_mullo_epi64(low, step);
    const __m512i high_offsets = _mm512_mullo_epi64(high, step);
    const __mmask8 low_used = (__mmask8)((1u << rows) - 1),
                   high_used = (__mmask8)(((1u << rows) - 1) >> 8);
    for (size_t p = 0; p < ks; p++, a += MR) {
        const __m512i first = _mm512_set1_epi64((long long)(uintptr_t)a[0]);
        const __mmask8 wrong_low = _mm512_mask_cmpneq_epi64_mask(
            low_used, _mm512_maskz_loadu_epi64(low_used, a), _mm512_add_epi64(first, low_offsets));
        const __mmask8 wrong_high =
            _mm512_mask_cmpneq_epi64_mask(high_used, _mm512_maskz_loadu_epi64(high_used, a + 8),
                                          _mm512_add_epi64(first, high_offsets));
        if ((wrong_low | wrong_high) != 0)
            return false;
    }
    return true;
}

/* The largest whole number of groups that divides a tap, if it fills much of a tile's row. */
static size_t choose_step(size_t kc)
{
    if (kc % KR != 0)
        return 0;
    for (size_t step = TILE_ROW_BYTES; step >= TILE_ROW_BYTES / 2; step -= KR)
        if (kc % step == 0)
            return step;
    return kc < TILE_ROW_BYTES ? kc : 0;
}

static void copy_bytes(uint8_t *to, const uint8_t *from, size_t n, uint8_t flip)
{
    const __m512i sign = _mm512_set1_epi8((char)flip);
    for (; n >= TILE_ROW_BYTES; n -= TILE_ROW_BYTES, to += TILE_ROW_BYTES, from += TILE_ROW_BYTES)
        _mm512_storeu_si512(to, _mm512_xor_si512(sign, _mm512_loadu_si512(from)));
    if (n > 0) {
        const __mmask64 first = ~0ull >> (TILE_ROW_BYTES - n);
        _mm512_mask_storeu_epi8(to, first,
                                _mm512_xor_si512(sign, _mm512_maskz_loadu_epi8(first, from)));
    }
}

/* All taps of every row, each filled up to whole groups; the row to whole steps. */
static void copy_rows(uint8_t *to, size_t row_bytes, const uint8_t *const *a, size_t rows,
                      size_t kc, size_t ks, uint8_t flip)
{
    const size_t tap = (kc + KR - 1) / KR * KR, filled = ks * tap;
    for (size_t m = 0; m < rows; m++, to += row_bytes) {
        for (size_t p = 0; p < ks; p++) {
            if (tap != kc)
                memset(to + p * tap + tap - KR, 0, KR);
            copy_bytes(to + p * tap, a[p * MR + m], kc, flip);
        }
        memset(to + filled, 0, row_bytes - filled);
    }
}

/* 16 columns of `rows` rows of sums. */
static void put(const int32_t *sums, size_t rows, size_t columns, const float *scales, void *c,
                size_t c_stride, const qn_q8_out *out)
{
    const __m512 scale = _mm512_loadu_ps(scales);
    const __mmask16 first = (__mmask16)(0xffffu >> (NR - columns));
    if (out->is_sums) {
        for (size_t m = 0; m < rows; m++)
            _mm512_storeu_si512((int32_t *)c + m * c_stride, _mm512_loadu_si512(sums + m * NR));
        return;
    }
    if (out->is_float) {
        const __m512 lo = _mm512_set1_ps(out->clamp.lo), hi = _mm512_set1_ps(out->clamp.hi);
        for (size_t m = 0; m < rows; m++) {
            const __m512 v =
                _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + m * NR)), scale);
            _mm512_mask_storeu_ps((float *)c + m * c_stride, first,
                                  _mm512_min_ps(hi, _mm512_max_ps(lo, v)));
        }
        return;
    }
    const __m512 hi = _mm512_set1_ps((float)(out->hi - out->zero));
    const __m512i lo = _mm512_set1_epi32(out->lo - out->zero), zero = _mm512_set1_epi32(out->zero);
    for (size_t m = 0; m < rows; m++) {
        /* What is below all integers, and a NaN, become the smallest one. */
        const __m512 v =
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + m * NR)), scale);
        const __m512i q = _mm512_max_epi32(lo, _mm512_cvtps_epi32(_mm512_min_ps(hi, v)));
        _mm512_mask_cvtepi32_storeu_epi8((uint8_t *)c + m * c_stride, first,
                                         _mm512_add_epi32(q, zero));
    }
}

/* As bytes with small scales: `rows` rows of one panel or of two. */
static inline __attribute__((always_inline)) void
put_bytes(const size_t panels, int32_t sums[2][TILE_ROWS * NR], size_t rows, size_t columns,
          const uint8_t *scales, size_t panel_bytes, uint8_t *c, size_t c_stride,
          const byte_bounds *to)
{
    const size_t at_once = 4 / panels;
    const __mmask32 first = 0xffffffffu >> (32 - columns);
    const __m512 scale[2] = {_mm512_loadu_ps(scales),
                             _mm512_loadu_ps(scales + (panels - 1) * panel_bytes)};
    for (size_t m = 0; m < rows; m += at_once, c += at_once * c_stride) {
        __m512i v[4];
        __m512 by[4];
        const size_t left = rows - m;
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            const size_t row = i / panels < left ? m + i / panels : rows - 1;
            v[i] = _mm512_loadu_si512(sums[i % panels] + row * NR);
            by[i] = scale[i % panels];
        }
        const __m512i bytes = to_bytes(to, v, by);
        if (panels == 2) {
            _mm256_mask_storeu_epi8(c, first, _mm512_castsi512_si256(bytes));
            if (left > 1)
                _mm256_mask_storeu_epi8(c + c_stride, first, _mm512_extracti64x4_epi64(bytes, 1));
            continue;
        }
        _mm_mask_storeu_epi8(c, (__mmask16)first, _mm512_castsi512_si128(bytes));
        if (left > 1)
            _mm_mask_storeu_epi8(c + c_stride, (__mmask16)first,
                                 _mm512_extracti32x4_epi32(bytes, 1));
        if (left > 2)
            _mm_mask_storeu_epi8(c + 2 * c_stride, (__mmask16)first,
                                 _mm512_extracti32x4_epi32(bytes, 2));
        if (left > 3)
            _mm_mask_storeu_epi8(c + 3 * c_stride, (__mmask16)first,
                                 _mm512_extracti32x4_epi32(bytes, 3));
    }
}

typedef struct gemm {
    const uint8_t *const *a;
    half upper, lower;
    size_t kc, ks;
    size_t groups;        /* of all k of a panel */
    size_t step;          /* bytes of k */
    const uint8_t *ahead; /* what is left to prefetch */
    size_t ahead_bytes;
} gemm;

/* An eighth of the lines of a step of two panels: more would keep rows and weights waiting. */
enum { AHEAD_LINES = 4 };
static inline __attribute__((always_inline)) void look_ahead(gemm *g)
{
    if (g->ahead_bytes == 0)
        return;
#pragma GCC unroll 4
    for (size_t i = 0; i < AHEAD_LINES; i++)
        _mm_prefetch((const char *)g->ahead + i * TILE_ROW_BYTES, _MM_HINT_T1);
    const size_t done = AHEAD_LINES * TILE_ROW_BYTES;
    g->ahead += done;
    g->ahead_bytes -= g->ahead_bytes < done ? g->ahead_bytes : done;
}

static inline __attribute__((always_inline)) void one_step(bool two_halves, bool two_panels,
                                                           const uint8_t *a0, ptrdiff_t stride0,
                                                           const uint8_t *a1, ptrdiff_t stride1,
                                                           const uint8_t *w0, const uint8_t *w1)
{
    _tile_loadd(6, w0, TILE_ROW_BYTES);
    _tile_loadd(4, a0, stride0);
    _tile_dpbusd(0, 4, 6);
    if (two_panels) {
        _tile_loadd(7, w1, TILE_ROW_BYTES);
        _tile_dpbusd(1, 4, 7);
    }
    if (two_halves) {
        _tile_loadd(5, a1, stride1);
        _tile_dpbusd(2, 5, 6);
        if (two_panels)
            _tile_dpbusd(3, 5, 7);
    }
}

/* One or two panels from w on. */
static inline __attribute__((always_inline)) void panels(gemm *g, bool two_halves, bool two_panels,
                                                         const uint8_t *w, size_t panel_bytes)
{
    const uint8_t *const next = w + panel_bytes;
    _tile_loadd(0, w, 0);
    if (two_panels)
        _tile_loadd(1, next, 0);
    if (two_halves) {
        _tile_loadd(2, w, 0);
        if (two_panels)
            _tile_loadd(3, next, 0);
    }
    const uint8_t *w0 = w + NR * (sizeof(int32_t) + sizeof(float));
    const uint8_t *w1 = next + NR * (sizeof(int32_t) + sizeof(float));
    const size_t step = g->step, step_groups = step / KR, tile_bytes = step_groups * TILE_ROW_BYTES;
    const size_t whole = g->groups / step_groups, rest = g->groups % step_groups;
    const uint8_t *const *a = g->a;
    size_t k = 0;
    for (size_t i = 0; i < whole; i++, w0 += tile_bytes, w1 += tile_bytes) {
        const uint8_t *const a0 = g->upper.copy != NULL ? g->upper.copy + i * step : a[0] + k;
        const uint8_t *const a1 = !two_halves             ? NULL
                                  : g->lower.copy != NULL ? g->lower.copy + i * step
                                                          : a[g->upper.rows] + k;
        one_step(two_halves, two_panels, a0, g->upper.stride, a1, g->lower.stride, w0, w1);
        look_ahead(g);
        k += step;
        if (k >= g->kc) { /* means nothing to copies */
            k = 0;
            a += MR;
        }
    }
    if (rest > 0) {
        /* The panel ends within a tile; such rows are copies. */
        uint8_t last[2][TILE_ROWS * TILE_ROW_BYTES];
        const size_t bytes = rest * TILE_ROW_BYTES;
        memcpy(last[0], w0, bytes);
        memset(last[0] + bytes, 0, sizeof last[0] - bytes);
        if (two_panels) {
            memcpy(last[1], w1, bytes);
            memset(last[1] + bytes, 0, sizeof last[1] - bytes);
        }
        written(last);
        one_step(two_halves, two_panels, g->upper.copy + whole * step, g->upper.stride,
                 g->lower.copy + whole * step, g->lower.stride, last[0], last[1]);
    }
}

static void all_columns(gemm *g, size_t nc, const uint8_t *w, size_t panel_bytes, uint8_t *c,
                        size_t c_stride, const qn_q8_out *out)
{
    const size_t elem = out->is_float ? sizeof(float) : 1;
    const bool two_halves = g->lower.rows > 0;
    uint8_t *const c_lower = c + g->upper.rows * c_stride * elem;
    int32_t sums[2][2][TILE_ROWS * NR];
    const bool in_bytes = out->small_scales && !out->is_float;
    const byte_bounds bounds = byte_bounds_of(out);
    for (size_t n = 0; n < nc; n += 2 * NR, w += 2 * panel_bytes) {
        const bool two_panels = n + NR < nc;
        if (two_panels) {
            if (two_halves)
                panels(g, true, true, w, panel_bytes);
            else
                panels(g, false, true, w, panel_bytes);
            _tile_stored(1, sums[0][1], NR * sizeof(int32_t));
        } else {
            if (two_halves)
                panels(g, true, false, w, panel_bytes);
            else
                panels(g, false, false, w, panel_bytes);
        }
        _tile_stored(0, sums[0][0], NR * sizeof(int32_t));
        if (two_halves) {
            _tile_stored(2, sums[1][0], NR * sizeof(int32_t));
            if (two_panels)
                _tile_stored(3, sums[1][1], NR * sizeof(int32_t));
        }
        const uint8_t *const scales = w + NR * sizeof(int32_t);
        for (size_t i = 0; i < 1u + two_halves; i++) {
            const size_t rows = i == 0 ? g->upper.rows : g->lower.rows;
            uint8_t *const to = (i == 0 ? c : c_lower) + n * elem;
            const size_t left = nc - n;
            if (in_bytes && two_panels)
                put_bytes(2, sums[i], rows, left < 2 * NR ? left : 2 * NR, scales, panel_bytes, to,
                          c_stride, &bounds);
            else if (in_bytes)
                put_bytes(1, sums[i], rows, left, scales, panel_bytes, to, c_stride, &bounds);
            else
                for (size_t j = 0; j < 1u + two_panels; j++)
                    put(sums[i][j], rows, left - j * NR < NR ? left - j * NR : NR,
                        (const float *)(const void *)(scales + j * panel_bytes), to + j * NR * elem,
                        c_stride, out);
        }
    }
}

/* A row that does not fit the room: a few products of very many k. */
static void one_row(size_t nc, size_t kc, size_t ks, const uint8_t *const *a, uint8_t flip,
                    const uint8_t *w, size_t panel_bytes, uint8_t *c, const qn_q8_out *out)
{
    const size_t elem = out->is_float ? sizeof(float) : 1;
    for (size_t n0 = 0; n0 < nc; n0 += NR, w += panel_bytes) {
        const size_t columns = nc - n0 < NR ? nc - n0 : NR;
        uint32_t sums[NR];
        memcpy(sums, w, sizeof sums);
        const uint8_t *at = w + NR * (sizeof(int32_t) + sizeof(float));
        for (size_t p = 0; p < ks; p++)
            for (size_t k0 = 0; k0 < kc; k0 += KR, at += NR * KR)
                for (size_t n = 0; n < NR; n++)
                    for (size_t k = k0; k < k0 + KR && k < kc; k++)
                        sums[n] += (uint32_t)((a[p * MR][k] ^ flip) *
                                              (int32_t)(int8_t)at[n * KR + k - k0]);
        put((const int32_t *)sums, 1, columns,
            (const float *)(const void *)(w + NR * sizeof(int32_t)), c + n0 * elem, 0, out);
    }
}

/* Of few k, tiles cost more than they save, and so do short taps: where their rows would have to be
 * copied together, and of less than LEAST_TAP bytes. Panels are the same for both. */
enum { FEW_GROUPS = 11, LEAST_TAP = 24 };
static bool is_few(const gemm *g, size_t mr, bool in_place)
{
    const size_t upper = mr <= TILE_ROWS ? mr : (mr + 1) / 2;
    ptrdiff_t stride;
    if (g->groups <= FEW_GROUPS)
        return true;
    if (g->ks == 1 || g->kc >= TILE_ROW_BYTES)
        return false;
    return !in_place || g->kc < LEAST_TAP || !evenly_spaced(g->a, g->ks, upper, &stride) ||
           !evenly_spaced(g->a + upper, g->ks, mr - upper, &stride);
}

static void few_k(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a, uint8_t flip,
                  const void *w, uint8_t *c, size_t c_stride, const qn_q8_out *out)
{
    const size_t elem = out->is_float ? sizeof(float) : 1;
    /* So many rows end with a tile's last one: nothing is read behind the pointers. */
    const size_t upper = mr > QN_Q8_VNNI_PART ? mr - QN_Q8_VNNI_PART : mr;
    qn__q8_igemm_vnni_rows(upper, nc, kc, ks, a, MR, flip, w, c, c_stride, out);
    if (upper < mr)
        qn__q8_igemm_vnni_rows(mr - upper, nc, kc, ks, a + upper, MR, flip, w,
                               c + upper * c_stride * elem, c_stride, out);
}

/* Some rows, which are read in place or fit the room. */
static void some_rows(gemm *g, size_t mr, size_t nc, bool in_place, size_t row_bytes, uint8_t flip,
                      const uint8_t *w, size_t panel_bytes, uint8_t *c, size_t c_stride,
                      const qn_q8_out *out)
{
    _Alignas(64) uint8_t room[ROOM];
    uint8_t *at = room;
    half *const halves[2] = {&g->upper, &g->lower};
    *halves[0] = (half){.rows = mr <= TILE_ROWS ? mr : (mr + 1) / 2};
    *halves[1] = (half){.rows = mr - g->upper.rows};
    for (size_t i = 0; i < 2; i++) {
        half *const h = halves[i];
        const uint8_t *const *const a = g->a + i * g->upper.rows;
        if (in_place && evenly_spaced(a, g->ks, h->rows, &h->stride))
            continue;
        copy_rows(at, row_bytes, a, h->rows, g->kc, g->ks, flip);
        h->copy = at;
        h->stride = (ptrdiff_t)row_bytes;
        at += h->rows * row_bytes;
    }
    written(room);
    configure(g->upper.rows, g->lower.rows, g->step);
    all_columns(g, nc, w, panel_bytes, c, c_stride, out);
    _tile_release();
    _mm256_zeroupper();
}

void qn__q8_igemm_32x32_amx(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                            uint8_t flip, bool safe, const void *w, void *c, size_t c_stride,
                            const qn_q8_out *out)
{
    (void)safe;
    gemm g = {.a = a,
              .kc = kc,
              .ks = ks,
              .groups = ks * ((kc + KR - 1) / KR),
              .ahead = out->ahead,
              .ahead_bytes = out->ahead_bytes};
    g.step = choose_step(kc);
    const bool in_place = flip == 0 && g.step != 0;
    if (is_few(&g, mr, in_place)) {
        few_k(mr, nc, kc, ks, a, flip, w, c, c_stride, out);
        return;
    }
    const size_t panel_bytes = NR * (sizeof(int32_t) + sizeof(float) + g.groups * KR);
    const size_t elem = out->is_float ? sizeof(float) : 1;
    if (g.step == 0)
        g.step = TILE_ROW_BYTES;
    const size_t row_bytes = (g.groups * KR + g.step - 1) / g.step * g.step;
    if (row_bytes > ROOM && !in_place) {
        for (size_t m = 0; m < mr; m++)
            one_row(nc, kc, ks, a + m, flip, w, panel_bytes, (uint8_t *)c + m * c_stride * elem,
                    out);
        return;
    }
    size_t rows = mr;
    while (rows > 1 && rows * row_bytes > ROOM)
        rows = (rows + 1) / 2;
    for (size_t m = 0; m < mr; m += rows) {
        g.a = a + m;
        some_rows(&g, mr - m < rows ? mr - m : rows, nc, in_place, row_bytes, flip, w, panel_bytes,
                  (uint8_t *)c + m * c_stride * elem, c_stride, out);
    }
}
