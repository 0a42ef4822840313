/* 8-bit depthwise convolution for AVX-512 with VNNI. Windows of 3x3, 64 channels at once: bytes are
 * interleaved into lanes, so that one instruction multiplies and adds up to four taps. Where
 * outputs are one column apart, these are four rows of a column, of which two rows of outputs take
 * three each; where they are two apart, two columns of two rows, then four columns of the third
 * row. 32 channels are taken from both halves of a row. The last channels overlap the ones before,
 * as the outputs of halves do. Other windows, and fewer channels, go through 16 bits. */
#include "kernel/x86/asm512.h"
#include "kernel/x86/q8_avx512.h"
#include "kernel/x86/q8_bytes_avx512.h"

#define DOT16(acc, a, b) dpwssd512(acc, a, b)
/* Fewer than 32 channels of other windows are taken 16 at once. */
void qn__q8_dwconv_avx2(const qn_q8_dwconv_args *args);
#define FEW_CHANNELS(args) qn__q8_dwconv_avx2(args)
#include "kernel/x86/q8_dwconv_tmpl.h"

enum { WIDE_BLOCK = 64, HALF_BLOCK = 32, NARROW_BLOCK = 16, TOGETHER = 4 };

/* 64 channels in the order in which packing expects them: vector q holds channels 4q to 4q + 3 of
 * every sixteen. */
typedef struct quad {
    __m512i v[4];
} quad;

/* How sums become bytes: as byte_bounds.rectified and plain say, or only the former, or neither and
 * scales are small; or they become something else. A number, as compilers keep bools in mask
 * registers, which take what multiplies and adds to test. */
typedef enum way_out { PLAIN, RECTIFIED, CONVERTED, OTHER } way_out;

/* What is the same for all outputs of the channels from c on. */
typedef struct wide {
    quad w[6];              /* one column apart: of the upper row of outputs, of the lower one */
    quad bias, scale, less; /* less: byte_bounds.rectified */
    byte_bounds to;
    way_out way;
    size_t n;               /* outputs of a row, or of half of it */
    ptrdiff_t far, far_out; /* from one half to the other */
    __mmask16 first, last;  /* lanes of the first half, and of the last one */
} wide;

/* a b c d of every channel. */
static inline __attribute__((always_inline)) quad interleaved_rows(__m512i a, __m512i b, __m512i c,
                                                                   __m512i d)
{
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
    return (quad){{LOW16(ab_low, cd_low), HIGH16(ab_low, cd_low), LOW16(ab_high, cd_high),
                   HIGH16(ab_high, cd_high)}};
}

/* 64 channels, loaded once, as most of them reach into a second line; or 32 and 32. */
static inline __attribute__((always_inline)) __m512i channels_at(const uint8_t *p, ptrdiff_t far,
                                                                 const bool halves)
{
    if (!halves)
        return AS_INT(load512_here(p));
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)p)),
                              _mm256_loadu_si256((const void *)(p + far)), 1);
}

/* 128 bits i of v[j] are 128 bits j of output i. */
static inline __attribute__((always_inline)) quad transposed(__m512i v0, __m512i v1, __m512i v2,
                                                             __m512i v3)
{
    const __m512i a = _mm512_shuffle_i32x4(v0, v1, 0x44), b = _mm512_shuffle_i32x4(v2, v3, 0x44);
    const __m512i d = _mm512_shuffle_i32x4(v0, v1, 0xee), e = _mm512_shuffle_i32x4(v2, v3, 0xee);
    return (quad){{_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
                   _mm512_shuffle_i32x4(d, e, 0x88), _mm512_shuffle_i32x4(d, e, 0xdd)}};
}

/* --- what outputs share ------------------------------------------------------------------------*/
/* For all channels. */
static void make_format(const qn_q8_out *out, wide *b)
{
    b->to = byte_bounds_of(out);
    if (b->to.rectified)
        b->way = b->to.plain ? PLAIN : RECTIFIED;
    else
        b->way = out->small_scales && !out->is_float ? CONVERTED : OTHER;
}

