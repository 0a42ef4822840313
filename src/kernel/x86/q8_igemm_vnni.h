/* What the 8-bit GEMM of AVX-512 VNNI does for other kernels. */
#ifndef QN_KERNEL_X86_Q8_IGEMM_VNNI_H
#define QN_KERNEL_X86_Q8_IGEMM_VNNI_H

#include "kernel/kernel.h"

/* PART: rows of a call from which on it is cut without loss. */
enum { QN_Q8_VNNI_MR = 192, QN_Q8_VNNI_PART = 24 };
/* qn_q8_igemm_fn with taps of a_step row pointers, of which those from mr to the next multiple of
 * QN_Q8_VNNI_PART repeat a valid row. */
void qn__q8_igemm_vnni_rows(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                            size_t a_step, uint8_t flip, const void *w, void *c, size_t c_stride,
                            const qn_q8_out *out);

#endif
