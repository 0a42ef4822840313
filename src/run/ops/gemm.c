/* Float Gemm and MatMul, row-major. Constant right-hand sides are packed when planning, others at
 * every run into scratch. alpha goes into the packed weights; a constant C that is one row goes
 * into their biases, any other C is added afterwards. */
#include "run/ops/igemm_run.h"
#include "run/ops/int_weights.h"
#include "run/prepacked.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "run/nd.h"

#include <math.h>
#include <string.h>

typedef struct gemm_state {
    size_t batch; /* products; 1 when the right-hand side is shared and the rows were joined */
    size_t m, n, k;
    bool trans_a, trans_b;
    float alpha, beta;
    size_t *a_at, *b_at;  /* [batch] offsets in floats; NULL when batch is 1 */
    size_t n_packed;      /* matrices in packed; 0: packed at run time */
    size_t packed_stride; /* floats */
    qn_prepacked packed;
    qn_int_weights ints;    /* what packed is, or none */
    float *bias;            /* [n] of weights packed at run time, or NULL */
    bool add_c;             /* C is added afterwards */
    size_t c_row, c_column; /* its strides in floats */
    qn_f32_igemm igemm;
    qn_clamp_f32 clamp;
    size_t a_scratch, packed_scratch, rows_scratch;
    bool has_rows;
} gemm_state;

static void gemm_release(const qn_context *ctx, qn_step *step)
{
    gemm_state *const s = step->state;
    if (s == NULL)
        return;
    qn__free(ctx, s->a_at);
    qn__free(ctx, s->b_at);
    qn__free_aligned(ctx, s->packed.own);
    qn__free(ctx, s->bias);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status check_inputs(const qn_step *step, qn_error *error)
{
    const uint32_t n = step->node->n_inputs < 3 ? step->node->n_inputs : 3;
    for (uint32_t i = 0; i < n; i++) {
        const qn_tensor *const t = step->node->inputs[i];
        if (t != NULL && t->type.dtype != QN_DTYPE_F32 && t->constant == NULL)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "input \"%s\" is %s, not float32",
                                 t->name, qn__dtype_name(t->type.dtype));
    }
    if (n < 2 || step->node->inputs[0] == NULL || step->node->inputs[1] == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "two inputs are needed");
    if (step->node->outputs[0]->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "output is %s, not float32",
                             qn__dtype_name(step->node->outputs[0]->type.dtype));
    return QN_OK;
}

static bool reserve(qn_step *step, size_t *at, size_t count, size_t size)
{
    size_t bytes;
    *at = step->scratch_bytes;
    return qn_mul_size(&bytes, count, size) && qn_align_size(&bytes, bytes, 64) &&
           qn_add_size(&step->scratch_bytes, step->scratch_bytes, bytes);
}

static void pack_matrix(const gemm_state *s, float *packed, const float *b, const float *bias)
{
    const size_t stride_n = s->trans_b ? s->k : 1, stride_k = s->trans_b ? 1 : s->n;
    qn__f32_gemm_pack(packed, b, bias, s->n, s->k, 1, stride_n, 0, stride_k, s->igemm.nr);
    if (s->alpha == 1.0f)
        return;
    const size_t nr = s->igemm.nr, panel = nr * (1 + s->k);
    for (size_t at = 0; at < s->packed_stride; at += panel)
        for (size_t i = nr; i < panel; i++)
            packed[at + i] *= s->alpha;
}

