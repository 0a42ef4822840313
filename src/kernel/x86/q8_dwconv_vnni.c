/* 8-bit depthwise convolution for AVX-512 with VNNI. Windows of 3x3, 64 channels at once: the bytes
 * of a column and zeros are brought together, so that one instruction multiplies and adds all of a
 * column. Up to 32 channels that are left over, and pictures of fewer than 64, are taken 16 at
 * once, all of them in one register; the last channels overlap the ones before. Other windows, and
 * fewer channels, go through 16 bits. */
#include "kernel/x86/asm512.h"
#include "kernel/x86/q8_avx512.h"
#include "kernel/x86/q8_bytes_avx512.h"

#define DOT16(acc, a, b) dpwssd512(acc, a, b)
/* Fewer than 32 channels of other windows are taken 16 at once. */
void qn__q8_dwconv_avx2(const qn_q8_dwconv_args *args);
#define FEW_CHANNELS(args) qn__q8_dwconv_avx2(args)
#include "kernel/x86/q8_dwconv_tmpl.h"

enum { WIDE_BLOCK = 64, NARROW_BLOCK = 16, MOST_NARROW = 32, TOGETHER = 4 };

/* 64 channels in the order in which packing expects them: vector q holds channels 4q to 4q + 3 of
 * every sixteen. */
typedef struct quad {
    __m512i v[4];
} quad;

/* a b c d of every channel. */
static inline __attribute__((always_inline)) quad interleaved_rows(__m512i a, __m512i b, __m512i c,
                                                                   __m512i d)
{
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
    return (quad){{LOW16(ab_low, cd_low), HIGH16(ab_low, cd_low), LOW16(ab_high, cd_high),
                   HIGH16(ab_high, cd_high)}};
}

/* Loaded once each, as most of them reach into a second line. */
#define LOAD_HERE(p) AS_INT(load512_here(p))

static inline __attribute__((always_inline)) quad add_column(quad acc, quad x, quad w)
{
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q++)
        acc.v[q] = dpbusd512(acc.v[q], x.v[q], w.v[q]);
    return acc;
}

/* 64 elements of 32 bits. */
static inline quad load_quad(const void *p)
{
    __m512i b[4];
    for (size_t i = 0; i < 4; i++)
        b[i] = LOAD((const int32_t *)p + 16 * i);
    const __m512i b01_low = _mm512_shuffle_i32x4(b[0], b[1], 0x44);
    const __m512i b23_low = _mm512_shuffle_i32x4(b[2], b[3], 0x44);
    const __m512i b01_high = _mm512_shuffle_i32x4(b[0], b[1], 0xee);
    const __m512i b23_high = _mm512_shuffle_i32x4(b[2], b[3], 0xee);
    return (quad){{_mm512_shuffle_i32x4(b01_low, b23_low, 0x88),
                   _mm512_shuffle_i32x4(b01_low, b23_low, 0xdd),
                   _mm512_shuffle_i32x4(b01_high, b23_high, 0x88),
                   _mm512_shuffle_i32x4(b01_high, b23_high, 0xdd)}};
}

/* 128 bits i of v[j] are 128 bits j of output i. v: sums, or products of them and scales. */
static __attribute__((noinline)) void put_quad_floats(const qn_q8_out *out, float *c, __m512 v0,
                                                      __m512 v1, __m512 v2, __m512 v3)
{
#define PARTS(a, b, order) _mm512_shuffle_i32x4(AS_INT(a), AS_INT(b), order)
    const __m512i a = PARTS(v0, v1, 0x44), b = PARTS(v2, v3, 0x44);
    const __m512i d = PARTS(v0, v1, 0xee), e = PARTS(v2, v3, 0xee);
#undef PARTS
    const __m512i all[4] = {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
                            _mm512_shuffle_i32x4(d, e, 0x88), _mm512_shuffle_i32x4(d, e, 0xdd)};
    const __m512 lo = SET1F(out->clamp.lo), hi = SET1F(out->clamp.hi);
    for (size_t i = 0; i < 4; i++)
        _mm512_storeu_ps(c + 16 * i,
                         out->is_sums ? AS_FLOAT(all[i]) : MINF(hi, MAXF(lo, AS_FLOAT(all[i]))));
}

/* How sums become bytes: as byte_bounds.rectified and plain say, or only the former, or any. A
 * number, as compilers keep bools in mask registers, which take what multiplies and adds to test.
 */
typedef enum way_out { PLAIN, RECTIFIED, ANY } way_out;

static way_out way_of(const byte_bounds *to)
{
    return to->rectified ? to->plain ? PLAIN : RECTIFIED : ANY;
}

