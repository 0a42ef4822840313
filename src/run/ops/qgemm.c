/* Quantized Gemm and MatMul. Constant right sides are packed when planning and run by 8-bit kernels
 * where they fit, right sides made while running in scratch memory (q8_product.h); otherwise, and
 * on request as the reference, products are exact ones in float (qcore.h). */
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/broadcast.h"
#include "run/ops/q8_product.h"

#include <math.h>
#include <string.h>

typedef struct qgemm_state {
    qn_qparams a, b;
    size_t m, n, k, batches;
    size_t a_count, b_count; /* elements of the whole inputs */
    bool trans_a, trans_b, constant_b, saturates, integers;
    qn_broadcast batch; /* matrices of a and b for each output matrix */
    bool has_batch;
    qn_qweights weights; /* constant b */
    float *scale;        /* [n] for products of activations */
    qn_requant requant;
    qn_qproduct product;
    qn_q8_packed q8;    /* integers: constant b */
    qn_q8_product both; /* integers: two activations */
    size_t both_bytes;
    float *packed;
    int32_t *base;
} qgemm_state;

static void release(const qn_context *ctx, qn_step *step)
{
    qgemm_state *const s = step->state;
    if (s == NULL)
        return;
    qn__qweights_free(ctx, &s->weights);
    qn__qproduct_free(ctx, &s->product);
    qn__q8_packed_free(ctx, &s->q8);
    qn__free_aligned(ctx, s->packed);
    qn__free(ctx, s->base);
    qn__free(ctx, s->scale);
    qn__free(ctx, s);
    step->state = NULL;
}

/* Sizes from shapes; a and b are [.., rows, columns]. */
static qn_status read_sizes(const qn_step *step, qgemm_state *s, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const a = node->inputs[0], *const b = qn__step_input(step, 1);
    const bool gemm = node->op == QN_OP_GEMM;
    if (b == NULL || a->rank < 2 || b->rank < 2 || (gemm && (a->rank != 2 || b->rank != 2)))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs matrices");
    s->trans_a = gemm && qn__attr_int(node, "transA", 0) != 0;
    s->trans_b = gemm && qn__attr_int(node, "transB", 0) != 0;
    s->constant_b = b->constant != NULL;
    const size_t ar = (size_t)a->dims[a->rank - 2].value, ac = (size_t)a->dims[a->rank - 1].value;
    const size_t br = (size_t)b->dims[b->rank - 2].value, bc = (size_t)b->dims[b->rank - 1].value;
    s->m = s->trans_a ? ac : ar;
    s->k = s->trans_a ? ar : ac;
    s->n = s->trans_b ? br : bc;
    s->a_count = qn__tensor_elements(a);
    s->b_count = qn__tensor_elements(b);
    const size_t count = qn__tensor_elements(node->outputs[0]);
    if (s->k != (s->trans_b ? bc : br) || s->m == 0 || s->n == 0 || s->k == 0 ||
        count % (s->m * s->n) != 0)
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not fit");
    s->batches = count / (s->m * s->n);
    if (s->constant_b && b->rank != 2) /* matrices by matrices, as two activations are */
        s->constant_b = false;
    if (s->constant_b && s->batches * s->m * s->k != s->a_count)
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not fit");
    return QN_OK;
}

/* All rows of all matrices on the left are one matrix against a constant right side. */
static qn_status batch_strides(const qn_step *step, qgemm_state *s, qn_error *error)
{
    if (s->constant_b) {
        s->m *= s->batches;
        s->batches = 1;
        return QN_OK;
    }
    const qn_node *const node = step->node;
    if (!qn__broadcast_matrices(&s->batch, node->outputs[0], node->inputs[0], node->inputs[1]))
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    s->has_batch = true;
    return QN_OK;
}

