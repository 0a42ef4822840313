/* Values of tensors whose scale is made at run time. */
#include "run/dynamic.h"
#include "run/nd.h"

#include <math.h>

qn_dynamic_params qn__dynamic_params(float lo, float hi)
{
    lo = lo < 0.0f ? lo : 0.0f;
    hi = hi > 0.0f ? hi : 0.0f;
    qn_dynamic_params p = {1.0f, 0};
    if (!(hi > lo))
        return p;
    p.scale = (hi - lo) / 255.0f;
    if (!(p.scale > 0.0f)) { /* the range is smaller than 255 of the smallest numbers */
        p.scale = 1.0f;
        return p;
    }
    const float zero = -lo / p.scale;
    p.zero = (int32_t)rintf(zero < 255.0f ? zero : 255.0f);
    return p;
}

float qn__dynamic_row_scale(float lo, float hi)
{
    const float most = -lo > hi ? -lo : hi;
    return (most > QN_ROW_FLOOR ? most : QN_ROW_FLOOR) / (float)QN_ROW_STEPS;
}

static qn_q8_quantize_args quantize_args(const float *x, size_t count, qn_dynamic_params params,
                                         uint8_t *q)
{
    return (qn_q8_quantize_args){.n = count,
                                 .channels = 1,
                                 .src = x,
                                 .dst = q,
                                 .scale = params.scale,
                                 .lo = (float)-params.zero,
                                 .hi = (float)(255 - params.zero),
                                 .zero = params.zero};
}

typedef struct quantize_job {
    qn_q8_quantize_fn fn;
    qn_q8_quantize_args all;
} quantize_job;

static void quantize_range(void *arg, size_t begin, size_t end)
{
    const quantize_job *const job = arg;
    qn_q8_quantize_args part = job->all;
    part.n = end - begin;
    part.src += begin;
    part.dst += begin;
    job->fn(&part);
}

void qn__dynamic_quantize(const qn_q8_quantize *kernel, qn_pool *pool, const float *x, size_t count,
                          qn_dynamic_params params, uint8_t *q)
{
    quantize_job job = {kernel->fn, quantize_args(x, count, params, q)};
    qn__parallel_ranges(pool, quantize_range, &job, count, 5);
}

/* Runs of values that share a scale. */
typedef struct runs {
    size_t count, length;
    bool by_rows;
} runs;

static runs runs_of(const qn_view *view)
{
    const bool by_rows = qn_dynamic_by_rows(view->tensor->type);
    const size_t rows = by_rows ? qn_dynamic_rows(view->count, view->rank, view->dims) : 1;
    return (runs){rows, rows > 0 ? view->count / rows : 0, by_rows};
}

void qn__dynamic_to_f32(const qn_view *view, float *dst)
{
    const runs r = runs_of(view);
    const uint8_t *q = view->data;
    for (size_t i = 0; i < r.count; i++) {
        const qn_dynamic_params p =
            r.by_rows ? (qn_dynamic_params){qn_dynamic_scales_of(view)[i], QN_DYNAMIC_ROW_ZERO}
                      : *qn_dynamic_params_of(view);
        for (size_t k = 0; k < r.length; k++)
            *dst++ = (float)(*q++ - p.zero) * p.scale;
    }
}

void qn__dynamic_from_f32(const qn_view *view, const float *src)
{
    const runs r = runs_of(view);
    uint8_t *q = view->data;
    for (size_t i = 0; i < r.count; i++, src += r.length) {
        float lo = 0, hi = 0;
        for (size_t k = 0; k < r.length; k++) {
            lo = isfinite(src[k]) && src[k] < lo ? src[k] : lo;
            hi = isfinite(src[k]) && src[k] > hi ? src[k] : hi;
        }
        qn_dynamic_params p = {.zero = QN_DYNAMIC_ROW_ZERO};
        if (r.by_rows)
            qn_dynamic_scales_of(view)[i] = p.scale = qn__dynamic_row_scale(lo, hi);
        else
            *qn_dynamic_params_of(view) = p = qn__dynamic_params(lo, hi);
        const float least = r.by_rows ? QN_DYNAMIC_ROW_ZERO - QN_ROW_STEPS : 0;
        for (size_t k = 0; k < r.length; k++) {
            float v = rintf(src[k] / p.scale) + (float)p.zero;
            v = v > least ? v : least;
            *q++ = (uint8_t)(v < 255.0f ? v : 255.0f);
        }
    }
}

/* --- which nodes ------------------------------------------------------------------------------*/
static bool is_dynamic(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_DYNAMIC;
}

bool qn__dynamic_applies(const qn_node *node)
{
    for (uint32_t i = 0; i < node->n_inputs; i++)
        if (is_dynamic(node->inputs[i]))
            return true;
    return node->n_outputs > 0 && is_dynamic(node->outputs[0]);
}

extern const qn_run_op qn__op_to_dynamic, qn__op_dynamic_gemm;

const qn_run_op *qn__dynamic_op_find(const qn_node *node)
{
    if (node->op == QN_OP_QUANTIZE_LINEAR)
        return &qn__op_to_dynamic;
    return (node->op == QN_OP_MATMUL || node->op == QN_OP_GEMM) && is_dynamic(node->inputs[0])
               ? &qn__op_dynamic_gemm
               : NULL;
}
