/* --- 8-bit addition, multiplication and subtraction ---------------------------------------------
 * With x = float(a[i] ^ a_flip) - a_off and y = float(b[i] ^ b_flip) - b_off (flip 0x80 for signed
 * bytes, whose off is 128 more):
 *     add: v = fma(x, ra, fma(y, rb, fixed))      every multiply-add rounded once
 *     mul: v = x * y * ra + fixed                 every operation rounded
 *     sub: v = (x * ra - y * rb) / fixed          every operation rounded
 * out[i] = low byte of round_half_even(v limited to lo..hi) + zero; NaN becomes lo. lo and hi are
 * integers below 2^22 in magnitude. add: ra and rb are 2^-9..2^9 in magnitude, so that sums are
 * exact in double. out may be a or b. */
#ifndef QN_KERNEL_Q8_BINARY_H
#define QN_KERNEL_Q8_BINARY_H

#include <stddef.h>
#include <stdint.h>

typedef struct qn_q8_binary_args {
    size_t n;
    const uint8_t *a, *b;
    uint8_t *out;
    uint8_t a_flip, b_flip;
    float a_off, b_off;
    float ra, rb, fixed;
    float lo, hi;
    int32_t zero;
} qn_q8_binary_args;
typedef void (*qn_q8_binary_fn)(const qn_q8_binary_args *args);
typedef struct qn_q8_binary {
    qn_q8_binary_fn fn;
    const char *name;
} qn_q8_binary;

#endif
