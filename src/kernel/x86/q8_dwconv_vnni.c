/* 8-bit depthwise convolution for AVX-512 with VNNI. 3x3 windows, 64 channels at once: the three
 * bytes of a column and a zero are brought together, so that one instruction multiplies and adds
 * all of a column. Other windows go through 16 bits. */
#include "kernel/x86/q8_avx512.h"

/* The intrinsics of gcc 12 copy their accumulator. */
static inline __attribute__((always_inline)) __m512i dpwssd(__m512i acc, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}
static inline __attribute__((always_inline)) __m512i dpbusd(__m512i acc, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

#define DOT16(acc, a, b) dpwssd(acc, a, b)
#include "kernel/x86/q8_dwconv_tmpl.h"

enum { WIDE_BLOCK = 64 };

/* 64 channels in the order in which packing expects them: vector q holds channels 4q to 4q + 3 of
 * every sixteen. */
typedef struct quad {
    __m512i v[4];
} quad;

static inline __attribute__((always_inline)) __m512i load_bytes64(const void *p, size_t left)
{
    return left >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(~0ull >> (64 - left), p);
}

/* Rows of three bytes, the step of rows apart. */
static inline __attribute__((always_inline)) quad column3(const void *p, size_t row, __m512i flip,
                                                          size_t left)
{
    const uint8_t *const at = p;
    const __m512i a = _mm512_xor_si512(load_bytes64(at, left), flip);
    const __m512i b = _mm512_xor_si512(load_bytes64(at + row, left), flip);
    const __m512i c = _mm512_xor_si512(load_bytes64(at + 2 * row, left), flip);
    const __m512i none = _mm512_setzero_si512();
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i c_low = _mm512_unpacklo_epi8(c, none), c_high = _mm512_unpackhi_epi8(c, none);
    return (quad){{_mm512_unpacklo_epi16(ab_low, c_low), _mm512_unpackhi_epi16(ab_low, c_low),
                   _mm512_unpacklo_epi16(ab_high, c_high), _mm512_unpackhi_epi16(ab_high, c_high)}};
}

static inline __attribute__((always_inline)) quad add_column(quad acc, quad x, quad w)
{
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q++)
        acc.v[q] = dpbusd(acc.v[q], x.v[q], w.v[q]);
    return acc;
}

/* The first left of 64 elements of 32 bits. */
static inline quad load_quad(const void *p, size_t left)
{
    __m512i b[4];
    for (size_t i = 0; i < 4; i++) {
        const size_t n = left < 16 * i ? 0 : left - 16 * i;
        const __mmask16 mask = n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
        b[i] = _mm512_maskz_loadu_epi32(mask, (const int32_t *)p + (n == 0 ? 0 : 16 * i));
    }
    const __m512i b01_low = _mm512_shuffle_i32x4(b[0], b[1], 0x44);
    const __m512i b23_low = _mm512_shuffle_i32x4(b[2], b[3], 0x44);
    const __m512i b01_high = _mm512_shuffle_i32x4(b[0], b[1], 0xee);
    const __m512i b23_high = _mm512_shuffle_i32x4(b[2], b[3], 0xee);
    return (quad){{_mm512_shuffle_i32x4(b01_low, b23_low, 0x88),
                   _mm512_shuffle_i32x4(b01_low, b23_low, 0xdd),
                   _mm512_shuffle_i32x4(b01_high, b23_high, 0x88),
                   _mm512_shuffle_i32x4(b01_high, b23_high, 0xdd)}};
}

