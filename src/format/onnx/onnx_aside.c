/* What was set aside (onnx_partial.c) in the file that is written: bytes that stay say what they
 * say in the file's opset, so the written one may be younger only where that is the same. */
#include <inttypes.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_inline.h"
#include "format/onnx/onnx_partial.h"

enum { OLDEST = 9 }; /* below it most operators mean something else */

/* The opset from which on an operator lost an attribute, got another default or more inputs, or may
 * not be used (tests/interop/test_partial.py compares this with the schemas of ONNX). */
static const struct {
    const char *op;
    int64_t since;
} CHANGES[] = {
    {"BatchNormalization", 14},
    {"Clip", 11},
    {"DFT", 20},
    {"Dropout", 12},
    {"GridSample", 20},
    {"GroupNormalization", 21},
    {"Hardmax", 13},
    {"LogSoftmax", 13},
    {"Pad", 11},
    {"ReduceL1", 18},
    {"ReduceL2", 18},
    {"ReduceLogSum", 18},
    {"ReduceLogSumExp", 18},
    {"ReduceMax", 18},
    {"ReduceMean", 18},
    {"ReduceMin", 18},
    {"ReduceProd", 18},
    {"ReduceSum", 13},
    {"ReduceSumSquare", 18},
    {"Resize", 11},
    {"RoiAlign", 16},
    {"Scatter", 11},
    {"Slice", 10},
    {"Softmax", 13},
    {"Split", 13},
    {"Split", 18},
    {"Squeeze", 13},
    {"TopK", 10},
    {"Unsqueeze", 13},
    {"Upsample", 10},
};

typedef struct change {
    const qn_onnx_source *source;
    qn_graph *graph; /* whose arena holds what is read */
    int64_t from, to;
    const char *node; /* that was set aside */
} change;

static qn_status check_body(change *c, qn_wire *node, qn_error *error);

static qn_status check_graph(void *arg, qn_wire *graph, qn_error *error)
{
    qn_wire node;
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(graph, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number != GRAPH_NODE)
            continue;
        QN_TRY(qn__wire_enter(graph, &f, "NodeProto", &node, error));
        QN_TRY(check_body(arg, &node, error));
    }
}

static bool changed(const change *c, const qn_onnx_node *node)
{
    if (qn__onnx_find_function(c->source, node) != NULL)
        return true;
    if (node->domain[0] != '\0' && strcmp(node->domain, "ai.onnx") != 0)
        return false;
    bool found = c->from < OLDEST || c->to < c->from;
    for (size_t i = 0; i < sizeof(CHANGES) / sizeof(CHANGES[0]); i++)
        found = found || (c->from < CHANGES[i].since && CHANGES[i].since <= c->to &&
                          strcmp(CHANGES[i].op, node->op_type) == 0);
    return found;
}

/* A node and those of the graphs inside it: depth is bounded by that of messages. */
static qn_status check_body(change *c, qn_wire *node, qn_error *error)
{
    qn_onnx_node n = {.op_type = "", .domain = ""};
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(node, &f, &more, error));
        if (!more)
            break;
        if (f.number == NODE_OP_TYPE)
            QN_TRY(qn__wire_string(node, &f, &c->graph->arena, &n.op_type, error));
        else if (f.number == NODE_DOMAIN)
            QN_TRY(qn__wire_string(node, &f, &c->graph->arena, &n.domain, error));
        else if (f.number == NODE_ATTRIBUTE)
            QN_TRY(qn__onnx_each_graph(node, &f, check_graph, c, error));
    }
    QN_FAIL_IF(changed(c, &n), error, QN_UNSUPPORTED,
               "node \"%s\" is left as it is, but %s may mean something else where opset %" PRId64
               " of the file becomes %" PRId64 ": raise the file's first",
               c->node, n.op_type, c->from, c->to);
    return QN_OK;
}

qn_status qn__onnx_check_aside(const qn_onnx_source *source, qn_graph *graph, int64_t opset,
                               qn_error *error)
{
    change c = {.source = source, .graph = graph, .from = source->opset, .to = opset};
    for (size_t i = 0; i < source->n_aside && opset != source->opset; i++) {
        const qn_onnx_node *node = &source->aside[i];
        qn_wire w = qn__wire_open(node->body, "NodeProto", source->ctx->limits.nesting);
        c.node = node->name[0] != '\0' ? node->name
                 : node->n_outputs > 0 ? node->outputs[0]
                                       : node->op_type;
        QN_TRY(check_body(&c, &w, error));
    }
    for (size_t i = 0; source->n_aside > 0 && i < graph->n_tensors; i++)
        QN_FAIL_IF(qn__names_get(&source->aside_names, graph->tensors[i]->name) != NULL, error,
                   QN_UNSUPPORTED, "tensor \"%s\" has the name of one that was set aside",
                   graph->tensors[i]->name);
    return QN_OK;
}
