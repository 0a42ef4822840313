/* MatMulInteger and ConvInteger: sums in int32 of bytes less their zero points, which are tensors.
 * Plain loops: what runtimes fuse around them is collapsed when a model is read. */
#include "run/nd.h"
#include "run/ops/broadcast.h"
#include "run/ops/qcore.h"
#include "run/ops/window.h"

typedef struct product_state {
    size_t m, n, k, batches;
    qn_broadcast batch;
    qn_window window;
    size_t groups;
    bool a_rows, b_columns; /* a zero point for each row, for each column */
} product_state;

static bool is_byte(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_PLAIN &&
           (t->type.dtype == QN_DTYPE_U8 || t->type.dtype == QN_DTYPE_I8);
}

/* The zero point of input `input` is one value or has `count`; *many says which. */
static qn_status check_zero(const qn_step *step, uint32_t input, size_t count, bool *many,
                            qn_error *error)
{
    const qn_tensor *const zero = qn__step_input(step, input + 2);
    const qn_tensor *const of = qn__step_input(step, input);
    *many = false;
    if (zero == NULL)
        return QN_OK;
    const size_t have = qn__tensor_elements(zero);
    if (zero->type.dtype != of->type.dtype || zero->type.kind != QN_TYPE_PLAIN)
        return qn__step_fail(step, error, QN_CORRUPT, "zero point \"%s\" is %s, not %s", zero->name,
                             qn__dtype_name(zero->type.dtype), qn__dtype_name(of->type.dtype));
    if (have != 1 && have != count)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "zero point \"%s\" has %zu values",
                             zero->name, have);
    *many = have != 1;
    return QN_OK;
}

static qn_status start(const qn_plan *plan, qn_step *step, product_state **out, qn_error *error)
{
    if (!is_byte(qn__step_input(step, 0)) || !is_byte(qn__step_input(step, 1)) ||
        step->node->outputs[0]->type.dtype != QN_DTYPE_I32)
        return qn__step_fail(step, error, QN_CORRUPT, "needs int8 or uint8 to int32");
    product_state *const s = qn__calloc(qn__plan_context(plan), 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    step->state = s;
    for (uint32_t i = 0; i < step->node->n_inputs && i < QN_STEP_MAX_IO; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    *out = s;
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

static int32_t zero_at(const qn_step *step, const qn_view *in, uint32_t input, bool many, size_t i)
{
    if (qn__step_input(step, input + 2) == NULL)
        return 0;
    return qn_qload(in[input + 2].data, in[input + 2].tensor->type.dtype, many ? i : 0);
}

/* --- MatMulInteger ----------------------------------------------------------------------------*/
static qn_status read_matmul(const qn_step *step, product_state *s, qn_error *error)
{
    const qn_tensor *const a = step->node->inputs[0], *const b = step->node->inputs[1];
    const qn_tensor *const y = step->node->outputs[0];
    if (a->rank < 2 || b->rank < 2 || y->rank < 2)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs matrices");
    s->m = (size_t)a->dims[a->rank - 2].value;
    s->k = (size_t)a->dims[a->rank - 1].value;
    s->n = (size_t)b->dims[b->rank - 1].value;
    const size_t count = qn__tensor_elements(y);
    if ((size_t)b->dims[b->rank - 2].value != s->k || (size_t)y->dims[y->rank - 2].value != s->m ||
        (size_t)y->dims[y->rank - 1].value != s->n)
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not fit");
    s->batches = s->m * s->n == 0 ? 0 : count / (s->m * s->n);
    qn_tensor t[3] = {*y, *a, *b};
    for (size_t i = 0; i < 3; i++)
        t[i].rank = t[i].rank < 2 ? 0 : (uint8_t)(t[i].rank - 2);
    const qn_tensor *const inputs[2] = {&t[1], &t[2]};
    const qn_layout layouts[2] = {QN_LAYOUT_ROW_MAJOR, QN_LAYOUT_ROW_MAJOR};
    if (!qn__broadcast_make(&s->batch, &t[0], QN_LAYOUT_ROW_MAJOR, inputs, layouts, 2))
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    QN_TRY(check_zero(step, 0, s->m, &s->a_rows, error));
    return check_zero(step, 1, s->n, &s->b_columns, error);
}

static qn_status matmul_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    product_state *s = NULL;
    QN_TRY(start(plan, step, &s, error));
    const qn_status status = read_matmul(step, s, error);
    if (status != QN_OK)
        release(qn__plan_context(plan), step);
    return status;
}

typedef struct matmul_job {
    const qn_step *step;
    const qn_view *in;
    int32_t *out;
} matmul_job;

/* Rows of all matrices of the output. */
static void matmul_rows(void *arg, size_t begin, size_t end)
{
    const matmul_job *const job = arg;
    const product_state *const s = job->step->state;
    const qn_dtype at = job->in[0].tensor->type.dtype, bt = job->in[1].tensor->type.dtype;
    for (size_t row = begin; row < end; row++) {
        const size_t matrix = row / s->m, m = row % s->m;
        int64_t from[QN_BROADCAST_MAX];
        const size_t axis = s->batch.rank - 1;
        qn__broadcast_row(&s->batch, matrix / s->batch.row, from);
        from[0] += (int64_t)(matrix % s->batch.row) * s->batch.strides[0][axis];
        from[1] += (int64_t)(matrix % s->batch.row) * s->batch.strides[1][axis];
        const size_t a = ((size_t)from[0] * s->m + m) * s->k, b = (size_t)from[1] * s->k * s->n;
        const int32_t za = zero_at(job->step, job->in, 0, s->a_rows, m);
        int32_t *const y = job->out + row * s->n;
        for (size_t n = 0; n < s->n; n++) {
            const int32_t zb = zero_at(job->step, job->in, 1, s->b_columns, n);
            uint32_t sum = 0;
            for (size_t k = 0; k < s->k; k++)
                sum += (uint32_t)((qn_qload(job->in[0].data, at, a + k) - za) *
                                  (qn_qload(job->in[1].data, bt, b + k * s->n + n) - zb));
            y[n] = (int32_t)sum;
        }
    }
}

static qn_status matmul_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                            const qn_view *out, qn_error *error)
{
    (void)error;
    const product_state *const s = step->state;
    matmul_job job = {step, in, out[0].data};
    qn__parallel_ranges(env->pool, matmul_rows, &job, s->batches * s->m, 4 * s->k * s->n);
    return QN_OK;
}

/* --- ConvInteger ------------------------------------------------------------------------------*/
static qn_status read_conv(const qn_step *step, product_state *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const w = step->node->inputs[1];
    const int64_t groups = qn__attr_int(step->node, "group", 1);
    bool many;
    if (x->rank < 3 || w->rank != x->rank || groups < 1)
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not fit");
    int64_t dims[QN_MAX_RANK];
    qn__tensor_dims(w, dims);
    QN_TRY(qn__window_read(step, dims + 2, false, false, &s->window, error));
    s->groups = (size_t)groups;
    s->k = (size_t)dims[1];
    if (s->window.c % s->groups != 0 || s->window.oc % s->groups != 0 ||
        s->window.c / s->groups != s->k || (size_t)dims[0] != s->window.oc ||
        (size_t)step->node->outputs[0]->dims[0].value != s->window.n)
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not fit");
    QN_TRY(check_zero(step, 0, 1, &many, error));
    return check_zero(step, 1, s->window.oc, &s->b_columns, error);
}

static qn_status conv_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    product_state *s = NULL;
    QN_TRY(start(plan, step, &s, error));
    const qn_status status = read_conv(step, s, error);
    if (status != QN_OK)
        release(qn__plan_context(plan), step);
    return status;
}

