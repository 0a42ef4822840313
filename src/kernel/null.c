#include "kernel/null.h"

static void f32_igemm(size_t mr, size_t nc, size_t kc, size_t ks, const float *const *a,
                      const float *w, float *c, size_t c_stride, const qn_clamp_f32 *clamp)
{
    (void)mr, (void)nc, (void)kc, (void)ks, (void)a, (void)w, (void)c, (void)c_stride, (void)clamp;
}

static void f32_exp(const float *in, float *out, size_t n)
{
    (void)in, (void)out, (void)n;
}

static void q8_igemm(size_t mr, size_t nc, size_t kc, size_t ks, const uint8_t *const *a,
                     uint8_t flip, bool safe, const void *w, void *c, size_t c_stride,
                     const qn_q8_out *out)
{
    (void)mr, (void)nc, (void)kc, (void)ks, (void)a, (void)flip, (void)safe, (void)w, (void)c;
    (void)c_stride, (void)out;
}

static void q8_join(uint8_t *to, const uint8_t *const from[3], const uint8_t *masks, size_t n)
{
    (void)to, (void)from, (void)masks, (void)n;
}

static void q8_table(const uint8_t table[256], const uint8_t *src, uint8_t *dst, size_t n)
{
    (void)table, (void)src, (void)dst, (void)n;
}

static void f32_expand(const qn_f32_ints_args *args, float *out)
{
    (void)args, (void)out;
}

#define NULL_OF(slot, type)                                                                        \
    static void slot(const type *args)                                                             \
    {                                                                                              \
        (void)args;                                                                                \
    }
NULL_OF(f32_ints, qn_f32_ints_args)
NULL_OF(f32_dwconv, qn_f32_dwconv_args)
NULL_OF(f32_pool, qn_f32_pool_args)
NULL_OF(q8_dwconv, qn_q8_dwconv_args)
NULL_OF(q8_binary, qn_q8_binary_args)
NULL_OF(q8_maxpool, qn_q8_maxpool_args)
NULL_OF(q8_avgpool, qn_q8_avgpool_args)
NULL_OF(q8_quantize, qn_q8_quantize_args)
NULL_OF(q8_dequantize, qn_q8_dequantize_args)
NULL_OF(q8_fixed, qn_q8_fixed_args)
NULL_OF(q8_winograd, qn_q8_winograd_args)

void qn__kernels_null(qn_kernels *kernels)
{
    kernels->f32_igemm.fn = f32_igemm;
    kernels->f32_ints.fn = f32_ints;
    if (kernels->f32_ints.expand != NULL)
        kernels->f32_ints.expand = f32_expand;
    kernels->f32_dwconv.fn = f32_dwconv;
    kernels->f32_maxpool.fn = f32_pool;
    kernels->f32_avgpool.fn = f32_pool;
    kernels->f32_exp.fn = f32_exp;
    kernels->q8_igemm.fn = q8_igemm;
    if (kernels->q8_igemm.join != NULL)
        kernels->q8_igemm.join = q8_join;
    kernels->q8_dwconv.fn = q8_dwconv;
    kernels->q8_add.fn = q8_binary;
    kernels->q8_mul.fn = q8_binary;
    kernels->q8_sub.fn = q8_binary;
    kernels->q8_maxpool.fn = q8_maxpool;
    kernels->q8_avgpool.fn = q8_avgpool;
    kernels->q8_quantize.fn = q8_quantize;
    kernels->q8_dequantize.fn = q8_dequantize;
    kernels->q8_table.fn = q8_table;
    kernels->q8_fixed.fn = q8_fixed;
    kernels->q8_winograd.fn = kernels->q8_winograd.inputs = q8_winograd;
}
