/* Binary element operators with broadcasting; Min and Max take any number of inputs. */
#include "run/ops/broadcast.h"

#include <math.h>
#include <string.h>

typedef void (*row_fn)(float *out, const float *a, const float *b, size_t n);
/* x op y over x. Integers of every type are handled as these: exact, and wrapping when stored. */
typedef void (*word_fn)(int64_t *x, const int64_t *y, size_t n, uint32_t bits);
typedef void (*real_fn)(double *x, const double *y, size_t n);

/* --- float rows --------------------------------------------------------------------------------
 * out may be a or b, same index only, so vectorizing is safe; a loop of fixed length is a few
 * vectors */
enum { LANES = 16 };
#define ROW(name, expr)                                                                            \
    static void name(float *out, const float *a, const float *b, size_t n)                         \
    {                                                                                              \
        for (; n >= LANES; n -= LANES, out += LANES, a += LANES, b += LANES) {                     \
            _Pragma("GCC ivdep") for (size_t i = 0; i < LANES; i++)                                \
            {                                                                                      \
                const float x = a[i], y = b[i];                                                    \
                out[i] = (expr);                                                                   \
            }                                                                                      \
        }                                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            const float x = a[i], y = b[i];                                                        \
            out[i] = (expr);                                                                       \
        }                                                                                          \
    }
ROW(add_f32, x + y)
ROW(sub_f32, x - y)
ROW(mul_f32, x *y)
ROW(div_f32, x / y)
ROW(min_f32, (x < y || x != x) ? x : y)
ROW(max_f32, (x > y || x != x) ? x : y)
ROW(prelu_f32, x < 0.0f ? x * y : x)

static void pow_f32(float *out, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = powf(a[i], b[i]);
}

/* --- integers ----------------------------------------------------------------------------------
 */
/* Truncating division as ONNX has it for integers; x / 0 and MIN / -1 must not trap. */
static __attribute__((cold)) int64_t div_int(int64_t x, int64_t y)
{
    return y == 0 ? 0 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}

