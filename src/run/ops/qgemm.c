/* Quantized Gemm and MatMul by 8-bit kernels: constant right sides are packed when planning, those
 * made while running in scratch memory (q8_product.h). What does not fit is left to the simulation.
 */
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/q8_product.h"
#include "run/ops/simulated.h"

typedef struct qgemm_state {
    qn_qgemm_shape shape;
    qn_qparams a, b;
    qn_qweights weights; /* constant b; fixed: of all */
    float *scale;        /* [n] for products of activations */
    qn_requant requant;
    qn_q8_packed q8;    /* constant b */
    qn_q8_product both; /* two activations */
    size_t both_bytes;
} qgemm_state;

static void release(const qn_context *ctx, qn_step *step)
{
    qgemm_state *const s = step->state;
    if (s == NULL)
        return;
    qn__qweights_free(ctx, &s->weights);
    qn__q8_packed_free(ctx, &s->q8);
    qn__free(ctx, s->scale);
    qn__free(ctx, s);
    step->state = NULL;
}

/* a and b are [.., rows, columns]; all rows of all matrices on the left are one matrix against a
 * constant right side. */
qn_status qn__qgemm_shape(const qn_step *step, qn_qgemm_shape *s, qn_error *error)
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
    if (s->constant_b) {
        s->m *= s->batches;
        s->batches = 1;
    } else if (!qn__broadcast_matrices(&s->batch, node->outputs[0], a, b)) {
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    }
    return QN_OK;
}

void qn__qgemm_matrices(const qn_qgemm_shape *s, size_t i, size_t *a, size_t *b)
{
    int64_t at[QN_BROADCAST_MAX];
    const size_t row = i / s->batch.row, axis = s->batch.rank - 1;
    const int64_t column = (int64_t)(i % s->batch.row);
    qn__broadcast_row(&s->batch, row, at);
    *a = (size_t)(at[0] + column * s->batch.strides[0][axis]);
    *b = (size_t)(at[1] + column * s->batch.strides[1][axis]);
}

qn_status qn__qgemm_scales(const qn_plan *plan, const qn_step *step, size_t n, const qn_qparams *a,
                           const qn_qparams *b, float **scale, qn_multiplier **fixed,
                           qn_requant *requant, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const float alpha =
        step->node->op == QN_OP_GEMM ? qn__attr_float(step->node, "alpha", 1.0f) : 1.0f;
    float s_y;
    if (qn__step_input(step, 2) != NULL)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "bias on a product of two activations");
    *scale = qn__calloc(ctx, n, sizeof(float));
    if (*scale == NULL)
        return QN_NOMEM(error);
    QN_TRY(qn__qoutput(plan, step, *scale, NULL, NULL, requant, &s_y, error));
    const float one = alpha * a->scale * b->scale;
    for (size_t i = 0; i < n; i++)
        (*scale)[i] = s_y > 0.0f ? one / s_y : one;
    if (requant->kind == QN_REQUANTIZE_DEFAULT)
        return QN_OK;
    qn_multiplier same;
    const double real = (double)alpha * (double)a->scale * (double)b->scale;
    QN_TRY(qn__qfixed(plan, step, real / (double)s_y, &same, error));
    requant->fixed = *fixed = qn__calloc(ctx, n, sizeof(same));
    if (*fixed == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++)
        (*fixed)[i] = same;
    return QN_OK;
}

static qn_q8_strides strides_of(const qn_qgemm_shape *d)
{
    return (qn_q8_strides){0, d->trans_b ? d->k : 1, d->b_count, d->trans_b ? 1 : d->n};
}

static bool find(const qn_plan *plan, const qn_step *step, void *state, size_t parts)
{
    qgemm_state *const s = state;
    const qn_q8_strides strides = strides_of(&s->shape);
    s->q8 = (qn_q8_packed){.n = s->shape.n,
                           .kc = s->shape.k,
                           .ks = parts,
                           .parts = parts,
                           .groups = 1,
                           .salt = qn_q8_salt(parts),
                           .kernel = step->kernels->q8_igemm};
    return qn__q8_find(plan, step, &s->a, &s->requant, &strides, &s->q8);
}

