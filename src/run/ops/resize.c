/* Resize. Nearest picks elements; linear and cubic are separable: one pass per axis with a table of
 * taps. Linear on bytes takes the four that surround a position at once, so that it rounds once:
 * the float32 operations that onnxruntime makes of their values, in its order. Of bytes that a file
 * resizes as integers it truncates the sum (`truncates`). */
#include "run/nd.h"
#include "run/ops/resample.h"

#include <math.h>
#include <string.h>

/* --- parameters ------------------------------------------------------------------------------ */
static int find_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static __attribute__((cold)) qn_status read_modes(const qn_step *step, qn_resize *r,
                                                  qn_error *error)
{
    static const char *const COORDINATES[] = {
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
        "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"};
    static const char *const NEAREST[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                          "ceil"};
    const qn_node *const node = step->node;
    const char *const coordinate =
        qn__attr_string(node, "coordinate_transformation_mode", "half_pixel");
    const char *const nearest = qn__attr_string(node, "nearest_mode", "round_prefer_floor");
    const int c = find_name(COORDINATES, 7, coordinate), n = find_name(NEAREST, 4, nearest);
    if (c < 0 || n < 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "%s \"%s\"",
                             c < 0 ? "coordinates" : "nearest mode", c < 0 ? coordinate : nearest);
    r->coordinate = (qn_coordinate)c;
    r->nearest = (qn_nearest)n;
    return QN_OK;
}

/* One list over the axes the node works on, from a constant input: sizes of the output where the
 * aspect ratio is kept, corners of the region. */
static __attribute__((cold)) qn_status read_axis_list(const qn_plan *plan, const qn_step *step,
                                                      uint32_t input, const qn_resize *r,
                                                      size_t per_axis, float *out, bool *given,
                                                      qn_error *error)
{
    float *values;
    size_t count, n_axes;
    const int64_t *const axes = qn__attr_ints(step->node, "axes", &n_axes);
    const size_t n = axes != NULL ? n_axes : r->rank;
    QN_TRY(qn__step_const_f32(plan, step, input, &values, &count, error));
    qn_status status = QN_OK;
    *given = count > 0;
    if (count > 0 && (count != per_axis * n || n > QN_MAX_RANK))
        status = qn__step_fail(step, error, QN_CORRUPT, "%zu values for %zu axes", count, n);
    for (size_t i = 0; i < count && status == QN_OK; i++) {
        int64_t axis = axes != NULL ? axes[i % n] : (int64_t)(i % n);
        axis += axis < 0 ? (int64_t)r->rank : 0;
        if (axis < 0 || axis >= (int64_t)r->rank || !isfinite(values[i]))
            status = qn__step_fail(step, error, QN_CORRUPT, "axis or value out of range");
        else
            out[i / n * QN_MAX_RANK + (size_t)axis] = values[i];
    }
    qn__free(qn__plan_context(plan), values);
    return status;
}

/* Every axis is scaled by the least (not_larger) or the largest (not_smaller) of the scales that
 * the wanted sizes would need. */
static __attribute__((cold)) qn_status keep_aspect(const qn_plan *plan, const qn_step *step,
                                                   qn_resize *r, qn_error *error)
{
    const char *const policy = qn__attr_string(step->node, "keep_aspect_ratio_policy", "stretch");
    float sizes[QN_MAX_RANK] = {0}, scale = 0.0f;
    bool given;
    if (strcmp(policy, "stretch") == 0)
        return QN_OK;
    QN_TRY(read_axis_list(plan, step, 3, r, 1, sizes, &given, error));
    for (size_t i = 0; i < r->rank && given; i++) {
        const float own = sizes[i] / (float)r->in_dims[i];
        if (sizes[i] > 0.0f &&
            (scale == 0.0f || (strcmp(policy, "not_larger") == 0 ? own < scale : own > scale)))
            scale = own;
    }
    for (size_t i = 0; i < r->rank && scale > 0.0f; i++)
        if (sizes[i] > 0.0f)
            r->scales[i] = scale;
    return QN_OK;
}