/* For 64 channels, or 32 in both halves of a row of two outputs or more. */
static __attribute__((noinline)) void make_wide(const qn_q8_dwconv_args *args, size_t c,
                                                bool halves, bool step1, wide *b)
{
    const ptrdiff_t third = halves ? 0 : HALF_BLOCK;
    const int32_t *const bias = args->bias + c;
    const float *const scale = args->scale + c;
    const __m512i base = SET1(b->to.rectified ? RECTIFIED_BASE : 0);
    const __m512 less = SET1F(b->to.rectified ? -0x1p23f : 0.0f);
    b->bias = transposed(LOAD(bias), LOAD(bias + 16), LOAD(bias + third), LOAD(bias + third + 16));
    b->scale =
        transposed(LOAD(scale), LOAD(scale + 16), LOAD(scale + third), LOAD(scale + third + 16));
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q++) {
        b->bias.v[q] = _mm512_add_epi32(b->bias.v[q], base);
        b->less.v[q] = AS_INT(MULF(AS_FLOAT(b->scale.v[q]), less));
    }
    const uint8_t *w = (const uint8_t *)args->w + c;
    __m512i taps[9];
#pragma GCC unroll 1
    for (size_t i = 0; i < 9; i++, w += args->w_step)
        taps[i] = channels_at(w, third, true);
    const __m512i none = ZERO();
    if (step1) {
#pragma GCC unroll 1
        for (size_t j = 0; j < 3; j++) {
            const quad x = interleaved_rows(taps[j], taps[3 + j], taps[6 + j], none);
            b->w[j] = x;
#pragma GCC unroll 4
            for (size_t q = 0; q < 4; q++)
                b->w[3 + j].v[q] = _mm512_slli_epi32(x.v[q], 8);
        }
    } else {
        b->w[0] = interleaved_rows(taps[0], taps[1], taps[3], taps[4]);
        b->w[1] = interleaved_rows(taps[2], none, taps[5], none);
        b->w[2] = interleaved_rows(taps[6], taps[7], taps[8], none);
    }
    b->n = halves ? (args->n + 1) / 2 : args->n;
    b->far = (ptrdiff_t)((args->n - b->n) * args->in_step);
    b->far_out = halves ? (ptrdiff_t)((args->n - b->n) * args->out_step) : HALF_BLOCK;
    b->first = halves ? 0xff : 0xffff;
    b->last = halves ? 0xff00 : 0xffff;
}

/* --- outputs -----------------------------------------------------------------------------------*/
/* Sums as they are, floats, or bytes by large scales. */
static __attribute__((noinline, cold)) void put_other(const qn_q8_dwconv_args *args, const wide *b,
                                                      const uint8_t *to, __m512i a0, __m512i a1,
                                                      __m512i a2, __m512i a3)
{
    const qn_q8_out *const out = &args->format;
    const ptrdiff_t at = to - (const uint8_t *)args->out;
    const quad acc = {{a0, a1, a2, a3}};
    __m512 v[4];
    for (size_t q = 0; q < 4; q++)
        v[q] = MULF(TO_FLOAT(acc.v[q]), AS_FLOAT(b->scale.v[q]));
    if (!out->is_float) {
        const __m512 most = SET1F((float)(out->hi - out->zero));
        uint8_t *const c = (uint8_t *)args->out + at;
        for (size_t q = 0; q < 4; q++)
            v[q] = MINF(most, v[q]);
        const __m512i bytes = rounded_bytes(&b->to, v[0], v[1], v[2], v[3]);
        _mm256_storeu_si256((void *)c, _mm512_castsi512_si256(bytes));
        _mm256_storeu_si256((void *)(c + b->far_out), _mm512_extracti64x4_epi64(bytes, 1));
        return;
    }
    const __m512 lo = SET1F(out->clamp.lo), hi = SET1F(out->clamp.hi);
    for (size_t q = 0; q < 4; q++)
        v[q] = out->is_sums ? AS_FLOAT(acc.v[q]) : MINF(hi, MAXF(lo, v[q]));
    const quad all = transposed(AS_INT(v[0]), AS_INT(v[1]), AS_INT(v[2]), AS_INT(v[3]));
    for (ptrdiff_t i = 0; i < 4; i++)
        _mm512_storeu_ps((float *)args->out + at + i / 2 * b->far_out + i % 2 * 16,
                         AS_FLOAT(all.v[i]));
}

