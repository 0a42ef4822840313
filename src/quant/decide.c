/* What becomes integer, and whose parameters are whose. Nothing here looks at values except the
 * ranges handed to qn__quant_plan_ranges. */
#include "core/number.h"
#include "quant/quant.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define UNLIKE_RATIO 4.0f /* Concat inputs whose ranges differ more are kept apart */

void qn__activation_limits(const qn_settings *settings, uint32_t clamp, int32_t *qmin,
                           int32_t *qmax)
{
    if (settings->activation == QN_DTYPE_U8) {
        *qmin = 0;
        *qmax = 255;
    } else {
        *qmin = settings->symmetric ? -127 : -128;
        *qmax = 127;
    }
    if (clamp != 0) {
        *qmin = -(int32_t)clamp;
        *qmax = (int32_t)clamp;
    }
}

bool qn__is_activation_input(const qn_node *node, uint32_t index)
{
    switch (node->op) {
    case QN_OP_ADD:
    case QN_OP_MUL:
    case QN_OP_CONCAT:
        return true;
    default:
        return index == 0;
    }
}

bool qn__quant_plan_note(qn_quant_plan *plan, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    const char *copy = qn__arena_strdup(&plan->arena, line);
    if (copy == NULL ||
        !QN_GROW(plan->graph->ctx, &plan->notes, &plan->notes_capacity, plan->n_notes))
        return false;
    plan->notes[plan->n_notes++] = copy;
    return true;
}

static bool is_float(const qn_tensor *t)
{
    return t->type.kind == QN_TYPE_PLAIN && t->type.dtype == QN_DTYPE_F32;
}

/* Numbers that are integers already stay what they are. */
const char qn__reason_integers[] = "it is in integers already, which stay";

/* --- can this node run in integers, its inputs being what they are? ----------------------------*/
static const char *check_gemm(const qn_node *node)
{
    if (qn__attr_float(node, "alpha", 1.0f) != 1.0f || qn__attr_float(node, "beta", 1.0f) != 1.0f ||
        qn__attr_int(node, "transA", 0) != 0)
        return "alpha, beta or transA are not the plain ones";
    return NULL;
}

static const char *check_weights_node(const qn_node *node)
{
    qn_weight_view view;
    if (node->n_inputs < 2 || node->inputs[0] == NULL || node->inputs[1] == NULL)
        return "an input is missing";
    if (node->inputs[0]->constant != NULL)
        return "its first input is constant";
    if (node->inputs[1]->constant == NULL)
        return "its weights are computed, not constant";
    if (node->inputs[0]->type.kind == QN_TYPE_QUANT)
        return qn__reason_integers;
    if (!is_float(node->inputs[0]) || !is_float(node->inputs[1]))
        return "it is not float32";
    if (node->op == QN_OP_GEMM && check_gemm(node) != NULL)
        return check_gemm(node);
    if (!qn__weight_view(node, &view))
        return "its weights are not a plain matrix";
    if (node->n_inputs > 2 && node->inputs[2] != NULL) {
        size_t count;
        const qn_tensor *bias = node->inputs[2];
        if (bias->constant == NULL || !is_float(bias))
            return "its bias is computed, not constant";
        if (!qn__tensor_count(bias, &count) || (count != view.channels && count != 1))
            return "its bias is not one value per output channel";
    }
    return NULL;
}

static const char *check_op(const qn_node *node)
{
    if (node->op == QN_OP_MAX_POOL && node->n_outputs > 1 && node->outputs[1] != NULL)
        return "its indices are used";
    if (node->op == QN_OP_RESIZE &&
        strcmp(qn__attr_string(node, "mode", "nearest"), "nearest") != 0)
        return "only nearest Resize passes integers through";
    return NULL;
}

/* Reason to stay float, or NULL. */
static const char *check_inputs(const qn_quant_plan *plan, const qn_node *node, qn_rule rule)
{
    bool any_integer = false;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_tensor *t = node->inputs[i];
        if (t == NULL || !qn__is_activation_input(node, i))
            continue;
        if (t->type.kind == QN_TYPE_QUANT)
            return qn__reason_integers;
        if (!is_float(t))
            return "it is not float32";
        any_integer |= plan->tensors[t->id].integer;
    }
    if (!any_integer)
        return rule == QN_RULE_SAME ? "what it moves is float" : "none of its inputs is an integer";
    return NULL;
}

