/* Decodes the document: model, graph, nodes, initializers, inputs, outputs. Attributes and value
 * types of unused parts stay bytes. */
#include "format/onnx/onnx_source.h"

#include "format/onnx/onnx_inline.h"

#include <inttypes.h>
#include <string.h>

#include "core/context.h"

typedef struct node_counts {
    size_t inputs, outputs;
} node_counts;

static void source_destroy(qn_source *base)
{
    qn_onnx_source *source = (qn_onnx_source *)base;
    const qn_context *ctx = source->ctx;
    for (size_t i = 0; i < source->n_initializers; i++)
        qn__blob_unref(source->initializers[i].blob);
    for (size_t i = 0; source->constants && i < source->n_nodes; i++) {
        qn__blob_unref(source->constants[i].blob);
        if (source->nodes[i].literal)
            qn__blob_unref(source->nodes[i].literal->blob);
    }
    for (size_t i = 0; i < source->n_external; i++)
        qn__blob_unref(source->external[i].blob);
    qn__free(ctx, source->external);
    qn__names_free(ctx, &source->aside_names);
    qn__blob_unref(source->file);
    qn__arena_free(&source->arena);
    qn__free(ctx, source);
}

static const struct qn_source_vtable VTABLE = {source_destroy};

qn_onnx_source *qn__onnx_source_of(const qn_graph *graph)
{
    return graph->source && graph->source->vtable == &VTABLE ? (qn_onnx_source *)graph->source
                                                             : NULL;
}

static bool is_text(const qn_field *f, const char *text)
{
    const size_t n = strlen(text);
    return f->type == PB_WT_STRING && f->body.size == n && memcmp(f->body.data, text, n) == 0;
}

/* --- opsets, functions ------------------------------------------------------------------------*/
static qn_status read_opset(qn_onnx_source *source, const qn_wire *w, const qn_field *field,
                            int64_t *out, qn_error *error)
{
    qn_wire opset;
    QN_TRY(qn__wire_enter(w, field, "OperatorSetIdProto", &opset, error));
    const char *domain = "";
    int64_t version = 0;
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&opset, &f, &more, error));
        if (!more)
            break;
        if (f.number == OPSET_DOMAIN) {
            QN_TRY(qn__wire_string(&opset, &f, &source->arena, &domain, error));
        } else if (f.number == OPSET_VERSION) {
            QN_TRY(qn__wire_expect(&opset, &f, PB_WT_VARINT, error));
            version = (int64_t)f.value;
        }
    }
    if (domain[0] == '\0' || strcmp(domain, "ai.onnx") == 0) {
        QN_FAIL_IF(*out != 0 && *out != version, error, QN_CORRUPT,
                   "two imports of ai.onnx: %" PRId64 " and %" PRId64, *out, version);
        *out = version;
    }
    return QN_OK;
}

static qn_status read_function(qn_onnx_source *source, const qn_wire *w, const qn_field *field,
                               qn_error *error)
{
    qn_wire function;
    QN_TRY(qn__wire_enter(w, field, "FunctionProto", &function, error));
    qn_onnx_function *const out = &source->functions[source->n_functions];
    *out = (qn_onnx_function){.body = field->body, .name = "", .domain = ""};
    size_t n_inputs = 0, n_outputs = 0;
    qn_wire copy = function;
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&copy, &f, &more, error));
        if (!more)
            break;
        n_inputs += f.number == FUNCTION_INPUT;
        n_outputs += f.number == FUNCTION_OUTPUT;
    }
    out->inputs = qn__arena_calloc(&source->arena, n_inputs, sizeof(*out->inputs));
    out->outputs = qn__arena_calloc(&source->arena, n_outputs, sizeof(*out->outputs));
    if (!out->inputs || !out->outputs)
        return QN_NOMEM(error);
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&function, &f, &more, error));
        if (!more)
            break;
        const char **text = NULL;
        if (f.number == FUNCTION_DOMAIN)
            text = &out->domain;
        else if (f.number == FUNCTION_NAME)
            text = &out->name;
        else if (f.number == FUNCTION_INPUT)
            text = &out->inputs[out->n_inputs++];
        else if (f.number == FUNCTION_OUTPUT)
            text = &out->outputs[out->n_outputs++];
        else if (f.number == FUNCTION_OPSET_IMPORT)
            QN_TRY(read_opset(source, &function, &f, &out->opset, error));
        if (text)
            QN_TRY(qn__wire_string(&function, &f, &source->arena, text, error));
    }
    if (strcmp(out->domain, "ai.onnx") == 0)
        out->domain = "";
    source->n_functions++;
    return QN_OK;
}