static inline __attribute__((always_inline)) __m512i bytes_of(way_out way, const byte_bounds *to,
                                                              const __m512 v[4])
{
    byte_bounds bounds = *to;
    bounds.plain = way == PLAIN;
    return rounded_bytes(&bounds, v[0], v[1], v[2], v[3]);
}

/* What sums begin with and what makes outputs of them; less: byte_bounds.rectified. */
typedef struct quad_heads {
    quad bias, scale, less;
    way_out way;
} quad_heads;

static inline __attribute__((always_inline)) void put_quad(const qn_q8_out *out,
                                                           const byte_bounds *to, void *c,
                                                           size_t at, quad acc, const quad_heads *h)
{
    __m512 v[4];
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q++)
        v[q] = AS_FLOAT(acc.v[q]);
    if (h->way != ANY) {
#pragma GCC unroll 4
        for (size_t q = 0; q < 4; q++)
            v[q] = _mm512_fmadd_ps(v[q], AS_FLOAT(h->scale.v[q]), AS_FLOAT(h->less.v[q]));
    } else {
        if (!out->is_sums)
#pragma GCC unroll 4
            for (size_t q = 0; q < 4; q++)
                v[q] = MULF(TO_FLOAT(AS_INT(v[q])), AS_FLOAT(h->scale.v[q]));
        if (out->is_float) {
            put_quad_floats(out, (float *)c + at, v[0], v[1], v[2], v[3]);
            return;
        }
        if (!out->small_scales) {
            const __m512 most = SET1F((float)(out->hi - out->zero));
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                v[i] = MINF(most, v[i]);
        }
    }
    _mm512_storeu_si512((uint8_t *)c + at, bytes_of(h->way, to, v));
}

/* What is the same for all outputs of the channels from c on. */
typedef struct wide {
    quad w[3];
    quad_heads heads;
    byte_bounds to;
    size_t c;
} wide;

static __attribute__((noinline)) void make_wide(const qn_q8_dwconv_args *args, size_t c, wide *b)
{
    const size_t row = 3 * args->w_step;
    const int8_t *at = args->w + c;
    for (size_t j = 0; j < 3; j++, at += args->w_step)
        b->w[j] = interleaved_rows(LOAD(at), LOAD(at + row), LOAD(at + 2 * row), ZERO());
    b->c = c;
    b->to = byte_bounds_of(&args->format);
    b->heads.bias = load_quad(args->bias + c);
    b->heads.scale = load_quad(args->scale + c);
    b->heads.way = way_of(&b->to);
    for (size_t q = 0; b->to.rectified && q < 4; q++) {
        b->heads.bias.v[q] = _mm512_add_epi32(b->heads.bias.v[q], SET1(RECTIFIED_BASE));
        b->heads.less.v[q] = AS_INT(MULF(AS_FLOAT(b->heads.scale.v[q]), SET1F(-0x1p23f)));
    }
}

/* Outputs are one column apart, or else any number; if two, they share one. */
static inline __attribute__((always_inline)) void
wide_row(const qn_q8_dwconv_args *args, const bool step1, size_t y, const wide *b)
{
    const quad_heads *const h = &b->heads;
    const quad *const w = b->w;
    const uint8_t *r0 = args->in[3 * y] + b->c, *r1 = args->in[3 * y + 1] + b->c;
    const uint8_t *r2 = args->in[3 * y + 2] + b->c;
    const size_t n = args->n, out_step = args->out_step;
    const ptrdiff_t j1 = (ptrdiff_t)args->in_col[1], j2 = (ptrdiff_t)args->in_col[2] - j1;
    const size_t whole = args->right ? n : SIZE_MAX; /* the last window's third column */
    const bool shared = args->in_step == args->in_col[2];
    const ptrdiff_t next_window = (ptrdiff_t)args->in_step - (ptrdiff_t)args->in_col[2];
    const __m512i outside = _mm512_set1_epi8((char)args->edge);
    const quad edge = {{outside, outside, outside, outside}};
    quad x = edge, now, next = h->bias;
    size_t at = y * args->out_row + b->c;
#define NEXT(step) (r0 += (step), r1 += (step), r2 += (step))
#define COLUMN() interleaved_rows(LOAD_HERE(r0), LOAD_HERE(r1), LOAD_HERE(r2), ZERO())
    if (!args->left) {
        x = COLUMN();
        NEXT(j1);
    }
    now = add_column(h->bias, x, w[0]);
    x = COLUMN();
    now = add_column(now, x, w[1]);
    if (step1)
        next = add_column(h->bias, x, w[0]);
    for (size_t i = 0;; at += out_step) {
        x = edge;
        if (++i < whole) {
            NEXT(j2);
            x = COLUMN();
        }
        put_quad(&args->format, &b->to, args->out, at, add_column(now, x, w[2]), h);
        if (i == n)
            break;
        if (step1) {
            now = add_column(next, x, w[1]);
            next = add_column(h->bias, x, w[0]);
        } else {
            if (!shared) {
                NEXT(next_window);
                x = COLUMN();
            }
            now = add_column(h->bias, x, w[0]);
            NEXT(j1);
            x = COLUMN();
            now = add_column(now, x, w[1]);
        }
    }
#undef NEXT
#undef COLUMN
}

