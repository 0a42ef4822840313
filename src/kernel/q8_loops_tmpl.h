/* Loops between floats and bytes, and means of bytes, in pieces of fixed length that compilers
 * vectorize for the flags of the including file. It defines QUANTIZE, DEQUANTIZE and AVGPOOL (the
 * functions) and VBYTES (bytes of a register, 0: no vector types), may have quantize_part and
 * then defines QUANTIZES(args) (whether it is right for these), and where there are registers of 32
 * bytes SHUFFLE(p, order) (32 bytes at p, each half by 16 numbers), OR3(a, b, c) and
 * STORE_HALVES(p, q, v). */
#include "kernel/kernel.h"
#include "kernel/q8_round.h"

#include <string.h>

enum { BLOCK = 64, PIXELS = 512 };

/* --- floats to bytes ---------------------------------------------------------------------------*/
#ifndef QUANTIZES
static inline __attribute__((always_inline)) void
quantize_block(const qn_q8_quantize_args *args, const float *src, uint8_t *restrict dst)
{
    const float scale = args->scale, lo = args->lo, hi = args->hi;
    const int32_t zero = args->zero;
    for (size_t i = 0; i < BLOCK; i++)
        dst[i] = qn_round_byte(src[i] / scale, lo, hi, zero);
}

static void quantize_part(const qn_q8_quantize_args *args, const float *src, uint8_t *const *rows,
                          size_t row, size_t n)
{
    float rest[BLOCK];
    uint8_t out[BLOCK];
    for (; n > 0; n -= row, src += row, rows++)
        for (size_t i = 0; i < row; i += BLOCK) {
            const bool whole = row - i >= BLOCK;
            if (!whole) {
                memset(rest, 0, sizeof(rest));
                memcpy(rest, src + i, (row - i) * sizeof(float));
            }
            quantize_block(args, whole ? src + i : rest, whole ? *rows + i : out);
            if (!whole)
                memcpy(*rows + i, out, row - i);
        }
}
#endif

#ifdef SHUFFLE
/* Byte i of 16 pixels of three channels is of pixel i / 3: where it lies in its plane, other
 * planes' bytes are zeros. */
#define FROM(c, i) (uint8_t)((i) % 3 == (c) ? (i) / 3 : 128)
#define FOUR(c, i) FROM(c, i), FROM(c, (i) + 1), FROM(c, (i) + 2), FROM(c, (i) + 3)
#define ORDER(c, i)                                                                                \
    {                                                                                              \
        FOUR(c, i), FOUR(c, (i) + 4), FOUR(c, (i) + 8), FOUR(c, (i) + 12)                          \
    }
