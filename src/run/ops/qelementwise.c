/* Quantized element operators. Unary ones are tables over the 256 bytes; Sub and Mul are computed
 * on real values of both bytes and quantized, Add in steps of its result; Softmax is computed on
 * real values. */
#include "run/nd.h"
#include "run/ops/broadcast.h"
#include "run/ops/qweights.h"
#include "run/ops/unary.h"
#include "kernel/vmath.h"

#include <math.h>
#include <string.h>

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

/* --- unary ----------------------------------------------------------------------------------- */
static qn_status prepare_unary(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const bool given = step->node->op == QN_OP_TABLE;
    const qn_tensor *const bytes = qn__step_input(step, 1);
    qn_qparams x, y;
    qn_unary unary;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &x, error));
    QN_TRY(qn__qparams_read(step, step->node->outputs[0], &y, error));
    if (!given)
        QN_TRY(qn__unary_read(plan, step, &unary, error));
    else if (bytes == NULL || bytes->constant == NULL || bytes->constant->size_bytes != 256)
        return qn__step_fail(step, error, QN_CORRUPT, "needs 256 constant bytes");
    uint8_t *const table = qn__alloc(qn__plan_context(plan), 256);
    if (table == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < 256; i++) {
        if (given) {
            table[i] = ((const uint8_t *)bytes->constant->data)[i];
            continue;
        }
        const uint8_t byte = (uint8_t)i;
        float v = (float)(qn_qload(&byte, x.dtype, 0) - x.zero) * x.scale;
        qn__unary_f32(&unary, &v, &v, 1);
        table[i] = (uint8_t)qn__quantize_one(v, &y);
    }
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = step->in_layout[0];
    step->inplace_input = 0;
    step->kernel_name = step->kernels->q8_table.name;
    step->state = table;
    return QN_OK;
}

static qn_status run_unary(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)error;
    qn__table_run(env->pool, step->kernels->q8_table.fn, step->state, in[0].data, out[0].data,
                  in[0].count);
    return QN_OK;
}

/* --- binary ---------------------------------------------------------------------------------- */
typedef struct qbinary_state {
    float a[256], b[256];              /* real values by byte */
    double a_steps[256], b_steps[256]; /* Add: what each byte adds, in steps of the result */
    float ratio;                       /* Mul: steps of the result per unit of the product */
    qn_qparams y;
    int32_t lo, hi;
    int32_t moved; /* Add: 128 where bytes were signed ones, as which they are added; else 0 */
    /* Other than the default: by integers, these of each byte, their sum, difference or product
     * times `fixed`. */
    qn_requantize kind;
    int32_t a_ints[256], b_ints[256];
    qn_multiplier fixed;
    qn_q8_fixed_fn fixed_fn;
    qn_broadcast broadcast;
    /* A kernel with its arguments, where rows advance by one or stay on one element. */
    qn_q8_binary_fn kernel;
    qn_q8_binary_args args;
    bool swapped; /* the second input is the kernel's first */
} qbinary_state;

static void real_values(const qn_qparams *p, float table[256])
{
    for (size_t i = 0; i < 256; i++) {
        const uint8_t byte = (uint8_t)i;
        table[i] = (float)(qn_qload(&byte, p->dtype, 0) - p->zero) * p->scale;
    }
}

/* One value repeated along the innermost dimension of the result. */
static bool repeats(const qn_tensor *t, const qn_tensor *y)
{
    return y->rank > 0 && y->dims[y->rank - 1].value > 1 &&
           (t->rank == 0 || t->dims[t->rank - 1].value == 1);
}

/* onnxruntime's x86 kernel adds in steps of the result, with fused multiply-adds:
 * fma(a, s_a / s_y, fma(b, s_b / s_y, fixed)), the repeated operand innermost. Sums between two
 * integers go one way or the other by these roundings. A product of a byte and a float is exact in
 * double, and rounding their sum once more to float is the outer fma. */
