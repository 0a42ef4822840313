#include "calib/scan.h"

#include "kernel/kernel.h"

qn_status qn__scan_range(const qn_context *ctx, const float *values, size_t count, float *lo,
                         float *hi, qn_error *error)
{
    qn_kernels kernels;
    if (count == 0)
        return QN_OK;
    qn__kernels_init(&kernels, ctx->cpu_flags);
    if (!kernels.f32_range.fn(values, count, lo, hi)) {
        for (size_t i = 0; i < count; i++)
            QN_FAIL_IF(!(values[i] - values[i] == 0.0f), error, QN_NONFINITE, "value %zu is %g", i,
                       (double)values[i]);
    }
    *lo += 0.0f; /* -0 + 0 = +0 */
    *hi += 0.0f;
    return QN_OK;
}