/* *done false: bytes do not fit. */
static qn_status pack_constant(const qn_plan *plan, qn_step *step, qgemm_state *s, bool *done,
                               qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_qgemm_shape *const d = &s->shape;
    const int axis = d->trans_b ? 0 : 1;
    const bool gemm = step->node->op == QN_OP_GEMM;
    const float alpha = gemm ? qn__attr_float(step->node, "alpha", 1.0f) : 1.0f;
    qn_q8_found way;
    float s_y;
    QN_TRY(qn__qweights_scales(plan, step, 1, axis, d->n, &s->a, alpha, gemm ? 2 : UINT32_MAX,
                               &s->weights, error));
    QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed, &s->requant,
                       &s_y, error));
    *done = !qn_saturates(plan, step->node->inputs[1]);
    if (!*done)
        return QN_OK;
    const qn_q8_strides strides = strides_of(d);
    QN_TRY(qn__q8_search(plan, step, axis, &s->a, &s->weights, find, s, &way, error));
    *done = way != QN_Q8_NO_BYTES;
    step->packed_bytes = s->q8.bytes;
    step->weights = s->q8.data;
    step->mapped_bytes = way == QN_Q8_IN_FILE ? s->q8.bytes : 0;
    if (way != QN_Q8_TO_PACK)
        return QN_OK;
    int8_t *own;
    const int8_t *const values = qn__q8_values(ctx, &s->weights, d->b_count, &own);
    if (values == NULL)
        return QN_NOMEM(error);
    const qn_status status =
        qn__q8_pack(plan, step, &s->a, &s->requant, values, &strides, &s->q8, error);
    qn__free(ctx, own);
    step->weights = s->q8.data;
    return status;
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    qgemm_state *const s = state;
    const qn_context *const ctx = qn__plan_context(plan);
    qn_qgemm_shape *const d = &s->shape;
    bool done;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &s->a, error));
    QN_TRY(qn__qgemm_shape(step, d, error));
    if (d->constant_b) {
        QN_TRY(pack_constant(plan, step, s, &done, error));
    } else {
        QN_TRY(qn__qparams_read(step, step->node->inputs[1], &s->b, error));
        QN_TRY(qn__qgemm_scales(plan, step, d->n, &s->a, &s->b, &s->scale, &s->weights.fixed,
                                &s->requant, error));
        done = qn__q8_product_plan(plan, step, &s->a, &s->b, &s->requant, d->n, d->k, d->trans_b,
                                   &s->both, &s->both_bytes);
    }
    if (!done) {
        release(ctx, step);
        return qn__prepare_simulated(plan, step, error);
    }
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    if (!qn_add_size(&step->scratch_bytes, s->both_bytes, d->trans_a ? d->a_count : 0))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    step->kernel_name = step->kernels->q8_igemm.name;
    qn__qweights_drop_values(ctx, &s->weights);
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(qgemm_state), prepare_state, release, error);
}

static void run_batch(const qn_step *step, const qgemm_state *s, const qn_run_env *env,
                      const uint8_t *a, const uint8_t *b, uint8_t *dst)
{
    const qn_qgemm_shape *const d = &s->shape;
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    uint8_t *const scratch = env->scratch;
    size_t packed = SIZE_MAX;
    qn__q8_product_begin(&s->both, scratch);
    for (size_t i = 0; i < d->batches; i++) {
        size_t left, right;
        qn__qgemm_matrices(d, i, &left, &right);
        if (right != packed)
            qn__q8_product_pack(&s->both, step, env, b + right * d->k * d->n, scratch);
        packed = right;
        qn__q8_product_run(&s->both, env, a + left * d->m * d->k, d->m,
                           dst + i * d->m * d->n * elem, scratch);
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const qgemm_state *const s = step->state;
    const qn_qgemm_shape *const d = &s->shape;
    void *const dst = out[0].data;
    const void *a = in[0].data;
    if (d->trans_a) {
        uint8_t *const turned = (uint8_t *)env->scratch + s->both_bytes;
        const int64_t dims[2] = {(int64_t)d->m, (int64_t)d->k}, strides[2] = {1, (int64_t)d->m};
        qn__strided_copy(env->pool, turned, a, 2, dims, strides, 1);
        a = turned;
    }
    if (!d->constant_b) {
        run_batch(step, s, env, a, in[1].data, dst);
        return QN_OK;
    }
    qn_q8_job job = {.packed = &s->q8,
                     .m = d->m,
                     .c = dst,
                     .c_stride = d->n,
                     .out = qn__q8_format(&s->requant),
                     .fixed = qn_q8_by_fixed_of(&s->requant),
                     .first = a,
                     .step = s->shape.k};
    qn__q8_run(&job, env->pool);
    return QN_OK;
}

const qn_run_op qn__op_qgemm = {QN_OP_NONE, prepare, run, release};