/* Nodes that feed nothing but outputs (softmax of the scores, boxes being put together): in float
 * they keep what the last integer layer computed, at next to no cost. */
static void mark_tail(qn_quant_plan *plan)
{
    const qn_graph *g = plan->graph;
    bool *tail_tensor = qn__arena_calloc(&plan->arena, g->n_tensors, sizeof(*tail_tensor));
    if (tail_tensor == NULL)
        return;
    for (size_t t = 0; t < g->n_tensors; t++)
        tail_tensor[t] = true;
    for (size_t n = g->n_nodes; n-- > 0;) {
        const qn_node *node = g->nodes[n];
        bool tail = plan->nodes[n].rule != QN_RULE_WEIGHTS;
        for (uint32_t k = 0; k < node->n_outputs; k++)
            tail &= node->outputs[k] == NULL || tail_tensor[node->outputs[k]->id];
        plan->nodes[n].tail = tail;
        for (uint32_t k = 0; !tail && k < node->n_inputs; k++)
            if (node->inputs[k] != NULL)
                tail_tensor[node->inputs[k]->id] = false;
    }
}

static void decide_node(qn_quant_plan *plan, size_t n)
{
    const qn_node *node = plan->graph->nodes[n];
    qn_node_plan *p = &plan->nodes[n];
    if (p->reason == NULL)
        p->reason = p->rule == QN_RULE_WEIGHTS ? check_weights_node(node) : check_op(node);
    if (p->reason == NULL && p->rule != QN_RULE_FLOAT && p->tail)
        p->reason = "it only feeds outputs, which float keeps exact";
    if (p->reason == NULL && p->rule != QN_RULE_WEIGHTS)
        p->reason = check_inputs(plan, node, p->rule);
    for (uint32_t k = 0; p->reason == NULL && k < node->n_outputs; k++)
        if (node->outputs[k] != NULL && !is_float(node->outputs[k]))
            p->reason = "its output is not float32";
    p->quantized = p->reason == NULL;
    if (!p->quantized)
        return;
    for (uint32_t k = 0; k < node->n_inputs; k++) {
        const qn_tensor *t = node->inputs[k];
        if (t != NULL && t->constant == NULL && qn__is_activation_input(node, k))
            plan->tensors[t->id].wanted = plan->settings->scheme != QN_SCHEME_WEIGHTS;
    }
    if (plan->settings->scheme != QN_SCHEME_STATIC)
        return; /* results are float */
    for (uint32_t k = 0; k < node->n_outputs; k++) {
        if (node->outputs[k] == NULL)
            continue;
        qn_tensor_plan *t = &plan->tensors[node->outputs[k]->id];
        t->integer = t->wanted = true;
        t->fixed = p->rule == QN_RULE_FIXED;
        if (p->rule == QN_RULE_SAME)
            t->root = plan->tensors[node->inputs[0]->id].root;
    }
}

/* --- overrides ---------------------------------------------------------------------------------*/
static qn_status parse_range(const qn_override *o, float *lo, float *hi, qn_error *error)
{
    const char *end = NULL;
    double a, b;
    if (qn__parse_f64(o->value, &end, &a) && *end == ':' && qn__parse_f64(end + 1, NULL, &b) &&
        isfinite((float)a) && isfinite((float)b) && a <= b) {
        *lo = (float)a;
        *hi = (float)b;
        return QN_OK;
    }
    QN_FAIL(error, QN_INVALID_ARGUMENT, "%s:range=%s: expected lo:hi", o->pattern, o->value);
}

/* A whole number lo..hi. */
static qn_status parse_number(const qn_override *o, uint32_t lo, uint32_t hi, uint32_t *out,
                              qn_error *error)
{
    double value;
    QN_FAIL_IF(!qn__parse_f64(o->value, NULL, &value) || value < lo || value > hi ||
                   value != floor(value),
               error, QN_INVALID_ARGUMENT, "%s:%s=%s: expected %u to %u", o->pattern, o->key,
               o->value, lo, hi);
    *out = (uint32_t)value;
    return QN_OK;
}

