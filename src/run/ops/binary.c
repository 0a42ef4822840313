/* Binary element operators with broadcasting; Min and Max take any number of inputs. */
#include "run/ops/broadcast.h"

#include <math.h>
#include <string.h>

typedef void (*row_fn)(void *out, const void *a, ptrdiff_t sa, const void *b, ptrdiff_t sb,
                       size_t n);

/* out may be a or b: same index only, so vectorizing is safe. */
#define ROW(name, T, R, expr)                                                                      \
    static void name(void *out_, const void *a_, ptrdiff_t sa, const void *b_, ptrdiff_t sb,       \
                     size_t n)                                                                     \
    {                                                                                              \
        R *const out = out_;                                                                       \
        const T *const a = a_, *const b = b_;                                                      \
        if (sa == 1 && sb == 1) {                                                                  \
            _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                    \
            {                                                                                      \
                const T x = a[i], y = b[i];                                                        \
                out[i] = (R)(expr);                                                                \
            }                                                                                      \
        } else if (sa == 1 && sb == 0) {                                                           \
            const T y = b[0];                                                                      \
            _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                    \
            {                                                                                      \
                const T x = a[i];                                                                  \
                out[i] = (R)(expr);                                                                \
            }                                                                                      \
        } else if (sa == 0 && sb == 1) {                                                           \
            const T x = a[0];                                                                      \
            _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                    \
            {                                                                                      \
                const T y = b[i];                                                                  \
                out[i] = (R)(expr);                                                                \
            }                                                                                      \
        } else {                                                                                   \
            for (size_t i = 0; i < n; i++) {                                                       \
                const T x = a[(ptrdiff_t)i * sa], y = b[(ptrdiff_t)i * sb];                        \
                out[i] = (R)(expr);                                                                \
            }                                                                                      \
        }                                                                                          \
    }

/* Truncating division as ONNX has it for integers; x / 0 and MIN / -1 must not trap. */
static int64_t div_int(int64_t x, int64_t y)
{
    return y == 0 ? 0 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}

