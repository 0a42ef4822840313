/* Weights and biases of quantized nodes, and what their integers do to outputs. */
#include "core/threads.h"
#include "quant/gptq.h"
#include "quant/rewrite.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Biases are kept within half of int32, so that adding the sum of products cannot overflow. */
#define BIAS_LIMIT 1073741824.0 /* 2^30 */

static qn_status check_finite(qn_rewriter *r, const qn_node *node, const char *what,
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
static qn_status collect_bias(qn_rewriter *r, const qn_node *node, size_t position, size_t channels,
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
static qn_status measure_effect(qn_rewriter *r, const qn_node *node, size_t position,
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

static bool ensure_bias_input(qn_rewriter *r, qn_node *node)
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
static qn_status quantize_bias(qn_rewriter *r, qn_node *node, const float *bias, float x_scale,
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
        kept == NULL ? QN_NOMEM(r->error)
                     : qn__rewrite_constant(r, node, 2, qn_type_quant_make(QN_DTYPE_I32, kept), 1,
                                            dims, blob);
    qn__blob_unref(blob);
    return status;
}

static qn_status float_bias(qn_rewriter *r, qn_node *node, const float *bias, size_t channels)
{
    const int64_t dims[1] = {(int64_t)channels};
    qn_blob *blob = qn__blob_copy(r->graph->ctx, bias, channels * sizeof(*bias));
    if (blob == NULL)
        return QN_NOMEM(r->error);
    const qn_status status =
        qn__rewrite_constant(r, node, 2, qn_type_plain_make(QN_DTYPE_F32), 1, dims, blob);
    qn__blob_unref(blob);
    return status;
}

static qn_status set_weights(qn_rewriter *r, qn_node *node, const qn_weight_view *view,
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
    return qn__rewrite_constant(r, node, 1, qn_type_quant_make(QN_DTYPE_I8, kept),
                                node->inputs[1]->rank, dims, blob);
}

/* Scale below which the bias, or the bias's own scale, would not fit. */
static float *bias_bounds(qn_rewriter *r, const float *bias, float x_scale, size_t channels)
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
static qn_status compensate(qn_rewriter *r, const qn_node *node, size_t position,
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

qn_status qn__rewrite_blocks(qn_rewriter *r, qn_node *node, size_t position)
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
    status = qn__rewrite_constant(r, node, 1, type, node->inputs[1]->rank, dims, blob);
done:
    qn__free(r->graph->ctx, own);
    qn__blob_unref(blob);
    return status;
}

qn_status qn__rewrite_weights(qn_rewriter *r, qn_node *node, size_t position)
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

/* --- fake-quantized weights --------------------------------------------------------------------*/
static qn_status fake_weights_of(qn_rewriter *r, qn_node *node, size_t position)
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
    QN_TRY_GOTO(qn__rewrite_constant(r, node, 1, qn_type_plain_make(QN_DTYPE_F32),
                                     node->inputs[1]->rank, dims, blob));
done:
    qn__free(r->graph->ctx, q);
    qn__blob_unref(blob);
    return status;
}

qn_status qn__quant_fake_weights(qn_quant_plan *plan, qn_graph **out, qn_error *error)
{
    qn_rewriter r = {.plan = plan, .n_tensors = plan->graph->n_tensors, .error = error};
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
