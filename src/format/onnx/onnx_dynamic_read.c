/* DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul [-> Add] becomes one MatMul. */
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_dynamic.h"

typedef struct collapser {
    qn_graph *graph;
    qn_uses uses;       /* of the graph as it was */
    uint8_t *marks;     /* by node id: goes away */
    uint8_t *collapsed; /* by node id: a product on a dynamic tensor */
} collapser;

/* The nodes of one chain. */
typedef struct chain {
    qn_node *quantize, *product, *cast, *scales, *mul, *add;
    qn_tensor *weights, *weight_scale, *weight_zero, *bias;
} chain;

static qn_tensor *input_at(const qn_node *node, uint32_t index)
{
    return index < node->n_inputs ? node->inputs[index] : NULL;
}

static qn_node *only_user(const collapser *c, const qn_tensor *tensor, qn_op op)
{
    if (!tensor || qn_uses_count(&c->uses, tensor) != 1 || c->uses.is_output[tensor->id])
        return NULL;
    qn_node *user = c->uses.users[c->uses.offsets[tensor->id]];
    return user->op == op && user->n_outputs == 1 ? user : NULL;
}

static qn_tensor *other_input(const qn_node *node, const qn_tensor *one)
{
    if (node->n_inputs != 2)
        return NULL;
    return node->inputs[0] == one ? node->inputs[1] : node->inputs[0];
}

static bool is_plain_constant(const qn_tensor *t, qn_dtype dtype)
{
    return t && t->constant && t->type.kind == QN_TYPE_PLAIN && t->type.dtype == dtype;
}

static bool counts(const qn_tensor *t, size_t n)
{
    size_t count;
    return qn__tensor_count(t, &count) && (count == 1 || count == n) &&
           (t->rank == 0 || count == 1 || t->dims[t->rank - 1].value == (int64_t)n);
}

static bool good_scales(qn_graph *graph, const qn_tensor *t)
{
    size_t count;
    const float *values = qn__tensor_floats(graph, t, &count);
    for (size_t i = 0; values && i < count; i++)
        if (!isfinite(values[i]) || values[i] <= 0.0f)
            return false;
    return values != NULL;
}

/* Weights: constant bytes of a matrix, a constant zero point of theirs, or none. */
static bool weights_fit(chain *f)
{
    qn_tensor *const w = input_at(f->product, 1), *const zero = input_at(f->product, 3);
    if (!w || w->rank != 2 || !w->has_shape ||
        (!is_plain_constant(w, QN_DTYPE_I8) && !is_plain_constant(w, QN_DTYPE_U8)))
        return false;
    f->weights = w;
    f->weight_zero = zero;
    const size_t n = (size_t)w->dims[1].value;
    return n > 0 && (!zero || (is_plain_constant(zero, w->type.dtype) && counts(zero, n)));
}

static void find_bias(const collapser *c, chain *f)
{
    qn_node *add = only_user(c, f->mul->outputs[0], QN_OP_ADD);
    qn_tensor *bias = add ? other_input(add, f->mul->outputs[0]) : NULL;
    if (!is_plain_constant(bias, QN_DTYPE_F32) || bias->rank != 1 ||
        bias->dims[0].value != f->weights->dims[1].value)
        return;
    f->add = add;
    f->bias = bias;
}

static bool find_chain(const collapser *c, qn_node *product, chain *f)
{
    *f = (chain){.product = product};
    const qn_tensor *x = input_at(product, 0), *zero = input_at(product, 2);
    if (!x || !x->producer || x->producer->op != QN_OP_DYNAMIC_QUANTIZE_LINEAR ||
        x->producer_output != 0 || product->n_outputs != 1)
        return false;
    f->quantize = x->producer;
    if (f->quantize->n_outputs != 3 || f->quantize->n_inputs != 1 || !f->quantize->inputs[0] ||
        !zero || zero != f->quantize->outputs[2] || !weights_fit(f))
        return false;
    f->cast = only_user(c, product->outputs[0], QN_OP_CAST);
    if (!f->cast || qn__attr_int(f->cast, "to", 0) != 1)
        return false;
    f->mul = only_user(c, f->cast->outputs[0], QN_OP_MUL);
    qn_tensor *scale = f->mul ? other_input(f->mul, f->cast->outputs[0]) : NULL;
    f->scales = scale ? scale->producer : NULL;
    if (!f->scales || f->scales->op != QN_OP_MUL || only_user(c, scale, QN_OP_MUL) != f->mul)
        return false;
    f->weight_scale = other_input(f->scales, f->quantize->outputs[1]);
    if ((input_at(f->scales, 0) != f->quantize->outputs[1] &&
         input_at(f->scales, 1) != f->quantize->outputs[1]) ||
        !is_plain_constant(f->weight_scale, QN_DTYPE_F32) || f->weight_scale->rank > 1 ||
        !counts(f->weight_scale, (size_t)f->weights->dims[1].value) ||
        !good_scales(c->graph, f->weight_scale))
        return false;
    find_bias(c, f);
    return true;
}

