/* Reference of requantization by integers, one number at a time. */
#include "kernel/kernel.h"

void qn__q8_fixed_scalar(const qn_q8_fixed_args *args)
{
    for (size_t r = 0; r < args->rows; r++)
        for (size_t i = 0; i < args->n; i++) {
            const int32_t x = args->sums[r * args->sums_stride + i];
            const int64_t v = (int64_t)qn_fixed_times(x, args->fixed[i], args->once) + args->zero;
            args->out[r * args->out_stride + i] = (uint8_t)(v < args->lo   ? args->lo
                                                            : v > args->hi ? args->hi
                                                                           : v);
        }
}
