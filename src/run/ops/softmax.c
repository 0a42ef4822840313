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

/* In any order it is the same. */
static float largest(const float *src, size_t n)
{
    float tops[LANES], top = -INFINITY;
    for (size_t i = 0; i < LANES; i++)
        tops[i] = top;
    for (; n >= LANES; n -= LANES, src += LANES)
        for (size_t i = 0; i < LANES; i++)
            tops[i] = src[i] > tops[i] ? src[i] : tops[i];
    for (size_t i = 0; i < LANES; i++)
        top = tops[i] > top ? tops[i] : top;
    for (size_t i = 0; i < n; i++)
        top = src[i] > top ? src[i] : top;
    return top;
}

/* One after another where other ways to come here add so, else LANES sums: a chain of additions
 * takes as long as all the rest. */
static float total(const float *x, size_t n)
{
    float sums[LANES] = {0}, sum = 0.0f;
    for (; n > MAX_SHORT; n -= LANES, x += LANES)
        for (size_t i = 0; i < LANES; i++)
            sums[i] += x[i];
    for (size_t i = 0; i < LANES; i++)
        sum += sums[i];
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static void contiguous_row(const softmax_job *job, const float *src, float *dst, size_t n)
{
    const float top = largest(src, n);
    if (job->log) {
        double sum = 0.0;
        for (size_t i = 0; i < n; i++)
            sum += (double)qn_exp_f32(src[i] - top);
        const float shift = logf((float)sum);
        for (size_t i = 0; i < n; i++)
            dst[i] = src[i] - top - shift;
        return;
    }
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            dst[i + k] = src[i + k] - top;
    for (; i < n; i++)
        dst[i] = src[i] - top;
    job->exp(dst, dst, n);
    const float sum = total(dst, n);
    for (i = 0; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            dst[i + k] /= sum;
    for (; i < n; i++)
        dst[i] /= sum;
}

/* Neighbouring positions, axis elements `stride` apart; of LANES at a time the first n exist. */
static void columns(const softmax_job *job, const float *src, float *dst, size_t axis,
                    size_t stride, size_t count)
{
    const bool log = job->log;
    for (size_t n; count > 0; count -= n, src += n, dst += n) {
        float top[LANES], sum[LANES] = {0}, part[LANES] = {0};
        n = count < LANES ? count : LANES;
        for (size_t i = 0; i < LANES; i++)
            top[i] = -INFINITY;
        for (size_t k = 0; k < axis; k++) {
            memcpy(part, src + k * stride, n * sizeof *part);
            for (size_t i = 0; i < LANES; i++)
                top[i] = part[i] > top[i] ? part[i] : top[i];
        }
        for (size_t k = 0; k < axis; k++) {
            memcpy(part, src + k * stride, n * sizeof *part);
            for (size_t i = 0; i < LANES; i++)
                part[i] -= top[i];
            job->exp(part, part, LANES);
            for (size_t i = 0; i < LANES; i++)
                sum[i] += part[i];
            if (!log)
                memcpy(dst + k * stride, part, n * sizeof *part);
        }
        for (size_t i = 0; log && i < n; i++)
            sum[i] = logf(sum[i]);
        for (size_t k = 0; k < axis; k++) {
            memcpy(part, (log ? src : dst) + k * stride, n * sizeof *part);
            for (size_t i = 0; i < LANES; i++)
                part[i] = log ? part[i] - top[i] - sum[i] : part[i] / sum[i];
            memcpy(dst + k * stride, part, n * sizeof *part);
        }
    }
}

/* Several short rows at once, turned so that loops run over rows. */
static void short_rows(const softmax_job *job, const float *src, float *dst, size_t axis, size_t n)
{
    float turned[MAX_SHORT * COLUMNS];
    turned[0] = 0.0f; /* for compilers that fear a row of nothing */
    for (size_t k = 0; k < axis; k++)
        for (size_t i = 0; i < n; i++)
            turned[k * COLUMNS + i] = src[i * axis + k];
    columns(job, turned, turned, axis, COLUMNS, n);
    for (size_t k = 0; k < axis; k++)
        for (size_t i = 0; i < n; i++)
            dst[i * axis + k] = turned[k * COLUMNS + i];
}

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t four_masks __attribute__((vector_size(16)));
#ifdef __clang__
#define FOUR_OF(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FOUR_OF(a, b, ...) __builtin_shuffle(a, b, (four_masks){__VA_ARGS__})
#endif

/* b where the mask is set, else a. */
static inline four choose(four a, four b, four_masks mask)
{
    return (four)(((four_masks)a & ~mask) | ((four_masks)b & mask));
}

/* Rows of two, as detectors have them, COLUMNS of them. The larger one less itself is 0, whose
 * exponential is 1: one of each pair is left, their sum. What is no number stays in it. */
static void pairs(const softmax_job *job, const float *src, float *dst)
{
    float exps[COLUMNS];
    const four one = {1.0f, 1.0f, 1.0f, 1.0f};
    for (int last = 0; last < 2; last++) {
        for (size_t i = 0; i < COLUMNS; i += 4) {
            const four a = *(const four *)(src + 2 * i), b = *(const four *)(src + 2 * i + 4);
            const four x = FOUR_OF(a, b, 0, 2, 4, 6), y = FOUR_OF(a, b, 1, 3, 5, 7);
            if (last == 0) {
                const four top = choose(y, x, x > y);
                *(four *)(exps + i) = (x - top) + (y - top);
                continue;
            }
            const four e = *(const four *)(exps + i), sum = one + e;
            const four p = choose(e, one, x >= y) / sum, q = choose(e, one, y >= x) / sum;
            *(four *)(dst + 2 * i) = FOUR_OF(p, q, 0, 4, 1, 5);
            *(four *)(dst + 2 * i + 4) = FOUR_OF(p, q, 2, 6, 3, 7);
        }
        if (last == 0)
            job->exp(exps, exps, COLUMNS);
    }
}

static void run_range(void *arg, size_t begin, size_t end)
{
    const softmax_job *const job = arg;
    const qn_axis_view v = job->v;
    const size_t size = v.axis * v.inner;
    for (size_t o = begin, n; o < end; o += n) {
        const float *const src = job->src + o * size;
        float *const dst = job->dst + o * size;
        n = end - o < COLUMNS ? end - o : COLUMNS;
        if (v.inner == 1 && v.axis == 2 && !job->log && n == COLUMNS) {
            pairs(job, src, dst);
            continue;
        }
        if (v.inner == 1 && v.axis <= MAX_SHORT && !job->log && n >= COLUMNS / 4) {
            short_rows(job, src, dst, v.axis, n);
            continue;
        }
        n = 1;
        if (v.inner == 1)
            contiguous_row(job, src, dst, v.axis);
        else
            columns(job, src, dst, v.axis, v.inner, v.inner);
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    size_t axis = 0;
    QN_TRY(read_axis(step, &axis, error));
    if (in[0].count == 0)
        return QN_OK;
    softmax_job job = {in[0].data, out[0].data,
                       qn__axis_view(in[0].rank, in[0].dims, in[0].layout, axis),
                       step->node->op == QN_OP_LOG_SOFTMAX, step->kernels->f32_exp.fn};
    qn__parallel_ranges(env->pool, run_range, &job, job.v.outer, job.v.axis * job.v.inner * 16);
    return QN_OK;
}

const qn_run_op qn__op_softmax = {QN_OP_NONE, prepare, run, NULL};
