/* MatMulInteger and ConvInteger: sums in int32 of bytes less their zero points, which are tensors.
 * Constant right sides run as a convolution on 8-bit kernels (a matrix as a row of pixels), whose
 * float results are exact sums as long as they stay below 2^24: where they might not, or weights
 * less their zero points do not fit int8, weights are taken apart into 16 * high + low. Weights are
 * packed as if the left side's zero point were the middle of its type; what this run's changes is
 * added behind. Everything else is plain loops. */
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/broadcast.h"
#include "run/ops/q8_conv.h"
#include "run/ops/q8_conv_nd.h"

#include <string.h>

enum { MAX_PARTS = 2, EXACT = 1 << 24 };

typedef struct product_state {
    size_t m, n, k, batches; /* k: a group's channels */
    qn_broadcast batch;
    qn_qconv_nd_shape conv;
    size_t oc, taps, outputs; /* columns, and positions of the output in all batches */
    bool nd;                  /* three axes and more */
    qn_window window;         /* others, and matrices */
    bool a_rows, b_columns;   /* a zero point for each row, for each column */
    /* 8-bit kernels; n_parts 0: plain loops */
    size_t n_parts;
    qn_q8_conv parts[MAX_PARTS]; /* high and low, or whole */
    qn_q8_conv_nd nd_parts[MAX_PARTS];
    int32_t *sums;         /* [oc] of the weights less their zero points */
    float *ones;           /* [oc] */
    int32_t middle;        /* of the left side's type */
    size_t pad_at, low_at; /* scratch: a tap's padding; sums of the low part */
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
    product_state *const s = step->state;
    for (size_t i = 0; s != NULL && i < MAX_PARTS; i++) {
        qn__q8_conv_free(ctx, &s->parts[i]);
        qn__q8_conv_nd_free(ctx, &s->nd_parts[i]);
    }
    if (s != NULL) {
        qn__free(ctx, s->sums);
        qn__free(ctx, s->ones);
    }
    qn__free(ctx, s);
    step->state = NULL;
}

static int32_t zero_at(const qn_step *step, const qn_view *in, uint32_t input, bool many, size_t i)
{
    if (qn__step_input(step, input + 2) == NULL)
        return 0;
    return qn_qload(in[input + 2].data, in[input + 2].tensor->type.dtype, many ? i : 0);
}

/* --- 8-bit kernels ----------------------------------------------------------------------------*/
/* The zero point of column o's weights. */
static int32_t column_zero(const qn_step *step, const product_state *s, size_t o)
{
    const qn_tensor *const w = step->node->inputs[1], *const zero = qn__step_input(step, 3);
    return zero == NULL ? 0 : qn_qload(zero->constant->data, w->type.dtype, s->b_columns ? o : 0);
}

/* Weights as [oc][cin][taps], less their zero points: the whole (of 1 part) or a part of each.
 * False: they do not fit int8, or sums of their products might not be exact. */
static bool take_part(const qn_step *step, const product_state *s, size_t n_parts, size_t part,
                      int8_t *out)
{
    const qn_tensor *const w = step->node->inputs[1];
    const bool matmul = step->node->op == QN_OP_MATMUL_INTEGER;
    const size_t oc = s->oc, count = s->k * s->taps;
    for (size_t o = 0; o < oc; o++) {
        const int32_t z = column_zero(step, s, o);
        int64_t total = 0;
        for (size_t i = 0; i < count; i++) {
            const size_t at = matmul ? i * oc + o : o * count + i;
            int32_t v = qn_qload(w->constant->data, w->type.dtype, at) - z;
            const int32_t low = ((v + 8) & 15) - 8;
            if (n_parts == MAX_PARTS)
                v = part == 0 ? (v - low) / 16 : low;
            total += v < 0 ? -v : v;
            out[o * count + i] = (int8_t)v;
            if (v < INT8_MIN || v > INT8_MAX)
                return false;
        }
        if (total >= EXACT / 128)
            return false;
    }
    return true;
}

