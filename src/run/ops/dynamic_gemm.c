/* MatMul and Gemm of a dynamic tensor and constant 8-bit weights. Weights are packed as if the zero
 * point were 128, so that the kernel's sums in float are exact as long as they stay below 2^24;
 * what this run's zero point changes, its scale and the bias are applied to each tile of sums while
 * it is in the cache. */
#include "run/dynamic.h"
#include "run/nd.h"
#include "run/ops/q8_run.h"

#include <math.h>
#include <string.h>

/* Rows of weights up to which the bases of packed columns have no part missing. */
enum { PACKED_ZERO = 128, MOST_K = 1 << 17 };

typedef struct dynamic_state {
    size_t m, n, k;
    bool trans_b;
    int32_t *sums;   /* [n] of the packed weights */
    float *scales;   /* [n] of the weights, times alpha */
    float *bias;     /* [n] or NULL */
    int32_t *shifts; /* [n] what packed weights lack to be centred; NULL: nothing */
    bool by_rows;    /* a scale for each row, zero points PACKED_ZERO */
    qn_q8_packed q8;
    qn_clamp_f32 clamp;
} dynamic_state;

static __attribute__((cold)) void release(const qn_context *ctx, qn_step *step)
{
    dynamic_state *const s = step->state;
    if (s == NULL)
        return;
    qn__q8_packed_free(ctx, &s->q8);
    qn__free(ctx, s->sums);
    qn__free(ctx, s->scales);
    qn__free(ctx, s->bias);
    qn__free(ctx, s->shifts);
    qn__free(ctx, s);
    step->state = NULL;
}

static __attribute__((cold)) qn_status read_sizes(const qn_step *step, dynamic_state *s,
                                                  qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const a = node->inputs[0], *const b = qn__step_input(step, 1);
    const bool gemm = node->op == QN_OP_GEMM;
    if (b == NULL || b->rank != 2 || a->rank < 1 || (gemm && a->rank != 2))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs a matrix of weights");
    if (gemm && qn__attr_int(node, "transA", 0) != 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "transA with scales made at run time");
    s->trans_b = gemm && qn__attr_int(node, "transB", 0) != 0;
    s->k = (size_t)a->dims[a->rank - 1].value;
    s->n = (size_t)b->dims[s->trans_b ? 0 : 1].value;
    const size_t count = qn__tensor_elements(a);
    if (s->k == 0 || s->n == 0 || (size_t)b->dims[s->trans_b ? 1 : 0].value != s->k)
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not fit");
    s->m = count / s->k;
    if (s->m * s->n != qn__tensor_elements(node->outputs[0]))
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not fit");
    const qn_type y = node->outputs[0]->type;
    if (y.kind != QN_TYPE_PLAIN || y.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "its output is not float32");
    return QN_OK;
}

static __attribute__((cold)) qn_status check_weights(const qn_step *step, const dynamic_state *s,
                                                     qn_error *error)
{
    const qn_tensor *const w = qn__step_input(step, 1);
    const qn_quant *const q = w->type.quant;
    const int axis = s->trans_b ? 0 : 1;
    if (w->constant == NULL || w->type.kind != QN_TYPE_QUANT || q->n_codebook != 0 ||
        q->block != 0 || qn__dtype_bits(w->type.dtype) > 8 || qn__dtype_is_float(w->type.dtype))
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "weights must be constant integers of at most 8 bits");
    if (q->axis >= 0 && (q->axis != axis || q->n_scales != s->n))
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "weights \"%s\" have scales along axis %d, not %d", w->name, q->axis,
                             axis);
    size_t bytes;
    if (!qn__dtype_bytes(&bytes, w->type.dtype, s->k * s->n) || bytes > w->constant->size_bytes)
        return qn__step_fail(step, error, QN_CORRUPT, "weights \"%s\" have too few bytes", w->name);
    return QN_OK;
}

