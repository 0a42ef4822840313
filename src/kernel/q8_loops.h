/* --- loops between floats and bytes, tables and means, channels last -----------------------------
 * None of them reads or writes beyond what is described. */
#ifndef QN_KERNEL_Q8_LOOPS_H
#define QN_KERNEL_Q8_LOOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* dst[i] = table[src[i]], i < n; dst may be src. */
typedef void (*qn_q8_table_fn)(const uint8_t table[256], const uint8_t *src, uint8_t *dst,
                               size_t n);
typedef struct qn_q8_table {
    qn_q8_table_fn fn;
    const char *name;
} qn_q8_table;

/* dst[i * channels + c] = low byte of round_half_even(src[c * plane + i] / scale limited to lo..hi)
 * + zero, i < n, c < channels. The quotient is rounded once; NaN becomes lo. lo and hi are integers
 * of at most 2^10 in magnitude. With one channel nothing moves; with more, planes become pixels.
 * rows, unless NULL: pixel i is pixel i % row of rows[i / row] instead of dst.
 * factor, unless 0: round_half_even(fma(x, factor, x * rest)), both operations rounded once, is the
 * same number for every x up to the upper bound. */
typedef struct qn_q8_quantize_args {
    size_t n, channels;
    const float *src;
    size_t plane;
    uint8_t *dst;
    uint8_t *const *rows;
    size_t row;
    float scale, lo, hi;
    int32_t zero;
    float factor, rest;
} qn_q8_quantize_args;
/* Finds factor and rest for scale, lo and hi: 0 where there are none. It takes about 10 us. */
void qn__q8_quantize_factors(qn_q8_quantize_args *args);
typedef void (*qn_q8_quantize_fn)(const qn_q8_quantize_args *args);
typedef struct qn_q8_quantize {
    qn_q8_quantize_fn fn;
    const char *name;
} qn_q8_quantize;

/* dst[i] = (float)((src[i] ^ flip) - zero) * scale, i < n: flip 0x80 for signed bytes, whose zero
 * is then 128 more. */
typedef struct qn_q8_dequantize_args {
    size_t n;
    const uint8_t *src;
    float *dst;
    float scale;
    int32_t zero;
    uint8_t flip;
} qn_q8_dequantize_args;
typedef void (*qn_q8_dequantize_fn)(const qn_q8_dequantize_args *args);
typedef struct qn_q8_dequantize {
    qn_q8_dequantize_fn fn;
    const char *name;
} qn_q8_dequantize;

/* sum[c] = (sum of in[p * plane + i * row + j * col + c] ^ flip over p < planes, i < rows and
 * j < cols) - offset, exactly; v = sum * factor, and with `divides` then / count / scale, every
 * operation rounded; out[c] = low byte of round_half_even(v limited to lo..hi) + zero. Sums are
 * below 2^31. */
typedef struct qn_q8_avgpool_args {
    size_t channels, planes, rows, cols;
    const uint8_t *in;
    size_t plane, row, col;
    uint8_t *out;
    uint8_t flip;
    bool divides;
    int32_t offset, zero;
    float factor, count, scale, lo, hi;
} qn_q8_avgpool_args;
typedef void (*qn_q8_avgpool_fn)(const qn_q8_avgpool_args *args);
typedef struct qn_q8_avgpool {
    qn_q8_avgpool_fn fn;
    const char *name;
} qn_q8_avgpool;

#endif
