/* Unary element functions. */
#include "run/ops/unary.h"

#include "run/nd.h"
#include "kernel/vmath.h"

/* Loops over src (maybe dst itself: same index only, so vectorizing is safe). Those over functions
 * of the library do as many as there are, the others whole blocks: no code for what is left over.
 */
enum { BLOCK = 64 };

#define FOR(count, expr)                                                                           \
    do {                                                                                           \
        _Pragma("GCC ivdep") for (size_t i = 0; i < (count); i++)                                  \
        {                                                                                          \
            const float x = src[i];                                                                \
            dst[i] = (expr);                                                                       \
        }                                                                                          \
    } while (0)
#define LOOP(expr) FOR(BLOCK, expr)
#define CALL(expr) FOR(n, expr)

static float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

static void swish(const qn_unary *u, const float *src, float *dst)
{
    float part[BLOCK];
    for (size_t i = 0; i < BLOCK; i++)
        part[i] = -(u->alpha * src[i]);
    u->exp(part, part, BLOCK);
    for (size_t i = 0; i < BLOCK; i++)
        dst[i] = src[i] * (1.0f / (1.0f + part[i]));
}

/* Operators that are one function of the C library. */
static __attribute__((noinline)) float (*library_function(qn_op op))(float)
{
    switch (op) {
    case QN_OP_TANH:
        return tanhf;
    case QN_OP_LOG:
        return logf;
    case QN_OP_FLOOR:
        return floorf;
    case QN_OP_CEIL:
        return ceilf;
    case QN_OP_ROUND:
        return rintf;
    case QN_OP_ERF:
        return erff;
    case QN_OP_SIN:
        return sinf;
    case QN_OP_COS:
        return cosf;
    case QN_OP_TAN:
        return tanf;
    case QN_OP_ASIN:
        return asinf;
    case QN_OP_ACOS:
        return acosf;
    case QN_OP_ATAN:
        return atanf;
    case QN_OP_SINH:
        return sinhf;
    case QN_OP_COSH:
        return coshf;
    case QN_OP_ASINH:
        return asinhf;
    case QN_OP_ACOSH:
        return acoshf;
    case QN_OP_ATANH:
        return atanhf;
    default:
        return NULL;
    }
}

/* n: how many of a block's elements matter; all of them can be read and written. */
static void apply(const qn_unary *u, const float *src, float *dst, size_t n)
{
    const float alpha = u->alpha, beta = u->beta;
    float (*const fn)(float) = library_function(u->op);
    if (fn != NULL) {
        CALL(fn(x));
        return;
    }
    switch (u->op) {
    case QN_OP_RELU:
        LOOP(x < 0.0f ? 0.0f : x);
        break;
    case QN_OP_CLIP: /* comparisons keep NaN; when the bounds cross the upper one wins */
        LOOP((x < alpha ? alpha : x) > beta ? beta : (x < alpha ? alpha : x));
        break;
    case QN_OP_LEAKY_RELU:
        LOOP(x < 0.0f ? alpha * x : x);
        break;
    case QN_OP_SIGMOID:
        LOOP(-x);
        u->exp(dst, dst, BLOCK);
        for (size_t i = 0; i < BLOCK; i++)
            dst[i] = 1.0f / (1.0f + dst[i]);
        break;
    case QN_OP_HARD_SIGMOID:
        LOOP(alpha * x + beta < 0.0f ? 0.0f : (alpha * x + beta > 1.0f ? 1.0f : alpha * x + beta));
        break;
    case QN_OP_HARD_SWISH:
        LOOP(x *
             (x / 6.0f + 0.5f < 0.0f ? 0.0f : (x / 6.0f + 0.5f > 1.0f ? 1.0f : x / 6.0f + 0.5f)));
        break;
    case QN_OP_ELU:
        CALL(x < 0.0f ? alpha * expm1f(x) : x);
        break;
    case QN_OP_SELU:
        CALL(beta * (x < 0.0f ? alpha * expm1f(x) : x));
        break;
    case QN_OP_GELU:
        if (u->approximate)
            CALL(gelu_tanh(x));
        else
            CALL(0.5f * x * (1.0f + erff(x * 0.70710678f)));
        break;
    case QN_OP_SOFTPLUS:
        CALL((x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x))));
        break;
    case QN_OP_EXP:
        u->exp(src, dst, BLOCK);
        break;
    case QN_OP_SQRT:
        LOOP(sqrtf(x));
        break;
    case QN_OP_RECIPROCAL:
        LOOP(1.0f / x);
        break;
    case QN_OP_ABS:
        LOOP(fabsf(x));
        break;
    case QN_OP_NEG:
        LOOP(-x);
        break;
    case QN_OP_SIGN:
        LOOP(x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : x * 0.0f));
        break;
    case QN_OP_SOFTSIGN:
        LOOP(x / (1.0f + fabsf(x)));
        break;
    case QN_OP_MISH:
        CALL(x * tanhf((x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)))));
        break;
    case QN_OP_CELU:
        CALL(x < 0.0f ? alpha * expm1f(x / alpha) : x);
        break;
    case QN_OP_THRESHOLDED_RELU:
        LOOP(x > alpha ? x : 0.0f);
        break;
    case QN_OP_SHRINK:
        LOOP(x < -alpha ? x + beta : (x > alpha ? x - beta : 0.0f));
        break;
    case QN_OP_SWISH:
        swish(u, src, dst);
        break;
    default:
        break;
    }
}

