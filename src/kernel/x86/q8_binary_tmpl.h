/* Addition, multiplication and subtraction of bytes over an x86 vector type, in registers from end
 * to end: what kernel/q8_binary_tmpl.h says in plain C, where results are of a type that has both
 * bounds. The rest is the reference's. The includer has the macros of q8_igemm_tmpl.h, and
 *   ADD, MUL, SUB                            the functions
 *   WIDEN_U8(p)                              LANES bytes as int32
 *   WIDEN_U8_OF(p, turn), WIDEN_S8_OF(p, turn)   the same after XOR with `turn`, signed ones
 *   ADDF(a, b), SUBF(a, b), DIVF(a, b), FMAF(a, b, c) */
typedef enum register_way { UNSIGNED_SUMS, SIGNED_SUMS, PRODUCTS, DIFFERENCES } register_way;

/* What was made long ago, and is larger than the second-level cache, takes 6 to 25 % less so. */
enum { AHEAD = 1024 };

#define FOUR(expr)                                                                                 \
    _Pragma("GCC unroll 4") for (size_t k = 0; k < 4; k++, a += LANES, b += LANES)                 \
    {                                                                                              \
        q[k] = TO_INT(expr);                                                                       \
    }
#define VALUE(x) SUBF(TO_FLOAT(WIDEN_U8_OF(x, x##_turn)), x##_off)

/* One loop, which branches the same way each time, is a third of the code of four. */
static __attribute__((noinline, noclone)) void in_registers(const qn_q8_binary_args *args,
                                                            const register_way way)
{
    const FVEC ra = SET1F(args->ra), rb = SET1F(args->rb), fixed = SET1F(args->fixed);
    const FVEC a_off = SET1F(args->a_off), b_off = SET1F(args->b_off);
    /* Signed ones 128 higher; unsigned bytes may be summed as signed ones. */
    const int32_t higher = args->lo + (float)args->zero < 0.0f ? 128 : 0;
    const int32_t zero = args->zero + higher, turned = way == SIGNED_SUMS ? 0x80 : 0;
    const __m128i a_turn = _mm_set1_epi8((char)(args->a_flip ^ turned));
    const __m128i b_turn = _mm_set1_epi8((char)(args->b_flip ^ turned));
    const VEC move = SET1_16((short)zero), sign = SET1_8((char)higher);
    const VEC lo = SET1_8((char)((int32_t)args->lo + zero));
    const VEC hi = SET1_8((char)((int32_t)args->hi + zero));
    /* Packing does the bounds of unsigned bytes that are not moved: five of 36 instructions. */
    const bool plain = args->zero == 0 && args->lo == 0.0f && args->hi == 255.0f;
    const size_t n = args->n;
    uint8_t rest[3][sizeof(VEC)];
    for (size_t i = 0; i < n; i += sizeof(VEC)) {
        const bool whole = n - i >= sizeof(VEC);
        const uint8_t *a = args->a + i, *b = args->b + i;
        VEC q[4];
        if (!whole) {
            memset(rest, 0, sizeof(rest));
            a = memcpy(rest[0], a, n - i);
            b = memcpy(rest[1], b, n - i);
        }
        __builtin_prefetch(args->a + i + AHEAD);
        __builtin_prefetch(args->b + i + AHEAD);
        if (way == UNSIGNED_SUMS)
            FOUR(FMAF(TO_FLOAT(WIDEN_U8(a)), ra, FMAF(TO_FLOAT(WIDEN_U8(b)), rb, fixed)))
        else if (way == SIGNED_SUMS)
            FOUR(FMAF(TO_FLOAT(WIDEN_S8_OF(a, a_turn)), ra,
                      FMAF(TO_FLOAT(WIDEN_S8_OF(b, b_turn)), rb, fixed)))
        else if (way == PRODUCTS)
            FOUR(ADDF(MULF(MULF(VALUE(a), VALUE(b)), ra), fixed))
        else
            FOUR(DIVF(SUBF(MULF(VALUE(a), ra), MULF(VALUE(b), rb)), fixed))
        VEC low = PACK32(q[0], q[1]), high = PACK32(q[2], q[3]);
        if (!plain) {
            low = ADD16(move, low);
            high = ADD16(move, high);
        }
        VEC bytes = ROWS_TOGETHER(PACK16(low, high));
        if (!plain)
            bytes = XOR(sign, MIN8(hi, MAX8(lo, bytes)));
        STORE_ALL(whole ? args->out + i : rest[2], bytes);
        if (!whole)
            memcpy(args->out + i, rest[2], n - i);
    }
}

static bool at_most(float x, float most)
{
    return x >= -most && x <= most;
}

/* Bounds of one type, and operands from which results that int32 holds can be made. */
static bool fits(const qn_q8_binary_args *args)
{
    const float most = 512.0f, zero = (float)args->zero, lo = args->lo + zero, hi = args->hi + zero;
    return at_most(args->a_off, most) && at_most(args->b_off, most) && at_most(zero, 255.0f) &&
           lo <= hi && (lo < 0.0f ? lo >= -128.0f && hi <= 127.0f : hi <= 255.0f);
}

void ADD(const qn_q8_binary_args *args)
{
    const float most = 1024.0f;
    const bool same = args->a_flip == args->b_flip && args->a_off == args->b_off && fits(args) &&
                      at_most(args->ra, most) && at_most(args->rb, most) &&
                      at_most(args->fixed, 1e9f);
    if (same && args->a_off == 0.0f && args->a_flip == 0)
        in_registers(args, UNSIGNED_SUMS);
    else if (same && args->a_off == 128.0f)
        in_registers(args, SIGNED_SUMS);
    else
        qn__q8_add_scalar(args);
}

void MUL(const qn_q8_binary_args *args)
{
    if (fits(args) && at_most(args->ra, 1024.0f) && at_most(args->fixed, 1e9f))
        in_registers(args, PRODUCTS);
    else
        qn__q8_mul_scalar(args);
}

void SUB(const qn_q8_binary_args *args)
{
    const float most = 1e6f * args->fixed;
    if (fits(args) && most < INFINITY && at_most(args->ra, most) && at_most(args->rb, most))
        in_registers(args, DIFFERENCES);
    else
        qn__q8_sub_scalar(args);
}
