/* Signed bytes that nodes hand to each other become unsigned ones, zero points moved by 128: the
 * same values, which kernels that multiply unsigned bytes read as they lie. What nodes make of them
 * is the same, too: Add, whose float32 sums begin with the zero points, is told. For running only.
 */
#include "pass/pass.h"

#include "core/context.h"

enum { TABLE_BYTES = 256 };

static bool is_signed_byte(const qn_tensor *t)
{
    if (t == NULL || t->type.kind != QN_TYPE_QUANT || t->type.dtype != QN_DTYPE_I8)
        return false;
    const qn_quant *const q = t->type.quant;
    return q->bits == 8 && q->is_signed && q->axis < 0 && q->block == 0 && q->n_codebook == 0;
}

static qn_status unsigned_type(qn_graph *graph, const qn_tensor *t, qn_type *out, qn_error *error)
{
    const qn_quant *const q = t->type.quant;
    const int32_t zero = (q->zero_points != NULL ? q->zero_points[0] : 0) + 128;
    const qn_quant moved = {.bits = 8,
                            .axis = -1,
                            .qmin = q->qmin + 128,
                            .qmax = q->qmax + 128,
                            .n_scales = 1,
                            .scales = q->scales,
                            .zero_points = &zero};
    const qn_quant *const kept = qn__graph_quant(graph, &moved);
    if (kept == NULL)
        return QN_NOMEM(error);
    *out = qn_type_quant_make(QN_DTYPE_U8, kept);
    return QN_OK;
}

/* Like t, unsigned. */
static qn_status add_twin(qn_graph *graph, const qn_tensor *t, qn_tensor **out, qn_error *error)
{
    qn_type type;
    QN_TRY(unsigned_type(graph, t, &type, error));
    *out = qn__graph_add_twin(graph, t, "unsigned", type);
    return *out != NULL ? QN_OK : QN_NOMEM(error);
}

static void read_instead(qn_graph *graph, size_t n_nodes, const qn_tensor *from, qn_tensor *to)
{
    for (size_t i = 0; i < n_nodes; i++)
        for (uint32_t k = 0; k < graph->nodes[i]->n_inputs; k++)
            if (graph->nodes[i]->inputs[k] == from)
                graph->nodes[i]->inputs[k] = to;
}

static qn_status requantize(qn_graph *graph, qn_tensor *from, qn_tensor *to, qn_error *error)
{
    return qn__graph_add_between(graph, SIZE_MAX, QN_OP_REQUANTIZE, from, to, to) != NULL
               ? QN_OK
               : QN_NOMEM(error);
}

/* What comes into the graph and goes out of it stays what it is; a node stands between. */
static qn_status change_borders(qn_graph *graph, uint8_t *border, qn_error *error)
{
    const size_t n_nodes = graph->n_nodes;
    for (size_t i = 0; i < graph->n_inputs; i++) {
        qn_tensor *const x = graph->inputs[i];
        qn_tensor *twin;
        if (!is_signed_byte(x) || border[x->id])
            continue;
        border[x->id] = 1;
        QN_TRY(add_twin(graph, x, &twin, error));
        read_instead(graph, n_nodes, x, twin);
        QN_TRY(requantize(graph, x, twin, error));
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        qn_tensor *const y = graph->outputs[i];
        qn_tensor *twin;
        if (!is_signed_byte(y) || border[y->id] || y->producer == NULL)
            continue;
        border[y->id] = 1;
        QN_TRY(add_twin(graph, y, &twin, error));
        read_instead(graph, n_nodes, y, twin);
        qn__node_set_output(y->producer, y->producer_output, twin);
        QN_TRY(requantize(graph, twin, y, error));
    }
    return QN_OK;
}

/* Operands beside activations, and what is moved, are of the output's type; weights stay. */
static bool is_value(const qn_node *node, uint32_t slot)
{
    return node->op == QN_OP_ADD || node->op == QN_OP_SUB || node->op == QN_OP_MUL ||
           node->op == QN_OP_CONCAT ||
           (slot == 0 && (qn__op_flags(node->op) & QN_OPF_SAME_VALUES) != 0);
}

