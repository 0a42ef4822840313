/* 8-bit depthwise convolution over an x86 vector type, included once per instruction set. Bytes are
 * widened to 16 bits and two rows of a window are interleaved, so that one instruction multiplies
 * and adds two taps; a pair of vectors, "low" and "high", then holds the sums of BLOCK channels in
 * the order in which the packing instructions expect them: low has the first four of every eight.
 * The last block of channels overlaps the one before. The includer defines:
 *   VEC, FVEC, BLOCK        vectors; channels at once: twice the 32-bit lanes
 *   WIDEN_U(p, n), WIDEN_S(p, n)   16-bit values of min(n, BLOCK) bytes, the others anything
 *   ZERO(), SET1_16(x), SET1F(x)
 *   LOW16(a, b), HIGH16(a, b)      interleaved halves of every 128 bits
 *   LOW128(a, b), HIGH128(a, b)    from two vectors in order to low and high
 *   FIRST_BLOCK(low, high), SECOND_BLOCK(low, high)   and back
 *   LOAD(p), STORE_ALL_F(p, v), AS_FLOAT(v), AS_INT(v)
 *   DOT16(acc, a, b)               acc + two products per lane
 *   TO_FLOAT, MULF, FMADDF, MINF, MAXF (second operand where one is NaN), TO_INT, ADD32, SET1(x)
 *   PACK32(a, b), ADD16(a, b)      saturating; MAX16
 *   STORE_LOW_BYTES(p, words, n)   low bytes of the first min(n, BLOCK) words
 *   STORE_UNSIGNED(p, words)       BLOCK words, saturating
 *   FEW_CHANNELS(args) (optional)  takes less than BLOCK channels, and what comes here are other
 *                                  windows than 3x3: less code
 * and calls dwconv_small. */
#include <string.h>

/* Pairs of rows times columns whose interleaved weights are kept. */
enum { KEPT = 32 };

typedef struct pair {
    VEC low, high;
} pair;

/* What all outputs of a block of channels share. */
typedef struct block {
    pair bias, scale; /* scale: floats */
    pair lower;       /* what is added to lifted sums' products */
    VEC zero;         /* of outputs */
    size_t c;
    bool plain; /* whole blocks, whose bounds are those of unsigned bytes */
    bool lifted;
} block;
/* Where what is below zero becomes zero, short sums are LIFT higher: as floats those that were not
 * below zero are 2^23 higher then, others lower, and one multiply-add gives the product. */
enum { LIFT = 0x4b000000 };

static inline __attribute__((always_inline)) pair interleaved(VEC first, VEC second)
{
    return (pair){LOW16(first, second), HIGH16(first, second)};
}

/* Two rows of a column, or one and zeros (b NULL). */
static inline __attribute__((always_inline)) pair column(const uint8_t *a, const uint8_t *b,
                                                         size_t n)
{
    return interleaved(WIDEN_U(a, n), b != NULL ? WIDEN_U(b, n) : ZERO());
}

static inline __attribute__((always_inline)) pair add_products(pair acc, pair x, pair w)
{
    return (pair){DOT16(acc.low, x.low, w.low), DOT16(acc.high, x.high, w.high)};
}

static inline __attribute__((always_inline)) pair
weights_at(const qn_q8_dwconv_args *args, const block *b, size_t i, size_t j, size_t left)
{
    const int8_t *const w = args->w + (i * args->kw + j) * args->w_step + b->c;
    const VEC v = WIDEN_S(w, left);
    const VEC next = i + 1 < args->kh ? WIDEN_S(w + args->kw * args->w_step, left) : ZERO();
    return interleaved(v, next);
}

static pair load_pair(const void *p, size_t c, size_t left)
{
    int32_t all[BLOCK] = {0};
    const size_t n = left < BLOCK ? left : BLOCK;
    memcpy(all, (const int32_t *)p + c, n * sizeof *all);
    const VEC a = LOAD(all), b = LOAD(all + BLOCK / 2);
    return (pair){LOW128(a, b), HIGH128(a, b)};
}

/* scaled: products of sums and scales. */
static __attribute__((noinline)) void put_floats(const qn_q8_dwconv_args *args, size_t at,
                                                 const pair *scaled, size_t left)
{
    const FVEC lo = SET1F(args->format.clamp.lo), hi = SET1F(args->format.clamp.hi);
    float parts[2][BLOCK / 2];
    STORE_ALL_F(parts[0], MINF(hi, MAXF(lo, AS_FLOAT(scaled->low))));
    STORE_ALL_F(parts[1], MINF(hi, MAXF(lo, AS_FLOAT(scaled->high))));
    for (size_t i = 0; i < left && i < BLOCK; i++)
        ((float *)args->out)[at + i] = parts[i / 4 % 2][i / 8 * 4 + i % 4];
}

static __attribute__((noinline)) void put_sums(float *out, VEC low, VEC high)
{
    STORE_ALL_F(out, AS_FLOAT(FIRST_BLOCK(low, high)));
    STORE_ALL_F(out + BLOCK / 2, AS_FLOAT(SECOND_BLOCK(low, high)));
}

