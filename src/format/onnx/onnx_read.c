/* ONNX document -> graph. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_inline.h"
#include "format/onnx/onnx_partial.h"

enum { MAX_ATTRS = 1000 }; /* names are compared pairwise */

static const qn_qop_info QOPS[QN_QOP_COUNT] = {
#define QN_QOP(id, domain, name, op) [QN_QOP_##id] = {domain, name, QN_OP_##op},
#include "format/onnx/onnx_qops.def"
#undef QN_QOP
};

const qn_qop_info *qn__qop_info(qn_qop qop)
{
    return &QOPS[qop];
}

static qn_status fail_at(const qn_onnx_node *source, const char *name, qn_error *error,
                         qn_status status, const char *format, va_list args) QN_PRINTF(5, 0);
static qn_status fail_at(const qn_onnx_node *source, const char *name, qn_error *error,
                         qn_status status, const char *format, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof(text), format, args);
    return qn__error_set(error, status, "node \"%s\" %s%s%s: %s", name, source->domain,
                         source->domain[0] ? "." : "", source->op_type, text);
}

qn_status qn__onnx_node_fail(const qn_onnx_reader *r, const qn_node *node, qn_error *error,
                             qn_status status, const char *format, ...)
{
    const qn_onnx_node made = {.domain = "", .op_type = qn__op_name(node->op)};
    va_list args;
    va_start(args, format);
    fail_at(node->n_sources > 0 ? &r->source->nodes[node->sources[0]] : &made, node->name, error,
            status, format, args);
    va_end(args);
    return status;
}

QN_PRINTF(5, 6)
static qn_status source_fail(const qn_onnx_node *source, const char *name, qn_error *error,
                             qn_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_at(source, name, error, status, format, args);
    va_end(args);
    return status;
}

/* --- inputs and constants ---------------------------------------------------------------------*/
static qn_status add_initializers(qn_onnx_reader *r, qn_error *error)
{
    qn_onnx_source *source = r->source;
    for (size_t i = 0; i < source->n_initializers; i++) {
        const qn_onnx_tensor *t = &source->initializers[i];
        QN_FAIL_IF(t->name[0] == '\0', error, QN_CORRUPT, "initializer %zu has no name", i);
        QN_FAIL_IF(qn__graph_find_tensor(r->graph, t->name), error, QN_CORRUPT,
                   "two initializers are called \"%s\"", t->name);
        qn_tensor *tensor = qn__graph_add_constant(r->graph, t->name, qn_type_plain_make(t->dtype),
                                                   t->rank, t->dims, t->blob);
        if (!tensor)
            return QN_NOMEM(error);
        tensor->source = (int32_t)i;
    }
    return QN_OK;
}

static qn_status set_value_shape(qn_graph *graph, qn_tensor *tensor, const qn_onnx_value *value,
                                 qn_error *error)
{
    if (!value->has_shape)
        return QN_OK;
    qn__tensor_set_shape(tensor, value->rank, value->dims);
    for (size_t d = 0; d < value->rank; d++) {
        if (value->dims[d] >= 0)
            continue;
        const char *symbol = value->symbols[d];
        char made[64];
        if (!symbol) { /* unknown, and not said to equal another dimension */
            snprintf(made, sizeof(made), "input%u_dim%zu", (unsigned)tensor->id, d);
            symbol = made;
        }
        tensor->dims[d] = (qn_dim){QN_DIM_SYMBOL, 1, qn__graph_intern(graph, symbol)};
        if (!tensor->dims[d].symbol)
            return QN_NOMEM(error);
    }
    return QN_OK;
}

static qn_status add_inputs(qn_onnx_reader *r, qn_error *error)
{
    qn_onnx_source *source = r->source;
    qn_graph *graph = r->graph;
    graph->inputs = qn__arena_calloc(&graph->arena, source->n_inputs, sizeof(*graph->inputs));
    if (!graph->inputs)
        return QN_NOMEM(error);
    for (size_t i = 0; i < source->n_inputs; i++) {
        const qn_onnx_value *value = &source->inputs[i];
        qn_tensor *tensor = qn__graph_find_tensor(graph, value->name);
        if (tensor && tensor->constant && !source->initializers[tensor->source].is_input) {
            source->initializers[tensor->source].is_input = true;
            continue; /* has a default: not asked for when running */
        }
        QN_FAIL_IF(tensor, error, QN_CORRUPT, "two graph inputs are called \"%s\"", value->name);
        QN_FAIL_IF(value->is_other, error, QN_UNSUPPORTED,
                   "graph input \"%s\" is not a tensor of a supported type", value->name);
        QN_FAIL_IF(value->dtype == QN_DTYPE_NONE, error, QN_CORRUPT,
                   "graph input \"%s\" has no type", value->name);
        tensor = qn__graph_add_tensor(graph, value->name, qn_type_plain_make(value->dtype));
        if (!tensor)
            return QN_NOMEM(error);
        QN_TRY(set_value_shape(graph, tensor, value, error));
        graph->inputs[graph->n_inputs++] = tensor;
    }
    return QN_OK;
}

