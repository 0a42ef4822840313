/* Requantization by integers over an x86 vector type, included once per instruction set.
 *
 * With p = x * multiplier and n = -exponent >= 1 one rounding is
 * floor((p + 2^(30 + n)) / 2^(31 + n)), and two are floor((p + 2^30 + 2^(30 + n) - s) / 2^(31 +
 * n)), s being 2^31 for negative x, which takes ties away from zero, else 0. No s is needed where
 * results below zero become the lower bound. Products are those of even and of odd columns, and
 * their quotients the upper halves of sums of 64 bits, shifted. Columns with other exponents or
 * negative multipliers, which sums of products hardly have, are left to the reference.
 *
 * The includer defines, beside what q8_igemm_avx2.h or q8_avx512.h do:
 *
 *   FIRST_PAIRS(p, n), LAST_PAIRS(p, n)    multipliers of n columns, both halves
 *   EVENS(a, b), ODDS(a, b)    64-bit lanes of a and b, every second one
 *   LOWS(a, b), HIGHS(a, b)    halves of 64-bit lanes; in each 128 bits two of a, then two of b
 *   MUL_EVEN(a, b)             products of lower halves
 *   ADD64, SLLV64(v, n), SHR64(v, n), SET1_64(x), OR, ANDNOT(a, b), SUB32, SRAV(v, n)
 *   SIGNS(v)                   a bit for each sign of a 32-bit lane
 *   SWAP_MIDDLE(v)             bytes 1 and 2 of every four
 *   PUT(p, v, i, n)            stores row i, of n bytes
 *   FIXED                      name of the function */
enum { ROWS = 4 };

/* Lower halves: multipliers of even and of odd columns. shift: in the order of HIGHS. */
typedef struct columns {
    VEC even, odd, round_even, round_odd, shift;
} columns;

static inline __attribute__((always_inline)) VEC times(const int32_t *sums, const columns *c,
                                                       bool signs)
{
    const VEC x = LOAD(sums), x_odd = LOAD(sums + 1);
    VEC even = ADD64(MUL_EVEN(x, c->even), c->round_even);
    VEC odd = ADD64(MUL_EVEN(x_odd, c->odd), c->round_odd);
    if (signs) {
        const VEC half = SET1_64(INT64_C(1) << 31);
        even = ADD64(even, ANDNOT(x, half));
        odd = ADD64(odd, ANDNOT(x_odd, half));
    }
    return SRAV(HIGHS(even, odd), c->shift);
}

/* Up to LANES columns from c0 on. False: the reference has to do them. */
static inline __attribute__((always_inline)) bool read_columns(const qn_multiplier *from, size_t n,
                                                               const VEC round, columns *c)
{
    const VEC a = FIRST_PAIRS(from, n), b = LAST_PAIRS(from, n);
    const VEC bits = SET1_64(30), one = SET1_64(1);
    c->even = EVENS(a, b);
    c->odd = ODDS(a, b);
    const VEC n_even = SUB32(bits, SHR64(c->even, 32)), n_odd = SUB32(bits, SHR64(c->odd, 32));
    c->round_even = ADD64(SLLV64(one, n_even), round);
    c->round_odd = ADD64(SLLV64(one, n_odd), round);
    c->shift = SUB32(LOWS(n_even, n_odd), SET1(31));
    return SIGNS(OR(c->shift, LOWS(c->even, c->odd))) == 0;
}

void FIXED(const qn_q8_fixed_args *args)
{
    /* Packing saturates to unsigned bytes: signed ones are 128 higher until the end. */
    const int32_t higher = args->lo < 0 ? 128 : 0;
    const VEC move = SET1_16((short)(args->zero + higher)), sign = SET1_8((char)higher);
    const VEC lo = SET1_8((char)(args->lo + higher)), hi = SET1_8((char)(args->hi + higher));
    const bool signs = !args->once && args->lo < args->zero;
    /* All unsigned bytes, from zero up. */
    const bool plain = args->zero == 0 && args->lo == 0 && args->hi == 255;
    const VEC round = SET1_64(args->once ? 0 : signs ? -(1 << 30) : 1 << 30);
    for (size_t c0 = 0; c0 < args->n; c0 += LANES) {
        const size_t n = args->n - c0 < LANES ? args->n - c0 : LANES;
        const int32_t *sums = args->sums + c0;
        uint8_t *out = args->out + c0;
        columns c;
        if (n < LEAST || !read_columns(args->fixed + c0, n, round, &c)) {
            qn__q8_fixed_skip(args, c0, LANES, FIXED);
            return;
        }
        size_t from = args->sums_stride, to = args->out_stride, third = 2 * from, next = 2 * to;
        size_t fourth = 3 * from, last = 3 * to;
        for (size_t left = args->rows; left > 0; left -= ROWS) {
            if (left < ROWS) { /* rows behind the last one are the last one again */
                from = left > 1 ? from : 0;
                to = left > 1 ? to : 0;
                fourth = third = left > 2 ? third : from;
                last = next = left > 2 ? next : to;
            }
            VEC bytes;
            const VEC low = PACK32(times(sums, &c, signs), times(sums + from, &c, signs));
            const VEC high =
                PACK32(times(sums + third, &c, signs), times(sums + fourth, &c, signs));
            if (plain)
                bytes = PACK16(low, high);
            else
                bytes = XOR(sign, MIN8(hi, MAX8(lo, PACK16(ADD16(move, low), ADD16(move, high)))));
            const VEC rows = ROWS_TOGETHER(SWAP_MIDDLE(bytes));
            PUT(out, rows, 0, n);
            PUT(out + to, rows, 1, n);
            PUT(out + next, rows, 2, n);
            PUT(out + last, rows, 3, n);
            if (left <= ROWS)
                break;
            sums += ROWS * args->sums_stride;
            out += ROWS * args->out_stride;
        }
    }
}