qn_status qn__onnx_requantize_property(const qn_wire *w, const qn_field *field, bool *ours,
                                       qn_span *value, qn_error *error)
{
    qn_wire entry;
    QN_TRY(qn__wire_enter(w, field, "StringStringEntryProto", &entry, error));
    qn_field f;
    *ours = false;
    *value = (qn_span){0};
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&entry, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number == METADATA_KEY)
            *ours = is_text(&f, QN_ONNX_REQUANTIZE);
        else if (f.number == METADATA_VALUE)
            *value = f.body;
    }
}

static qn_status read_metadata(qn_onnx_source *source, const qn_wire *w, const qn_field *field,
                               qn_error *error)
{
    bool ours;
    qn_span value;
    QN_TRY(qn__onnx_requantize_property(w, field, &ours, &value, error));
    if (!ours)
        return QN_OK;
    for (int kind = QN_REQUANTIZE_FLOAT; kind < QN_REQUANTIZE_COUNT; kind++) {
        const char *const name = qn__requantize_name((qn_requantize)kind);
        if (value.size != strlen(name) || memcmp(value.data, name, value.size) != 0)
            continue;
        source->requantize = (qn_requantize)kind;
        return QN_OK;
    }
    QN_FAIL(error, QN_UNSUPPORTED, "metadata %s: \"%.*s\" is no known kind", QN_ONNX_REQUANTIZE,
            value.size < 64 ? (int)value.size : 64,
            value.data != NULL ? (const char *)value.data : "");
}

static qn_status read_model(qn_onnx_source *source, qn_error *error)
{
    size_t n_functions = 0;
    bool has_graph = false;
    qn_wire w = qn__wire_open(source->model, "ModelProto", source->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        switch (f.number) {
        case MODEL_IR_VERSION:
            QN_TRY(qn__wire_expect(&w, &f, PB_WT_VARINT, error));
            source->ir_version = (int64_t)f.value;
            break;
        case MODEL_OPSET_IMPORT:
            QN_TRY(read_opset(source, &w, &f, &source->opset, error));
            break;
        case MODEL_METADATA:
            QN_TRY(read_metadata(source, &w, &f, error));
            break;
        case MODEL_GRAPH:
            QN_TRY(qn__wire_expect(&w, &f, PB_WT_STRING, error));
            QN_FAIL_IF(has_graph, error, QN_CORRUPT, "the model has two graphs");
            source->graph = f.body;
            has_graph = true;
            break;
        case MODEL_FUNCTIONS:
            n_functions++;
            break;
        default:
            break;
        }
    }
    QN_FAIL_IF(!has_graph, error, QN_CORRUPT, "the model has no graph");
    QN_FAIL_IF(source->ir_version < ONNX_OLDEST_IR || source->ir_version > ONNX_NEWEST_IR, error,
               QN_UNSUPPORTED, "IR version %" PRId64 " is outside %d..%d", source->ir_version,
               ONNX_OLDEST_IR, ONNX_NEWEST_IR);
    QN_FAIL_IF(source->opset < ONNX_OLDEST_OPSET || source->opset > ONNX_NEWEST_OPSET, error,
               QN_UNSUPPORTED, "opset %" PRId64 " of ai.onnx is outside %d..%d", source->opset,
               ONNX_OLDEST_OPSET, ONNX_NEWEST_OPSET);
    source->functions = qn__arena_calloc(&source->arena, n_functions, sizeof(*source->functions));
    if (!source->functions)
        return QN_NOMEM(error);
    w = qn__wire_open(source->model, "ModelProto", source->ctx->limits.nesting);
    for (bool more = true; n_functions > 0;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number == MODEL_FUNCTIONS)
            QN_TRY(read_function(source, &w, &f, error));
    }
    return QN_OK;
}

/* --- nodes ------------------------------------------------------------------------------------*/
static qn_status count_node(const qn_wire *w, node_counts *n, qn_error *error)
{
    qn_wire copy = *w;
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&copy, &f, &more, error));
        if (!more)
            return QN_OK;
        n->inputs += f.number == NODE_INPUT;
        n->outputs += f.number == NODE_OUTPUT;
    }
}

