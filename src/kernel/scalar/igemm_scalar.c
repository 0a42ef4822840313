/* Reference of the indirect GEMM: one output at a time, products added in the order p, k to the
 * bias. Every other implementation is held against it. */
#include "kernel/scalar/fused.h"

enum { MR = 4, NR = 4 };

void qn__f32_igemm_4x4_scalar(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                              const float *w, float *c, size_t c_stride, const qn_clamp_f32 *clamp)
{
    const size_t panel_floats = NR * (1 + ks * kc);
    for (size_t n = 0; n < nc; n++) {
        const float *const panel = w + n / NR * panel_floats + n % NR;
        for (size_t m = 0; m < mr; m++) {
            float sum = panel[0];
            for (size_t p = 0; p < ks; p++)
                for (size_t k = 0; k < kc; k++)
                    sum = qn_fused(a[p * MR + m][k], panel[(1 + p * kc + k) * NR], sum);
            sum = sum < clamp->lo ? clamp->lo : sum;
            c[m * c_stride + n] = sum > clamp->hi ? clamp->hi : sum;
        }
    }
}