static inline __attribute__((always_inline)) void wide_rows(const qn_q8_dwconv_args *args,
                                                            const bool step1, size_t c)
{
    wide made;
    make_wide(args, c, &made);
    const wide b = made; /* as nobody else can know of it, compilers keep it in registers */
    for (size_t y = 0; y < args->rows; y++)
        wide_row(args, step1, y, &b);
}

static void wide_1(const qn_q8_dwconv_args *args, size_t c)
{
    wide_rows(args, true, c);
}

static void wide_2(const qn_q8_dwconv_args *args, size_t c)
{
    wide_rows(args, false, c);
}

/* --- 16 channels -------------------------------------------------------------------------------*/
/* The bytes of a column of three or four rows in the lane of each channel. */
static inline __attribute__((always_inline)) __m512i
narrow_column(const void *p0, const void *p1, const void *p2, const void *p3, const bool four)
{
    __m512i rows = _mm512_castsi128_si512(_mm_loadu_si128(p0));
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128(p1), 1);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128(p2), 2);
    if (four)
        rows = _mm512_inserti32x4(rows, _mm_loadu_si128(p3), 3);
    const __m512i words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, rows), bytes);
}

/* The fourth byte of weights is zero. */
typedef struct narrow {
    __m512i w[3], bias, scale, less;
    byte_bounds to;
    way_out way;
} narrow;

static __attribute__((noinline)) void make_narrow(const qn_q8_dwconv_args *args, size_t c,
                                                  narrow *b)
{
    const size_t row = 3 * args->w_step;
    const int8_t *at = args->w + c;
    for (size_t j = 0; j < 3; j++, at += args->w_step)
        b->w[j] = _mm512_and_si512(narrow_column(at, at + row, at + 2 * row, NULL, false),
                                   SET1(0xffffff));
    b->to = byte_bounds_of(&args->format);
    b->way = way_of(&b->to);
    b->bias = LOAD(args->bias + c);
    b->scale = LOAD(args->scale + c);
    b->less = AS_INT(MULF(AS_FLOAT(b->scale), SET1F(-0x1p23f)));
    if (b->to.rectified)
        b->bias = _mm512_add_epi32(b->bias, SET1(RECTIFIED_BASE));
}

static inline __attribute__((always_inline)) void
store_narrow(const qn_q8_dwconv_args *args, size_t at, __m512i bytes, size_t count)
{
    const size_t step = args->out_step;
    uint8_t *const c = (uint8_t *)args->out + at;
    bytes = rows_together(bytes);
    _mm_storeu_si128((void *)c, _mm512_castsi512_si128(bytes));
    if (count > 1)
        _mm_storeu_si128((void *)(c + step), _mm512_extracti32x4_epi32(bytes, 1));
    if (count > 2)
        _mm_storeu_si128((void *)(c + 2 * step), _mm512_extracti32x4_epi32(bytes, 2));
    if (count > 3)
        _mm_storeu_si128((void *)(c + 3 * step), _mm512_extracti32x4_epi32(bytes, 3));
}

/* Up to four outputs, a vector each, of sums as they are. */
static __attribute__((noinline)) void put_narrow_any(const qn_q8_dwconv_args *args, const narrow *b,
                                                     size_t at, size_t count, __m512i a0,
                                                     __m512i a1, __m512i a2, __m512i a3)
{
    const qn_q8_out *const out = &args->format;
    const __m512i acc[TOGETHER] = {a0, a1, a2, a3};
    const __m512 lo = SET1F(out->clamp.lo), hi = SET1F(out->clamp.hi);
    const __m512 most = SET1F((float)(out->hi - out->zero));
    float *const c = (float *)args->out + at;
    __m512 v[TOGETHER];
    for (size_t p = 0; p < TOGETHER; p++) {
        v[p] = MULF(TO_FLOAT(acc[p]), AS_FLOAT(b->scale));
        if (out->is_float && p < count)
            _mm512_storeu_ps(c + p * args->out_step,
                             out->is_sums ? AS_FLOAT(acc[p]) : MINF(hi, MAXF(lo, v[p])));
        v[p] = MINF(most, v[p]);
    }
    if (!out->is_float)
        store_narrow(args, at, bytes_of(ANY, &b->to, v), count);
}