static qn_status override_tensor(qn_quant_plan *plan, const qn_override *o, uint32_t id,
                                 qn_error *error)
{
    qn_tensor_plan *t = &plan->tensors[id];
    if (strcmp(o->key, "features") == 0) {
        t->features = qn__feature_method_find(o->value);
        QN_FAIL_IF(t->features == NULL, error, QN_INVALID_ARGUMENT,
                   "%s:features=%s: no such method", o->pattern, o->value);
        QN_FAIL_IF(t->features->train != NULL && t->features != plan->settings->features, error,
                   QN_INVALID_ARGUMENT, "%s:features=%s: a method of the whole run (--features)",
                   o->pattern, o->value);
    } else if (strcmp(o->key, "range") == 0) {
        QN_TRY(parse_range(o, &t->lo, &t->hi, error));
        t->has_range = true;
    } else if (strcmp(o->key, "feature-clamp") == 0) {
        QN_FAIL_IF(!plan->settings->symmetric, error, QN_INVALID_ARGUMENT,
                   "%s:feature-clamp=%s: only s8sym activations have a largest integer", o->pattern,
                   o->value);
        QN_TRY(parse_number(o, 1, 127, &t->clamp, error));
    }
    return QN_OK;
}

static qn_status override_node(qn_quant_plan *plan, const qn_override *o, size_t n, qn_error *error)
{
    qn_node_plan *p = &plan->nodes[n];
    if (strcmp(o->key, "skip") == 0 || strcmp(o->key, "float") == 0) {
        const bool plain = strcmp(o->key, "skip") == 0 || strcmp(o->value, "1") == 0;
        QN_FAIL_IF(!plain && strcmp(o->value, "true") != 0, error, QN_INVALID_ARGUMENT,
                   "%s:%s=%s: expected 1", o->pattern, o->key, o->value);
        p->reason = "left in float by option";
    } else if (strcmp(o->key, "weights") == 0) {
        p->weights.method = qn__weight_method_find(o->value);
        QN_FAIL_IF(p->weights.method == NULL, error, QN_INVALID_ARGUMENT,
                   "%s:weights=%s: no such method", o->pattern, o->value);
    } else if (strcmp(o->key, "granularity") == 0) {
        p->weights.per_channel = strcmp(o->value, "channel") == 0;
        QN_FAIL_IF(!p->weights.per_channel && strcmp(o->value, "tensor") != 0, error,
                   QN_INVALID_ARGUMENT, "%s:granularity=%s: expected channel or tensor", o->pattern,
                   o->value);
    } else if (strcmp(o->key, "weight-levels") == 0) {
        QN_FAIL_IF(!qn__level_set_find(o->value, &p->weights.level_set), error, QN_INVALID_ARGUMENT,
                   "%s:weight-levels=%s: expected uniform, ternary or pow2", o->pattern, o->value);
        p->weights.asked_bits = 0;
    } else if (strcmp(o->key, "weight-bits") == 0) {
        QN_TRY(parse_number(o, 2, 8, &p->weights.asked_bits, error));
    } else if (strcmp(o->key, "weight-clamp") == 0) {
        QN_TRY(parse_number(o, 1, 127, &p->weights.clamp, error));
    }
    return QN_OK;
}

static bool known_key(const char *key, bool *is_tensor_key)
{
    static const char *const keys[] = {
        "features", "range",       "feature-clamp", "skip",          "float",
        "weights",  "granularity", "weight-bits",   "weight-levels", "weight-clamp"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        *is_tensor_key = i < 3;
        if (strcmp(keys[i], key) == 0)
            return true;
    }
    return false;
}

/* A node key also applies through the names of the node's outputs, a tensor key through the node's
 * name to its outputs. */