/* Begins weights in so many parts; false: the model file lacks one. */
static bool find_parts(const qn_plan *plan, const qn_step *step, product_state *s, size_t n_parts,
                       const qn_qparams *x, const qn_requant *sums)
{
    bool all = !s->nd; /* which files do not have */
    for (size_t i = 0; i < n_parts && !s->nd; i++) {
        const size_t which[] = {QN_Q8_SALT_INTEGERS, n_parts, i};
        uint64_t salt = qn__prepacked_key(step->node->inputs[1], which, 3, NULL, 0);
        for (size_t o = 0; o < s->oc; o++) {
            const int32_t zero = column_zero(step, s, o);
            salt = qn__prepacked_mix(salt, &zero, 1);
        }
        all &= qn__q8_conv_find(plan, step, &s->window, s->conv.groups, x, sums, 1, salt,
                                &s->parts[i]);
    }
    return all;
}

/* What a part's columns begin with is `middle` times their sums; 16 times those of the high one. */
static void add_sums(product_state *s, size_t part, int32_t factor)
{
    const int32_t *const bases = s->nd ? s->nd_parts[part].depthwise
                                 : s->parts[part].way == QN_Q8_DEPTHWISE
                                     ? s->parts[part].depthwise.bias
                                     : NULL;
    const qn_q8_packed *const packed = s->nd ? &s->nd_parts[part].packed : &s->parts[part].packed;
    for (size_t o = 0; o < s->oc; o++) {
        const int32_t base = bases != NULL ? bases[o] : qn__q8_base(packed, o);
        s->sums[o] -= factor * (base / 128);
    }
}

/* values: room for the weights. */
static qn_status pack_parts(const qn_plan *plan, qn_step *step, product_state *s, int8_t *values,
                            qn_error *error)
{
    const bool is_signed = step->node->inputs[0]->type.dtype == QN_DTYPE_I8;
    const qn_qparams x = {.dtype = step->node->inputs[0]->type.dtype,
                          .scale = 1.0f,
                          .zero = is_signed ? 0 : 128,
                          .qmin = is_signed ? -128 : 0,
                          .qmax = is_signed ? 127 : 255};
    const qn_requant sums = {.scale = s->ones, .dtype = QN_DTYPE_F32};
    const qn_qweights weights = {.bytes = values, .fits_i8 = true, .parts = 1};
    size_t n_parts = 1, packed = 0, mapped = 0, padding = 0;
    bool found = find_parts(plan, step, s, 1, &x, &sums);
    if (!found)
        found = find_parts(plan, step, s, n_parts = MAX_PARTS, &x, &sums);
    if (!found) {
        n_parts = take_part(step, s, 1, 0, values) ? 1 : MAX_PARTS;
        for (size_t i = 0; n_parts > 1 && i < n_parts; i++)
            if (!take_part(step, s, n_parts, i, values))
                return QN_OK;
        find_parts(plan, step, s, n_parts, &x, &sums);
    }
    for (size_t i = 0; i < n_parts; i++) {
        qn_q8_conv *const part = &s->parts[i];
        if (!found && n_parts > 1) /* a whole is there from trying it */
            take_part(step, s, n_parts, i, values);
        if (s->nd) {
            s->nd_parts[i].shape = s->conv;
            QN_TRY(qn__q8_conv_nd_prepare(plan, step, &x, &weights, &sums, &s->nd_parts[i], error));
        } else {
            QN_TRY(qn__q8_conv_prepare(plan, step, &x, &weights, &sums, part, error));
        }
        add_sums(s, i, i + 1 < n_parts ? 16 : 1);
        packed += step->packed_bytes;
        mapped += step->mapped_bytes;
        padding = part->packed.kc;
    }
    s->middle = x.zero;
    s->n_parts = n_parts;
    step->packed_bytes = packed;
    step->mapped_bytes = mapped;
    step->weights = NULL;
    s->pad_at = step->scratch_bytes;
    const size_t low = n_parts < MAX_PARTS ? 0 : qn__tensor_elements(step->node->outputs[0]);
    if (!qn_add_size(&s->low_at, s->pad_at, padding) || !qn_align_size(&s->low_at, s->low_at, 64) ||
        low > SIZE_MAX / sizeof(float) ||
        !qn_add_size(&step->scratch_bytes, s->low_at, low * sizeof(float)))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    return QN_OK;
}

