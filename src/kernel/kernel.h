/* Kernels: pure functions on raw pointers and prepared parameters. They know nothing of graphs,
 * allocate nothing, cannot fail. kernels.def is the single list of slots and implementations;
 * dispatch, tests and benches are made from it.
 *
 * qn__kernels_init writes the C reference into every slot, then each instruction set overwrites
 * what it has, in rising order. The table is kept in the plan; there is no global.
 *
 * Floating point: reductions may be summed in any order (tolerance in the harness); integer-valued
 * results are exact as long as every partial sum stays below 2^24.
 */
#ifndef QN_KERNEL_KERNEL_H
#define QN_KERNEL_KERNEL_H

#include "core/cpu.h"
#include "kernel/q8_binary.h"
#include "kernel/q8_fixed.h"
#include "kernel/q8_loops.h"
#include "kernel/q8_maxpool.h"
#include "kernel/q8_peak.h"
#include "kernel/q8_winograd.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qn_clamp_f32 {
    float lo, hi; /* -INFINITY / INFINITY: no bound */
} qn_clamp_f32;

/* --- f32 indirect GEMM ------------------------------------------------------------------------
 * c[m][n] = clamp(bias[n] + sum over p < ks, k < kc of a[p * MR + m][k] * w(p, k, n)), m < mr, n <
 * nc
 *
 * a: ks groups of MR row pointers (entries at and above mr repeat a valid row); each row has kc
 * floats (no over-read). w: packed by qn_f32_gemm_pack: panels of NR columns: NR biases, then for
 * each (p, k) NR weights, zero padded. c: rows of c_stride floats; the kernel walks all panels of
 * nc. mr in 1..MR. MR, NR belong to the slot's implementation (struct below). */
typedef void (*qn_f32_igemm_fn)(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                                const float *w, float *c, size_t c_stride,
                                const qn_clamp_f32 *clamp);
typedef struct qn_f32_igemm {
    qn_f32_igemm_fn fn;
    size_t mr, nr;
    const char *name;
    /* Only of qn__split_igemm: a second step of packing, in place, of n columns of k weights. */
    void (*repack)(float *packed, size_t n, size_t k);
} qn_f32_igemm;

/* Floats needed to pack n columns of ks * kc weights. */
size_t qn__f32_gemm_packed_count(size_t n, size_t kc, size_t ks, size_t nr);
/* Packs weights given as w[n * stride_n + p * stride_p + k * stride_k]; bias NULL: zeros. Model
 * files hold what it makes under a version that changes with it. */
enum { QN_F32_GEMM_LAYOUT_VERSION = 1 };
void qn__f32_gemm_pack(float *packed, const float *w, const float *bias, size_t n, size_t kc,
                       size_t ks, size_t stride_n, size_t stride_p, size_t stride_k, size_t nr);

/* --- few f32 rows times weights kept as integers -------------------------------------------------
 * c[m][n] = clamp(bias[n] + sum over k of a[m][k] * ((q(k, n) - zero) * scale)), one chain of
 * multiply-adds as in the GEMM, of which it has the bits.
 *
 * w: panels of 16 columns: 16 biases, for each block of k 16 scales and, with zeros, 16 zero
 * points, all floats; then for every k 16 bytes, or with halves 8, whose low halves are the first
 * columns'. zero: of all weights, without zeros. The number of the layout is of the panels, as
 * QN_Q8_GEMM_LAYOUT_VERSION is. */
enum { QN_F32_INTS_LAYOUT_VERSION = 1 };
typedef struct qn_f32_ints_args {
    size_t m, n, k, block;
    const float *a;
    size_t a_stride;
    const uint8_t *w;
    size_t panel_bytes;
    bool halves, zeros;
    float zero;
    float *c;
    size_t c_stride;
    qn_clamp_f32 clamp;
} qn_f32_ints_args;
typedef void (*qn_f32_ints_fn)(const qn_f32_ints_args *args);
typedef struct qn_f32_ints {
    qn_f32_ints_fn fn;
    const char *name;
    size_t rows; /* up to so many rows it is faster than making floats first; 0: never */
    size_t nr;   /* columns of a panel; 0: weights are not kept so */
    /* The panel at w as the GEMM reads it. */
    void (*expand)(const qn_f32_ints_args *args, float *out);
} qn_f32_ints;

/* --- f32 depthwise convolution, channels last ---------------------------------------------------
 * A run of n outputs along a row; every tap is inside the input (edges are shorter windows):
 * out[x * out_step + c] = clamp(bias[c] + sum over i < kh, j < kw of
 *     in[x * in_step + i * in_row + j * in_col + c] * w[i * w_row + j * channels + c])
 * Steps are in floats. No over-read. */
