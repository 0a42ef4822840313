/* Pools over any number of axes, LpPool, and MaxPool with the indices of its maxima. */
#include "run/nd.h"
#include "run/ops/window.h"
#include "run/ops/window_nd.h"

#include <float.h>
#include <math.h>
#include <string.h>

void qn__coordinates(size_t index, size_t rank, const int64_t *dims, int64_t *at)
{
    for (size_t i = rank; i-- > 0;) {
        at[i] = (int64_t)(index % (size_t)dims[i]);
        index /= (size_t)dims[i];
    }
}

qn_status qn__window_nd_read(const qn_step *step, const int64_t *kernel, qn_window_nd *out,
                             qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const y = step->node->outputs[0];
    if (x->rank != y->rank || x->rank < 3)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input of rank %u", x->rank);
    if (x->type.kind != QN_TYPE_QUANT && step->node->op != QN_OP_CONV_INTEGER &&
        (x->type.dtype != QN_DTYPE_F32 || y->type.dtype != QN_DTYPE_F32))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input \"%s\" is %s, not float32",
                             x->name, qn__dtype_name(x->type.dtype));
    qn_window_nd w = {.n = (size_t)x->rank - 2, .in_count = 1, .out_count = 1, .taps = 1};
    int64_t pads[2 * QN_ND_AXES] = {0};
    const char *const auto_pad = qn__attr_string(step->node, "auto_pad", "NOTSET");
    if (strcmp(auto_pad, "NOTSET") != 0 && strcmp(auto_pad, "VALID") != 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "auto_pad \"%s\"", auto_pad);
    if (kernel == NULL)
        QN_TRY(qn__window_ints(step, "kernel_shape", w.n, 1, 0, w.kernel, error));
    QN_TRY(qn__window_ints(step, "strides", w.n, 1, 1, w.stride, error));
    QN_TRY(qn__window_ints(step, "dilations", w.n, 1, 1, w.dilation, error));
    QN_TRY(qn__window_ints(step, "pads", 2 * w.n, -QN_WINDOW_MAX_EXTENT, 0, pads, error));
    for (size_t i = 0; i < w.n; i++) {
        w.in[i] = x->dims[2 + i].value;
        w.out[i] = y->dims[2 + i].value;
        w.kernel[i] = kernel != NULL ? kernel[i] : w.kernel[i];
        if (w.kernel[i] < 1 || w.kernel[i] > QN_WINDOW_MAX_EXTENT ||
            w.in[i] > QN_WINDOW_MAX_EXTENT || w.out[i] > QN_WINDOW_MAX_EXTENT ||
            !qn_mul_size(&w.taps, w.taps, (size_t)w.kernel[i]))
            return qn__step_fail(step, error, QN_CORRUPT, "kernel of %lld over %lld elements",
                                 (long long)w.kernel[i], (long long)w.in[i]);
        w.begin[i] = pads[i];
        w.end[i] = pads[w.n + i];
        w.in_count *= (size_t)w.in[i];
        w.out_count *= (size_t)w.out[i];
    }
    *out = w;
    return QN_OK;
}

typedef struct pool_nd {
    qn_window_nd w;
    qn_op op;
    bool count_pads, columns_first;
    int64_t p;
    qn_clamp_f32 clamp;
} pool_nd;

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    pool_nd s = {.op = node->op, .clamp = qn__step_clamp(step)};
    const qn_tensor *const x = qn__step_input(step, 0);
    if (x == NULL || x->rank < 3)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs an input of rank 3 or more");
    int64_t dims[QN_MAX_RANK];
    qn__tensor_dims(x, dims);
    for (size_t i = 2; i < x->rank; i++)
        if (dims[i] < 1)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "an axis without elements");
    QN_TRY(qn__window_nd_read(step, s.op == QN_OP_GLOBAL_LP_POOL ? dims + 2 : NULL, &s.w, error));
    s.count_pads = qn__attr_int(node, "count_include_pad", 0) != 0;
    s.columns_first = qn__attr_int(node, "storage_order", 0) != 0;
    s.p = qn__attr_int(node, "p", 2);
    if (s.p < 1 || s.p > 1024)
        return qn__step_fail(step, error, QN_CORRUPT, "\"p\" is %lld", (long long)s.p);
    if (node->n_outputs > 1 && node->outputs[1] != NULL &&
        (node->outputs[1]->type.dtype != QN_DTYPE_I64 ||
         qn__tensor_elements(node->outputs[1]) != qn__tensor_elements(node->outputs[0])))
        return qn__step_fail(step, error, QN_CORRUPT, "indices do not fit the output");
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->kernel_name = "pool_nd";
    pool_nd *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    return QN_OK;
}