static qn_status change_constant(qn_graph *graph, qn_tensor **t, qn_error *error)
{
    const qn_tensor *const from = *t;
    const uint8_t *const bytes = from->constant->data;
    const size_t n = from->constant->size_bytes;
    int64_t dims[QN_MAX_RANK];
    qn_type type;
    void *data;
    if (!qn__tensor_static_dims(from, dims))
        return QN_OK;
    QN_TRY(unsigned_type(graph, from, &type, error));
    qn_blob *const blob = qn__blob_create(graph->ctx, n, &data);
    const char *const name = qn__arena_printf(&graph->arena, "%s_unsigned", from->name);
    if (blob == NULL || name == NULL) {
        qn__blob_unref(blob);
        return QN_NOMEM(error);
    }
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)data)[i] = bytes[i] ^ 0x80;
    *t = qn__graph_add_constant(graph, name, type, from->rank, dims, blob);
    qn__blob_unref(blob);
    return *t != NULL ? QN_OK : QN_NOMEM(error);
}

/* Float32 sums round near ties as those of the bytes that were read, and are truncated as they. */
static qn_status mark_sum(qn_graph *graph, qn_node *node, qn_error *error)
{
    const bool truncates =
        node->op == QN_OP_RESIZE && node->n_inputs > 0 && qn__attr_int(node, "truncates", 0) != 0;
    if (truncates && is_signed_byte(node->inputs[0]))
        return qn__node_set_int(graph, node, "signed", 1) ? QN_OK : QN_NOMEM(error);
    if (node->op != QN_OP_ADD || node->n_inputs != 2 || !is_signed_byte(node->inputs[0]) ||
        !is_signed_byte(node->inputs[1]) || !is_signed_byte(node->outputs[0]))
        return QN_OK;
    return qn__node_set_int(graph, node, "signed", 1) ? QN_OK : QN_NOMEM(error);
}

/* A table of bytes is by bytes as they will be. */
static qn_status change_table(qn_graph *graph, qn_node *node, qn_error *error)
{
    qn_tensor *const from = node->op == QN_OP_TABLE && node->n_inputs == 2 ? node->inputs[1] : NULL;
    if (from == NULL || from->constant == NULL || from->constant->size_bytes != TABLE_BYTES ||
        node->inputs[0] == NULL || node->inputs[0]->constant != NULL)
        return QN_OK;
    const uint8_t turn = is_signed_byte(node->inputs[0]) ? 0x80 : 0;
    const uint8_t flip = is_signed_byte(node->outputs[0]) ? 0x80 : 0;
    void *data;
    if (turn == 0 && flip == 0)
        return QN_OK;
    qn_blob *const blob = qn__blob_create(graph->ctx, TABLE_BYTES, &data);
    if (blob == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < TABLE_BYTES; i++)
        ((uint8_t *)data)[i ^ turn] = (uint8_t)(((const uint8_t *)from->constant->data)[i] ^ flip);
    node->inputs[1] =
        qn__graph_add_constant(graph, from->name, from->type, 1, (int64_t[]){TABLE_BYTES}, blob);
    qn__blob_unref(blob);
    return node->inputs[1] != NULL ? QN_OK : QN_NOMEM(error);
}

static qn_status change_all(qn_graph *graph, uint8_t *border, qn_error *error)
{
    const size_t n_tensors = graph->n_tensors;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        QN_TRY(mark_sum(graph, graph->nodes[i], error));
        QN_TRY(change_table(graph, graph->nodes[i], error));
    }
    QN_TRY(change_borders(graph, border, error));
    for (size_t i = 0; i < n_tensors; i++) {
        qn_tensor *const t = graph->tensors[i];
        if (is_signed_byte(t) && t->constant == NULL && !border[t->id])
            QN_TRY(unsigned_type(graph, t, &t->type, error));
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *const node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs; k++)
            if (is_signed_byte(node->inputs[k]) && node->inputs[k]->constant != NULL &&
                is_value(node, k))
                QN_TRY(change_constant(graph, &node->inputs[k], error));
    }
    return qn__graph_sort(graph, error);
}

qn_status qn__signed_bytes_to_unsigned(qn_graph *graph, qn_error *error)
{
    bool any = false;
    for (size_t i = 0; i < graph->n_tensors && !any; i++)
        any = is_signed_byte(graph->tensors[i]) && graph->tensors[i]->constant == NULL;
    if (!any)
        return QN_OK;
    uint8_t *const border = qn__calloc(graph->ctx, graph->n_tensors + 1, 1);
    const qn_status status = border != NULL ? change_all(graph, border, error) : QN_NOMEM(error);
    qn__free(graph->ctx, border);
    return status;
}
