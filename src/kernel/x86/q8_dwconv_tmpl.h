/* 8-bit depthwise convolution over an x86 vector type, included once per instruction set. Bytes are
 * widened to 16 bits and two rows of a window are interleaved, so that one instruction multiplies
 * and adds two taps; a pair of vectors, "low" and "high", then holds the sums of BLOCK channels in
 * the order in which the packing instructions expect them: low has the first four of every eight.
 * The zero point goes into the bias; signed inputs are moved up by 128. The
 * last block of channels overlaps the one before. The includer defines:
 *   VEC, FVEC, BLOCK        vectors; channels at once: twice the 32-bit lanes
 *   WIDEN_U(p, n, flip), WIDEN_S(p, n)   16-bit values of min(n, BLOCK) bytes, the others anything
 *   ZERO(), SET1(x), SET1_16(x), SET1F(x)
 *   LOW16(a, b), HIGH16(a, b)      interleaved halves of every 128 bits
 *   LOW128(a, b), HIGH128(a, b)    from two vectors in order to low and high
 *   LOAD(p), STORE_ALL_F(p, v), AS_FLOAT(v), AS_INT(v)
 *   FLIP, FLIP_OF(byte)            what WIDEN_U takes: XOR of every byte
 *   DOT16(acc, a, b)               acc + two products per lane
 *   SUB32, MUL32, TO_FLOAT, MULF, MINF, MAXF (second operand where one is NaN), TO_INT
 *   PACK32(a, b), ADD16(a, b)      saturating; MAX16
 *   STORE_LOW_BYTES(p, words, n)   low bytes of the first min(n, BLOCK) words
 *   FEW_CHANNELS (optional)        only few channels come here: less code
 * and calls dwconv_from. */
#include <string.h>

/* Pairs of rows times columns whose interleaved weights are kept. */
enum { KEPT = 32 };

typedef struct pair {
    VEC low, high;
} pair;

/* What all outputs of a block of channels share. */
typedef struct block {
    pair bias, scale; /* scale: floats */
    const uint8_t *in;
    const int8_t *w;
    size_t c;
} block;

/* Two rows of a column, or one and zeros. */
static inline __attribute__((always_inline)) pair column(const void *p, size_t row, const bool two,
                                                         FLIP flip, size_t n)
{
    const VEC a = WIDEN_U(p, n, flip);
    const VEC b = two ? WIDEN_U((const uint8_t *)p + row, n, flip) : ZERO();
    return (pair){LOW16(a, b), HIGH16(a, b)};
}

static inline __attribute__((always_inline)) pair add_products(pair acc, pair x, pair w)
{
    return (pair){DOT16(acc.low, x.low, w.low), DOT16(acc.high, x.high, w.high)};
}

static inline __attribute__((always_inline)) pair
weights_at(const qn_q8_dwconv_args *args, const block *b, size_t i, size_t j, size_t left)
{
    const int8_t *const w = b->w + i * args->w_row + j * args->channels;
    const VEC v = WIDEN_S(w, left);
    const VEC next = i + 1 < args->kh ? WIDEN_S(w + args->w_row, left) : ZERO();
    return (pair){LOW16(v, next), HIGH16(v, next)};
}

static pair load_pair(const void *p, size_t c, size_t left)
{
    int32_t all[BLOCK] = {0};
    const size_t n = left < BLOCK ? left : BLOCK;
    memcpy(all, (const int32_t *)p + c, n * sizeof *all);
    const VEC a = LOAD(all), b = LOAD(all + BLOCK / 2);
    return (pair){LOW128(a, b), HIGH128(a, b)};
}