static qn_status pack(const qn_plan *plan, qn_step *step, product_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_tensor *const w = step->node->inputs[1], *const zero = qn__step_input(step, 3);
    const size_t oc = s->oc;
    if (w->constant == NULL || (zero != NULL && zero->constant == NULL) ||
        qn__plan_get_options(plan)->reference || qn__tensor_elements(w) == 0)
        return QN_OK;
    s->sums = qn__calloc(ctx, oc, sizeof(*s->sums));
    s->ones = qn__calloc(ctx, oc, sizeof(*s->ones));
    int8_t *const values = qn__alloc(ctx, qn__tensor_elements(w));
    qn_status status = QN_OK;
    if (s->sums == NULL || s->ones == NULL || values == NULL)
        status = QN_NOMEM(error);
    for (size_t i = 0; i < oc && status == QN_OK; i++)
        s->ones[i] = 1.0f;
    if (status == QN_OK)
        status = pack_parts(plan, step, s, values, error);
    qn__free(ctx, values);
    return status;
}

typedef struct settle_job {
    const qn_step *step;
    const qn_view *in;
    int32_t *out;
    const float *low;
} settle_job;

/* Sums are exact and bounded (run_parts); those of a damaged file's scales may be no number. */
static uint32_t to_integer(float sum)
{
    return (uint32_t)(int32_t)(sum > (float)-EXACT ? sum : (float)-EXACT);
}

/* Rows of exact sums in float become the output's. */
static void settle_rows(void *arg, size_t begin, size_t end)
{
    const settle_job *const job = arg;
    const product_state *const s = job->step->state;
    const size_t oc = s->oc;
    for (size_t row = begin; row < end; row++) {
        const int32_t zero = zero_at(job->step, job->in, 0, s->a_rows, row % s->m);
        const uint32_t moved = (uint32_t)(s->middle - zero);
        int32_t *const y = job->out + row * oc;
        for (size_t o = 0; o < oc; o++) {
            float high;
            memcpy(&high, y + o, sizeof(high));
            uint32_t sum = to_integer(high);
            if (job->low != NULL)
                sum = 16 * sum + to_integer(job->low[row * oc + o]);
            y[o] = (int32_t)(sum + moved * (uint32_t)s->sums[o]);
        }
    }
}

static void run_parts(const qn_step *step, const qn_run_env *env, const qn_view *in,
                      const qn_view *out)
{
    const product_state *const s = step->state;
    uint8_t *const scratch = env->scratch;
    const int32_t zero = zero_at(step, in, 0, false, 0);
    const qn_requant sums = {
        .scale = s->ones, .dtype = QN_DTYPE_F32, .clamp = {(float)-EXACT, (float)EXACT}};
    qn_view low = *out;
    low.data = scratch + s->low_at;
    for (size_t i = 0; i < s->n_parts; i++) {
        const qn_view *const to = i == 0 ? &out[0] : &low;
        if (s->nd) {
            qn_q8_conv_nd part = s->nd_parts[i];
            part.zero = (uint8_t)zero;
            part.requant = sums;
            qn__q8_conv_nd_run(&part, env, &in[0], to);
            continue;
        }
        qn_q8_conv part = s->parts[i];
        part.zero = (uint8_t)zero;
        part.depthwise.zero = part.zero;
        part.depthwise.format = qn__q8_format(&sums);
        part.zeros = scratch + s->pad_at;
        memset(part.zeros, part.zero, part.packed.kc);
        qn__q8_conv_run(&part, env, &in[0], to, &sums);
    }
    settle_job job = {step, in, out[0].data, s->n_parts == MAX_PARTS ? low.data : NULL};
    qn__parallel_ranges(env->pool, settle_rows, &job, s->outputs, 2 * s->oc);
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
    if (!qn__broadcast_matrices(&s->batch, y, a, b))
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    QN_TRY(check_zero(step, 0, s->m, &s->a_rows, error));
    return check_zero(step, 1, s->n, &s->b_columns, error);
}

static qn_status matmul_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    product_state *s = NULL;
    QN_TRY(start(plan, step, &s, error));
    qn_status status = read_matmul(step, s, error);
    if (status == QN_OK && step->node->inputs[1]->rank == 2 && s->k > 0) {
        const size_t rows = s->outputs = s->batches * s->m;
        s->oc = s->n;
        s->taps = s->conv.groups = 1;
        s->window = (qn_window){.n = 1, .c = s->k, .h = 1, .w = rows, .oc = s->n, .oh = 1};
        s->window.ow = rows;
        s->window.kh = s->window.kw = s->window.sh = s->window.sw = 1;
        s->window.dh = s->window.dw = 1;
        status = pack(plan, step, s, error);
        step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    }
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
    if (s->n_parts > 0) {
        run_parts(step, env, in, out);
        return QN_OK;
    }
    matmul_job job = {step, in, out[0].data};
    qn__parallel_ranges(env->pool, matmul_rows, &job, s->batches * s->m, 4 * s->k * s->n);
    return QN_OK;
}

