/* Requantization by integers over an x86 vector type, included once per instruction set.
 *
 * With p = x * multiplier and n = -exponent >= 1 one rounding is
 * floor((p + 2^(30 + n)) / 2^(31 + n)), and two are floor((p + 2^30 + 2^(30 + n) - s) / 2^(31 +
 * n)), s being 2^31 for negative x, which takes ties away from zero, else 0. No s is needed where
 * results below zero become the lower bound. Products are those of even and of odd columns, and
 * their quotients the upper halves of sums of 64 bits, shifted. Columns with other exponents or
 * negative multipliers, which sums of products hardly have, are left to the reference. The includer
 * defines, beside what q8_igemm_avx2.h or q8_avx512.h do: EVENS(a, b), ODDS(a, b)    64-bit lanes
 * of a and b, every second one LOWS(a, b), HIGHS(a, b)    halves of 64-bit lanes; in each 128 bits
 * two of a, then two of b MUL_EVEN(a, b)             products of lower halves ADD64, SLLV64(v, n),
 * SHR64(v, n), SET1_64(x), OR, ANDNOT(a, b) SUB32, SRAV(v, n) SIGNS(v)                   a bit for
 * each sign of a 32-bit lane SWAP_MIDDLE(v)             bytes 1 and 2 of every four FIXED name of
 * the function */
enum { ROWS = 4 };

/* Lower halves: multipliers of even and of odd columns. shift: in the order of HIGHS. */
typedef struct columns {
    VEC even, odd, round_even, round_odd, shift;
} columns;

static inline __attribute__((always_inline)) VEC times(const int32_t *sums, const columns *c,
                                                       const bool signs)
{
    const VEC x = LOAD(sums), x_odd = SHR64(x, 32);
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
    qn_multiplier some[LANES];
    if (n < LANES) {
        for (size_t i = 0; i < LANES; i++)
            some[i] = from[i < n ? i : 0];
        from = some;
    }
    const VEC a = LOAD(from), b = LOAD(from + LANES / 2), bits = SET1_64(30), one = SET1_64(1);
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
    const int32_t lower = args->lo < 0 ? 0 : 128;
    const VEC move = SET1_16((short)(args->zero - lower)), sign = SET1_8((char)lower);
    const VEC lo = SET1_8((char)(args->lo - lower)), hi = SET1_8((char)(args->hi - lower));
    const bool signs = !args->once && args->lo < args->zero;
    const VEC round = SET1_64(args->once ? 0 : signs ? -(1 << 30) : 1 << 30);
    for (size_t c0 = 0; c0 < args->n; c0 += LANES) {
        qn_q8_fixed_args part = *args;
        columns c;
        part.n = args->n - c0 < LANES ? args->n - c0 : LANES;
        part.sums += c0;
        part.fixed += c0;
        part.out += c0;
        if (!read_columns(part.fixed, part.n, round, &c)) {
            qn__q8_fixed_scalar(&part);
            continue;
        }
        while (part.rows > 0) {
            /* Rows behind the last one are the last one again. */
            size_t at[ROWS];
            VEC q[ROWS];
#pragma GCC unroll 4
            for (size_t i = 0; i < ROWS; i++)
                at[i] = i < part.rows ? i : part.rows - 1;
            if (signs)
#pragma GCC unroll 4
                for (size_t i = 0; i < ROWS; i++)
                    q[i] = times(part.sums + at[i] * part.sums_stride, &c, true);
            else
#pragma GCC unroll 4
                for (size_t i = 0; i < ROWS; i++)
                    q[i] = times(part.sums + at[i] * part.sums_stride, &c, false);
            const VEC low = ADD16(move, PACK32(q[0], q[1])), high = ADD16(move, PACK32(q[2], q[3]));
            const VEC bytes = XOR(sign, MIN8(hi, MAX8(lo, PACK16(low, high))));
            const VEC rows = ROWS_TOGETHER(SWAP_MIDDLE(bytes));
            STORE_ROW(part.out, rows, 0, part.n);
            STORE_ROW(part.out + at[1] * part.out_stride, rows, 1, part.n);
            STORE_ROW(part.out + at[2] * part.out_stride, rows, 2, part.n);
            STORE_ROW(part.out + at[3] * part.out_stride, rows, 3, part.n);
            if (part.rows <= ROWS)
                break;
            part.rows -= ROWS;
            part.sums += ROWS * part.sums_stride;
            part.out += ROWS * part.out_stride;
        }
    }
}
