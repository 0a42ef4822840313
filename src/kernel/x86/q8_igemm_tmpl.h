/* 8-bit indirect GEMM over an x86 vector type, included once per instruction set. A tile is mr rows
 * by np panels of LANES columns; a 32-bit lane takes four neighbouring k of one column at once,
 * and four bytes of a row are broadcast to all of them. The inner loops exist once per tile and
 * leave their sums in memory; everything else is code that all tiles share. The includer defines:
 *
 *   VEC, FVEC, LANES      vectors of int32 and of float, and their elements
 *   MR, NP                rows and panels of a full tile
 *   ROWS                  rows of a call: tiles below each other, for which the weights of a panel
 *                         are in the first level
 *   LOAD(p), LOADF(p), SET1(x), SET1F(x), SET1_16(x), SET1_8(x), XOR(a, b), ADD32(a, b)
 *   STORE_ALL(p, v), STOREF(p, v, n)   all of it; the first n floats
 *   DOT(acc, a, b)        acc + four products per lane, a unsigned; exact if the weights are safe
 *   TO_FLOAT(v), MULF, MINF, MAXF      the second operand where one is NaN
 *   TO_INT(v), PACK32, ADD16           saturating
 *   PACK16, MIN8, MAX8                 to and of unsigned bytes
 *   ROWS_TOGETHER(v)      brings 32-bit lane i of each 128 bits to part i of the vector
 *   STORE_ROW(p, v, i, n) the first n bytes of that part
 *   COPY_END(to, from, i, n, sign)     the bytes from i on of a row of n, XOR sign, up to the next
 *                         multiple of KR; reads nothing outside of 0 to n
 *   WIDE                  1: DOT may saturate, unsafe weights go through 16 bits: AND, MADD16,
 *                         SLLI16, SRAI16, SRLI16
 *   PAIRS                 1: safe weights are packed in pairs of groups (kernel.h), and
 *                         ADD_PAIR(acc, a0, b0, a1, b1) adds both products of a pair at once; safe
 *                         tiles are MR rows by one panel, others WIDE_MR rows by NP
 *   IGEMM                 name of the function */
#include <string.h>

enum { NR = LANES, KR = 4 };
/* Weights are read once per tile in long streams: this many groups of k ahead they are on their way
 * from the second or third level. */
enum { PREFETCH = 16 };
/* With fewer rows they are needed sooner. */
#define AHEAD(mr) ((mr) > 2 ? PREFETCH * NR * KR : 4 * PREFETCH * NR * KR)
enum { PUT_LEAST = MR - MR / 8 };

