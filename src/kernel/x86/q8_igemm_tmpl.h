/* 8-bit indirect GEMM over an x86 vector type, included once per instruction set. A tile is mr rows
 * by np panels of LANES columns; a 32-bit lane takes four neighbouring k of one column at once,
 * and four bytes of a row are broadcast to all of them. The includer defines:
 *   VEC, FVEC, LANES      vectors of int32 and of float, and their elements
 *   MR, NP                rows and panels of a full tile
 *   LOAD(p), LOADF(p), SET1(x), SET1F(x), XOR(a, b)
 *   DOT(acc, a, b)        acc + four products per lane, a unsigned; exact if the weights are safe
 *   TO_FLOAT(v), MULF, MINF, MAXF   the second operand where one is NaN
 *   TO_INT(v), PACK32, PACK16, ADD16   saturating; MAX16, SET1_16(x)
 *   ROWS_TOGETHER(v)      brings 32-bit lane i of each 128 bits to part i of the vector
 *   STORE_ROW(p, v, i, n) the first n bytes of that part
 *   FLIP_LAST(to, from, i, n, sign)   XOR of the bytes i to n, reading nothing outside of 0 to n;
 *                         FLIP_LEAST: smallest n for which it can
 *   STOREF(p, v, n)       the first n floats
 *   WIDE                  1: DOT may saturate, unsafe weights go through 16 bits:
 *   AND, ADD32, MADD16, SLLI16, SRAI16, SRLI16
 *   IGEMM                 name of the function */
#include <string.h>

enum { NR = LANES, KR = 4 };
/* Weights are read once per tile in long streams: this many groups of k ahead they are on their way
 * from the second or third level. */
enum { PREFETCH = 16 };

/* The last n (1 to 3) bytes before `end`, then anything: zero weights meet it. Nothing outside the
 * row, which is longer than a group if is_long, is read. */
static inline __attribute__((always_inline)) int32_t row_end(const uint8_t *end, size_t n,
                                                             const bool is_long)
{
    uint32_t v = 0;
    if (is_long) {
        memcpy(&v, end - KR, sizeof v);
        return (int32_t)(v >> (8 * (KR - n)));
    }
    memcpy(&v, end - n, n);
    return (int32_t)v;
}