typedef struct qn_f32_dwconv_args {
    size_t n, channels, kh, kw;
    const float *in;
    size_t in_row, in_col, in_step;
    const float *w;
    size_t w_row;
    const float *bias;
    float *out;
    size_t out_step;
    qn_clamp_f32 clamp;
} qn_f32_dwconv_args;
typedef void (*qn_f32_dwconv_fn)(const qn_f32_dwconv_args *args);
typedef struct qn_f32_dwconv {
    qn_f32_dwconv_fn fn;
    const char *name;
} qn_f32_dwconv;

/* --- f32 pooling, channels last -----------------------------------------------------------------
 * The same runs of whole windows (kh, kw >= 1). max: the largest value (comparisons with NaN are
 * false: v > best ? v : best). avg: scale times the sum, taps added in the order i, j. */
typedef struct qn_f32_pool_args {
    size_t n, channels, kh, kw;
    const float *in;
    size_t in_row, in_col, in_step;
    float *out;
    size_t out_step;
    float scale; /* avg only */
} qn_f32_pool_args;
typedef void (*qn_f32_pool_fn)(const qn_f32_pool_args *args);
typedef struct qn_f32_pool {
    qn_f32_pool_fn fn;
    const char *name;
} qn_f32_pool;

/* --- 8-bit indirect GEMM with requantization ----------------------------------------------------
 * acc[m][n] = base[n] + sum over p < ks, k < kc of u(a[p * MR + m][k]) * w(p, k, n)
 * exactly, modulo 2^32. u(byte) = byte ^ flip as an unsigned number: flip is 0x80 for signed
 * activations and 0 otherwise. (Whoever packs puts -(zero + flip) * sum of w into base, and taps in
 * the padding point at rows of zero points.)
 *
 * c[m][n] = saturate to lo..hi of round_half_even((float)acc * scale[n]) + zero, as a byte: signed
 * if lo < 0. The product is rounded to float once; a NaN becomes lo. With is_float:
 * c[m][n] = clamp((float)acc * scale[n]); with is_sums, too, c[m][n] = acc, an int32: rows are then
 * multiples of QN_Q8_SUMS_STEP apart from a multiple of 64 bytes on, and what is behind their
 * columns and QN_Q8_SUMS_OVER rows more may be written. Bits are the same on every instruction set.
 *
 * a: ks groups of MR row pointers (those at and above mr, up to a multiple of `reads` or to MR,
 * repeat a valid row); each row has kc bytes, no over-read.
 * w: packed by qn__q8_gemm_pack: panels of NR columns: NR int32 bases, NR
 * float scales, then for each p and each group of KR consecutive k, NR times KR bytes, zero padded.
 * safe: what qn__q8_gemm_safe tells and the packing was told: for every column no sum of two
 * neighbouring products of a tap (k = 2i, 2i + 1) leaves int16, whatever the activations: kernels
 * may then add pairs in 16 bits (vpmaddubsw).
 * An implementation with `pairs` also knows which two groups of safe weights may be added to each
 * other in 16 bits: groups then come in the order of tables behind the weights of a panel, one for
 * each p and each QN_Q8_PAIRS_K of its k: uint16 number of pairs of groups, then for every group
 * (those of pairs first) the uint16 distance of its first k from the part's. Panels end at a
 * multiple of 64 bytes. Where flip is 0 and kc a multiple of KR, up to QN_Q8_PAIRS_K, distances may
 * be any others (for each group the same in all panels): so far behind a row its four k are read.
 * c: rows of c_stride elements; the kernel walks all panels of nc. mr in 1..MR. */
#define QN_Q8_PAIRS_K 2048
enum { QN_Q8_SUMS_STEP = 32, QN_Q8_SUMS_OVER = 11 };
typedef struct qn_q8_out {
    int32_t zero, lo, hi; /* all of them values of one 8-bit type */
    bool is_float;
    bool is_sums;      /* only with is_float */
    bool small_scales; /* all scales are between -1 and 1, which saves a bound; never needed */
    /* All scales are above zero, and sums and what they begin with lie between -2^23 and 2^23;
     * never needed. */
    bool short_sums;
    qn_clamp_f32 clamp; /* of floats */
    /* GEMM: what the caller will read next, to be prefetched meanwhile: half of a panel's bytes for
     * each ahead_panels of the kernel. */
    const uint8_t *ahead;
    size_t ahead_bytes;
    bool ahead_twice; /* a whole panel's bytes, where the kernel can */
    /* GEMM, unless NULL, where the kernel `takes_offsets`, flip is 0 and kc a multiple of KR: a has
     * one group of pointers, and tap p is offsets[p] bytes behind them. */
    const ptrdiff_t *offsets;
} qn_q8_out;
typedef void (*qn_q8_igemm_fn)(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                               uint8_t flip, bool safe, const void *w, void *c, size_t c_stride,
                               const qn_q8_out *out);