static qn_status pack_constant(const qn_context *ctx, qn_step *step, qgemm_state *s,
                               qn_error *error)
{
    const float *const w = s->weights.values;
    const size_t stride_n = s->trans_b ? s->k : 1, stride_k = s->trans_b ? 1 : s->n;
    const size_t pairs = (s->k + 1) / 2;
    const size_t floats = s->saturates ? pairs * 2 * s->n : s->product.group_floats;
    s->packed = qn__alloc_aligned(ctx, (floats + 16) * sizeof(float));
    step->packed_bytes = floats * sizeof(float);
    s->base = qn__calloc(ctx, s->n, sizeof(*s->base));
    if (s->packed == NULL || s->base == NULL)
        return QN_NOMEM(error);
    if (!s->saturates) {
        qn__qproduct_pack(&s->product, s->packed, w, stride_n, 0, stride_k);
        return QN_OK;
    }
    memset(s->packed, 0, floats * sizeof(float));
    const int32_t zero = s->a.zero + (s->a.dtype == QN_DTYPE_I8 ? 128 : 0);
    for (size_t n = 0; n < s->n; n++) {
        int64_t sum = 0;
        for (size_t k = 0; k < s->k; k++) {
            s->packed[k * s->n + n] = w[n * stride_n + k * stride_k];
            sum += (int64_t)w[n * stride_n + k * stride_k];
        }
        s->base[n] = (int32_t)(-zero * sum);
    }
    return QN_OK;
}

/* *done false, and the weights' values read: integers do not apply. */
static qn_status pack_integers(const qn_plan *plan, qn_step *step, qgemm_state *s, bool *done,
                               qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_q8_strides strides = {0, s->trans_b ? s->k : 1, 0, s->trans_b ? 1 : s->n};
    s->q8 = (qn_q8_packed){
        .n = s->n, .kc = s->k, .ks = 1, .groups = 1, .kernel = step->kernels->q8_igemm};
    *done = !s->saturates && qn__q8_find(plan, step, &s->a, &s->requant, &strides, &s->q8);
    if (*done) {
        step->packed_bytes = step->mapped_bytes = s->q8.bytes;
        step->weights = s->q8.data;
        return QN_OK;
    }
    if (s->saturates || !qn__q8_applies(plan, &s->a, &s->weights)) {
        QN_TRY(qn__qweights_values(plan, step, 1, s->trans_b ? 0 : 1, &s->weights, error));
        *done = !s->saturates && qn__q8_applies(plan, &s->a, &s->weights);
        if (!*done)
            return QN_OK;
    } else {
        *done = true;
    }
    int8_t *own;
    const int8_t *const values = qn__q8_values(ctx, &s->weights, s->b_count, &own);
    if (values == NULL)
        return QN_NOMEM(error);
    const qn_status status =
        qn__q8_pack(plan, step, &s->a, &s->requant, values, &strides, &s->q8, error);
    qn__free(ctx, own);
    step->packed_bytes = s->q8.bytes;
    step->weights = s->q8.data;
    return status;
}