/* --- Constant nodes ---------------------------------------------------------------------------*/
static qn_status constant_value(qn_onnx_reader *r, const qn_onnx_node *source, const char *name,
                                const qn_attr *attr, qn_onnx_tensor *out, qn_error *error)
{
    const qn_context *ctx = r->graph->ctx;
    out->dims[0] = (int64_t)attr->count;
    if (strcmp(attr->name, "value") == 0 && attr->kind == QN_ATTR_TENSOR) {
        out->dtype = attr->t_dtype;
        out->rank = attr->t_rank;
        memcpy(out->dims, attr->t_dims, out->rank * sizeof(*out->dims));
        out->blob = qn__blob_ref(attr->t);
    } else if (strcmp(attr->name, "value_float") == 0 && attr->kind == QN_ATTR_FLOAT) {
        out->dtype = QN_DTYPE_F32;
        out->blob = qn__blob_copy(ctx, &attr->f, sizeof(attr->f));
    } else if (strcmp(attr->name, "value_int") == 0 && attr->kind == QN_ATTR_INT) {
        out->dtype = QN_DTYPE_I64;
        out->blob = qn__blob_copy(ctx, &attr->i, sizeof(attr->i));
    } else if (strcmp(attr->name, "value_floats") == 0 && attr->kind == QN_ATTR_FLOATS) {
        out->dtype = QN_DTYPE_F32;
        out->rank = 1;
        out->blob = qn__blob_copy(ctx, attr->floats, attr->count * sizeof(float));
    } else if (strcmp(attr->name, "value_ints") == 0 && attr->kind == QN_ATTR_INTS) {
        out->dtype = QN_DTYPE_I64;
        out->rank = 1;
        out->blob = qn__blob_copy(ctx, attr->ints, attr->count * sizeof(int64_t));
    } else {
        return source_fail(source, name, error, QN_UNSUPPORTED, "attribute \"%s\"", attr->name);
    }
    return out->blob ? QN_OK : QN_NOMEM(error);
}

static qn_status add_literal(qn_onnx_reader *r, const qn_onnx_node *node, qn_error *error)
{
    const qn_onnx_tensor *t = node->literal;
    return qn__graph_add_constant(r->graph, node->outputs[0], qn_type_plain_make(t->dtype), t->rank,
                                  t->dims, t->blob)
               ? QN_OK
               : QN_NOMEM(error);
}

static qn_status add_constant_node(qn_onnx_reader *r, size_t index, const char *name,
                                   const qn_attr *attrs, size_t n_attrs, qn_error *error)
{
    qn_onnx_source *source = r->source;
    const qn_onnx_node *node = &source->nodes[index];
    if (node->literal)
        return add_literal(r, node, error);
    if (n_attrs != 1 || node->n_outputs != 1)
        return source_fail(node, name, error, QN_CORRUPT, "needs one value and one output");
    qn_onnx_tensor value = {.name = node->outputs[0]};
    QN_TRY(constant_value(r, node, name, &attrs[0], &value, error));
    source->constants[index] = value;
    qn_tensor *tensor = qn__graph_add_constant(
        r->graph, value.name, qn_type_plain_make(value.dtype), value.rank, value.dims, value.blob);
    if (!tensor)
        return QN_NOMEM(error);
    if (!node->inlined) /* what is written out has no bytes of its own in the file */
        tensor->source = (int32_t)(source->n_initializers + index);
    return QN_OK;
}

/* --- nodes ------------------------------------------------------------------------------------*/
static void release_attrs(qn_attr *attrs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        qn__blob_unref(attrs[i].t);
}

