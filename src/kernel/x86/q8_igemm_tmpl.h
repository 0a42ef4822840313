/* 8-bit indirect GEMM over an x86 vector type, included once per instruction set. A tile is mr rows
 * by np panels of LANES columns; a 32-bit lane takes four neighbouring k of one column at once,
 * and four bytes of a row are broadcast to all of them. The includer defines:
 *   VEC, FVEC, LANES      vectors of int32 and of float, and their elements
 *   MR, NP                rows and panels of a full tile
 *   LOAD(p), LOADF(p), SET1(x), SET1F(x), XOR(a, b)
 *   DOT(acc, a, b)        acc + four products per lane, a unsigned; exact if the weights are safe
 *   TO_FLOAT(v), MULF, MINF, MAXF   the second operand where one is NaN
 *   STORE(p, v, zero, n)  the first n bytes of whole numbers v, rounded to even, plus zero
 *   STOREF(p, v, n)       the first n floats
 *   WIDE                  1: DOT may saturate, unsafe weights go through 16 bits:
 *   AND, ADD32, MADD16, SLLI16, SRAI16, SRLI16
 *   IGEMM                 name of the function */
#include <string.h>

enum { NR = LANES, KR = 4 };
/* Weights are read once per tile in long streams: this many groups of k ahead they are on their way
 * from the second or third level. */
enum { PREFETCH = 16 };

/* The first n (1 to 4) bytes; nothing is read behind them. */
static inline __attribute__((always_inline)) int32_t row_bytes(const uint8_t *p, size_t n)
{
    uint32_t v = 0;
    if (n == KR)
        memcpy(&v, p, sizeof v);
    else {
        v = p[0];
        v |= n > 1 ? (uint32_t)p[1] << 8 : 0;
        v |= n > 2 ? (uint32_t)p[2] << 16 : 0;
    }
    return (int32_t)v;
}

/* One group of k. All the sizes but n are constants after inlining: the arrays become registers. */
static inline __attribute__((always_inline)) void
group(const size_t mr, const size_t np, const bool wide, const bool flipped, VEC acc[MR][NP],
      const uint8_t *const rows[MR], size_t k, size_t n, const uint8_t *w, size_t panel_bytes)
{
    VEC b[NP];
#if WIDE
    VEC odd[NP];
#endif
#pragma GCC unroll 4
    for (size_t j = 0; j < np; j++) {
        b[j] = LOAD(w + j * panel_bytes);
        _mm_prefetch((const char *)(w + j * panel_bytes + PREFETCH * NR * KR), _MM_HINT_T0);
#if WIDE
        if (wide) {
            odd[j] = SRAI16(b[j], 8);
            b[j] = SRAI16(SLLI16(b[j], 8), 8);
        }
#endif
    }
#pragma GCC unroll 16
    for (size_t m = 0; m < mr; m++) {
        VEC a = SET1(row_bytes(rows[m] + k, n));
        if (flipped)
            a = XOR(a, SET1((int32_t)0x80808080u));
#if WIDE
        const VEC a_odd = SRLI16(a, 8);
        if (wide)
            a = AND(a, SET1(0x00ff00ff));
#endif
#pragma GCC unroll 4
        for (size_t j = 0; j < np; j++) {
#if WIDE
            if (wide) {
                acc[m][j] = ADD32(acc[m][j], MADD16(a, b[j]));
                acc[m][j] = ADD32(acc[m][j], MADD16(a_odd, odd[j]));
                continue;
            }
#endif
            acc[m][j] = DOT(acc[m][j], a, b[j]);
        }
    }
#if !WIDE
    (void)wide;
#endif
}

