/* Packing of GEMM weights: panels of nr columns, each nr biases followed by ks * kc rows of nr
 * weights. One layout for every instruction set; only nr differs. */
#include "kernel/kernel.h"

#include <string.h>

size_t qn__f32_gemm_packed_count(size_t n, size_t kc, size_t ks, size_t nr)
{
    return (n + nr - 1) / nr * nr * (1 + ks * kc);
}

void qn__f32_gemm_pack(float *packed, const float *w, const float *bias, size_t n, size_t kc,
                       size_t ks, size_t stride_n, size_t stride_p, size_t stride_k, size_t nr)
{
    for (size_t n0 = 0; n0 < n; n0 += nr) {
        const size_t width = n - n0 < nr ? n - n0 : nr;
        for (size_t j = 0; j < nr; j++)
            *packed++ = bias != NULL && j < width ? bias[n0 + j] : 0.0f;
        for (size_t p = 0; p < ks; p++) {
            for (size_t k = 0; k < kc; k++) {
                const float *const row = w + n0 * stride_n + p * stride_p + k * stride_k;
                if (stride_n == 1 && width == nr) {
                    memcpy(packed, row, nr * sizeof(float));
                    packed += nr;
                    continue;
                }
                for (size_t j = 0; j < nr; j++)
                    *packed++ = j < width ? row[j * stride_n] : 0.0f;
            }
        }
    }
}