/* Puts the groups of a part, packed in the order of k, into the order of a table: the numbers of
 * the table and the groups. most: of pairs. columns: NULL, or [8], what sums of weights are added
 * to. false, and the table is not written: the weights are not safe. */
typedef bool (*qn_q8_pairs_fn)(uint8_t *out, uint16_t *table, const uint8_t *packed, size_t groups,
                               size_t most, uint32_t *columns);
/* Puts bytes of three rows together, as windows of which distances tell groups of k need it where
 * rows are no whole number of groups: to[i] is the or of from[y][i] & masks[y * QN_Q8_JOINED + i %
 * QN_Q8_JOINED], up to n rounded up to a multiple of QN_Q8_JOINED. */
enum { QN_Q8_JOINED = 48 };
typedef void (*qn_q8_join_fn)(uint8_t *to, const uint8_t *const from[3], const uint8_t *masks,
                              size_t n);
/* Pointers to n rows, `step` bytes apart from `first` on, and to up to seven more. */
typedef void (*qn_spaced_rows_fn)(const uint8_t **a, const uint8_t *first, size_t step, size_t n);
typedef struct qn_q8_igemm {
    qn_q8_igemm_fn fn;
    size_t mr, nr, kr;
    /* Not 0: each half of a call's rows is read in place if it lies evenly spaced, which callers
     * should cut for: halves of up to so many rows. */
    size_t run;
    size_t unit; /* not 0: rows that calls are best cut to multiples of, evenly */
    /* Not 0: rows that a call is best given where they are long and threads share calls. */
    size_t long_rows;
    size_t reads;             /* not 0: pointers from mr on are read up to a multiple of it only */
    bool takes_offsets;       /* qn_q8_out.offsets */
    size_t ahead_panels;      /* of qn_q8_out.ahead; 0: nothing is prefetched */
    qn_q8_pairs_fn pairs;     /* NULL: panels have no tables */
    qn_q8_join_fn join;       /* where they have */
    qn_spaced_rows_fn spaced; /* NULL: callers do without */
    const char *name;
} qn_q8_igemm;
/* Pointers that a call of mr rows reads, of each tap. */
static inline size_t qn_q8_rows_end(const qn_q8_igemm *kernel, size_t mr)
{
    const size_t part = kernel->reads;
    return part != 0 ? (mr + part - 1) / part * part : kernel->mr;
}
/* Changes whenever the bytes that qn__q8_gemm_pack makes, or their meaning to kernels, change:
 * model files hold packed weights under this number (docs/qnm.md). */
enum { QN_Q8_GEMM_LAYOUT_VERSION = 2 };
/* Packing ids of files: slot, version of its layout, two sizes. */
enum {
    QN_PACKED_Q8_GEMM = 1,
    QN_PACKED_Q8_DWCONV,
    QN_PACKED_F32_GEMM,
    QN_PACKED_F32_DWCONV,
    QN_PACKED_F32_INTS
};
static inline uint32_t qn_packing_id(uint32_t slot, uint32_t version, size_t a, size_t b)
{
    return slot << 24 | version << 16 | ((uint32_t)a & 255) << 8 | ((uint32_t)b & 255);
}
/* NR, KR; 0x80 with KR: in pairs. */
static inline uint32_t qn_q8_gemm_layout(const qn_q8_igemm *kernel)
{
    return qn_packing_id(QN_PACKED_Q8_GEMM, QN_Q8_GEMM_LAYOUT_VERSION, kernel->nr,
                         kernel->kr | (kernel->pairs != NULL ? 0x80u : 0));
}
/* Bytes needed to pack n columns of ks * kc weights; false on overflow. */
bool qn__q8_gemm_packed_bytes(size_t *out, size_t n, size_t kc, size_t ks,
                              const qn_q8_igemm *kernel);
/* Whether packed weights that come from elsewhere can be given to a kernel: what tables of pairs
 * say lies inside the rows. (Other forms have none: true.) */
bool qn__q8_gemm_packed_ok(const void *packed, size_t n, size_t kc, size_t ks,
                           const qn_q8_igemm *kernel);