static inline __attribute__((always_inline)) void
tile(const size_t mr, const size_t np, const bool wide, const bool flipped, size_t columns,
     size_t kc, size_t ks, const uint8_t *const *a, const uint8_t *w, size_t panel_bytes, void *c,
     size_t c_stride, const qn_q8_out *out)
{
    VEC acc[MR][NP];
#pragma GCC unroll 16
    for (size_t m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (size_t j = 0; j < np; j++)
            acc[m][j] = LOAD(w + j * panel_bytes);
    const uint8_t *const scales = w + NR * sizeof(int32_t);
    w = scales + NR * sizeof(float);
    for (size_t p = 0; p < ks; p++, a += MR) {
        const uint8_t *rows[MR];
#pragma GCC unroll 16
        for (size_t m = 0; m < mr; m++)
            rows[m] = a[m];
        size_t k = 0;
        for (; k + KR <= kc; k += KR, w += NR * KR)
            group(mr, np, wide, flipped, acc, rows, k, KR, w, panel_bytes);
        if (k < kc) {
            group(mr, np, wide, flipped, acc, rows, k, kc - k, w, panel_bytes);
            w += NR * KR;
        }
    }
    const bool is_float = out->is_float;
    const int32_t zero = out->zero;
    const FVEC lo = SET1F(is_float ? out->clamp.lo : (float)(out->lo - zero));
    const FVEC hi = SET1F(is_float ? out->clamp.hi : (float)(out->hi - zero));
#pragma GCC unroll 4
    for (size_t j = 0; j < np; j++) {
        const FVEC scale = LOADF((const float *)(const void *)(scales + j * panel_bytes));
        const size_t n = j + 1 == np ? columns - j * NR : NR;
#pragma GCC unroll 16
        for (size_t m = 0; m < mr; m++) {
            const FVEC v = MULF(TO_FLOAT(acc[m][j]), scale);
            if (is_float)
                STOREF((float *)c + m * c_stride + j * NR, MINF(hi, MAXF(lo, v)), n);
            else /* the other way round: NaN becomes the lower bound */
                STORE((uint8_t *)c + m * c_stride + j * NR, MINF(MAXF(v, lo), hi), zero, n);
        }
    }
}

typedef void (*tile_fn)(size_t columns, size_t kc, size_t ks, const uint8_t *const *a,
                        const uint8_t *w, size_t panel_bytes, void *c, size_t c_stride,
                        const qn_q8_out *out);
/* way: 0 and 1, as DOT says; 2 and 3, through 16 bits; odd ones flip the rows. */
#define TILE(mr, np, way)                                                                          \
    static void tile_##mr##_##np##_##way(                                                          \
        size_t columns, size_t kc, size_t ks, const uint8_t *const *a, const uint8_t *w,           \
        size_t panel_bytes, void *c, size_t c_stride, const qn_q8_out *out)                        \
    {                                                                                              \
        tile(mr, np, way / 2 != 0, way % 2 != 0, columns, kc, ks, a, w, panel_bytes, c, c_stride,  \
             out);                                                                                 \
    }
#if WIDE
#define WAYS(mr, np) TILE(mr, np, 0) TILE(mr, np, 1) TILE(mr, np, 2) TILE(mr, np, 3)
#define WAY_NAMES(mr, np)                                                                          \
    {                                                                                              \
        tile_##mr##_##np##_0, tile_##mr##_##np##_1, tile_##mr##_##np##_2, tile_##mr##_##np##_3     \
    }
#else
#define WAYS(mr, np) TILE(mr, np, 0) TILE(mr, np, 1)
#define WAY_NAMES(mr, np)                                                                          \
    {                                                                                              \
        tile_##mr##_##np##_0, tile_##mr##_##np##_1                                                 \
    }
#endif
#if LANES == 16
#define PANELS(mr) WAYS(mr, 1) WAYS(mr, 2) WAYS(mr, 3)
#define ROW(mr) {WAY_NAMES(mr, 1), WAY_NAMES(mr, 2), WAY_NAMES(mr, 3)},
#else
#define PANELS(mr) WAYS(mr, 1) WAYS(mr, 2)
#define ROW(mr) {WAY_NAMES(mr, 1), WAY_NAMES(mr, 2)},
#endif
#if LANES == 16
#define ROWS(do)                                                                                   \
    do                                                                                             \
    (1) do(2) do(3) do(4) do(5) do(6) do(7) do(8)
#else
#define ROWS(do)                                                                                   \
    do                                                                                             \
    (1) do(2) do(3) do(4)
#endif
ROWS(PANELS)
static const tile_fn tiles[MR][NP][WIDE ? 4 : 2] = {ROWS(ROW)};

void IGEMM(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a, uint8_t flip,
           bool safe, const void *w, void *c, size_t c_stride, const qn_q8_out *out)
{
    const size_t panel_bytes =
        NR * (sizeof(int32_t) + sizeof(float) + ks * ((kc + KR - 1) / KR * KR));
    const size_t elem = out->is_float ? sizeof(float) : 1;
    const size_t way = (WIDE && !safe ? 2u : 0u) + (flip != 0);
    const uint8_t *packed = w;
    size_t panels = (nc + NR - 1) / NR;
    while (panels > 0) {
        /* One more panel than a full tile takes is two pairs rather than a slow single one. */
        const size_t np = NP > 2 && panels == 4 ? 2 : panels < NP ? panels : NP;
        const size_t columns = nc < np * NR ? nc : np * NR;
        tiles[mr - 1][np - 1][way](columns, kc, ks, a, packed, panel_bytes, c, c_stride, out);
        packed += np * panel_bytes;
        c = (uint8_t *)c + columns * elem;
        nc -= columns;
        panels -= np;
    }
    /* Left out by the compiler behind indirect calls: see the float kernel. */
    _mm256_zeroupper();
}