/* Packs now or reserves scratch for packing later. bias: NULL or [n]. */
static qn_status prepare_weights(const qn_plan *plan, qn_step *step, gemm_state *s, size_t n_b,
                                 const float *bias, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    /* Integers may stay what they are: some columns at a time are floats. */
    const bool ints = s->alpha == 1.0f && qn__int_weights_fit(step, s->n, s->k, s->trans_b) &&
                      qn__int_weights_plan(step, s->n, s->k, s->igemm.nr, &s->ints);
    size_t columns, bytes = s->ints.bytes, rows_bytes;
    bool ok = qn__igemm_buffer_bytes(&rows_bytes, &s->igemm, s->m, 1, 1) &&
              reserve(step, &s->a_scratch, s->trans_a ? s->m * s->k : 0, sizeof(float)) &&
              reserve(step, &s->rows_scratch, rows_bytes, 1);
    if (ints)
        ok = ok && (s->m <= s->ints.kernel.rows ||
                    reserve(step, &s->packed_scratch, s->ints.at_once, s->ints.float_bytes));
    else
        ok = ok && qn_align_size(&columns, s->n, s->igemm.nr) &&
             qn_mul_size(&s->packed_stride, columns, s->k + 1) &&
             qn_mul_size(&bytes, s->packed_stride, sizeof(float)) &&
             qn_mul_size(&bytes, bytes, n_b);
    const qn_tensor *const b_tensor = step->node->inputs[1];
    /* A network larger than a plan may hold packed is packed a layer at a time, at every run. */
    const bool constant =
        b_tensor->constant != NULL &&
        (!ok || b_tensor->type.dtype != QN_DTYPE_F32 || qn__plan_may_pack(plan, bytes));
    if (ok && !constant)
        ok = reserve(step, &s->packed_scratch, s->packed_stride, sizeof(float));
    if (!ok)
        return qn__step_fail(step, error, QN_LIMIT, "packed weights are too large");
    s->has_rows = rows_bytes != 0;
    if (!constant && bias != NULL) {
        s->bias = qn__reallocarray(ctx, NULL, s->n, sizeof *s->bias);
        if (s->bias == NULL)
            return QN_NOMEM(error);
        memcpy(s->bias, bias, s->n * sizeof *s->bias);
    }
    if (!constant)
        return QN_OK;
    const uint32_t layout =
        ints ? qn__int_weights_layout(&s->ints)
             : qn_packing_id(QN_PACKED_F32_GEMM, QN_F32_GEMM_LAYOUT_VERSION, s->igemm.nr, 1);
    uint32_t alpha;
    memcpy(&alpha, &s->alpha, sizeof alpha);
    const size_t numbers[] = {n_b, s->n, s->k, s->trans_b, alpha};
    s->n_packed = n_b;
    QN_TRY(qn__packed_begin(plan, step, layout, numbers, sizeof numbers / sizeof numbers[0], bias,
                            s->n, bytes, &s->packed, error));
    if (ints) {
        s->ints.data = (const uint8_t *)s->packed.data;
        step->weights = s->packed.data;
        if (s->m <= s->ints.kernel.rows)
            step->kernel_name = s->ints.kernel.name;
    }
    if (s->packed.own == NULL)
        return QN_OK;
    if (ints) {
        qn__int_weights_make(&s->ints, step, s->trans_b, bias, (uint8_t *)s->packed.own);
    } else {
        float *b = NULL;
        QN_TRY(qn__step_const_f32(plan, step, 1, &b, NULL, error));
        for (size_t i = 0; i < n_b; i++)
            pack_matrix(s, s->packed.own + i * s->packed_stride, b + i * s->k * s->n, bias);
        qn__free(ctx, b);
    }
    return qn__prepacked_keep(plan, step, &s->packed.entry, error);
}

