/* Addition, multiplication and subtraction of bytes, in loops of fixed length that compilers
 * vectorize for the flags of the including file. It defines ADD, MUL and SUB (the functions) and
 * FMA(x, y, z): x * y + z rounded once, where that is exact in double. */
#include "kernel/kernel.h"
#include "kernel/q8_round.h"

#include <string.h>

enum { PART = 64 };
typedef enum operation { SUM, PRODUCT, DIFFERENCE } operation;

static inline __attribute__((always_inline)) void block(const qn_q8_binary_args *args,
                                                        const uint8_t *a, const uint8_t *b,
                                                        uint8_t *restrict out, const operation op)
{
    const uint8_t a_flip = args->a_flip, b_flip = args->b_flip;
    const float a_off = args->a_off, b_off = args->b_off, lo = args->lo, hi = args->hi;
    const int32_t zero = args->zero;
    const float ra = args->ra, rb = args->rb, fixed = args->fixed;
    for (size_t i = 0; i < PART; i++) {
        const float x = (float)(int32_t)(uint8_t)(a[i] ^ a_flip) - a_off;
        const float y = (float)(int32_t)(uint8_t)(b[i] ^ b_flip) - b_off;
        const float v = op == SUM       ? FMA(x, ra, FMA(y, rb, fixed))
                        : op == PRODUCT ? x * y * ra + fixed
                                        : (x * ra - y * rb) / fixed;
        out[i] = qn_round_byte(v, lo, hi, zero);
    }
}

/* Results go through a buffer: the output may be an input. One block in the code
 * for whole parts and for the last one, which is copied. */
static inline __attribute__((always_inline)) void all(const qn_q8_binary_args *args,
                                                      const operation op)
{
    uint8_t a[PART], b[PART], out[PART];
    for (size_t i = 0; i < args->n; i += PART) {
        const uint8_t *from_a = args->a + i, *from_b = args->b + i;
        const size_t left = args->n - i;
        if (left < PART) {
            memset(a, 0, PART);
            memset(b, 0, PART);
            from_a = memcpy(a, from_a, left);
            from_b = memcpy(b, from_b, left);
        }
        block(args, from_a, from_b, out, op);
        if (left < PART)
            memcpy(args->out + i, out, left);
        else
            memcpy(args->out + i, out, PART);
    }
}

void ADD(const qn_q8_binary_args *args)
{
    all(args, SUM);
}

void MUL(const qn_q8_binary_args *args)
{
    all(args, PRODUCT);
}

void SUB(const qn_q8_binary_args *args)
{
    all(args, DIFFERENCE);
}
