/* DequantizeLinear -> operator -> QuantizeLinear, as runtimes fuse it, becomes one node whose
 * inputs and output are quantized tensors. The patterns are those of ONNX Runtime's CPU provider,
 * and operators that have the same results in integers as in float: functions of one byte, and what
 * moves bytes to another scale. An operator outside them computes in float there and here. */
#include "format/onnx/onnx_collapse.h"
#include "format/onnx/onnx_blocks.h"

#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_qtypes.h"

typedef struct collapser {
    qn_onnx_reader *r;
    qn_graph *graph;
    qn_uses uses;   /* of the graph as it was */
    uint8_t *marks; /* by node id: goes away */
} collapser;

/* What follows an output: [Relu or Clip ->] QuantizeLinear, each the only reader. */
typedef struct tail {
    qn_node *act, *q;
    qn_act kind;
    float lo, hi;
} tail;

static qn_node *producer(const qn_tensor *tensor, qn_op op)
{
    return tensor && tensor->producer && tensor->producer->op == op ? tensor->producer : NULL;
}

/* The quantized tensor behind a DequantizeLinear to float32, or NULL. Runtimes fuse no others, and
 * operators between narrower ones round to them. */
static qn_tensor *quantized_behind(const qn_tensor *tensor)
{
    const qn_node *dq = producer(tensor, QN_OP_DEQUANTIZE_LINEAR);
    return dq && dq->n_inputs == 1 && tensor->type.dtype == QN_DTYPE_F32 ? dq->inputs[0] : NULL;
}

static bool scalar_bound(qn_graph *graph, const qn_node *node, uint32_t slot, float *out)
{
    size_t count = 0;
    if (slot >= node->n_inputs || !node->inputs[slot])
        return true;
    const float *value = qn__tensor_floats(graph, node->inputs[slot], &count);
    if (!value || count != 1 || isnan(value[0]))
        return false;
    *out = value[0];
    return true;
}

static bool find_tail(const collapser *c, const qn_tensor *out, bool may_act, tail *t)
{
    *t = (tail){.lo = -INFINITY, .hi = INFINITY};
    qn_node *next = qn_uses_only(&c->uses, out);
    if (next && may_act && (next->op == QN_OP_RELU || next->op == QN_OP_CLIP)) {
        t->act = next;
        t->kind = next->op == QN_OP_RELU ? QN_ACT_RELU : QN_ACT_CLIP;
        if (next->inputs[0] != out ||
            (t->kind == QN_ACT_CLIP && (!scalar_bound(c->graph, next, 1, &t->lo) ||
                                        !scalar_bound(c->graph, next, 2, &t->hi) || t->lo > t->hi)))
            return false;
        next = next->outputs[0] ? qn_uses_only(&c->uses, next->outputs[0]) : NULL;
    }
    if (!next || next->op != QN_OP_QUANTIZE_LINEAR || qn__node_attr(next, "precision"))
        return false;
    t->q = next;
    return true;
}

static bool is_8bit(const qn_tensor *tensor)
{
    return tensor && tensor->type.kind == QN_TYPE_QUANT &&
           qn__dtype_bits(tensor->type.dtype) == 8 && tensor->type.quant->block == 0;
}

static bool is_activation(const qn_tensor *tensor)
{
    return is_8bit(tensor) && tensor->type.quant->axis < 0;
}

static bool is_constant(const qn_tensor *tensor)
{
    return tensor && tensor->constant;
}

/* --- which inputs an operator needs quantized
 * ---------------------------------------------------*/
static bool bias_fits(const qn_node *node, const qn_tensor *x, const qn_tensor *w)
{
    const qn_tensor *bias = node->n_inputs > 2 ? node->inputs[2] : NULL;
    if (!bias || bias->constant)
        return true;
    const qn_tensor *q = quantized_behind(bias);
    return q && q->constant && qn__onnx_bias_fits(q->type, x->type, w->type);
}

/* Gemm's third input may be a whole matrix. */
static bool is_row(const qn_node *node)
{
    const qn_tensor *c = node->n_inputs > 2 ? node->inputs[2] : NULL;
    const qn_tensor *q = quantized_behind(c);
    c = q ? q : c;
    return !c || !c->has_shape || c->rank < 2 || c->dims[0].value == 1;
}