static __attribute__((cold)) qn_status read_region(const qn_plan *plan, const qn_step *step,
                                                   qn_resize *r, qn_error *error)
{
    float corners[2 * QN_MAX_RANK];
    bool given;
    if (r->coordinate != QN_COORD_TF_CROP_AND_RESIZE)
        return QN_OK;
    for (size_t i = 0; i < QN_MAX_RANK; i++) {
        corners[i] = 0.0f;
        corners[QN_MAX_RANK + i] = 1.0f;
    }
    QN_TRY(read_axis_list(plan, step, 1, r, 2, corners, &given, error));
    for (size_t i = 0; i < r->rank; i++) {
        r->roi_start[i] = corners[i];
        r->roi_end[i] = corners[QN_MAX_RANK + i];
    }
    return QN_OK;
}

static __attribute__((cold)) qn_status read_scales(const qn_plan *plan, const qn_step *step,
                                                   qn_resize *r, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    float *scales;
    size_t count, n_axes;
    const int64_t *const axes = qn__attr_ints(step->node, "axes", &n_axes);
    QN_TRY(qn__step_const_f32(plan, step, 2, &scales, &count, error));
    qn_status status = QN_OK;
    if (count > 0 && count != (axes != NULL ? n_axes : r->rank))
        status = qn__step_fail(step, error, QN_CORRUPT, "%zu scales for rank %zu", count, r->rank);
    for (size_t i = 0; i < count && status == QN_OK; i++) {
        int64_t axis = axes != NULL ? axes[i] : (int64_t)i;
        axis += axis < 0 ? (int64_t)r->rank : 0;
        if (axis < 0 || axis >= (int64_t)r->rank || !(scales[i] > 0.0f))
            status = qn__step_fail(step, error, QN_CORRUPT, "axis or scale out of range");
        else
            r->scales[axis] = scales[i];
    }
    qn__free(ctx, scales);
    return status;
}

static __attribute__((cold)) qn_status read_resize(const qn_plan *plan, const qn_step *step,
                                                   qn_resize *r, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0), *const y = step->node->outputs[0];
    if (x == NULL || x->rank != y->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "ranks differ");
    *r = (qn_resize){.rank = x->rank};
    qn__tensor_dims(x, r->in_dims);
    qn__tensor_dims(y, r->out_dims);
    QN_TRY(read_modes(step, r, error));
    for (size_t i = 0; i < r->rank; i++) {
        if (r->in_dims[i] == 0)
            return qn__step_fail(step, error, QN_CORRUPT, "empty input");
        r->scales[i] = (float)r->out_dims[i] / (float)r->in_dims[i];
    }
    QN_TRY(read_scales(plan, step, r, error));
    QN_TRY(keep_aspect(plan, step, r, error));
    QN_TRY(read_region(plan, step, r, error));
    for (size_t i = 0; i < r->rank; i++) {
        r->lengths[i] = r->scales[i] * (float)r->in_dims[i];
        if (fabsf(r->lengths[i] - (float)r->out_dims[i]) < 1e-2f)
            r->lengths[i] = (float)r->out_dims[i];
        if (r->coordinate == QN_COORD_ALIGN_CORNERS && r->out_dims[i] > 1 && r->lengths[i] <= 1.0f)
            return qn__step_fail(step, error, QN_CORRUPT, "axis %zu: scale too small", i);
    }
    for (size_t i = 0; i < r->rank; i++)
        r->changes[i] = r->scales[i] != 1.0f || r->in_dims[i] != r->out_dims[i] ||
                        (r->coordinate == QN_COORD_TF_CROP_AND_RESIZE &&
                         (r->roi_start[i] != 0.0f || r->roi_end[i] != 1.0f));
    return QN_OK;
}

