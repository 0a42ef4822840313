/* Operators in the arithmetic of MNN's float kernels (x86, AVX2 with FMA), so that exact mode
 * sees the values that the original saw, to the last bit. Its sums are chains of fused operations
 * over the inputs, as those of the executor's kernels are; what is different is settled here. */
#ifndef QN_MNNTOOL_FLOAT_CONV_H
#define QN_MNNTOOL_FLOAT_CONV_H

#include "run/op.h"
#include "run/ops/window.h"

/* Rows of a product that MNN's kernels take together: output pixels, tiles. */
#define QN_MNN_GROUP 24

/* A float convolution with constant weights that is not depthwise. */
typedef struct qn_mnn_conv {
    qn_window window;
    size_t groups, group_c, group_oc;
} qn_mnn_conv;

/* --- float_conv.c ------------------------------------------------------------------------------*/
/* false: something else, or something that the usual implementation will find fault with. */
bool qn__mnn_conv_read(const qn_node *node, qn_mnn_conv *out);
/* What computes `node` as MNN does (qn_plan_options.instead); NULL: the usual implementation. */
const qn_run_op *qn__mnn_float_op(const qn_node *node);

/* winograd_conv.c, tiled_conv.c: for convolutions with these forms. */
extern const qn_run_op qn__mnn_winograd_op, qn__mnn_tiled_op;
bool qn__mnn_winograd_takes(const qn_mnn_conv *conv);
/* Is there anything that the usual implementation sums in another order? */
bool qn__mnn_tiled_takes(const qn_mnn_conv *conv);

/* --- float_sigmoid.c, float_pool.c: Sigmoid, means over windows
 * ----------------------------------*/
extern const qn_run_op qn__mnn_sigmoid_op, qn__mnn_pool_op;
bool qn__mnn_sigmoid_takes(const qn_node *node);
bool qn__mnn_pool_takes(const qn_node *node);

/* --- float_sums.c ------------------------------------------------------------------------------*/
/* c[e][h] = a[e][l] * b[h][l] transposed; rows lda, ldb, ldc floats apart. With bias: plus it, then
 * clamped; without: neither. */
typedef struct qn_mnn_product {
    size_t e, l, h;
    const float *a, *b;
    size_t lda, ldb;
    float *c;
    size_t ldc;
    const float *bias; /* [h] or NULL */
    qn_clamp_f32 clamp;
} qn_mnn_product;
/* c[m][n] = m rows of a, k floats each, times n packed columns (qn__f32_gemm_pack). */
void qn__mnn_packed_product(const qn_f32_igemm *kernel, const float *a, size_t lda, size_t m,
                            size_t n, size_t k, const float *packed, float *c, size_t ldc,
                            const qn_clamp_f32 *clamp);
/* Is the last of an incomplete group's n rows summed on its own, in four chains? */
bool qn__mnn_leaves_one(size_t n);
float qn__mnn_sum_in_chains(const float *a, const float *b, size_t step_b, size_t n);
/* The rows of an incomplete group: e < QN_MNN_GROUP. scratch: qn__mnn_rest_floats. */
void qn__mnn_rest(const qn_f32_igemm *kernel, const qn_mnn_product *p, float *scratch);
bool qn__mnn_rest_floats(const qn_f32_igemm *kernel, size_t l, size_t h, size_t *out);
/* A 1x1 convolution that MNN cuts into parts: Strassen's sums, blocks of inputs. */
bool qn__mnn_product_is_cut(size_t e, size_t l, size_t h);
void qn__mnn_product(const qn_f32_igemm *kernel, const qn_mnn_product *p, float *scratch);
bool qn__mnn_product_floats(const qn_f32_igemm *kernel, size_t e, size_t l, size_t h, size_t *out);

#endif