typedef struct pool_job {
    const pool_nd *s;
    const float *in;
    float *out;
    int64_t *indices;
} pool_job;

/* What one window saw. */
typedef struct seen {
    size_t taps;
    float max;
    size_t at; /* of the maximum, in the plane */
    double sum;
} seen;

static double power(double x, int64_t p)
{
    return p == 2 ? x * x : p == 1 ? fabs(x) : pow(fabs(x), (double)p);
}

static seen look(const pool_nd *s, const float *plane, const int64_t *start)
{
    const qn_window_nd *const w = &s->w;
    seen found = {.max = -FLT_MAX};
    int64_t tap[QN_ND_AXES];
    for (size_t t = 0; t < w->taps; t++) {
        size_t at = 0;
        bool inside = true;
        qn__coordinates(t, w->n, w->kernel, tap);
        for (size_t i = 0; i < w->n && inside; i++) {
            const int64_t here = start[i] + tap[i] * w->dilation[i];
            inside = here >= 0 && here < w->in[i];
            at = at * (size_t)w->in[i] + (size_t)here;
        }
        if (!inside)
            continue;
        const float x = plane[at];
        if (found.taps++ == 0 || x > found.max || (x != x && found.max == found.max)) {
            found.max = x;
            found.at = at;
        }
        if (s->op != QN_OP_MAX_POOL)
            found.sum += s->op == QN_OP_AVERAGE_POOL ? (double)x : power((double)x, s->p);
    }
    return found;
}

/* Taps in the input or its pads; a window rounded up beyond the pads is shorter. */
static size_t padded_taps(const qn_window_nd *w, const int64_t *start)
{
    size_t taps = 1;
    for (size_t i = 0; i < w->n; i++) {
        const int64_t room = w->in[i] + w->end[i] - start[i];
        const int64_t fit = room <= 0 ? 0 : (room + w->dilation[i] - 1) / w->dilation[i];
        taps *= (size_t)(fit < w->kernel[i] ? fit : w->kernel[i]);
    }
    return taps;
}

/* Index in a plane whose first axis runs fastest. */
static size_t column_index(const qn_window_nd *w, size_t at)
{
    int64_t where[QN_ND_AXES];
    size_t index = 0;
    qn__coordinates(at, w->n, w->in, where);
    for (size_t i = w->n; i-- > 0;)
        index = index * (size_t)w->in[i] + (size_t)where[i];
    return index;
}

static void run_planes(void *arg, size_t begin, size_t end)
{
    const pool_job *const job = arg;
    const pool_nd *const s = job->s;
    const qn_window_nd *const w = &s->w;
    for (size_t plane = begin; plane < end; plane++) {
        for (size_t o = 0; o < w->out_count; o++) {
            int64_t start[QN_ND_AXES];
            qn__coordinates(o, w->n, w->out, start);
            for (size_t i = 0; i < w->n; i++)
                start[i] = start[i] * w->stride[i] - w->begin[i];
            const seen found = look(s, job->in + plane * w->in_count, start);
            float y = found.max;
            if (s->op == QN_OP_AVERAGE_POOL) {
                const size_t n = s->count_pads ? padded_taps(w, start) : found.taps;
                y = n > 0 ? (float)(found.sum / (double)n) : 0.0f;
            } else if (s->op != QN_OP_MAX_POOL) {
                y = (float)(s->p == 2   ? sqrt(found.sum)
                            : s->p == 1 ? found.sum
                                        : pow(found.sum, 1.0 / (double)s->p));
            }
            y = y < s->clamp.lo ? s->clamp.lo : y;
            job->out[plane * w->out_count + o] = y > s->clamp.hi ? s->clamp.hi : y;
            if (job->indices != NULL)
                job->indices[plane * w->out_count + o] =
                    (int64_t)(plane * w->in_count +
                              (s->columns_first ? column_index(w, found.at) : found.at));
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const pool_nd *const s = step->state;
    if (out[0].count == 0)
        return QN_OK;
    const bool indexed = step->node->n_outputs > 1 && step->node->outputs[1] != NULL;
    pool_job job = {s, in[0].data, out[0].data, indexed ? out[1].data : NULL};
    const size_t planes = (size_t)(out[0].dims[0] * out[0].dims[1]);
    qn__parallel_ranges(env->pool, run_planes, &job, planes, 4 * s->w.out_count * s->w.taps);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_pool_nd = {QN_OP_NONE, prepare, run, release};
