/* NodeProto, AttributeProto, TensorProto and ValueInfoProto from the graph. A node that came from
 * the file keeps every field quench does not know, and attributes that did not change keep their
 * bytes. */
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_write.h"

qn_status qn__onnx_encode_tensor_head(const char *name, qn_dtype dtype, size_t rank,
                                      const int64_t *dims, qn_onnx_out *out, qn_error *error)
{
    const int64_t data_type = qn__dtype_onnx(dtype);
    QN_FAIL_IF(data_type == 0, error, QN_UNSUPPORTED, "tensor \"%s\": ONNX has no type for %s",
               name, qn__dtype_name(dtype));
    for (size_t i = 0; i < rank; i++)
        qn__out_int(out, TENSOR_DIMS, dims[i]);
    qn__out_int(out, TENSOR_DATA_TYPE, data_type);
    if (name[0])
        qn__out_string(out, TENSOR_NAME, name);
    return QN_OK;
}

qn_status qn__onnx_encode_tensor(const char *name, qn_dtype dtype, size_t rank, const int64_t *dims,
                                 const qn_blob *blob, qn_onnx_out *out, qn_error *error)
{
    QN_TRY(qn__onnx_encode_tensor_head(name, dtype, rank, dims, out, error));
    qn__out_span(out, TENSOR_RAW_DATA, blob->data, blob->size_bytes, true);
    return QN_OK;
}

/* --- attributes -------------------------------------------------------------------------------*/
static bool same_attr(const qn_attr *a, const qn_attr *b)
{
    if (a->kind != b->kind || strcmp(a->name, b->name) != 0 || a->count != b->count)
        return false;
    switch (a->kind) {
    case QN_ATTR_FLOAT:
        return memcmp(&a->f, &b->f, sizeof(a->f)) == 0;
    case QN_ATTR_INT:
        return a->i == b->i;
    case QN_ATTR_STRING:
        return strcmp(a->s, b->s) == 0;
    case QN_ATTR_FLOATS:
        return a->count == 0 || memcmp(a->floats, b->floats, a->count * sizeof(float)) == 0;
    case QN_ATTR_INTS:
        return a->count == 0 || memcmp(a->ints, b->ints, a->count * sizeof(int64_t)) == 0;
    case QN_ATTR_STRINGS:
        for (size_t i = 0; i < a->count; i++)
            if (strcmp(a->strings[i], b->strings[i]) != 0)
                return false;
        return true;
    case QN_ATTR_TENSOR:
        return a->t_dtype == b->t_dtype && a->t_rank == b->t_rank &&
               memcmp(a->t_dims, b->t_dims, a->t_rank * sizeof(int64_t)) == 0 &&
               a->t->size_bytes == b->t->size_bytes &&
               (a->t->size_bytes == 0 || memcmp(a->t->data, b->t->data, a->t->size_bytes) == 0);
    case QN_ATTR_OPAQUE:
        return true;
    }
    return false;
}

static qn_status encode_attr(const qn_onnx_writer *w, const qn_attr *attr, qn_onnx_out *node,
                             qn_error *error)
{
    qn_onnx_out out, tensor;
    qn_status status = QN_OK;
    qn__out_init(&out, w->graph->ctx);
    qn__out_init(&tensor, w->graph->ctx);
    qn__out_string(&out, ATTR_NAME, attr->name);
    switch (attr->kind) {
    case QN_ATTR_FLOAT:
        qn__out_float(&out, ATTR_F, attr->f);
        break;
    case QN_ATTR_INT:
        qn__out_int(&out, ATTR_I, attr->i);
        break;
    case QN_ATTR_STRING:
        qn__out_string(&out, ATTR_S, attr->s);
        break;
    case QN_ATTR_TENSOR:
        status = qn__onnx_encode_tensor("", attr->t_dtype, attr->t_rank, attr->t_dims, attr->t,
                                        &tensor, error);
        qn__out_message(&out, ATTR_T, &tensor);
        break;
    case QN_ATTR_FLOATS:
        for (size_t i = 0; i < attr->count; i++)
            qn__out_float(&out, ATTR_FLOATS, attr->floats[i]);
        break;
    case QN_ATTR_INTS:
        for (size_t i = 0; i < attr->count; i++)
            qn__out_int(&out, ATTR_INTS, attr->ints[i]);
        break;
    case QN_ATTR_STRINGS:
        for (size_t i = 0; i < attr->count; i++)
            qn__out_string(&out, ATTR_STRINGS, attr->strings[i]);
        break;
    case QN_ATTR_OPAQUE:
        status = qn__error_set(error, QN_INTERNAL, "attribute \"%s\" lost its source", attr->name);
        break;
    }
    qn__out_int(&out, ATTR_TYPE, attr->kind); /* kinds are numbered as in the file */
    qn__out_message(node, NODE_ATTRIBUTE, &out);
    qn__out_free(&out);
    qn__out_free(&tensor);
    return status;
}

/* Copies the file's attribute of this name when its value is still the same. */
static qn_status copy_attr(const qn_onnx_writer *w, const qn_onnx_node *source, const qn_attr *attr,
                           qn_onnx_out *out, bool *copied, qn_error *error)
{
    *copied = false;
    qn_wire wire = qn__wire_open(source->rest, "NodeProto", w->graph->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&wire, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number != NODE_ATTRIBUTE)
            continue;
        qn_attr old;
        QN_TRY(qn__onnx_read_attr(w->source, &w->graph->arena, f.body, &old, error));
        const bool same = same_attr(attr, &old);
        qn__blob_unref(old.t);
        if (same) {
            qn__out_borrow(out, f.whole.data, f.whole.size);
            *copied = true;
            return QN_OK;
        }
    }
}