static qn_status read_right(const qn_plan *plan, qn_step *step, qgemm_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const float alpha =
        step->node->op == QN_OP_GEMM ? qn__attr_float(step->node, "alpha", 1.0f) : 1.0f;
    float s_y;
    int32_t w_max = 255;
    if (s->constant_b) {
        const uint32_t bias = step->node->op == QN_OP_GEMM ? 2 : UINT32_MAX;
        QN_TRY(qn__qweights_scales(plan, step, 1, s->trans_b ? 0 : 1, s->n, &s->a, alpha, bias,
                                   &s->weights, error));
        QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed,
                           &s->requant, &s_y, error));
        s->saturates = qn__plan_get_options(plan)->saturate16 && s->weights.is_signed;
        QN_TRY(pack_integers(plan, step, s, &s->integers, error));
        if (s->integers)
            return QN_OK;
        w_max = s->weights.max;
    } else {
        if (qn__step_input(step, 2) != NULL)
            return qn__step_fail(step, error, QN_UNSUPPORTED,
                                 "bias on a product of two activations");
        QN_TRY(qn__qparams_read(step, step->node->inputs[1], &s->b, error));
        s->scale = qn__calloc(ctx, s->n, sizeof(float));
        if (s->scale == NULL)
            return QN_NOMEM(error);
        QN_TRY(qn__qoutput(plan, step, s->scale, NULL, NULL, &s->requant, &s_y, error));
        const float scale = alpha * s->a.scale * s->b.scale;
        for (size_t i = 0; i < s->n; i++)
            s->scale[i] = s_y > 0.0f ? scale / s_y : scale;
        if (s->requant.kind != QN_REQUANTIZE_DEFAULT) {
            qn_multiplier one;
            const double real = (double)alpha * (double)s->a.scale * (double)s->b.scale;
            QN_TRY(qn__qfixed(plan, step, real / (double)s_y, &one, error));
            s->weights.fixed = qn__calloc(ctx, s->n, sizeof(one));
            if (s->weights.fixed == NULL)
                return QN_NOMEM(error);
            for (size_t i = 0; i < s->n; i++)
                s->weights.fixed[i] = one;
            s->requant.fixed = s->weights.fixed;
        }
        s->integers = qn__q8_product_plan(plan, step, &s->a, &s->b, &s->requant, s->n, s->k,
                                          s->trans_b, &s->both, &s->both_bytes);
        if (s->integers)
            return QN_OK;
    }
    if (!s->saturates)
        QN_TRY(qn__qproduct_plan(ctx, &step->kernels->f32_igemm, s->n, s->k, 1, 255, w_max,
                                 &s->product, error));
    return s->constant_b ? pack_constant(ctx, step, s, error) : QN_OK;
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, qgemm_state *s, qn_error *error)
{
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &s->a, error));
    QN_TRY(read_sizes(step, s, error));
    QN_TRY(batch_strides(step, s, error));
    QN_TRY(read_right(plan, step, s, error));
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    if (s->integers) {
        if (!qn_add_size(&step->scratch_bytes, s->both_bytes, s->trans_a ? s->a_count : 0))
            return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
        step->kernel_name = step->kernels->q8_igemm.name;
        return QN_OK;
    }
    size_t floats = s->a_count * (s->trans_a ? 2 : 1);
    if (!s->constant_b)
        floats += s->b_count + s->product.group_floats;
    step->scratch_bytes = floats * sizeof(float);
    step->kernel_name = s->saturates ? "qgemm_saturating" : "qgemm";
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    qgemm_state *const s = qn__calloc(qn__plan_context(plan), 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    step->state = s;
    const qn_status status = prepare_state(plan, step, s, error);
    qn__qweights_drop_values(qn__plan_context(plan), &s->weights);
    if (status != QN_OK)
        release(qn__plan_context(plan), step);
    return status;
}

typedef struct qgemm_job {
    const qgemm_state *s;
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
    a[0] = job->a + m * job->s->k + k0;
}

static void saturating_range(void *arg, size_t begin, size_t end)
{
    enum { PART = 512, COLUMNS = 512 };
    const qgemm_job *const job = arg;
    const qgemm_state *const s = job->s;
    const float zero = (float)(s->a.zero + (s->a.dtype == QN_DTYPE_I8 ? 128 : 0));
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    float x[PART + 2];
    int32_t acc[COLUMNS];
    for (size_t m = begin; m < end; m++) {
        for (size_t n0 = 0; n0 < s->n; n0 += COLUMNS) {
            const size_t n = s->n - n0 < COLUMNS ? s->n - n0 : COLUMNS;
            memcpy(acc, s->base + n0, n * sizeof(*acc));
            for (size_t k0 = 0; k0 < s->k; k0 += PART) {
                const size_t part = s->k - k0 < PART ? s->k - k0 : PART;
                for (size_t i = 0; i < part; i++)
                    x[i] = job->a[m * s->k + k0 + i] + zero;
                x[part] = 0.0f;
                qn__saturating_part(x, s->packed + k0 * s->n + n0, (part + 1) / 2, n, s->n, acc);
            }
            qn__requant_row(&s->requant, acc, n0, n, (uint8_t *)job->dst + m * s->n * elem);
        }
    }
}

/* Matrices of a and b that output matrix i is made of. */
static void matrices_of(const qgemm_state *s, size_t i, size_t *a, size_t *b)
{
    int64_t at[QN_BROADCAST_MAX];
    const size_t row = i / s->batch.row, axis = s->batch.rank - 1;
    const int64_t column = (int64_t)(i % s->batch.row);
    qn__broadcast_row(&s->batch, row, at);
    *a = (size_t)(at[0] + column * s->batch.strides[0][axis]);
    *b = (size_t)(at[1] + column * s->batch.strides[1][axis]);
}

