/* 8-bit depthwise convolution for NEON, eight channels at once in 16-bit values. */
#include "kernel/arm/q8_neon.h"

enum { BLOCK = 8 };

static inline __attribute__((always_inline)) int16x8_t
weights_at(const qn_q8_dwconv_args *args, size_t i, size_t j, size_t c, size_t left)
{
    return vmovl_s8(
        vreinterpret_s8_u8(qn_load8(args->w + (i * args->kw + j) * args->w_step + c, left)));
}

/* is_3x3: the weights stay in registers. */
static inline __attribute__((always_inline)) void run_block(const qn_q8_dwconv_args *args, size_t c,
                                                            const bool is_3x3, size_t left)
{
    const size_t kh = is_3x3 ? 3 : args->kh, kw = is_3x3 ? 3 : args->kw;
    const size_t n = left < BLOCK ? left : BLOCK;
    int32_t bias[BLOCK] = {0};
    float scale[BLOCK] = {0};
    memcpy(bias, args->bias + c, n * sizeof *bias);
    memcpy(scale, args->scale + c, n * sizeof *scale);
    const int32x4_t bias0 = vld1q_s32(bias), bias1 = vld1q_s32(bias + 4);
    const float32x4_t scale0 = vld1q_f32(scale), scale1 = vld1q_f32(scale + 4);
    int16x8_t kept[9];
    if (is_3x3)
#pragma GCC unroll 9
        for (size_t t = 0; t < 9; t++)
            kept[t] = weights_at(args, t / 3, t % 3, c, left);
    for (size_t y = 0; y < args->rows; y++) {
        const uint8_t *const *const rows = args->in + y * kh;
        for (size_t x = 0; x < args->n; x++) {
            int32x4_t acc0 = bias0, acc1 = bias1;
#pragma GCC unroll 3
            for (size_t i = 0; i < kh; i++) {
                const uint8_t *const in = rows[i] + x * args->in_step + c;
#pragma GCC unroll 3
                for (size_t j = 0; j < kw; j++) {
                    const int16x8_t v =
                        vreinterpretq_s16_u16(vmovl_u8(qn_load8(in + args->in_col[j], left)));
                    const int16x8_t w = is_3x3 ? kept[i * 3 + j] : weights_at(args, i, j, c, left);
                    acc0 = vmlal_s16(acc0, vget_low_s16(v), vget_low_s16(w));
                    acc1 = vmlal_high_s16(acc1, v, w);
                }
            }
            qn_q8_store8(args->out, y * args->out_row + x * args->out_step + c, acc0, acc1, scale0,
                         scale1, &args->format, left);
        }
    }
}

#define RUN(name, is_3x3, left)                                                                    \
    static void name(const qn_q8_dwconv_args *args, size_t c)                                      \
    {                                                                                              \
        run_block(args, c, is_3x3, left);                                                          \
    }
RUN(window, false, BLOCK)
RUN(window3, true, BLOCK)
RUN(rest, false, args->channels - c)

void qn__q8_dwconv_neon(const qn_q8_dwconv_args *args)
{
    const bool is_3x3 = args->kh == 3 && args->kw == 3;
    size_t c = 0;
    for (; c + BLOCK <= args->channels; c += BLOCK)
        (is_3x3 ? window3 : window)(args, c);
    if (c < args->channels)
        rest(args, c);
}