/* Mod: the sign of the divisor (integers), or of the dividend as C's fmod. */
static __attribute__((cold)) int64_t mod_int(int64_t x, int64_t y)
{
    if (y == 0 || y == -1)
        return 0;
    const int64_t r = x % y;
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static __attribute__((cold)) int64_t fmod_int(int64_t x, int64_t y)
{
    return y == 0 || y == -1 ? 0 : x % y;
}

#define WORDS(name, T, expr)                                                                       \
    static __attribute__((cold)) void name(int64_t *words, const int64_t *others, size_t n,        \
                                           uint32_t bits)                                          \
    {                                                                                              \
        (void)bits;                                                                                \
        for (size_t i = 0; i < n; i++) {                                                           \
            const T x = (T)words[i], y = (T)others[i];                                             \
            words[i] = (int64_t)(expr);                                                            \
        }                                                                                          \
    }
WORDS(add_int, uint64_t, x + y)
WORDS(sub_int, uint64_t, x - y)
WORDS(mul_int, uint64_t, x *y)
WORDS(div_signed, int64_t, div_int(x, y))
WORDS(div_unsigned, uint64_t, y == 0 ? 0 : x / y)
WORDS(mod_signed, int64_t, mod_int(x, y))
WORDS(fmod_signed, int64_t, fmod_int(x, y))
WORDS(mod_unsigned, uint64_t, y == 0 ? 0 : x % y)
WORDS(min_signed, int64_t, x < y ? x : y)
WORDS(min_unsigned, uint64_t, x < y ? x : y)
WORDS(max_signed, int64_t, x > y ? x : y)
WORDS(max_unsigned, uint64_t, x > y ? x : y)
WORDS(and_int, uint64_t, x &y)
WORDS(or_int, uint64_t, x | y)
WORDS(xor_int, uint64_t, x ^ y)
WORDS(left_int, uint64_t, y >= bits ? 0 : x << y)
WORDS(right_int, uint64_t, y >= bits ? 0 : x >> y)
WORDS(equal_int, uint64_t, x == y)
WORDS(greater_signed, int64_t, x > y)
WORDS(greater_unsigned, uint64_t, x > y)
WORDS(less_signed, int64_t, x < y)
WORDS(less_unsigned, uint64_t, x < y)
WORDS(greater_equal_signed, int64_t, x >= y)
WORDS(greater_equal_unsigned, uint64_t, x >= y)
WORDS(less_equal_signed, int64_t, x <= y)
WORDS(less_equal_unsigned, uint64_t, x <= y)
WORDS(and_bool, uint64_t, x != 0 && y != 0)
WORDS(or_bool, uint64_t, x != 0 || y != 0)
WORDS(xor_bool, uint64_t, (x != 0) != (y != 0))

/* Mod and BitShift pick `other` by their attribute. */
static const struct word_row {
    qn_op op;
    word_fn fn, other, fn_unsigned, other_unsigned;
} WORD_ROWS[] = {
    {QN_OP_ADD, add_int, NULL, add_int, NULL},
    {QN_OP_SUB, sub_int, NULL, sub_int, NULL},
    {QN_OP_MUL, mul_int, NULL, mul_int, NULL},
    {QN_OP_DIV, div_signed, NULL, div_unsigned, NULL},
    {QN_OP_MOD, mod_signed, fmod_signed, mod_unsigned, mod_unsigned},
    {QN_OP_MIN, min_signed, NULL, min_unsigned, NULL},
    {QN_OP_MAX, max_signed, NULL, max_unsigned, NULL},
    {QN_OP_BITWISE_AND, and_int, NULL, and_int, NULL},
    {QN_OP_BITWISE_OR, or_int, NULL, or_int, NULL},
    {QN_OP_BITWISE_XOR, xor_int, NULL, xor_int, NULL},
    {QN_OP_BIT_SHIFT, NULL, NULL, left_int, right_int},
    {QN_OP_EQUAL, equal_int, NULL, equal_int, NULL},
    {QN_OP_GREATER, greater_signed, NULL, greater_unsigned, NULL},
    {QN_OP_LESS, less_signed, NULL, less_unsigned, NULL},
    {QN_OP_GREATER_OR_EQUAL, greater_equal_signed, NULL, greater_equal_unsigned, NULL},
    {QN_OP_LESS_OR_EQUAL, less_equal_signed, NULL, less_equal_unsigned, NULL},
};
static const struct bool_row {
    qn_op op;
    word_fn fn;
} BOOL_ROWS[] = {
    {QN_OP_EQUAL, equal_int},
    {QN_OP_AND, and_bool},
    {QN_OP_OR, or_bool},
    {QN_OP_XOR, xor_bool},
};

/* --- double, and what float does rarely: exact in double ---------------------------------------
 */
static __attribute__((cold)) double mod_real(double x, double y)
{
    const double r = fmod(x, y);
    return r != 0.0 && (r < 0.0) != (y < 0.0) ? r + y : r;
}

#define REALS(name, expr)                                                                          \
    static __attribute__((cold)) void name(double *reals, const double *others, size_t n)          \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            const double x = reals[i], y = others[i];                                              \
            reals[i] = (expr);                                                                     \
        }                                                                                          \
    }
REALS(add_f64, x + y)
REALS(sub_f64, x - y)
REALS(mul_f64, x *y)
REALS(div_f64, x / y)
REALS(pow_f64, pow(x, y))
REALS(min_f64, (x < y || x != x) ? x : y)
REALS(max_f64, (x > y || x != x) ? x : y)
REALS(mod_f64, mod_real(x, y))
REALS(fmod_f64, fmod(x, y))
REALS(equal_f64, x == y)
REALS(greater_f64, x > y)
REALS(less_f64, x < y)
REALS(greater_equal_f64, x >= y)
REALS(less_equal_f64, x <= y)

static const struct float_row {
    qn_op op;
    row_fn f32; /* NULL: as double */
    real_fn f64, other;
} FLOAT_ROWS[] = {
    {QN_OP_ADD, add_f32, add_f64, NULL},
    {QN_OP_SUM, add_f32, add_f64, NULL},
    {QN_OP_MEAN, add_f32, NULL, NULL},
    {QN_OP_SUB, sub_f32, sub_f64, NULL},
    {QN_OP_MUL, mul_f32, mul_f64, NULL},
    {QN_OP_DIV, div_f32, div_f64, NULL},
    {QN_OP_MIN, min_f32, min_f64, NULL},
    {QN_OP_MAX, max_f32, max_f64, NULL},
    {QN_OP_POW, pow_f32, pow_f64, NULL},
    {QN_OP_PRELU, prelu_f32, NULL, NULL},
    {QN_OP_MOD, NULL, mod_f64, fmod_f64},
    {QN_OP_EQUAL, NULL, equal_f64, NULL},
    {QN_OP_GREATER, NULL, greater_f64, NULL},
    {QN_OP_LESS, NULL, less_f64, NULL},
    {QN_OP_GREATER_OR_EQUAL, NULL, greater_equal_f64, NULL},
    {QN_OP_LESS_OR_EQUAL, NULL, less_equal_f64, NULL},
};

