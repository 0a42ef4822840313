/* From the float graph and the plan's ranges to a graph with quantized types. Activations of
 * quantized nodes become quantized tensors under their own names; a Quantize node stands where an
 * integer node reads a float tensor and a Dequantize node where a float node or a graph output
 * reads an integer one. */
#include "core/threads.h"
#include "quant/gptq.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Biases are kept within half of int32, so that adding the sum of products cannot overflow. */
#define BIAS_LIMIT 1073741824.0 /* 2^30 */

typedef struct rewriter {
    qn_quant_plan *plan;
    qn_graph *graph;
    size_t n_tensors;        /* of the float graph */
    qn_tensor **quantized;   /* [n_tensors] integer twin of a float tensor, or NULL */
    qn_tensor **dequantized; /* [n_tensors] float twin of an integer tensor, or NULL */
    const qn_mean_shifts *means;
    float **shifts; /* by node position, or NULL */
    qn_error *error;
} rewriter;

/* --- types of activations ----------------------------------------------------------------------*/
static bool absorbed(const qn_node *node, float scale, int32_t zero_point, int32_t qmin,
                     int32_t qmax)
{
    const float lo = node->act == QN_ACT_RELU ? 0 : node->act_lo;
    const float hi = node->act == QN_ACT_RELU ? INFINITY : node->act_hi;
    const double bottom = isinf(lo) ? qmin : (double)rintf(lo / scale) + zero_point;
    const double top = isinf(hi) ? qmax : (double)rintf(hi / scale) + zero_point;
    return bottom <= qmin && top >= qmax;
}

/* ONNX Runtime removes a Relu or Clip only when quantizing to the same parameters would clip at
 * least as much. Rounding of a two-sided range can miss that by one step: take a hair off. */
static void parameters(const qn_quant_plan *plan, uint32_t root, const qn_node *producer,
                       float *scale, int32_t *zero_point)
{
    const qn_tensor_plan *p = &plan->tensors[root];
    int32_t qmin, qmax;
    qn__activation_limits(plan->settings, p->clamp, &qmin, &qmax);
    float hi = p->hi;
    for (int step = 0; step < 4; step++) {
        qn__quant_params(p->lo, hi, qmin, qmax, plan->settings->symmetric, scale, zero_point);
        if (plan->settings->symmetric || producer == NULL || producer->act == QN_ACT_NONE ||
            absorbed(producer, *scale, *zero_point, qmin, qmax))
            return;
        hi -= (hi - p->lo) / 1024.0f;
    }
    qn__quant_params(p->lo, p->hi, qmin, qmax, plan->settings->symmetric, scale, zero_point);
}

void qn__activation_params(const qn_quant_plan *plan, uint32_t tensor_id, float *scale,
                           int32_t *zero_point)
{
    const uint32_t root = qn__quant_plan_root(plan, tensor_id);
    if (plan->tensors[root].fixed) {
        *scale = 1.0f / 256.0f;
        *zero_point = plan->settings->activation == QN_DTYPE_U8 ? 0 : -128;
    } else {
        parameters(plan, root, plan->graph->tensors[root]->producer, scale, zero_point);
    }
}

qn_status qn__activation_type(const qn_quant_plan *plan, uint32_t tensor_id, qn_graph *graph,
                              qn_type *out, qn_error *error)
{
    const bool is_u8 = plan->settings->activation == QN_DTYPE_U8;
    float scale;
    int32_t zero_point;
    if (plan->settings->scheme == QN_SCHEME_DYNAMIC) {
        const qn_quant dynamic = {.bits = 8, .axis = -1, .qmin = 0, .qmax = 255};
        *out = (qn_type){QN_TYPE_DYNAMIC, QN_DTYPE_U8, qn__graph_quant(graph, &dynamic)};
        return out->quant != NULL ? QN_OK : QN_NOMEM(error);
    }
    qn__activation_params(plan, tensor_id, &scale, &zero_point);
    /* The runtime's QuantizeLinear saturates at the storage's limits, -128 included. */
    const qn_quant values = {.bits = 8,
                             .is_signed = !is_u8,
                             .axis = -1,
                             .qmin = is_u8 ? 0 : -128,
                             .qmax = is_u8 ? 255 : 127,
                             .n_scales = 1,
                             .scales = &scale,
                             .zero_points = &zero_point};
    const qn_quant *quant = qn__graph_quant(graph, &values);
    if (quant == NULL)
        return QN_NOMEM(error);
    *out = qn_type_quant_make(plan->settings->activation, quant);
    return QN_OK;
}

/* --- constants ---------------------------------------------------------------------------------*/
/* Replaces input `index` of node by a constant of another type and contents: in place when nobody
 * else reads it. */