/* Weights of n columns at w[n * stride_n + p * stride_p + k * stride_k]: whether they are safe. */
bool qn__q8_gemm_safe(const int8_t *w, size_t n, size_t kc, size_t ks, size_t stride_n,
                      size_t stride_p, size_t stride_k);
void qn__q8_gemm_pack(void *packed, const int8_t *w, const int32_t *base, const float *scale,
                      size_t n, size_t kc, size_t ks, size_t stride_n, size_t stride_p,
                      size_t stride_k, const qn_q8_igemm *kernel, bool safe);

/* The same in two parts. Weights and tables; sums: NULL, or [n] sums of columns modulo 2^32, what
 * bases are made of; then the result says whether the weights are safe. pairs: make pairs if they
 * are; where they are not, what is packed is of no use and has to be packed again without. */
bool qn__q8_gemm_pack_weights(void *packed, const int8_t *w, size_t n, size_t kc, size_t ks,
                              size_t stride_n, size_t stride_p, size_t stride_k,
                              const qn_q8_igemm *kernel, bool pairs, uint32_t *sums);
/* What panels begin with. */
void qn__q8_gemm_pack_heads(void *packed, const int32_t *base, const float *scale, size_t n,
                            size_t panel_bytes, const qn_q8_igemm *kernel);

/* Sum of n weights, modulo 2^32. */
int32_t qn__q8_gemm_sum(const int8_t *w, size_t n, size_t stride);

/* --- 8-bit depthwise convolution, channels last --------------------------------------------------
 * `rows` rows of n outputs, all taps of which exist:
 * acc[y][x][c] = bias[c] + sum over i < kh, j < kw of
 *     in[y * kh + i][x * in_step + in_col[j] + c] * w[(i * kw + j) * w_step + c]
 * exactly, modulo 2^32, of unsigned bytes; output as in the GEMM at out[y * out_row + x * out_step
 * + c]. Steps are in elements. No over-read.
 *
 * With `left` the first column of the first window, with `right` the last of the last, is not in
 * memory but holds `edge` in every channel: with `left`, in[] begins with the second column. Only
 * for kernels with `edges`, `least` channels or more, windows of 3x3 whose columns follow each
 * other and steps of one or two of them. */
typedef struct qn_q8_dwconv_args {
    size_t rows, n, channels, kh, kw;
    const uint8_t *const *in; /* [rows][kh] */
    const size_t *in_col;     /* [kw], the first 0 */
    size_t in_step;
    const int8_t *w;
    size_t w_step;
    const int32_t *bias;
    const float *scale;
    void *out;
    size_t out_row, out_step;
    qn_q8_out format;
    bool left, right;
    uint8_t edge;
} qn_q8_dwconv_args;
typedef void (*qn_q8_dwconv_fn)(const qn_q8_dwconv_args *args);
typedef struct qn_q8_dwconv {
    qn_q8_dwconv_fn fn;
    const char *name;
    size_t block; /* channels that are computed together: fewer are slow */
    size_t least; /* up to block: of windows that may have edges fewer are slow */
    bool edges;
} qn_q8_dwconv;

/* --- range of values
 * ------------------------------------------------------------------------------ lo and hi are
 * widened by the values, which need no alignment. False: one is NaN or infinite, and lo and hi mean
 * nothing. */
typedef bool (*qn_f32_range_fn)(const float *values, size_t count, float *lo, float *hi);
typedef struct qn_f32_range {
    qn_f32_range_fn fn;
    const char *name;
} qn_f32_range;

/* --- exponentials
 * --------------------------------------------------------------------------------- out[i] =
 * qn_exp_f32(in[i]), i < n (vmath.h): the same bits everywhere. out may be in. */
typedef void (*qn_f32_exp_fn)(const float *in, float *out, size_t n);
typedef struct qn_f32_exp {
    qn_f32_exp_fn fn;
    const char *name;
} qn_f32_exp;

/* --- sums of columns -----------------------------------------------------------------------------
 * sums[c] += sum over r < rows of x[r * channels + c]: in float32, row after row, then added to the
 * double. Rows follow each other; the same bits everywhere. */
typedef void (*qn_f32_sums_fn)(const float *x, size_t rows, size_t channels, double *sums);
typedef struct qn_f32_sums {
    qn_f32_sums_fn fn;
    const char *name;
} qn_f32_sums;

/* --- resizing bytes ------------------------------------------------------------------------------
 * Weights are whole numbers of 2^-QN_RESIZE_BITS; sums, which stay within int32, are rounded to
 * nearest and clipped to bytes.
 * Columns: out[i] = sum over t < taps of weights[t] * rows[t * stride + i], i < n.
 * Rows: pixel x < n of out, of 3 channels, is the sum over t from offset[x] to offset[x + 1] of
 * weights[t] * pixel first[x] + t - offset[x] of row, which has `width` pixels. */
