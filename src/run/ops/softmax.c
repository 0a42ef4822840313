/* Softmax and LogSoftmax along one axis; the largest value is subtracted first. */
#include "run/nd.h"
#include "run/op.h"
#include "kernel/vmath.h"

#define COLUMNS 64    /* short rows worked on together */
#define MAX_SHORT 128 /* longest of them */
#define LANES 16      /* a loop of as many is a few vectors, without code for what is left over */

typedef struct softmax_job {
    const float *src;
    float *dst;
    qn_axis_view v;
    bool log;
    qn_f32_exp_fn exp;
} softmax_job;

static __attribute__((cold)) qn_status read_axis(const qn_step *step, size_t *axis, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0);
    int64_t a = qn__attr_int(step->node, "axis", -1);
    if (x == NULL || x->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs float32");
    a += a < 0 ? x->rank : 0;
    if (a < 0 || a >= x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range");
    *axis = (size_t)a;
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    size_t axis;
    QN_TRY(read_axis(step, &axis, error));
    step->out_layout[0] = step->in_layout[0];
    step->inplace_input = 0;
    return QN_OK;
}

static void contiguous_row(const softmax_job *job, const float *src, float *dst, size_t n)
{
    float top = -INFINITY;
    for (size_t i = 0; i < n; i++)
        top = src[i] > top ? src[i] : top;
    if (job->log) {
        double sum = 0.0;
        for (size_t i = 0; i < n; i++)
            sum += (double)qn_exp_f32(src[i] - top);
        const float shift = logf((float)sum);
        for (size_t i = 0; i < n; i++)
            dst[i] = src[i] - top - shift;
        return;
    }
    for (size_t i = 0; i < n; i++)
        dst[i] = src[i] - top;
    job->exp(dst, dst, n);
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        sum += dst[i];
    for (size_t i = 0; i < n; i++)
        dst[i] /= sum;
}

/* `n` neighbouring positions (a constant after inlining), axis elements `stride` apart. */
static inline __attribute__((always_inline)) void some_columns(const softmax_job *job,
                                                               const float *src, float *dst,
                                                               size_t axis, size_t stride,
                                                               const size_t n)
{
    const bool log = job->log;
    float top[LANES], sum[LANES] = {0}, part[LANES];
    for (size_t i = 0; i < n; i++)
        top[i] = -INFINITY;
    for (size_t k = 0; k < axis; k++)
        for (size_t i = 0; i < n; i++)
            top[i] = src[k * stride + i] > top[i] ? src[k * stride + i] : top[i];
    for (size_t k = 0; k < axis; k++) {
        for (size_t i = 0; i < n; i++)
            part[i] = src[k * stride + i] - top[i];
        job->exp(part, part, n);
        for (size_t i = 0; i < n; i++)
            sum[i] += part[i];
        if (!log)
            memcpy(dst + k * stride, part, n * sizeof *part);
    }
    for (size_t i = 0; log && i < n; i++)
        sum[i] = logf(sum[i]);
    for (size_t k = 0; k < axis; k++) {
        for (size_t i = 0; i < n; i++)
            part[i] = log ? src[k * stride + i] - top[i] - sum[i] : dst[k * stride + i] / sum[i];
        memcpy(dst + k * stride, part, n * sizeof *part);
    }
}

static void columns(const softmax_job *job, const float *src, float *dst, size_t axis,
                    size_t stride, size_t n)
{
    for (; n >= LANES; n -= LANES, src += LANES, dst += LANES)
        some_columns(job, src, dst, axis, stride, LANES);
    for (; n > 0; n--, src++, dst++)
        some_columns(job, src, dst, axis, stride, 1);
}

/* Several short rows at once, turned so that loops run over rows: the same operations in the same
 * order. */
static void short_rows(const softmax_job *job, const float *src, float *dst, size_t axis, size_t n)
{
    float turned[MAX_SHORT * COLUMNS];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < axis; k++)
            turned[k * COLUMNS + i] = src[i * axis + k];
    columns(job, turned, turned, axis, COLUMNS, n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < axis; k++)
            dst[i * axis + k] = turned[k * COLUMNS + i];
}

static void run_range(void *arg, size_t begin, size_t end)
{
    const softmax_job *const job = arg;
    const qn_axis_view v = job->v;
    if (v.inner == 1 && v.axis <= MAX_SHORT && !job->log) {
        for (size_t o = begin; o < end; o += COLUMNS)
            short_rows(job, job->src + o * v.axis, job->dst + o * v.axis, v.axis,
                       end - o < COLUMNS ? end - o : COLUMNS);
        return;
    }
    for (size_t o = begin; o < end; o++) {
        const size_t at = o * v.axis * v.inner;
        if (v.inner == 1) {
            contiguous_row(job, job->src + at, job->dst + at, v.axis);
            continue;
        }
        columns(job, job->src + at, job->dst + at, v.axis, v.inner, v.inner);
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    size_t axis = 0;
    QN_TRY(read_axis(step, &axis, error));
    softmax_job job = {in[0].data, out[0].data,
                       qn__axis_view(in[0].rank, in[0].dims, in[0].layout, axis),
                       step->node->op == QN_OP_LOG_SOFTMAX, step->kernels->f32_exp.fn};
    qn__parallel_ranges(env->pool, run_range, &job, job.v.outer, job.v.axis * job.v.inner * 16);
    return QN_OK;
}

const qn_run_op qn__op_softmax = {QN_OP_NONE, prepare, run, NULL};
