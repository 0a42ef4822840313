/* 8-bit convolution by Winograd's algorithm, for any width of vectors: products of up to ROWS tiles
 * and two vectors of columns, two channels at a time. Files that include this define
 *   VEC, FVEC, LANES of 32 bits, ROWS and MORE_ROWS, LESS_ROWS (fewer tiles at once)
 *   DOT(acc, a, b): acc plus the sums of two products of 16 bits
 *   WIDEN(p): as many unsigned bytes as there are lanes of 16 bits; LOAD, STORE, ZERO, SET1, SET1F
 *   ADD16, SUB16, SHL16, ADD32, SUB32, SHL32, SHR32, MUL32, TO_FLOAT, TO_INT, MULF, MINF, MAXF
 *   STORE_BYTES(out, n, v, zero): four vectors, plus zero, to four outputs' column n
 *   INPUTS, OUTPUTS: the functions */
#include "kernel/kernel.h"

#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

enum { IN = QN_WINOGRAD_IN, OUT = QN_WINOGRAD_OUT, NR = 2 * LANES };
/* Tiles whose products are on the stack before outputs are made of them. */
enum { TILES = 12 };

/* --- inputs ------------------------------------------------------------------------------------*/
/* B times six vectors. */
ALWAYS void six_to_six(const VEC d[6], VEC v[6])
{
    const VEC even = SUB16(d[4], d[2]), odd = SUB16(d[3], d[1]);
    const VEC odd2 = ADD16(odd, odd);
    const VEC even4 = SUB16(d[4], SHL16(d[2], 2)), odd4 = SUB16(d[3], SHL16(d[1], 2));
    v[0] = ADD16(SHL16(SUB16(d[0], d[2]), 2), even);
    v[1] = ADD16(even4, odd4);
    v[2] = SUB16(even4, odd4);
    v[3] = ADD16(even, odd2);
    v[4] = SUB16(even, odd2);
    v[5] = SUB16(SUB16(d[5], d[3]), ADD16(odd2, odd2));
}

void INPUTS(const qn_q8_winograd_args *args)
{
    const size_t channels = args->channels, step = args->v_step;
    for (size_t t = 0; t < args->tiles; t++) {
        const uint8_t *const *const in = args->in + t * IN;
        for (size_t c = 0; c < channels; c += NR) {
            VEC columns[IN], d[6], v[6];
            for (size_t j = 0; j < 6; j++) {
#pragma GCC unroll 6
                for (size_t i = 0; i < 6; i++)
                    d[i] = WIDEN(in[i * 6 + j] + c);
                six_to_six(d, v);
#pragma GCC unroll 6
                for (size_t i = 0; i < 6; i++)
                    columns[i * 6 + j] = v[i];
            }
            int16_t *to = args->v + t * channels + c;
            for (size_t i = 0; i < 6; i++) {
                six_to_six(columns + i * 6, v);
#pragma GCC unroll 6
                for (size_t j = 0; j < 6; j++, to += step)
                    STORE(to, v[j]);
            }
        }
    }
}

/* --- products ----------------------------------------------------------------------------------*/
/* One product of V and U for `rows` tiles. */
ALWAYS void product(const size_t rows, size_t channels, const int16_t *v, const int16_t *u,
                    int32_t *m)
{
    VEC s[ROWS][2];
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++)
        s[r][0] = s[r][1] = ZERO();
    const int16_t *const end = v + channels;
    for (; v < end; v += 2, u += 2 * NR) {
        const VEC u0 = LOAD(u), u1 = LOAD(u + NR);
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) {
            int32_t two;
            memcpy(&two, v + r * channels, sizeof(two));
            const VEC both = SET1(two);
            s[r][0] = DOT(s[r][0], both, u0);
            s[r][1] = DOT(s[r][1], both, u1);
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++, m += IN * NR) {
        STORE(m, s[r][0]);
        STORE(m + LANES, s[r][1]);
    }
}