static inline __attribute__((always_inline)) void put(const qn_q8_dwconv_args *args, const block *b,
                                                      pair acc, size_t at, size_t left)
{
    const qn_q8_out *const out = &args->format;
    if (b->lifted) {
        const FVEC low = FMADDF(AS_FLOAT(acc.low), AS_FLOAT(b->scale.low), AS_FLOAT(b->lower.low));
        const FVEC high =
            FMADDF(AS_FLOAT(acc.high), AS_FLOAT(b->scale.high), AS_FLOAT(b->lower.high));
        STORE_UNSIGNED((uint8_t *)args->out + at, PACK32(TO_INT(low), TO_INT(high)));
        return;
    }
    const FVEC low = MULF(TO_FLOAT(acc.low), AS_FLOAT(b->scale.low));
    const FVEC high = MULF(TO_FLOAT(acc.high), AS_FLOAT(b->scale.high));
    if (out->is_float) {
        const pair scaled = {AS_INT(low), AS_INT(high)};
        if (out->is_sums)
            put_sums((float *)args->out + at, acc.low, acc.high);
        else
            put_floats(args, at, &scaled, left);
        return;
    }
    /* What is below all integers, and a NaN, become the smallest integer, and saturation leads them
     * to the lower bound; it is enough above, too, where products fit an integer. */
    const bool plain = b->plain;
    VEC words;
    if (plain) {
        words = PACK32(TO_INT(low), TO_INT(high));
    } else {
        const FVEC hi = SET1F((float)(out->hi - out->zero));
        words = PACK32(TO_INT(MINF(hi, low)), TO_INT(MINF(hi, high)));
    }
    words = ADD16(words, b->zero);
    if (!plain)
        words = MAX16(words, SET1_16((short)out->lo));
    if (plain)
        STORE_UNSIGNED((uint8_t *)args->out + at, words);
    else
        STORE_LOW_BYTES((uint8_t *)args->out + at, words, left);
}

#ifndef FEW_CHANNELS
/* Weights of 3x3: two rows of a column in a lane, then of the third row two columns, and one. */
typedef struct weights_3x3 {
    pair column[3], third[2];
} weights_3x3;

/* One row of windows of 3x3, `step` columns apart: each column is widened once for all its
 * outputs. */
static inline __attribute__((always_inline)) void run_3x3(const qn_q8_dwconv_args *args,
                                                          const block *b, const weights_3x3 *w,
                                                          const size_t step, size_t y)
{
    const uint8_t *r0 = args->in[3 * y] + b->c, *r1 = args->in[3 * y + 1] + b->c;
    const uint8_t *r2 = args->in[3 * y + 2] + b->c;
    const size_t col = args->in_col[1], next_out = args->out_step;
    size_t at = y * args->out_row + b->c;
    const VEC outside = SET1_16(args->edge);
    const pair edge = {outside, outside};
    /* From this output on the column behind its window is none, or outside. */
    const size_t ends = args->right ? args->n - 1 : args->n;
    pair x = edge, z, now, next = b->bias;
    VEC ahead = outside;
/* x: a column of two rows; z: the third row there and in the column behind, which is outside or
 * not wanted where `out`. */
#define COLUMN() (x = interleaved(WIDEN_U(r0, BLOCK), WIDEN_U(r1, BLOCK)), r0 += col, r1 += col)
#define AHEAD(out)                                                                                 \
    do {                                                                                           \
        ahead = outside;                                                                           \
        if (!(out)) {                                                                              \
            ahead = WIDEN_U(r2, BLOCK);                                                            \
            r2 += col;                                                                             \
        }                                                                                          \
    } while (0)
#define THIRD(out)                                                                                 \
    do {                                                                                           \
        const VEC here = ahead;                                                                    \
        AHEAD(out);                                                                                \
        z = interleaved(here, ahead);                                                              \
    } while (0)
#define BEGIN() add_products(add_products(b->bias, x, w->column[0]), z, w->third[0])
#define END(acc) add_products(add_products(acc, x, w->column[2]), z, w->third[1])
    if (!args->left) {
        AHEAD(false);
        COLUMN();
    }
    THIRD(false);
    now = BEGIN();
    COLUMN();
    now = add_products(now, x, w->column[1]);
    if (step == 1) {
        THIRD(ends == 0);
        next = BEGIN();
    } else {
        AHEAD(ends == 0);
    }
    for (size_t i = 1;; i++, at += next_out) {
        if (i > ends)
            x = edge;
        else
            COLUMN();
        THIRD(step == 1 ? i >= ends : i == args->n);
        put(args, b, END(now), at, BLOCK);
        if (i == args->n)
            break;
        if (step == 1) {
            now = add_products(next, x, w->column[1]);
            next = BEGIN();
        } else {
            now = BEGIN();
            COLUMN();
            now = add_products(now, x, w->column[1]);
            AHEAD(i >= ends);
        }
    }
#undef COLUMN
#undef AHEAD
#undef THIRD
#undef BEGIN
#undef END
}
#endif