static bool scales_along(const qn_tensor *w, int axis)
{
    return w->type.quant->axis < 0 || w->type.quant->axis == axis;
}

/* Functions of one value, whose further inputs are read when planning. */
static bool is_unary(const qn_node *node)
{
    switch (node->op) {
    case QN_OP_RELU:
    case QN_OP_CLIP:
    case QN_OP_LEAKY_RELU:
    case QN_OP_SIGMOID:
    case QN_OP_TANH:
    case QN_OP_HARD_SIGMOID:
    case QN_OP_HARD_SWISH:
    case QN_OP_ELU:
    case QN_OP_SELU:
    case QN_OP_GELU:
    case QN_OP_SOFTPLUS:
    case QN_OP_EXP:
    case QN_OP_LOG:
    case QN_OP_SQRT:
    case QN_OP_RECIPROCAL:
    case QN_OP_ABS:
    case QN_OP_NEG:
    case QN_OP_FLOOR:
    case QN_OP_CEIL:
    case QN_OP_ROUND:
    case QN_OP_ERF:
    case QN_OP_SIN:
    case QN_OP_COS:
    case QN_OP_TAN:
    case QN_OP_ASIN:
    case QN_OP_ACOS:
    case QN_OP_ATAN:
    case QN_OP_SINH:
    case QN_OP_COSH:
    case QN_OP_ASINH:
    case QN_OP_ACOSH:
    case QN_OP_ATANH:
    case QN_OP_SIGN:
    case QN_OP_SOFTSIGN:
    case QN_OP_MISH:
    case QN_OP_CELU:
    case QN_OP_THRESHOLDED_RELU:
    case QN_OP_SHRINK:
    case QN_OP_SWISH:
        for (uint32_t i = 1; i < node->n_inputs; i++)
            if (node->inputs[i] && !node->inputs[i]->constant)
                return false;
        return true;
    default:
        return false;
    }
}

/* Padding with an element of the input, with zero, which every quantization has, or with a value
 * that is read when planning. */
static bool is_pad(const qn_node *node)
{
    return node->op == QN_OP_PAD &&
           (node->n_inputs < 3 || !node->inputs[2] || node->inputs[2]->constant ||
            is_constant(quantized_behind(node->inputs[2])));
}

static bool pads_with_zero(qn_graph *graph, const qn_node *node)
{
    float value = 0.0f;
    return strcmp(qn__attr_string(node, "mode", "constant"), "constant") != 0 ||
           (scalar_bound(graph, node, 2, &value) && value == 0.0f);
}

static bool is_mover(const qn_node *node)
{
    return qn__onnx_keeps_bytes(node) && (node->op != QN_OP_PAD || is_pad(node));
}

static bool inputs_fit(const collapser *c, const qn_node *node)
{
    const qn_tensor *x = node->n_inputs > 0 ? quantized_behind(node->inputs[0]) : NULL;
    const qn_tensor *w = node->n_inputs > 1 ? quantized_behind(node->inputs[1]) : NULL;
    switch (node->op) {
    case QN_OP_CONV:
        return is_activation(x) && is_8bit(w) && w->constant && scales_along(w, 0) &&
               bias_fits(node, x, w);
    case QN_OP_CONV_TRANSPOSE:
        return is_activation(x) && is_8bit(w) && w->constant && w->rank <= 4 &&
               scales_along(w, 1) && bias_fits(node, x, w);
    case QN_OP_GEMM:
        return is_activation(x) && is_8bit(w) && bias_fits(node, x, w) && is_row(node) &&
               (w->constant ? scales_along(w, qn__attr_int(node, "transB", 0) != 0 ? 0 : 1)
                            : is_activation(w) && (node->n_inputs < 3 || !node->inputs[2]));
    case QN_OP_MATMUL:
        return is_activation(x) && is_8bit(w) &&
               (is_activation(w) || (w->constant && w->rank == 2 && scales_along(w, 1)));
    case QN_OP_ADD:
    case QN_OP_SUB:
    case QN_OP_MUL:
    case QN_OP_CONCAT:
        for (uint32_t i = 0; i < node->n_inputs; i++)
            if (!is_activation(quantized_behind(node->inputs[i])))
                return false;
        return node->n_inputs > 0;
    case QN_OP_AVERAGE_POOL:
    case QN_OP_GLOBAL_AVERAGE_POOL:
    case QN_OP_MAX_POOL:
    case QN_OP_GLOBAL_MAX_POOL:
    case QN_OP_SOFTMAX:
        return is_activation(x);
    case QN_OP_RESIZE:
        return x && (qn__onnx_is_mover(node) ||
                     (is_activation(x) && qn__onnx_is_bilinear(c->graph, node)));
    case QN_OP_PRELU:
        return is_activation(x) && node->n_inputs > 1 && node->inputs[1] &&
               (node->inputs[1]->constant || is_constant(w));
    case QN_OP_REDUCE_MEAN:
    case QN_OP_REDUCE_SUM:
        return is_activation(x) &&
               (node->n_inputs < 2 || !node->inputs[1] || is_constant(node->inputs[1]));
    default:
        return x && (is_mover(node) || (is_unary(node) && is_activation(x)));
    }
}

