/* 8-bit depthwise convolution for NEON, eight channels at once in 16-bit values. */
#include "kernel/arm/q8_neon.h"

enum { BLOCK = 8 };

static inline __attribute__((always_inline)) int16x8_t taps(const uint8_t *p, size_t left,
                                                            const bool is_signed, int16x8_t zero)
{
    const uint8x8_t bytes = qn_load8(p, left);
    const int16x8_t wide =
        is_signed ? vmovl_s8(vreinterpret_s8_u8(bytes)) : vreinterpretq_s16_u16(vmovl_u8(bytes));
    return vsubq_s16(wide, zero); /* within -255..255 */
}

static inline __attribute__((always_inline)) int16x8_t
weights_at(const qn_q8_dwconv_args *args, size_t i, size_t j, size_t c, size_t left)
{
    return vmovl_s8(
        vreinterpret_s8_u8(qn_load8(args->w + i * args->w_row + j * args->channels + c, left)));
}

/* is_3x3: the weights stay in registers. */
static inline __attribute__((always_inline)) void run_block(const qn_q8_dwconv_args *args, size_t c,
                                                            const bool is_3x3, const bool is_signed,
                                                            size_t left)
{
    const size_t kh = is_3x3 ? 3 : args->kh, kw = is_3x3 ? 3 : args->kw;
    const int16x8_t zero = vdupq_n_s16((int16_t)args->in_zero);
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
    for (size_t x = 0; x < args->n; x++) {
        int32x4_t acc0 = bias0, acc1 = bias1;
#pragma GCC unroll 3
        for (size_t i = 0; i < kh; i++) {
            const uint8_t *const in = args->in + x * args->in_step + i * args->in_row + c;
#pragma GCC unroll 3
            for (size_t j = 0; j < kw; j++) {
                const int16x8_t v = taps(in + j * args->in_col, left, is_signed, zero);
                const int16x8_t w = is_3x3 ? kept[i * 3 + j] : weights_at(args, i, j, c, left);
                acc0 = vmlal_s16(acc0, vget_low_s16(v), vget_low_s16(w));
                acc1 = vmlal_high_s16(acc1, v, w);
            }
        }
        qn_q8_store8(args->out, x * args->out_step + c, acc0, acc1, scale0, scale1, &args->format,
                     left);
    }
}

#define RUN(name, is_3x3, is_signed, left)                                                         \
    static void name(const qn_q8_dwconv_args *args, size_t c)                                      \
    {                                                                                              \
        run_block(args, c, is_3x3, is_signed, left);                                               \
    }
RUN(window_unsigned, false, false, BLOCK)
RUN(window_signed, false, true, BLOCK)
RUN(window3_unsigned, true, false, BLOCK)
RUN(window3_signed, true, true, BLOCK)
RUN(rest_unsigned, false, false, args->channels - c)
RUN(rest_signed, false, true, args->channels - c)

void qn__q8_dwconv_neon(const qn_q8_dwconv_args *args)
{
    static void (*const blocks[2][2])(const qn_q8_dwconv_args *, size_t) = {
        {window_unsigned, window_signed}, {window3_unsigned, window3_signed}};
    const bool is_3x3 = args->kh == 3 && args->kw == 3;
    size_t c = 0;
    for (; c + BLOCK <= args->channels; c += BLOCK)
        blocks[is_3x3][args->in_signed](args, c);
    if (c < args->channels)
        (args->in_signed ? rest_signed : rest_unsigned)(args, c);
}