/* Floats, or sums that way makes some, as bytes. */
static inline __attribute__((always_inline)) __m512i
scaled_bytes(const wide *b, quad acc, const quad *scale, const quad *less, const way_out way)
{
    __m512 v[4];
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q++)
        v[q] = _mm512_fmadd_ps(AS_FLOAT(acc.v[q]), AS_FLOAT(scale->v[q]), AS_FLOAT(less->v[q]));
    const __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
    const __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
    const __m512i bytes = _mm512_packus_epi16(low, high);
    if (way != PLAIN) {
        /* Compilers would load bounds, or their address, where they are not needed. */
        const wide *here = b;
        __asm__ volatile("" : "+r"(here));
        return bounded_bytes(&here->to, low, high);
    }
    return bytes;
}

/* to: where bytes go, and where they are no bytes, as many elements behind args->out. */
static inline __attribute__((always_inline)) void put_wide(const qn_q8_dwconv_args *args,
                                                           const wide *b, const bool halves,
                                                           uint8_t *to, quad acc, const quad *scale,
                                                           const quad *less, const way_out way)
{
    if (__builtin_expect(way >= CONVERTED, 0)) {
        if (way == OTHER) {
            put_other(args, b, to, acc.v[0], acc.v[1], acc.v[2], acc.v[3]);
            return;
        }
#pragma GCC unroll 4
        for (size_t q = 0; q < 4; q++)
            acc.v[q] = AS_INT(TO_FLOAT(acc.v[q]));
    }
    const __m512i bytes = scaled_bytes(b, acc, scale, less, way);
    if (!halves) {
        _mm512_storeu_si512(to, bytes);
    } else {
        _mm256_storeu_si256((void *)to, _mm512_castsi512_si256(bytes));
        _mm256_storeu_si256((void *)(to + b->far_out), _mm512_extracti64x4_epi64(bytes, 1));
    }
}

/* --- rows --------------------------------------------------------------------------------------*/
/* Rows of a column that is outside, or whose second half is. */
typedef struct last_column {
    _Alignas(WIDE_BLOCK) uint8_t rows[4][WIDE_BLOCK];
} last_column;

static inline __attribute__((always_inline)) const uint8_t *
last_row(last_column *column, size_t row, const wide *b, const uint8_t *r, size_t col,
         const bool halves, __m512i edge)
{
    __m512i v = edge;
    if (halves)
        v = _mm512_mask_mov_epi32(channels_at(r, b->far - (ptrdiff_t)col, halves), b->last, edge);
    _mm512_store_si512(column->rows[row], v);
    return column->rows[row];
}

static inline __attribute__((always_inline)) quad add_column(quad acc, quad x, const quad *w)
{
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q++)
        acc.v[q] = dpbusd512_mem(acc.v[q], x.v[q], &w->v[q]);
    return acc;
}

/* Outputs are one column apart, or `apart`: any number, which no columns are shared for. Two rows
 * of them at once where their windows share two rows: weights are a byte higher for the second. */