qn_status qn__onnx_read_node(qn_onnx_source *source, const qn_wire *graph, const qn_field *field,
                             qn_onnx_node *out, qn_error *error)
{
    qn_wire w;
    QN_TRY(qn__wire_enter(graph, field, "NodeProto", &w, error));
    *out = (qn_onnx_node){.body = field->body, .name = "", .op_type = "", .domain = ""};
    node_counts n = {0};
    QN_TRY(count_node(&w, &n, error));
    out->inputs = qn__arena_calloc(&source->arena, n.inputs, sizeof(*out->inputs));
    out->outputs = qn__arena_calloc(&source->arena, n.outputs, sizeof(*out->outputs));
    if (!out->inputs || !out->outputs)
        return QN_NOMEM(error);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        const char **text = NULL;
        if (f.number >= NODE_ATTRIBUTE && !out->rest.data)
            out->rest = (qn_span){f.whole.data,
                                  (size_t)(field->body.data + field->body.size - f.whole.data)};
        if (f.number == NODE_INPUT)
            text = &out->inputs[out->n_inputs++];
        else if (f.number == NODE_OUTPUT)
            text = &out->outputs[out->n_outputs++];
        else if (f.number == NODE_NAME)
            text = &out->name;
        else if (f.number == NODE_OP_TYPE)
            text = &out->op_type;
        else if (f.number == NODE_DOMAIN)
            text = &out->domain;
        if (text)
            QN_TRY(qn__wire_string(&w, &f, &source->arena, text, error));
    }
    if (strcmp(out->domain, "ai.onnx") == 0)
        out->domain = "";
    return QN_OK;
}

/* --- inputs and outputs -----------------------------------------------------------------------*/
static qn_status read_dim(qn_onnx_source *source, const qn_wire *shape, const qn_field *field,
                          qn_onnx_value *out, qn_error *error)
{
    qn_wire w;
    QN_TRY(qn__wire_enter(shape, field, "TensorShapeProto.Dimension", &w, error));
    QN_FAIL_IF(out->rank >= QN_MAX_RANK || out->rank >= source->ctx->limits.rank, error, QN_LIMIT,
               "\"%s\" has more than %u dimensions", out->name, source->ctx->limits.rank);
    int64_t value = -1;
    const char *symbol = NULL;
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number == DIM_VALUE) {
            QN_TRY(qn__wire_expect(&w, &f, PB_WT_VARINT, error));
            value = (int64_t)f.value;
        } else if (f.number == DIM_PARAM) {
            QN_TRY(qn__wire_string(&w, &f, &source->arena, &symbol, error));
        }
    }
    /* Old exporters write 0 or -1 for "any"; an input without elements is of no use. */
    out->dims[out->rank] = value > 0 ? value : -1;
    out->symbols[out->rank++] = symbol && symbol[0] ? symbol : NULL;
    return QN_OK;
}

static qn_status read_tensor_type(qn_onnx_source *source, qn_wire *type, qn_onnx_value *out,
                                  qn_error *error)
{
    qn_field f, d;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(type, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number == TYPE_TENSOR_ELEM) {
            QN_TRY(qn__wire_expect(type, &f, PB_WT_VARINT, error));
            out->dtype = qn__dtype_of_onnx((int64_t)f.value);
            out->is_other = out->dtype == QN_DTYPE_NONE && f.value != 0;
        } else if (f.number == TYPE_TENSOR_SHAPE) {
            qn_wire shape;
            QN_TRY(qn__wire_enter(type, &f, "TensorShapeProto", &shape, error));
            out->has_shape = true;
            for (bool dims = true;;) {
                QN_TRY(qn__wire_next(&shape, &d, &dims, error));
                if (!dims)
                    break;
                if (d.number == SHAPE_DIM)
                    QN_TRY(read_dim(source, &shape, &d, out, error));
            }
        }
    }
}

qn_status qn__onnx_read_value(qn_onnx_source *source, const qn_wire *graph, const qn_field *field,
                              qn_onnx_value *out, qn_error *error)
{
    qn_wire w, type, tensor;
    QN_TRY(qn__wire_enter(graph, field, "ValueInfoProto", &w, error));
    *out = (qn_onnx_value){.name = "", .body = field->body};
    qn_field f, t;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number == VALUE_NAME) {
            QN_TRY(qn__wire_string(&w, &f, &source->arena, &out->name, error));
        } else if (f.number == VALUE_TYPE) {
            QN_TRY(qn__wire_enter(&w, &f, "TypeProto", &type, error));
            for (bool types = true;;) {
                QN_TRY(qn__wire_next(&type, &t, &types, error));
                if (!types)
                    break;
                if (t.number == TYPE_TENSOR) {
                    QN_TRY(qn__wire_enter(&type, &t, "TypeProto.Tensor", &tensor, error));
                    QN_TRY(read_tensor_type(source, &tensor, out, error));
                } else if (t.number != 6) { /* denotation */
                    out->is_other = true;
                }
            }
        }
    }
    QN_FAIL_IF(out->name[0] == '\0', error, QN_CORRUPT, "a graph input or output has no name");
    return QN_OK;
}

/* --- graph ------------------------------------------------------------------------------------*/
static qn_status count_graph(qn_onnx_source *source, size_t counts[GRAPH_SPARSE_INITIALIZER + 1],
                             qn_error *error)
{
    qn_wire w = qn__wire_open(source->graph, "GraphProto", source->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number <= GRAPH_SPARSE_INITIALIZER)
            counts[f.number]++;
    }
}