static inline __attribute__((always_inline)) void run_window(const qn_q8_dwconv_args *args,
                                                             const block *b, size_t left)
{
    const size_t kh = args->kh, kw = args->kw;
    pair kept[KEPT];
    const bool keep = (kh + 1) / 2 * kw <= KEPT;
    for (size_t i = 0, at = 0; keep && i < kh; i += 2)
        for (size_t j = 0; j < kw; j++)
            kept[at++] = weights_at(args, b, i, j, left);
    for (size_t y = 0; y < args->rows; y++) {
        for (size_t x = 0; x < args->n; x++) {
            pair acc = b->bias;
            for (size_t i = 0, at = 0; i < kh; i += 2) {
                const uint8_t *const *const rows = args->in + y * kh + i;
                const size_t from = x * args->in_step + b->c;
                const uint8_t *const r0 = rows[0] + from;
                const uint8_t *const r1 = i + 1 < kh ? rows[1] + from : NULL;
                for (size_t j = 0; j < kw; j++, at++) {
                    const size_t col = args->in_col[j];
                    acc = add_products(acc, column(r0 + col, r1 != NULL ? r1 + col : NULL, left),
                                       keep ? kept[at] : weights_at(args, b, i, j, left));
                }
            }
            put(args, b, acc, y * args->out_row + x * args->out_step + b->c, left);
        }
    }
}

/* All outputs of the channels from c on, `left` of them. */
static inline __attribute__((always_inline)) block block_at(const qn_q8_dwconv_args *args, size_t c,
                                                            size_t left, const bool may_lift)
{
    const qn_q8_out *const out = &args->format;
    const bool plain = out->small_scales && out->lo == 0 && out->hi == UINT8_MAX && left == BLOCK;
    const bool lifted = may_lift && plain && out->short_sums && out->zero == 0 && !out->is_float;
    block b = {load_pair(args->bias, c, left),
               load_pair(args->scale, c, left),
               {ZERO(), ZERO()},
               SET1_16((short)out->zero),
               c,
               plain,
               lifted};
    if (lifted) {
        b.bias.low = ADD32(b.bias.low, SET1(LIFT));
        b.bias.high = ADD32(b.bias.high, SET1(LIFT));
        b.lower.low = AS_INT(MULF(AS_FLOAT(b.scale.low), SET1F(-0x1p23f)));
        b.lower.high = AS_INT(MULF(AS_FLOAT(b.scale.high), SET1F(-0x1p23f)));
    }
    return b;
}

static void block_window(const qn_q8_dwconv_args *args, size_t c)
{
    const block b = block_at(args, c, BLOCK, false);
    run_window(args, &b, BLOCK);
}

#ifndef FEW_CHANNELS
static void block_3x3(const qn_q8_dwconv_args *args, size_t c)
{
    const block b = block_at(args, c, BLOCK, true);
    const int8_t *const third = args->w + 6 * args->w_step + c;
    weights_3x3 w;
#pragma GCC unroll 3
    for (size_t j = 0; j < 3; j++)
        w.column[j] = weights_at(args, &b, 0, j, BLOCK);
    const VEC w20 = WIDEN_S(third, BLOCK), w21 = WIDEN_S(third + args->w_step, BLOCK);
    const VEC w22 = WIDEN_S(third + 2 * args->w_step, BLOCK);
    w.third[0] = interleaved(w20, w21);
    w.third[1] = interleaved(w22, ZERO());
    for (size_t y = 0; y < args->rows; y++) {
        if (args->in_step == args->in_col[1])
            run_3x3(args, &b, &w, 1, y);
        else
            run_3x3(args, &b, &w, 2, y);
    }
}

#endif

/* Neighbouring windows of 3x3 share columns. */
static bool shares_columns(const qn_q8_dwconv_args *args)
{
    return args->kh == 3 && args->kw == 3 && args->in_col[2] == 2 * args->in_col[1] &&
           (args->in_step == args->in_col[1] || args->in_step == args->in_col[2]);
}

#ifndef FEW_CHANNELS
/* Less than a block, which callers avoid by taking several pixels for one. */
static __attribute__((noinline, cold)) void few_channels(const qn_q8_dwconv_args *args)
{
    const block b = block_at(args, 0, args->channels, false);
    run_window(args, &b, args->channels);
}
#endif

static void dwconv_small(const qn_q8_dwconv_args *args)
{
    const size_t channels = args->channels;
    if (args->n == 0)
        return;
    if (channels < BLOCK) {
#ifdef FEW_CHANNELS
        FEW_CHANNELS(args);
#else
        few_channels(args);
#endif
        return;
    }
    void (*run)(const qn_q8_dwconv_args *, size_t) = block_window;
#ifndef FEW_CHANNELS
    if (shares_columns(args))
        run = block_3x3;
#endif
    for (size_t c = 0; c < channels; c += BLOCK)
        run(args, channels - c < BLOCK ? channels - BLOCK : c);
}