/* *part: what of it was looked at last, for a message about a recipe. */
static qn_status apply_override(qn_quant_plan *plan, const qn_override *o, const char **part,
                                qn_error *error)
{
    const qn_graph *g = plan->graph;
    qn_pattern *pattern = NULL;
    qn_status status = QN_OK;
    bool tensor_key, any = false;
    *part = "key";
    QN_FAIL_IF(!known_key(o->key, &tensor_key), error, QN_INVALID_ARGUMENT,
               "%s:%s=%s: unknown key \"%s\"", o->pattern, o->key, o->value, o->key);
    QN_TRY(qn__scheme_override(plan->settings, o, error));
    *part = "name";
    QN_TRY(qn__pattern_create(g->ctx, o->pattern, &pattern, error));
    *part = "value";
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (tensor_key && qn__pattern_matches_tensor(pattern, g->inputs[i])) {
            any = true;
            QN_TRY_GOTO(override_tensor(plan, o, g->inputs[i]->id, error));
        }
    }
    for (size_t n = 0; n < g->n_nodes; n++) {
        const qn_node *node = g->nodes[n];
        const bool node_matches = qn__pattern_matches_node(pattern, node);
        bool output_matches = false;
        for (uint32_t k = 0; k < node->n_outputs; k++) {
            const qn_tensor *t = node->outputs[k];
            if (t == NULL || !(node_matches || qn__pattern_matches_tensor(pattern, t)))
                continue;
            output_matches = true;
            if (tensor_key)
                QN_TRY_GOTO(override_tensor(plan, o, t->id, error));
        }
        if (!tensor_key && (node_matches || output_matches))
            QN_TRY_GOTO(override_node(plan, o, n, error));
        any |= node_matches || output_matches;
    }
    if (!any) {
        char guess[256];
        *part = "name";
        QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT, "\"%s\" names no node or tensor%s", o->pattern,
                     qn__pattern_guess(g, o->pattern, guess, sizeof(guess)));
    }
done:
    qn__pattern_destroy(pattern);
    return status;
}

static qn_status resolve_levels(qn_weights_plan *w, const qn_node *node, qn_error *error)
{
    const char *problem = qn__levels_make(w->level_set, w->asked_bits, w->clamp, &w->levels);
    QN_FAIL_IF(problem != NULL, error, QN_INVALID_ARGUMENT, "%s \"%s\": %s, not %u",
               qn__op_name(node->op), node->name, problem, w->asked_bits);
    w->bits = w->levels.bits;
    return QN_OK;
}

/* In groups of several channels, not depthwise. */
static bool is_grouped(const qn_node *node)
{
    const int64_t group = qn__attr_int(node, "group", 1);
    int64_t dims[QN_MAX_RANK];
    if (node->op != QN_OP_CONV || group < 2 || node->n_inputs < 2 || node->inputs[1] == NULL)
        return false;
    return !qn__tensor_static_dims(node->inputs[1], dims) || dims[1] != 1 || dims[0] != group;
}

/* MNN computes only convolutions in integers, and those in groups wrongly (3.6.1). Products of
 * other formats' graphs become convolutions when they are written, groups convolutions of their
 * own; those that a .mnn file has stay what they are. */
static qn_rule node_rule(const qn_graph *graph, const qn_target *target, const qn_node *node,
                         const char **reason)
{
    const qn_source *source = graph->source;
    const qn_op op = node->op;
    if (source != NULL && source->vtable->in_integers != NULL &&
        strcmp(target->name, source->format) == 0 && source->vtable->in_integers(source, node)) {
        *reason = qn__reason_integers;
        return QN_RULE_FLOAT;
    }
    const bool stays =
        strcmp(target->name, "mnn") == 0 && source != NULL && strcmp(source->format, "mnn") == 0;
    if (stays && (op == QN_OP_GEMM || op == QN_OP_MATMUL)) {
        *reason = "the file has it as a matrix product, which the target computes in float";
        return QN_RULE_FLOAT;
    }
    if (stays && is_grouped(node)) {
        *reason = "the file has it as one convolution in groups, which the target computes wrongly";
        return QN_RULE_FLOAT;
    }
    return qn__target_rule(target, op, reason);
}