static qn_status set_constant(rewriter *r, qn_node *node, uint32_t index, qn_type type, size_t rank,
                              const int64_t *dims, qn_blob *blob)
{
    qn_tensor *old = node->inputs[index];
    if (old != NULL && old->id < r->n_tensors &&
        qn_uses_count(&r->plan->uses, r->plan->graph->tensors[old->id]) == 1) {
        old->type = type;
        qn__tensor_set_shape(old, rank, dims);
        qn__tensor_set_constant(old, blob);
        return QN_OK;
    }
    const char *name =
        old != NULL ? old->name : qn__arena_printf(&r->graph->arena, "%s_bias", node->name);
    qn_tensor *made =
        name == NULL ? NULL : qn__graph_add_constant(r->graph, name, type, rank, dims, blob);
    if (made == NULL)
        return QN_NOMEM(r->error);
    node->inputs[index] = made;
    return QN_OK;
}

/* A constant read as an activation (Add of a constant): its own range, exactly. */
static qn_status quantize_constant(rewriter *r, qn_node *node, uint32_t index)
{
    qn_tensor *t = node->inputs[index];
    size_t count;
    const float *values = qn__tensor_floats(r->graph, t, &count);
    const bool is_u8 = r->plan->settings->activation == QN_DTYPE_U8;
    int64_t dims[QN_MAX_RANK];
    float lo = 0, hi = 0, scale;
    int32_t qmin, qmax, zero_point;
    if (values == NULL || !qn__tensor_static_dims(t, dims))
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < count; i++) {
        QN_FAIL_IF(!isfinite(values[i]), r->error, QN_NONFINITE, "constant \"%s\": value %zu is %g",
                   t->name, i, (double)values[i]);
        lo = fminf(lo, values[i]);
        hi = fmaxf(hi, values[i]);
    }
    qn__activation_limits(r->plan->settings, r->plan->settings->feature_clamp, &qmin, &qmax);
    qn__quant_params(lo, hi, qmin, qmax, r->plan->settings->symmetric, &scale, &zero_point);
    const qn_quant quant = {.bits = 8,
                            .is_signed = !is_u8,
                            .axis = -1,
                            .qmin = qmin,
                            .qmax = qmax,
                            .n_scales = 1,
                            .scales = &scale,
                            .zero_points = &zero_point};
    const qn_quant *kept = qn__graph_quant(r->graph, &quant);
    void *data = NULL;
    qn_blob *blob = qn__blob_create(r->graph->ctx, count, &data);
    if (kept == NULL || blob == NULL) {
        qn__blob_unref(blob);
        return QN_NOMEM(r->error);
    }
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)data)[i] =
            (uint8_t)qn__quantize_value(values[i], scale, zero_point, qmin, qmax);
    const qn_status status =
        set_constant(r, node, index, qn_type_quant_make(r->plan->settings->activation, kept),
                     t->rank, dims, blob);
    qn__blob_unref(blob);
    return status;
}

/* --- weights and bias --------------------------------------------------------------------------*/
static qn_status check_finite(rewriter *r, const qn_node *node, const char *what,
                              const float *values, size_t count)
{
    bool finite = true;
    for (size_t i = 0; i < count; i++)
        finite &= values[i] - values[i] == 0.0f;
    for (size_t i = 0; !finite && i < count; i++)
        QN_FAIL_IF(!isfinite(values[i]), r->error, QN_NONFINITE, "%s \"%s\": %s %zu is %g",
                   qn__op_name(node->op), node->name, what, i, (double)values[i]);
    return QN_OK;
}

/* Bias per output channel with the correction added, or NULL when there is neither. */
static qn_status collect_bias(rewriter *r, const qn_node *node, size_t position, size_t channels,
                              float **out)
{
    const qn_tensor *t = node->n_inputs > 2 ? node->inputs[2] : NULL;
    const float *shift = r->shifts != NULL ? r->shifts[position] : NULL;
    size_t count = 0;
    const float *values = t == NULL ? NULL : qn__tensor_floats(r->graph, t, &count);
    *out = NULL;
    if (t == NULL && shift == NULL)
        return QN_OK;
    float *bias = qn__arena_calloc(&r->graph->arena, channels, sizeof(*bias));
    if (bias == NULL || (t != NULL && values == NULL))
        return QN_NOMEM(r->error);
    for (size_t c = 0; c < channels; c++) {
        if (values != NULL)
            bias[c] = values[count == 1 ? 0 : c];
        if (shift != NULL)
            bias[c] += shift[c];
    }
    *out = bias;
    return check_finite(r, node, "bias", bias, channels);
}