static bool output_may_stay_float(const qn_node *node)
{
    return node->op == QN_OP_GEMM || node->op == QN_OP_MATMUL;
}

static bool may_act(const qn_node *node)
{
    return node->op == QN_OP_CONV || node->op == QN_OP_CONV_TRANSPOSE || node->op == QN_OP_GEMM ||
           node->op == QN_OP_MATMUL || node->op == QN_OP_ADD || node->op == QN_OP_SUB ||
           node->op == QN_OP_MUL;
}

/* --- rewriting --------------------------------------------------------------------------------*/
/* The float side of a graph output's pair, which a writer had to invent a name for. */
static bool is_made_name(const char *name)
{
    static const char SUFFIX[] = "_QuantizeLinear_Input";
    const size_t length = strlen(name), suffix = sizeof(SUFFIX) - 1;
    return length > suffix && strcmp(name + length - suffix, SUFFIX) == 0;
}

/* The node makes the quantized tensor itself. It keeps the float tensor's name, so that tensors are
 * called what they were called before quantization. */
static qn_status join_output(collapser *c, qn_node *node, uint32_t index, const tail *t,
                             qn_error *error)
{
    qn_graph *graph = c->graph;
    qn_tensor *quantized = t->q->outputs[0];
    qn_tensor *named = t->q->inputs[0];
    if (t->act) {
        node->act = t->kind;
        node->act_lo = t->lo;
        node->act_hi = t->hi;
        node->act_name = t->act->name;
        node->act_source = t->act->n_sources > 0 ? (int32_t)t->act->sources[0] : -1;
        c->marks[t->act->id] = 1;
    }
    c->marks[t->q->id] = 1;
    if (!qn__node_add_sources(graph, node, t->q))
        return QN_NOMEM(error);
    t->q->outputs[0] = NULL;
    if (c->uses.is_output[quantized->id] || is_made_name(named->name)) {
        quantized->producer = NULL;
        qn__node_set_output(node, index, quantized);
        return QN_OK;
    }
    quantized->producer = NULL;
    named->type = quantized->type;
    if (named->producer && named->producer != node)
        named->producer->outputs[named->producer_output] = NULL;
    named->producer = NULL;
    qn__node_set_output(node, index, named);
    for (size_t u = c->uses.offsets[quantized->id]; u < c->uses.offsets[quantized->id + 1]; u++) {
        qn_node *user = c->uses.users[u];
        if (u > c->uses.offsets[quantized->id] && user == c->uses.users[u - 1])
            continue; /* listed once per input slot */
        for (uint32_t k = 0; k < user->n_inputs; k++)
            if (user->inputs[k] == quantized)
                user->inputs[k] = named;
    }
    return QN_OK;
}

static void join_inputs(qn_node *node)
{
    const bool one = is_mover(node) || node->op == QN_OP_PRELU; /* others are parameters */
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        qn_tensor *q = quantized_behind(node->inputs[i]);
        if (q && (!one || i == 0 || node->op == QN_OP_PAD))
            node->inputs[i] = q;
    }
}

