/* Arithmetic of quantized operators: parameters of a tensor, requantization, tables over all 256
 * values of a byte, and the exact integer product that quantized Conv, Gemm and MatMul are made of.
 */
#ifndef QN_RUN_OPS_QCORE_H
#define QN_RUN_OPS_QCORE_H

#include "run/op.h"
#include "run/ops/fixed_point.h"

typedef struct qn_qparams {
    qn_dtype dtype; /* U8 or I8 */
    float scale;
    int32_t zero, qmin, qmax;
} qn_qparams;
/* Parameters of an 8-bit per-tensor activation; UNSUPPORTED naming the tensor otherwise. */
qn_status qn__qparams_read(const qn_step *step, const qn_tensor *tensor, qn_qparams *out,
                           qn_error *error);
/* Value of a byte, in the tensor's signedness. */
static inline int32_t qn_qload(const void *data, qn_dtype dtype, size_t i)
{
    return dtype == QN_DTYPE_I8 ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
}
/* saturate(round_half_even(x / scale) + zero); NaN becomes qmin. */
int32_t qn__quantize_one(float x, const qn_qparams *p);
/* Integer bounds that apply node->act to values quantized with p. */
void qn__qact_bounds(const qn_step *step, const qn_qparams *p, int32_t *lo, int32_t *hi);

/* Functions of one byte. */
extern const qn_run_op qn__op_qunary;
/* dst[i] = table[src[i]], both as raw bytes; src may be dst. */
void qn__table_run(qn_pool *pool, qn_q8_table_fn fn, const uint8_t table[256], const uint8_t *src,
                   uint8_t *dst, size_t count);
/* Table from one quantization to another; false: kind has no multiplier for it. */
bool qn__table_requantize(uint8_t table[256], const qn_qparams *from, const qn_qparams *to,
                          qn_requantize kind);

/* float dst[i] = src[i] - zero */
void qn__unpack_centered(qn_pool *pool, const void *src, qn_dtype dtype, int32_t zero, float *dst,
                         size_t count);

/* --- integer product ------------------------------------------------------------------------- */
/* Output columns [c0, c0 + n) of one row from their accumulators. */
typedef struct qn_requant {
    const float *scale;  /* per column: s_x * s_w / s_y, or s_x * s_w for float output */
    const int32_t *bias; /* per column, or NULL */
    qn_dtype dtype;      /* F32, U8, I8 */
    int32_t zero, lo, hi;
    qn_clamp_f32 clamp; /* float output */
    qn_requantize kind; /* other than the default: fixed, per column, in place of scale */
    const qn_multiplier *fixed;
    qn_q8_fixed_fn fixed_fn; /* for rows of sums */
} qn_requant;
void qn__requant_row(const qn_requant *r, const int32_t *acc, size_t c0, size_t n, void *row);

/* Part of the K axis whose float sums are exact: taps [p0, p0 + np), channels [k0, k0 + nk). */
typedef struct qn_qblock {
    size_t p0, np, k0, nk;
    size_t offset; /* of the packed weights, floats */
} qn_qblock;

typedef struct qn_qproduct {
    const qn_f32_igemm *kernel;
    size_t n, kc, ks; /* of one group */
    size_t n_blocks;
    qn_qblock *blocks;
    size_t group_floats; /* packed floats of one group */
} qn_qproduct;
/* Cuts K so that sums of products of at most x_max * w_max stay below 2^24. */
qn_status qn__qproduct_plan(const qn_context *ctx, const qn_f32_igemm *kernel, size_t n, size_t kc,
                            size_t ks, int32_t x_max, int32_t w_max, qn_qproduct *out,
                            qn_error *error);
void qn__qproduct_free(const qn_context *ctx, qn_qproduct *product);
/* w[n * stride_n + p * stride_p + k * stride_k], already centred; packed: group_floats floats. */
void qn__qproduct_pack(const qn_qproduct *product, float *packed, const float *w, size_t stride_n,
                       size_t stride_p, size_t stride_k);

/* Row pointers of one output row: taps[p] points at kc centred values. */
typedef struct qn_qrun {
    const qn_qproduct *product;
    const float *packed;
    size_t m, groups;
    /* Pointers of row m for taps [p0, p0 + np), step apart in `a`; channels start at k0. */
    void (*rows)(const struct qn_qrun *run, size_t group, size_t m, size_t p0, size_t np, size_t k0,
                 const float **a, size_t step);
    const void *ctx;
    const qn_requant *requant;
    void *dst; /* row m, column c at dst[m * dst_stride + c] */
    size_t dst_stride;
} qn_qrun;
void qn__qproduct_run(const qn_qrun *run, qn_pool *pool);

/* Part of one row with int16 saturation of pair sums: acc[n] += sum over pairs of
 * clamp16(x[2i] * w[2i][n] + x[2i + 1] * w[2i + 1][n]); rows of w are `stride` floats apart. */
void qn__saturating_part(const float *x, const float *w, size_t pairs, size_t n, size_t stride,
                         int32_t *acc);

#endif
