/* Quantized weights, their scales and bias. */
#include "run/ops/qweights.h"
#include "run/ops/simulated.h"

#include <math.h>

void qn__qweights_drop_values(const qn_context *ctx, qn_qweights *w)
{
    qn__free(ctx, w->values);
    w->values = NULL;
}

void qn__qweights_free(const qn_context *ctx, qn_qweights *w)
{
    qn__free(ctx, w->values);
    qn__free(ctx, w->scale);
    qn__free(ctx, w->bias);
    qn__free(ctx, w->fixed);
    *w = (qn_qweights){0};
}

qn_status qn__qfixed(const qn_plan *plan, const qn_step *step, double real, qn_multiplier *out,
                     qn_error *error)
{
    const qn_requantize kind = qn__plan_requantize(plan);
    qn_multiplier unused;
    if (qn__fixed_make(real, kind, out != NULL ? out : &unused))
        return QN_OK;
    return qn__step_fail(step, error, QN_UNSUPPORTED,
                         "requantization by %s cannot multiply by %g%s", qn__requantize_name(kind),
                         real, kind == QN_REQUANTIZE_SHIFT ? ": scales must be powers of two" : "");
}

qn_status qn__qoutput(const qn_plan *plan, const qn_step *step, const float *scale,
                      const int32_t *bias, const qn_multiplier *fixed, qn_requant *out, float *s_y,
                      qn_error *error)
{
    const qn_tensor *const y = step->node->outputs[0];
    *out = (qn_requant){
        .scale = scale, .bias = bias, .dtype = QN_DTYPE_F32, .clamp = qn__step_clamp(step)};
    *s_y = 0.0f;
    if (y->type.kind != QN_TYPE_QUANT && y->type.dtype == QN_DTYPE_F32)
        return QN_OK;
    qn_qparams p;
    QN_TRY(qn__qparams_read(step, y, &p, error));
    out->dtype = p.dtype;
    out->zero = p.zero;
    out->kind = qn__plan_requantize(plan);
    out->fixed = fixed;
    out->fixed_fn = step->kernels->q8_fixed.fn;
    qn__qact_bounds(step, &p, &out->lo, &out->hi);
    *s_y = p.scale;
    return QN_OK;
}

static qn_status check_weights(const qn_step *step, const qn_tensor *w, int axis, size_t columns,
                               qn_error *error)
{
    if (w == NULL || w->constant == NULL || w->type.kind != QN_TYPE_QUANT ||
        w->type.quant->n_codebook != 0 || w->type.quant->block != 0 || w->type.quant->bits > 8)
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "weights must be constant integers of at most 8 bits");
    const qn_quant *const q = w->type.quant;
    if (q->axis >= 0 && (q->axis != axis || q->n_scales != (size_t)w->dims[axis].value))
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "weights \"%s\" have scales along axis %d, not %d", w->name, q->axis,
                             axis);
    size_t bytes;
    if (columns == 0 || !qn__dtype_bytes(&bytes, w->type.dtype, qn__tensor_elements(w)) ||
        bytes > w->constant->size_bytes)
        return qn__step_fail(step, error, QN_CORRUPT, "weights \"%s\" have too few bytes", w->name);
    return QN_OK;
}

/* n values from `at` on, which have the same zero point; lo and hi are widened by them. */
static void center_run(const qn_tensor *w, size_t at, size_t n, int32_t zero, float *restrict out,
                       int32_t *lo, int32_t *hi)
{
    const qn_dtype dtype = w->type.dtype;
    int32_t least = *lo, most = *hi;
    if (dtype == QN_DTYPE_I8 || dtype == QN_DTYPE_U8) {
        const uint8_t *const bytes = (const uint8_t *)w->constant->data + at;
        const int32_t flip = dtype == QN_DTYPE_I8 ? 0x80 : 0;
        for (size_t i = 0; i < n; i++) {
            const int32_t v = (bytes[i] ^ flip) - flip - zero;
            out[i] = (float)v;
            least = v < least ? v : least;
            most = v > most ? v : most;
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            const int32_t v = (int32_t)qn__load_int(w->constant->data, dtype, at + i) - zero;
            out[i] = (float)v;
            least = v < least ? v : least;
            most = v > most ? v : most;
        }
    }
    *lo = least;
    *hi = most;
}

static void center_values(const qn_tensor *w, int axis, qn_qweights *out)
{
    const qn_quant *const q = w->type.quant;
    const size_t count = qn__tensor_elements(w);
    size_t inner = 1;
    for (size_t i = (size_t)axis + 1; i < w->rank; i++)
        inner *= (size_t)w->dims[i].value;
    const size_t dim = (size_t)w->dims[axis].value;
    int32_t lo = 0, hi = 0;
    if (q->axis < 0 || q->zero_points == NULL) /* one run */
        inner = count;
    for (size_t i = 0; i < count; i += inner) {
        const size_t channel = q->axis >= 0 ? i / inner % dim : 0;
        const int32_t zero = q->zero_points != NULL ? q->zero_points[channel] : 0;
        center_run(w, i, inner, zero, out->values + i, &lo, &hi);
    }
    out->max = hi > -lo ? hi : -lo;
    out->fits_i8 = lo >= INT8_MIN && hi <= INT8_MAX;
    out->parts = 1;
    while (out->parts < 4 && (out->parts * INT8_MIN > lo || out->parts * INT8_MAX < hi))
        out->parts++;
    out->parts &= 3;
}

/* int32 as it is; float is rounded into steps of s_x * s_w, as runtimes do when loading. Gemm's
 * bias is times beta, and its steps times alpha. */
