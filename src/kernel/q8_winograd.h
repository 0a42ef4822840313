/* 8-bit convolution of windows of 3x3 without strides by Winograd's algorithm F(4x4, 3x3) (Lavin
 * and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015), in integers:
 * acc[y][x][n] = base[n] + sum over i < 3, j < 3, c of u[y + i][x + j][c] * w(n, c, i, j)
 * exactly, of unsigned bytes u, with outputs as in the GEMM.
 *
 * A tile is 4x4 outputs, for which 6x6 inputs D are needed. Inputs become V = B D B', weights
 * U = G W G', and outputs are A (U * V) A', sums over channels taken before A. G is made of whole
 * numbers, which makes outputs 576 = 9 * 64 times what they should be:
 *
 *   B  4  0 -5  0  1  0     G  6  0  0     A  1  1  1  1  1  0
 *      0 -4 -4  1  1  0       -4 -4 -4        0  1 -1  2 -2  0
 *      0  4 -4 -1  1  0       -4  4 -4        0  1  1  4  4  0
 *      0 -2 -1  2  1  0        1  2  4        0  1 -1  8 -8  2
 *      0  2 -1 -2  1  0        1 -2  4
 *      0  4  0 -5  0  1        0  0 12
 *
 * |V| <= 68 * 255 and |U| <= 144 * 128 fit int16, and sums are modulo 2^32, where 9 has an inverse:
 * times that they are 64 times the sum, which a shift divides if the sum lies between -2^25 and
 * 2^25. qn__q8_winograd_pack tells whether it does whatever the inputs are. */
#ifndef QN_KERNEL_Q8_WINOGRAD_H
#define QN_KERNEL_Q8_WINOGRAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qn_q8_out;
enum {
    QN_WINOGRAD_TILE = 4,
    QN_WINOGRAD_IN = 36, /* inputs of a tile, and products by which they are reached */
    QN_WINOGRAD_OUT = 16,
    QN_WINOGRAD_CHANNELS = 16,      /* channels and columns are multiples of this */
    QN_WINOGRAD_STEP_OVER = 32,     /* lines are not all in the same sets of the cache */
    QN_WINOGRAD_INVERSE = 954437177 /* of 9 */
};

/* Packed: for each 16 columns 16 int32 bases, 16 float scales, then for each of 36 products and
 * each two channels 16 times two int16. */
static inline size_t qn_q8_winograd_panel_bytes(size_t channels)
{
    return QN_WINOGRAD_CHANNELS * (8 + QN_WINOGRAD_IN * sizeof(int16_t) * channels);
}
/* Weights w[n][channels][3][3]; bias NULL: zeros. A column's base is its bias less `zero` times the
 * sum of its weights. false: some sum may be too large, nothing is of use. */
bool qn__q8_winograd_pack(void *packed, const int8_t *w, size_t n, size_t channels,
                          const int32_t *bias, int32_t zero, const float *scale);

/* Pixel j of row i of a tile's inputs is at in[i] + (j - left) * channels for left <= j < right,
 * and zeros otherwise; output j of row i at out + i * out_row + j * out_step for i < rows, j <
 * columns. Rows outside of a picture are rows of zeros. */
typedef struct qn_q8_winograd_tile {
    const uint8_t *in[6];
    uint8_t *out;
    uint8_t left, right, rows, columns;
} qn_q8_winograd_tile;

typedef struct qn_q8_winograd_args {
    size_t tiles, channels, n;
    const qn_q8_winograd_tile *tile;
    const uint8_t *zeros; /* [6][channels] zero points */
    size_t out_row, out_step;
    const void *w; /* packed weights of n columns */
    /* V: [36][v_step], of tiles times channels each; multiples of 64 bytes. v_step in elements. */
    int16_t *v;
    size_t v_step;
    const struct qn_q8_out *format; /* of bytes */
} qn_q8_winograd_args;
typedef void (*qn_q8_winograd_fn)(const qn_q8_winograd_args *args);
typedef struct qn_q8_winograd {
    qn_q8_winograd_fn fn;     /* from V to outputs */
    qn_q8_winograd_fn inputs; /* from inputs to V; does not read w, n and format */
    size_t least;             /* outputs of a mean tile that make it faster than the GEMM; more
                               * than all: it never is */
    const char *name;
} qn_q8_winograd;
static inline size_t qn_q8_winograd_step(size_t tiles, size_t channels)
{
    return tiles * channels + QN_WINOGRAD_STEP_OVER;
}

#endif