static __attribute__((cold)) qn_status read_bias(const qn_plan *plan, const qn_step *step,
                                                 dynamic_state *s, qn_error *error)
{
    const qn_tensor *const c = qn__step_input(step, 2);
    const float beta =
        step->node->op == QN_OP_GEMM ? qn__attr_float(step->node, "beta", 1.0f) : 1.0f;
    float *values = NULL;
    size_t count;
    if (c == NULL || beta == 0.0f)
        return QN_OK;
    QN_TRY(qn__step_const_f32(plan, step, 2, &values, &count, error));
    const bool column = c->rank > 0 && (size_t)c->dims[c->rank - 1].value == count;
    if (count != 1 && (count != s->n || !column)) {
        qn__free(qn__plan_context(plan), values);
        return qn__step_fail(step, error, QN_UNSUPPORTED, "bias \"%s\" is not one value per column",
                             c->name);
    }
    s->bias = qn__calloc(qn__plan_context(plan), s->n, sizeof(float));
    for (size_t i = 0; s->bias != NULL && i < s->n; i++)
        s->bias[i] = beta * values[count == 1 ? 0 : i];
    qn__free(qn__plan_context(plan), values);
    return s->bias != NULL ? QN_OK : QN_NOMEM(error);
}

/* What the kernel's bytes are less than the weights: the zero point where all columns have the same
 * and the rest fits, else (false) the middle of the type. */
static __attribute__((cold)) bool find_center(const qn_tensor *w, size_t count, int32_t *center)
{
    const qn_quant *const q = w->type.quant;
    const int32_t range = 1 << qn__dtype_bits(w->type.dtype);
    const int32_t least = qn__dtype_is_signed(w->type.dtype) ? -range / 2 : 0;
    const int64_t zero = q->zero_points != NULL ? q->zero_points[0] : 0;
    bool even = true;
    for (size_t i = 1; q->zero_points != NULL && i < q->n_scales; i++)
        even &= q->zero_points[i] == zero;
    if (zero - least > -INT8_MIN || least + range - 1 - zero > INT8_MAX)
        for (size_t i = 0; even && i < count; i++) {
            const int64_t v = qn__load_int(w->constant->data, w->type.dtype, i) - zero;
            even = v >= INT8_MIN && v <= INT8_MAX;
        }
    *center = even ? (int32_t)zero : w->type.dtype == QN_DTYPE_U8 ? 128 : 0;
    return even;
}

/* The weights less that; NULL: no memory. Not for size, as what calls it is. */
static __attribute__((noinline)) const int8_t *center_weights(const qn_context *ctx,
                                                              const qn_tensor *w, size_t count,
                                                              int32_t center, int8_t **own)
{
    const uint8_t *const data = w->constant->data;
    *own = NULL;
    if (w->type.dtype == QN_DTYPE_I8 && center == 0)
        return (const int8_t *)data;
    int8_t *const out = *own = qn__alloc(ctx, count);
    const bool bytes = qn__dtype_bits(w->type.dtype) == 8;
    for (size_t i = 0; out != NULL && bytes && i < count; i++)
        out[i] = (int8_t)(data[i] - center);
    for (size_t i = 0; out != NULL && !bytes && i < count; i++)
        out[i] = (int8_t)(qn__load_int(data, w->type.dtype, i) - center);
    return out;
}

/* What the bases of packed columns were made of: less PACKED_ZERO times the sum. */
static __attribute__((cold)) void packed_sums(dynamic_state *s)
{
    for (size_t n = 0; n < s->n; n++)
        s->sums[n] = -(qn__q8_base(&s->q8, n) / PACKED_ZERO);
}

/* Where they do not tell. */
static __attribute__((cold)) void add_columns(dynamic_state *s, const int8_t *w)
{
    for (size_t n = 0; n < s->n; n++)
        s->sums[n] = qn__q8_gemm_sum(w + n * (s->trans_b ? s->k : 1), s->k, s->trans_b ? 1 : s->n);
}

