/* Addition of bytes over an x86 vector type, in registers from end to end: what q8_binary_tmpl.h
 * says in plain C, where bytes and bounds are those of one type. The includer has the macros of
 * q8_igemm_tmpl.h, and
 *   WIDEN_U8(p), WIDEN_S8(p, turn)   LANES bytes as int32, signed ones after XOR with `turn`
 *   FMAF(a, b, c) */
/* What was made long ago, and is larger than the second-level cache, takes 6 to 25 % less so. */
enum { AHEAD = 1024 };

/* Four vectors of sums. */
static inline __attribute__((always_inline)) VEC
four_sums(const qn_q8_binary_args *args, const uint8_t *a, const uint8_t *b, const bool is_signed)
{
    const FVEC ra = SET1F(args->ra), rb = SET1F(args->rb), fixed = SET1F(args->fixed);
    /* Unsigned bytes that are summed as signed ones. */
    const __m128i turn = _mm_set1_epi8((char)(args->a_flip ^ 0x80));
    VEC q[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++, a += LANES, b += LANES) {
        const FVEC x = TO_FLOAT(is_signed ? WIDEN_S8(a, turn) : WIDEN_U8(a));
        const FVEC y = TO_FLOAT(is_signed ? WIDEN_S8(b, turn) : WIDEN_U8(b));
        q[i] = TO_INT(FMAF(x, ra, FMAF(y, rb, fixed)));
    }
    const VEC move = SET1_16((short)(args->lo < 0 ? 128 : 0));
    const VEC low = ADD16(move, PACK32(q[0], q[1])), high = ADD16(move, PACK32(q[2], q[3]));
    return ROWS_TOGETHER(PACK16(low, high));
}

static inline __attribute__((always_inline)) size_t add_whole(const qn_q8_binary_args *args,
                                                              const bool is_signed)
{
    const int higher = args->lo < 0 ? 128 : 0;
    const VEC lo = SET1_8((char)((int)args->lo + higher)),
              hi = SET1_8((char)((int)args->hi + higher));
    const VEC sign = SET1_8((char)(higher ^ args->zero));
    size_t i = 0;
    for (; i + sizeof(VEC) <= args->n; i += sizeof(VEC)) {
        __builtin_prefetch(args->a + i + AHEAD);
        __builtin_prefetch(args->b + i + AHEAD);
        const VEC bytes = four_sums(args, args->a + i, args->b + i, is_signed);
        STORE_ALL(args->out + i, XOR(sign, MIN8(hi, MAX8(lo, bytes))));
    }
    return i;
}

/* Operands of one type, sums of which int32 holds every one, and a type that has both bounds.
 * Unsigned bytes may be summed as signed ones, 128 less, with results 128 more. */
static bool adds_in_registers(const qn_q8_binary_args *args)
{
    const float most = 1024.0f, most_fixed = 1e9f;
    const bool is_signed = args->a_off == 128.0f;
    return args->a_flip == args->b_flip && args->a_off == args->b_off &&
           (is_signed || (args->a_off == 0.0f && args->a_flip == 0)) && args->ra <= most &&
           args->ra >= -most && args->rb <= most && args->rb >= -most &&
           args->fixed <= most_fixed && args->fixed >= -most_fixed &&
           (args->zero == 0 || (args->zero == 128 && args->lo < 0.0f)) &&
           (args->lo < 0.0f ? args->lo >= -128.0f && args->hi <= 127.0f : args->hi <= 255.0f) &&
           args->lo <= args->hi;
}

/* Returns how many bytes from the first on are done. */
static size_t add_bytes(const qn_q8_binary_args *args)
{
    if (!adds_in_registers(args))
        return 0;
    return args->a_off == 0.0f ? add_whole(args, false) : add_whole(args, true);
}