/* --- ConvInteger ------------------------------------------------------------------------------*/
static qn_status read_conv(const qn_step *step, product_state *s, qn_error *error)
{
    int64_t kernel[QN_MAX_RANK];
    bool many;
    QN_TRY(qn__qconv_nd_shape(step, &s->conv, error));
    s->nd = s->conv.w.n > 2;
    memcpy(kernel, s->conv.w.kernel, sizeof s->conv.w.kernel);
    if (!s->nd)
        QN_TRY(qn__window_read(step, kernel, false, false, &s->window, error));
    s->m = 1;
    s->k = s->conv.cin;
    s->oc = s->conv.oc;
    s->taps = s->conv.w.taps;
    s->outputs = s->conv.n * s->conv.w.out_count;
    QN_TRY(check_zero(step, 0, 1, &many, error));
    return check_zero(step, 1, s->oc, &s->b_columns, error);
}

static qn_status conv_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    product_state *s = NULL;
    QN_TRY(start(plan, step, &s, error));
    qn_status status = read_conv(step, s, error);
    if (status == QN_OK)
        status = pack(plan, step, s, error);
    if (status != QN_OK)
        release(qn__plan_context(plan), step);
    return status;
}

/* One output of channel o: a place in the output's plane, of a group's channels from x on. */
static int32_t conv_one(const matmul_job *job, size_t o, size_t place, size_t x)
{
    const product_state *const s = job->step->state;
    const qn_window_nd *const w = &s->conv.w;
    const qn_dtype xt = job->in[0].tensor->type.dtype, wt = job->in[1].tensor->type.dtype;
    const int32_t zx = zero_at(job->step, job->in, 0, false, 0);
    const int32_t zw = zero_at(job->step, job->in, 1, s->b_columns, o);
    int64_t to[QN_ND_AXES], tap[QN_ND_AXES];
    uint32_t sum = 0;
    qn__coordinates(place, w->n, w->out, to);
    for (size_t t = 0; t < w->taps; t++) {
        bool inside = true;
        size_t from = 0;
        qn__coordinates(t, w->n, w->kernel, tap);
        for (size_t i = 0; i < w->n; i++) {
            const int64_t at = to[i] * w->stride[i] + tap[i] * w->dilation[i] - w->begin[i];
            inside &= at >= 0 && at < w->in[i];
            from = from * (size_t)w->in[i] + (size_t)at;
        }
        for (size_t c = 0; inside && c < s->k; c++)
            sum += (uint32_t)((qn_qload(job->in[0].data, xt, x + c * w->in_count + from) - zx) *
                              (qn_qload(job->in[1].data, wt, (o * s->k + c) * w->taps + t) - zw));
    }
    return (int32_t)sum;
}

/* Planes of the output. */
static void conv_planes(void *arg, size_t begin, size_t end)
{
    const matmul_job *const job = arg;
    const product_state *const s = job->step->state;
    const qn_window_nd *const w = &s->conv.w;
    for (size_t plane = begin; plane < end; plane++) {
        const size_t o = plane % s->oc, channel = plane / s->conv.cout * s->k;
        for (size_t i = 0; i < w->out_count; i++)
            job->out[plane * w->out_count + i] = conv_one(job, o, i, channel * w->in_count);
    }
}

static qn_status conv_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                          const qn_view *out, qn_error *error)
{
    (void)error;
    const product_state *const s = step->state;
    if (s->n_parts > 0) {
        run_parts(step, env, in, out);
        return QN_OK;
    }
    matmul_job job = {step, in, out[0].data};
    qn__parallel_ranges(env->pool, conv_planes, &job, s->conv.n * s->oc,
                        4 * s->conv.w.out_count * s->k * s->taps);
    return QN_OK;
}

const qn_run_op qn__op_matmul_integer = {QN_OP_MATMUL_INTEGER, matmul_prepare, matmul_run, release};
const qn_run_op qn__op_conv_integer = {QN_OP_CONV_INTEGER, conv_prepare, conv_run, release};
