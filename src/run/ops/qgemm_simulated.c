/* Quantized Gemm and MatMul as exact products in float (qcore.h). With saturate16 the sums of
 * neighbouring products with constant weights saturate to int16. */
#include "run/nd.h"
#include "run/ops/simulated.h"

#include <string.h>

typedef struct sim_state {
    qn_qgemm_shape shape;
    qn_qparams a, b;
    bool saturates;
    qn_qweights weights; /* constant b; fixed: of all */
    float *scale;        /* [n] for products of activations */
    qn_requant requant;
    qn_qproduct product;
    float *packed;
    int32_t *base;
} sim_state;

static void release(const qn_context *ctx, qn_step *step)
{
    sim_state *const s = step->state;
    qn__qweights_free(ctx, &s->weights);
    qn__qproduct_free(ctx, &s->product);
    qn__free_aligned(ctx, s->packed);
    qn__free(ctx, s->base);
    qn__free(ctx, s->scale);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status pack_constant(const qn_context *ctx, qn_step *step, sim_state *s, qn_error *error)
{
    const float *const w = s->weights.values;
    const size_t stride_n = s->shape.trans_b ? s->shape.k : 1,
                 stride_k = s->shape.trans_b ? 1 : s->shape.n;
    const size_t pairs = (s->shape.k + 1) / 2;
    const size_t floats = s->saturates ? pairs * 2 * s->shape.n : s->product.group_floats;
    s->packed = qn__alloc_aligned(ctx, (floats + 16) * sizeof(float));
    step->packed_bytes = floats * sizeof(float);
    s->base = qn__calloc(ctx, s->shape.n, sizeof(*s->base));
    if (s->packed == NULL || s->base == NULL)
        return QN_NOMEM(error);
    if (!s->saturates) {
        qn__qproduct_pack(&s->product, s->packed, w, stride_n, 0, stride_k);
        return QN_OK;
    }
    memset(s->packed, 0, floats * sizeof(float));
    const int32_t zero = s->a.zero + (s->a.dtype == QN_DTYPE_I8 ? 128 : 0);
    for (size_t n = 0; n < s->shape.n; n++) {
        int64_t sum = 0;
        for (size_t k = 0; k < s->shape.k; k++) {
            s->packed[k * s->shape.n + n] = w[n * stride_n + k * stride_k];
            sum += (int64_t)w[n * stride_n + k * stride_k];
        }
        s->base[n] = (int32_t)(-zero * sum);
    }
    return QN_OK;
}

static qn_status read_right(const qn_plan *plan, qn_step *step, sim_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const bool gemm = step->node->op == QN_OP_GEMM;
    const float alpha = gemm ? qn__attr_float(step->node, "alpha", 1.0f) : 1.0f;
    float s_y;
    int32_t w_max = 255;
    if (s->shape.constant_b) {
        QN_TRY(qn__qweights_read(plan, step, 1, s->shape.trans_b ? 0 : 1, s->shape.n, &s->a, alpha,
                                 gemm ? 2 : UINT32_MAX, &s->weights, error));
        QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed,
                           &s->requant, &s_y, error));
        s->saturates = qn_saturates(plan, step->node->inputs[1]);
        w_max = s->weights.max;
    } else {
        QN_TRY(qn__qparams_read(step, step->node->inputs[1], &s->b, error));
        QN_TRY(qn__qgemm_scales(plan, step, s->shape.n, &s->a, &s->b, &s->scale, &s->weights.fixed,
                                &s->requant, error));
    }
    if (!s->saturates)
        QN_TRY(qn__qproduct_plan(ctx, &step->kernels->f32_igemm, s->shape.n, s->shape.k, 1, 255,
                                 w_max, &s->product, error));
    return s->shape.constant_b ? pack_constant(ctx, step, s, error) : QN_OK;
}

static qn_status fill(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    sim_state *const s = state;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &s->a, error));
    QN_TRY(qn__qgemm_shape(step, &s->shape, error));
    QN_TRY(read_right(plan, step, s, error));
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    size_t floats = s->shape.a_count * (s->shape.trans_a ? 2 : 1);
    if (!s->shape.constant_b)
        floats += s->shape.b_count + s->product.group_floats;
    step->scratch_bytes = floats * sizeof(float);
    step->kernel_name = s->saturates ? "qgemm_saturating" : "qgemm";
    qn__qweights_drop_values(qn__plan_context(plan), &s->weights);
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(sim_state), fill, release, error);
}

