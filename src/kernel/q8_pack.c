/* Packing of 8-bit GEMM weights: panels of nr columns, each nr bases and nr scales followed by the
 * weights: for each tap and each group of kr consecutive k, kr bytes of every column. */
#include "core/checked.h"
#include "kernel/kernel.h"

#include <string.h>

bool qn__q8_gemm_packed_bytes(size_t *out, size_t n, size_t kc, size_t ks, size_t nr, size_t kr)
{
    size_t bytes, k_up, panels;
    if (!qn_add_size(&k_up, kc, kr - 1) || !qn_mul_size(&bytes, k_up / kr * kr, ks) ||
        !qn_add_size(&bytes, bytes, sizeof(int32_t) + sizeof(float)) ||
        !qn_mul_size(&bytes, bytes, nr) || !qn_add_size(&panels, n, nr - 1))
        return false;
    return qn_mul_size(out, bytes, panels / nr);
}

/* Whether two neighbouring products, activations being 0..255, always stay within int16. */
static bool pair_is_safe(int32_t w0, int32_t w1)
{
    const int32_t above = (w0 > 0 ? w0 : 0) + (w1 > 0 ? w1 : 0);
    const int32_t below = (w0 < 0 ? w0 : 0) + (w1 < 0 ? w1 : 0);
    return above * 255 <= INT16_MAX && below * 255 >= INT16_MIN;
}

bool qn__q8_gemm_pack(void *packed, const int8_t *w, const int32_t *base, const float *scale,
                      size_t n, size_t kc, size_t ks, size_t stride_n, size_t stride_p,
                      size_t stride_k, size_t nr, size_t kr)
{
    bool safe = true;
    uint8_t *at = packed;
    for (size_t n0 = 0; n0 < n; n0 += nr) {
        const size_t width = n - n0 < nr ? n - n0 : nr;
        memset(at, 0, nr * (sizeof(int32_t) + sizeof(float)));
        memcpy(at, base + n0, width * sizeof(int32_t));
        memcpy(at + nr * sizeof(int32_t), scale + n0, width * sizeof(float));
        at += nr * (sizeof(int32_t) + sizeof(float));
        for (size_t p = 0; p < ks; p++) {
            const int8_t *const tap = w + n0 * stride_n + p * stride_p;
            for (size_t j = 0; j < width; j++)
                for (size_t k = 0; k + 1 < kc; k += 2)
                    safe &= pair_is_safe(tap[j * stride_n + k * stride_k],
                                         tap[j * stride_n + (k + 1) * stride_k]);
            for (size_t k0 = 0; k0 < kc; k0 += kr)
                for (size_t j = 0; j < nr; j++)
                    for (size_t k = k0; k < k0 + kr; k++)
                        *at++ = j < width && k < kc ? (uint8_t)tap[j * stride_n + k * stride_k] : 0;
        }
    }
    return safe;
}
