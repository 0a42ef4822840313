#include "run/ops/q8_product.h"

#include "core/checked.h"

#include <string.h>

__attribute__((cold)) bool qn__q8_product_plan(const qn_plan *plan, const qn_step *step,
                                               const qn_qparams *a, const qn_qparams *b,
                                               const qn_requant *requant, size_t n, size_t k,
                                               bool trans_b, qn_q8_product *out, size_t *scratch)
{
    if (!qn__q8_activations(plan, a) || !qn__q8_activations(plan, b))
        return false;
    qn_q8_product p = {.requant = requant,
                       .n = n,
                       .k = k,
                       .stride_n = trans_b ? k : 1,
                       .stride_k = trans_b ? 1 : n,
                       .flips = b->dtype == QN_DTYPE_U8};
    const int32_t rest = (p.flips ? 128 : 0) - b->zero; /* -127..128 */
    p.taps = rest == 0 ? 0 : rest == 128 ? 2 : 1;
    p.rest = (int8_t)(rest == 128 ? 64 : rest);
    p.packed = (qn_q8_packed){
        .n = n, .kc = k, .ks = 1 + p.taps, .groups = 1, .kernel = step->kernels->q8_igemm};
    p.packed.parts = p.packed.ks;
    if (!qn__q8_set_sizes(&p.packed, a, requant))
        return false;
    p.zero = (uint32_t)a->zero + p.packed.flip;
    for (size_t i = 0; i < 256; i++)
        p.table[i] = (uint8_t)(i ^ (p.flips ? 0x80 : 0));
    size_t bases, values;
    if (!qn_mul_size(&bases, n, sizeof(int32_t)) || !qn_align_size(&bases, bases, 64) ||
        !qn_mul_size(&values, n, k) || !qn_mul_size(&values, values, 1 + p.taps) ||
        !qn_align_size(&p.base_at, p.packed.bytes, 64) ||
        !qn_add_size(&p.values_at, p.base_at, bases) ||
        !qn_add_size(scratch, p.values_at, p.flips || p.taps > 0 ? values : 0))
        return false;
    *out = p;
    return true;
}

void qn__q8_product_begin(const qn_q8_product *p, uint8_t *scratch)
{
    const size_t count = p->n * p->k;
    memset(scratch + p->values_at + count, p->rest, p->taps * count);
}

/* Sums of the columns of rows that lie one behind the other, some columns at a time. */
static void add_up(int32_t *sums, const int8_t *b, size_t n, size_t k)
{
    enum { COLUMNS = 16 };
    size_t n0 = 0;
    for (; n0 + COLUMNS <= n; n0 += COLUMNS) {
        int32_t part[COLUMNS] = {0};
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < COLUMNS; j++)
                part[j] = (int32_t)((uint32_t)part[j] + (uint32_t)b[i * n + n0 + j]);
        memcpy(sums + n0, part, sizeof part);
    }
    for (; n0 < n; n0++)
        sums[n0] = qn__q8_gemm_sum(b + n0, k, n);
}

void qn__q8_product_pack(const qn_q8_product *p, const qn_step *step, const qn_run_env *env,
                         const uint8_t *b, uint8_t *scratch)
{
    const size_t count = p->n * p->k;
    int32_t *const base = (int32_t *)(scratch + p->base_at);
    if (p->flips || p->taps > 0) {
        qn__table_run(env->pool, step->kernels->q8_table.fn, p->table, b, scratch + p->values_at,
                      count);
        b = scratch + p->values_at;
    }
    const int8_t *const values = (const int8_t *)b;
    if (p->stride_k == 1)
        for (size_t n = 0; n < p->n; n++)
            base[n] = qn__q8_gemm_sum(values + n * p->k, p->k, 1);
    else
        add_up(base, values, p->n, p->k);
    const uint32_t rest = (uint32_t)p->taps * (uint32_t)(int32_t)p->rest * (uint32_t)p->k;
    for (size_t n = 0; n < p->n; n++)
        base[n] = (int32_t)(0u - p->zero * ((uint32_t)base[n] + rest));
    qn__q8_gemm_pack(scratch, values, base, p->requant->scale, p->n, p->k, p->packed.ks,
                     p->stride_n, count, p->stride_k, &p->packed.kernel, false);
}

void qn__q8_product_run(const qn_q8_product *p, const qn_run_env *env, const uint8_t *a, size_t m,
                        void *c, const uint8_t *scratch)
{
    qn_q8_packed packed = p->packed;
    packed.data = scratch;
    qn_q8_job job = {.packed = &packed,
                     .m = m,
                     .c = c,
                     .c_stride = p->n,
                     .out = qn__q8_format(p->requant),
                     .fixed = qn_q8_by_fixed_of(p->requant),
                     .first = a,
                     .step = p->k};
    qn__q8_run(&job, env->pool);
}