static inline __attribute__((always_inline)) void rows_1(const qn_q8_dwconv_args *args, size_t c,
                                                         const wide *b, const bool halves)
{
    const size_t n = b->n, out_step = args->out_step, out_row = args->out_row;
    const size_t col = args->in_col[1], step = args->in_step, third = args->in_col[2];
    const bool apart = !halves && (step != col || third != 2 * col);
    const quad scale = b->scale, less = b->less, bias = b->bias;
    const way_out way = b->way;
    last_column column;
    for (size_t y = 0, rows = 1; y < args->rows; y += rows) {
        const uint8_t *const *const in = args->in + 3 * y;
        rows = y + 1 < args->rows && in[3] == in[1] && in[4] == in[2] ? 2 : 1;
        const uint8_t *r0 = in[0] + c, *r1 = in[1] + c, *r2 = in[2] + c;
        const uint8_t *r3 = in[rows == 2 ? 5 : 2] + c;
        uint8_t *to = (uint8_t *)args->out + y * out_row + c;
        uint8_t *const end = to + (n - 1) * out_step;
        const __m512i edge = _mm512_set1_epi8((char)args->edge);
        ptrdiff_t far = b->far;
        quad x0, x1, x2;
#define COLUMN(far)                                                                                \
    interleaved_rows(channels_at(r0, far, halves), channels_at(r1, far, halves),                   \
                     channels_at(r2, far, halves), channels_at(r3, far, halves))
#define NEXT(step) (r0 += (step), r1 += (step), r2 += (step), r3 += (step))
        x0 = COLUMN(args->left ? far - (ptrdiff_t)col : far);
        if (args->left)
#pragma GCC unroll 4
            for (size_t q = 0; q < 4; q++)
                x0.v[q] = _mm512_mask_mov_epi32(x0.v[q], b->first, edge);
        else
            NEXT(col);
        x1 = COLUMN(far);
        if (apart)
            NEXT(-col);
        else
            NEXT(col);
        for (uint8_t *stop = end;; stop += out_step) {
            for (; to != stop; to += out_step) {
                if (apart) {
                    x0 = COLUMN(far);
                    NEXT(col);
                    x1 = COLUMN(far);
                    NEXT(third - col);
                    x2 = COLUMN(far);
                    NEXT(step - third);
                } else {
                    x2 = COLUMN(far);
                    NEXT(col);
                }
                quad acc = add_column(bias, x0, b->w);
                acc = add_column(acc, x1, b->w + 1);
                acc = add_column(acc, x2, b->w + 2);
                put_wide(args, b, halves, to, acc, &scale, &less, way);
                if (rows == 2) {
                    acc = add_column(bias, x0, b->w + 3);
                    acc = add_column(acc, x1, b->w + 4);
                    acc = add_column(acc, x2, b->w + 5);
                    put_wide(args, b, halves, to + out_row, acc, &scale, &less, way);
                }
                x0 = x1;
                x1 = x2;
            }
            if (stop != end)
                break;
            if (args->right) {
                r0 = last_row(&column, 0, b, r0, col, halves, edge);
                r1 = last_row(&column, 1, b, r1, col, halves, edge);
                r2 = last_row(&column, 2, b, r2, col, halves, edge);
                r3 = last_row(&column, 3, b, r3, col, halves, edge);
                far = HALF_BLOCK;
            }
        }
#undef COLUMN
#undef NEXT
    }
}