/* A constant of another type is kept where a part of the file may be set aside. */
static qn_status read_initializer(qn_onnx_source *source, const qn_wire *graph,
                                  const qn_field *field, bool partial, qn_error *error)
{
    qn_wire tensor;
    qn_onnx_tensor *const out = &source->initializers[source->n_initializers];
    QN_TRY(qn__wire_enter(graph, field, "TensorProto", &tensor, error));
    const qn_status status =
        qn__onnx_read_tensor(source, &source->arena, field->body, tensor.depth_left, out, error);
    if (status == QN_OK)
        source->n_initializers++;
    if (status != QN_UNSUPPORTED || !partial || out->name[0] == '\0')
        return status;
    source->kept[source->n_kept++] = (qn_onnx_tensor){.name = out->name, .body = field->body};
    return QN_OK;
}

static qn_status read_graph(qn_onnx_source *source, bool partial, qn_error *error)
{
    size_t counts[GRAPH_SPARSE_INITIALIZER + 1] = {0};
    QN_TRY(count_graph(source, counts, error));
    QN_FAIL_IF(counts[GRAPH_NODE] > source->ctx->limits.nodes, error, QN_LIMIT,
               "the graph has %zu nodes, the limit is %u", counts[GRAPH_NODE],
               source->ctx->limits.nodes);
    QN_FAIL_IF(counts[GRAPH_SPARSE_INITIALIZER] > 0, error, QN_UNSUPPORTED,
               "the graph has sparse initializers");
    QN_FAIL_IF(counts[GRAPH_INITIALIZER] + counts[GRAPH_NODE] > INT32_MAX, error, QN_LIMIT,
               "the graph has %zu initializers", counts[GRAPH_INITIALIZER]);
    qn_arena *arena = &source->arena;
    source->nodes = qn__arena_calloc(arena, counts[GRAPH_NODE], sizeof(*source->nodes));
    source->constants = qn__arena_calloc(arena, counts[GRAPH_NODE], sizeof(*source->constants));
    source->initializers =
        qn__arena_calloc(arena, counts[GRAPH_INITIALIZER], sizeof(*source->initializers));
    source->kept =
        qn__arena_calloc(arena, partial ? counts[GRAPH_INITIALIZER] : 0, sizeof(*source->kept));
    source->inputs = qn__arena_calloc(arena, counts[GRAPH_INPUT], sizeof(*source->inputs));
    source->outputs = qn__arena_calloc(arena, counts[GRAPH_OUTPUT], sizeof(*source->outputs));
    if (!source->nodes || !source->constants || !source->initializers || !source->kept ||
        !source->inputs || !source->outputs)
        return QN_NOMEM(error);
    qn_wire w = qn__wire_open(source->graph, "GraphProto", source->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            return QN_OK;
        switch (f.number) {
        case GRAPH_NODE:
            QN_TRY(qn__onnx_read_node(source, &w, &f, &source->nodes[source->n_nodes], error));
            source->n_nodes++;
            break;
        case GRAPH_NAME:
            QN_TRY(qn__wire_string(&w, &f, arena, &source->graph_name, error));
            break;
        case GRAPH_INITIALIZER:
            QN_TRY(read_initializer(source, &w, &f, partial, error));
            break;
        case GRAPH_INPUT:
            QN_TRY(qn__onnx_read_value(source, &w, &f, &source->inputs[source->n_inputs], error));
            source->n_inputs++;
            break;
        case GRAPH_OUTPUT:
            QN_TRY(qn__onnx_read_value(source, &w, &f, &source->outputs[source->n_outputs], error));
            source->n_outputs++;
            break;
        default:
            break;
        }
    }
}

qn_status qn__onnx_source_read(const qn_context *ctx, const char *path, qn_blob *file, bool partial,
                               qn_onnx_source **out, qn_error *error)
{
    qn_onnx_source *source = qn__calloc(ctx, 1, sizeof(*source));
    if (!source)
        return QN_NOMEM(error);
    source->base.format = "onnx";
    source->base.vtable = &VTABLE;
    source->base.refs = 1;
    source->ctx = ctx;
    qn__arena_init(&source->arena, ctx);
    source->file = qn__blob_ref(file);
    source->model = (qn_span){file->data, file->size_bytes};
    source->graph_name = "";
    source->path = qn__arena_strdup(&source->arena, path);
    qn_status status = source->path ? read_model(source, error) : QN_NOMEM(error);
    if (status == QN_OK)
        status = read_graph(source, partial, error);
    if (status == QN_OK)
        status = qn__onnx_inline(source, partial, error);
    if (status != QN_OK) {
        qn__source_unref(&source->base);
        return status;
    }
    *out = source;
    return QN_OK;
}