static int32_t conv_one(const matmul_job *job, size_t image, size_t o, size_t oy, size_t ox)
{
    const product_state *const s = job->step->state;
    const qn_window *const w = &s->window;
    const qn_dtype xt = job->in[0].tensor->type.dtype, wt = job->in[1].tensor->type.dtype;
    const int32_t zx = zero_at(job->step, job->in, 0, false, 0);
    const int32_t zw = zero_at(job->step, job->in, 1, s->b_columns, o);
    const ptrdiff_t y0 = (ptrdiff_t)(oy * w->sh) - (ptrdiff_t)w->pt;
    const ptrdiff_t x0 = (ptrdiff_t)(ox * w->sw) - (ptrdiff_t)w->pl;
    const size_t first = image * w->c + o / (w->oc / s->groups) * s->k;
    size_t i0, i1, j0, j1;
    uint32_t sum = 0;
    qn_window_taps(y0, w->h, w->kh, w->dh, &i0, &i1);
    qn_window_taps(x0, w->w, w->kw, w->dw, &j0, &j1);
    for (size_t c = 0; c < s->k; c++)
        for (size_t i = i0; i < i1; i++) {
            const size_t y = (size_t)(y0 + (ptrdiff_t)(i * w->dh));
            for (size_t j = j0; j < j1; j++) {
                const size_t x = (size_t)(x0 + (ptrdiff_t)(j * w->dw));
                const size_t xi = ((first + c) * w->h + y) * w->w + x;
                const size_t wi = ((o * s->k + c) * w->kh + i) * w->kw + j;
                sum += (uint32_t)((qn_qload(job->in[0].data, xt, xi) - zx) *
                                  (qn_qload(job->in[1].data, wt, wi) - zw));
            }
        }
    return (int32_t)sum;
}

/* Rows of the output. */
static void conv_rows(void *arg, size_t begin, size_t end)
{
    const matmul_job *const job = arg;
    const product_state *const s = job->step->state;
    const qn_window *const w = &s->window;
    for (size_t row = begin; row < end; row++)
        for (size_t ox = 0; ox < w->ow; ox++)
            job->out[row * w->ow + ox] =
                conv_one(job, row / w->oh / w->oc, row / w->oh % w->oc, row % w->oh, ox);
}

static qn_status conv_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                          const qn_view *out, qn_error *error)
{
    (void)error;
    const product_state *const s = step->state;
    const qn_window *const w = &s->window;
    matmul_job job = {step, in, out[0].data};
    qn__parallel_ranges(env->pool, conv_rows, &job, w->n * w->oc * w->oh,
                        4 * w->ow * s->k * w->kh * w->kw);
    return QN_OK;
}

const qn_run_op qn__op_matmul_integer = {QN_OP_MATMUL_INTEGER, matmul_prepare, matmul_run, release};
const qn_run_op qn__op_conv_integer = {QN_OP_CONV_INTEGER, conv_prepare, conv_run, release};
