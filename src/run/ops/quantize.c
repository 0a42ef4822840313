/* QuantizeLinear, DequantizeLinear and Requantize: x / scale rounded half to even, saturated. Bytes
 * have kernels; everything else goes element by element. */
#include "run/nd.h"
#include "run/ops/q8_padded.h"
#include "run/ops/qweights.h"

typedef struct cross_state {
    bool bytes;     /* 8 bits, uniform; scales per tensor or per axis */
    qn_dtype dtype; /* of the quantized side */
    int axis;       /* -1: one scale */
    bool table_used;
    uint8_t table[256];
    const qn_quant *quant;
    bool planes;        /* quantizes planes of a picture to pixels */
    float factor, rest; /* of qn_q8_quantize_args */
    qn_dtype precision; /* of quotients */
} cross_state;

static bool is_bytes(const qn_tensor *t)
{
    const qn_quant *const q = t->type.quant;
    return t->type.kind == QN_TYPE_QUANT && q->n_codebook == 0 && q->block == 0 &&
           (t->type.dtype == QN_DTYPE_U8 || t->type.dtype == QN_DTYPE_I8) &&
           (q->axis < 0 || (q->axis < t->rank && q->n_scales == (size_t)t->dims[q->axis].value));
}

typedef struct cross_job {
    const cross_state *s;
    const qn_kernels *kernels;
    const void *src;
    void *dst;
    qn_axis_view v; /* scales by axis: rows of `inner` elements; planes: `axis` of `inner` pixels */
} cross_job;

static qn_q8_quantize_args quantize_args(const cross_state *s, size_t scale)
{
    const qn_quant *const q = s->quant;
    const int32_t zero = q->zero_points != NULL ? q->zero_points[scale] : 0;
    return (qn_q8_quantize_args){.scale = q->scales[scale],
                                 .lo = (float)(q->qmin - zero),
                                 .hi = (float)(q->qmax - zero),
                                 .zero = zero,
                                 .factor = s->factor,
                                 .rest = s->rest};
}

/* Elements from `at` on with scale number `scale`; with planes, those of pixels from `at` on. */
static void quantize_row(const cross_job *job, size_t scale, size_t at, size_t n, size_t channels,
                         size_t plane)
{
    qn_q8_quantize_args args = quantize_args(job->s, scale);
    args.n = n;
    args.channels = channels;
    args.src = (const float *)job->src + at;
    args.plane = plane;
    args.dst = (uint8_t *)job->dst + at;
    job->kernels->q8_quantize.fn(&args);
}

/* The planes of pictures become pixels on the way to bytes: what reads them wants it so. */
enum { MAX_PLANES = 4 };
static bool are_planes(const qn_step *step, const qn_tensor *x)
{
    return x->rank == 4 && step->in_layout[0] == QN_LAYOUT_ROW_MAJOR && x->dims[1].value > 1 &&
           x->dims[1].value <= MAX_PLANES;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, 0), *const y = node->outputs[0];
    const bool to_quant = node->op != QN_OP_DEQUANTIZE_LINEAR;
    const bool from_quant = node->op != QN_OP_QUANTIZE_LINEAR;
    if (x == NULL || qn__tensor_elements(x) != qn__tensor_elements(y))
        return qn__step_fail(step, error, QN_CORRUPT, "input and output do not fit");
    if (to_quant != (y->type.kind == QN_TYPE_QUANT) ||
        from_quant != (x->type.kind == QN_TYPE_QUANT) ||
        (!to_quant && !qn__dtype_is_float(y->type.dtype)))
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "scales must be constant and become part of the tensor's type");
    if (qn__dtype_bits(y->type.dtype) < 8 ||
        (x->constant == NULL && qn__dtype_bits(x->type.dtype) < 8))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "elements of less than 8 bits");
    const qn_dtype precision =
        qn__dtype_of_onnx(qn__attr_int(node, "precision", qn__dtype_onnx(QN_DTYPE_F32)));
    if (precision != QN_DTYPE_F32 && x->type.dtype != precision)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "divides %s in another precision",
                             qn__dtype_name(x->type.dtype));
    for (uint32_t i = 1; i < node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = step->in_layout[0];
    cross_state s = {.axis = -1, .precision = precision};
    const qn_tensor *const quantized = to_quant ? y : x;
    const qn_tensor *const other = to_quant ? x : y;
    if (is_bytes(quantized) && other->type.kind != QN_TYPE_QUANT &&
        other->type.dtype == QN_DTYPE_F32) {
        s.bytes = true;
        s.quant = quantized->type.quant;
        s.dtype = quantized->type.dtype;
        s.axis = s.quant->axis;
        s.planes = to_quant && s.axis < 0 && are_planes(step, x);
        if (s.planes)
            step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
        step->makes_rows =
            to_quant && s.axis < 0 && x->rank == 4 &&
            (step->out_layout[0] == QN_LAYOUT_CHANNELS_LAST || x->dims[1].value == 1);
        if (to_quant && s.axis < 0) {
            qn_q8_quantize_args args = quantize_args(&s, 0);
            qn__q8_quantize_factors(&args);
            s.factor = args.factor;
            s.rest = args.rest;
        }
        step->kernel_name =
            to_quant ? step->kernels->q8_quantize.name : step->kernels->q8_dequantize.name;
    } else if (to_quant && from_quant && is_bytes(x) && is_bytes(y) && x->type.quant->axis < 0 &&
               y->type.quant->axis < 0) {
        qn_qparams from, to;
        QN_TRY(qn__qparams_read(step, x, &from, error));
        QN_TRY(qn__qparams_read(step, y, &to, error));
        if (!qn__table_requantize(s.table, &from, &to, qn__plan_requantize(plan)))
            return qn__qfixed(plan, step, (double)from.scale / (double)to.scale, NULL, error);
        s.table_used = true;
        step->kernel_name = step->kernels->q8_table.name;
        step->inplace_input = 0;
    } else {
        step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
        step->scratch_bytes = qn__tensor_elements(x) * sizeof(float);
    }
    cross_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = s;
    step->state = state;
    return QN_OK;
}

