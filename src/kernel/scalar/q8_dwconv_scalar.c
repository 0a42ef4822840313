/* Reference of the 8-bit depthwise convolution. Sums are modulo 2^32. */
#include "kernel/scalar/q8_requant.h"

void qn__q8_dwconv_scalar(const qn_q8_dwconv_args *args)
{
    const size_t kh = args->kh, kw = args->kw;
    const size_t before = args->left ? args->in_col[1] : 0; /* first */
    for (size_t y = 0; y < args->rows; y++)
        for (size_t x = 0; x < args->n; x++)
            for (size_t c = 0; c < args->channels; c++) {
                uint32_t sum = (uint32_t)args->bias[c];
                for (size_t i = 0; i < kh; i++) {
                    const uint8_t *const in = args->in[y * kh + i] + c;
                    const int8_t *const w = args->w + i * kw * args->w_step + c;
                    for (size_t j = 0; j < kw; j++) {
                        const bool outside = (args->left && x == 0 && j == 0) ||
                                             (args->right && x + 1 == args->n && j + 1 == kw);
                        const uint8_t value =
                            outside ? args->edge : in[x * args->in_step + args->in_col[j] - before];
                        sum += (uint32_t)(value * w[j * args->w_step]);
                    }
                }
                qn_q8_store(args->out, y * args->out_row + x * args->out_step + c, (int32_t)sum,
                            args->scale[c], &args->format);
            }
}
