#include "kernel/scalar/fused.h"

/* One output of few rows times weights kept as integers. */
static float one(const qn_f32_ints_args *p, const float *a, size_t n)
{
    enum { NR = 16 };
    const size_t row = p->halves ? NR / 2 : NR, head = p->zeros ? 2 * NR : NR, j = n % NR;
    const uint8_t *const panel = p->w + n / NR * p->panel_bytes;
    const float *const heads = (const float *)(const void *)panel;
    const size_t blocks = (p->k + p->block - 1) / p->block;
    const uint8_t *const q = panel + (NR + blocks * head) * sizeof(float);
    float sum = heads[j];
    for (size_t k = 0; k < p->k; k++) {
        const float *const h = heads + NR + k / p->block * head;
        const uint8_t byte = q[k * row + j % row];
        const int32_t v = !p->halves ? byte : j < NR / 2 ? byte & 15 : byte >> 4;
        sum = qn_fused(a[k], ((float)v - (p->zeros ? h[NR + j] : p->zero)) * h[j], sum);
    }
    sum = sum > p->clamp.lo ? sum : p->clamp.lo;
    return sum < p->clamp.hi ? sum : p->clamp.hi;
}

void qn__f32_ints_scalar(const qn_f32_ints_args *p)
{
    for (size_t m = 0; m < p->m; m++)
        for (size_t n = 0; n < p->n; n++)
            p->c[m * p->c_stride + n] = one(p, p->a + m * p->a_stride, n);
}
