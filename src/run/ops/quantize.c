/* QuantizeLinear, DequantizeLinear and Requantize: x / scale rounded half to even, saturated. Bytes
 * with one scale have fast loops; everything else goes element by element. */
#include "run/nd.h"
#include "run/ops/qcore.h"
#include "run/ops/vmath.h"

typedef struct cross_state {
    bool bytes;     /* 8 bits, uniform; scales per tensor or per axis */
    qn_dtype dtype; /* of the quantized side */
    int axis;       /* -1: one scale */
    bool table_used;
    uint8_t table[256];
    const qn_quant *quant;
} cross_state;

static bool is_bytes(const qn_tensor *t)
{
    const qn_quant *const q = t->type.quant;
    return t->type.kind == QN_TYPE_QUANT && q->n_codebook == 0 && q->block == 0 &&
           (t->type.dtype == QN_DTYPE_U8 || t->type.dtype == QN_DTYPE_I8) &&
           (q->axis < 0 || (q->axis < t->rank && q->n_scales == (size_t)t->dims[q->axis].value));
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, 0), *const y = node->outputs[0];
    const bool to_quant = node->op != QN_OP_DEQUANTIZE_LINEAR;
    const bool from_quant = node->op != QN_OP_QUANTIZE_LINEAR;
    if (x == NULL || qn__tensor_elements(x) != qn__tensor_elements(y))
        return qn__step_fail(step, error, QN_CORRUPT, "input and output do not fit");
    if (to_quant != (y->type.kind == QN_TYPE_QUANT) ||
        from_quant != (x->type.kind == QN_TYPE_QUANT) ||
        (!to_quant && !qn__dtype_is_float(y->type.dtype)))
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "scales must be constant and become part of the tensor's type");
    if (qn__dtype_bits(y->type.dtype) < 8 ||
        (x->constant == NULL && qn__dtype_bits(x->type.dtype) < 8))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "elements of less than 8 bits");
    for (uint32_t i = 1; i < node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = step->in_layout[0];
    cross_state s = {.axis = -1};
    const qn_tensor *const quantized = to_quant ? y : x;
    const qn_tensor *const other = to_quant ? x : y;
    if (is_bytes(quantized) && other->type.kind != QN_TYPE_QUANT &&
        other->type.dtype == QN_DTYPE_F32) {
        s.bytes = true;
        s.quant = quantized->type.quant;
        s.dtype = quantized->type.dtype;
        s.axis = s.quant->axis;
    } else if (to_quant && from_quant && is_bytes(x) && is_bytes(y) && x->type.quant->axis < 0 &&
               y->type.quant->axis < 0) {
        qn_qparams from, to;
        QN_TRY(qn__qparams_read(step, x, &from, error));
        QN_TRY(qn__qparams_read(step, y, &to, error));
        qn__table_requantize(s.table, &from, &to);
        s.table_used = true;
        step->inplace_input = 0;
    } else {
        step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
        step->scratch_bytes = qn__tensor_elements(x) * sizeof(float);
    }
    cross_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    return QN_OK;
}

typedef struct cross_job {
    const cross_state *s;
    const void *src;
    void *dst;
    qn_axis_view v;
} cross_job;

/* The low byte is the same for both signednesses. */
static void quantize_row(const qn_quant *q, size_t scale, const float *restrict src,
                         uint8_t *restrict dst, size_t n)
{
    const int32_t zero = q->zero_points != NULL ? q->zero_points[scale] : 0;
    const float s = q->scales[scale];
    const float lo = (float)(q->qmin - zero), hi = (float)(q->qmax - zero);
    for (size_t i = 0; i < n; i++) {
        float v = src[i] / s;
        v = v > lo ? v : lo;
        v = v < hi ? v : hi;
        dst[i] = (uint8_t)((int32_t)qn_rne_small(v) + zero);
    }
}

static void dequantize_row(const qn_quant *q, qn_dtype dtype, size_t scale, const void *src_,
                           size_t at, float *restrict dst, size_t n)
{
    const int32_t zero = q->zero_points != NULL ? q->zero_points[scale] : 0;
    const float s = q->scales[scale];
    if (dtype == QN_DTYPE_I8) {
        const int8_t *restrict const src = (const int8_t *)src_ + at;
        for (size_t i = 0; i < n; i++)
            dst[i] = (float)(src[i] - zero) * s;
    } else {
        const uint8_t *restrict const src = (const uint8_t *)src_ + at;
        for (size_t i = 0; i < n; i++)
            dst[i] = (float)(src[i] - zero) * s;
    }
}

/* Items are elements (one scale) or rows of `inner` elements with scale index row % axis. */
static void quantize_range(void *arg, size_t begin, size_t end)
{
    const cross_job *const job = arg;
    const cross_state *const s = job->s;
    if (s->axis < 0) {
        quantize_row(s->quant, 0, (const float *)job->src + begin, (uint8_t *)job->dst + begin,
                     end - begin);
        return;
    }
    for (size_t row = begin; row < end; row++)
        quantize_row(s->quant, row % job->v.axis, (const float *)job->src + row * job->v.inner,
                     (uint8_t *)job->dst + row * job->v.inner, job->v.inner);
}

static void dequantize_range(void *arg, size_t begin, size_t end)
{
    const cross_job *const job = arg;
    const cross_state *const s = job->s;
    if (s->axis < 0) {
        dequantize_row(s->quant, s->dtype, 0, job->src, begin, (float *)job->dst + begin,
                       end - begin);
        return;
    }
    for (size_t row = begin; row < end; row++)
        dequantize_row(s->quant, s->dtype, row % job->v.axis, job->src, row * job->v.inner,
                       (float *)job->dst + row * job->v.inner, job->v.inner);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const cross_state *const s = step->state;
    if (s->table_used) {
        qn__table_run(env->pool, s->table, in[0].data, out[0].data, in[0].count);
        return QN_OK;
    }
    if (!s->bytes) {
        qn__view_to_f32(&in[0], env->scratch);
        qn__view_from_f32(&out[0], env->scratch);
        return QN_OK;
    }
    cross_job job = {s, in[0].data, out[0].data, {1, 1, 1}};
    size_t items = in[0].count, cost = 5;
    if (s->axis >= 0) {
        job.v = qn__axis_view(in[0].rank, in[0].dims, in[0].layout, (size_t)s->axis);
        items = job.v.outer * job.v.axis;
        cost = 5 * job.v.inner;
    }
    qn__parallel_ranges(env->pool,
                        step->node->op == QN_OP_QUANTIZE_LINEAR ? quantize_range : dequantize_range,
                        &job, items, cost);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_quantize = {QN_OP_NONE, prepare, run, release};