static qn_status read_attrs(qn_onnx_reader *r, const qn_onnx_node *source, const char *name,
                            qn_attr **out, uint32_t *n_out, qn_error *error)
{
    size_t count = 0;
    qn_wire w = qn__wire_open(source->body, "NodeProto", r->graph->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        count += f.number == NODE_ATTRIBUTE;
    }
    if (count > MAX_ATTRS)
        return source_fail(source, name, error, QN_LIMIT, "%zu attributes, the limit is %d", count,
                           MAX_ATTRS);
    qn_attr *attrs = qn__arena_calloc(&r->graph->arena, count, sizeof(*attrs));
    if (!attrs)
        return QN_NOMEM(error);
    uint32_t n = 0;
    qn_status status = QN_OK;
    w = qn__wire_open(source->body, "NodeProto", r->graph->ctx->limits.nesting);
    for (bool more = true; status == QN_OK;) {
        status = qn__wire_next(&w, &f, &more, error);
        if (status != QN_OK || !more)
            break;
        if (f.number != NODE_ATTRIBUTE)
            continue;
        status = qn__wire_expect(&w, &f, PB_WT_STRING, error);
        const char *own = NULL;
        qn_span body = f.body;
        if (status == QN_OK)
            status = qn__onnx_resolve_attr(r->source, source, &body, &own, error);
        if (status == QN_OK && body.size == 0 && own) /* the caller says nothing */
            continue;
        if (status == QN_OK)
            status = qn__onnx_read_attr(r->source, &r->graph->arena, body, &attrs[n], error);
        if (status == QN_OK && own)
            attrs[n].name = own;
        if (status != QN_OK) {
            qn__error_prefix(error, status, "node \"%s\" %s", name, source->op_type);
            break;
        }
        n++;
        for (uint32_t i = 0; i + 1 < n && status == QN_OK; i++)
            if (strcmp(attrs[i].name, attrs[n - 1].name) == 0)
                status = source_fail(source, name, error, QN_CORRUPT, "two attributes \"%s\"",
                                     attrs[i].name);
    }
    if (status != QN_OK) {
        release_attrs(attrs, n);
        return status;
    }
    *out = attrs;
    *n_out = n;
    return QN_OK;
}

qn_op qn__onnx_find_op(const qn_onnx_node *node, int64_t opset, qn_qop *qop)
{
    *qop = QN_QOP_NONE;
    for (int i = 1; i < QN_QOP_COUNT; i++) {
        if (strcmp(QOPS[i].domain, node->domain) == 0 && strcmp(QOPS[i].name, node->op_type) == 0) {
            *qop = (qn_qop)i;
            return QOPS[i].op;
        }
    }
    if (node->domain[0] == '\0' && strcmp(node->op_type, "Upsample") == 0 && opset < 10)
        return QN_OP_RESIZE;
    if (node->domain[0] == '\0' && strcmp(node->op_type, "Scatter") == 0)
        return QN_OP_SCATTER_ELEMENTS;
    const bool microsoft = strcmp(node->domain, "com.microsoft") == 0;
    if (microsoft && strcmp(node->op_type, "QuantizeLinear") == 0)
        return QN_OP_QUANTIZE_LINEAR;
    if (microsoft && strcmp(node->op_type, "DequantizeLinear") == 0)
        return QN_OP_DEQUANTIZE_LINEAR;
    if (node->domain[0] != '\0')
        return QN_OP_NONE; /* "quench" operators are never in a file */
    return qn__op_find("", node->op_type);
}

static qn_status add_outputs(qn_onnx_reader *r, qn_node *node, const qn_onnx_node *source,
                             qn_error *error)
{
    qn_graph *graph = r->graph;
    for (uint32_t i = 0; i < source->n_outputs; i++) {
        const char *name = source->outputs[i];
        if (name[0] == '\0' && i == 0) { /* every node has a first output here */
            qn_tensor *made =
                qn__graph_add_tensor(graph, node->name, qn_type_plain_make(QN_DTYPE_NONE));
            if (!made)
                return QN_NOMEM(error);
            qn__node_set_output(node, 0, made);
        }
        if (name[0] == '\0')
            continue;
        if (qn__graph_find_tensor(graph, name))
            return source_fail(source, node->name, error, QN_CORRUPT,
                               "makes \"%s\", which is already made elsewhere", name);
        qn_tensor *tensor = qn__graph_add_tensor(graph, name, qn_type_plain_make(QN_DTYPE_NONE));
        if (!tensor)
            return QN_NOMEM(error);
        qn__node_set_output(node, i, tensor);
    }
    return QN_OK;
}