/* What the integers of a layer do to its outputs, channel by channel. */
typedef struct effect_job {
    const qn_weight_view *view;
    const float *w;
    const int8_t *q;
    const float *scales;
    size_t cin, per_group; /* input channels of a group, output channels of a group */
    const double *means;   /* of the layer's input, or NULL: no shift */
    const float *drifts;   /* of these means, or NULL */
    double *lost, *power;  /* [channels] squared, of rounding and of the weights */
    float *shift;          /* [channels] */
} effect_job;

enum { EFFECT_CHANNELS = 8 /* at a time */ };

static void measure_error(const effect_job *j, size_t c)
{
    const qn_weight_view *v = j->view;
    const double scale = (double)j->scales[c];
    double lost = 0, power = 0;
    for (size_t k = 0; k < v->k; k++) {
        const size_t i = c * v->stride_c + k * v->stride_k;
        const double e = (double)j->w[i] - (double)j->q[i] * scale;
        lost += e * e;
        power += (double)j->w[i] * (double)j->w[i];
    }
    j->lost[c] = lost;
    j->power[c] = power;
}

/* Rounding weights moves a channel's mean output by sum((w - w_q) * mean of its input), rounding
 * what it reads by sum(w_q * drift of that mean): what is added to the bias (Nagel et al.,
 * Data-Free Quantization, 2019, section 4.2). Borders are taken as if the input went on. */
static void measure_shift(const effect_job *j, size_t c)
{
    const qn_weight_view *v = j->view;
    const size_t at = c / j->per_group * j->cin;
    const double scale = (double)j->scales[c];
    double sum = 0;
    size_t i = c * v->stride_c;
    for (size_t input = 0; input < j->cin; input++) {
        double lost = 0, kept = 0;
        for (size_t p = 0; p < v->positions; p++, i += v->stride_k) {
            lost += (double)j->w[i] - (double)j->q[i] * scale;
            kept += (double)j->q[i] * scale;
        }
        sum += lost * j->means[at + input];
        if (j->drifts != NULL)
            sum += kept * (double)j->drifts[at + input];
    }
    j->shift[c] = (float)sum;
}

static void measure_channels(void *arg, size_t index)
{
    const effect_job *j = arg;
    const size_t begin = index * EFFECT_CHANNELS, left = j->view->channels - begin;
    const size_t end = begin + (left < EFFECT_CHANNELS ? left : EFFECT_CHANNELS);
    for (size_t c = begin; c < end; c++) {
        measure_error(j, c);
        if (j->means != NULL)
            measure_shift(j, c);
    }
}

/* What rounding cost, over what there was; and the correction of the bias, if there is to be one.
 */
static qn_status measure_effect(rewriter *r, const qn_node *node, size_t position,
                                const qn_weight_view *view, const float *w, const int8_t *q,
                                const float *scales)
{
    const uint32_t id = r->plan->graph->nodes[position]->inputs[0]->id;
    const size_t group = node->op == QN_OP_CONV ? (size_t)qn__attr_int(node, "group", 1) : 1;
    const bool correct = r->means->means != NULL && node->op != QN_OP_MATMUL && r->shifts != NULL &&
                         r->shifts[position] == NULL;
    effect_job j = {.view = view,
                    .w = w,
                    .q = q,
                    .scales = scales,
                    .cin = view->k / view->positions,
                    .per_group = view->channels / group,
                    .means = correct ? r->means->means[id] : NULL,
                    .drifts = r->means->drifts == NULL ? NULL : r->means->drifts[id],
                    .lost = qn__calloc(r->graph->ctx, view->channels, 2 * sizeof(double))};
    if (j.means != NULL)
        j.shift = qn__arena_calloc(&r->plan->arena, view->channels, sizeof(*j.shift));
    if (j.lost == NULL || (j.means != NULL && j.shift == NULL)) {
        qn__free(r->graph->ctx, j.lost);
        return QN_NOMEM(r->error);
    }
    j.power = j.lost + view->channels;
    qn__parallel(r->graph->ctx->pool, measure_channels, &j,
                 (view->channels + EFFECT_CHANNELS - 1) / EFFECT_CHANNELS);
    double lost = 0, power = 0;
    for (size_t c = 0; c < view->channels; c++) {
        lost += j.lost[c];
        power += j.power[c];
    }
    r->plan->nodes[position].weights.error = power > 0 ? lost / power : 0;
    if (j.means != NULL)
        r->shifts[position] = j.shift;
    qn__free(r->graph->ctx, j.lost);
    return QN_OK;
}