qn_status qn__quant_plan_create(const qn_graph *graph, const qn_settings *settings,
                                qn_quant_plan *out, qn_error *error)
{
    qn_status status = QN_OK;
    *out = (qn_quant_plan){.graph = graph, .settings = settings};
    qn__arena_init(&out->arena, graph->ctx);
    out->nodes = qn__arena_calloc(&out->arena, graph->n_nodes, sizeof(*out->nodes));
    out->tensors = qn__arena_calloc(&out->arena, graph->n_tensors, sizeof(*out->tensors));
    if (out->nodes == NULL || out->tensors == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(qn__uses_build(graph, &out->uses, error));
    for (uint32_t t = 0; t < graph->n_tensors; t++) {
        out->tensors[t].root = t;
        out->tensors[t].features = settings->features;
        out->tensors[t].clamp = settings->feature_clamp;
    }
    for (size_t n = 0; n < graph->n_nodes; n++) {
        qn_node_plan *p = &out->nodes[n];
        p->rule = settings->scheme == QN_SCHEME_STATIC
                      ? node_rule(graph, settings->target, graph->nodes[n], &p->reason)
                      : qn__scheme_rule(settings, graph->nodes[n]->op, &p->reason);
        p->weights.method = settings->weights;
        p->weights.per_channel = settings->per_channel;
        p->weights.level_set = settings->level_set;
        p->weights.asked_bits = settings->weight_bits;
        p->weights.clamp = settings->weight_clamp;
    }
    for (size_t i = 0; i < settings->n_overrides; i++) {
        const char *part = "name";
        status = apply_override(out, &settings->overrides[i], &part, error);
        if (status != QN_OK && status != QN_NO_MEMORY && i < settings->n_recorded)
            (void)qn__error_prefix(error, status, "%s: overrides[%zu].%s", settings->recipe_path, i,
                                   part);
        if (status != QN_OK)
            goto done;
    }
    for (size_t n = 0; n < graph->n_nodes; n++)
        QN_TRY_GOTO(resolve_levels(&out->nodes[n].weights, graph->nodes[n], error));
    mark_tail(out);
    for (size_t n = 0; n < graph->n_nodes; n++)
        decide_node(out, n);
    QN_TRY_GOTO(qn__arena_check(&out->arena, error));
done:
    if (status != QN_OK)
        qn__quant_plan_free(out);
    return status;
}

void qn__quant_plan_free(qn_quant_plan *plan)
{
    if (plan->graph == NULL)
        return;
    qn__uses_free(&plan->uses);
    qn__free(plan->graph->ctx, plan->notes);
    qn__arena_free(&plan->arena);
    *plan = (qn_quant_plan){0};
}

uint32_t qn__quant_plan_root(const qn_quant_plan *plan, uint32_t tensor_id)
{
    while (plan->tensors[tensor_id].root != tensor_id)
        tensor_id = plan->tensors[tensor_id].root;
    return tensor_id;
}

/* --- calibration -------------------------------------------------------------------------------*/
static uint64_t positions_of(const qn_tensor *t)
{
    int64_t dims[QN_MAX_RANK];
    if (t->rank < 3 || !qn__tensor_static_dims(t, dims))
        return 1;
    uint64_t n = 1;
    for (uint32_t i = 2; i < t->rank; i++)
        n *= (uint64_t)dims[i];
    return n;
}

qn_status qn__quant_plan_items(const qn_quant_plan *plan, qn_calib_item **items, size_t *n_items,
                               qn_error *error)
{
    const qn_graph *g = plan->graph;
    qn_calib_item *list = qn__calloc(g->ctx, g->n_tensors, sizeof(*list));
    if (list == NULL)
        return QN_NOMEM(error);
    *n_items = 0;
    for (uint32_t t = 0; t < g->n_tensors; t++) {
        const qn_tensor_plan *p = &plan->tensors[t];
        if (!p->wanted || p->fixed || p->has_range || p->root != t)
            continue;
        qn_calib_item *item = &list[(*n_items)++];
        item->tensor_id = t;
        item->method = p->features;
        item->format.symmetric = plan->settings->symmetric;
        item->format.positions = positions_of(g->tensors[t]);
        qn__activation_limits(plan->settings, p->clamp, &item->format.qmin, &item->format.qmax);
    }
    *items = list;
    return QN_OK;
}

/* Tensor whose parameters could become the concat's: values reach it through nothing but moves. */
static bool tie_candidate(const qn_quant_plan *plan, const qn_tensor *t)
{
    while (true) {
        if (plan->uses.is_output[t->id] || qn_uses_count(&plan->uses, t) != 1 ||
            t->producer == NULL || !plan->tensors[t->id].integer || plan->tensors[t->id].fixed)
            return false;
        if (plan->tensors[t->id].root == t->id)
            return true;
        t = t->producer->inputs[0];
    }
}

/* Equal parameters on both sides save a rounding (and ONNX Runtime copies), but a small input
 * beside a large one would lose its steps. */
static qn_status decide_concat(qn_quant_plan *plan, const qn_node *node, qn_error *error)
{
    const uint32_t out = qn__quant_plan_root(plan, node->outputs[0]->id);
    float largest = 0, smallest = INFINITY;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == NULL || node->inputs[i]->constant != NULL)
            continue;
        const qn_tensor_plan *p = &plan->tensors[qn__quant_plan_root(plan, node->inputs[i]->id)];
        const float reach = p->fixed ? 1.0f : fmaxf(fabsf(p->lo), fabsf(p->hi));
        largest = fmaxf(largest, reach);
        smallest = fminf(smallest, reach);
    }
    if (largest > UNLIKE_RATIO * smallest) {
        if (!qn__quant_plan_note(plan,
                                 "Concat \"%s\": ranges of its inputs differ %.3g times (%.3g to "
                                 "%.3g): kept apart",
                                 node->name, (double)(largest / smallest), (double)smallest,
                                 (double)largest))
            return QN_NOMEM(error);
        return QN_OK;
    }
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == NULL || node->inputs[i]->constant != NULL ||
            !tie_candidate(plan, node->inputs[i]))
            continue;
        const uint32_t root = qn__quant_plan_root(plan, node->inputs[i]->id);
        const qn_node *producer = plan->graph->tensors[root]->producer;
        /* A fused activation is absorbed only while zero is the smallest integer. */
        if (producer != NULL && producer->act != QN_ACT_NONE && plan->tensors[out].lo < 0)
            continue;
        if (root != out)
            plan->tensors[root].root = out;
    }
    return QN_OK;
}