static void add_tables(const qn_qparams *outer, const qn_qparams *inner, const qn_qparams *y,
                       int32_t moved, double outer_steps[256], double inner_steps[256])
{
    const float ro = outer->scale / y->scale, ri = inner->scale / y->scale;
    const float fixed = (float)(y->zero - moved) -
                        fmaf(ro, (float)(outer->zero - moved), ri * (float)(inner->zero - moved));
    for (size_t i = 0; i < 256; i++) {
        const uint8_t byte = (uint8_t)i;
        outer_steps[i] = (double)ro * (qn_qload(&byte, outer->dtype, 0) - moved);
        inner_steps[i] = (double)fmaf((float)(qn_qload(&byte, inner->dtype, 0) - moved), ri, fixed);
    }
}

/* Sums of such steps are exact in double: what the kernel adds is what the tables add. */
static bool adds_exactly(const qn_qparams *x, const qn_qparams *y)
{
    const float ratio = x->scale / y->scale;
    return ratio >= 1.0f / 512.0f && ratio <= 512.0f && x->zero >= -128 && x->zero <= 255 &&
           y->zero >= -128 && y->zero <= 255;
}

/* Where both inputs run along with the result or stay, rows go through a kernel. a, b: its
 * operands. */
static void choose_kernel(const qn_plan *plan, qn_step *step, qbinary_state *s, const qn_qparams *a,
                          const qn_qparams *b)
{
    const qn_op op = step->node->op;
    const bool add = op == QN_OP_ADD, sub = op == QN_OP_SUB;
    const size_t axis = s->broadcast.rank - 1;
    const float ra = a->scale / s->y.scale, rb = b->scale / s->y.scale;
    if (qn__plan_get_options(plan)->reference || s->kind != QN_REQUANTIZE_DEFAULT ||
        s->broadcast.strides[0][axis] > 1 || s->broadcast.strides[1][axis] > 1 ||
        (add && !(adds_exactly(a, &s->y) && adds_exactly(b, &s->y))))
        return;
    const qn_q8_binary *const kernel = add   ? &step->kernels->q8_add
                                       : sub ? &step->kernels->q8_sub
                                             : &step->kernels->q8_mul;
    const bool sa = a->dtype == QN_DTYPE_I8, sb = b->dtype == QN_DTYPE_I8;
    s->kernel = kernel->fn;
    s->args = (qn_q8_binary_args){.a_flip = sa ? 0x80 : 0,
                                  .b_flip = sb ? 0x80 : 0,
                                  .a_off = sa ? 128.0f : 0.0f,
                                  .b_off = sb ? 128.0f : 0.0f,
                                  .ra = add   ? ra
                                        : sub ? a->scale
                                              : s->ratio,
                                  .rb = sub ? b->scale : rb,
                                  .lo = (float)s->lo,
                                  .hi = (float)s->hi};
    if (add) {
        const int32_t moved = s->moved;
        s->args.a_off += (float)moved;
        s->args.b_off += (float)moved;
        s->args.fixed = (float)(s->y.zero - moved) -
                        fmaf(ra, (float)(a->zero - moved), rb * (float)(b->zero - moved));
        s->args.zero = moved;
        s->args.lo = (float)(s->lo - moved);
        s->args.hi = (float)(s->hi - moved);
    } else {
        s->args.a_off += (float)a->zero;
        s->args.b_off += (float)b->zero;
        s->args.fixed = sub ? s->y.scale : (float)s->y.zero;
    }
    if (sub) {
        s->args.zero = s->y.zero;
        s->args.lo = (float)(s->lo - s->y.zero);
        s->args.hi = (float)(s->hi - s->y.zero);
    }
    step->kernel_name = kernel->name;
}

/* As TensorFlow Lite's reference kernels: terms of sums are moved up by 20 bits and brought to
 * twice the larger step, products need one multiplier. */