static inline __attribute__((always_inline)) int32_t row_bytes(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

typedef enum group_kind { WHOLE, LAST, LAST_SHORT } group_kind;

/* One group of k, whole or the last of a row of kc. All sizes but k and kc are constants after
 * inlining: the arrays become registers. */
static inline __attribute__((always_inline)) void
group(const size_t mr, const size_t np, const bool wide, const bool flipped, const group_kind kind,
      VEC acc[MR][NP], const uint8_t *const rows[MR], size_t k, size_t kc, const uint8_t *w,
      size_t panel_bytes)
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
        VEC a = SET1(kind == WHOLE ? row_bytes(rows[m] + k)
                                   : row_end(rows[m] + kc, kc - k, kind == LAST));
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
put_floats(const size_t mr, const size_t np, VEC acc[MR][NP], const uint8_t *scales,
           size_t panel_bytes, size_t columns, float *c, size_t c_stride, const qn_q8_out *out)
{
    const FVEC lo = SET1F(out->clamp.lo), hi = SET1F(out->clamp.hi);
#pragma GCC unroll 4
    for (size_t j = 0; j < np; j++) {
        const FVEC scale = LOADF((const float *)(const void *)(scales + j * panel_bytes));
        const size_t n = j + 1 == np ? columns - j * NR : NR;
#pragma GCC unroll 16
        for (size_t m = 0; m < mr; m++) {
            const FVEC v = MINF(hi, MAXF(lo, MULF(TO_FLOAT(acc[m][j]), scale)));
            STOREF(c + m * c_stride + j * NR, v, n);
        }
    }
}

/* The upper bound is taken as floats. What is below all integers, and a NaN, become the smallest
 * integer, which saturation leads to the lower bound. Packing saturates to signed bytes: unsigned
 * ones are 128 lower until the end. */
static inline __attribute__((always_inline)) void
put_bytes(const size_t mr, const size_t np, VEC acc[MR][NP], const uint8_t *scales,
          size_t panel_bytes, size_t columns, uint8_t *c, size_t c_stride, const qn_q8_out *out)
{
    const int32_t lower = out->lo < 0 ? 0 : 128;
    const FVEC hi = SET1F((float)(out->hi - out->zero));
    const VEC move = SET1_16((short)(out->zero - lower)), lo = SET1_16((short)(out->lo - lower));
    const VEC sign = SET1(lower == 0 ? 0 : (int32_t)0x80808080u);
#pragma GCC unroll 4
    for (size_t j = 0; j < np; j++) {
        const FVEC scale = LOADF((const float *)(const void *)(scales + j * panel_bytes));
        const size_t n = j + 1 == np ? columns - j * NR : NR;
#pragma GCC unroll 4
        for (size_t m0 = 0; m0 < mr; m0 += 4) {
            VEC q[4];
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                q[i] = m0 + i < mr ? TO_INT(MINF(hi, MULF(TO_FLOAT(acc[m0 + i][j]), scale))) : q[0];
            const VEC low = MAX16(lo, ADD16(move, PACK32(q[0], q[1])));
            const VEC high = MAX16(lo, ADD16(move, PACK32(q[2], q[3])));
            /* Every 128 bits hold four columns of four rows. */
            const VEC bytes = XOR(sign, ROWS_TOGETHER(PACK16(low, high)));
            uint8_t *const at = c + m0 * c_stride + j * NR;
            STORE_ROW(at, bytes, 0, n);
            if (m0 + 1 < mr)
                STORE_ROW(at + c_stride, bytes, 1, n);
            if (m0 + 2 < mr)
                STORE_ROW(at + 2 * c_stride, bytes, 2, n);
            if (m0 + 3 < mr)
                STORE_ROW(at + 3 * c_stride, bytes, 3, n);
        }
    }
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
            group(mr, np, wide, flipped, WHOLE, acc, rows, k, kc, w, panel_bytes);
        if (k < kc) {
            if (kc > KR)
                group(mr, np, wide, flipped, LAST, acc, rows, k, kc, w, panel_bytes);
            else
                group(mr, np, wide, flipped, LAST_SHORT, acc, rows, k, kc, w, panel_bytes);
            w += NR * KR;
        }
    }
    if (out->is_float)
        put_floats(mr, np, acc, scales, panel_bytes, columns, c, c_stride, out);
    else
        put_bytes(mr, np, acc, scales, panel_bytes, columns, c, c_stride, out);
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
#if MR == 8
#define ROWS(do)                                                                                   \
    do                                                                                             \
    (1) do(2) do(3) do(4) do(5) do(6) do(7) do(8)
#elif MR == 6
#define ROWS(do)                                                                                   \
    do                                                                                             \
    (1) do(2) do(3) do(4) do(5) do(6)
#else
#define ROWS(do)                                                                                   \
    do                                                                                             \
    (1) do(2) do(3) do(4)
#endif
ROWS(PANELS)
static const tile_fn tiles[MR][NP][WIDE ? 4 : 2] = {ROWS(ROW)};

/* Flipping in the inner loop costs as much as a third of the products: rows are copied once for all
 * panels as long as they fit on the stack. */
enum { FLIP_ROOM = 40960, FLIP_POINTERS = 1024 };

/* Stores are as wide as the room allows: loads of four bytes must not straddle two of them. */
static inline void flip_row(uint8_t *to, const uint8_t *from, size_t n)
{
    const VEC sign = SET1((int32_t)0x80808080u);
    size_t i = 0;
    for (; i + sizeof(VEC) <= n; i += sizeof(VEC))
        STORE_ALL(to + i, XOR(LOAD(from + i), sign));
    if (i < n)
        FLIP_LAST(to, from, i, n, sign);
}

static inline bool flip_rows(size_t mr, size_t kc, size_t ks, const uint8_t *const *a,
                             uint8_t room[FLIP_ROOM], const uint8_t *rows[FLIP_POINTERS])
{
    const size_t step = (kc + sizeof(VEC) - 1) / sizeof(VEC) * sizeof(VEC);
    if (kc < FLIP_LEAST || ks > FLIP_POINTERS / MR || kc > FLIP_ROOM || step * ks * mr > FLIP_ROOM)
        return false;
    for (size_t p = 0; p < ks; p++)
        for (size_t m = 0; m < mr; m++, room += step) {
            flip_row(room, a[p * MR + m], kc);
            rows[p * MR + m] = room;
        }
    return true;
}

void IGEMM(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a, uint8_t flip,
           bool safe, const void *w, void *c, size_t c_stride, const qn_q8_out *out)
{
    const size_t panel_bytes =
        NR * (sizeof(int32_t) + sizeof(float) + ks * ((kc + KR - 1) / KR * KR));
    const size_t elem = out->is_float ? sizeof(float) : 1;
    uint8_t room[FLIP_ROOM];
    const uint8_t *rows[FLIP_POINTERS];
    if (flip != 0 && flip_rows(mr, kc, ks, a, room, rows)) {
        a = rows;
        flip = 0;
    }
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