enum { MERGED = 32 };
/* Three planes of 32 bytes to two times 16 pixels. */
static inline void merge_planes(const uint8_t *r, const uint8_t *g, const uint8_t *b, uint8_t *dst)
{
    static const uint8_t order[3][3][16] = {{ORDER(0, 0), ORDER(1, 0), ORDER(2, 0)},
                                            {ORDER(0, 16), ORDER(1, 16), ORDER(2, 16)},
                                            {ORDER(0, 32), ORDER(1, 32), ORDER(2, 32)}};
#pragma GCC unroll 3
    for (size_t i = 0; i < 3; i++, dst += 16)
        STORE_HALVES(
            dst, dst + 48,
            OR3(SHUFFLE(r, order[i][0]), SHUFFLE(g, order[i][1]), SHUFFLE(b, order[i][2])));
}
#elif VBYTES > 0
typedef uint8_t bytes16 __attribute__((vector_size(16), aligned(1), may_alias));
enum { MERGED = 16 };
#ifdef __clang__
#define MERGE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MERGE(a, b, ...) __builtin_shuffle(a, b, (bytes16){__VA_ARGS__})
#endif
/* Three planes of 16 bytes to 16 pixels: the third one's places are free in the first step. */
static inline void merge_planes(const uint8_t *r8, const uint8_t *g8, const uint8_t *b8,
                                uint8_t *dst)
{
    const bytes16 r = *(const bytes16 *)r8, g = *(const bytes16 *)g8, b = *(const bytes16 *)b8;
    const bytes16 x = MERGE(r, g, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
    const bytes16 y = MERGE(r, g, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
    const bytes16 z = MERGE(r, g, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
    *(bytes16 *)dst = MERGE(x, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15);
    *(bytes16 *)(dst + 16) = MERGE(y, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15);
    *(bytes16 *)(dst + 32) = MERGE(z, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31);
}
#endif

#if VBYTES > 0
static void merge_3(const uint8_t *planes, uint8_t *dst, size_t n)
{
    uint8_t rest[3 * MERGED];
    for (size_t i = 0; i < n; i += MERGED, planes += MERGED) {
        const bool whole = n - i >= MERGED;
        merge_planes(planes, planes + PIXELS, planes + 2 * PIXELS, whole ? dst + 3 * i : rest);
        if (!whole)
            memcpy(dst + 3 * i, rest, 3 * (n - i));
    }
}
#endif

/* n pixels of channels; of three all planes, of others one. */
static void put_pixels(const uint8_t *planes, size_t channels, uint8_t *dst, size_t n)
{
#if VBYTES > 0
    if (channels == 3) {
        merge_3(planes, dst, n);
        return;
    }
#endif
    for (size_t k = 0; k < n; k++)
        dst[k * channels] = planes[k];
}

void QUANTIZE(const qn_q8_quantize_args *args)
{
    const size_t channels = args->channels, at_once = VBYTES > 0 && channels == 3 ? 3 : 1;
    uint8_t *const *rows = args->rows != NULL ? args->rows : &args->dst;
    const size_t row = args->rows != NULL ? args->row : args->n;
    uint8_t planes[3 * PIXELS + BLOCK]; /* what is read behind them */
#ifdef QUANTIZES
    if (!QUANTIZES(args)) {
        qn__q8_quantize_scalar(args);
        return;
    }
#endif
    if (channels == 1 && (row >= BLOCK || row == args->n)) {
        quantize_part(args, args->src, rows, row, args->n);
        return;
    }
    for (size_t i = 0, x = 0, part; i < args->n; i += PIXELS) {
        const size_t n = args->n - i < PIXELS ? args->n - i : PIXELS, from = x;
        uint8_t *const *const first = rows;
        for (size_t c = 0; c < channels; c++) {
            uint8_t *const plane = planes + c % at_once * PIXELS;
            quantize_part(args, args->src + c * args->plane + i, &plane, n, n);
            if ((c + 1) % at_once != 0)
                continue;
            rows = first;
            x = from;
            for (size_t k = 0; k < n; k += part) {
                part = n - k < row - x ? n - k : row - x;
                put_pixels(planes + k, channels, *rows + x * channels + c + 1 - at_once, part);
                x += part;
                rows += x == row;
                x = x == row ? 0 : x;
            }
        }
    }
}

/* --- bytes to floats ---------------------------------------------------------------------------*/
static inline __attribute__((always_inline)) void
dequantize_block(const qn_q8_dequantize_args *args, const uint8_t *src, float *restrict dst)
{
    const uint8_t flip = args->flip;
    const int32_t zero = args->zero;
    const float scale = args->scale;
    for (size_t i = 0; i < BLOCK; i++)
        dst[i] = (float)((int32_t)(uint8_t)(src[i] ^ flip) - zero) * scale;
}

void DEQUANTIZE(const qn_q8_dequantize_args *args)
{
    uint8_t rest[BLOCK] = {0};
    float out[BLOCK];
    for (size_t i = 0; i < args->n; i += BLOCK) {
        const bool whole = args->n - i >= BLOCK;
        if (!whole)
            memcpy(rest, args->src + i, args->n - i);
        dequantize_block(args, whole ? args->src + i : rest, whole ? args->dst + i : out);
        if (!whole)
            memcpy(args->dst + i, out, (args->n - i) * sizeof(float));
    }
}

/* --- means -------------------------------------------------------------------------------------*/
#if VBYTES > 0
/* Bytes of a vector V as halves of words: even ones and odd ones have sums of their own, 257 taps
 * of which fit. V_words are four channels in a lane, from which results come as they lie in memory.
 * The last vector overlaps the one before; false: there are fewer channels than a vector has. */
#define MEANS(V, bytes)                                                                            \
    typedef uint16_t V##_halves __attribute__((vector_size(bytes)));                               \
    typedef uint32_t V##_words __attribute__((vector_size(bytes)));                                \
    typedef int32_t V##_ints __attribute__((vector_size(bytes)));                                  \
    typedef float V##_floats __attribute__((vector_size(bytes)));                                  \
    typedef V##_halves V __attribute__((aligned(1), may_alias));                                   \
    static inline __attribute__((always_inline))                                                   \
    V##_floats V##_choose(V##_floats a, V##_floats b, V##_ints mask)                               \
    {                                                                                              \
        return (V##_floats)(((V##_ints)a & ~mask) | ((V##_ints)b & mask));                         \
    }                                                                                              \
    static bool V##_means(const qn_q8_avgpool_args *args)                                          \
    {                                                                                              \
        const size_t least = (bytes), channels = args->channels;                                   \
        const V##_halves flip = (V##_halves){0} + (uint16_t)(args->flip * 0x101);                  \
        const V##_floats lo = (V##_floats){0} + args->lo, hi = (V##_floats){0} + args->hi;         \
        for (size_t c0 = 0; c0 < channels && channels >= least; c0 += least) {                     \
            const size_t c = c0 < channels - least ? c0 : channels - least;                        \
            V##_words sums[4] = {{0}}, out = {0};                                                  \
            const uint8_t *in = args->in + c;                                                      \
            size_t i = 0, j = 0;                                                                   \
            for (size_t left = args->cols > 0 ? args->planes : 0; left > 0;) {                     \
                V##_halves even = {0}, odd = {0};                                                  \
                for (size_t room = 256, run; room > 0 && i < args->rows; room -= run) {            \
                    const uint8_t *at = in + i * args->row + j * args->col;                        \
                    run = args->cols - j < room ? args->cols - j : room;                           \
                    for (size_t t = 0; t < run; t++, at += args->col) {                            \
                        const V##_halves v = *(const V *)at ^ flip;                                \
                        even += v & 255;                                                           \
                        odd += v >> 8;                                                             \
                    }                                                                              \
                    j += run;                                                                      \
                    i += j == args->cols;                                                          \
                    j = j == args->cols ? 0 : j;                                                   \
                }                                                                                  \
                sums[0] += (V##_words)even & 65535;                                                \
                sums[1] += (V##_words)odd & 65535;                                                 \
                sums[2] += (V##_words)even >> 16;                                                  \
                sums[3] += (V##_words)odd >> 16;                                                   \
                const bool whole = i >= args->rows;                                                \
                in += whole ? args->plane : 0;                                                     \
                left -= whole;                                                                     \
                i = whole ? 0 : i;                                                                 \
            }                                                                                      \
            for (uint32_t k = 0; k < 4; k++) {                                                     \
                const V##_ints sum = (V##_ints)(sums[k] - (uint32_t)args->offset);                 \
                V##_floats v = __builtin_convertvector(sum, V##_floats) * args->factor;            \
                if (args->divides)                                                                 \
                    v = v / args->count / args->scale;                                             \
                v = V##_choose(lo, v, v > lo);                                                     \
                v = V##_choose(hi, v, v < hi);                                                     \
                const V##_words bits = (V##_words)(v + 12582912.0f);                               \
                out |= ((bits + (uint32_t)args->zero) & 255) << 8 * k;                             \
            }                                                                                      \
            *(V *)(args->out + c) = (V)out;                                                        \
        }                                                                                          \
        return channels >= least;                                                                  \
    }
MEANS(all_lanes, VBYTES)
#if VBYTES > 16
MEANS(few_lanes, 16)
#endif

void AVGPOOL(const qn_q8_avgpool_args *args)
{
    bool done = all_lanes_means(args);
#if VBYTES > 16
    done = done || few_lanes_means(args);
#endif
    if (!done)
        qn__q8_avgpool_scalar(args);
}
#else
void AVGPOOL(const qn_q8_avgpool_args *args)
{
    for (size_t c = 0; c < args->channels; c++) {
        const uint8_t *in = args->in + c;
        uint32_t sum = 0;
        for (size_t p = 0; p < args->planes; p++, in += args->plane)
            for (size_t i = 0; i < args->rows; i++)
                for (size_t j = 0; j < args->cols; j++)
                    sum += (uint8_t)(in[i * args->row + j * args->col] ^ args->flip);
        float v = (float)(int32_t)(sum - (uint32_t)args->offset) * args->factor;
        if (args->divides)
            v = v / args->count / args->scale;
        args->out[c] = qn_round_byte(v, args->lo, args->hi, args->zero);
    }
}
#endif