enum { QN_RESIZE_BITS = 22 };
typedef void (*qn_u8_columns_fn)(const uint8_t *rows, size_t stride, const int32_t *weights,
                                 size_t taps, size_t n, uint8_t *out);
typedef struct qn_u8_columns {
    qn_u8_columns_fn fn;
    const char *name;
} qn_u8_columns;
typedef void (*qn_u8_pixels_fn)(const uint8_t *row, size_t width, const uint32_t *first,
                                const size_t *offset, const int32_t *weights, size_t n,
                                uint8_t *out);
typedef struct qn_u8_pixels {
    qn_u8_pixels_fn fn;
    const char *name;
} qn_u8_pixels;

/* --- rounding that moves its errors (quant/gptq.h) -----------------------------------------------
 * Columns 0..n-1 of every channel are rounded one after the other; column j's own place is
 * n - 1 - j in moved, errors and u, whose rows are those of columns not yet rounded:
 *   q = round(clamp((w[j] + moved[n - 1 - j]) / scale, -top, top)), half to even
 *   errors[n - 1 - j] = w[j] - q * scale
 *   moved[i] += errors[n - 1 - j] * u[(n - 1 - j) * u_stride + i], i < n - 1 - j
 * pairs: with columns 2i and 2i + 1 both positive their q add up to pair_limit at most, both
 * negative to -pair_limit at least; the second one gives way. n <= QN_ROUND_COLUMNS. No fused
 * multiply-adds: the same bits everywhere. */
enum { QN_ROUND_COLUMNS = 64 };
typedef struct qn_f32_round_args {
    size_t channels, n;
    const float *w; /* rows of w_stride, one for each channel, as in errors, moved and q */
    size_t w_stride;
    const float *scales; /* [channels] */
    const float *u;
    size_t u_stride;
    float *moved;
    size_t moved_stride;
    float *errors;
    size_t errors_stride;
    int8_t *q;
    size_t q_stride;
    float top, pair_limit; /* whole numbers */
    bool pairs;
} qn_f32_round_args;
typedef void (*qn_f32_round_fn)(const qn_f32_round_args *args);
typedef struct qn_f32_round {
    qn_f32_round_fn fn;
    const char *name;
} qn_f32_round;

#define QN_KERNEL_SLOT(slot, type) type slot;
typedef struct qn_kernels {
#include "kernel/slots.def"
    uint32_t cpu_flags;
} qn_kernels;
#undef QN_KERNEL_SLOT

/* Flags that an implementation's instruction set needs; the names are kernels.def's. */
enum {
    QN_ISA_scalar = 0,
    QN_ISA_avx2 = QN_CPU_AVX2,
    QN_ISA_avxvnni = QN_CPU_AVX2 | QN_CPU_AVX_VNNI,
    QN_ISA_avx512 = QN_CPU_AVX512,
    QN_ISA_vnni = QN_CPU_AVX512 | QN_CPU_AVX512_VNNI,
    QN_ISA_amx = QN_CPU_AVX512 | QN_CPU_AVX512_VNNI | QN_CPU_AMX,
    QN_ISA_neon = QN_CPU_NEON,
    QN_ISA_dotprod = QN_CPU_NEON | QN_CPU_DOTPROD,
    QN_ISA_i8mm = QN_CPU_NEON | QN_CPU_DOTPROD | QN_CPU_I8MM
};
/* Of the form that kernels for AVX2 read, on any machine. */
__typeof__(*(qn_q8_pairs_fn)0) qn__q8_pairs_scalar, qn__q8_pairs_avx2;
__typeof__(*(qn_q8_join_fn)0) qn__q8_join_avx2;
__typeof__(*(qn_q8_winograd_fn)0) qn__q8_winograd_inputs_scalar, qn__q8_winograd_inputs_avx2,
    qn__q8_winograd_inputs_avxvnni;
__typeof__(*(qn_spaced_rows_fn)0) qn__spaced_rows_vnni, qn__spaced_rows_avx2;
void qn__f32_ints_expand_avx2(const qn_f32_ints_args *args, float *out);
#define QN_KERNEL(slot, isa, function, ...) __typeof__(*((qn_kernels *)0)->slot.fn) function;
#include "kernel/kernels.def"
#undef QN_KERNEL

/* Best implementation of every slot among those whose flags are all in cpu_flags. */
void qn__kernels_init(qn_kernels *kernels, uint32_t cpu_flags);

#endif