/* bias - in_zero * (sum of the weights) */
static inline __attribute__((always_inline)) pair block_bias(const qn_q8_dwconv_args *args,
                                                             const block *b, size_t left)
{
    const VEC one = SET1_16(1), zero = SET1(args->in_zero + (args->in_signed ? 128 : 0));
    const pair ones = {one, one}, bias = load_pair(args->bias, b->c, left);
    pair sum = {ZERO(), ZERO()};
    for (size_t i = 0; i < args->kh; i += 2)
        for (size_t j = 0; j < args->kw; j++)
            sum = add_products(sum, weights_at(args, b, i, j, left), ones);
    return (pair){SUB32(bias.low, MUL32(sum.low, zero)), SUB32(bias.high, MUL32(sum.high, zero))};
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

static inline __attribute__((always_inline)) void put(const qn_q8_dwconv_args *args, const block *b,
                                                      pair acc, size_t x, size_t left)
{
    const qn_q8_out *const out = &args->format;
    const size_t at = x * args->out_step + b->c;
    const FVEC low = MULF(TO_FLOAT(acc.low), AS_FLOAT(b->scale.low));
    const FVEC high = MULF(TO_FLOAT(acc.high), AS_FLOAT(b->scale.high));
    if (out->is_float) {
        const pair scaled = {AS_INT(low), AS_INT(high)};
        put_floats(args, at, &scaled, left);
        return;
    }
    /* The upper bound as floats; what is below all integers, and a NaN, become the smallest
     * integer, and saturation leads them to the lower bound. */
    const FVEC hi = SET1F((float)(out->hi - out->zero));
    const VEC words = PACK32(TO_INT(MINF(hi, low)), TO_INT(MINF(hi, high)));
    const VEC moved = ADD16(words, SET1_16((short)out->zero));
    STORE_LOW_BYTES((uint8_t *)args->out + at, MAX16(moved, SET1_16((short)out->lo)), left);
}

/* The pairs of a column: two rows, and with kh 3 the third alone. */
static inline __attribute__((always_inline)) pair add_rows(const size_t kh, pair acc, pair x01,
                                                           pair x2, const pair w[2])
{
    acc = add_products(acc, x01, w[0]);
    return kh == 3 ? add_products(acc, x2, w[1]) : acc;
}

/* Windows of kh (2 or 3) x 3, `step` columns apart: each column is widened once for all its
 * outputs. */
static inline __attribute__((always_inline)) void run_kx3(const qn_q8_dwconv_args *args,
                                                          const block *b, const size_t kh,
                                                          const size_t step, FLIP flip, size_t left)
{
    const size_t row = args->in_row, col = args->in_col;
    const uint8_t *in = b->in;
    pair w[3][2];
#pragma GCC unroll 3
    for (size_t j = 0; j < 3; j++) {
        w[j][0] = weights_at(args, b, 0, j, left);
        w[j][1] = (pair){ZERO(), ZERO()};
        if (kh == 3)
            w[j][1] = weights_at(args, b, 2, j, left);
    }
#define COLUMN()                                                                                   \
    x01 = column(in, row, true, flip, left);                                                       \
    if (kh == 3)                                                                                   \
        x2 = column(in + 2 * row, row, false, flip, left);                                         \
    in += col;
#define ADD(acc, j) add_rows(kh, acc, x01, x2, w[j])
    pair x01, x2 = {ZERO(), ZERO()}, now, next;
    COLUMN()
    now = ADD(b->bias, 0);
    if (step == 1) {
        COLUMN()
        now = ADD(now, 1);
        next = ADD(b->bias, 0);
        for (size_t x = 0; x + 1 < args->n; x++) {
            COLUMN()
            now = ADD(now, 2);
            put(args, b, now, x, left);
            now = ADD(next, 1);
            next = ADD(b->bias, 0);
        }
        COLUMN()
    } else {
        for (size_t x = 0; x + 1 < args->n; x++) {
            COLUMN()
            now = ADD(now, 1);
            COLUMN()
            now = ADD(now, 2);
            put(args, b, now, x, left);
            now = ADD(b->bias, 0);
        }
        COLUMN()
        now = ADD(now, 1);
        COLUMN()
    }
    put(args, b, ADD(now, 2), args->n - 1, left);
#undef COLUMN
#undef ADD
}

static inline __attribute__((always_inline)) void run_window(const qn_q8_dwconv_args *args,
                                                             const block *b, FLIP flip, size_t left)
{
    const size_t kh = args->kh, kw = args->kw;
    pair kept[KEPT];
    const bool keep = (kh + 1) / 2 * kw <= KEPT;
    for (size_t i = 0, at = 0; keep && i < kh; i += 2)
        for (size_t j = 0; j < kw; j++)
            kept[at++] = weights_at(args, b, i, j, left);
    for (size_t x = 0; x < args->n; x++) {
        pair acc = b->bias;
        for (size_t i = 0, at = 0; i < kh; i += 2) {
            const uint8_t *in = b->in + x * args->in_step + i * args->in_row;
            for (size_t j = 0; j < kw; j++, at++, in += args->in_col)
                acc = add_products(acc, column(in, args->in_row, i + 1 < kh, flip, left),
                                   keep ? kept[at] : weights_at(args, b, i, j, left));
        }
        put(args, b, acc, x, left);
    }
}

/* All outputs of the channels from c on, `left` of them. */
static inline __attribute__((always_inline)) block block_at(const qn_q8_dwconv_args *args, size_t c,
                                                            size_t left)
{
    block b = {.in = args->in + c, .w = args->w + c, .c = c};
    b.scale = load_pair(args->scale, c, left);
    b.bias = block_bias(args, &b, left);
    return b;
}

/* Unsigned bytes under whole windows have loops of their own; edges and signed bytes share. */
#ifndef FEW_CHANNELS
static void block_plain(const qn_q8_dwconv_args *args, size_t c)
{
    const block b = block_at(args, c, BLOCK);
    if (args->in_step == args->in_col)
        run_kx3(args, &b, 3, 1, FLIP_OF(0), BLOCK);
    else
        run_kx3(args, &b, 3, 2, FLIP_OF(0), BLOCK);
}
#endif

static void block_shared(const qn_q8_dwconv_args *args, size_t c)
{
    const FLIP flip = FLIP_OF(args->in_signed ? 0x80 : 0);
    const block b = block_at(args, c, BLOCK);
    if (args->in_step == args->in_col)
        run_kx3(args, &b, args->kh, 1, flip, BLOCK);
    else
        run_kx3(args, &b, args->kh, 2, flip, BLOCK);
}

static void block_window(const qn_q8_dwconv_args *args, size_t c)
{
    const block b = block_at(args, c, BLOCK);
    run_window(args, &b, FLIP_OF(args->in_signed ? 0x80 : 0), BLOCK);
}

/* Outputs of the channels from c on. */
static void dwconv_from(const qn_q8_dwconv_args *args, size_t c)
{
    const size_t channels = args->channels, kh = args->kh;
    if (args->n == 0)
        return;
    if (channels < BLOCK && c == 0) {
        const block b = block_at(args, 0, channels);
        run_window(args, &b, FLIP_OF(args->in_signed ? 0x80 : 0), channels);
        return;
    }
    const bool shares = args->kw == 3 && (kh == 2 || kh == 3) &&
                        (args->in_step == args->in_col || args->in_step == 2 * args->in_col);
    void (*run)(const qn_q8_dwconv_args *, size_t) = shares ? block_shared : block_window;
#ifndef FEW_CHANNELS
    if (shares && kh == 3 && !args->in_signed)
        run = block_plain;
#endif
    for (; c < channels; c += BLOCK)
        run(args, channels - c < BLOCK ? channels - BLOCK : c);
}