/* --- rewriting --------------------------------------------------------------------------------*/
static const qn_quant *weight_quant(qn_graph *graph, const chain *f)
{
    const uint32_t bits = qn__dtype_bits(f->weights->type.dtype);
    const bool is_signed = qn__dtype_is_signed(f->weights->type.dtype);
    size_t n_scales = 0, n_zeros = 0;
    const float *scales = qn__tensor_floats(graph, f->weight_scale, &n_scales);
    const int64_t *zeros = f->weight_zero ? qn__tensor_ints(graph, f->weight_zero, &n_zeros) : NULL;
    if (!scales || (f->weight_zero && !zeros))
        return NULL;
    const size_t n = n_scales > n_zeros ? n_scales : n_zeros;
    float *s = qn__arena_calloc(&graph->arena, n, sizeof(*s));
    int32_t *z = qn__arena_calloc(&graph->arena, n, sizeof(*z));
    if (!s || !z)
        return NULL;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        s[i] = scales[n_scales == 1 ? 0 : i];
        z[i] = zeros ? (int32_t)zeros[n_zeros == 1 ? 0 : i] : 0;
        any = any || z[i] != 0;
    }
    const bool vector = n > 1 || f->weight_scale->rank == 1;
    const qn_quant quant = {
        .bits = (uint8_t)bits,
        .is_signed = is_signed,
        .axis = (int8_t)(vector && f->weights->dims[1].value == (int64_t)n ? 1 : -1),
        .qmin = is_signed ? -128 : 0,
        .qmax = is_signed ? 127 : 255,
        .n_scales = n,
        .scales = s,
        .zero_points = any ? z : NULL};
    return qn__graph_quant(graph, &quant);
}

static qn_tensor *quantized_weights(const collapser *c, const chain *f)
{
    qn_tensor *w = f->weights;
    const qn_quant *quant = weight_quant(c->graph, f);
    int64_t dims[QN_MAX_RANK];
    if (!quant || !qn__tensor_static_dims(w, dims))
        return NULL;
    const qn_type type = qn_type_quant_make(w->type.dtype, quant);
    if (qn_uses_count(&c->uses, w) == 1 && !c->uses.is_output[w->id]) {
        w->type = type;
        return w;
    }
    return qn__graph_add_constant(c->graph, w->name, type, w->rank, dims, w->constant);
}

static qn_status collapse_chain(collapser *c, const chain *f, qn_error *error)
{
    qn_graph *graph = c->graph;
    qn_node *last = f->add ? f->add : f->mul, *node = f->product;
    qn_tensor *out = last->outputs[0];
    qn_tensor *w = quantized_weights(c, f);
    qn_tensor **inputs = qn__arena_calloc(&graph->arena, 3, sizeof(*inputs));
    if (!w || !inputs)
        return QN_NOMEM(error);
    inputs[0] = f->quantize->outputs[0];
    inputs[1] = w;
    inputs[2] = f->bias;
    node->op = QN_OP_MATMUL;
    c->collapsed[node->id] = 1;
    node->inputs = inputs;
    node->n_inputs = f->bias ? 3 : 2;
    c->marks[f->cast->id] = c->marks[f->scales->id] = c->marks[f->mul->id] = 1;
    if (f->add)
        c->marks[f->add->id] = 1;
    node->outputs[0]->producer = NULL;
    last->outputs[0] = NULL;
    out->producer = NULL;
    qn__node_set_output(node, 0, out);
    return QN_OK;
}

/* --- what quantizes ---------------------------------------------------------------------------*/
static qn_type dynamic_type(qn_graph *graph)
{
    const qn_quant quant = {.bits = 8, .axis = -1, .qmin = 0, .qmax = 255};
    return (qn_type){QN_TYPE_DYNAMIC, QN_DTYPE_U8, qn__graph_quant(graph, &quant)};
}

/* Which tensors are read by graph outputs and nodes that stay, other than collapsed products, and
 * which by those. */
