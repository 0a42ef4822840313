/* Quantized convolution over three axes and more: windows are read from a copy of the input with
 * its padding, where all rows of a window lie at the same places. Rows of the last axis are one tap
 * where their pixels follow each other. Depthwise layers are rows of outputs of the 8-bit kernel
 * for those, as windows of more rows. */
#include "core/alloc.h"
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/q8_conv_nd.h"
#include "run/ops/window_rows.h"

#include <string.h>

/* Rows of depthwise windows, and taps in a row. */
enum { DEPTHWISE_ROWS = 128, DEPTHWISE_COLUMNS = 32 };

typedef struct nd_state {
    qn_qweights weights;
    qn_q8_conv_nd conv;
} nd_state;

__attribute__((cold)) void qn__q8_conv_nd_free(const qn_context *ctx, qn_q8_conv_nd *conv)
{
    qn__q8_packed_free(ctx, &conv->packed);
    qn__free(ctx, conv->depthwise);
    qn__free(ctx, conv->taps);
}

static void release(const qn_context *ctx, qn_step *step)
{
    nd_state *const s = step->state;
    if (s == NULL)
        return;
    qn__qweights_free(ctx, &s->weights);
    qn__q8_conv_nd_free(ctx, &s->conv);
    qn__free(ctx, s);
    step->state = NULL;
}

qn_status qn__qconv_nd_shape(const qn_step *step, qn_qconv_nd_shape *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const w = qn__step_input(step, 1);
    const qn_tensor *const y = step->node->outputs[0];
    const int64_t groups = qn__attr_int(step->node, "group", 1);
    int64_t dims[QN_MAX_RANK];
    if (w == NULL || w->rank != x->rank || y->rank != x->rank || groups < 1)
        return qn__step_fail(step, error, QN_CORRUPT, "weights or groups do not fit");
    qn__tensor_dims(w, dims);
    QN_TRY(qn__window_nd_read(step, dims + 2, &s->w, error));
    s->n = (size_t)x->dims[0].value;
    s->groups = (size_t)groups;
    s->c = (size_t)x->dims[1].value;
    s->oc = (size_t)y->dims[1].value;
    s->cin = s->c / s->groups;
    s->cout = s->oc / s->groups;
    if (s->cin * s->groups != s->c || s->cout * s->groups != s->oc || s->cin == 0 || s->cout == 0 ||
        (size_t)dims[0] != s->oc || (size_t)dims[1] != s->cin ||
        x->dims[0].value != y->dims[0].value)
        return qn__step_fail(step, error, QN_CORRUPT, "channels do not fit the weights");
    return QN_OK;
}

static qn_status lay_out_copy(const qn_step *step, qn_q8_conv_nd *s, qn_error *error)
{
    s->axes = s->shape.w.n + 1;
    s->in[0] = s->padded[0] = s->out[0] = s->shape.n;
    s->in_place = true;
    for (size_t i = 0; i < s->shape.w.n; i++) {
        s->in[1 + i] = (size_t)s->shape.w.in[i];
        s->out[1 + i] = (size_t)s->shape.w.out[i];
        s->padded[1 + i] = (size_t)((s->shape.w.out[i] - 1) * s->shape.w.stride[i] +
                                    (s->shape.w.kernel[i] - 1) * s->shape.w.dilation[i] + 1);
        s->in_place &= s->shape.w.begin[i] == 0 && s->padded[1 + i] <= s->in[1 + i];
        if (s->out[1 + i] == 0)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "an axis without elements");
    }
    if (s->in_place)
        memcpy(s->padded, s->in, sizeof s->padded);
    s->m = s->shape.n * s->shape.w.out_count;
    return QN_OK;
}

/* Offsets in the copy, whose bytes are counted. */
static bool place(qn_q8_conv_nd *s, size_t *bytes)
{
    *bytes = s->shape.c;
    for (size_t i = s->axes; i-- > 0;) {
        s->pitch[i] = *bytes;
        s->step[i] = *bytes * (i == 0 ? 1 : (size_t)s->shape.w.stride[i - 1]);
        if (!qn_mul_size(bytes, *bytes, s->padded[i]))
            return false;
    }
    for (size_t t = 0; t < s->shape.w.taps; t++) {
        int64_t at[QN_ND_AXES];
        qn__coordinates(t, s->shape.w.n, s->shape.w.kernel, at);
        for (size_t i = 0; i < s->shape.w.n; i++)
            s->taps[t] += (size_t)(at[i] * s->shape.w.dilation[i]) * s->pitch[1 + i];
    }
    return true;
}

static qn_q8_strides strides_of(const qn_q8_conv_nd *s)
{
    const size_t k = s->packed.ks * s->packed.kc;
    return (qn_q8_strides){s->shape.cout * k, k, s->packed.kc, 1};
}

