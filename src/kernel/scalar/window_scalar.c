/* Reference of depthwise convolution and pooling. */
#include "kernel/scalar/fused.h"

void qn__f32_dwconv_scalar(const qn_f32_dwconv_args *args)
{
    for (size_t x = 0; x < args->n; x++) {
        for (size_t c = 0; c < args->channels; c++) {
            float sum = args->bias[c];
            for (size_t i = 0; i < args->kh; i++)
                for (size_t j = 0; j < args->kw; j++)
                    sum = qn_fused(
                        args->in[x * args->in_step + i * args->in_row + j * args->in_col + c],
                        args->w[i * args->w_row + j * args->channels + c], sum);
            sum = sum < args->clamp.lo ? args->clamp.lo : sum;
            args->out[x * args->out_step + c] = sum > args->clamp.hi ? args->clamp.hi : sum;
        }
    }
}

void qn__f32_maxpool_scalar(const qn_f32_pool_args *args)
{
    for (size_t x = 0; x < args->n; x++) {
        for (size_t c = 0; c < args->channels; c++) {
            const float *const in = args->in + x * args->in_step + c;
            float best = in[0];
            for (size_t i = 0; i < args->kh; i++) {
                for (size_t j = 0; j < args->kw; j++) {
                    const float v = in[i * args->in_row + j * args->in_col];
                    best = v > best ? v : best;
                }
            }
            args->out[x * args->out_step + c] = best;
        }
    }
}

void qn__f32_avgpool_scalar(const qn_f32_pool_args *args)
{
    for (size_t x = 0; x < args->n; x++) {
        for (size_t c = 0; c < args->channels; c++) {
            const float *const in = args->in + x * args->in_step + c;
            float sum = 0.0f;
            for (size_t i = 0; i < args->kh; i++)
                for (size_t j = 0; j < args->kw; j++)
                    sum += in[i * args->in_row + j * args->in_col];
            args->out[x * args->out_step + c] = sum * args->scale;
        }
    }
}
