/* Runs the indirect GEMM kernel over a whole matrix: cuts it into tiles that fit the caches and
 * spreads them over the pool. Every output is computed by one kernel call, so the result does not
 * depend on the number of threads. */
#ifndef QN_RUN_OPS_IGEMM_RUN_H
#define QN_RUN_OPS_IGEMM_RUN_H

#include "run/op.h"

/* Kernels of up to this many taps times rows keep their row pointers on the stack. */
#define QN_IGEMM_STACK_ROWS 1024

typedef struct qn_igemm_job {
    const qn_f32_igemm *kernel;
    size_t m, n, kc, ks;
    /* groups: independent products; group g reads rows made for g, packed + g * packed_stride, and
     * writes c + g * c_group. 1 for a plain product. */
    size_t groups, packed_stride, c_group;
    const float *packed;
    float *c;
    size_t c_stride;
    qn_clamp_f32 clamp;
    /* Writes ks groups of kernel->mr row pointers for output rows m0 .. m0 + mr, entries from mr on
     * repeating a valid row. */
    void (*rows)(const struct qn_igemm_job *job, size_t group, size_t m0, size_t mr,
                 const float **a);
    const void *ctx;          /* of rows */
    const float **row_buffer; /* qn__igemm_buffer_bytes; NULL when that is 0 */
} qn_igemm_job;

/* qn__f32_gemm_pack with the panels spread over the pool. */
void qn__igemm_pack(qn_pool *pool, float *packed, const float *w, const float *bias, size_t n,
                    size_t kc, size_t ks, size_t stride_n, size_t stride_p, size_t stride_k,
                    size_t nr);
/* Bytes of row_buffer for a job; false on overflow. 0 unless there are very many taps. */
bool qn__igemm_buffer_bytes(size_t *out, const qn_f32_igemm *kernel, size_t m, size_t ks,
                            size_t groups);
void qn__igemm_run(const qn_igemm_job *job, qn_pool *pool);

#endif