static void dequantize_row(const cross_job *job, size_t scale, size_t at, size_t n)
{
    const qn_quant *const q = job->s->quant;
    const int32_t top = job->s->dtype == QN_DTYPE_I8 ? 128 : 0;
    const qn_q8_dequantize_args args = {
        .n = n,
        .src = (const uint8_t *)job->src + at,
        .dst = (float *)job->dst + at,
        .scale = q->scales[scale],
        .zero = (q->zero_points != NULL ? q->zero_points[scale] : 0) + top,
        .flip = (uint8_t)top};
    job->kernels->q8_dequantize.fn(&args);
}

/* Items are elements (one scale) or rows of `inner` elements with scale index row % axis. */
static void quantize_range(void *arg, size_t begin, size_t end)
{
    const cross_job *const job = arg;
    if (job->s->axis < 0) {
        quantize_row(job, 0, begin, end - begin, 1, 0);
        return;
    }
    for (size_t row = begin; row < end; row++)
        quantize_row(job, row % job->v.axis, row * job->v.inner, job->v.inner, 1, 0);
}

/* Items are pixels of all pictures. */
static void quantize_pixels(void *arg, size_t begin, size_t end)
{
    const cross_job *const job = arg;
    const size_t pixels = job->v.inner, channels = job->v.axis;
    while (begin < end) {
        const size_t image = begin / pixels, first = begin % pixels;
        const size_t n = pixels - first < end - begin ? pixels - first : end - begin;
        cross_job part = *job;
        part.src = (const float *)job->src + image * pixels * channels + first;
        part.dst = (uint8_t *)job->dst + begin * channels;
        quantize_row(&part, 0, 0, n, channels, pixels);
        begin += n;
    }
}

void qn__q8_quantize_rows(const void *ctx, size_t first, uint8_t *const *rows, size_t n)
{
    const qn_quantized_rows *const q = ctx;
    const cross_state *const s = q->step->state;
    const int64_t *const dims = q->in->dims;
    const size_t channels = s->planes ? (size_t)dims[1] : 1, h = (size_t)dims[2];
    qn_q8_quantize_args args = quantize_args(s, 0);
    args.channels = channels;
    args.rows = rows;
    args.row = q->row / channels;
    args.n = n * args.row;
    args.plane = h * args.row;
    args.src = (const float *)q->in->data + first * args.row;
    if (channels > 1)
        args.src += first / h * args.plane * (channels - 1);
    q->step->kernels->q8_quantize.fn(&args);
}

static void dequantize_range(void *arg, size_t begin, size_t end)
{
    const cross_job *const job = arg;
    if (job->s->axis < 0) {
        dequantize_row(job, 0, begin, end - begin);
        return;
    }
    for (size_t row = begin; row < end; row++)
        dequantize_row(job, row % job->v.axis, row * job->v.inner, job->v.inner);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const cross_state *const s = step->state;
    if (s->table_used) {
        qn__table_run(env->pool, step->kernels->q8_table.fn, s->table, in[0].data, out[0].data,
                      in[0].count);
        return QN_OK;
    }
    if (!s->bytes) {
        qn__view_to_f32(&in[0], env->scratch);
        qn__view_quantize(&out[0], env->scratch, s->precision);
        return QN_OK;
    }
    cross_job job = {s, step->kernels, in[0].data, out[0].data, {1, 1, 1}};
    const bool quantizes = step->node->op == QN_OP_QUANTIZE_LINEAR;
    size_t items = in[0].count, cost = 5;
    if (s->planes || s->axis >= 0) {
        const size_t axis = s->planes ? 1 : (size_t)s->axis;
        job.v = qn__axis_view(in[0].rank, in[0].dims, in[0].layout, axis);
        items = job.v.outer * (s->planes ? job.v.inner : job.v.axis);
        cost = 5 * (s->planes ? job.v.axis : job.v.inner);
    }
    const qn_range_fn fn = s->planes   ? quantize_pixels
                           : quantizes ? quantize_range
                                       : dequantize_range;
    qn__parallel_ranges(env->pool, fn, &job, items, cost);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_quantize = {QN_OP_NONE, prepare, run, release};