static __attribute__((cold)) qn_status pack(const qn_plan *plan, qn_step *step, dynamic_state *s,
                                            qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_tensor *const w = qn__step_input(step, 1);
    const qn_quant *const q = w->type.quant;
    const float alpha =
        step->node->op == QN_OP_GEMM ? qn__attr_float(step->node, "alpha", 1.0f) : 1.0f;
    int32_t center;
    const bool even = find_center(w, s->k * s->n, &center);
    s->sums = qn__calloc(ctx, s->n, sizeof(*s->sums));
    s->scales = qn__calloc(ctx, s->n, sizeof(*s->scales));
    s->shifts = even ? NULL : qn__calloc(ctx, s->n, sizeof(*s->shifts));
    float *const ones = qn__calloc(ctx, s->n, sizeof(*ones));
    int8_t *own = NULL;
    qn_status status = QN_OK;
    if (s->sums == NULL || s->scales == NULL || (s->shifts == NULL && !even) || ones == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (size_t n = 0; n < s->n; n++) {
        const size_t i = q->axis >= 0 ? n : 0;
        ones[n] = 1.0f;
        s->scales[n] = alpha * q->scales[i];
        if (!even)
            s->shifts[n] = center - (q->zero_points != NULL ? q->zero_points[i] : 0);
    }
    const qn_qparams x = {.dtype = QN_DTYPE_U8, .scale = 1.0f, .zero = PACKED_ZERO, .qmax = 255};
    const qn_requant sums = {.scale = ones, .dtype = QN_DTYPE_F32};
    const qn_q8_strides strides = {0, s->trans_b ? s->k : 1, 0, s->trans_b ? 1 : s->n};
    s->q8 = (qn_q8_packed){
        .n = s->n, .kc = s->k, .ks = 1, .groups = 1, .kernel = step->kernels->q8_igemm};
    if (s->k < MOST_K && qn__q8_find(plan, step, &x, &sums, &strides, &s->q8)) {
        step->mapped_bytes = s->q8.bytes;
    } else {
        const int8_t *const values = center_weights(ctx, w, s->k * s->n, center, &own);
        if (values == NULL)
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
        if (s->k >= MOST_K)
            add_columns(s, values);
        QN_TRY_GOTO(qn__q8_pack(plan, step, &x, &sums, values, &strides, &s->q8, error));
    }
    if (s->k < MOST_K)
        packed_sums(s);
    step->packed_bytes = s->q8.bytes;
done:
    qn__free(ctx, ones);
    qn__free(ctx, own);
    return status;
}

static __attribute__((cold)) qn_status prepare_state(const qn_plan *plan, qn_step *step,
                                                     void *state, qn_error *error)
{
    dynamic_state *const s = state;
    size_t floats, rows;
    QN_TRY(read_sizes(step, s, error));
    QN_TRY(check_weights(step, s, error));
    QN_TRY(read_bias(plan, step, s, error));
    QN_TRY(pack(plan, step, s, error));
    s->clamp = qn__step_clamp(step);
    s->by_rows = qn_dynamic_by_rows(step->node->inputs[0]->type);
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->kernel_name = step->kernels->q8_igemm.name;
    /* corrections and scales of the columns, then sums of the rows */
    if (!qn_mul_size(&floats, s->n, 2 * sizeof(float)) ||
        !qn_mul_size(&rows, s->shifts != NULL ? s->m : 0, sizeof(int32_t)) ||
        !qn_add_size(&step->scratch_bytes, floats, rows))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(dynamic_state), prepare_state, release, error);
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct gemm_call {
    const dynamic_state *s;
    const uint8_t *a;
    const float *corrections, *scales; /* [n] of this run */
    const float *row_scales;           /* [m] or NULL */
    const int32_t *row_sums;           /* [m] of q - zero, where shifts are wanted */
} gemm_call;

static void finish_row(const gemm_call *call, size_t n0, size_t nc, float *restrict y)
{
    const dynamic_state *const s = call->s;
    const float *restrict const corrections = call->corrections + n0;
    const float *restrict const scales = call->scales + n0;
    const qn_clamp_f32 clamp = s->clamp;
    if (s->bias != NULL) {
        const float *restrict const bias = s->bias + n0;
        for (size_t n = 0; n < nc; n++) {
            float v = (y[n] + corrections[n]) * scales[n] + bias[n];
            v = v < clamp.lo ? clamp.lo : v;
            y[n] = v > clamp.hi ? clamp.hi : v;
        }
        return;
    }
    for (size_t n = 0; n < nc; n++) {
        float v = (y[n] + corrections[n]) * scales[n];
        v = v < clamp.lo ? clamp.lo : v;
        y[n] = v > clamp.hi ? clamp.hi : v;
    }
}

/* In the order of the float operators in files: the column's scale first. */
static void finish_by_rows(const gemm_call *call, float row, size_t n0, size_t nc,
                           float *restrict y)
{
    const dynamic_state *const s = call->s;
    const float *restrict const scales = s->scales + n0;
    const qn_clamp_f32 clamp = s->clamp;
    for (size_t n = 0; n < nc; n++) {
        float v = y[n] * scales[n] * row;
        if (s->bias != NULL)
            v += s->bias[n0 + n];
        v = v < clamp.lo ? clamp.lo : v;
        y[n] = v > clamp.hi ? clamp.hi : v;
    }
}

static void finish(const qn_q8_job *job, size_t m0, size_t mr, size_t n0, size_t nc)
{
    const gemm_call *const call = job->ctx;
    const int32_t *const shifts = call->s->shifts;
    for (size_t m = m0; m < m0 + mr; m++) {
        float *const y = (float *)job->c + m * job->c_stride + n0;
        for (size_t n = 0; shifts != NULL && n < nc; n++)
            y[n] += (float)call->row_sums[m] * (float)shifts[n0 + n];
        if (call->row_scales != NULL)
            finish_by_rows(call, call->row_scales[m], n0, nc, y);
        else
            finish_row(call, n0, nc, y);
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const dynamic_state *const s = step->state;
    const qn_dynamic_params x =
        s->by_rows ? (qn_dynamic_params){1.0f, PACKED_ZERO} : *qn_dynamic_params_of(&in[0]);
    float *const corrections = env->scratch, *const scales = corrections + s->n;
    int32_t *const row_sums = s->shifts != NULL ? (int32_t *)(void *)(scales + s->n) : NULL;
    const uint8_t *const a = in[0].data;
    for (size_t n = 0; n < s->n && !s->by_rows; n++) {
        corrections[n] = (float)((double)(PACKED_ZERO - x.zero) * (double)s->sums[n]);
        scales[n] = x.scale * s->scales[n];
    }
    for (size_t m = 0; row_sums != NULL && m < s->m; m++) {
        int32_t sum = 0;
        for (size_t k = 0; k < s->k; k++)
            sum += a[m * s->k + k] - x.zero;
        row_sums[m] = sum;
    }
    const float *const row_scales = s->by_rows ? qn_dynamic_scales_of(&in[0]) : NULL;
    const gemm_call call = {s, a, corrections, scales, row_scales, row_sums};
    qn_q8_job job = {.packed = &s->q8,
                     .m = s->m,
                     .c = out[0].data,
                     .c_stride = s->n,
                     .out = {.is_float = true, .clamp = {-INFINITY, INFINITY}},
                     .first = a,
                     .step = s->k,
                     .ctx = &call,
                     .finish = finish};
    qn__q8_run(&job, env->pool);
    return QN_OK;
}

const qn_run_op qn__op_dynamic_gemm = {QN_OP_NONE, prepare, run, release};
