/* A graph as text: inputs, one line per node, outputs. */
#include "ir/graph.h"

#include "core/strbuf.h"

#include <inttypes.h>

static void dump_type(const qn_tensor *tensor, qn_strbuf *out)
{
    const qn_quant *q = tensor->type.quant;
    qn__strbuf_puts(out, qn__dtype_name(tensor->type.dtype));
    if (tensor->type.kind == QN_TYPE_PLAIN || q == NULL)
        return;
    if (tensor->type.kind == QN_TYPE_DYNAMIC) {
        qn__strbuf_printf(out, " dynamic(axis %d)", q->axis);
    } else if (q->n_scales == 1 && q->scales != NULL) {
        qn__strbuf_printf(out, " q(%.9g, %d)", (double)q->scales[0],
                          q->zero_points != NULL ? (int)q->zero_points[0] : 0);
    } else {
        qn__strbuf_printf(out, " q(%zu scales, axis %d", q->n_scales, q->axis);
        if (q->block > 0)
            qn__strbuf_printf(out, ", block %" PRId64, q->block);
        qn__strbuf_puts(out, ")");
    }
    if (q->n_codebook > 0)
        qn__strbuf_printf(out, " codebook(%zu)", q->n_codebook);
}

static void dump_dims(const qn_tensor *tensor, qn_strbuf *out)
{
    if (!tensor->has_shape) {
        qn__strbuf_puts(out, "[?...]");
        return;
    }
    qn__strbuf_puts(out, "[");
    for (size_t i = 0; i < tensor->rank; i++) {
        const qn_dim *dim = &tensor->dims[i];
        if (i > 0)
            qn__strbuf_puts(out, ",");
        if (dim->kind == QN_DIM_CONST)
            qn__strbuf_printf(out, "%" PRId64, dim->value);
        else if (dim->kind == QN_DIM_DATA)
            qn__strbuf_puts(out, "?");
        else if (dim->value == 1)
            qn__strbuf_puts(out, dim->symbol);
        else
            qn__strbuf_printf(out, "%" PRId64 "*%s", dim->value, dim->symbol);
    }
    qn__strbuf_puts(out, "]");
}

static void dump_tensor(const qn_tensor *tensor, qn_strbuf *out)
{
    if (tensor == NULL) {
        qn__strbuf_puts(out, "-");
        return;
    }
    qn__strbuf_printf(out, "%s:", tensor->name);
    dump_type(tensor, out);
    dump_dims(tensor, out);
    if (tensor->constant != NULL)
        qn__strbuf_puts(out, "=const");
}

static void dump_list(qn_tensor *const *list, size_t count, qn_strbuf *out)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            qn__strbuf_puts(out, ", ");
        dump_tensor(list[i], out);
    }
}

static void dump_attr(const qn_attr *attr, qn_strbuf *out)
{
    qn__strbuf_printf(out, " %s=", attr->name);
    switch (attr->kind) {
    case QN_ATTR_FLOAT:
        qn__strbuf_printf(out, "%.9g", (double)attr->f);
        break;
    case QN_ATTR_INT:
        qn__strbuf_printf(out, "%" PRId64, attr->i);
        break;
    case QN_ATTR_STRING:
        qn__strbuf_printf(out, "\"%s\"", attr->s);
        break;
    case QN_ATTR_INTS:
        qn__strbuf_puts(out, "[");
        for (size_t i = 0; i < attr->count; i++)
            qn__strbuf_printf(out, i > 0 ? ",%" PRId64 : "%" PRId64, attr->ints[i]);
        qn__strbuf_puts(out, "]");
        break;
    case QN_ATTR_TENSOR:
        qn__strbuf_printf(out, "%s(%zu bytes)", qn__dtype_name(attr->t_dtype),
                          attr->t != NULL ? attr->t->size_bytes : 0);
        break;
    default:
        qn__strbuf_printf(out, "(%zu values)", attr->count);
        break;
    }
}

static void dump_node(const qn_node *node, qn_strbuf *out)
{
    dump_list(node->outputs, node->n_outputs, out);
    qn__strbuf_printf(out, " = %s \"%s\"(", qn__op_name(node->op), node->name);
    dump_list(node->inputs, node->n_inputs, out);
    qn__strbuf_puts(out, ")");
    for (uint32_t i = 0; i < node->n_attrs; i++)
        dump_attr(&node->attrs[i], out);
    if (node->act == QN_ACT_RELU)
        qn__strbuf_puts(out, " +Relu");
    else if (node->act == QN_ACT_CLIP)
        qn__strbuf_printf(out, " +Clip(%.9g, %.9g)", (double)node->act_lo, (double)node->act_hi);
    qn__strbuf_puts(out, "\n");
}

void qn__graph_dump(const qn_graph *graph, struct qn_strbuf *out)
{
    qn__strbuf_printf(out, "graph \"%s\" opset %" PRId64 "\n", graph->name, graph->opset);
    qn__strbuf_puts(out, "inputs ");
    dump_list(graph->inputs, graph->n_inputs, out);
    qn__strbuf_puts(out, "\n");
    for (size_t i = 0; i < graph->n_nodes; i++)
        dump_node(graph->nodes[i], out);
    qn__strbuf_puts(out, "outputs ");
    dump_list(graph->outputs, graph->n_outputs, out);
    qn__strbuf_puts(out, "\n");
}