static qn_status new_state(const qn_plan *plan, qn_step *step, gemm_state **out, qn_error *error)
{
    QN_TRY(check_inputs(step, error));
    gemm_state *const s = qn__calloc(qn__plan_context(plan), 1, sizeof *s);
    if (s == NULL)
        return QN_NOMEM(error);
    step->state = s;
    s->batch = 1;
    s->alpha = s->beta = 1.0f;
    s->igemm = step->kernels->f32_igemm;
    s->clamp = qn__step_clamp(step);
    for (uint32_t i = 0; i < step->node->n_inputs && i < 3; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->kernel_name = s->igemm.name;
    *out = s;
    return QN_OK;
}

/* --- Gemm --------------------------------------------------------------------------------------*/
/* C broadcasts to [m, n]: its strides, or false. */
static bool c_strides(const qn_tensor *c, gemm_state *s)
{
    int64_t dims[QN_MAX_RANK] = {1, 1};
    if (c->rank > 2)
        return false;
    int64_t given[QN_MAX_RANK];
    qn__tensor_dims(c, given);
    for (size_t i = 0; i < c->rank; i++)
        dims[2 - c->rank + i] = given[i];
    if ((dims[0] != 1 && dims[0] != (int64_t)s->m) || (dims[1] != 1 && dims[1] != (int64_t)s->n))
        return false;
    s->c_column = dims[1] == 1 ? 0 : 1;
    s->c_row = dims[0] == 1 ? 0 : (size_t)dims[1];
    return true;
}

static qn_status prepare_gemm(const qn_plan *plan, qn_step *step, qn_error *error)
{
    gemm_state *s;
    QN_TRY(new_state(plan, step, &s, error));
    const qn_node *const node = step->node;
    s->trans_a = qn__attr_int(node, "transA", 0) != 0;
    s->trans_b = qn__attr_int(node, "transB", 0) != 0;
    s->alpha = qn__attr_float(node, "alpha", 1.0f);
    s->beta = qn__attr_float(node, "beta", 1.0f);
    int64_t a[QN_MAX_RANK], b[QN_MAX_RANK], y[QN_MAX_RANK];
    if (node->inputs[0]->rank != 2 || node->inputs[1]->rank != 2 || node->outputs[0]->rank != 2)
        return qn__step_fail(step, error, QN_CORRUPT, "inputs of rank %u and %u",
                             node->inputs[0]->rank, node->inputs[1]->rank);
    qn__tensor_dims(node->inputs[0], a);
    qn__tensor_dims(node->inputs[1], b);
    qn__tensor_dims(node->outputs[0], y);
    s->m = (size_t)a[s->trans_a ? 1 : 0];
    s->k = (size_t)a[s->trans_a ? 0 : 1];
    s->n = (size_t)b[s->trans_b ? 0 : 1];
    if ((size_t)b[s->trans_b ? 1 : 0] != s->k || (size_t)y[0] != s->m || (size_t)y[1] != s->n)
        return qn__step_fail(step, error, QN_CORRUPT,
                             "[%lld, %lld] times [%lld, %lld] to [%lld, %lld]", (long long)a[0],
                             (long long)a[1], (long long)b[0], (long long)b[1], (long long)y[0],
                             (long long)y[1]);
    const qn_tensor *const c = qn__step_input(step, 2);
    const qn_context *const ctx = qn__plan_context(plan);
    float *values = NULL, *bias = NULL;
    if (c != NULL && !c_strides(c, s))
        return qn__step_fail(step, error, QN_CORRUPT, "C \"%s\" does not broadcast to [%zu, %zu]",
                             c->name, s->m, s->n);
    if (c != NULL && c->constant != NULL && s->c_row == 0 && node->inputs[1]->constant != NULL) {
        QN_TRY(qn__step_const_f32(plan, step, 2, &values, NULL, error));
        bias = qn__calloc(ctx, s->n, sizeof *bias);
        for (size_t j = 0; bias != NULL && j < s->n; j++)
            bias[j] = s->beta * values[j * s->c_column];
        qn__free(ctx, values);
        if (bias == NULL)
            return QN_NOMEM(error);
    } else {
        s->add_c = c != NULL && s->beta != 0.0f;
        if (s->add_c && c->type.dtype != QN_DTYPE_F32)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "C \"%s\" is %s, not float32",
                                 c->name, qn__dtype_name(c->type.dtype));
    }
    const qn_status status = prepare_weights(plan, step, s, 1, bias, error);
    qn__free(ctx, bias);
    return status;
}

/* --- MatMul ------------------------------------------------------------------------------------*/
/* Offsets of each product's matrices: batch dims of a and b broadcast to the output's. */
static qn_status batch_offsets(const qn_plan *plan, gemm_state *s, size_t rank, const int64_t *dims,
                               const int64_t *a, const int64_t *b, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    s->a_at = qn__calloc(ctx, s->batch, sizeof *s->a_at);
    s->b_at = qn__calloc(ctx, s->batch, sizeof *s->b_at);
    if (s->a_at == NULL || s->b_at == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < s->batch; i++) {
        size_t rest = i, a_index = 0, b_index = 0, a_step = 1, b_step = 1;
        for (size_t d = rank; d-- > 0;) {
            const size_t at = rest % (size_t)dims[d];
            rest /= (size_t)dims[d];
            a_index += a[d] == 1 ? 0 : at * a_step;
            b_index += b[d] == 1 ? 0 : at * b_step;
            a_step *= (size_t)a[d];
            b_step *= (size_t)b[d];
        }
        s->a_at[i] = a_index * s->m * s->k;
        s->b_at[i] = b_index * s->k * s->n;
    }
    return QN_OK;
}