/* Begins the product of weights in so many parts; false: the model file has them not. */
static bool begin(const qn_plan *plan, const qn_step *step, const qn_qparams *x,
                  const qn_requant *requant, size_t parts, qn_q8_conv_nd *s)
{
    s->parts = parts;
    s->row = s->shape.groups == 1 && s->shape.w.dilation[s->shape.w.n - 1] == 1
                 ? (size_t)s->shape.w.kernel[s->shape.w.n - 1]
                 : 1;
    s->packed = (qn_q8_packed){.n = s->shape.cout,
                               .kc = s->shape.cin * s->row,
                               .ks = parts * (s->shape.w.taps / s->row),
                               .groups = s->shape.groups,
                               .parts = parts,
                               .salt = qn_q8_salt(parts),
                               .kernel = step->kernels->q8_igemm};
    const qn_q8_strides strides = strides_of(s);
    return qn__q8_find(plan, step, x, requant, &strides, &s->packed);
}

/* [oc][cin][taps], part by part, to [oc][parts][taps][cin]. */
static qn_status pack(const qn_plan *plan, qn_step *step, qn_q8_conv_nd *s, const qn_qparams *x,
                      const qn_qweights *weights, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const size_t taps = s->shape.w.taps, parts = s->parts,
                 count = s->shape.oc * s->shape.cin * taps;
    int8_t *own;
    const int8_t *const values = qn__q8_values(ctx, weights, count, &own);
    int8_t *const ordered = qn__reallocarray(ctx, NULL, count, parts);
    qn_status status = values == NULL || ordered == NULL ? QN_NOMEM(error) : QN_OK;
    for (size_t part = 0; status == QN_OK && part < parts; part++)
        for (size_t o = 0; o < s->shape.oc; o++)
            for (size_t i = 0; i < s->shape.cin; i++)
                for (size_t t = 0; t < taps; t++)
                    ordered[((o * parts + part) * taps + t) * s->shape.cin + i] =
                        values[part * count + (o * s->shape.cin + i) * taps + t];
    qn__free(ctx, own);
    begin(plan, step, x, &s->requant, parts, s);
    const qn_q8_strides strides = strides_of(s);
    if (status == QN_OK)
        status = qn__q8_pack(plan, step, x, &s->requant, ordered, &strides, &s->packed, error);
    qn__free(ctx, ordered);
    return status;
}

static bool is_depthwise(const qn_q8_conv_nd *s, const qn_qparams *x)
{
    const size_t columns = (size_t)s->shape.w.kernel[s->shape.w.n - 1];
    return s->shape.cin == 1 && s->shape.cout == 1 && x->dtype == QN_DTYPE_U8 &&
           s->requant.fixed == NULL && columns <= DEPTHWISE_COLUMNS &&
           s->shape.w.taps / columns <= DEPTHWISE_ROWS / s->parts;
}

static qn_status pack_depthwise(const qn_plan *plan, qn_step *step, qn_q8_conv_nd *s,
                                const qn_qparams *x, const qn_qweights *weights, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const size_t c = s->shape.c, taps = s->shape.w.taps, rows = taps * s->parts;
    int8_t *own;
    const int8_t *const values = qn__q8_values(ctx, weights, c * taps, &own);
    s->depthwise = qn__reallocarray(ctx, NULL, c, rows + sizeof(int32_t));
    if (values == NULL || s->depthwise == NULL) {
        qn__free(ctx, own);
        return QN_NOMEM(error);
    }
    int8_t *const to = (int8_t *)(s->depthwise + c);
    s->small_scales = true;
    for (size_t i = 0; i < c; i++) {
        uint32_t base = s->requant.bias != NULL ? (uint32_t)s->requant.bias[i] : 0;
        for (size_t t = 0; t < rows; t++) {
            to[t * c + i] = values[t / taps * c * taps + i * taps + t % taps];
            base -= (uint32_t)x->zero * (uint32_t)to[t * c + i];
        }
        s->depthwise[i] = (int32_t)base;
        s->small_scales &= s->requant.scale[i] > -1.0f && s->requant.scale[i] < 1.0f;
    }
    qn__free(ctx, own);
    s->row = (size_t)s->shape.w.kernel[s->shape.w.n - 1];
    s->kernel = step->kernels->q8_dwconv.fn;
    step->kernel_name = step->kernels->q8_dwconv.name;
    step->packed_bytes = c * (rows + sizeof(int32_t));
    return QN_OK;
}