enum { SUM_BITS = 20 };
static qn_status make_integers(const qn_plan *plan, const qn_step *step, qbinary_state *s,
                               const qn_qparams *a, const qn_qparams *b, qn_error *error)
{
    const double sa = (double)a->scale, sb = (double)b->scale, sy = (double)s->y.scale;
    const bool product = step->node->op == QN_OP_MUL;
    const double twice = 2.0 * (sa > sb ? sa : sb);
    qn_multiplier fa = {0}, fb = {0};
    if (!product) {
        QN_TRY(qn__qfixed(plan, step, sa / twice, &fa, error));
        QN_TRY(qn__qfixed(plan, step, sb / twice, &fb, error));
    }
    const double last = product ? sa * sb / sy : twice / (sy * (1 << SUM_BITS));
    QN_TRY(qn__qfixed(plan, step, last, &s->fixed, error));
    for (size_t i = 0; i < 256; i++) {
        const uint8_t byte = (uint8_t)i;
        const int32_t qa = qn_qload(&byte, a->dtype, 0) - a->zero;
        const int32_t qb = qn_qload(&byte, b->dtype, 0) - b->zero;
        s->a_ints[i] = product ? qa : qn__fixed_apply(qa * (1 << SUM_BITS), fa, s->kind);
        s->b_ints[i] = product ? qb : qn__fixed_apply(qb * (1 << SUM_BITS), fb, s->kind);
        if (step->node->op == QN_OP_SUB)
            s->b_ints[i] = -s->b_ints[i];
    }
    return QN_OK;
}