/* --- linear and cubic ------------------------------------------------------------------------ */
static void release_state(const qn_context *ctx, qn_resize_state *s)
{
    for (size_t i = 0; i < s->n_passes; i++) {
        qn__free(ctx, s->passes[i].index);
        qn__free(ctx, s->passes[i].weight);
        qn__free(ctx, s->passes[i].outside);
    }
    qn__free(ctx, s);
}

typedef enum resize_mode { RESIZE_NEAREST, RESIZE_LINEAR, RESIZE_CUBIC } resize_mode;

static __attribute__((cold)) qn_status add_pass(const qn_plan *plan, const qn_step *step,
                                                const qn_resize *r, size_t axis,
                                                const qn_axis_view *v, resize_mode mode,
                                                qn_resize_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    qn_resize_pass *const pass = &s->passes[s->n_passes++];
    const bool cubic = mode == RESIZE_CUBIC;
    const bool wide = mode != RESIZE_NEAREST && qn__attr_int(step->node, "antialias", 0) != 0;
    const size_t half = qn__wide_half(r->scales[axis], cubic);
    const size_t out = (size_t)r->out_dims[axis], taps = wide ? 2 * half : cubic ? 4 : 2;
    size_t count;
    if (taps == 0 || !qn_mul_size(&count, out, taps) || count > SIZE_MAX / 64)
        return qn__step_fail(step, error, QN_LIMIT, "filter is too wide");
    *pass = (qn_resize_pass){taps, v->outer, v->axis, v->inner, out, NULL, NULL, NULL, 0};
    pass->index = qn__calloc(ctx, count + 1, sizeof(*pass->index));
    pass->weight = qn__calloc(ctx, count + 1, sizeof(*pass->weight));
    if (r->coordinate == QN_COORD_TF_CROP_AND_RESIZE)
        pass->outside = qn__calloc(ctx, out + 1, 1);
    if (pass->index == NULL || pass->weight == NULL ||
        (r->coordinate == QN_COORD_TF_CROP_AND_RESIZE && pass->outside == NULL))
        return QN_NOMEM(error);
    const float a = qn__attr_float(step->node, "cubic_coeff_a", -0.75f);
    const bool exclude = qn__attr_int(step->node, "exclude_outside", 0) != 0;
    for (size_t k = 0; k < out; k++) {
        int32_t *const index = pass->index + k * taps;
        float *const weight = pass->weight + k * taps;
        const float x = qn__resize_coordinate(r, axis, (int64_t)k);
        if (!(fabsf(x) < 1e9f))
            return qn__step_fail(step, error, QN_CORRUPT, "coordinate %g", (double)x);
        if (pass->outside != NULL)
            pass->outside[k] = x < 0.0f || x > (float)(r->in_dims[axis] - 1);
        if (wide) {
            qn__wide_taps(r, axis, (int64_t)k, a, cubic, exclude, half, index, weight);
        } else if (cubic) {
            qn__cubic_taps(r, axis, (int64_t)k, a, exclude, index, weight);
        } else if (mode == RESIZE_LINEAR) {
            qn__linear_taps(r, axis, (int64_t)k, index, weight);
        } else {
            index[0] = index[1] = (int32_t)qn__resize_nearest(r, axis, (int64_t)k);
            weight[0] = 1.0f;
        }
    }
    return QN_OK;
}

/* Only the last two axes are resampled: both are then, an element of which is a window, too. */
static bool in_picture(const qn_resize *r)
{
    for (size_t i = 0; i + 2 < r->rank; i++)
        if (r->changes[i])
            return false;
    return r->rank >= 2;
}