/* Batch dims of an operand, right-aligned to rank `to`, ones in front. */
static void batch_dims(const int64_t *dims, size_t rank, int64_t *out, size_t to)
{
    const size_t have = rank > 2 ? rank - 2 : 0;
    for (size_t i = 0; i < to; i++)
        out[i] = i + have < to ? 1 : dims[i + have - to];
}

static qn_status prepare_matmul(const qn_plan *plan, qn_step *step, qn_error *error)
{
    gemm_state *s;
    QN_TRY(new_state(plan, step, &s, error));
    const qn_tensor *const at = step->node->inputs[0], *const bt = step->node->inputs[1];
    int64_t a[QN_MAX_RANK], b[QN_MAX_RANK];
    if (at->rank < 1 || bt->rank < 1)
        return qn__step_fail(step, error, QN_CORRUPT, "scalar operand");
    qn__tensor_dims(at, a);
    qn__tensor_dims(bt, b);
    s->m = at->rank == 1 ? 1 : (size_t)a[at->rank - 2];
    s->k = (size_t)a[at->rank - 1];
    s->n = bt->rank == 1 ? 1 : (size_t)b[bt->rank - 1];
    const size_t bk = (size_t)(bt->rank == 1 ? b[0] : b[bt->rank - 2]);
    if (bk != s->k)
        return qn__step_fail(step, error, QN_CORRUPT, "%zu columns times %zu rows", s->k, bk);
    const size_t a_batch = at->rank > 2 ? at->rank - 2u : 0;
    const size_t b_batch = bt->rank > 2 ? bt->rank - 2u : 0;
    const size_t rank = a_batch > b_batch ? a_batch : b_batch;
    int64_t ad[QN_MAX_RANK], bd[QN_MAX_RANK], yd[QN_MAX_RANK];
    batch_dims(a, at->rank, ad, rank);
    batch_dims(b, bt->rank, bd, rank);
    size_t batch = 1, n_b = 1;
    for (size_t i = 0; i < rank; i++) {
        yd[i] = ad[i] == 1 ? bd[i] : ad[i];
        if (bd[i] != 1 && bd[i] != yd[i])
            return qn__step_fail(step, error, QN_CORRUPT, "batches of %lld and %lld",
                                 (long long)ad[i], (long long)bd[i]);
        if (!qn_mul_size(&n_b, n_b, (size_t)bd[i]) || !qn_mul_size(&batch, batch, (size_t)yd[i]))
            return qn__step_fail(step, error, QN_LIMIT, "too many products");
    }
    size_t rows, count;
    if (!qn_mul_size(&rows, batch, s->m) || !qn_mul_size(&count, rows, s->n) ||
        count != qn__tensor_elements(step->node->outputs[0]))
        return qn__step_fail(step, error, QN_CORRUPT, "output of another size");
    if (n_b == 1) {
        s->m = rows;
    } else {
        s->batch = batch;
        QN_TRY(batch_offsets(plan, s, rank, yd, ad, bd, error));
    }
    return prepare_weights(plan, step, s, n_b, NULL, error);
}

static qn_status gemm_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_status status = step->node->op == QN_OP_GEMM ? prepare_gemm(plan, step, error)
                                                          : prepare_matmul(plan, step, error);
    if (status != QN_OK)
        gemm_release(qn__plan_context(plan), step);
    return status;
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct gemm_call {
    const gemm_state *s;
    const float *a;
} gemm_call;

static void matrix_rows(const qn_igemm_job *job, size_t group, size_t m0, size_t mr,
                        const float **a)
{
    (void)group;
    const gemm_call *const call = job->ctx;
    const float *const base = call->a + m0 * call->s->k;
    for (size_t r = 0; r < job->kernel->mr; r++)
        a[r] = base + (r < mr ? r : mr - 1) * call->s->k;
}

static void add_c(const gemm_state *s, float *y, const float *c)
{
    for (size_t i = 0; i < s->m; i++) {
        for (size_t j = 0; j < s->n; j++) {
            float v = y[i * s->n + j] + s->beta * c[i * s->c_row + j * s->c_column];
            v = v < s->clamp.lo ? s->clamp.lo : v;
            y[i * s->n + j] = v > s->clamp.hi ? s->clamp.hi : v;
        }
    }
}