static inline __attribute__((always_inline)) void put_quad(const qn_q8_out *out, void *c, size_t at,
                                                           quad acc, const quad *scale, size_t left)
{
    __m512 v[4];
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q++)
        v[q] = MULF(TO_FLOAT(acc.v[q]), AS_FLOAT(scale->v[q]));
    if (out->is_float) {
        const __m512 lo = SET1F(out->clamp.lo), hi = SET1F(out->clamp.hi);
        float parts[4][16];
        for (size_t q = 0; q < 4; q++)
            _mm512_storeu_ps(parts[q], MINF(hi, MAXF(lo, v[q])));
        for (size_t i = 0; i < left && i < WIDE_BLOCK; i++)
            ((float *)c)[at + i] = parts[i / 4 % 4][i / 16 * 4 + i % 4];
        return;
    }
    /* As in the GEMM: the lower bound by saturation, unsigned bytes 128 lower until the end. */
    const int32_t lower = out->lo < 0 ? 0 : 128;
    const __m512 hi = SET1F((float)(out->hi - out->zero));
    const __m512i move = SET1_16((short)(out->zero - lower));
    const __m512i lo = _mm512_set1_epi8((char)(out->lo - lower));
    __m512i q[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        q[i] = TO_INT(MINF(hi, v[i]));
    const __m512i words_low = ADD16(PACK32(q[0], q[1]), move);
    const __m512i words_high = ADD16(PACK32(q[2], q[3]), move);
    const __m512i bytes = _mm512_max_epi8(PACK16(words_low, words_high), lo);
    const __m512i flipped = XOR(bytes, _mm512_set1_epi8((char)lower));
    uint8_t *const p = (uint8_t *)c + at;
    if (left >= 64)
        _mm512_storeu_si512(p, flipped);
    else
        _mm512_mask_storeu_epi8(p, ~0ull >> (64 - left), flipped);
}

static inline __attribute__((always_inline)) void
wide_block(const qn_q8_dwconv_args *args, const size_t step, size_t c, size_t left)
{
    const __m512i flip = _mm512_set1_epi8(args->in_signed ? (char)0x80 : 0);
    const __m512i zero = SET1(args->in_zero + (args->in_signed ? 128 : 0));
    const __m512i one = _mm512_set1_epi8(1);
    const quad ones = {{one, one, one, one}};
    const size_t row = args->in_row, col = args->in_col, n = args->n;
    const uint8_t *in = args->in + c;
    quad w[3], sum = {{ZERO(), ZERO(), ZERO(), ZERO()}};
    for (size_t j = 0; j < 3; j++) {
        w[j] = column3(args->w + j * args->channels + c, args->w_row, ZERO(), left);
        sum = add_column(sum, ones, w[j]);
    }
    const quad scale = load_quad(args->scale + c, left);
    quad bias = load_quad(args->bias + c, left);
    for (size_t q = 0; q < 4; q++)
        bias.v[q] = SUB32(bias.v[q], MUL32(sum.v[q], zero));
    quad x = column3(in, row, flip, left), now = add_column(bias, x, w[0]), next = bias;
#define COLUMN() (in += col, x = column3(in, row, flip, left))
    COLUMN();
    now = add_column(now, x, w[1]);
    if (step == 1)
        next = add_column(bias, x, w[0]);
    for (size_t i = 0; i < n; i++) {
        COLUMN();
        put_quad(&args->format, args->out, i * args->out_step + c, add_column(now, x, w[2]), &scale,
                 left);
        if (i + 1 == n)
            break;
        if (step == 1) {
            now = add_column(next, x, w[1]);
            next = add_column(bias, x, w[0]);
        } else {
            now = add_column(bias, x, w[0]);
            COLUMN();
            now = add_column(now, x, w[1]);
        }
    }
#undef COLUMN
}

#define WIDE_RUN(name, step, left)                                                                 \
    static void name(const qn_q8_dwconv_args *args, size_t c)                                      \
    {                                                                                              \
        wide_block(args, step, c, left);                                                           \
    }
WIDE_RUN(wide_step1, 1, WIDE_BLOCK)
WIDE_RUN(wide_step2, 2, WIDE_BLOCK)
WIDE_RUN(wide_rest1, 1, args->channels - c)
WIDE_RUN(wide_rest2, 2, args->channels - c)

void qn__q8_dwconv_vnni(const qn_q8_dwconv_args *args)
{
    size_t c = 0;
    const bool is_step1 = args->in_step == args->in_col;
    if (args->n > 0 && args->kh == 3 && args->kw == 3 &&
        (is_step1 || args->in_step == 2 * args->in_col)) {
        for (; c + WIDE_BLOCK <= args->channels; c += WIDE_BLOCK)
            (is_step1 ? wide_step1 : wide_step2)(args, c);
        if (args->channels - c > BLOCK) {
            (is_step1 ? wide_rest1 : wide_rest2)(args, c);
            c = args->channels;
        }
    }
    dwconv_from(args, c);
    _mm256_zeroupper();
}
