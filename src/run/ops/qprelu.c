/* Quantized PRelu with constant slopes. One slope is a table. Channels that lie innermost go
 * through the depthwise kernel as a window of one tap, whose scales are the slopes, and through the
 * table of what is not negative; each byte then takes its own. Slopes that lie otherwise, and the
 * reference, are computed one by one: the same products, rounded alike. */
#include "run/nd.h"
#include "run/ops/broadcast.h"
#include "run/ops/q8_run.h"

#include <string.h>

enum { PART = 4096 };
typedef uint8_t bytes __attribute__((vector_size(16)));

typedef struct prelu_state {
    qn_qparams x, y;
    qn_q8_table_fn table;
    uint8_t positive[256]; /* bytes where nothing is multiplied */
    float *scales;         /* of the slopes, from x's steps to y's */
    qn_broadcast broadcast;
    qn_q8_dwconv_fn kernel; /* or NULL */
    size_t fold;            /* pixels that the kernel takes for one of more channels */
    float *repeated;        /* [fold * channels] */
    int32_t *bias;          /* [fold * channels]: less the zero point */
    int8_t *ones;           /* [fold * channels] */
} prelu_state;

static void release(const qn_context *ctx, qn_step *step)
{
    prelu_state *const s = step->state;
    if (s == NULL)
        return;
    qn__free(ctx, s->scales);
    qn__free(ctx, s->repeated);
    qn__free(ctx, s->bias);
    qn__free(ctx, s->ones);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status choose_kernel(const qn_plan *plan, qn_step *step, prelu_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_broadcast *const b = &s->broadcast;
    if (!qn__q8_activations(plan, &s->x) || b->rank != 2 || b->row > PART ||
        b->strides[0][1] != 1 || b->strides[0][0] != (int64_t)b->row || b->strides[1][1] != 1 ||
        b->strides[1][0] != 0)
        return QN_OK;
    const int32_t flip = s->x.dtype == QN_DTYPE_I8 ? 128 : 0;
    const size_t block = step->kernels->q8_dwconv.block;
    s->fold = b->row < block ? (block + b->row - 1) / b->row : 1;
    const size_t all = s->fold * b->row;
    s->repeated = qn__calloc(ctx, all, sizeof(*s->repeated));
    s->bias = qn__calloc(ctx, all, sizeof(*s->bias));
    s->ones = qn__alloc(ctx, all);
    if (s->repeated == NULL || s->bias == NULL || s->ones == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < all; i++) {
        s->repeated[i] = s->scales[i % b->row];
        s->bias[i] = -(s->x.zero + flip);
        s->ones[i] = 1;
    }
    s->kernel = step->kernels->q8_dwconv.fn;
    step->kernel_name = step->kernels->q8_dwconv.name;
    return QN_OK;
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    prelu_state *const s = state;
    const qn_tensor *const inputs[2] = {step->node->inputs[0], step->node->inputs[1]};
    size_t count;
    QN_TRY(qn__qparams_read(step, inputs[0], &s->x, error));
    QN_TRY(qn__qparams_read(step, step->node->outputs[0], &s->y, error));
    QN_TRY(qn__step_const_f32(plan, step, 1, &s->scales, &count, error));
    for (size_t i = 0; i < count; i++)
        s->scales[i] = s->x.scale * s->scales[i] / s->y.scale;
    (void)qn__table_requantize(s->positive, &s->x, &s->y, QN_REQUANTIZE_DEFAULT);
    s->table = step->kernels->q8_table.fn;
    step->in_layout[1] = QN_LAYOUT_ROW_MAJOR;
    if (inputs[0]->rank == 4)
        step->in_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->out_layout[0] = step->in_layout[0];
    if (!qn__same_dims(inputs[0], step->node->outputs[0]) ||
        !qn__broadcast_make(&s->broadcast, inputs[0], step->out_layout[0], inputs, step->in_layout,
                            2))
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    return choose_kernel(plan, step, s, error);
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_tensor *const slope = qn__step_input(step, 1);
    if (slope == NULL)
        return qn__step_fail(step, error, QN_CORRUPT, "needs two inputs");
    if (qn__tensor_elements(slope) == 1) {
        step->impl = &qn__op_qunary;
        return step->impl->prepare(plan, step, error);
    }
    return qn__step_make_state(plan, step, sizeof(prelu_state), prepare_state, release, error);
}

typedef struct prelu_job {
    const prelu_state *s;
    const uint8_t *src;
    uint8_t *dst;
} prelu_job;

/* Unsigned bytes in the order of their values. */
static const uint8_t *unsigned_part(const prelu_state *s, const uint8_t *src, size_t n,
                                    uint8_t *room)
{
    if (s->x.dtype != QN_DTYPE_I8)
        return src;
    memcpy(room, src, n);
    for (size_t i = 0; i < n; i += sizeof(bytes)) {
        bytes x;
        memcpy(&x, room + i, sizeof(bytes));
        x ^= 0x80;
        memcpy(room + i, &x, sizeof(bytes));
    }
    return room;
}

/* dst[i] = negative[i] where x[i] is below zero. */
static void take_negative(const uint8_t *x, const uint8_t *negative, uint8_t *dst, size_t n,
                          uint8_t zero)
{
    size_t i = 0;
    for (; i + sizeof(bytes) <= n; i += sizeof(bytes)) {
        bytes value, low, high;
        memcpy(&value, x + i, sizeof(bytes));
        memcpy(&low, negative + i, sizeof(bytes));
        memcpy(&high, dst + i, sizeof(bytes));
        const bytes below = (bytes)(value < zero);
        high = (low & below) | (high & ~below);
        memcpy(dst + i, &high, sizeof(bytes));
    }
    for (; i < n; i++)
        dst[i] = x[i] < zero ? negative[i] : dst[i];
}

static void multiply(const prelu_state *s, const uint8_t *x, uint8_t *out, size_t n, size_t fold)
{
    const size_t column = 0, channels = fold * s->broadcast.row;
    const qn_q8_dwconv_args args = {
        .rows = 1,
        .n = n,
        .channels = channels,
        .kh = 1,
        .kw = 1,
        .in = &x,
        .in_col = &column,
        .in_step = channels,
        .w = s->ones,
        .w_step = channels,
        .bias = s->bias,
        .scale = s->repeated,
        .out = out,
        .out_step = channels,
        .format = {.zero = s->y.zero, .lo = s->y.qmin, .hi = s->y.qmax},
    };
    if (n > 0)
        s->kernel(&args);
}

/* Rows of channels. */
static void kernel_rows(void *arg, size_t begin, size_t end)
{
    const prelu_job *const job = arg;
    const prelu_state *const s = job->s;
    const size_t row = s->broadcast.row, together = PART / row;
    uint8_t room[PART + sizeof(bytes)] = {0}, negative[PART];
    for (size_t m = begin; m < end; m += together) {
        const size_t n = end - m < together ? end - m : together, rest = n % s->fold;
        const uint8_t *const src = job->src + m * row;
        const uint8_t *const x = unsigned_part(s, src, n * row, room);
        multiply(s, x, negative, n / s->fold, s->fold);
        multiply(s, x + (n - rest) * row, negative + (n - rest) * row, rest > 0, rest);
        s->table(s->positive, src, job->dst + m * row, n * row);
        take_negative(x, negative, job->dst + m * row, n * row, (uint8_t)-s->bias[0]);
    }
}

static void plain_rows(void *arg, size_t begin, size_t end)
{
    const prelu_job *const job = arg;
    const prelu_state *const s = job->s;
    const qn_broadcast *const b = &s->broadcast;
    const int32_t bias = 0;
    for (size_t m = begin; m < end; m++) {
        int64_t at[QN_BROADCAST_MAX];
        qn__broadcast_row(b, m, at);
        for (size_t i = 0; i < b->row; i++) {
            const size_t k = m * b->row + i;
            const int32_t q = qn_qload(job->src, s->x.dtype, k) - s->x.zero;
            const float scale = s->scales[at[1] + (int64_t)i * b->strides[1][b->rank - 1]];
            const qn_requant requant = {.scale = &scale,
                                        .bias = &bias,
                                        .dtype = s->y.dtype,
                                        .zero = s->y.zero,
                                        .lo = s->y.qmin,
                                        .hi = s->y.qmax};
            job->dst[k] = s->positive[job->src[k]];
            if (q < 0)
                qn__requant_row(&requant, &q, 0, 1, job->dst + k);
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const prelu_state *const s = step->state;
    if (out[0].count == 0)
        return QN_OK;
    prelu_job job = {s, in[0].data, out[0].data};
    qn__parallel_ranges(env->pool, s->kernel != NULL ? kernel_rows : plain_rows, &job,
                        s->broadcast.rows, 4 * s->broadcast.row);
    return QN_OK;
}

const qn_run_op qn__op_qprelu = {QN_OP_PRELU, prepare, run, release};