static qn_status add_node(qn_onnx_reader *r, size_t index, qn_error *error)
{
    qn_graph *graph = r->graph;
    const qn_onnx_node *source = &r->source->nodes[index];
    const char *name = source->name;
    if (name[0] == '\0')
        name = qn__arena_printf(&graph->arena, "%s_%s", source->op_type,
                                source->n_outputs > 0 ? source->outputs[0] : "");
    if (!name)
        return QN_NOMEM(error);
    if (strcmp(source->op_type, "If") == 0 && source->domain[0] == '\0')
        return source_fail(source, name, error, QN_UNSUPPORTED,
                           "its condition is not a constant of the file");
    qn_qop qop;
    const qn_op op = qn__onnx_find_op(source, r->source->opset, &qop);
    if (op == QN_OP_NONE)
        return source_fail(source, name, error, QN_UNSUPPORTED, "the operator is not supported");
    bool makes = false;
    for (uint32_t i = 0; i < source->n_outputs; i++)
        makes = makes || source->outputs[i][0] != '\0';
    if (!makes || (op == QN_OP_CONSTANT && source->outputs[0][0] == '\0'))
        return source_fail(source, name, error, QN_CORRUPT, "makes nothing");
    qn_attr *attrs = NULL;
    uint32_t n_attrs = 0;
    QN_TRY(read_attrs(r, source, name, &attrs, &n_attrs, error));
    if (op == QN_OP_CONSTANT) {
        qn_status status = QN_OK;
        if (qn__graph_find_tensor(graph, source->outputs[0]))
            status =
                source_fail(source, name, error, QN_CORRUPT,
                            "makes \"%s\", which is already made elsewhere", source->outputs[0]);
        else
            status = add_constant_node(r, index, name, attrs, n_attrs, error);
        release_attrs(attrs, n_attrs);
        return status;
    }
    uint32_t *sources = qn__arena_calloc(&graph->arena, 1, sizeof(*sources));
    qn_node *node =
        sources ? qn__graph_add_node(graph, SIZE_MAX, op, name, source->n_inputs, source->n_outputs)
                : NULL;
    if (!node) {
        release_attrs(attrs, n_attrs);
        return QN_NOMEM(error);
    }
    sources[0] = (uint32_t)index;
    node->sources = sources;
    node->n_sources = 1;
    node->attrs = attrs;
    node->n_attrs = n_attrs;
    r->qops[node->id] = (uint8_t)qop;
    for (uint32_t i = 0; i < n_attrs; i++)
        if (attrs[i].kind == QN_ATTR_OPAQUE && attrs[i].name[0] != '\0')
            return source_fail(source, name, error, QN_UNSUPPORTED,
                               "attribute \"%s\" is a graph or of an unknown kind", attrs[i].name);
    return add_outputs(r, node, source, error);
}

static void mark_used(qn_onnx_source *source, const qn_tensor *tensor)
{
    if (tensor->source >= 0 && (size_t)tensor->source < source->n_initializers)
        source->initializers[tensor->source].is_used = true;
}

static qn_status link_inputs(qn_onnx_reader *r, qn_error *error)
{
    for (size_t i = 0; i < r->graph->n_nodes; i++) {
        qn_node *node = r->graph->nodes[i];
        const qn_onnx_node *source = &r->source->nodes[node->sources[0]];
        for (uint32_t k = 0; k < source->n_inputs; k++) {
            if (source->inputs[k][0] == '\0')
                continue;
            node->inputs[k] = qn__graph_find_tensor(r->graph, source->inputs[k]);
            if (!node->inputs[k])
                return source_fail(source, node->name, error, QN_CORRUPT,
                                   "reads \"%s\", which nothing makes", source->inputs[k]);
            mark_used(r->source, node->inputs[k]);
        }
        while (node->n_inputs > 0 && !node->inputs[node->n_inputs - 1])
            node->n_inputs--;
    }
    return QN_OK;
}