static inline __attribute__((always_inline)) void put_narrow(const qn_q8_dwconv_args *args,
                                                             const narrow *b, const narrow *seen,
                                                             const __m512i acc[TOGETHER], size_t at,
                                                             size_t count)
{
    __m512 v[TOGETHER];
    if (b->way == ANY) {
        put_narrow_any(args, seen, at, count, acc[0], acc[1], acc[2], acc[3]);
        return;
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < TOGETHER; p++)
        v[p] = _mm512_fmadd_ps(AS_FLOAT(acc[p]), AS_FLOAT(b->scale), AS_FLOAT(b->less));
    store_narrow(args, at, bytes_of(b->way, &b->to, v), count);
}

static inline __attribute__((always_inline)) __m512i
narrow_window(__m512i acc, __m512i x0, __m512i x1, __m512i x2, const __m512i w[3])
{
    return dpbusd512(dpbusd512(dpbusd512(acc, x0, w[0]), x1, w[1]), x2, w[2]);
}

/* Outputs are one column apart, or else two. If one, two rows of them are computed at once where
 * their windows share two rows of input: weights are a byte higher for the second. */
static inline __attribute__((always_inline)) void narrow_rows(const qn_q8_dwconv_args *args,
                                                              const bool step1, size_t c)
{
    narrow made;
    make_narrow(args, c, &made);
    const narrow b = made; /* as of wide blocks */
    const __m512i higher[3] = {_mm512_slli_epi32(b.w[0], 8), _mm512_slli_epi32(b.w[1], 8),
                               _mm512_slli_epi32(b.w[2], 8)};
    const size_t n = args->n, col = args->in_col[1], out_step = args->out_step;
    const size_t whole = args->right ? n - 1 : n; /* windows that have a third column */
    const __m512i edge = _mm512_set1_epi8((char)args->edge);
    for (size_t y = 0, rows = 1; y < args->rows; y += rows) {
        const uint8_t *const *const in = args->in + 3 * y;
        if (step1)
            rows = y + 1 < args->rows && in[3] == in[1] && in[4] == in[2] ? 2 : 1;
        const uint8_t *r0 = in[0] + c, *r1 = in[1] + c, *r2 = in[2] + c;
        const uint8_t *r3 = in[rows == 2 ? 5 : 2] + c;
        __m512i x0 = edge, x1 = edge;
        size_t at = y * args->out_row + c;
#define COLUMN(to)                                                                                 \
    (to = narrow_column(r0, r1, r2, r3, step1), r0 += col, r1 += col, r2 += col, r3 += col)
        if (!args->left)
            COLUMN(x0);
        if (step1)
            COLUMN(x1);
        for (size_t i = 0; i < n; i += TOGETHER, at += TOGETHER * out_step) {
            __m512i acc[TOGETHER], below[TOGETHER];
#pragma GCC unroll 4
            for (size_t p = 0; p < TOGETHER; p++) {
                __m512i x2 = edge;
                if (!step1 && i + p < n)
                    COLUMN(x1);
                if (i + p < whole)
                    COLUMN(x2);
                acc[p] = narrow_window(b.bias, x0, x1, x2, b.w);
                if (step1)
                    below[p] = narrow_window(b.bias, x0, x1, x2, higher);
                x0 = step1 ? x1 : x2;
                x1 = x2;
            }
            put_narrow(args, &b, &made, acc, at, n - i);
            if (rows == 2)
                put_narrow(args, &b, &made, below, at + args->out_row, n - i);
        }
#undef COLUMN
    }
}

static void narrow_1(const qn_q8_dwconv_args *args, size_t c)
{
    narrow_rows(args, true, c);
}

static void narrow_2(const qn_q8_dwconv_args *args, size_t c)
{
    narrow_rows(args, false, c);
}

/* --- any channels ------------------------------------------------------------------------------*/
void qn__q8_dwconv_vnni(const qn_q8_dwconv_args *args)
{
    const size_t channels = args->channels, rest = channels % WIDE_BLOCK;
    const bool whole = args->kh == 3 && args->kw == 3, shared = shares_columns(args);
    const bool step1 = shared && args->in_step == args->in_col[1];
    if (args->n == 0 || !whole || channels < (shared ? NARROW_BLOCK : WIDE_BLOCK)) {
        dwconv_small(args);
    } else {
        const bool tail = shared && (rest <= MOST_NARROW || channels < WIDE_BLOCK);
        const size_t end = tail ? channels - rest : channels;
        for (size_t c = 0; c < end; c += WIDE_BLOCK)
            (step1 ? wide_1 : wide_2)(args, channels - c < WIDE_BLOCK ? channels - WIDE_BLOCK : c);
        for (size_t c = end; c < channels; c += NARROW_BLOCK)
            (step1 ? narrow_1
                   : narrow_2)(args, channels - c < NARROW_BLOCK ? channels - NARROW_BLOCK : c);
    }
    _mm256_zeroupper();
}