static __attribute__((cold)) qn_status make_passes(const qn_plan *plan, qn_step *step,
                                                   const qn_resize *r, resize_mode mode,
                                                   qn_resize_state *s, qn_error *error)
{
    int64_t dims[QN_MAX_RANK];
    memcpy(dims, r->in_dims, sizeof(dims));
    for (size_t axis = 0; axis < r->rank; axis++) {
        if (!r->changes[axis] && !(s->bytes && axis + 2 >= r->rank && in_picture(r)))
            continue;
        const qn_axis_view v = qn__axis_view(r->rank, dims, step->in_layout[0], axis);
        QN_TRY(add_pass(plan, step, r, axis, &v, mode, s, error));
        s->passes[s->n_passes - 1].last_inner =
            qn__axis_view(r->rank, r->out_dims, step->in_layout[0], axis).inner;
        dims[axis] = r->out_dims[axis];
        size_t count;
        if (!qn_shape_count(&count, dims, r->rank) || count > SIZE_MAX / 64)
            return qn__step_fail(step, error, QN_LIMIT, "too large");
        s->buffer = count > s->buffer ? count : s->buffer;
    }
    step->scratch_bytes = s->n_passes > 1 ? 2 * s->buffer * sizeof(float) : 0;
    return QN_OK;
}

/* --- linear on bytes ------------------------------------------------------------------------- */
/* An axis of one element, which stays. */
static __attribute__((cold)) qn_status add_whole(const qn_plan *plan, qn_resize_state *s,
                                                 qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    qn_resize_pass *const pass = &s->passes[s->n_passes++];
    *pass = (qn_resize_pass){.taps = 2, .outer = 1, .in = 1, .inner = 1, .out = 1};
    pass->index = qn__calloc(ctx, 2, sizeof(*pass->index));
    pass->weight = qn__calloc(ctx, 2, sizeof(*pass->weight));
    if (pass->index == NULL || pass->weight == NULL)
        return QN_NOMEM(error);
    pass->weight[0] = 1.0f;
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare_bytes(const qn_plan *plan, qn_step *step,
                                                     qn_resize_state *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    const bool quantized = x->type.kind == QN_TYPE_QUANT;
    s->truncates = !quantized || qn__attr_int(step->node, "truncates", 0) != 0;
    if (quantized) {
        QN_TRY(qn__qparams_read(step, x, &s->x, error));
        QN_TRY(qn__qparams_read(step, step->node->outputs[0], &s->y, error));
    }
    if (s->truncates) { /* the bytes themselves, of signed ones the numbers that they were */
        const int32_t zero = qn__attr_int(step->node, "signed", 0) != 0 ? 128 : 0;
        const bool is_signed = x->type.dtype == QN_DTYPE_I8;
        s->x = s->y = (qn_qparams){.dtype = x->type.dtype,
                                   .scale = 1.0f,
                                   .zero = zero,
                                   .qmin = is_signed ? INT8_MIN : 0,
                                   .qmax = is_signed ? INT8_MAX : UINT8_MAX};
    }
    if (step->node->outputs[0]->type.dtype != s->y.dtype)
        return qn__step_fail(step, error, QN_CORRUPT, "types differ");
    if (s->n_passes > 2)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "more than two axes of bytes");
    step->scratch_bytes = 0;
    if (s->n_passes == 0) {
        QN_TRY(add_whole(plan, s, error));
        s->passes[0].inner = qn__tensor_elements(x);
    }
    if (s->n_passes == 2)
        return QN_OK;
    /* The other is an axis of one element inside the first. */
    QN_TRY(add_whole(plan, s, error));
    s->passes[1].outer = s->passes[0].outer * s->passes[0].out;
    s->passes[1].inner = s->passes[0].inner;
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const char *const mode = qn__attr_string(step->node, "mode", "nearest");
    const bool cubic = strcmp(mode, "cubic") == 0, linear = strcmp(mode, "linear") == 0;
    qn_resize r;
    QN_TRY(read_resize(plan, step, &r, error));
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    /* A region may reach outside the input, which picking elements cannot say. */
    const bool region = r.coordinate == QN_COORD_TF_CROP_AND_RESIZE;
    const bool nearest = strcmp(mode, "nearest") == 0;
    if (nearest && !region)
        return qn__prepare_resize_nearest(plan, step, &r, error);
    if (!cubic && !linear && !nearest)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "mode \"%s\"", mode);
    const qn_dtype dtype = step->node->inputs[0]->type.dtype;
    const bool bytes = linear && !region && (dtype == QN_DTYPE_U8 || dtype == QN_DTYPE_I8) &&
                       qn__attr_int(step->node, "antialias", 0) == 0;
    if (dtype != QN_DTYPE_F32 && !bytes)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "%s in mode \"%s\"",
                             qn__dtype_name(dtype), mode);
    qn_resize_state *const s = qn__calloc(ctx, 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    if (bytes && r.rank == 4)
        step->in_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    step->out_layout[0] = step->in_layout[0];
    s->bytes = bytes;
    qn_status status = make_passes(plan, step, &r,
                                   cubic    ? RESIZE_CUBIC
                                   : linear ? RESIZE_LINEAR
                                            : RESIZE_NEAREST,
                                   s, error);
    s->extrapolation = qn__attr_float(step->node, "extrapolation_value", 0.0f);
    if (status == QN_OK && bytes)
        status = prepare_bytes(plan, step, s, error);
    if (status != QN_OK) {
        release_state(ctx, s);
        return status;
    }
    step->state = s;
    return QN_OK;
}