static bool ensure_bias_input(rewriter *r, qn_node *node)
{
    if (node->n_inputs > 2)
        return true;
    qn_tensor **inputs = qn__arena_calloc(&r->graph->arena, 3, sizeof(*inputs));
    if (inputs == NULL)
        return false;
    inputs[0] = node->inputs[0];
    inputs[1] = node->inputs[1];
    node->inputs = inputs;
    node->n_inputs = 3;
    return true;
}

/* int32 with scale s_x * s_w[c], computed in float32 as the runtime does before it compares. */
static qn_status quantize_bias(rewriter *r, qn_node *node, const float *bias, float x_scale,
                               const float *w_scales, size_t channels, bool per_channel)
{
    const size_t n_scales = per_channel ? channels : 1;
    float *scales = qn__arena_calloc(&r->graph->arena, n_scales, sizeof(*scales));
    void *data = NULL;
    qn_blob *blob = qn__blob_create(r->graph->ctx, channels * sizeof(int32_t), &data);
    if (scales == NULL || blob == NULL) {
        qn__blob_unref(blob);
        return QN_NOMEM(r->error);
    }
    for (size_t c = 0; c < channels; c++) {
        const float scale = x_scale * w_scales[c];
        const double q = rint((double)bias[c] / (double)scale);
        const double limit = INT32_MAX;
        scales[per_channel ? c : 0] = scale;
        ((int32_t *)data)[c] = (int32_t)(q > limit ? limit : q < -limit ? -limit : q);
    }
    const qn_quant quant = {.bits = 32,
                            .is_signed = true,
                            .axis = (int8_t)(per_channel ? 0 : -1),
                            .qmin = -INT32_MAX,
                            .qmax = INT32_MAX,
                            .n_scales = n_scales,
                            .scales = scales};
    const qn_quant *kept = qn__graph_quant(r->graph, &quant);
    const int64_t dims[1] = {(int64_t)channels};
    const qn_status status =
        kept == NULL
            ? QN_NOMEM(r->error)
            : set_constant(r, node, 2, qn_type_quant_make(QN_DTYPE_I32, kept), 1, dims, blob);
    qn__blob_unref(blob);
    return status;
}

static qn_status float_bias(rewriter *r, qn_node *node, const float *bias, size_t channels)
{
    const int64_t dims[1] = {(int64_t)channels};
    qn_blob *blob = qn__blob_copy(r->graph->ctx, bias, channels * sizeof(*bias));
    if (blob == NULL)
        return QN_NOMEM(r->error);
    const qn_status status =
        set_constant(r, node, 2, qn_type_plain_make(QN_DTYPE_F32), 1, dims, blob);
    qn__blob_unref(blob);
    return status;
}

static qn_status set_weights(rewriter *r, qn_node *node, const qn_weight_view *view,
                             const qn_weights_plan *w, const float *scales, qn_blob *blob)
{
    const qn_quant quant = {.bits = (uint8_t)qn__levels_storage_bits(&w->levels),
                            .is_signed = true,
                            .axis = (int8_t)(w->per_channel ? w->axis : -1),
                            .qmin = -w->levels.qmax,
                            .qmax = w->levels.qmax,
                            .n_scales = w->per_channel ? view->channels : 1,
                            .scales = scales};
    const qn_quant *kept = qn__graph_quant(r->graph, &quant);
    int64_t dims[QN_MAX_RANK];
    if (kept == NULL || !qn__tensor_static_dims(node->inputs[1], dims))
        return QN_NOMEM(r->error);
    return set_constant(r, node, 1, qn_type_quant_make(QN_DTYPE_I8, kept), node->inputs[1]->rank,
                        dims, blob);
}

/* Scale below which the bias, or the bias's own scale, would not fit. */
static float *bias_bounds(rewriter *r, const float *bias, float x_scale, size_t channels)
{
    float *bounds = qn__arena_calloc(&r->graph->arena, channels, sizeof(*bounds));
    for (size_t c = 0; bounds != NULL && c < channels; c++) {
        const double for_bias =
            bias == NULL ? 0 : fabs((double)bias[c]) / ((double)x_scale * BIAS_LIMIT);
        bounds[c] = (float)fmax(for_bias * (1 + 1e-6), 2.0 * FLT_MIN / (double)x_scale);
    }
    return bounds;
}

/* Rows hold a layer's weights in the order [kh][kw][cin], constants in [cin][kh][kw]. Copies one
 * channel from the constant's order into the rows'. */