ROW(add_f32, float, float, x + y)
ROW(sub_f32, float, float, x - y)
ROW(mul_f32, float, float, x *y)
ROW(div_f32, float, float, x / y)
ROW(pow_f32, float, float, powf(x, y))
ROW(min_f32, float, float, (x < y || x != x) ? x : y)
ROW(max_f32, float, float, (x > y || x != x) ? x : y)
ROW(prelu_f32, float, float, x < 0.0f ? x * y : x)
/* Mod: the sign of the divisor (integers), or of the dividend as C's fmod. */
static int64_t mod_int(int64_t x, int64_t y)
{
    if (y == 0 || y == -1)
        return 0;
    const int64_t r = x % y;
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static int64_t fmod_int(int64_t x, int64_t y)
{
    return y == 0 || y == -1 ? 0 : x % y;
}

static uint64_t shift(uint64_t x, uint64_t y, size_t bits, bool left)
{
    return y >= bits ? 0 : left ? x << y : x >> y;
}

static double mod_real(double x, double y)
{
    const double r = fmod(x, y);
    return r != 0.0 && (r < 0.0) != (y < 0.0) ? r + y : r;
}

ROW(mod_f32, float, float, mod_real((double)x, (double)y))
ROW(mod_f64, double, double, mod_real(x, y))
ROW(fmod_f32, float, float, fmodf(x, y))
#define ARITHMETIC(suffix, T, U)                                                                   \
    ROW(add_##suffix, T, T, (U)x + (U)y)                                                           \
    ROW(sub_##suffix, T, T, (U)x - (U)y)                                                           \
    ROW(mul_##suffix, T, T, (U)x *(U)y)                                                            \
    ROW(min_##suffix, T, T, x < y ? x : y)                                                         \
    ROW(max_##suffix, T, T, x > y ? x : y)                                                         \
    ROW(and_##suffix, T, T, (U)x &(U)y)                                                            \
    ROW(or_##suffix, T, T, (U)x | (U)y)                                                            \
    ROW(xor_##suffix, T, T, (U)x ^ (U)y)
#define SIGNED(suffix, T, U)                                                                       \
    ARITHMETIC(suffix, T, U)                                                                       \
    ROW(div_##suffix, T, T, div_int(x, y))                                                         \
    ROW(mod_##suffix, T, T, mod_int(x, y))                                                         \
    ROW(fmod_##suffix, T, T, fmod_int(x, y))
#define UNSIGNED(suffix, T, U)                                                                     \
    ARITHMETIC(suffix, T, U)                                                                       \
    ROW(div_##suffix, T, T, y == 0 ? 0 : x / y)                                                    \
    ROW(mod_##suffix, T, T, y == 0 ? 0 : x % y)                                                    \
    ROW(left_##suffix, T, T, shift(x, y, 8 * sizeof(T), true))                                     \
    ROW(right_##suffix, T, T, shift(x, y, 8 * sizeof(T), false))
#define COMPARE(suffix, T)                                                                         \
    ROW(equal_##suffix, T, uint8_t, x == y)                                                        \
    ROW(greater_##suffix, T, uint8_t, x > y)                                                       \
    ROW(less_##suffix, T, uint8_t, x < y)                                                          \
    ROW(greater_equal_##suffix, T, uint8_t, x >= y)                                                \
    ROW(less_equal_##suffix, T, uint8_t, x <= y)
SIGNED(i64, int64_t, uint64_t)
SIGNED(i32, int32_t, uint32_t)
SIGNED(i16, int16_t, uint32_t)
SIGNED(i8, int8_t, uint32_t)
UNSIGNED(u64, uint64_t, uint64_t)
UNSIGNED(u32, uint32_t, uint32_t)
UNSIGNED(u16, uint16_t, uint32_t)
UNSIGNED(u8, uint8_t, uint32_t)
ROW(add_f64, double, double, x + y)
ROW(sub_f64, double, double, x - y)
ROW(mul_f64, double, double, x *y)
ROW(div_f64, double, double, x / y)
ROW(pow_f64, double, double, pow(x, y))
ROW(fmod_f64, double, double, fmod(x, y))
ROW(min_f64, double, double, (x < y || x != x) ? x : y)
ROW(max_f64, double, double, (x > y || x != x) ? x : y)
ROW(and_bool, uint8_t, uint8_t, x != 0 && y != 0)
ROW(or_bool, uint8_t, uint8_t, x != 0 || y != 0)
ROW(xor_bool, uint8_t, uint8_t, (x != 0) != (y != 0))
COMPARE(f32, float)
COMPARE(f64, double)
COMPARE(i64, int64_t)
COMPARE(i32, int32_t)
COMPARE(i16, int16_t)
COMPARE(i8, int8_t)
COMPARE(u64, uint64_t)
COMPARE(u32, uint32_t)
COMPARE(u16, uint16_t)
COMPARE(u8, uint8_t)

/* Mod and BitShift pick a second column by their attribute. */
typedef struct binary_row {
    qn_op op;
    qn_dtype dtype;
    row_fn fn, other;
} binary_row;

#define COMPARE_ROWS(id, suffix)                                                                   \
    {QN_OP_EQUAL, QN_DTYPE_##id, equal_##suffix, NULL},                                            \
        {QN_OP_GREATER, QN_DTYPE_##id, greater_##suffix, NULL},                                    \
        {QN_OP_LESS, QN_DTYPE_##id, less_##suffix, NULL},                                          \
        {QN_OP_GREATER_OR_EQUAL, QN_DTYPE_##id, greater_equal_##suffix, NULL},                     \
    {                                                                                              \
        QN_OP_LESS_OR_EQUAL, QN_DTYPE_##id, less_equal_##suffix, NULL                              \
    }
#define ARITHMETIC_ROWS(id, suffix)                                                                \
    {QN_OP_ADD, QN_DTYPE_##id, add_##suffix, NULL},                                                \
        {QN_OP_SUB, QN_DTYPE_##id, sub_##suffix, NULL},                                            \
        {QN_OP_MUL, QN_DTYPE_##id, mul_##suffix, NULL},                                            \
        {QN_OP_DIV, QN_DTYPE_##id, div_##suffix, NULL},                                            \
        {QN_OP_MIN, QN_DTYPE_##id, min_##suffix, NULL},                                            \
    {                                                                                              \
        QN_OP_MAX, QN_DTYPE_##id, max_##suffix, NULL                                               \
    }
#define INTEGER_ROWS(id, suffix)                                                                   \
    ARITHMETIC_ROWS(id, suffix), {QN_OP_BITWISE_AND, QN_DTYPE_##id, and_##suffix, NULL},           \
        {QN_OP_BITWISE_OR, QN_DTYPE_##id, or_##suffix, NULL},                                      \
    {                                                                                              \
        QN_OP_BITWISE_XOR, QN_DTYPE_##id, xor_##suffix, NULL                                       \
    }
#define SIGNED_ROWS(id, suffix)                                                                    \
    INTEGER_ROWS(id, suffix), COMPARE_ROWS(id, suffix),                                            \
    {                                                                                              \
        QN_OP_MOD, QN_DTYPE_##id, mod_##suffix, fmod_##suffix                                      \
    }
#define UNSIGNED_ROWS(id, suffix)                                                                  \
    INTEGER_ROWS(id, suffix), COMPARE_ROWS(id, suffix),                                            \
        {QN_OP_MOD, QN_DTYPE_##id, mod_##suffix, mod_##suffix},                                    \
    {                                                                                              \
        QN_OP_BIT_SHIFT, QN_DTYPE_##id, left_##suffix, right_##suffix                              \
    }
static const binary_row ROWS[] = {
    ARITHMETIC_ROWS(F32, f32),
    COMPARE_ROWS(F32, f32),
    ARITHMETIC_ROWS(F64, f64),
    COMPARE_ROWS(F64, f64),
    SIGNED_ROWS(I64, i64),
    SIGNED_ROWS(I32, i32),
    SIGNED_ROWS(I16, i16),
    SIGNED_ROWS(I8, i8),
    UNSIGNED_ROWS(U64, u64),
    UNSIGNED_ROWS(U32, u32),
    UNSIGNED_ROWS(U16, u16),
    UNSIGNED_ROWS(U8, u8),
    {QN_OP_POW, QN_DTYPE_F32, pow_f32, NULL},
    {QN_OP_POW, QN_DTYPE_F64, pow_f64, NULL},
    {QN_OP_PRELU, QN_DTYPE_F32, prelu_f32, NULL},
    {QN_OP_SUM, QN_DTYPE_F32, add_f32, NULL},
    {QN_OP_SUM, QN_DTYPE_F64, add_f64, NULL},
    {QN_OP_MEAN, QN_DTYPE_F32, add_f32, NULL},
    {QN_OP_MOD, QN_DTYPE_F32, mod_f32, fmod_f32},
    {QN_OP_MOD, QN_DTYPE_F64, mod_f64, fmod_f64},
    {QN_OP_EQUAL, QN_DTYPE_BOOL, equal_u8, NULL},
    {QN_OP_AND, QN_DTYPE_BOOL, and_bool, NULL},
    {QN_OP_OR, QN_DTYPE_BOOL, or_bool, NULL},
    {QN_OP_XOR, QN_DTYPE_BOOL, xor_bool, NULL},
};

static row_fn find_row(const qn_node *node, qn_dtype dtype)
{
    const bool other = node->op == QN_OP_MOD ? qn__attr_int(node, "fmod", 0) != 0
                       : node->op == QN_OP_BIT_SHIFT
                           ? strcmp(qn__attr_string(node, "direction", ""), "RIGHT") == 0
                           : false;
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++)
        if (ROWS[i].op == node->op && ROWS[i].dtype == dtype)
            return other ? ROWS[i].other : ROWS[i].fn;
    return NULL;
}

typedef struct binary_state {
    row_fn fn;
    size_t in_bytes, out_bytes; /* of an element */
    bool clamps;
    qn_clamp_f32 clamp;
    float divisor; /* Mean; else 1 */
    size_t n;      /* broadcasts: inputs - 1, or 1 for one input */
    qn_broadcast broadcasts[];
} binary_state;

static qn_status check_inputs(const qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    const bool variadic = node->op == QN_OP_MIN || node->op == QN_OP_MAX || node->op == QN_OP_SUM ||
                          node->op == QN_OP_MEAN;
    if (node->n_inputs < (variadic ? 1u : 2u) || (!variadic && node->n_inputs != 2))
        return qn__step_fail(step, error, QN_CORRUPT, "%u inputs", (unsigned)node->n_inputs);
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == NULL)
            return qn__step_fail(step, error, QN_CORRUPT, "input %u is missing", (unsigned)i);
        if (node->inputs[i]->type.dtype != node->inputs[0]->type.dtype ||
            node->inputs[i]->type.kind == QN_TYPE_QUANT)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "inputs of different types");
    }
    return QN_OK;
}

static qn_status make_broadcasts(const qn_step *step, binary_state *s, qn_error *error)
{
    const qn_node *const node = step->node;
    for (size_t k = 0; k < s->n; k++) {
        const size_t b = node->n_inputs > 1 ? k + 1 : 0;
        const qn_tensor *const tensors[2] = {k == 0 ? node->inputs[0] : node->outputs[0],
                                             node->inputs[b]};
        const qn_layout layouts[2] = {k == 0 ? step->in_layout[0] : step->out_layout[0],
                                      step->in_layout[b]};
        if (!qn__broadcast_make(&s->broadcasts[k], node->outputs[0], step->out_layout[0], tensors,
                                layouts, 2))
            return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    }
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    QN_TRY(check_inputs(step, error));
    const qn_dtype dtype = node->inputs[0]->type.dtype;
    row_fn fn = find_row(node, dtype);
    /* One input is taken twice: its maximum with itself is itself. */
    if (fn != NULL && node->n_inputs == 1)
        fn = dtype == QN_DTYPE_F64 && node->op == QN_OP_SUM    ? max_f64
             : node->op == QN_OP_SUM || node->op == QN_OP_MEAN ? max_f32
                                                               : fn;
    if (fn == NULL)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s", qn__dtype_name(dtype));
    qn__broadcast_layouts(step);
    const size_t n = node->n_inputs > 1 ? node->n_inputs - 1 : 1;
    binary_state *const s =
        qn__calloc(qn__plan_context(plan), 1, sizeof(*s) + n * sizeof(s->broadcasts[0]));
    if (s == NULL)
        return QN_NOMEM(error);
    step->state = s;
    s->fn = fn;
    s->n = n;
    s->in_bytes = qn__dtype_bits(dtype) / 8;
    s->out_bytes = qn__dtype_bits(node->outputs[0]->type.dtype) / 8;
    s->clamps = node->act != QN_ACT_NONE && dtype == QN_DTYPE_F32 && node->op != QN_OP_MEAN;
    s->clamp = qn__step_clamp(step);
    s->divisor = node->op == QN_OP_MEAN ? (float)node->n_inputs : 1.0f;
    const qn_status status = make_broadcasts(step, s, error);
    if (status != QN_OK) {
        qn__free(qn__plan_context(plan), s);
        step->state = NULL;
        return status;
    }
    for (int i = 0; i < 2 && s->in_bytes == s->out_bytes && step->inplace_input < 0; i++)
        if ((uint32_t)i < node->n_inputs && node->n_inputs <= 2 &&
            node->inputs[i]->constant == NULL && qn__same_dims(node->inputs[i], node->outputs[0]))
            step->inplace_input = (int8_t)i;
    return QN_OK;
}

typedef struct binary_job {
    const binary_state *s;
    const qn_broadcast *b;
    const uint8_t *a, *c;
    uint8_t *out;
    bool last;
} binary_job;

static float clamped(float x, qn_clamp_f32 clamp)
{
    x = x < clamp.lo ? clamp.lo : x;
    return x > clamp.hi ? clamp.hi : x;
}

static void clamp_row(float *x, size_t n, qn_clamp_f32 clamp)
{
    for (size_t i = 0; i < n; i++)
        x[i] = clamped(x[i], clamp);
}

static void run_part(const binary_job *job, size_t out_at, int64_t a_at, int64_t c_at, size_t n)
{
    const binary_state *const s = job->s;
    const size_t axis = job->b->rank - 1;
    uint8_t *const out = job->out + out_at * s->out_bytes;
    s->fn(out, job->a + a_at * (int64_t)s->in_bytes, (ptrdiff_t)job->b->strides[0][axis],
          job->c + c_at * (int64_t)s->in_bytes, (ptrdiff_t)job->b->strides[1][axis], n);
    if (s->clamps && job->last)
        clamp_row((float *)(void *)out, n, s->clamp);
}

static void run_rows(void *arg, size_t begin, size_t end)
{
    const binary_job *const job = arg;
    if (job->b->rank == 1) { /* one long row: cut by elements */
        const int64_t at = (int64_t)begin;
        run_part(job, begin, at * job->b->strides[0][0], at * job->b->strides[1][0], end - begin);
        return;
    }
    for (size_t row = begin; row < end; row++) {
        int64_t offsets[QN_BROADCAST_MAX];
        qn__broadcast_row(job->b, row, offsets);
        run_part(job, row * job->b->row, offsets[0], offsets[1], job->b->row);
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const binary_state *const s = step->state;
    if (out[0].count == 0)
        return QN_OK;
    for (size_t k = 0; k < s->n; k++) {
        const qn_broadcast *const b = &s->broadcasts[k];
        binary_job job = {.s = s, .b = b, .out = out[0].data, .last = k + 1 == s->n};
        job.a = k == 0 ? in[0].data : out[0].data;
        job.c = step->node->n_inputs > 1 ? in[k + 1].data : in[0].data;
        qn__parallel_ranges(env->pool, run_rows, &job, b->rank == 1 ? b->row : b->rows,
                            (b->rank == 1 ? 1 : b->row) * 3 * s->in_bytes);
    }
    float *const sums = out[0].data;
    for (size_t i = 0; s->divisor != 1.0f && i < out[0].count; i++)
        sums[i] = clamped(sums[i] / s->divisor, s->clamp);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_binary = {QN_OP_NONE, prepare, run, release};
