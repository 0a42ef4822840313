/* Products of two quantized activations in integers: the right side is packed for the 8-bit kernels
 * while running, in scratch memory. Bytes on the right are as they are, or with their top bit
 * flipped where unsigned; what is left of their zero point is one more tap of constant weights (two
 * where it is 128), which multiplies the same rows again. */
#ifndef QN_RUN_OPS_Q8_PRODUCT_H
#define QN_RUN_OPS_Q8_PRODUCT_H

#include "run/ops/q8_run.h"

typedef struct qn_q8_product {
    qn_q8_packed packed; /* of one matrix; no data of its own */
    const qn_requant *requant;
    uint32_t zero; /* of the left side's bytes as the kernel sees them */
    size_t n, k, stride_n, stride_k;
    size_t taps; /* of constant weights */
    int8_t rest; /* such a weight */
    bool flips;  /* right side is unsigned */
    uint8_t table[256];
    size_t base_at, values_at; /* in the scratch memory */
} qn_q8_product;

/* Right sides of n columns (and k rows, or transposed); false: integers do not apply. The
 * requantization must live as long as the product. *scratch: bytes that a run needs, at a multiple
 * of 64. */
bool qn__q8_product_plan(const qn_plan *plan, const qn_step *step, const qn_qparams *a,
                         const qn_qparams *b, const qn_requant *requant, size_t n, size_t k,
                         bool trans_b, qn_q8_product *out, size_t *scratch);
/* Before the first matrix of a run. */
void qn__q8_product_begin(const qn_q8_product *product, uint8_t *scratch);
void qn__q8_product_pack(const qn_q8_product *product, const qn_step *step, const qn_run_env *env,
                         const uint8_t *b, uint8_t *scratch);
/* c = a * the matrix packed last; a: m rows of k bytes. */
void qn__q8_product_run(const qn_q8_product *product, const qn_run_env *env, const uint8_t *a,
                        size_t m, void *c, const uint8_t *scratch);

#endif
