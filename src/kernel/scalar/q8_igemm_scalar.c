/* Reference of the 8-bit indirect GEMM, one output at a time. Sums are modulo 2^32, like those of
 * every other implementation: the order of adding does not matter. */
#include "kernel/scalar/q8_requant.h"

#include <string.h>

enum { MR = 4, NR = 4, KR = 1 };

void qn__q8_igemm_4x4_scalar(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                             uint8_t flip, bool safe, const void *w, void *c, size_t c_stride,
                             const qn_q8_out *out)
{
    (void)safe; /* sums are never narrower than 32 bits here */
    const size_t panel_bytes = NR * (sizeof(int32_t) + sizeof(float) + ks * kc * KR);
    for (size_t n = 0; n < nc; n++) {
        const uint8_t *const panel = (const uint8_t *)w + n / NR * panel_bytes;
        const int8_t *const weights =
            (const int8_t *)panel + NR * (sizeof(int32_t) + sizeof(float)) + n % NR;
        int32_t base;
        float scale;
        memcpy(&base, panel + n % NR * sizeof base, sizeof base);
        memcpy(&scale, panel + NR * sizeof base + n % NR * sizeof scale, sizeof scale);
        for (size_t m = 0; m < mr; m++) {
            uint32_t sum = (uint32_t)base;
            for (size_t p = 0; p < ks; p++) {
                const uint8_t *const row = a[p * MR + m];
                for (size_t k = 0; k < kc; k++)
                    sum += (uint32_t)((int32_t)(row[k] ^ flip) * weights[(p * kc + k) * NR]);
            }
            qn_q8_store(c, m * c_stride + n, (int32_t)sum, scale, out);
        }
    }
}