void qn__unary_f32(const qn_unary *unary, const float *src, float *dst, size_t count)
{
    const float lo = unary->clamp.lo, hi = unary->clamp.hi;
    for (size_t i = 0; i < count; i += BLOCK) {
        const size_t n = count - i < BLOCK ? count - i : BLOCK;
        float part[BLOCK];
        float *const to = n < BLOCK ? part : dst + i;
        const float *from = src + i;
        if (n < BLOCK) {
            memset(part + n, 0, (BLOCK - n) * sizeof *part);
            from = memcpy(part, from, n * sizeof *part);
        }
        apply(unary, from, to, n);
        for (size_t j = 0; j < BLOCK && (lo != -INFINITY || hi != INFINITY); j++) {
            const float x = to[j] < lo ? lo : to[j];
            to[j] = x > hi ? hi : x;
        }
        if (n < BLOCK)
            memcpy(dst + i, part, n * sizeof *part);
    }
}

static __attribute__((cold)) qn_status read_bound(const qn_plan *plan, const qn_step *step,
                                                  uint32_t input, float *bound, qn_error *error)
{
    float *values;
    size_t count;
    QN_TRY(qn__step_const_f32(plan, step, input, &values, &count, error));
    if (count > 0)
        *bound = values[0];
    qn__free(qn__plan_context(plan), values);
    return QN_OK;
}

__attribute__((cold)) qn_status qn__unary_read(const qn_plan *plan, const qn_step *step,
                                               qn_unary *out, qn_error *error)
{
    const qn_node *const node = step->node;
    qn_unary u = {.op = node->op, .clamp = qn__step_clamp(step), .exp = step->kernels->f32_exp.fn};
    switch (node->op) {
    case QN_OP_CLIP:
        u.alpha = qn__attr_float(node, "min", -INFINITY);
        u.beta = qn__attr_float(node, "max", INFINITY);
        QN_TRY(read_bound(plan, step, 1, &u.alpha, error));
        QN_TRY(read_bound(plan, step, 2, &u.beta, error));
        break;
    case QN_OP_LEAKY_RELU:
        u.alpha = qn__attr_float(node, "alpha", 0.01f);
        break;
    case QN_OP_PRELU: /* of one slope */
        u.op = QN_OP_LEAKY_RELU;
        QN_TRY(read_bound(plan, step, 1, &u.alpha, error));
        break;
    case QN_OP_ELU:
    case QN_OP_CELU:
    case QN_OP_THRESHOLDED_RELU:
    case QN_OP_SWISH:
        u.alpha = qn__attr_float(node, "alpha", 1.0f);
        if (node->op == QN_OP_CELU && u.alpha == 0.0f)
            return qn__step_fail(step, error, QN_CORRUPT, "\"alpha\" is 0");
        break;
    case QN_OP_SHRINK:
        u.alpha = qn__attr_float(node, "lambd", 0.5f);
        u.beta = qn__attr_float(node, "bias", 0.0f);
        break;
    case QN_OP_SELU:
        u.alpha = qn__attr_float(node, "alpha", 1.67326319217681884765625f);
        u.beta = qn__attr_float(node, "gamma", 1.05070102214813232421875f);
        break;
    case QN_OP_HARD_SIGMOID:
        u.alpha = qn__attr_float(node, "alpha", 0.2f);
        u.beta = qn__attr_float(node, "beta", 0.5f);
        break;
    case QN_OP_GELU:
        u.approximate = strcmp(qn__attr_string(node, "approximate", "none"), "tanh") == 0;
        break;
    default:
        break;
    }
    *out = u;
    return QN_OK;
}

static bool is_int(qn_dtype dtype)
{
    return dtype == QN_DTYPE_I64 || dtype == QN_DTYPE_I32;
}