/* Columns n0 .. n0 + n of a product; packed: theirs. */
static void run_product(const gemm_state *s, const qn_run_env *env, const float *a,
                        const float *packed, size_t n0, size_t n, float *y)
{
    const gemm_call call = {s, a};
    const qn_igemm_job job = {
        .kernel = &s->igemm,
        .m = s->m,
        .n = n,
        .kc = s->k,
        .ks = 1,
        .groups = 1,
        .packed = packed,
        .c = y + n0,
        .c_stride = s->n,
        .clamp = s->add_c ? (qn_clamp_f32){-INFINITY, INFINITY} : s->clamp,
        .rows = matrix_rows,
        .ctx = &call,
        .row_buffer = s->has_rows
                          ? (const float **)(void *)((uint8_t *)env->scratch + s->rows_scratch)
                          : NULL,
    };
    qn__igemm_run(&job, env->pool);
}

typedef struct few_rows {
    qn_f32_ints_fn fn;
    qn_f32_ints_args all;
    size_t nr;
} few_rows;

/* Columns are cut at pairs of panels, which the kernel takes at once. */
static void run_few_rows(void *arg, size_t begin, size_t end)
{
    const few_rows *const call = arg;
    qn_f32_ints_args args = call->all;
    const size_t n0 = begin * 2 * call->nr;
    args.n = args.n < end * 2 * call->nr ? args.n - n0 : (end - begin) * 2 * call->nr;
    args.w += begin * 2 * args.panel_bytes;
    args.c += n0;
    call->fn(&args);
}

static void run_ints(const gemm_state *s, const qn_run_env *env, const float *a, float *y)
{
    const qn_int_weights *const w = &s->ints;
    if (s->m <= s->ints.kernel.rows) {
        few_rows call = {s->ints.kernel.fn, qn__int_weights_args(w), w->nr};
        call.all.m = s->m;
        call.all.a = a;
        call.all.a_stride = s->k;
        call.all.c = y;
        call.all.c_stride = s->n;
        call.all.clamp = s->add_c ? (qn_clamp_f32){-INFINITY, INFINITY} : s->clamp;
        qn__parallel_ranges(env->pool, run_few_rows, &call, (w->panels + 1) / 2, s->k);
        return;
    }
    float *const packed = (float *)(void *)((uint8_t *)env->scratch + s->packed_scratch);
    for (size_t p = 0; p < w->panels; p += w->at_once) {
        const size_t count = w->panels - p < w->at_once ? w->panels - p : w->at_once;
        const size_t n0 = p * w->nr, n = s->n - n0 < count * w->nr ? s->n - n0 : count * w->nr;
        qn__int_weights_expand(w, p, count, packed, env->pool);
        run_product(s, env, a, packed, n0, n, y);
    }
}

static qn_status gemm_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                          const qn_view *out, qn_error *error)
{
    (void)error;
    const gemm_state *const s = step->state;
    uint8_t *const scratch = env->scratch;
    float *const y = out[0].data;
    const float *a = in[0].data;
    if (out[0].count == 0)
        return QN_OK;
    if (s->trans_a) {
        float *const rows = (float *)(void *)(scratch + s->a_scratch);
        for (size_t i = 0; i < s->m; i++)
            for (size_t k = 0; k < s->k; k++)
                rows[i * s->k + k] = a[k * s->m + i];
        a = rows;
    }
    size_t packed_b = SIZE_MAX; /* offset of the matrix that is in scratch */
    if (s->ints.data != NULL)
        run_ints(s, env, a, y);
    for (size_t i = 0; i < s->batch && s->ints.data == NULL; i++) {
        const size_t b_at = s->b_at == NULL ? 0 : s->b_at[i];
        const float *packed = s->packed.data;
        if (s->n_packed > 1) {
            packed += b_at / (s->k * s->n == 0 ? 1 : s->k * s->n) * s->packed_stride;
        } else if (s->n_packed == 0) {
            float *const to = (float *)(void *)(scratch + s->packed_scratch);
            if (packed_b != b_at)
                pack_matrix(s, to, (const float *)in[1].data + b_at, s->bias);
            packed_b = b_at;
            packed = to;
        }
        run_product(s, env, a + (s->a_at == NULL ? 0 : s->a_at[i]), packed, 0, s->n,
                    y + i * s->m * s->n);
    }
    if (s->add_c)
        add_c(s, y, in[2].data);
    return QN_OK;
}

const qn_run_op qn__op_gemm = {QN_OP_NONE, gemm_prepare, gemm_run, gemm_release};