/* Positions that one pass found outside the input, in the finished output. */
static void extrapolate(const qn_resize_pass *pass, size_t count, float value, float *y)
{
    const size_t inner = pass->last_inner, outer = count / (pass->out * inner);
    for (size_t row = 0; row < outer * pass->out; row++)
        for (size_t i = 0; pass->outside[row % pass->out] && i < inner; i++)
            y[row * inner + i] = value;
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const qn_resize_state *const s = step->state;
    if (s->bytes) {
        qn_resize_bytes job = {s, in[0].data, out[0].data, step->kernels->q8_dequantize.fn};
        const size_t n = s->passes[1].inner;
        if (out[0].count > 0)
            qn__parallel_ranges(env->pool, qn__resize_bytes_rows, &job, out[0].count / n, 8 * n);
        return QN_OK;
    }
    const float *src = in[0].data;
    if (s->n_passes == 0)
        memcpy(out[0].data, src, in[0].count * sizeof(float));
    for (size_t i = 0; i < s->n_passes; i++) {
        const qn_resize_pass *const pass = &s->passes[i];
        float *const dst =
            i + 1 == s->n_passes ? out[0].data : (float *)env->scratch + (i % 2) * s->buffer;
        qn_resize_job job = {pass, src, dst};
        qn__parallel_ranges(env->pool, qn__resize_rows, &job, pass->outer * pass->out,
                            pass->inner * sizeof(float) * (pass->taps + 1));
        src = dst;
    }
    for (size_t i = 0; i < s->n_passes && out[0].count > 0; i++)
        if (s->passes[i].outside != NULL)
            extrapolate(&s->passes[i], out[0].count, s->extrapolation, out[0].data);
    return QN_OK;
}

static bool is_nearest(const qn_step *step)
{
    return strcmp(qn__attr_string(step->node, "mode", "nearest"), "nearest") == 0 &&
           strcmp(qn__attr_string(step->node, "coordinate_transformation_mode", ""),
                  "tf_crop_and_resize") != 0;
}

static qn_status run_any(const qn_step *step, const qn_run_env *env, const qn_view *in,
                         const qn_view *out, qn_error *error)
{
    return is_nearest(step) ? qn__run_index(step, env, in, out, error)
                            : run(step, env, in, out, error);
}

static void release(const qn_context *ctx, qn_step *step)
{
    if (is_nearest(step)) {
        qn__release_index(ctx, step);
        return;
    }
    if (step->state != NULL)
        release_state(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_resize = {QN_OP_RESIZE, prepare, run_any, release};