static bool has_int_form(qn_op op)
{
    return op == QN_OP_RELU || op == QN_OP_CLIP || op == QN_OP_ABS || op == QN_OP_NEG;
}

typedef struct unary_state {
    qn_unary unary;
    qn_dtype dtype;
    int64_t lo, hi; /* Clip on integers */
} unary_state;

static __attribute__((cold)) qn_status read_int_bounds(const qn_plan *plan, const qn_step *step,
                                                       unary_state *s, qn_error *error)
{
    s->lo = INT64_MIN;
    s->hi = INT64_MAX;
    for (uint32_t i = 1; i < 3; i++) {
        int64_t *values;
        size_t count;
        QN_TRY(qn__step_const_ints(plan, step, i, &values, &count, error));
        if (count > 0)
            *(i == 1 ? &s->lo : &s->hi) = values[0];
        qn__free(qn__plan_context(plan), values);
    }
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0);
    if (x == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "input 0 is missing");
    unary_state s = {.dtype = x->type.dtype};
    if (s.dtype != QN_DTYPE_F32 && !(is_int(s.dtype) && has_int_form(step->node->op)))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s",
                             qn__dtype_name(s.dtype));
    if (s.dtype == QN_DTYPE_F32)
        QN_TRY(qn__unary_read(plan, step, &s.unary, error));
    else if (step->node->op == QN_OP_CLIP)
        QN_TRY(read_int_bounds(plan, step, &s, error));
    s.unary.op = step->node->op;
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = step->in_layout[0];
    step->inplace_input = 0;
    unary_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    return QN_OK;
}

static int64_t apply_int(const unary_state *s, int64_t x)
{
    switch (s->unary.op) {
    case QN_OP_RELU:
        return x < 0 ? 0 : x;
    case QN_OP_CLIP:
        x = x < s->lo ? s->lo : x;
        return x > s->hi ? s->hi : x;
    case QN_OP_ABS:
        return x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
    default:
        return (int64_t)(0 - (uint64_t)x);
    }
}

typedef struct unary_job {
    const unary_state *state;
    const void *src;
    void *dst;
} unary_job;

static void run_range(void *arg, size_t begin, size_t end)
{
    const unary_job *const job = arg;
    if (job->state->dtype == QN_DTYPE_F32) {
        qn__unary_f32(&job->state->unary, (const float *)job->src + begin,
                      (float *)job->dst + begin, end - begin);
        return;
    }
    for (size_t i = begin; i < end; i++)
        qn__store_int(job->dst, job->state->dtype, i,
                      apply_int(job->state, qn__load_int(job->src, job->state->dtype, i)));
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    unary_job job = {step->state, in[0].data, out[0].data};
    qn__parallel_ranges(env->pool, run_range, &job, in[0].count, 16);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

/* --- IsNaN, IsInf, Not: a bool for each element ---------------------------------------------- */
static __attribute__((cold)) qn_status prepare_test(const qn_plan *plan, qn_step *step,
                                                    qn_error *error)
{
    (void)plan;
    const qn_tensor *const x = qn__step_input(step, 0);
    if (x == NULL || step->node->outputs[0]->type.dtype != QN_DTYPE_BOOL)
        return qn__step_fail(step, error, QN_CORRUPT, "needs an input and a bool output");
    if (step->node->op == QN_OP_NOT ? x->type.dtype != QN_DTYPE_BOOL
                                    : !qn__dtype_is_float(x->type.dtype))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s",
                             qn__dtype_name(x->type.dtype));
    step->out_layout[0] = step->in_layout[0];
    return QN_OK;
}

static qn_status run_test(const qn_step *step, const qn_run_env *env, const qn_view *in,
                          const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    const qn_op op = step->node->op;
    const bool up = qn__attr_int(step->node, "detect_positive", 1) != 0;
    const bool down = qn__attr_int(step->node, "detect_negative", 1) != 0;
    uint8_t *const dst = out[0].data;
    for (size_t i = 0; i < in[0].count; i++) {
        const double x = qn__load_real(in[0].data, in[0].tensor->type.dtype, i);
        if (op == QN_OP_NOT)
            dst[i] = x == 0.0;
        else if (op == QN_OP_IS_NAN)
            dst[i] = x != x;
        else
            dst[i] = (up && x == (double)INFINITY) || (down && x == -(double)INFINITY);
    }
    return QN_OK;
}

const qn_run_op qn__op_test = {QN_OP_NONE, prepare_test, run_test, NULL};
const qn_run_op qn__op_unary = {QN_OP_NONE, prepare, run, release};
