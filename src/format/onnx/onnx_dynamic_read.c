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
    const qn_tensor *scale; /* of x */
    qn_tensor *weights, *weight_scale, *weight_zero, *bias;
} chain;

static qn_node *only_user(const collapser *c, const qn_tensor *tensor, qn_op op)
{
    qn_node *const user = tensor ? qn_uses_only(&c->uses, tensor) : NULL;
    return user && user->op == op && user->n_outputs == 1 ? user : NULL;
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
    qn_tensor *const w = qn_node_input(f->product, 1), *const zero = qn_node_input(f->product, 3);
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

/* --- by rows ----------------------------------------------------------------------------------*/
/* x -> Abs -> ReduceMax -> Max -> Div: scale; x -> Div by scale -> Round -> Cast. */
enum { ABS, REDUCE, FLOOR, SCALE, STEPS, ROUND, INTEGERS, N_ROW_NODES };
static const qn_op ROW_OPS[N_ROW_NODES] = {QN_OP_ABS, QN_OP_REDUCE_MAX, QN_OP_MAX, QN_OP_DIV,
                                           QN_OP_DIV, QN_OP_ROUND,      QN_OP_CAST};

static bool is_number(qn_graph *graph, const qn_tensor *t, float value)
{
    size_t count = 0;
    if (!is_plain_constant(t, QN_DTYPE_F32))
        return false;
    const float *const values = qn__tensor_floats(graph, t, &count);
    return values && count == 1 && values[0] == value;
}

static bool is_last_axis(qn_graph *graph, const qn_node *reduce)
{
    size_t n = 0;
    const qn_tensor *const t = qn_node_input(reduce, 1), *const x = reduce->inputs[0];
    const int64_t *axes = qn__attr_ints(reduce, "axes", &n);
    if (!axes && is_plain_constant(t, QN_DTYPE_I64))
        axes = qn__tensor_ints(graph, t, &n);
    return axes && n == 1 && qn__attr_int(reduce, "keepdims", 1) == 1 &&
           (axes[0] == -1 || (x->has_shape && x->rank > 0 && axes[0] == x->rank - 1));
}

/* From q on backwards. */
static bool find_rows(qn_graph *graph, const qn_tensor *q, qn_node *nodes[N_ROW_NODES])
{
    const qn_tensor *t = q;
    for (int i = INTEGERS; i >= 0; i--) {
        qn_node *const node = t ? t->producer : NULL;
        if (!node || node->op != ROW_OPS[i] || node->n_outputs != 1 || !node->inputs[0])
            return false;
        nodes[i] = node;
        t = i == STEPS ? qn_node_input(node, 1) : node->inputs[0];
    }
    const qn_tensor *const x = nodes[ABS]->inputs[0];
    return x == nodes[STEPS]->inputs[0] && x->type.kind == QN_TYPE_PLAIN &&
           qn__attr_int(nodes[INTEGERS], "to", 0) == qn__dtype_onnx(QN_DTYPE_I8) &&
           is_last_axis(graph, nodes[REDUCE]) && nodes[FLOOR]->n_inputs == 2 &&
           is_number(graph, nodes[FLOOR]->inputs[1], QN_ROW_FLOOR) &&
           is_number(graph, qn_node_input(nodes[SCALE], 1), QN_ROW_STEPS);
}

static bool find_quantize(const collapser *c, const qn_node *product, chain *f)
{
    const qn_tensor *const x = qn_node_input(product, 0), *const zero = qn_node_input(product, 2);
    qn_node *const node = x ? x->producer : NULL;
    qn_node *rows[N_ROW_NODES];
    if (!node || x->producer_output != 0 || product->n_outputs != 1)
        return false;
    f->quantize = node;
    if (node->op == QN_OP_DYNAMIC_QUANTIZE_LINEAR) {
        if (node->n_outputs != 3 || node->n_inputs != 1 || !node->inputs[0] || !zero ||
            zero != node->outputs[2])
            return false;
        f->scale = node->outputs[1];
        return true;
    }
    if (zero || !find_rows(c->graph, x, rows))
        return false;
    f->scale = rows[SCALE]->outputs[0];
    return true;
}

/* Do collapsed products read its integers? */
static bool reads_rows(const collapser *c, const qn_node *cast)
{
    const qn_tensor *const q = cast->n_outputs == 1 ? cast->outputs[0] : NULL;
    if (!q)
        return false;
    for (size_t i = c->uses.offsets[q->id]; i < c->uses.offsets[q->id + 1]; i++)
        if (c->collapsed[c->uses.users[i]->id] && c->uses.users[i]->inputs[0] == q)
            return true;
    return false;
}

/* Where products that are collapsed now read its integers, a QuantizeLinear makes them, and nodes
 * of which nothing else is left to read go. */
static qn_status make_rows(collapser *c, qn_node *cast, qn_error *error)
{
    qn_graph *const graph = c->graph;
    qn_node *rows[N_ROW_NODES];
    qn_tensor *const q = cast->outputs[0];
    const qn_type type = qn__graph_dynamic_type(graph, true);
    if (!find_rows(graph, q, rows))
        return QN_OK;
    qn_tensor *const t = type.quant ? qn__graph_add_tensor(graph, q->name, type) : NULL;
    qn_node *const made =
        t ? qn__graph_add_node(graph, SIZE_MAX, QN_OP_QUANTIZE_LINEAR, q->name, 1, 1) : NULL;
    if (!made)
        return QN_NOMEM(error);
    made->inputs[0] = rows[ABS]->inputs[0];
    qn__node_set_output(made, 0, t);
    for (size_t i = c->uses.offsets[q->id]; i < c->uses.offsets[q->id + 1]; i++) {
        qn_node *const user = c->uses.users[i];
        if (c->collapsed[user->id] && user->inputs[0] == q)
            user->inputs[0] = t;
    }
    for (int i = INTEGERS; i >= 0; i--) {
        const qn_tensor *const out = rows[i]->outputs[0];
        bool read = c->uses.is_output[out->id] != 0;
        for (size_t k = c->uses.offsets[out->id]; k < c->uses.offsets[out->id + 1]; k++) {
            const qn_node *const user = c->uses.users[k];
            read |= !c->marks[user->id] && !(out == q && c->collapsed[user->id]);
        }
        c->marks[rows[i]->id] = !read;
    }
    return QN_OK;
}

/* Mul by the product of both scales. */
static bool find_scales(const collapser *c, chain *f)
{
    f->mul = only_user(c, f->cast->outputs[0], QN_OP_MUL);
    const qn_tensor *scale = f->mul ? other_input(f->mul, f->cast->outputs[0]) : NULL;
    f->scales = scale ? scale->producer : NULL;
    if (!f->scales || f->scales->op != QN_OP_MUL || only_user(c, scale, QN_OP_MUL) != f->mul)
        return false;
    f->weight_scale = other_input(f->scales, f->scale);
    return qn_node_input(f->scales, 0) == f->scale || qn_node_input(f->scales, 1) == f->scale;
}

/* Mul by the columns' scales, Mul by the rows'. */
static bool find_row_scales(const collapser *c, chain *f)
{
    f->scales = only_user(c, f->cast->outputs[0], QN_OP_MUL);
    f->mul = f->scales ? only_user(c, f->scales->outputs[0], QN_OP_MUL) : NULL;
    if (!f->mul || other_input(f->mul, f->scales->outputs[0]) != f->scale)
        return false;
    f->weight_scale = other_input(f->scales, f->cast->outputs[0]);
    return true;
}

static bool find_chain(const collapser *c, qn_node *product, chain *f)
{
    *f = (chain){.product = product};
    if (!find_quantize(c, product, f) || !weights_fit(f))
        return false;
    f->cast = only_user(c, product->outputs[0], QN_OP_CAST);
    if (!f->cast || qn__attr_int(f->cast, "to", 0) != 1)
        return false;
    if (!(f->quantize->op == QN_OP_CAST ? find_row_scales(c, f) : find_scales(c, f)) ||
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
    const qn_type type = qn__graph_dynamic_type(graph, false);
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

/* --- what lies between a quantizer and its products -------------------------------------------*/
/* Only gives the elements other places. */
static bool rearranges(const qn_node *node)
{
    switch (node->op) {
    case QN_OP_RESHAPE:
    case QN_OP_FLATTEN:
    case QN_OP_SQUEEZE:
    case QN_OP_UNSQUEEZE:
    case QN_OP_TRANSPOSE:
    case QN_OP_IDENTITY:
        return node->n_outputs == 1;
    default:
        return false;
    }
}

/* How many such nodes, one behind the other, are between its integers and products alone. */
static size_t moves_behind(const collapser *c, const qn_node *quantize)
{
    const qn_tensor *t = quantize->outputs[0];
    size_t n = 0;
    for (const qn_node *node; t && (node = qn_uses_only(&c->uses, t)) != NULL && rearranges(node) &&
                              node->inputs[0] == t;
         n++)
        t = node->outputs[0];
    if (!t)
        return 0;
    for (size_t i = c->uses.offsets[t->id]; i < c->uses.offsets[t->id + 1]; i++) {
        const qn_node *const user = c->uses.users[i];
        if (user->op != QN_OP_MATMUL_INTEGER || user->inputs[0] != t ||
            qn_node_input(user, 2) != quantize->outputs[2])
            return 0;
    }
    return !c->uses.is_output[t->id] && qn_uses_count(&c->uses, t) > 0 ? n : 0;
}

/* They move the floats instead: the scale and the integers stay what they are, and the products
 * collapse. */
static qn_status quantize_behind(collapser *c, bool *any, qn_error *error)
{
    qn_graph *const graph = c->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *const node = graph->nodes[i];
        if (node->op != QN_OP_DYNAMIC_QUANTIZE_LINEAR || node->n_outputs != 3 ||
            node->n_inputs != 1 || !node->inputs[0])
            continue;
        for (size_t n = moves_behind(c, node); n > 0; n--) {
            qn_tensor *const q = node->outputs[0];
            qn_node *const mover = qn_uses_only(&c->uses, q);
            qn_tensor *const last = mover->outputs[0];
            qn_tensor *const moved =
                qn__graph_add_tensor(graph, q->name, qn_type_plain_make(QN_DTYPE_F32));
            if (!moved)
                return QN_NOMEM(error);
            mover->inputs[0] = node->inputs[0];
            node->inputs[0] = moved;
            last->producer = NULL;
            q->producer = NULL;
            qn__node_set_output(mover, 0, moved);
            qn__node_set_output(node, 0, last);
            *any = true;
        }
    }
    if (!*any)
        return QN_OK;
    qn__uses_free(&c->uses);
    QN_TRY(qn__graph_sort(graph, error));
    return qn__uses_build(graph, &c->uses, error);
}

qn_status qn__onnx_collapse_dynamic(qn_onnx_reader *r, qn_error *error)
{
    qn_graph *graph = r->graph;
    collapser c = {.graph = graph};
    const size_t n_nodes = graph->n_nodes;
    const size_t n_ids = graph->next_node_id + n_nodes; /* with those that make rows */
    bool any = false, moved = false;
    QN_TRY(qn__uses_build(graph, &c.uses, error));
    c.marks = qn__calloc(graph->ctx, n_ids + 1, 1);
    c.collapsed = qn__calloc(graph->ctx, n_ids + 1, 1);
    qn_status status = c.marks && c.collapsed ? QN_OK : QN_NOMEM(error);
    if (status == QN_OK)
        status = quantize_behind(&c, &moved, error);
    for (size_t i = 0; i < n_nodes && status == QN_OK; i++) {
        chain f;
        if (graph->nodes[i]->op != QN_OP_MATMUL_INTEGER || !find_chain(&c, graph->nodes[i], &f))
            continue;
        any = true;
        status = collapse_chain(&c, &f, error);
    }
    for (size_t i = 0; i < n_nodes && status == QN_OK && any; i++)
        if (graph->nodes[i]->op == QN_OP_CAST && reads_rows(&c, graph->nodes[i]))
            status = make_rows(&c, graph->nodes[i], error);
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
