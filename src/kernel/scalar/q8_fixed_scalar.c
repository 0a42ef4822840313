/* Reference of requantization by integers, one number at a time. */
#include "kernel/kernel.h"

int32_t qn__fixed_times(int32_t x, qn_multiplier fixed, bool once)
{
    const int left = fixed.exponent > 0 ? fixed.exponent : 0;
    if (once)
        return qn_fixed_saturate(
            qn_fixed_half_up((int64_t)x * fixed.multiplier, 31 - fixed.exponent));
    const int32_t moved = qn_fixed_saturate((int64_t)x * (INT64_C(1) << left));
    return qn_fixed_divide(qn_fixed_high_product(moved, fixed.multiplier), left - fixed.exponent);
}

void qn__q8_fixed_scalar(const qn_q8_fixed_args *args)
{
    for (size_t r = 0; r < args->rows; r++)
        for (size_t i = 0; i < args->n; i++) {
            const int32_t x = args->sums[r * args->sums_stride + i];
            const int64_t v = (int64_t)qn__fixed_times(x, args->fixed[i], args->once) + args->zero;
            args->out[r * args->out_stride + i] = (uint8_t)(v < args->lo   ? args->lo
                                                            : v > args->hi ? args->hi
                                                                           : v);
        }
}

void qn__q8_fixed_skip(const qn_q8_fixed_args *args, size_t c0, size_t columns, qn_q8_fixed_fn fn)
{
    const size_t left = args->n - c0;
    qn_q8_fixed_args some = *args;
    some.n = left < columns ? left : columns;
    some.sums += c0;
    some.fixed += c0;
    some.out += c0;
    qn__q8_fixed_scalar(&some);
    some.sums += some.n;
    some.fixed += some.n;
    some.out += some.n;
    some.n = left - some.n;
    fn(&some);
}