static qn_status link_outputs(qn_onnx_reader *r, qn_error *error)
{
    qn_onnx_source *source = r->source;
    qn_graph *graph = r->graph;
    QN_FAIL_IF(source->n_outputs == 0, error, QN_CORRUPT, "the graph has no outputs");
    graph->outputs = qn__arena_calloc(&graph->arena, source->n_outputs, sizeof(*graph->outputs));
    if (!graph->outputs)
        return QN_NOMEM(error);
    for (size_t i = 0; i < source->n_outputs; i++) {
        qn_tensor *tensor = qn__graph_find_tensor(graph, source->outputs[i].name);
        QN_FAIL_IF(!tensor, error, QN_CORRUPT, "graph output \"%s\": nothing makes it",
                   source->outputs[i].name);
        mark_used(source, tensor);
        graph->outputs[graph->n_outputs++] = tensor;
    }
    return QN_OK;
}

static qn_status build(qn_onnx_reader *r, qn_error *error)
{
    r->graph->name = qn__arena_strdup(&r->graph->arena, r->source->graph_name);
    r->n_qops = r->source->n_nodes;
    r->qops = qn__calloc(r->graph->ctx, r->n_qops + 1, 1);
    if (!r->graph->name || !r->qops)
        return QN_NOMEM(error);
    QN_TRY(add_initializers(r, error));
    QN_TRY(add_inputs(r, error));
    for (size_t i = 0; i < r->source->n_nodes; i++)
        QN_TRY(add_node(r, i, error));
    QN_TRY(link_inputs(r, error));
    return link_outputs(r, error);
}

/* Steps whose messages do not name the file yet. */
static qn_status raise_meaning(qn_onnx_reader *r, qn_error *error)
{
    QN_TRY(qn__onnx_upgrade(r, error));
    QN_TRY(qn__onnx_expand(r, error));
    return qn__onnx_read_types(r, error);
}

static qn_status finish(qn_onnx_reader *r, const char *path, qn_error *error)
{
    qn_graph *graph = r->graph;
    qn_status status = build(r, error);
    if (status != QN_OK)
        return qn__error_prefix(error, status, "%s", path);
    QN_TRY(qn__graph_sort(graph, error));
    status = raise_meaning(r, error);
    if (status != QN_OK)
        return qn__error_prefix(error, status, "%s", path);
    QN_TRY(qn__graph_infer(graph, error));
    bool changed = false;
    status = qn__onnx_upgrade_shaped(r, &changed, error);
    if (status == QN_OK)
        status = qn__onnx_lower_made_scales(r, &changed, error);
    if (status != QN_OK)
        return qn__error_prefix(error, status, "%s", path);
    graph->opset = ONNX_NEWEST_OPSET;
    graph->requantize = r->source->requantize;
    if (changed)
        QN_TRY(qn__graph_infer(graph, error));
    return qn__graph_verify(graph, error);
}

static qn_status read_document(const qn_context *ctx, const char *path, qn_blob *file, bool partial,
                               qn_graph **out, qn_error *error)
{
    qn_onnx_reader r = {0};
    qn_status status = qn__onnx_source_read(ctx, path, file, partial, &r.source, error);
    if (status != QN_OK)
        return qn__error_prefix(error, status, "%s", path);
    status = partial ? qn__onnx_set_aside(r.source, error) : QN_OK;
    if (status != QN_OK) {
        qn__source_unref(&r.source->base);
        return qn__error_prefix(error, status, "%s", path);
    }
    status = qn__graph_create(ctx, &r.graph, error);
    if (status != QN_OK) {
        qn__source_unref(&r.source->base);
        return status;
    }
    r.graph->source = &r.source->base; /* the graph's reference from here on */
    r.graph->file = qn__arena_strdup(&r.graph->arena, path);
    status = r.graph->file ? finish(&r, path, error) : QN_NOMEM(error);
    const qn_status memory = qn__arena_check(&r.graph->arena, error);
    status = memory != QN_OK ? memory : status;
    qn__free(ctx, r.qops);
    if (status != QN_OK) {
        qn__graph_destroy(r.graph);
        return status;
    }
    *out = r.graph;
    return QN_OK;
}

qn_status qn__onnx_read(const qn_context *ctx, const char *path, qn_blob *file, qn_graph **out,
                        qn_error *error)
{
    return read_document(ctx, path, file, false, out, error);
}

qn_status qn__onnx_read_partial(const qn_context *ctx, const char *path, qn_blob *file,
                                qn_graph **out, qn_error *error)
{
    return read_document(ctx, path, file, true, out, error);
}