__attribute__((cold)) qn_status qn__q8_conv_nd_prepare(const qn_plan *plan, qn_step *step,
                                                       const qn_qparams *x,
                                                       const qn_qweights *weights,
                                                       const qn_requant *requant, qn_q8_conv_nd *s,
                                                       qn_error *error)
{
    size_t bytes, rows = 0;
    s->zero = qn_q8_zero_byte(x);
    const bool found = s->packed.data != NULL;
    if (!found)
        s->parts = weights->parts;
    s->requant = *requant;
    QN_TRY(lay_out_copy(step, s, error));
    s->taps = qn__calloc(qn__plan_context(plan), s->shape.w.taps, sizeof(*s->taps));
    if (s->taps == NULL)
        return QN_NOMEM(error);
    bool fits = place(s, &bytes);
    if (!found && is_depthwise(s, x)) {
        QN_TRY(pack_depthwise(plan, step, s, x, weights, error));
    } else {
        if (!found)
            QN_TRY(pack(plan, step, s, x, weights, error));
        step->kernel_name = s->packed.kernel.name;
        step->packed_bytes = s->packed.bytes;
        step->mapped_bytes = found ? s->packed.bytes : 0;
        step->weights = s->packed.data;
        fits &= qn__q8_buffer_bytes(&rows, &s->packed, s->m);
    }
    if (!fits || !qn_align_size(&s->rows_at, s->in_place ? 0 : bytes, 64) ||
        !qn_add_size(&step->scratch_bytes, s->rows_at, rows))
        return qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    s->has_rows = rows != 0;
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    return QN_OK;
}

typedef struct search {
    qn_q8_conv_nd *conv;
    const qn_qparams *x;
    const qn_requant *requant;
} search;

static bool find(const qn_plan *plan, const qn_step *step, void *state, size_t parts)
{
    const search *const s = state;
    return begin(plan, step, s->x, s->requant, parts, s->conv);
}

static qn_status fill(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    nd_state *const s = state;
    qn_qparams x;
    qn_requant requant;
    qn_q8_found way = QN_Q8_NO_BYTES;
    search looking = {&s->conv, &x, &requant};
    float s_y;
    QN_TRY(qn__qparams_read(step, step->node->inputs[0], &x, error));
    QN_TRY(qn__qconv_nd_shape(step, &s->conv.shape, error));
    QN_TRY(
        qn__qweights_scales(plan, step, 1, 0, s->conv.shape.oc, &x, 1.0f, 2, &s->weights, error));
    QN_TRY(qn__qoutput(plan, step, s->weights.scale, s->weights.bias, s->weights.fixed, &requant,
                       &s_y, error));
    if (!qn_saturates(plan, step->node->inputs[1]))
        QN_TRY(qn__q8_search(plan, step, 0, &x, &s->weights, find, &looking, &way, error));
    if (way == QN_Q8_NO_BYTES) {
        release(qn__plan_context(plan), step);
        return qn__prepare_simulated(plan, step, error);
    }
    QN_TRY(qn__q8_conv_nd_prepare(plan, step, &x, &s->weights, &requant, &s->conv, error));
    qn__qweights_drop_values(qn__plan_context(plan), &s->weights);
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    return qn__step_make_state(plan, step, sizeof(nd_state), fill, release, error);
}

typedef struct nd_call {
    const qn_q8_conv_nd *s;
    const uint8_t *in; /* first of the input, then of the copy */
    uint8_t *padded, *out;
} nd_call;

/* One row of the copy's last axis. */
static void pad_row(void *arg, size_t index)
{
    const nd_call *const call = arg;
    const qn_q8_conv_nd *const s = call->s;
    const size_t last = s->axes - 1, width = s->padded[last];
    uint8_t *to = call->padded + index * width * s->shape.c;
    size_t from = 0, pitch = s->in[last] * s->shape.c;
    bool inside = true;
    for (size_t i = last; i-- > 0; index /= s->padded[i], pitch *= s->in[i]) {
        const int64_t at =
            (int64_t)(index % s->padded[i]) - (i > 0 ? (int64_t)s->shape.w.begin[i - 1] : 0);
        inside &= at >= 0 && at < (int64_t)s->in[i];
        from += inside ? (size_t)at * pitch : 0;
    }
    const int64_t begin = s->shape.w.begin[last - 1], end = begin + (int64_t)s->in[last];
    const size_t lo = begin <= 0 ? 0 : begin < (int64_t)width ? (size_t)begin : width;
    const size_t hi = end <= (int64_t)lo ? lo : end < (int64_t)width ? (size_t)end : width;
    memset(to, s->zero, width * s->shape.c);
    if (inside && hi > lo)
        memcpy(to + lo * s->shape.c, call->in + from + (size_t)((int64_t)lo - begin) * s->shape.c,
               (hi - lo) * s->shape.c);
}

