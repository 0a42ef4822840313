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

static void quantize_part(const qn_q8_quantize_args *args, const float *src, uint8_t *dst, size_t n)
{
    float rest[BLOCK];
    uint8_t out[BLOCK];
    for (size_t i = 0; i < n; i += BLOCK) {
        const bool whole = n - i >= BLOCK;
        if (!whole) {
            memset(rest, 0, sizeof(rest));
            memcpy(rest, src + i, (n - i) * sizeof(float));
        }
        quantize_block(args, whole ? src + i : rest, whole ? dst + i : out);
        if (!whole)
            memcpy(dst + i, out, n - i);
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

void QUANTIZE(const qn_q8_quantize_args *args)
{
    const size_t channels = args->channels;
    uint8_t planes[3 * PIXELS];
#ifdef QUANTIZES
    if (!QUANTIZES(args)) {
        qn__q8_quantize_scalar(args);
        return;
    }
#endif
    if (channels == 1) {
        quantize_part(args, args->src, args->dst, args->n);
        return;
    }
    for (size_t i = 0; i < args->n; i += PIXELS) {
        const size_t n = args->n - i < PIXELS ? args->n - i : PIXELS;
        uint8_t *const dst = args->dst + i * channels;
#if VBYTES > 0
        if (channels == 3) {
            for (size_t c = 0; c < 3; c++)
                quantize_part(args, args->src + c * args->plane + i, planes + c * PIXELS, n);
            merge_3(planes, dst, n);
            continue;
        }
#endif
        for (size_t c = 0; c < channels; c++) {
            quantize_part(args, args->src + c * args->plane + i, planes, n);
            for (size_t k = 0; k < n; k++)
                dst[k * channels + c] = planes[k];
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
static inline __attribute__((always_inline)) void
finish_block(const qn_q8_avgpool_args *args, const uint32_t *sums, uint8_t *restrict out)
{
    const float factor = args->factor, count = args->count, scale = args->scale;
    const uint32_t offset = (uint32_t)args->offset;
    if (args->divides) {
        for (size_t i = 0; i < BLOCK; i++)
            out[i] = qn_round_byte((float)(int32_t)(sums[i] - offset) * factor / count / scale,
                                   args->lo, args->hi, args->zero);
        return;
    }
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = qn_round_byte((float)(int32_t)(sums[i] - offset) * factor, args->lo, args->hi,
                               args->zero);
}

#if VBYTES > 0
/* As many bytes as sums of 16 bits fit a register, half of it, and eight. */
typedef uint8_t wide __attribute__((vector_size(VBYTES / 2), aligned(1), may_alias));
typedef uint16_t wide_sum __attribute__((vector_size(VBYTES)));
typedef uint8_t narrow __attribute__((vector_size(VBYTES / 4), aligned(1), may_alias));
typedef uint16_t narrow_sum __attribute__((vector_size(VBYTES / 2)));
typedef uint8_t least __attribute__((vector_size(8), aligned(1), may_alias));
typedef uint16_t least_sum __attribute__((vector_size(16)));

/* Sums of channels from c on, of n; 16 bits hold 257 taps. */
#define CHANNELS(V)                                                                                \
    for (; c + sizeof(V) <= n; c += sizeof(V)) {                                                   \
        const V flip = (V){0} + args->flip;                                                        \
        uint16_t part[sizeof(V)];                                                                  \
        V##_sum sum = {0};                                                                         \
        size_t taps = 0;                                                                           \
        for (size_t i = 0; i < args->rows; i++) {                                                  \
            const uint8_t *at = in + i * args->row + c;                                            \
            for (size_t j = 0; j < args->cols; j++, at += args->col) {                             \
                sum += __builtin_convertvector(*(const V *)at ^ flip, V##_sum);                    \
                if (++taps % 256 == 0) {                                                           \
                    memcpy(part, &sum, sizeof(sum));                                               \
                    for (size_t k = 0; k < sizeof(V); k++)                                         \
                        sums[c + k] += part[k];                                                    \
                    sum = (V##_sum){0};                                                            \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        memcpy(part, &sum, sizeof(sum));                                                           \
        for (size_t k = 0; k < sizeof(V); k++)                                                     \
            sums[c + k] += part[k];                                                                \
    }
#endif

void AVGPOOL(const qn_q8_avgpool_args *args)
{
    for (size_t c0 = 0; c0 < args->channels; c0 += BLOCK) {
        const size_t n = args->channels - c0 < BLOCK ? args->channels - c0 : BLOCK;
        const uint8_t *const in = args->in + c0;
        uint32_t sums[BLOCK] = {0};
        uint8_t out[BLOCK];
        size_t c = 0;
#if VBYTES > 0
        CHANNELS(wide)
        CHANNELS(narrow)
        CHANNELS(least)
#endif
        for (; c < n; c++)
            for (size_t i = 0; i < args->rows; i++)
                for (size_t j = 0; j < args->cols; j++)
                    sums[c] += (uint8_t)(in[i * args->row + j * args->col + c] ^ args->flip);
        finish_block(args, sums, out);
        memcpy(args->out + c0, out, n);
    }
}
