/* Floats to bytes over an x86 vector type, in registers from end to end: quantize_part of
 * q8_loops_tmpl.h. The includer has the macros of q8_igemm_tmpl.h, and
 *   FMAF(a, b, c), DIVF(a, b) */
#include "kernel/q8_loops.h"

#include <string.h>

/* Inputs come from the third-level cache or beyond. With 512 floats ahead it takes as long, without
 * any a quarter more: processors look ahead by themselves, but not from one page to the next. */
enum { AHEAD = 256 };

/* n values to rows of `row` bytes. Four vectors become one of bytes; the last one of a row begins
 * as early as it must. The upper bound of dividends keeps quotients below 2^31; what is no number,
 * or very low, becomes the least int32. */
static __attribute__((noinline)) void quantize_part(const qn_q8_quantize_args *args,
                                                    const float *src, uint8_t *const *rows,
                                                    size_t row, size_t n)
{
    const bool divides = args->factor == 0.0f, whole = row >= sizeof(VEC);
    const int32_t higher = args->lo + (float)args->zero < 0.0f ? 128 : 0; /* signed bytes */
    const int32_t zero = args->zero + higher;
    const FVEC most = SET1F((args->hi + 1.0f) * args->scale), scale = SET1F(args->scale);
    const FVEC factor = SET1F(args->factor), last = SET1F(args->rest);
    const VEC lo = SET1_8((char)((int32_t)args->lo + zero));
    const VEC hi = SET1_8((char)((int32_t)args->hi + zero));
    const VEC move = SET1_16((short)zero), sign = SET1_8((char)higher);
    float rest[sizeof(VEC)];
    uint8_t out[sizeof(VEC)];
    for (size_t i = 0; n > 0; i += sizeof(VEC)) {
        if (whole && row - i < sizeof(VEC))
            i = row - sizeof(VEC);
        const float *from = src + i;
        FVEC x[4];
        VEC q[4];
        if (!whole) {
            memset(rest, 0, sizeof(rest));
            from = memcpy(rest, from, row * sizeof(float));
        }
        for (size_t k = 0; k < 4 * LANES; k += 16)
            __builtin_prefetch(src + i + AHEAD + k);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            x[k] = MINF(most, LOADF(from + k * LANES));
#pragma GCC unroll 4
        for (size_t k = 0; k < 4 && !divides; k++)
            x[k] = FMAF(x[k], factor, MULF(x[k], last));
#pragma GCC unroll 4
        for (size_t k = 0; k < 4 && divides; k++)
            x[k] = DIVF(x[k], scale);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            q[k] = TO_INT(x[k]);
        const VEC low = ADD16(move, PACK32(q[0], q[1])), high = ADD16(move, PACK32(q[2], q[3]));
        const VEC bytes = ROWS_TOGETHER(PACK16(low, high));
        STORE_ALL(whole ? *rows + i : out, XOR(sign, MIN8(hi, MAX8(lo, bytes))));
        if (!whole)
            memcpy(*rows, out, row);
        if (row - i <= sizeof(VEC)) { /* the next row */
            src += row;
            n -= row;
            rows++;
            i = -sizeof(VEC);
        }
    }
}

/* Bounds of one type, and scales that neither they nor reciprocals overflow or vanish with. */
static bool quantizes_in_registers(const qn_q8_quantize_args *args)
{
    const float zero = (float)args->zero, least = args->lo + zero, most = args->hi + zero;
    return args->scale > 0x1p-80f && args->scale < 0x1p80f && zero >= -128.0f && zero <= 255.0f &&
           least <= most && (least < 0.0f ? least >= -128.0f && most <= 127.0f : most <= 255.0f);
}