/* --- nodes ------------------------------------------------------------------------------------*/
static qn_status copy_other_fields(const qn_onnx_node *source, qn_onnx_out *out, qn_error *error)
{
    qn_wire wire = qn__wire_open(source->rest, "NodeProto", 1);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&wire, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number > NODE_ATTRIBUTE && f.number != NODE_DOMAIN)
            qn__out_borrow(out, f.whole.data, f.whole.size);
    }
}

/* Attributes of compact files (pass/unsigned_bytes.c), or that say how ONNX has a node. */
static bool is_ours(const qn_node *node, const char *name)
{
    return ((node->op == QN_OP_ADD || node->op == QN_OP_RESIZE) && strcmp(name, "signed") == 0) ||
           (node->op == QN_OP_RESIZE && strcmp(name, "truncates") == 0) ||
           (node->op == QN_OP_LSTM && strcmp(name, "rounds_state") == 0);
}

qn_status qn__onnx_encode_node(const qn_onnx_writer *w, const qn_node *node, qn_onnx_out *out,
                               qn_error *error)
{
    const qn_onnx_node *source =
        w->source && node->n_sources > 0 ? &w->source->nodes[node->sources[0]] : NULL;
    if (source && source->inlined) /* its attributes may be a function's */
        source = NULL;
    qn_written_op op = {qn__op_domain(node->op), qn__op_name(node->op)};
    if (node->id < w->n_ops && w->ops[node->id].name)
        op = w->ops[node->id];
    QN_FAIL_IF(op.domain[0] && strcmp(op.domain, "com.microsoft") != 0, error, QN_INTERNAL,
               "node \"%s\": %s is not an ONNX operator", node->name, op.name);
    for (uint32_t i = 0; i < node->n_inputs; i++)
        qn__out_string(out, NODE_INPUT, node->inputs[i] ? node->inputs[i]->name : "");
    for (uint32_t i = 0; i < node->n_outputs; i++)
        qn__out_string(out, NODE_OUTPUT, node->outputs[i] ? node->outputs[i]->name : "");
    if (!source || source->name[0])
        qn__out_string(out, NODE_NAME, node->name);
    qn__out_string(out, NODE_OP_TYPE, op.name);
    for (uint32_t i = 0; i < node->n_attrs; i++) {
        bool copied = false;
        if (is_ours(node, node->attrs[i].name)) {
            if (node->op == QN_OP_LSTM)
                qn__log(w->graph->ctx, QN_LOG_WARNING,
                        "node \"%s\" (LSTM) is written without the rounding of its state to bytes",
                        node->name);
            continue;
        }
        if (source)
            QN_TRY(copy_attr(w, source, &node->attrs[i], out, &copied, error));
        if (!copied)
            QN_TRY(encode_attr(w, &node->attrs[i], out, error));
    }
    if (source)
        QN_TRY(copy_other_fields(source, out, error));
    if (op.domain[0])
        qn__out_string(out, NODE_DOMAIN, op.domain);
    return QN_OK;
}

/* --- inputs and outputs of a graph that has no source document
 * ----------------------------------*/
qn_status qn__onnx_encode_value(const qn_onnx_writer *w, uint32_t field, const qn_tensor *tensor,
                                qn_onnx_out *graph, qn_error *error)
{
    qn_onnx_out value, type, elem, shape, dim;
    qn_onnx_out *const all[] = {&value, &type, &elem, &shape, &dim};
    for (size_t i = 0; i < 5; i++)
        qn__out_init(all[i], w->graph->ctx);
    const int64_t data_type = qn__dtype_onnx(tensor->type.dtype);
    qn_status status = QN_OK;
    if (data_type == 0)
        status = qn__error_set(error, QN_UNSUPPORTED, "\"%s\": ONNX has no type for %s",
                               tensor->name, qn__dtype_name(tensor->type.dtype));
    qn__out_int(&elem, TYPE_TENSOR_ELEM, data_type);
    for (size_t d = 0; d < tensor->rank && tensor->has_shape; d++) {
        const qn_dim *v = &tensor->dims[d];
        qn__out_free(&dim);
        qn__out_init(&dim, w->graph->ctx);
        if (v->kind == QN_DIM_CONST)
            qn__out_int(&dim, DIM_VALUE, v->value);
        else if (v->kind == QN_DIM_SYMBOL && v->value == 1)
            qn__out_string(&dim, DIM_PARAM, v->symbol);
        qn__out_message(&shape, SHAPE_DIM, &dim);
    }
    if (tensor->has_shape)
        qn__out_message(&elem, TYPE_TENSOR_SHAPE, &shape);
    qn__out_message(&type, TYPE_TENSOR, &elem);
    qn__out_string(&value, VALUE_NAME, tensor->name);
    qn__out_message(&value, VALUE_TYPE, &type);
    qn__out_message(graph, field, &value);
    for (size_t i = 0; i < 5; i++)
        qn__out_free(all[i]);
    return status;
}