typedef struct qgemm_job {
    const sim_state *s;
    const float *a; /* [m][k] centred */
    void *dst;
} qgemm_job;

static void product_rows(const qn_qrun *run, size_t group, size_t m, size_t p0, size_t np,
                         size_t k0, const float **a, size_t step)
{
    (void)group;
    (void)p0;
    (void)np;
    (void)step;
    const qgemm_job *const job = run->ctx;
    a[0] = job->a + m * job->s->shape.k + k0;
}

static void saturating_range(void *arg, size_t begin, size_t end)
{
    enum { PART = 512, COLUMNS = 512 };
    const qgemm_job *const job = arg;
    const sim_state *const s = job->s;
    const float zero = (float)(s->a.zero + (s->a.dtype == QN_DTYPE_I8 ? 128 : 0));
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    float x[PART + 2];
    int32_t acc[COLUMNS];
    for (size_t m = begin; m < end; m++) {
        for (size_t n0 = 0; n0 < s->shape.n; n0 += COLUMNS) {
            const size_t n = s->shape.n - n0 < COLUMNS ? s->shape.n - n0 : COLUMNS;
            memcpy(acc, s->base + n0, n * sizeof(*acc));
            for (size_t k0 = 0; k0 < s->shape.k; k0 += PART) {
                const size_t part = s->shape.k - k0 < PART ? s->shape.k - k0 : PART;
                for (size_t i = 0; i < part; i++)
                    x[i] = job->a[m * s->shape.k + k0 + i] + zero;
                x[part] = 0.0f;
                qn__saturating_part(x, s->packed + k0 * s->shape.n + n0, (part + 1) / 2, n,
                                    s->shape.n, acc);
            }
            qn__requant_row(&s->requant, acc, n0, n, (uint8_t *)job->dst + m * s->shape.n * elem);
        }
    }
}

static void run_matrix(const sim_state *s, const qgemm_job *job, const float *packed, qn_pool *pool)
{
    if (s->saturates) {
        qn__parallel_ranges(pool, saturating_range, (void *)job, s->shape.m,
                            s->shape.k * s->shape.n);
        return;
    }
    const qn_qrun product = {.product = &s->product,
                             .packed = packed,
                             .m = s->shape.m,
                             .groups = 1,
                             .rows = product_rows,
                             .ctx = job,
                             .requant = &s->requant,
                             .dst = job->dst,
                             .dst_stride = s->shape.n};
    qn__qproduct_run(&product, pool);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const sim_state *const s = step->state;
    float *a = env->scratch, *next = a + s->shape.a_count;
    qn__unpack_centered(env->pool, in[0].data, s->a.dtype, s->a.zero, a, s->shape.a_count);
    if (s->shape.trans_a) {
        const int64_t dims[2] = {(int64_t)s->shape.m, (int64_t)s->shape.k},
                      strides[2] = {1, (int64_t)s->shape.m};
        qn__strided_copy(env->pool, next, a, 2, dims, strides, sizeof(float));
        a = next;
        next += s->shape.a_count;
    }
    if (s->shape.constant_b) {
        const qgemm_job job = {s, a, out[0].data};
        run_matrix(s, &job, s->packed, env->pool);
        return QN_OK;
    }
    float *const b = next, *const packed = b + s->shape.b_count;
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    qn__unpack_centered(env->pool, in[1].data, s->b.dtype, s->b.zero, b, s->shape.b_count);
    for (size_t i = 0; i < s->shape.batches; i++) {
        size_t left, right;
        qn__qgemm_matrices(&s->shape, i, &left, &right);
        qn__qproduct_pack(&s->product, packed, b + right * s->shape.k * s->shape.n,
                          s->shape.trans_b ? s->shape.k : 1, 0, s->shape.trans_b ? 1 : s->shape.n);
        const qgemm_job job = {s, a + left * s->shape.m * s->shape.k,
                               (uint8_t *)out[0].data + i * s->shape.m * s->shape.n * elem};
        run_matrix(s, &job, packed, env->pool);
    }
    return QN_OK;
}

const qn_run_op qn__op_qgemm_simulated = {QN_OP_NONE, prepare, run, release};