/* The part of the range an activation of its producer can reach. */
static void limit_to_activation(const qn_tensor *t, float *lo, float *hi)
{
    const qn_node *node = t->producer;
    if (node == NULL || node->act == QN_ACT_NONE)
        return;
    const float act_lo = node->act == QN_ACT_RELU ? 0 : node->act_lo;
    const float act_hi = node->act == QN_ACT_RELU ? INFINITY : node->act_hi;
    *lo = fminf(fmaxf(*lo, act_lo), act_hi);
    *hi = fmaxf(fminf(*hi, act_hi), act_lo);
}

/* What a Relu cuts off anyway needs no steps. */
static void limit_to_reader(const qn_quant_plan *plan, const qn_tensor *t, float *lo, float *hi)
{
    if (qn_uses_count(&plan->uses, t) != 1 || plan->uses.is_output[t->id] ||
        plan->uses.users[plan->uses.offsets[t->id]]->op != QN_OP_RELU)
        return;
    *lo = fmaxf(*lo, 0);
    *hi = fmaxf(*hi, 0);
}

qn_status qn__quant_plan_ranges(qn_quant_plan *plan, const qn_ranges *ranges, qn_error *error)
{
    const qn_graph *g = plan->graph;
    for (uint32_t t = 0; t < g->n_tensors; t++) {
        qn_tensor_plan *p = &plan->tensors[t];
        if (!p->wanted || p->fixed || p->root != t)
            continue;
        if (!p->has_range) {
            QN_FAIL_IF(ranges == NULL || !ranges->items[t].valid, error, QN_STATE,
                       "tensor \"%s\" has no range", g->tensors[t]->name);
            p->lo = ranges->items[t].lo;
            p->hi = ranges->items[t].hi;
            limit_to_activation(g->tensors[t], &p->lo, &p->hi);
            limit_to_reader(plan, g->tensors[t], &p->lo, &p->hi);
        }
        p->own_range = true;
        QN_FAIL_IF(!isfinite(p->lo) || !isfinite(p->hi) || p->lo > p->hi, error, QN_NONFINITE,
                   "tensor \"%s\" has the range [%g, %g]", g->tensors[t]->name, (double)p->lo,
                   (double)p->hi);
    }
    for (size_t n = 0; n < g->n_nodes; n++)
        if (plan->nodes[n].quantized && plan->nodes[n].rule == QN_RULE_CONCAT)
            QN_TRY(decide_concat(plan, g->nodes[n], error));
    return QN_OK;
}