/* Float products take weights in blocks as they are. */
static bool join_blocks(qn_node *node)
{
    if ((node->op != QN_OP_MATMUL && node->op != QN_OP_GEMM) || node->n_inputs < 2 ||
        !node->inputs[0] || quantized_behind(node->inputs[0]))
        return false;
    qn_tensor *w = quantized_behind(node->inputs[1]);
    if (!qn__onnx_is_blocked(w))
        return false;
    node->inputs[1] = w;
    return true;
}

/* From one scale to another with nothing in between. */
static bool join_pair(qn_node *node)
{
    qn_tensor *const x =
        node->op == QN_OP_QUANTIZE_LINEAR ? quantized_behind(node->inputs[0]) : NULL;
    if (!is_activation(x) || x->constant || !is_activation(node->outputs[0]) ||
        qn__node_attr(node, "precision"))
        return false;
    node->op = QN_OP_REQUANTIZE;
    node->inputs[0] = x;
    return true;
}

static qn_status collapse_node(collapser *c, qn_node *node, qn_error *error)
{
    const bool mover = is_mover(node);
    tail tails[64];
    if (join_blocks(node) || join_pair(node))
        return QN_OK;
    if (node->n_outputs == 0 || node->n_outputs > 64 || !inputs_fit(c, node))
        return QN_OK;
    if (node->n_outputs > 1 && node->op != QN_OP_SPLIT)
        return QN_OK;
    const qn_tensor *x = quantized_behind(node->inputs[0]);
    const bool may_requantize =
        mover && is_activation(x) && (node->op != QN_OP_PAD || pads_with_zero(c->graph, node));
    bool quantized = true;
    for (uint32_t i = 0; i < node->n_outputs && quantized; i++) {
        quantized = node->outputs[i] && find_tail(c, node->outputs[i], may_act(node), &tails[i]);
        if (!quantized)
            break;
        const qn_tensor *const y = tails[i].q->outputs[0];
        quantized = is_activation(y) && (!mover || may_requantize);
        if (mover && qn__onnx_same_quant(x->type, y->type))
            quantized = true;
    }
    if (!quantized && !output_may_stay_float(node))
        return QN_OK;
    join_inputs(node);
    for (uint32_t i = 0; i < node->n_outputs && quantized; i++) {
        if (mover && !qn__onnx_same_quant(x->type, tails[i].q->outputs[0]->type)) {
            node->outputs[i]->type = x->type;
            tails[i].q->op = QN_OP_REQUANTIZE;
        } else {
            QN_TRY(join_output(c, node, i, &tails[i], error));
        }
    }
    return QN_OK;
}

/* Dequantize nodes that nobody reads any more. */
static void drop_unread(collapser *c, uint8_t *read)
{
    qn_graph *graph = c->graph;
    for (size_t i = 0; i < graph->n_outputs; i++)
        read[graph->outputs[i]->id] = 1;
    for (size_t i = 0; i < graph->n_nodes; i++)
        if (!c->marks[graph->nodes[i]->id])
            for (uint32_t k = 0; k < graph->nodes[i]->n_inputs; k++)
                if (graph->nodes[i]->inputs[k])
                    read[graph->nodes[i]->inputs[k]->id] = 1;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *node = graph->nodes[i];
        if (node->op == QN_OP_DEQUANTIZE_LINEAR && !read[node->outputs[0]->id])
            c->marks[node->id] = 1;
    }
    qn__graph_remove_marked(graph, c->marks);
}

qn_status qn__onnx_collapse(qn_onnx_reader *r, qn_error *error)
{
    collapser c = {.r = r, .graph = r->graph};
    QN_TRY(qn__uses_build(r->graph, &c.uses, error));
    c.marks = qn__calloc(r->graph->ctx, r->graph->next_node_id + 1, 1);
    uint8_t *read = qn__calloc(r->graph->ctx, r->graph->n_tensors + 1, 1);
    qn_status status = c.marks && read ? QN_OK : QN_NOMEM(error);
    for (size_t i = 0; i < r->graph->n_nodes && status == QN_OK; i++)
        if (!c.marks[r->graph->nodes[i]->id])
            status = collapse_node(&c, r->graph->nodes[i], error);
    if (status == QN_OK)
        drop_unread(&c, read);
    qn__free(r->graph->ctx, read);
    qn__free(r->graph->ctx, c.marks);
    qn__uses_free(&c.uses);
    return status;
}