/* m: [tiles][36][NR]. */
static void products(const qn_q8_winograd_args *args, size_t t0, size_t tiles, const int16_t *u,
                     int32_t *m)
{
    const size_t channels = args->channels;
    const int16_t *v = args->v + t0 * channels;
    for (size_t p = 0; p < IN; p++, u += channels * NR, v += args->v_step, m += NR) {
        size_t t = 0;
        for (; tiles - t >= ROWS; t += ROWS)
            product(ROWS, channels, v + t * channels, u, m + t * IN * NR);
        if (tiles - t >= MORE_ROWS) {
            product(MORE_ROWS, channels, v + t * channels, u, m + t * IN * NR);
            t += MORE_ROWS;
        }
        if (t < tiles && tiles >= LESS_ROWS) { /* some perhaps again */
            t = tiles - t < LESS_ROWS ? tiles - LESS_ROWS : t;
            product(LESS_ROWS, channels, v + t * channels, u, m + t * IN * NR);
            t += LESS_ROWS;
        }
        for (; t < tiles; t++)
            product(1, channels, v + t * channels, u, m + t * IN * NR);
    }
}

/* --- outputs -----------------------------------------------------------------------------------*/
/* A times six vectors. */
ALWAYS void six_to_four(const VEC m[6], VEC o[4])
{
    const VEC p = ADD32(m[1], m[2]), q = SUB32(m[1], m[2]);
    const VEC r = ADD32(m[3], m[4]), s = SUB32(m[3], m[4]);
    const VEC s2 = ADD32(s, s), last = ADD32(ADD32(s2, s2), m[5]);
    o[0] = ADD32(ADD32(m[0], p), r);
    o[1] = ADD32(q, s2);
    o[2] = ADD32(p, SHL32(r, 2));
    o[3] = ADD32(q, ADD32(last, last));
}

typedef struct requant {
    FVEC lo, hi;
    VEC zero;
} requant;

/* A vector of columns of a tile, m: [36][NR]. */
ALWAYS void outputs(const int32_t *m, const int32_t *head, const requant *format,
                    uint8_t *const *out, size_t n)
{
    const VEC base = LOAD(head), inverse = SET1(QN_WINOGRAD_INVERSE);
    const FVEC scale = LOADF(head + NR);
    VEC lines[4 * 6], d[6], o[4];
    for (size_t j = 0; j < 6; j++) {
#pragma GCC unroll 6
        for (size_t i = 0; i < 6; i++)
            d[i] = LOAD(m + (i * 6 + j) * NR);
        six_to_four(d, o);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            lines[i * 6 + j] = o[i];
    }
    for (size_t i = 0; i < 4; i++, out += 4) {
        six_to_four(lines + i * 6, o);
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            const VEC sum = ADD32(SHR32(MUL32(o[j], inverse), 6), base);
            const FVEC f = MULF(TO_FLOAT(sum), scale);
            o[j] = TO_INT(MINF(MAXF(f, format->lo), format->hi)); /* NaN: lo */
        }
        STORE_BYTES(out, n, o, format->zero);
    }
}

void OUTPUTS(const qn_q8_winograd_args *args)
{
    _Alignas(64) int32_t m[TILES * IN * NR];
    const qn_q8_out *const to = args->format;
    const requant format = {SET1F((float)(to->lo - to->zero)), SET1F((float)(to->hi - to->zero)),
                            SET1(to->zero)};
    const uint8_t *panel = args->w;
    for (size_t n = 0; n < args->n; n += NR) {
        const int32_t *const head = (const int32_t *)(const void *)panel;
        for (size_t t0 = 0, tiles; t0 < args->tiles; t0 += tiles) {
            tiles = args->tiles - t0 < TILES ? args->tiles - t0 : TILES;
            products(args, t0, tiles, (const int16_t *)(const void *)(head + 2 * NR), m);
            for (size_t t = 0; t < tiles; t++)
                for (size_t half = 0; half < NR; half += LANES)
                    outputs(m + t * IN * NR + half, head + half, &format,
                            args->out + (t0 + t) * OUT, n + half);
        }
        panel += qn_q8_winograd_panel_bytes(args->channels, NR);
    }
}