static qn_status read_bias(const qn_plan *plan, const qn_step *step, uint32_t input, size_t columns,
                           const float *steps, qn_qweights *out, qn_error *error)
{
    const qn_tensor *const b = qn__step_input(step, input);
    if (b == NULL)
        return QN_OK;
    const size_t count = qn__tensor_elements(b);
    if (b->constant == NULL || (count != columns && count != 1))
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "bias \"%s\" must be constant, one value per output channel", b->name);
    const qn_node *const node = step->node;
    const bool gemm = node->op == QN_OP_GEMM;
    const float beta = gemm ? qn__attr_float(node, "beta", 1.0f) : 1.0f;
    const bool scaled = beta != 1.0f || (gemm && qn__attr_float(node, "alpha", 1.0f) != 1.0f);
    /* Integers without a scale of their own count steps of the sums. */
    if (b->type.dtype == QN_DTYPE_I32 && !(scaled && b->type.kind == QN_TYPE_QUANT)) {
        if (b->constant->size_bytes < count * sizeof(int32_t))
            return qn__step_fail(step, error, QN_CORRUPT, "bias has too few bytes");
        for (size_t i = 0; i < columns; i++)
            out->bias[i] =
                (int32_t)qn__load_int(b->constant->data, QN_DTYPE_I32, count == 1 ? 0 : i);
        return QN_OK;
    }
    float *values;
    QN_TRY(qn__step_const_f32(plan, step, input, &values, NULL, error));
    bool numbers = true;
    for (size_t i = 0; i < columns; i++) {
        const double v = rint((double)beta * (double)values[count == 1 ? 0 : i] / (double)steps[i]);
        if (isnan(v)) {
            numbers = false;
            continue;
        }
        out->bias[i] = v >= 2147483647.0 ? INT32_MAX : v <= -2147483647.0 ? -INT32_MAX : (int32_t)v;
    }
    qn__free(qn__plan_context(plan), values);
    if (!numbers)
        return qn__step_fail(step, error, QN_NONFINITE,
                             "bias \"%s\" has values that are no numbers", b->name);
    return QN_OK;
}

qn_status qn__qweights_scales(const qn_plan *plan, const qn_step *step, uint32_t input, int axis,
                              size_t columns, const qn_qparams *x, float alpha, uint32_t bias_input,
                              qn_qweights *out, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_tensor *const w = qn__step_input(step, input);
    QN_TRY(check_weights(step, w, axis, columns, error));
    const qn_quant *const q = w->type.quant;
    const size_t dim = (size_t)w->dims[axis].value;
    qn_qweights r = {.is_signed = q->is_signed};
    bool centred = w->type.dtype == QN_DTYPE_I8;
    for (size_t i = 0; centred && q->zero_points != NULL && i < q->n_scales; i++)
        centred = q->zero_points[i] == 0;
    if (centred) {
        r.bytes = (const int8_t *)w->constant->data;
        r.fits_i8 = true;
        r.parts = 1;
    }
    r.scale = qn__calloc(ctx, columns, sizeof(float));
    r.bias = qn__calloc(ctx, columns, sizeof(int32_t));
    qn_status status = r.scale == NULL || r.bias == NULL ? QN_NOMEM(error) : QN_OK;
    if (status == QN_OK) {
        for (size_t i = 0; i < columns; i++)
            r.scale[i] = alpha * x->scale * q->scales[q->axis >= 0 ? i % dim : 0];
        status = read_bias(plan, step, bias_input, columns, r.scale, &r, error);
    }
    qn_requant requant;
    float s_y;
    if (status == QN_OK)
        status = qn__qoutput(plan, step, r.scale, r.bias, NULL, &requant, &s_y, error);
    if (status == QN_OK && requant.kind != QN_REQUANTIZE_DEFAULT) {
        r.fixed = qn__calloc(ctx, columns, sizeof(*r.fixed));
        status = r.fixed == NULL ? QN_NOMEM(error) : QN_OK;
        for (size_t i = 0; status == QN_OK && i < columns; i++) {
            const double s_w = (double)q->scales[q->axis >= 0 ? i % dim : 0];
            const double real = (double)alpha * (double)x->scale * s_w / (double)s_y;
            status = qn__qfixed(plan, step, real, &r.fixed[i], error);
        }
    }
    if (status != QN_OK) {
        qn__qweights_free(ctx, &r);
        return status;
    }
    for (size_t i = 0; i < columns && s_y > 0.0f; i++)
        r.scale[i] /= s_y;
    *out = r;
    return QN_OK;
}

qn_status qn__qweights_values(const qn_plan *plan, const qn_step *step, uint32_t input, int axis,
                              qn_qweights *weights, qn_error *error)
{
    const qn_tensor *const w = qn__step_input(step, input);
    weights->values = qn__calloc(qn__plan_context(plan), qn__tensor_elements(w) + 1, sizeof(float));
    if (weights->values == NULL)
        return QN_NOMEM(error);
    center_values(w, axis, weights);
    return QN_OK;
}

qn_status qn__qweights_read(const qn_plan *plan, const qn_step *step, uint32_t input, int axis,
                            size_t columns, const qn_qparams *x, float alpha, uint32_t bias_input,
                            qn_qweights *out, qn_error *error)
{
    qn_qweights r;
    QN_TRY(qn__qweights_scales(plan, step, input, axis, columns, x, alpha, bias_input, &r, error));
    const qn_status status = qn__qweights_values(plan, step, input, axis, &r, error);
    if (status != QN_OK) {
        qn__qweights_free(qn__plan_context(plan), &r);
        return status;
    }
    *out = r;
    return QN_OK;
}

qn_status qn__prepare_simulated(const qn_plan *plan, qn_step *step, qn_error *error)
{
    step->impl = qn__run_simulated_find(step->node->op);
    if (step->impl == NULL)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "a zero point is no byte");
    return step->impl->prepare(plan, step, error);
}