/* Offsets of outputs from m0 on, one behind the other. */
typedef struct walk {
    const qn_q8_conv_nd *s;
    size_t at[QN_Q8_ND_AXES], offset;
} walk;

static walk walk_from(const qn_q8_conv_nd *s, size_t m)
{
    walk w = {.s = s};
    for (size_t i = s->axes; i-- > 0; m /= s->out[i]) {
        w.at[i] = m % s->out[i];
        w.offset += w.at[i] * s->step[i];
    }
    return w;
}

static size_t walk_next(walk *w)
{
    const size_t offset = w->offset;
    for (size_t i = w->s->axes; i-- > 0;) {
        w->offset += w->s->step[i];
        if (++w->at[i] < w->s->out[i] || i == 0)
            break;
        w->offset -= w->at[i] * w->s->step[i];
        w->at[i] = 0;
    }
    return offset;
}

static void nd_rows(const qn_q8_job *job, size_t group, size_t m0, size_t mr, const uint8_t **a)
{
    const nd_call *const call = job->ctx;
    const qn_q8_conv_nd *const s = call->s;
    const qn_q8_igemm *const kernel = &job->packed->kernel;
    const size_t end = qn_q8_rows_end(kernel, mr);
    walk w = walk_from(s, m0);
    for (size_t r = 0; r < mr; r++)
        a[r] = call->in + group * s->shape.cin + walk_next(&w);
    qn__repeat_last(a, 1, mr, end, kernel->mr);
    for (size_t p = 1; p < job->packed->taps; p++)
        for (size_t r = 0; r < end; r++)
            a[p * kernel->mr + r] = a[r] + s->taps[p * s->row];
}

/* Rows of outputs of the last axis. */
static void depthwise_range(void *arg, size_t begin, size_t end)
{
    const nd_call *const call = arg;
    const qn_q8_conv_nd *const s = call->s;
    const size_t last = s->axes - 1, rows = s->shape.w.taps / s->row, all = rows * s->parts;
    const size_t elem = s->requant.dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    const uint8_t *in[DEPTHWISE_ROWS];
    qn_q8_dwconv_args args = {.rows = 1,
                              .n = s->out[last],
                              .channels = s->shape.c,
                              .kh = all,
                              .kw = s->row,
                              .in = in,
                              .in_col = s->taps,
                              .in_step = s->step[last],
                              .w = (const int8_t *)(s->depthwise + s->shape.c),
                              .w_step = s->shape.c,
                              .bias = s->depthwise,
                              .scale = s->requant.scale,
                              .out_row = s->out[last] * s->shape.c,
                              .out_step = s->shape.c,
                              .format = qn__q8_format(&s->requant)};
    args.format.small_scales = s->small_scales;
    for (size_t y = begin; y < end; y++) {
        const walk w = walk_from(s, y * args.n);
        for (size_t i = 0; i < all; i++)
            in[i] = call->in + w.offset + s->taps[i % rows * s->row];
        args.out = call->out + y * args.out_row * elem;
        s->kernel(&args);
    }
}

void qn__q8_conv_nd_run(const qn_q8_conv_nd *s, const qn_run_env *env, const qn_view *in,
                        const qn_view *out)
{
    nd_call call = {s, in->data, env->scratch, out->data};
    if (!s->in_place) {
        size_t rows = 1;
        for (size_t i = 0; i + 1 < s->axes; i++)
            rows *= s->padded[i];
        qn__parallel(env->pool, pad_row, &call, rows);
        call.in = call.padded;
    }
    if (s->depthwise != NULL) {
        const size_t width = s->out[s->axes - 1];
        qn__parallel_ranges(env->pool, depthwise_range, &call, s->m / width,
                            width * s->shape.c * s->shape.w.taps);
        return;
    }
    qn_q8_job job = {
        .packed = &s->packed,
        .m = s->m,
        .c = out->data,
        .c_stride = s->shape.oc,
        .c_group = s->shape.cout,
        .out = qn__q8_format(&s->requant),
        .fixed = qn_q8_by_fixed_of(&s->requant),
        .rows = nd_rows,
        .ctx = &call,
        .ahead = env->ahead,
        .ahead_bytes = env->ahead_bytes,
        .row_buffer =
            s->has_rows ? (const uint8_t **)(void *)((uint8_t *)env->scratch + s->rows_at) : NULL,
    };
    qn__q8_run(&job, env->pool);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const nd_state *const s = step->state;
    qn__q8_conv_nd_run(&s->conv, env, &in[0], &out[0]);
    return QN_OK;
}

const qn_run_op qn__op_qconv_nd = {QN_OP_CONV, prepare, run, release};