#define DEFINE_REORDER(name, type, to, from)                                                       \
    static void name(const qn_weight_view *v, size_t c, type *to##_values,                         \
                     const type *from##_values)                                                    \
    {                                                                                              \
        const size_t cin = v->k / v->positions;                                                    \
        if (v->positions == 1 && v->stride_k == 1) {                                               \
            const size_t row = 0, constant = c * v->stride_c;                                      \
            memcpy(to##_values + to, from##_values + from, v->k * sizeof(type));                   \
            return;                                                                                \
        }                                                                                          \
        for (size_t input = 0; input < cin; input++)                                               \
            for (size_t p = 0; p < v->positions; p++) {                                            \
                const size_t row = p * cin + input;                                                \
                const size_t constant =                                                            \
                    c * v->stride_c + (input * v->positions + p) * v->stride_k;                    \
                to##_values[to] = from##_values[from];                                             \
            }                                                                                      \
    }
DEFINE_REORDER(row_of_constant, float, row, constant)
DEFINE_REORDER(constant_of_row, int8_t, constant, row)
#undef DEFINE_REORDER

typedef struct group_job {
    const qn_context *ctx;
    const qn_weight_view *view;
    const qn_rows *rows;
    const qn_weights_plan *plan;
    const float *w, *min_scales;
    float *scales;
    double slack;
    bool center, prove_pairs;
    float *sorted;    /* [channels][k] */
    int8_t *integers; /* [channels][k] */
    _Atomic bool failed;
} group_job;

/* How much more squared error max_abs's steps make in the layer than those given. */
static double slack(const group_job *job)
{
    const qn_weight_view *v = job->view;
    const qn_levels *levels = &job->plan->levels;
    double theirs = 0, ours = 0;
    float max = 0;
    for (size_t c = 0; !job->plan->per_channel && c < v->channels; c++)
        max = fmaxf(max, qn__max_abs(job->sorted + c * v->k, v->k));
    for (size_t c = 0; c < v->channels; c++) {
        const float *w = job->sorted + c * v->k;
        const float largest = job->plan->per_channel ? qn__max_abs(w, v->k) : max;
        ours += qn__levels_error(levels, w, v->k, job->scales[c]);
        theirs +=
            largest > 0 ? qn__levels_error(levels, w, v->k, largest / (float)levels->qmax) : 0;
    }
    return ours > 0 && theirs > ours ? theirs / ours : 1;
}

static void compensate_group(void *arg, size_t g)
{
    group_job *job = arg;
    const qn_weight_view *v = job->view;
    const size_t channels = v->channels / job->rows->groups, first = g * channels;
    const qn_gptq_problem problem = {.channels = channels,
                                     .k = v->k,
                                     .w = job->sorted + first * v->k,
                                     .scales = job->scales + first,
                                     .n_rows = job->rows->n_rows,
                                     .row_stride = job->rows->groups * v->k,
                                     .rows = job->rows->data + g * v->k,
                                     .pool = job->rows->groups == 1 ? job->ctx->pool : NULL,
                                     .center = job->center,
                                     .levels = job->plan->levels,
                                     .min_scales = job->min_scales + first,
                                     .slack = job->slack,
                                     .shared_scale = !job->plan->per_channel,
                                     .pairs = v->pairs && job->prove_pairs};
    if (job->plan->method->round(job->ctx, &problem, job->scales + first,
                                 job->integers + first * v->k, NULL) != QN_OK)
        job->failed = true;
}

/* Replaces q, rounded to nearest, by the integers of a method that looks at the inputs, and the
 * scales where it changes them. */
static qn_status compensate(rewriter *r, const qn_node *node, size_t position,
                            const qn_weight_view *view, const float *w, const float *min_scales,
                            float *scales, int8_t *q)
{
    const qn_context *ctx = r->graph->ctx;
    qn_node_plan *p = &r->plan->nodes[position];
    const size_t count = view->channels * view->k;
    if (p->integers != NULL) {
        memcpy(q, p->integers, count);
        for (size_t c = 0; p->scales != NULL && c < view->channels; c++)
            scales[c] = p->scales[c];
        return QN_OK;
    }
    if (p->rows == NULL || p->rows->data == NULL || p->rows->k != view->k)
        return QN_OK;
    const size_t scale_bytes = view->channels * sizeof(*scales);
    group_job job = {.ctx = ctx,
                     .view = view,
                     .rows = p->rows,
                     .w = w,
                     .scales = qn__arena_alloc(&r->plan->arena, scale_bytes),
                     .min_scales = min_scales,
                     .plan = &p->weights,
                     .center = r->shifts != NULL && node->op != QN_OP_MATMUL,
                     .prove_pairs = r->plan->settings->x86_pairs,
                     .sorted = qn__reallocarray(ctx, NULL, count, sizeof(float)),
                     .integers = qn__alloc(ctx, count)};
    job.failed = job.sorted == NULL || job.integers == NULL || job.scales == NULL;
    if (!job.failed) {
        memcpy(job.scales, scales, scale_bytes);
        for (size_t c = 0; c < view->channels; c++)
            row_of_constant(view, c, job.sorted + c * view->k, w);
        job.slack = p->weights.method->wants_slack ? slack(&job) : 1;
    }
    /* one group uses the threads inside, several are spread over them */
    if (!job.failed && p->rows->groups == 1)
        compensate_group(&job, 0);
    else if (!job.failed)
        qn__parallel(ctx->pool, compensate_group, &job, p->rows->groups);
    for (size_t c = 0; !job.failed && c < view->channels; c++)
        constant_of_row(view, c, q, job.integers + c * view->k);
    if (!job.failed) {
        p->integers = q;
        p->scales = memcmp(job.scales, scales, scale_bytes) != 0 ? job.scales : NULL;
        memcpy(scales, job.scales, scale_bytes);
    }
    qn__free(ctx, job.sorted);
    qn__free(ctx, job.integers);
    return job.failed ? QN_NOMEM(r->error) : QN_OK;
}

/* Weights alone, in blocks. */
static qn_status quantize_blocks_of(rewriter *r, qn_node *node, size_t position)
{
    size_t count;
    int64_t dims[QN_MAX_RANK];
    qn_type type;
    qn_blob *blob = NULL;
    float *own = NULL;
    qn_status status = QN_OK;
    const float *values = qn__tensor_floats_lent(r->graph->ctx, node->inputs[1], &count, &own);
    if (values == NULL || !qn__tensor_static_dims(node->inputs[1], dims))
        QN_FAIL_GOTO(r->error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(check_finite(r, node, "weight", values, count));
    QN_TRY_GOTO(qn__quantize_blocks(r->graph, node, r->plan->settings, values,
                                    &r->plan->nodes[position].weights, &type, &blob, r->error));
    status = set_constant(r, node, 1, type, node->inputs[1]->rank, dims, blob);
done:
    qn__free(r->graph->ctx, own);
    qn__blob_unref(blob);
    return status;
}

static qn_status quantize_weights_of(rewriter *r, qn_node *node, size_t position)
{
    const qn_settings *settings = r->plan->settings;
    qn_weights_plan *w = &r->plan->nodes[position].weights;
    qn_weight_view view;
    size_t count;
    qn_status status = QN_OK;
    QN_FAIL_IF(!qn__weight_view(node, &view), r->error, QN_INTERNAL, "%s \"%s\": weights changed",
               qn__op_name(node->op), node->name);
    w->axis = node->op == QN_OP_MATMUL ||
              (node->op == QN_OP_GEMM && qn__attr_int(node, "transB", 0) == 0);
    const qn_quant *x = node->inputs[0]->type.quant;
    float *own = NULL, *bias = NULL;
    qn_blob *blob = NULL;
    const float *values = qn__tensor_floats_lent(r->graph->ctx, node->inputs[1], &count, &own);
    if (values == NULL || x == NULL)
        QN_FAIL_GOTO(r->error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(check_finite(r, node, "weight", values, count));
    const bool dynamic = settings->scheme == QN_SCHEME_DYNAMIC; /* its bias stays as it is */
    if (!dynamic)
        QN_TRY_GOTO(collect_bias(r, node, position, view.channels, &bias));
    float *bounds = bias_bounds(r, bias, dynamic ? 1.0f : x->scales[0], view.channels);
    float *scales = qn__arena_calloc(&r->graph->arena, view.channels, sizeof(*scales));
    void *data = NULL;
    blob = qn__blob_create(r->graph->ctx, count, &data);
    if (bounds == NULL || scales == NULL || blob == NULL)
        QN_FAIL_GOTO(r->error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(qn__quantize_weights(r->graph->ctx, &view, values, bounds, settings->x86_pairs, w,
                                     scales, data, r->error));
    QN_TRY_GOTO(compensate(r, node, position, &view, values, bounds, scales, data));
    QN_TRY_GOTO(measure_effect(r, node, position, &view, values, data, scales));
    if (!dynamic)
        QN_TRY_GOTO(collect_bias(r, node, position, view.channels, &bias));
    QN_TRY_GOTO(set_weights(r, node, &view, w, scales, blob));
    if (bias != NULL && !ensure_bias_input(r, node))
        QN_FAIL_GOTO(r->error, QN_NO_MEMORY, "out of memory");
    if (bias != NULL && settings->target->float_bias)
        QN_TRY_GOTO(float_bias(r, node, bias, view.channels));
    else if (bias != NULL)
        QN_TRY_GOTO(
            quantize_bias(r, node, bias, x->scales[0], scales, view.channels, w->per_channel));
done:
    qn__free(r->graph->ctx, own);
    qn__blob_unref(blob);
    return status;
}

/* --- activations -------------------------------------------------------------------------------*/
static void copy_shape(qn_tensor *to, const qn_tensor *from)
{
    to->has_shape = from->has_shape;
    to->rank = from->rank;
    memcpy(to->dims, from->dims, sizeof(to->dims));
}

static qn_tensor *add_twin(rewriter *r, const qn_tensor *of, const char *suffix, qn_type type)
{
    const char *name = qn__arena_printf(&r->graph->arena, "%s_%s", of->name, suffix);
    qn_tensor *twin = name == NULL ? NULL : qn__graph_add_tensor(r->graph, name, type);
    if (twin != NULL)
        copy_shape(twin, of);
    return twin;
}

static bool add_cast(rewriter *r, qn_op op, const char *suffix, qn_tensor *from, qn_tensor *to,
                     const qn_tensor *named_for)
{
    const char *name = qn__arena_printf(&r->graph->arena, "%s_%s", named_for->name, suffix);
    qn_node *node = name == NULL ? NULL : qn__graph_add_node(r->graph, SIZE_MAX, op, name, 1, 1);
    if (node == NULL)
        return false;
    node->inputs[0] = from;
    qn__node_set_output(node, 0, to);
    return true;
}

/* Makes the twins of one tensor. Integer tensors keep their name unless they are graph outputs,
 * whose name stays with the float values. */
static qn_status convert_tensor(rewriter *r, uint32_t id, bool has_float_reader)
{
    const qn_tensor_plan *p = &r->plan->tensors[id];
    qn_tensor *t = r->graph->tensors[id];
    qn_type type;
    if (!p->wanted)
        return QN_OK;
    QN_TRY(qn__activation_type(r->plan, id, r->graph, &type, r->error));
    if (!p->integer || r->plan->uses.is_output[id]) {
        qn_tensor *twin = add_twin(r, t, "quantized", type);
        if (twin == NULL)
            return QN_NOMEM(r->error);
        r->quantized[id] = twin;
        if (p->integer) {
            qn_node *producer = t->producer;
            qn__node_set_output(producer, t->producer_output, twin);
            if (!add_cast(r, QN_OP_DEQUANTIZE_LINEAR, "DequantizeLinear", twin, t, t))
                return QN_NOMEM(r->error);
            r->dequantized[id] = t;
        } else if (!add_cast(r, QN_OP_QUANTIZE_LINEAR, "QuantizeLinear", t, twin, t)) {
            return QN_NOMEM(r->error);
        }
        return QN_OK;
    }
    t->type = type;
    r->quantized[id] = t;
    if (has_float_reader) {
        qn_tensor *twin = add_twin(r, t, "dequantized", qn_type_plain_make(QN_DTYPE_F32));
        if (twin == NULL || !add_cast(r, QN_OP_DEQUANTIZE_LINEAR, "DequantizeLinear", t, twin, t))
            return QN_NOMEM(r->error);
        r->dequantized[id] = twin;
    }
    return QN_OK;
}

static bool has_float_reader(const qn_quant_plan *plan, const size_t *position_of, uint32_t id)
{
    for (size_t u = plan->uses.offsets[id]; u < plan->uses.offsets[id + 1]; u++) {
        const qn_node *user = plan->uses.users[u];
        if (!plan->nodes[position_of[user->id]].quantized)
            return true;
        for (uint32_t k = 0; k < user->n_inputs; k++)
            if (user->inputs[k] != NULL && user->inputs[k]->id == id &&
                !qn__is_activation_input(user, k))
                return true;
    }
    return false;
}

static qn_status connect(rewriter *r, qn_node *node, bool quantized)
{
    for (uint32_t k = 0; k < node->n_inputs; k++) {
        const qn_tensor *t = node->inputs[k];
        if (t == NULL || t->id >= r->n_tensors)
            continue;
        const bool wants_integer = quantized && qn__is_activation_input(node, k);
        if (wants_integer && t->constant != NULL)
            QN_TRY(quantize_constant(r, node, k));
        else if (wants_integer && r->quantized[t->id] != NULL)
            node->inputs[k] = r->quantized[t->id];
        else if (!wants_integer && r->plan->tensors[t->id].integer)
            node->inputs[k] = r->dequantized[t->id];
    }
    return QN_OK;
}

static qn_status rewrite(rewriter *r, const size_t *position_of)
{
    const qn_graph *g = r->plan->graph;
    for (uint32_t id = 0; id < r->n_tensors; id++)
        QN_TRY(convert_tensor(r, id, has_float_reader(r->plan, position_of, id)));
    for (size_t n = 0; n < g->n_nodes; n++)
        QN_TRY(connect(r, r->graph->nodes[n], r->plan->nodes[n].quantized));
    for (size_t n = 0; n < g->n_nodes; n++)
        if (r->plan->nodes[n].quantized && r->plan->nodes[n].rule == QN_RULE_WEIGHTS)
            QN_TRY(r->plan->settings->scheme == QN_SCHEME_WEIGHTS
                       ? quantize_blocks_of(r, r->graph->nodes[n], n)
                       : quantize_weights_of(r, r->graph->nodes[n], n));
    QN_TRY(qn__graph_sort(r->graph, r->error));
    return qn__graph_verify(r->graph, r->error);
}

static size_t *positions_by_id(const qn_graph *g)
{
    size_t *position_of = qn__calloc(g->ctx, g->next_node_id, sizeof(*position_of));
    for (size_t n = 0; position_of != NULL && n < g->n_nodes; n++)
        position_of[g->nodes[n]->id] = n;
    return position_of;
}

qn_status qn__quant_rewrite(qn_quant_plan *plan, const qn_mean_shifts *means, float **shifts,
                            qn_graph **out, qn_error *error)
{
    const qn_graph *g = plan->graph;
    qn_status status = QN_OK;
    rewriter r = {
        .plan = plan, .n_tensors = g->n_tensors, .means = means, .shifts = shifts, .error = error};
    size_t *position_of = positions_by_id(g);
    r.quantized = qn__calloc(g->ctx, g->n_tensors, sizeof(*r.quantized));
    r.dequantized = qn__calloc(g->ctx, g->n_tensors, sizeof(*r.dequantized));
    if (position_of == NULL || r.quantized == NULL || r.dequantized == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(qn__graph_clone(g, &r.graph, error));
    QN_TRY_GOTO(rewrite(&r, position_of));
    QN_TRY_GOTO(qn__arena_check(&r.graph->arena, error));
    QN_TRY_GOTO(qn__arena_check(&plan->arena, error)); /* a note that could not be kept */
    *out = r.graph;
    r.graph = NULL;
done:
    qn__graph_destroy(r.graph);
    qn__free(g->ctx, r.quantized);
    qn__free(g->ctx, r.dequantized);
    qn__free(g->ctx, position_of);
    return status;
}

/* --- fake-quantized weights --------------------------------------------------------------------*/
static qn_status fake_weights_of(rewriter *r, qn_node *node, size_t position)
{
    qn_weight_view view;
    size_t count;
    qn_status status = QN_OK;
    qn_weights_plan w = r->plan->nodes[position].weights;
    const float *values = qn__tensor_floats(r->graph, node->inputs[1], &count);
    if (values == NULL || !qn__weight_view(node, &view))
        return QN_NOMEM(r->error);
    QN_TRY(check_finite(r, node, "weight", values, count));
    float *scales = qn__arena_calloc(&r->graph->arena, view.channels, sizeof(*scales));
    int8_t *q = qn__alloc(r->graph->ctx, count);
    void *data = NULL;
    qn_blob *blob = qn__blob_create(r->graph->ctx, count * sizeof(float), &data);
    int64_t dims[QN_MAX_RANK];
    if (scales == NULL || q == NULL || blob == NULL ||
        !qn__tensor_static_dims(node->inputs[1], dims))
        QN_FAIL_GOTO(r->error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(qn__quantize_weights(r->graph->ctx, &view, values, NULL,
                                     r->plan->settings->x86_pairs, &w, scales, q, r->error));
    for (size_t c = 0; c < view.channels; c++)
        for (size_t k = 0; k < view.k; k++) {
            const size_t i = c * view.stride_c + k * view.stride_k;
            ((float *)data)[i] = (float)q[i] * scales[c];
        }
    QN_TRY_GOTO(set_constant(r, node, 1, qn_type_plain_make(QN_DTYPE_F32), node->inputs[1]->rank,
                             dims, blob));
done:
    qn__free(r->graph->ctx, q);
    qn__blob_unref(blob);
    return status;
}

qn_status qn__quant_fake_weights(qn_quant_plan *plan, qn_graph **out, qn_error *error)
{
    rewriter r = {.plan = plan, .n_tensors = plan->graph->n_tensors, .error = error};
    qn_status status = QN_OK;
    QN_TRY(qn__graph_clone(plan->graph, &r.graph, error));
    for (size_t n = 0; n < plan->graph->n_nodes; n++)
        if (plan->nodes[n].quantized && plan->nodes[n].rule == QN_RULE_WEIGHTS)
            QN_TRY_GOTO(fake_weights_of(&r, r.graph->nodes[n], n));
    *out = r.graph;
    r.graph = NULL;
done:
    qn__graph_destroy(r.graph);
    return status;
}