static qn_status prepare_binary(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    qn_qparams a, b, y;
    if (node->n_inputs != 2 || node->inputs[1] == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "needs two inputs");
    QN_TRY(qn__qparams_read(step, node->inputs[0], &a, error));
    QN_TRY(qn__qparams_read(step, node->inputs[1], &b, error));
    QN_TRY(qn__qparams_read(step, node->outputs[0], &y, error));
    qn__broadcast_layouts(step);
    qbinary_state *const s = qn__calloc(qn__plan_context(plan), 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    s->moved = node->op == QN_OP_ADD && a.dtype == QN_DTYPE_U8 && b.dtype == QN_DTYPE_U8 &&
                       y.dtype == QN_DTYPE_U8 && qn__attr_int(node, "signed", 0) != 0
                   ? 128
                   : 0;
    s->swapped = node->op == QN_OP_ADD && repeats(node->inputs[0], node->outputs[0]);
    if (s->swapped)
        add_tables(&b, &a, &y, s->moved, s->b_steps, s->a_steps);
    else
        add_tables(&a, &b, &y, s->moved, s->a_steps, s->b_steps);
    /* Mul, as onnxruntime: the exact product of (q - zero) times one rounded ratio, plus zero. */
    s->ratio = a.scale * b.scale / y.scale;
    const qn_qparams from[2] = {a, b};
    if (node->op == QN_OP_MUL)
        a.scale = b.scale = 1.0f;
    real_values(&a, s->a);
    real_values(&b, s->b);
    s->y = y;
    qn__qact_bounds(step, &y, &s->lo, &s->hi);
    s->kind = qn__plan_requantize(plan);
    s->fixed_fn =
        qn__plan_get_options(plan)->reference ? qn__q8_fixed_scalar : step->kernels->q8_fixed.fn;
    if (s->kind != QN_REQUANTIZE_DEFAULT) {
        const qn_status status = make_integers(plan, step, s, &from[0], &from[1], error);
        if (status != QN_OK) {
            qn__free(qn__plan_context(plan), s);
            return status;
        }
    }
    const qn_tensor *const tensors[2] = {node->inputs[0], node->inputs[1]};
    if (!qn__broadcast_make(&s->broadcast, node->outputs[0], step->out_layout[0], tensors,
                            step->in_layout, 2)) {
        qn__free(qn__plan_context(plan), s);
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    }
    choose_kernel(plan, step, s, s->swapped ? &b : &a, s->swapped ? &a : &b);
    for (int i = 0; i < 2 && step->inplace_input < 0; i++)
        if (node->inputs[i]->constant == NULL && qn__same_dims(node->inputs[i], node->outputs[0]))
            step->inplace_input = (int8_t)i;
    step->state = s;
    return QN_OK;
}

typedef struct qbinary_job {
    const qbinary_state *s;
    const uint8_t *a, *b;
    uint8_t *dst;
    qn_op op;
} qbinary_job;

/* SAME: as many sums as kernels take at once are a row with the same multipliers. */
enum { PART = 256, SAME = 16 };

static void call_kernel(const qbinary_state *s, const uint8_t *a, const uint8_t *b, uint8_t *dst,
                        size_t n)
{
    qn_q8_binary_args args = s->args;
    args.n = n;
    args.a = s->swapped ? b : a;
    args.b = s->swapped ? a : b;
    args.out = dst;
    s->kernel(&args);
}

/* One row through the kernel; an element that stays is repeated. */
static void kernel_row(const qbinary_state *s, const uint8_t *a, const uint8_t *b, uint8_t *dst,
                       size_t n)
{
    const size_t axis = s->broadcast.rank - 1;
    const bool one_a = s->broadcast.strides[0][axis] == 0;
    const bool one_b = s->broadcast.strides[1][axis] == 0;
    uint8_t same_a[PART], same_b[PART];
    if (!one_a && !one_b) {
        call_kernel(s, a, b, dst, n);
        return;
    }
    if (one_a)
        memset(same_a, *a, PART);
    if (one_b)
        memset(same_b, *b, PART);
    for (size_t i = 0; i < n; i += PART)
        call_kernel(s, one_a ? same_a : a + i, one_b ? same_b : b + i, dst + i,
                    n - i < PART ? n - i : PART);
}

/* Rows of a picture against the same row of channels: several at a time, the row repeated. Input
 * number `fixed` is the one that stays. */
static void kernel_rows(const qbinary_job *job, int fixed, size_t begin, size_t end)
{
    const qbinary_state *const s = job->s;
    const size_t row = s->broadcast.row, together = PART / row;
    const uint8_t *const channels = fixed == 0 ? job->a : job->b;
    uint8_t repeated[PART];
    for (size_t i = 0; i < together; i++)
        memcpy(repeated + i * row, channels, row);
    for (size_t i = begin; i < end; i += together) {
        const size_t n = (end - i < together ? end - i : together) * row;
        call_kernel(s, fixed == 0 ? repeated : job->a + i * row,
                    fixed == 1 ? repeated : job->b + i * row, job->dst + i * row, n);
    }
}

/* The input that is one short row for all rows of the other; -1: none. */
static int repeated_row(const qn_broadcast *b)
{
    if (b->rank != 2 || b->row > PART / 2 || b->strides[0][1] != 1 || b->strides[1][1] != 1)
        return -1;
    const int64_t row = (int64_t)b->row;
    if (b->strides[0][0] == 0 && b->strides[1][0] == row)
        return 0;
    return b->strides[1][0] == 0 && b->strides[0][0] == row ? 1 : -1;
}

static void integers_part(const qbinary_state *s, bool product, const uint8_t *a, const uint8_t *b,
                          uint8_t *dst, size_t n)
{
    const size_t axis = s->broadcast.rank - 1;
    const ptrdiff_t sa = (ptrdiff_t)s->broadcast.strides[0][axis];
    const ptrdiff_t sb = (ptrdiff_t)s->broadcast.strides[1][axis];
    int32_t sums[PART + QN_Q8_FIXED_OVER];
    qn_multiplier fixed[SAME];
    qn_q8_fixed_args args = {.sums = sums,
                             .sums_stride = SAME,
                             .fixed = fixed,
                             .once = qn_fixed_once(s->kind),
                             .zero = s->y.zero,
                             .lo = s->lo,
                             .hi = s->hi,
                             .out = dst,
                             .out_stride = SAME};
    for (size_t i = 0; i < SAME; i++)
        fixed[i] = s->fixed;
    for (size_t i0 = 0, part; i0 < n; i0 += part) {
        part = n - i0 < PART ? n - i0 : PART;
        if (product)
            for (size_t i = 0; i < part; i++, a += sa, b += sb)
                sums[i] = s->a_ints[*a] * s->b_ints[*b];
        else
            for (size_t i = 0; i < part; i++, a += sa, b += sb)
                sums[i] = s->a_ints[*a] + s->b_ints[*b];
        /* Whole rows of SAME, then what is left. */
        args.n = SAME;
        args.rows = part / SAME;
        s->fixed_fn(&args);
        args.out += part / SAME * SAME;
        args.sums += part / SAME * SAME;
        args.n = part % SAME;
        args.rows = 1;
        s->fixed_fn(&args);
        args.out += part % SAME;
        args.sums = sums;
    }
}

static void qbinary_part(const qbinary_job *job, const uint8_t *a, const uint8_t *b, uint8_t *dst,
                         size_t n)
{
    const qbinary_state *const s = job->s;
    if (s->kernel != NULL) {
        kernel_row(s, a, b, dst, n);
        return;
    }
    const size_t axis = s->broadcast.rank - 1;
    if (s->kind != QN_REQUANTIZE_DEFAULT) {
        integers_part(s, job->op == QN_OP_MUL, a, b, dst, n);
        return;
    }
    const ptrdiff_t sa = (ptrdiff_t)s->broadcast.strides[0][axis];
    const ptrdiff_t sb = (ptrdiff_t)s->broadcast.strides[1][axis];
    const bool adds = job->op == QN_OP_ADD, in_steps = job->op != QN_OP_SUB;
    const float scale = in_steps ? 1.0f : s->y.scale;
    const int32_t zero = in_steps ? s->moved : s->y.zero;
    const float lo = (float)(s->lo - zero), hi = (float)(s->hi - zero);
    float x[PART], y[PART];
    for (size_t i0 = 0; i0 < n; i0 += PART) {
        const size_t part = n - i0 < PART ? n - i0 : PART;
        for (size_t i = 0; adds && i < part; i++)
            x[i] = (float)(s->a_steps[a[(ptrdiff_t)(i0 + i) * sa]] +
                           s->b_steps[b[(ptrdiff_t)(i0 + i) * sb]]);
        for (size_t i = 0; !adds && i < part; i++) {
            x[i] = s->a[a[(ptrdiff_t)(i0 + i) * sa]];
            y[i] = s->b[b[(ptrdiff_t)(i0 + i) * sb]];
        }
        if (job->op == QN_OP_SUB)
            for (size_t i = 0; i < part; i++)
                x[i] -= y[i];
        else if (!adds)
            for (size_t i = 0; i < part; i++)
                x[i] = x[i] * y[i] * s->ratio + (float)s->y.zero;
        for (size_t i = 0; i < part; i++) {
            float v = x[i] / scale;
            v = v > lo ? v : lo;
            v = v < hi ? v : hi;
            dst[i0 + i] = (uint8_t)((int32_t)qn_rne_small(v) + zero);
        }
    }
}

static void qbinary_range(void *arg, size_t begin, size_t end)
{
    const qbinary_job *const job = arg;
    const qn_broadcast *const b = &job->s->broadcast;
    if (b->rank == 1) {
        qbinary_part(job, job->a + (int64_t)begin * b->strides[0][0],
                     job->b + (int64_t)begin * b->strides[1][0], job->dst + begin, end - begin);
        return;
    }
    const int fixed = job->s->kernel != NULL ? repeated_row(b) : -1;
    if (fixed >= 0) {
        kernel_rows(job, fixed, begin, end);
        return;
    }
    for (size_t row = begin; row < end; row++) {
        int64_t at[QN_BROADCAST_MAX];
        qn__broadcast_row(b, row, at);
        qbinary_part(job, job->a + at[0], job->b + at[1], job->dst + row * b->row, b->row);
    }
}

static qn_status run_binary(const qn_step *step, const qn_run_env *env, const qn_view *in,
                            const qn_view *out, qn_error *error)
{
    (void)error;
    const qbinary_state *const s = step->state;
    if (out[0].count == 0)
        return QN_OK;
    qbinary_job job = {s, in[0].data, in[1].data, out[0].data, step->node->op};
    const qn_broadcast *const b = &s->broadcast;
    qn__parallel_ranges(env->pool, qbinary_range, &job, b->rank == 1 ? b->row : b->rows,
                        (b->rank == 1 ? 1 : b->row) * 8);
    return QN_OK;
}

/* --- Softmax --------------------------------------------------------------------------------- */
/* Exponentials as 32-bit integers, scaled so that no sum overflows, and an integer division that
 * rounds to nearest. onnxruntime's QLinearSoftmax is the same with 1 / output scale cut to an
 * integer: the same bytes for 1/256, which its tools write. */
enum { STEP_BITS = 16, MAX_STEPS = 1 << 24 };
typedef struct qsoftmax_state {
    uint32_t exps[256]; /* exp((i - 255) * scale) in fixed point, below 2^23 */
    uint64_t steps;     /* 1 / output scale, with STEP_BITS of fraction */
    qn_qparams x, y;
    size_t axis;
} qsoftmax_state;

static void fixed_exps(qsoftmax_state *s, size_t axis_size)
{
    const double room = 4294967295.0 / (double)(axis_size > 0 ? axis_size : 1);
    const double one = room < 8388607.0 ? room : 8388607.0;
    for (int i = 0; i < 256; i++)
        s->exps[i] = (uint32_t)(one * exp((double)(i - 255) * (double)s->x.scale));
    const double steps = 1.0 / (double)s->y.scale;
    s->steps = (uint64_t)((steps < MAX_STEPS ? steps : MAX_STEPS) * (1 << STEP_BITS) + 0.5);
}

static qn_status prepare_softmax(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_tensor *const t = step->node->inputs[0];
    int64_t axis = qn__attr_int(step->node, "axis", -1);
    axis += axis < 0 ? t->rank : 0;
    qsoftmax_state s = {.axis = (size_t)axis};
    if (axis < 0 || axis >= t->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range");
    QN_TRY(qn__qparams_read(step, t, &s.x, error));
    QN_TRY(qn__qparams_read(step, step->node->outputs[0], &s.y, error));
    fixed_exps(&s, (size_t)t->dims[axis].value);
    qsoftmax_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    step->out_layout[0] = step->in_layout[0];
    return QN_OK;
}

typedef struct qsoftmax_job {
    const qsoftmax_state *s;
    const uint8_t *src;
    uint8_t *dst;
    qn_axis_view v;
} qsoftmax_job;

static uint8_t softmax_byte(const qsoftmax_state *s, int32_t below_top, uint32_t sum)
{
    const uint64_t all = (uint64_t)sum << STEP_BITS, part = s->exps[255 - below_top] * s->steps;
    const int64_t y = (int64_t)(all > 0 ? (part + (all >> 1)) / all : 0) + s->y.zero;
    return (uint8_t)(y > s->y.qmax ? s->y.qmax : y < s->y.qmin ? s->y.qmin : y);
}

/* One position, elements `step` apart, n of them; bytes ^ flip are in order of their values. */
static void softmax_one(const qsoftmax_state *s, const uint8_t *src, uint8_t *dst, size_t n,
                        size_t step)
{
    const uint8_t flip = s->x.dtype == QN_DTYPE_I8 ? 0x80 : 0;
    uint8_t top = 0;
    uint32_t sum = 0;
    for (size_t k = 0; k < n; k++) {
        const uint8_t q = src[k * step] ^ flip;
        top = q > top ? q : top;
    }
    for (size_t k = 0; k < n; k++)
        sum += s->exps[255 - top + (src[k * step] ^ flip)];
    if (n <= 256) {
        for (size_t k = 0; k < n; k++)
            dst[k * step] = softmax_byte(s, top - (src[k * step] ^ flip), sum);
        return;
    }
    uint8_t table[256]; /* fewer divisions than elements */
    for (int32_t q = 0; q <= top; q++)
        table[q] = softmax_byte(s, top - q, sum);
    for (size_t k = 0; k < n; k++)
        dst[k * step] = table[src[k * step] ^ flip];
}

static void softmax_range(void *arg, size_t begin, size_t end)
{
    const qsoftmax_job *const job = arg;
    const qn_axis_view v = job->v;
    for (size_t i = begin; i < end; i++) {
        const size_t at = i / v.inner * v.axis * v.inner + i % v.inner;
        softmax_one(job->s, job->src + at, job->dst + at, v.axis, v.inner);
    }
}

static qn_status run_softmax(const qn_step *step, const qn_run_env *env, const qn_view *in,
                             const qn_view *out, qn_error *error)
{
    (void)error;
    const qsoftmax_state *const s = step->state;
    qsoftmax_job job = {s, in[0].data, out[0].data,
                        qn__axis_view(in[0].rank, in[0].dims, in[0].layout, s->axis)};
    qn__parallel_ranges(env->pool, softmax_range, &job, job.v.outer * job.v.inner, 16 * job.v.axis);
    return QN_OK;
}

const qn_run_op qn__op_qunary = {QN_OP_NONE, prepare_unary, run_unary, release};
const qn_run_op qn__op_qbinary = {QN_OP_NONE, prepare_binary, run_binary, release};
const qn_run_op qn__op_qsoftmax = {QN_OP_SOFTMAX, prepare_softmax, run_softmax, release};
