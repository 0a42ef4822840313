/* Float GEMM in sums of integers, for plans that measure: faster where a CPU has tiles, with errors
 * like those of float sums but not the same ones (split_igemm_amx.c). Not in the runtime library.
 */
#ifndef QN_KERNEL_SPLIT_H
#define QN_KERNEL_SPLIT_H

#include "kernel/kernel.h"

typedef struct qn_split_igemm {
    qn_f32_igemm kernel;
    bool (*takes)(size_t n, size_t kc, size_t ks); /* sizes it can do, and does fast */
} qn_split_igemm;

/* NULL: this CPU has none. */
const qn_split_igemm *qn__split_igemm(uint32_t cpu_flags);

void qn__split_igemm_32x32_amx(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                               const float *w, float *c, size_t c_stride,
                               const qn_clamp_f32 *clamp);
void qn__split_repack_amx(float *packed, size_t n, size_t k);
bool qn__split_takes_amx(size_t n, size_t kc, size_t ks);

#endif