/* How a node computes: one of the three. */
typedef struct binary_way {
    row_fn row;
    word_fn words;
    real_fn reals;
} binary_way;

static __attribute__((cold)) bool wants_other(const qn_node *node)
{
    if (node->op == QN_OP_MOD)
        return qn__attr_int(node, "fmod", 0) != 0;
    return node->op == QN_OP_BIT_SHIFT &&
           strcmp(qn__attr_string(node, "direction", ""), "RIGHT") == 0;
}

#define N_ROWS(rows) (sizeof(rows) / sizeof((rows)[0]))

static __attribute__((cold)) bool find_way(const qn_node *node, qn_dtype dtype, binary_way *out)
{
    const bool other = wants_other(node), is_signed = qn__dtype_is_signed(dtype);
    *out = (binary_way){0};
    if (dtype == QN_DTYPE_F32 || dtype == QN_DTYPE_F64) {
        for (size_t i = 0; i < N_ROWS(FLOAT_ROWS); i++) {
            const struct float_row *const r = &FLOAT_ROWS[i];
            if (r->op != node->op)
                continue;
            out->row = dtype == QN_DTYPE_F32 ? r->f32 : NULL;
            out->reals = out->row != NULL ? NULL : other ? r->other : r->f64;
        }
    } else if (dtype == QN_DTYPE_BOOL) {
        for (size_t i = 0; i < N_ROWS(BOOL_ROWS); i++)
            if (BOOL_ROWS[i].op == node->op)
                out->words = BOOL_ROWS[i].fn;
    } else if (!qn__dtype_is_float(dtype) && qn__dtype_bits(dtype) >= 8) {
        for (size_t i = 0; i < N_ROWS(WORD_ROWS); i++) {
            const struct word_row *const r = &WORD_ROWS[i];
            if (r->op == node->op)
                out->words = is_signed ? (other ? r->other : r->fn)
                                       : (other ? r->other_unsigned : r->fn_unsigned);
        }
    }
    return out->row != NULL || out->words != NULL || out->reals != NULL;
}

typedef struct binary_state {
    binary_way way;
    qn_dtype in_dtype, out_dtype;
    size_t in_bytes, out_bytes; /* of an element */
    bool clamps;
    qn_clamp_f32 clamp;
    float divisor; /* Mean; else 1 */
    size_t n;      /* broadcasts: inputs - 1, or 1 for one input */
    qn_broadcast broadcasts[];
} binary_state;

static __attribute__((cold)) qn_status check_inputs(const qn_step *step, qn_error *error)
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

static __attribute__((cold)) qn_status make_broadcasts(const qn_step *step, binary_state *s,
                                                       qn_error *error)
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

static __attribute__((cold)) qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    QN_TRY(check_inputs(step, error));
    const qn_dtype dtype = node->inputs[0]->type.dtype;
    binary_way way;
    if (!find_way(node, dtype, &way))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "element type %s", qn__dtype_name(dtype));
    /* One input is taken twice: its maximum with itself is itself. */
    if (node->n_inputs == 1 && (node->op == QN_OP_SUM || node->op == QN_OP_MEAN))
        way = dtype == QN_DTYPE_F64 ? (binary_way){.reals = max_f64} : (binary_way){.row = max_f32};
    qn__broadcast_layouts(step);
    const size_t n = node->n_inputs > 1 ? node->n_inputs - 1 : 1;
    binary_state *const s =
        qn__calloc(qn__plan_context(plan), 1, sizeof(*s) + n * sizeof(s->broadcasts[0]));
    if (s == NULL)
        return QN_NOMEM(error);
    step->state = s;
    s->way = way;
    s->n = n;
    s->in_dtype = dtype;
    s->out_dtype = node->outputs[0]->type.dtype;
    s->in_bytes = qn__dtype_bits(dtype) / 8;
    s->out_bytes = qn__dtype_bits(s->out_dtype) / 8;
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

enum { BLOCK = 128, FLOATS = 512 }; /* elements at a time, floats that have loops of their own */