static void run_batch(const qn_step *step, const qgemm_state *s, const qn_run_env *env,
                      const uint8_t *a, const uint8_t *b, uint8_t *dst)
{
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    uint8_t *const scratch = env->scratch;
    size_t packed = SIZE_MAX;
    qn__q8_product_begin(&s->both, scratch);
    for (size_t i = 0; i < s->batches; i++) {
        size_t left, right;
        matrices_of(s, i, &left, &right);
        if (right != packed)
            qn__q8_product_pack(&s->both, step, env, b + right * s->k * s->n, scratch);
        packed = right;
        qn__q8_product_run(&s->both, env, a + left * s->m * s->k, s->m,
                           dst + i * s->m * s->n * elem, scratch);
    }
}

static void run_integers(const qn_step *step, const qgemm_state *s, const qn_run_env *env,
                         const qn_view *in, void *dst)
{
    const void *a = in[0].data;
    if (s->trans_a) {
        uint8_t *const turned = (uint8_t *)env->scratch + s->both_bytes;
        const int64_t dims[2] = {(int64_t)s->m, (int64_t)s->k}, strides[2] = {1, (int64_t)s->m};
        qn__strided_copy(env->pool, turned, a, 2, dims, strides, 1);
        a = turned;
    }
    if (!s->constant_b) {
        run_batch(step, s, env, a, in[1].data, dst);
        return;
    }
    const qn_q8_job job = {.packed = &s->q8,
                           .m = s->m,
                           .c = dst,
                           .c_stride = s->n,
                           .out = qn__q8_format(&s->requant),
                           .fixed = qn_q8_by_fixed_of(&s->requant),
                           .first = a,
                           .step = s->k};
    qn__q8_run(&job, env->pool);
}

static void run_matrix(const qgemm_state *s, const qgemm_job *job, const float *packed,
                       qn_pool *pool)
{
    if (s->saturates) {
        qn__parallel_ranges(pool, saturating_range, (void *)job, s->m, s->k * s->n);
        return;
    }
    const qn_qrun product = {.product = &s->product,
                             .packed = packed,
                             .m = s->m,
                             .groups = 1,
                             .rows = product_rows,
                             .ctx = job,
                             .requant = &s->requant,
                             .dst = job->dst,
                             .dst_stride = s->n};
    qn__qproduct_run(&product, pool);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const qgemm_state *const s = step->state;
    if (s->integers) {
        run_integers(step, s, env, in, out[0].data);
        return QN_OK;
    }
    float *a = env->scratch, *next = a + s->a_count;
    qn__unpack_centered(env->pool, in[0].data, s->a.dtype, s->a.zero, a, s->a_count);
    if (s->trans_a) {
        const int64_t dims[2] = {(int64_t)s->m, (int64_t)s->k}, strides[2] = {1, (int64_t)s->m};
        qn__strided_copy(env->pool, next, a, 2, dims, strides, sizeof(float));
        a = next;
        next += s->a_count;
    }
    if (s->constant_b) {
        const qgemm_job job = {s, a, out[0].data};
        run_matrix(s, &job, s->packed, env->pool);
        return QN_OK;
    }
    float *const b = next, *const packed = b + s->b_count;
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    qn__unpack_centered(env->pool, in[1].data, s->b.dtype, s->b.zero, b, s->b_count);
    for (size_t i = 0; i < s->batches; i++) {
        size_t left, right;
        matrices_of(s, i, &left, &right);
        qn__qproduct_pack(&s->product, packed, b + right * s->k * s->n, s->trans_b ? s->k : 1, 0,
                          s->trans_b ? 1 : s->n);
        const qgemm_job job = {s, a + left * s->m * s->k,
                               (uint8_t *)out[0].data + i * s->m * s->n * elem};
        run_matrix(s, &job, packed, env->pool);
    }
    return QN_OK;
}

const qn_run_op qn__op_qgemm = {QN_OP_NONE, prepare, run, release};