/* Outputs two columns apart. */
static inline __attribute__((always_inline)) void rows_2(const qn_q8_dwconv_args *args, size_t c,
                                                         const wide *b, const bool halves)
{
    const size_t n = b->n, out_step = args->out_step, col = args->in_col[1];
    const quad w0 = b->w[0], w1 = b->w[1], w2 = b->w[2], bias = b->bias;
    const way_out way = b->way;
    last_column column;
    for (size_t y = 0; y < args->rows; y++) {
        const uint8_t *r0 = args->in[3 * y] + c, *r1 = args->in[3 * y + 1] + c;
        const uint8_t *r2 = args->in[3 * y + 2] + c;
        uint8_t *to = (uint8_t *)args->out + y * args->out_row + c;
        uint8_t *const end = to + (n - 1) * out_step;
        const __m512i edge = _mm512_set1_epi8((char)args->edge);
        const __mmask16 outside = args->left ? b->first : 0;
        const ptrdiff_t first = b->far - (args->left ? (ptrdiff_t)col : 0);
        /* Where the second column of two lies. */
        ptrdiff_t far = b->far, second = args->left ? 0 : (ptrdiff_t)col;
        quad x, next;
        __m512i low, high, next_low, next_high;
#define FIRST(r) _mm512_mask_mov_epi32(channels_at(r, first, halves), outside, edge)
#define HERE(r) channels_at(r, far, halves)
#define NEXT(step) (r0 += (step), r1 += (step), r2 += (step))
/* Two columns: of two rows in the lanes of x, of the third row in low and high. */
#define COLUMNS(x, low, high, FIRST)                                                               \
    do {                                                                                           \
        const __m512i f0 = FIRST(r0), s0 = HERE(r0 + second);                                      \
        const __m512i f1 = FIRST(r1), s1 = HERE(r1 + second);                                      \
        const __m512i f2 = FIRST(r2), s2 = HERE(r2 + second);                                      \
        const __m512i l0 = _mm512_unpacklo_epi8(f0, s0), h0 = _mm512_unpackhi_epi8(f0, s0);        \
        const __m512i l1 = _mm512_unpacklo_epi8(f1, s1), h1 = _mm512_unpackhi_epi8(f1, s1);        \
        x = (quad){{LOW16(l0, l1), HIGH16(l0, l1), LOW16(h0, h1), HIGH16(h0, h1)}};                \
        low = _mm512_unpacklo_epi8(f2, s2), high = _mm512_unpackhi_epi8(f2, s2);                   \
    } while (0)
        COLUMNS(x, low, high, FIRST);
        NEXT(second + (ptrdiff_t)col);
        second = (ptrdiff_t)col;
        for (uint8_t *stop = end;; stop += out_step) {
            for (; to != stop; to += out_step) {
                COLUMNS(next, next_low, next_high, HERE);
                NEXT(2 * col);
                const quad third = {{LOW16(low, next_low), HIGH16(low, next_low),
                                     LOW16(high, next_high), HIGH16(high, next_high)}};
                quad acc = bias;
#pragma GCC unroll 4
                for (size_t q = 0; q < 4; q++)
                    acc.v[q] = dpbusd512(acc.v[q], x.v[q], w0.v[q]);
#pragma GCC unroll 4
                for (size_t q = 0; q < 4; q++)
                    acc.v[q] = dpbusd512(acc.v[q], third.v[q], w2.v[q]);
#pragma GCC unroll 4
                for (size_t q = 0; q < 4; q++)
                    acc.v[q] = dpbusd512(acc.v[q], next.v[q], w1.v[q]);
                put_wide(args, b, halves, to, acc, &b->scale, &b->less, way);
                x = next, low = next_low, high = next_high;
            }
            if (stop != end)
                break;
            if (args->right) {
                r0 = last_row(&column, 0, b, r0, col, halves, edge);
                r1 = last_row(&column, 1, b, r1, col, halves, edge);
                r2 = last_row(&column, 2, b, r2, col, halves, edge);
                far = HALF_BLOCK;
            }
            second = 0; /* which no weights but zeros want */
        }
#undef FIRST
#undef HERE
#undef NEXT
#undef COLUMNS
    }
}

/* --- 16 channels -------------------------------------------------------------------------------*/
/* The bytes of a column of three rows in the lane of each channel; the fourth byte is one of the
 * third row. */
static inline __attribute__((always_inline)) __m512i narrow_column(const void *p0, const void *p1,
                                                                   const void *p2)
{
    __m512i rows = _mm512_castsi128_si512(_mm_loadu_si128(p0));
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128(p1), 1);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128(p2), 2);
    const __m512i words = _mm512_setr_epi32(0, 4, 8, 8, 1, 5, 9, 9, 2, 6, 10, 10, 3, 7, 11, 11);
    const __m512i bytes =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, rows), bytes);
}