/* n elements of any type as words or reals, and back, a block at a time. */
static __attribute__((cold)) void convert_words(const binary_state *s, uint8_t *out,
                                                const uint8_t *a, ptrdiff_t sa, const uint8_t *c,
                                                ptrdiff_t sc, size_t n)
{
    int64_t x[BLOCK], y[BLOCK];
    const uint32_t bits = qn__dtype_bits(s->in_dtype);
    size_t at = 0;
    do { /* n is never 0 */
        x[at] = qn__load_int(a + (ptrdiff_t)at * sa, s->in_dtype, 0);
        y[at] = qn__load_int(c + (ptrdiff_t)at * sc, s->in_dtype, 0);
    } while (++at < n);
    s->way.words(x, y, n, bits);
    for (size_t i = 0; i < n; i++)
        qn__store_int(out, s->out_dtype, i, x[i]);
}

static __attribute__((cold)) void convert_reals(const binary_state *s, uint8_t *out,
                                                const uint8_t *a, ptrdiff_t sa, const uint8_t *c,
                                                ptrdiff_t sc, size_t n)
{
    double x[BLOCK], y[BLOCK];
    size_t at = 0;
    do { /* n is never 0 */
        x[at] = qn__load_real(a + (ptrdiff_t)at * sa, s->in_dtype, 0);
        y[at] = qn__load_real(c + (ptrdiff_t)at * sc, s->in_dtype, 0);
    } while (++at < n);
    s->way.reals(x, y, n);
    for (size_t i = 0; i < n; i++) {
        if (s->out_dtype == QN_DTYPE_F64)
            memcpy(out + i * sizeof(x[i]), &x[i], sizeof(x[i]));
        else if (s->out_dtype == QN_DTYPE_F32)
            ((float *)(void *)out)[i] = (float)x[i];
        else
            out[i] = x[i] != 0.0;
    }
}

/* Elements `stride` apart as neighbours. */
static const float *gathered(float room[FLOATS], const float *x, ptrdiff_t stride, size_t n)
{
    for (size_t i = 0; i < n; i++)
        room[i] = x[(ptrdiff_t)i * stride];
    return room;
}

/* Whether x / y is x * (1 / y) for every x: both are the nearest to the same number. */
static bool is_power_of_two(float y)
{
    int exponent;
    return fabsf(frexpf(y, &exponent)) == 0.5f && exponent > -120 && exponent < 120;
}

/* A value that stays is repeated once for all blocks. */
static void float_row(row_fn fn, float *out, const float *a, ptrdiff_t sa, const float *c,
                      ptrdiff_t sc, size_t n)
{
    float x[FLOATS], y[FLOATS], inverse;
    if (fn == div_f32 && sc == 0 && is_power_of_two(*c)) { /* divisions take their time */
        fn = mul_f32;
        inverse = 1.0f / *c;
        c = &inverse;
    }
    const size_t block = sa == 1 && sc == 1 ? n : FLOATS;
    for (size_t i = 0; i < n; i += block) {
        const size_t part = n - i < block ? n - i : block;
        const float *left = a + (ptrdiff_t)i * sa, *right = c + (ptrdiff_t)i * sc;
        if (sa != 1)
            left = sa == 0 && i != 0 ? x : gathered(x, left, sa, part);
        if (sc != 1)
            right = sc == 0 && i != 0 ? y : gathered(y, right, sc, part);
        fn(out + i, left, right, part);
    }
}

/* Row of n elements; strides in elements. */
static void run_row(const binary_state *s, uint8_t *out, const uint8_t *a, ptrdiff_t sa,
                    const uint8_t *c, ptrdiff_t sc, size_t n)
{
    if (s->way.row != NULL) {
        float_row(s->way.row, (float *)(void *)out, (const float *)(const void *)a, sa,
                  (const float *)(const void *)c, sc, n);
        return;
    }
    sa *= (ptrdiff_t)s->in_bytes;
    sc *= (ptrdiff_t)s->in_bytes;
    for (size_t i = 0; i < n; i += BLOCK) {
        const size_t part = n - i < BLOCK ? n - i : BLOCK;
        const uint8_t *const x = a + (ptrdiff_t)i * sa, *const y = c + (ptrdiff_t)i * sc;
        (s->way.words != NULL ? convert_words : convert_reals)(s, out + i * s->out_bytes, x, sa, y,
                                                               sc, part);
    }
}

static void run_part(const binary_job *job, size_t out_at, int64_t a_at, int64_t c_at, size_t n)
{
    const binary_state *const s = job->s;
    const size_t axis = job->b->rank - 1;
    uint8_t *const out = job->out + out_at * s->out_bytes;
    run_row(s, out, job->a + a_at * (int64_t)s->in_bytes, (ptrdiff_t)job->b->strides[0][axis],
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

static __attribute__((cold)) void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_binary = {QN_OP_NONE, prepare, run, release};
