/* From the float graph and the plan's ranges to a graph with quantized types. Activations of
 * quantized nodes become quantized tensors under their own names; a Quantize node stands where an
 * integer node reads a float tensor and a Dequantize node where a float node or a graph output
 * reads an integer one. */
#include "quant/rewrite.h"

#include <math.h>

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
        *out = qn__graph_dynamic_type(graph, plan->settings->dynamic_rows);
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
qn_status qn__rewrite_constant(qn_rewriter *r, qn_node *node, uint32_t index, qn_type type,
                               size_t rank, const int64_t *dims, qn_blob *blob)
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
static qn_status quantize_constant(qn_rewriter *r, qn_node *node, uint32_t index)
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
    const qn_status status = qn__rewrite_constant(
        r, node, index, qn_type_quant_make(r->plan->settings->activation, kept), t->rank, dims,
        blob);
    qn__blob_unref(blob);
    return status;
}

/* --- activations -------------------------------------------------------------------------------*/
static bool add_cast(qn_rewriter *r, qn_op op, qn_tensor *from, qn_tensor *to,
                     const qn_tensor *named_for)
{
    return qn__graph_add_between(r->graph, SIZE_MAX, op, from, to, named_for) != NULL;
}

/* Makes the twins of one tensor. Integer tensors keep their name unless they are graph outputs,
 * whose name stays with the float values. */
static qn_status convert_tensor(qn_rewriter *r, uint32_t id, bool has_float_reader)
{
    const qn_tensor_plan *p = &r->plan->tensors[id];
    qn_tensor *t = r->graph->tensors[id];
    qn_type type;
    if (!p->wanted)
        return QN_OK;
    QN_TRY(qn__activation_type(r->plan, id, r->graph, &type, r->error));
    if (!p->integer || r->plan->uses.is_output[id]) {
        qn_tensor *twin = qn__graph_add_twin(r->graph, t, "quantized", type);
        if (twin == NULL)
            return QN_NOMEM(r->error);
        r->quantized[id] = twin;
        if (p->integer) {
            qn_node *producer = t->producer;
            qn__node_set_output(producer, t->producer_output, twin);
            if (!add_cast(r, QN_OP_DEQUANTIZE_LINEAR, twin, t, t))
                return QN_NOMEM(r->error);
            r->dequantized[id] = t;
        } else if (!add_cast(r, QN_OP_QUANTIZE_LINEAR, t, twin, t)) {
            return QN_NOMEM(r->error);
        }
        return QN_OK;
    }
    t->type = type;
    r->quantized[id] = t;
    if (has_float_reader) {
        qn_tensor *twin =
            qn__graph_add_twin(r->graph, t, "dequantized", qn_type_plain_make(QN_DTYPE_F32));
        if (twin == NULL || !add_cast(r, QN_OP_DEQUANTIZE_LINEAR, t, twin, t))
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

static qn_status connect(qn_rewriter *r, qn_node *node, bool quantized)
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

static qn_status rewrite(qn_rewriter *r, const size_t *position_of)
{
    const qn_graph *g = r->plan->graph;
    for (uint32_t id = 0; id < r->n_tensors; id++)
        QN_TRY(convert_tensor(r, id, has_float_reader(r->plan, position_of, id)));
    for (size_t n = 0; n < g->n_nodes; n++)
        QN_TRY(connect(r, r->graph->nodes[n], r->plan->nodes[n].quantized));
    for (size_t n = 0; n < g->n_nodes; n++)
        if (r->plan->nodes[n].quantized && r->plan->nodes[n].rule == QN_RULE_WEIGHTS)
            QN_TRY(r->plan->settings->scheme == QN_SCHEME_WEIGHTS
                       ? qn__rewrite_blocks(r, r->graph->nodes[n], n)
                       : qn__rewrite_weights(r, r->graph->nodes[n], n));
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
    qn_rewriter r = {
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