static void find_readers(const collapser *c, uint8_t *plain, uint8_t *dynamic)
{
    const qn_graph *graph = c->graph;
    for (size_t i = 0; i < graph->n_outputs; i++)
        plain[graph->outputs[i]->id] = 1;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs && !c->marks[node->id]; k++)
            if (node->inputs[k])
                (k == 0 && c->collapsed[node->id] ? dynamic : plain)[node->inputs[k]->id] = 1;
    }
}

/* A node that only collapsed products read makes a dynamic tensor. */
static void turn_quantize(qn_node *node, qn_type type)
{
    for (uint32_t k = 1; k < node->n_outputs; k++)
        if (node->outputs[k])
            node->outputs[k]->producer = NULL;
    node->op = QN_OP_QUANTIZE_LINEAR;
    node->n_outputs = 1;
    node->outputs[0]->type = type;
}

/* One that others read too stays, and another makes the dynamic tensor. n_nodes: that there were.
 */
static qn_status split_quantize(collapser *c, const qn_node *node, size_t n_nodes, qn_type type,
                                qn_error *error)
{
    qn_graph *graph = c->graph;
    qn_tensor *const old = node->outputs[0];
    qn_tensor *t = qn__graph_add_tensor(graph, old->name, type);
    qn_node *made = qn__graph_add_node(graph, SIZE_MAX, QN_OP_QUANTIZE_LINEAR, node->name, 1, 1);
    if (!t || !made)
        return QN_NOMEM(error);
    made->inputs[0] = node->inputs[0];
    qn__node_set_output(made, 0, t);
    for (size_t i = 0; i < n_nodes; i++)
        if (c->collapsed[graph->nodes[i]->id] && graph->nodes[i]->inputs[0] == old)
            graph->nodes[i]->inputs[0] = t;
    return QN_OK;
}

static qn_status make_dynamic(collapser *c, qn_error *error)
{
    qn_graph *graph = c->graph;
    const size_t n_nodes = graph->n_nodes, n_tensors = graph->n_tensors;
    uint8_t *plain = qn__calloc(graph->ctx, n_tensors + 1, 1);
    uint8_t *dynamic = qn__calloc(graph->ctx, n_tensors + 1, 1);
    const qn_type type = dynamic_type(graph);
    qn_status status = plain && dynamic && type.quant ? QN_OK : QN_NOMEM(error);
    if (status == QN_OK)
        find_readers(c, plain, dynamic);
    for (size_t i = 0; i < n_nodes && status == QN_OK; i++) {
        qn_node *node = graph->nodes[i];
        bool wanted = false;
        if (node->op != QN_OP_DYNAMIC_QUANTIZE_LINEAR || !node->outputs[0] ||
            !dynamic[node->outputs[0]->id])
            continue;
        for (uint32_t k = 0; k < node->n_outputs; k++)
            wanted = wanted || (node->outputs[k] && plain[node->outputs[k]->id]);
        if (wanted)
            status = split_quantize(c, node, n_nodes, type, error);
        else
            turn_quantize(node, type);
    }
    qn__free(graph->ctx, plain);
    qn__free(graph->ctx, dynamic);
    return status;
}

qn_status qn__onnx_collapse_dynamic(qn_onnx_reader *r, qn_error *error)
{
    qn_graph *graph = r->graph;
    collapser c = {.graph = graph};
    const size_t n_ids = graph->next_node_id;
    bool any = false;
    QN_TRY(qn__uses_build(graph, &c.uses, error));
    c.marks = qn__calloc(graph->ctx, n_ids + 1, 1);
    c.collapsed = qn__calloc(graph->ctx, n_ids + 1, 1);
    qn_status status = c.marks && c.collapsed ? QN_OK : QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_nodes && status == QN_OK; i++) {
        chain f;
        if (graph->nodes[i]->op != QN_OP_MATMUL_INTEGER || !find_chain(&c, graph->nodes[i], &f))
            continue;
        any = true;
        status = collapse_chain(&c, &f, error);
    }
    if (status == QN_OK && any) {
        qn__graph_remove_marked(graph, c.marks);
        memset(c.marks, 0, n_ids + 1);
        status = make_dynamic(&c, error);
        if (status == QN_OK)
            status = qn__graph_sort(graph, error);
    }
    qn__free(graph->ctx, c.collapsed);
    qn__free(graph->ctx, c.marks);
    qn__uses_free(&c.uses);
    return status;
}