/* Outputs are one column apart, or else two, and bytes by small scales. */
static __attribute__((noinline)) void narrow_rows(const qn_q8_dwconv_args *args, size_t c,
                                                  const bool step1, const wide *to)
{
    const size_t row = 3 * args->w_step, out_step = args->out_step;
    const int8_t *w = args->w + c;
    const __m512i bias =
        _mm512_add_epi32(LOAD(args->bias + c), SET1(to->to.rectified ? RECTIFIED_BASE : 0));
    const __m512 one_scale = LOADF(args->scale + c);
    const __m512i s = AS_INT(one_scale);
    const __m512i l = AS_INT(MULF(one_scale, SET1F(to->to.rectified ? -0x1p23f : 0.0f)));
    const quad scale = {{s, s, s, s}}, less = {{l, l, l, l}};
    __m512i taps[3];
#pragma GCC unroll 3
    for (size_t j = 0; j < 3; j++, w += args->w_step)
        taps[j] = _mm512_and_si512(narrow_column(w, w + row, w + 2 * row), SET1(0xffffff));
    const size_t n = args->n, col = args->in_col[1];
    const size_t whole = args->right ? n - 1 : n; /* windows that have a third column */
    const way_out way = to->way;
    const __m512i edge = _mm512_set1_epi8((char)args->edge);
    for (size_t y = 0; y < args->rows; y++) {
        const uint8_t *r0 = args->in[3 * y] + c, *r1 = args->in[3 * y + 1] + c;
        const uint8_t *r2 = args->in[3 * y + 2] + c;
        uint8_t *out = (uint8_t *)args->out + y * args->out_row + c;
        __m512i x0 = edge, x1 = edge;
#define COLUMN(to) (to = narrow_column(r0, r1, r2), r0 += col, r1 += col, r2 += col)
        if (!args->left)
            COLUMN(x0);
        if (step1)
            COLUMN(x1);
        for (size_t i = 0; i < n; i += TOGETHER, out += TOGETHER * out_step) {
            quad acc;
#pragma GCC unroll 4
            for (size_t p = 0; p < TOGETHER; p++) {
                __m512i x2 = edge;
                if (!step1 && i + p < n)
                    COLUMN(x1);
                if (i + p < whole)
                    COLUMN(x2);
                acc.v[p] = dpbusd512(dpbusd512(bias, x0, taps[0]), x1, taps[1]);
                acc.v[p] = dpbusd512(acc.v[p], x2, taps[2]);
                if (way == CONVERTED)
                    acc.v[p] = AS_INT(TO_FLOAT(acc.v[p]));
                x0 = step1 ? x1 : x2;
                x1 = x2;
            }
            const __m512i bytes = rows_together(scaled_bytes(to, acc, &scale, &less, way));
            _mm_storeu_si128((void *)out, _mm512_castsi512_si128(bytes));
            if (n - i > 1)
                _mm_storeu_si128((void *)(out + out_step), _mm512_extracti32x4_epi32(bytes, 1));
            if (n - i > 2)
                _mm_storeu_si128((void *)(out + 2 * out_step), _mm512_extracti32x4_epi32(bytes, 2));
            if (n - i > 3)
                _mm_storeu_si128((void *)(out + 3 * out_step), _mm512_extracti32x4_epi32(bytes, 3));
        }
#undef COLUMN
    }
}

typedef void (*run_rows)(const qn_q8_dwconv_args *args, size_t c, const wide *b);
#define INSTANCE(name, rows, halves)                                                               \
    static void name(const qn_q8_dwconv_args *args, size_t c, const wide *b)                       \
    {                                                                                              \
        rows(args, c, b, halves);                                                                  \
    }
INSTANCE(whole_1, rows_1, false)
INSTANCE(halves_1, rows_1, true)
INSTANCE(whole_2, rows_2, false)
INSTANCE(halves_2, rows_2, true)
#undef INSTANCE

/* --- any channels ------------------------------------------------------------------------------*/
void qn__q8_dwconv_vnni(const qn_q8_dwconv_args *args)
{
    static const run_rows runs[2][2] = {{whole_1, halves_1}, {whole_2, halves_2}};
    const size_t channels = args->channels, n = args->n;
    const bool shared = shares_columns(args), step2 = shared && args->in_step == args->in_col[2];
    const bool may_halve = shared && n > 1;
    wide b;
    make_format(&args->format, &b);
    const bool narrow = shared && b.way != OTHER;
    if (n == 0 || args->kh != 3 || args->kw != 3 ||
        channels < (narrow      ? NARROW_BLOCK
                    : may_halve ? HALF_BLOCK
                                : WIDE_BLOCK)) {
        /* The one that knows about edges. */
        (args->left || args->right ? qn__q8_dwconv_avx2 : dwconv_small)(args);
    } else {
        for (size_t c = 0; c < channels;) {
            const size_t left = channels - c;
            size_t some = WIDE_BLOCK;
            if (narrow && (left <= NARROW_BLOCK || channels < HALF_BLOCK ||
                           (n == 1 && channels < WIDE_BLOCK)))
                some = NARROW_BLOCK;
            else if (may_halve && (left <= HALF_BLOCK || channels < WIDE_BLOCK))
                some = HALF_BLOCK;
            const size_t from = left < some ? channels - some : c;
            c = from + some;
            if (some == NARROW_BLOCK) {
                narrow_rows(args, from, !step2, &b);
                continue;
            }
            make_wide(args, from, some == HALF_BLOCK, !step2, &b);
            runs[step2][some == HALF_BLOCK](args, from, &b);
        }
    }
    _mm256_zeroupper();
}