static inline __attribute__((always_inline)) int32_t row_bytes(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* One group of k. mr, np and wide are constants after inlining: the arrays become registers. */
static inline __attribute__((always_inline)) void group(const size_t mr, const size_t np,
                                                        const bool wide, VEC acc[MR][NP],
                                                        const uint8_t *const rows[MR], size_t k,
                                                        const uint8_t *w, size_t panel_bytes,
                                                        const uint8_t *ahead)
{
    VEC b[NP];
    _mm_prefetch((const char *)ahead, _MM_HINT_T1);
#if WIDE
    VEC odd[NP];
#endif
#pragma GCC unroll 4
    for (size_t j = 0; j < np; j++) {
        b[j] = LOAD(w + j * panel_bytes);
        _mm_prefetch((const char *)(w + j * panel_bytes + AHEAD(mr)), _MM_HINT_T0);
#if WIDE
        if (wide) {
            odd[j] = SRAI16(b[j], 8);
            b[j] = SRAI16(SLLI16(b[j], 8), 8);
        }
#endif
    }
#pragma GCC unroll 16
    for (size_t m = 0; m < mr; m++) {
        VEC a = SET1(row_bytes(rows[m] + k));
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

/* --- requantization --------------------------------------------------------------------------- */
/* Products that an int32 may not hold are bounded as floats first. What is below all integers, and
 * a NaN, become the smallest integer, which saturation leads to the lower bound. Packing saturates
 * to unsigned bytes, and so are the bounds: signed bytes are 128 higher until the end. */
typedef struct bounds {
    FVEC most;
    VEC move, lo, hi, sign;
    bool plain; /* those of unsigned bytes: packing is all */
} bounds;

static inline __attribute__((always_inline)) bounds bounds_of(const qn_q8_out *out)
{
    const int32_t higher = out->lo < 0 ? 128 : 0;
    return (bounds){SET1F((float)(out->hi - out->zero)),
                    SET1_16((short)(out->zero + higher)),
                    SET1_8((char)(out->lo + higher)),
                    SET1_8((char)(out->hi + higher)),
                    SET1_8((char)higher),
                    out->lo == 0 && out->hi == UINT8_MAX && out->zero == 0};
}

/* Up to four rows of a panel: every 128 bits of the result hold four columns of four rows. */
static inline __attribute__((always_inline)) VEC four_rows(const bool small, const VEC sums[4],
                                                           FVEC scale, const bounds *to)
{
    VEC q[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const FVEC v = MULF(TO_FLOAT(sums[i]), scale);
        q[i] = TO_INT(small ? v : MINF(to->most, v));
    }
    VEC low = PACK32(q[0], q[1]), high = PACK32(q[2], q[3]), bytes;
    if (to->plain) {
        bytes = PACK16(low, high);
    } else {
        bytes = PACK16(ADD16(to->move, low), ADD16(to->move, high));
        bytes = XOR(to->sign, MIN8(to->hi, MAX8(to->lo, bytes)));
    }
    return ROWS_TOGETHER(bytes);
}

/* Stores the first n columns of four rows or fewer. */
static inline __attribute__((always_inline)) void put_rows(const size_t rows, VEC bytes, size_t n,
                                                           uint8_t *at, size_t c_stride)
{
    STORE_ROW(at, bytes, 0, n);
    if (rows > 1)
        STORE_ROW(at + c_stride, bytes, 1, n);
    if (rows > 2)
        STORE_ROW(at + 2 * c_stride, bytes, 2, n);
    if (rows > 3)
        STORE_ROW(at + 3 * c_stride, bytes, 3, n);
}

/* What a tile begins with, the same for all rows: the bases of the panels, or zeros. */
typedef struct start {
    const uint8_t *at;
    size_t panel; /* bytes from one to the next */
} start;
static const VEC no_base;
static const start from_zero = {(const uint8_t *)&no_base, 0};

/* Where whole columns of bytes with small scales go: `times` tiles beside each other of `below`
 * tiles of rows each; times 0: nowhere, and one tile. */
typedef struct target {
    bounds limits;
    uint8_t *c;
    size_t c_stride, times, below;
} target;

/* Packed weights of the panels of a tile. */
typedef struct weights {
    const uint8_t *w;
    const uint16_t *order; /* of PAIRS */
    size_t panel_bytes;
    const uint8_t *ahead; /* what is prefetched meanwhile, if it has room for a tile's steps */
    size_t ahead_bytes;
} weights;

/* Half a line for each group of k: as fast as a third level delivers. */
enum { AHEAD_STEP = NR * KR / 2 };
static inline __attribute__((always_inline)) const uint8_t *ahead_of(const weights *packed,
                                                                     size_t times, size_t bytes)
{
    const size_t from = times * bytes;
    return from + bytes <= packed->ahead_bytes ? packed->ahead + from : packed->w;
}

/* Outputs of a tile of whole columns: mr rows, np panels, from `out` on. */
static inline __attribute__((always_inline)) void put_tile(const size_t mr, const size_t np,
                                                           VEC acc[MR][NP], const target *to,
                                                           const uint8_t *scales,
                                                           size_t panel_bytes, uint8_t *out)
{
    const bounds limits = to->limits;
    const size_t c_stride = to->c_stride;
#pragma GCC unroll 4
    for (size_t j = 0; j < np; j++) {
        const FVEC scale = LOADF((const float *)(const void *)(scales + j * panel_bytes));
        uint8_t *c = out + j * NR;
#pragma GCC unroll 4
        for (size_t m0 = 0; m0 < mr; m0 += 4, c += 4 * c_stride) {
            VEC four[4];
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                four[i] = acc[m0 + i < mr ? m0 + i : mr - 1][j];
            put_rows(mr - m0, four_rows(true, four, scale, &limits), NR, c, c_stride);
        }
    }
}

/* kc: whole groups. Returns whether the outputs were written, all of to->times * to->below, as only
 * tiles of many rows can, where the way through memory would show; otherwise the sums are, of
 * the one tile there is. */
static inline __attribute__((always_inline)) bool
tile(const size_t mr, const size_t np, const bool wide, VEC sums[MR][NP], const start *from,
     const target *to, size_t kc, size_t ks, const uint8_t *const *a, const weights *packed)
{
    size_t step = packed->panel_bytes;
    for (size_t times = 0, below = 0;;) {
        const size_t offset = times * np * packed->panel_bytes;
        const uint8_t *w = packed->w + offset, *const begin = from->at + offset;
        VEC acc[MR][NP];
#pragma GCC unroll 16
        for (size_t m = 0; m < mr; m++)
#pragma GCC unroll 4
            for (size_t j = 0; j < np; j++)
                acc[m][j] = LOAD(begin + j * from->panel);
        const uint8_t *const *tap = a + below * mr;
#if PAIRS
        const uint16_t *order = packed->order; /* of all panels: as they were packed */
#endif
        const uint8_t *ahead =
            ahead_of(packed, times * to->below + below, ks * (kc / KR) * AHEAD_STEP);
        for (size_t p = 0; p < ks; p++, tap += ROWS) {
            const uint8_t *rows[MR];
#pragma GCC unroll 16
            for (size_t m = 0; m < mr; m++)
                rows[m] = tap[m];
            for (size_t k = 0; k < kc; k += KR, w += NR * KR, ahead += AHEAD_STEP) {
                /* One pointer, not one for each panel and prefetch: registers are short. */
                __asm__("" : "+r"(w), "+r"(step), "+r"(ahead));
#if PAIRS
                order += k % QN_Q8_PAIRS_K == 0; /* the number of pairs: none */
                group(mr, np, wide, acc, rows, k / QN_Q8_PAIRS_K * QN_Q8_PAIRS_K + *order++, w,
                      step, ahead);
#else
                group(mr, np, wide, acc, rows, k, w, step, ahead);
#endif
            }
        }
        if (mr < PUT_LEAST || wide || to->times == 0) {
#pragma GCC unroll 16
            for (size_t m = 0; m < mr; m++)
#pragma GCC unroll 4
                for (size_t j = 0; j < np; j++)
                    sums[m][j] = acc[m][j];
            return false;
        }
        put_tile(mr, np, acc, to, packed->w + offset - NR * sizeof(float), packed->panel_bytes,
                 to->c + below * mr * to->c_stride + times * np * NR);
        if (++below < to->below)
            continue;
        below = 0;
        if (++times == to->times)
            return true;
    }
}

#if PAIRS
/* The same of a panel of safe weights: of each tap its pairs of groups, then the others. What a
 * tile of few k does once counts as much as its products. */
static inline __attribute__((always_inline)) bool
tile_in_pairs(const size_t mr, VEC sums[MR][NP], const start *from, const target *to, size_t kc,
              size_t ks, const uint8_t *const *a, const weights *packed)
{
    const uint8_t *const *const taps_end = a + (kc > 0 ? ks : 0) * ROWS;
    const size_t groups = kc / KR;
    for (size_t times = 0, offset = 0;; offset += packed->panel_bytes) {
        uint8_t *c = to->c + times * NR;
        for (size_t below = 0;;) {
            const uint8_t *w = packed->w + offset;
            const uint16_t *order = packed->order + offset / sizeof(uint16_t);
            VEC acc[MR][NP];
#pragma GCC unroll 16
            for (size_t m = 0; m < mr; m++)
                acc[m][0] = LOAD(from->at + offset);
            for (const uint8_t *const *tap = a + below * mr; tap < taps_end; tap += ROWS) {
                const uint8_t *rows[MR];
#pragma GCC unroll 16
                for (size_t m = 0; m < mr; m++)
                    rows[m] = tap[m];
                const uint16_t *const pairs_end = order + 1 + 2 * (size_t)order[0];
                const uint16_t *const end = ++order + groups;
                for (; order != pairs_end; order += 2, w += 2 * NR * KR) {
                    const size_t k0 = order[0], k1 = order[1];
                    const VEC b0 = LOAD(w), b1 = LOAD(w + NR * KR);
                    _mm_prefetch((const char *)(w + AHEAD(mr)), _MM_HINT_T0);
#pragma GCC unroll 16
                    for (size_t m = 0; m < mr; m++)
                        acc[m][0] = ADD_PAIR(acc[m][0], SET1(row_bytes(rows[m] + k0)), b0,
                                             SET1(row_bytes(rows[m] + k1)), b1);
                }
                for (; order != end; order++, w += NR * KR) {
                    const size_t k = order[0];
                    const VEC b = LOAD(w);
#pragma GCC unroll 16
                    for (size_t m = 0; m < mr; m++)
                        acc[m][0] = DOT(acc[m][0], SET1(row_bytes(rows[m] + k)), b);
                    __asm__("" : "+r"(w)); /* counted here, not from the order */
                }
            }
            if (mr < PUT_LEAST || to->times == 0) {
#pragma GCC unroll 16
                for (size_t m = 0; m < mr; m++)
                    sums[m][0] = acc[m][0];
                return false;
            }
            put_tile(mr, 1, acc, to, packed->w + offset - NR * sizeof(float), 0, c);
            if (++below == to->below)
                break;
            c += mr * to->c_stride;
        }
        if (++times == to->times)
            return true;
    }
}
#endif

typedef bool (*tile_fn)(VEC sums[MR][NP], const start *from, const target *to, size_t kc, size_t ks,
                        const uint8_t *const *a, const weights *packed);
/* way: 0, as DOT says; 1, through 16 bits. */
#if PAIRS
#define RUN_TILE(mr, np, wide, ...)                                                                \
    (wide ? tile(mr, np, wide, __VA_ARGS__) : tile_in_pairs(mr, __VA_ARGS__))
#else
#define RUN_TILE tile
#endif
#define TILE(mr, np, way)                                                                          \
    static bool tile_##mr##_##np##_##way(VEC sums[MR][NP], const start *from, const target *to,    \
                                         size_t kc, size_t ks, const uint8_t *const *a,            \
                                         const weights *packed)                                    \
    {                                                                                              \
        return RUN_TILE(mr, np, way != 0, sums, from, to, kc, ks, a, packed);                      \
    }
#define NAME(mr, np, way) tile_##mr##_##np##_##way
#define SIX(do, way)                                                                               \
    do                                                                                             \
    (1, way) do(2, way) do(3, way) do(4, way) do(5, way) do(6, way)
#define FEW_WIDE(do, way)                                                                          \
    do                                                                                             \
    (1, way) do(4, way)
#define FEW_WIDE_ROUNDED(do, way)                                                                  \
    do                                                                                             \
    (1, way) do(4, way) do(4, way) do(4, way)
/* Code is dear: other numbers of rows are rounded up, rows behind the last one are valid ones. */
#define SOME(do, way)                                                                              \
    do                                                                                             \
    (1, way) do(2, way) do(4, way) do(6, way) do(7, way) do(8, way)
#define SOME_ROUNDED(do, way)                                                                      \
    do                                                                                             \
    (1, way) do(2, way) do(4, way) do(4, way) do(6, way) do(6, way) do(7, way) do(8, way)
#define SOME_WIDE(do, way)                                                                         \
    do                                                                                             \
    (1, way) do(4, way) do(8, way)
#define SOME_WIDE_ROUNDED(do, way)                                                                 \
    do                                                                                             \
    (1, way) do(4, way) do(4, way) do(4, way) do(8, way) do(8, way) do(8, way) do(8, way)
#define TILES_1(mr, way) TILE(mr, 1, way)
#define TILES_2(mr, way) TILE(mr, 1, way) TILE(mr, 2, way)
#define TILES_3(mr, way) TILE(mr, 1, way) TILE(mr, 2, way) TILE(mr, 3, way)
#define NAMES_1(mr, way) {NAME(mr, 1, way)},
#define NAMES_2(mr, way) {NAME(mr, 1, way), NAME(mr, 2, way)},
#define NAMES_3(mr, way) {NAME(mr, 1, way), NAME(mr, 2, way), NAME(mr, 3, way)},
#if PAIRS
enum { WIDE_MR = 4, SAFE_NP = 1 };
SOME(TILES_1, 0)
FEW_WIDE(TILES_2, 1)
static const tile_fn tiles[MR][SAFE_NP] = {SOME_ROUNDED(NAMES_1, 0)};
static const tile_fn wide_tiles[WIDE_MR][NP] = {FEW_WIDE_ROUNDED(NAMES_2, 1)};
#elif WIDE
enum { WIDE_MR = 8, SAFE_NP = NP };
SOME(TILES_3, 0)
SOME_WIDE(TILES_3, 1)
static const tile_fn tiles[MR][NP] = {SOME_ROUNDED(NAMES_3, 0)};
static const tile_fn wide_tiles[MR][NP] = {SOME_WIDE_ROUNDED(NAMES_3, 1)};
#else
enum { SAFE_NP = NP };
SIX(TILES_2, 0)
static const tile_fn tiles[MR][NP] = {SIX(NAMES_2, 0)};
#endif

static __attribute__((noinline, cold)) void add_sums(size_t mr, size_t np, VEC sums[MR][NP],
                                                     VEC more[MR][NP])
{
    for (size_t m = 0; m < mr; m++)
        for (size_t j = 0; j < np; j++)
            sums[m][j] = ADD32(sums[m][j], more[m][j]);
}

#if PAIRS
/* Rows of more k than a table has: part by part, through memory. */
static __attribute__((noinline, cold)) void long_rows(size_t mr, VEC sums[MR][NP],
                                                      const start *from, size_t kc, size_t ks,
                                                      const uint8_t *const *a,
                                                      const weights *packed)
{
    const target none = {.times = 0};
    weights at = *packed;
    VEC more[MR][NP];
    for (size_t p = 0; p < ks; p++, a += ROWS) {
        for (size_t k = 0; k < kc; k += QN_Q8_PAIRS_K) {
            const size_t n = kc - k < QN_Q8_PAIRS_K ? kc - k : QN_Q8_PAIRS_K;
            const bool first = p + k == 0;
            const uint8_t *rows[MR];
            for (size_t m = 0; m < MR; m++)
                rows[m] = a[m] + k;
            tiles[mr - 1][0](first ? sums : more, first ? from : &from_zero, &none, n, 1, rows,
                             &at);
            if (!first)
                add_sums(mr, 1, sums, more);
            at.w += n * NR;
            at.order += 1 + n / KR;
        }
    }
}
#endif

static inline __attribute__((always_inline)) bool
run_tile(bool wide, size_t mr, size_t np, VEC sums[MR][NP], const start *from, const target *to,
         size_t kc, size_t ks, const uint8_t *const *a, const weights *packed)
{
#if WIDE
    if (wide) {
        for (size_t m = 0; m < mr; m += WIDE_MR) {
            const size_t rows = mr - m < WIDE_MR ? mr - m : WIDE_MR;
            wide_tiles[rows - 1][np - 1](sums + m, from, to, kc, ks, a + m, packed);
        }
        return false;
    }
#else
    (void)wide;
#endif
#if PAIRS
    if (kc > QN_Q8_PAIRS_K) {
        long_rows(mr, sums, from, kc, ks, a, packed);
        return false;
    }
#endif
    return tiles[mr - 1][np - 1](sums, from, to, kc, ks, a, packed);
}

static void put_floats(size_t mr, size_t np, VEC sums[MR][NP], const uint8_t *scales,
                       size_t panel_bytes, size_t columns, float *c, size_t c_stride,
                       const qn_q8_out *out)
{
    const FVEC lo = SET1F(out->clamp.lo), hi = SET1F(out->clamp.hi);
    for (size_t j = 0; j < np; j++) {
        const FVEC scale = LOADF((const float *)(const void *)(scales + j * panel_bytes));
        const size_t n = j + 1 == np ? columns - j * NR : NR;
        for (size_t m = 0; m < mr; m++) {
            float *const at = c + m * c_stride + j * NR;
            if (out->is_sums)
                STORE_ALL(at, sums[m][j]);
            else
                STOREF(at, MINF(hi, MAXF(lo, MULF(TO_FLOAT(sums[m][j]), scale))), n);
        }
    }
}

static void put_bytes(size_t mr, size_t np, VEC sums[MR][NP], const uint8_t *scales,
                      size_t panel_bytes, size_t columns, uint8_t *c, size_t c_stride,
                      const bounds *to)
{
    for (size_t j = 0; j < np; j++) {
        const FVEC scale = LOADF((const float *)(const void *)(scales + j * panel_bytes));
        const size_t n = j + 1 == np ? columns - j * NR : NR;
        uint8_t *at = c + j * NR;
        for (size_t m0 = 0; m0 < mr; m0 += 4, at += 4 * c_stride) {
            VEC four[4];
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                four[i] = sums[m0 + i < mr ? m0 + i : mr - 1][j];
            put_rows(mr - m0, four_rows(false, four, scale, to), n, at, c_stride);
        }
    }
}

/* --- copied rows ------------------------------------------------------------------------------ */
/* Rows that need flipping, or that end inside a group, are copied to the stack: all of them once
 * for all panels, or what has room for it part by part. */
enum { COPY_ROOM = 40960, COPY_POINTERS = 2048, COPY_MAX_K = 4096 };
_Static_assert(COPY_MAX_K *MR <= COPY_ROOM && COPY_MAX_K % QN_Q8_PAIRS_K == 0, "parts of rows");

typedef struct copied {
    uint8_t flip;
    uint8_t *room;
    const uint8_t **rows;
} copied;

static size_t row_step(size_t kc)
{
    return (kc + sizeof(VEC) - 1) / sizeof(VEC) * sizeof(VEC);
}

/* How many taps of kc <= COPY_MAX_K bytes have room. */
static size_t taps_with_room(size_t mr, size_t kc)
{
    const size_t n = COPY_ROOM / (row_step(kc) * mr);
    return n < COPY_POINTERS / ROWS ? n : COPY_POINTERS / ROWS;
}

/* Bytes k to k + kc of the rows of ks taps. Stores are as wide as the room allows: loads of four
 * bytes must not straddle two of them. */
static void copy_rows(const copied *to, size_t mr, size_t k, size_t kc, size_t ks,
                      const uint8_t *const *a)
{
    const VEC sign = SET1(to->flip != 0 ? (int32_t)0x80808080u : 0);
    const size_t step = row_step(kc);
    uint8_t *room = to->room;
    for (size_t p = 0; p < ks; p++) {
        for (size_t m = 0; m < mr; m++, room += step) {
            const uint8_t *const from = a[p * ROWS + m] + k;
            size_t i = 0;
            for (; i + sizeof(VEC) <= kc; i += sizeof(VEC))
                STORE_ALL(room + i, XOR(LOAD(from + i), sign));
            if (i < kc)
                COPY_END(room, from, i, kc, sign);
            to->rows[p * ROWS + m] = room;
        }
        for (size_t m = mr; m < ROWS; m++)
            to->rows[p * ROWS + m] = to->rows[p * ROWS + mr - 1];
    }
}

/* Numbers in the tables of a tap. */
static size_t order_of(size_t kc)
{
    return kc / KR + (kc + QN_Q8_PAIRS_K - 1) / QN_Q8_PAIRS_K;
}

static __attribute__((noinline, cold)) void tile_in_parts(bool wide, VEC sums[MR][NP], start from,
                                                          size_t mr, size_t np, size_t kc,
                                                          size_t ks, const uint8_t *const *a,
                                                          weights packed, const copied *copy)
{
    const target none = {.times = 0};
    VEC more[MR][NP];
    const size_t k_step = kc < COPY_MAX_K ? kc : COPY_MAX_K;
    const size_t p_step = k_step < kc ? 1 : taps_with_room(mr, kc);
    for (size_t p = 0; p < ks; p += p_step) {
        const size_t taps = ks - p < p_step ? ks - p : p_step;
        for (size_t k = 0; k < kc; k += k_step) {
            const size_t n = kc - k < k_step ? kc - k : k_step, n_up = (n + KR - 1) / KR * KR;
            copy_rows(copy, mr, k, n, taps, a + p * ROWS);
            const bool first = p + k == 0;
            run_tile(wide, mr, np, first ? sums : more, first ? &from : &from_zero, &none, n_up,
                     taps, copy->rows, &packed);
            if (!first)
                add_sums(mr, np, sums, more);
            packed.w += taps * n_up * NR;
            packed.order += taps * order_of(n_up);
        }
    }
}

/* How many tiles of np panels with whole columns can be done at once; none where even one has not.
 * One panel more than a tile takes is left to two pairs. */
static size_t tiles_at_once(size_t nc, size_t panels, size_t np)
{
    const size_t times = np == 1 ? nc / NR : nc / NR / np;
    return NP > 2 && np == NP && times > 1 && panels - times * np == 1 ? times - 1 : times;
}

/* A call but for its rows. */
typedef struct product {
    size_t nc, kc, ks, k_up, weight_bytes, panel_bytes, c_stride;
    uint8_t flip;
    bool wide, puts; /* puts: tiles may write outputs themselves */
    const uint8_t *packed;
    const qn_q8_out *out;
} product;

/* `below` tiles of mr rows each times all panels. */
static void run_rows(const product *p, size_t mr, size_t below, const uint8_t *const *a, void *c,
                     size_t *ahead)
{
    const qn_q8_out *const out = p->out;
    const size_t elem = out->is_float ? sizeof(float) : 1;
    const size_t most = p->wide ? NP : SAFE_NP;
    uint8_t room[COPY_ROOM];
    const uint8_t *rows[COPY_POINTERS];
    VEC sums[MR][NP];
    const copied copy = {p->flip, room, rows};
    bool in_parts = (p->flip != 0 || p->k_up != p->kc) && p->kc > 0 && p->ks > 0;
    if (in_parts && p->kc <= COPY_MAX_K && p->ks <= taps_with_room(mr * below, p->kc)) {
        copy_rows(&copy, mr * below, 0, p->kc, p->ks, a);
        a = rows;
        in_parts = false;
    }
    const bool puts = p->puts && !in_parts && mr >= PUT_LEAST;
    const uint8_t *packed = p->packed;
    target to = {bounds_of(out), NULL, p->c_stride, 0, 1};
    start from = {packed, p->panel_bytes};
    size_t nc = p->nc, panels = (nc + NR - 1) / NR;
    while (panels > 0) {
        /* One more panel than a full tile takes is two pairs rather than a slow single one. */
        const size_t np = most > 2 && panels == 4 ? 2 : panels < most ? panels : most;
        const size_t times = puts ? tiles_at_once(nc, panels, np) : 0;
        const size_t part = np * (times > 1 ? times : 1);
        const size_t columns = nc < part * NR ? nc : part * NR;
        const uint8_t *const scales = packed + NR * sizeof(int32_t);
        const uint8_t *const first = scales + NR * sizeof(float);
        const bool ahead_ends = *ahead >= out->ahead_bytes;
        const weights tiled = {.w = first,
                               .order = (const uint16_t *)(const void *)(first + p->weight_bytes),
                               .panel_bytes = p->panel_bytes,
                               .ahead = ahead_ends ? first : out->ahead + *ahead,
                               .ahead_bytes = ahead_ends ? 0 : out->ahead_bytes - *ahead};
        *ahead += part / np * (times > 0 ? below : 1) * p->ks * (p->k_up / KR) * AHEAD_STEP;
        from.at = packed;
        to.times = times;
        to.below = times > 0 ? below : 1;
        for (size_t i = 0; i < below; i += to.below) {
            uint8_t *const at = (uint8_t *)c + i * mr * p->c_stride * elem;
            bool done = false;
            to.c = at;
            if (in_parts)
                tile_in_parts(p->wide, sums, from, mr, np, p->kc, p->ks, a + i * mr, tiled, &copy);
            else
                done =
                    run_tile(p->wide, mr, np, sums, &from, &to, p->k_up, p->ks, a + i * mr, &tiled);
            if (done)
                ;
            else if (out->is_float)
                put_floats(mr, np, sums, scales, p->panel_bytes, columns, (float *)(void *)at,
                           p->c_stride, out);
            else
                put_bytes(mr, np, sums, scales, p->panel_bytes, columns, at, p->c_stride,
                          &to.limits);
        }
        packed += part * p->panel_bytes;
        c = (uint8_t *)c + columns * elem;
        nc -= columns;
        panels -= part;
    }
}

/* What the rows of tiles below each other and a panel may take of the first level. */
enum { NEAR_BYTES = 32 << 10 };

void IGEMM(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a, uint8_t flip,
           bool safe, const void *w, void *c, size_t c_stride, const qn_q8_out *out)
{
    const size_t k_up = (kc + KR - 1) / KR * KR, weight_bytes = ks * k_up * NR;
    size_t panel_bytes = NR * (sizeof(int32_t) + sizeof(float)) + weight_bytes;
    if (PAIRS)
        panel_bytes = (panel_bytes + ks * order_of(k_up) * sizeof(uint16_t) + 63) / 64 * 64;
    const bool wide = WIDE && !safe, long_k = PAIRS && k_up > QN_Q8_PAIRS_K;
    const product p = {
        nc,          kc,       ks,   k_up, weight_bytes,
        panel_bytes, c_stride, flip, wide, out->small_scales && !out->is_float && !wide && !long_k,
        w,           out};
    /* Divisions of 32 bits: others take longer than a small tile. */
    const uint32_t parts = (uint32_t)(mr + MR - 1) / MR, more = (uint32_t)mr % parts;
    const size_t tile_bytes = weight_bytes / NR * MR + 1;
    const size_t near = tile_bytes < NEAR_BYTES ? NEAR_BYTES / (uint32_t)tile_bytes : 1;
    const size_t most = near > 2 ? near - 1 : 1, least = (uint32_t)mr / parts;
    size_t ahead = 0;
    for (size_t tile = 0, count; tile < parts; tile += count) {
        const size_t rows = least + (tile < more);
        const size_t same = tile < more ? more - tile : parts - tile;
        count = same < most ? same : most;
        run_rows(&p, rows, count, a, c, &ahead);
        a += count * rows;
        c = (uint8_t *)c + count * rows * c_stride * (out->is_float ? sizeof(float) : 1);
    }
    /* Left out by the compiler behind indirect calls: see the float kernel. */
    _mm256_zeroupper();
}
