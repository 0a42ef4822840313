/* Reference of the 8-bit depthwise convolution. Sums are modulo 2^32. */
#include "kernel/scalar/q8_requant.h"

void qn__q8_dwconv_scalar(const qn_q8_dwconv_args *args)
{
    const uint8_t flip = args->in_signed ? 0x80 : 0;
    const int32_t zero = args->in_zero + flip; /* both moved up by 128 */
    for (size_t x = 0; x < args->n; x++) {
        for (size_t c = 0; c < args->channels; c++) {
            uint32_t sum = (uint32_t)args->bias[c];
            for (size_t i = 0; i < args->kh; i++) {
                const uint8_t *const in = args->in + x * args->in_step + i * args->in_row + c;
                const int8_t *const w = args->w + i * args->w_row + c;
                for (size_t j = 0; j < args->kw; j++)
                    sum += (uint32_t)(((int32_t)(in[j * args->in_col] ^ flip) - zero) *
                                      w[j * args->channels]);
            }
            qn_q8_store(args->out, x * args->out_step + c, (int32_t)sum, args->scale[c],
                        &args->format);
        }
    }
}
