/* Graph -> ONNX file: the source document with edits, or a new document when there is none. */
#include "format/onnx/onnx_partial.h"
#include "format/onnx/onnx_write.h"

#include <stdio.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "core/context.h"
#include "core/io.h"

/* --- versions ---------------------------------------------------------------------------------*/
int64_t qn__onnx_opset_of(const qn_graph *graph)
{
    const qn_onnx_source *source = qn__onnx_source_of(graph);
    return source ? source->opset : 0;
}

static int64_t tensor_opset(const qn_tensor *tensor)
{
    if (!tensor || tensor->type.kind != QN_TYPE_QUANT)
        return 0;
    const qn_quant *quant = tensor->type.quant;
    const uint32_t bits = qn__dtype_bits(tensor->type.dtype);
    return quant->block > 0 || bits == 16 || bits == 4 ? 21 : bits == 2 ? 25 : 0;
}

static int64_t attribute_opset(const qn_node *node)
{
    size_t count;
    if (node->op == QN_OP_SCATTER_ND || node->op == QN_OP_SCATTER_ELEMENTS)
        return qn__attr_string(node, "reduction", NULL) != NULL ? 16 : 0;
    if (node->op == QN_OP_GRID_SAMPLE)
        return strcmp(qn__attr_string(node, "mode", ""), "linear") == 0 ? 20 : 16;
    /* Quantization from and to half floats (older files have it in Microsoft's domain). */
    if (node->op == QN_OP_QUANTIZE_LINEAR)
        return qn__node_attr(node, "precision") != NULL ? 19 : 0;
    if (node->op == QN_OP_DEQUANTIZE_LINEAR && node->outputs[0])
        return qn__dtype_bits(node->outputs[0]->type.dtype) == 16 ? 19 : 0;
    return node->op == QN_OP_RESIZE && qn__attr_ints(node, "axes", &count) != NULL ? 18 : 0;
}

int64_t qn__onnx_opset_written(const qn_graph *graph, const qn_write_options *options)
{
    (void)options;
    int64_t opset = qn__onnx_opset_of(graph);
    opset = opset < 13 ? 13 : opset;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *node = graph->nodes[i];
        int64_t needed = attribute_opset(node);
#define QN_UPGRADE(id, since, step)
#define QN_DOWNGRADE(id, since, step)
#define QN_SINCE(id, since) needed = node->op == QN_OP_##id ? since : needed;
#include "format/onnx/onnx_upgrade.def"
#undef QN_UPGRADE
#undef QN_DOWNGRADE
#undef QN_SINCE
        for (uint32_t k = 0; k < node->n_inputs; k++)
            needed =
                tensor_opset(node->inputs[k]) > needed ? tensor_opset(node->inputs[k]) : needed;
        for (uint32_t k = 0; k < node->n_outputs; k++)
            needed =
                tensor_opset(node->outputs[k]) > needed ? tensor_opset(node->outputs[k]) : needed;
        opset = needed > opset ? needed : opset;
    }
    return opset;
}

/* Older runtimes refuse newer IR versions, so no newer one than the opset needs. */
static int64_t ir_version_for(const qn_onnx_writer *w)
{
    static const struct {
        int64_t opset, ir;
    } STEPS[] = {{14, 7}, {18, 8}, {20, 9}, {22, 10}, {23, 11}, {24, 12}, {26, 13}};
    int64_t ir = ONNX_NEWEST_IR;
    for (size_t i = sizeof(STEPS) / sizeof(STEPS[0]); i-- > 0;)
        if (w->opset <= STEPS[i].opset)
            ir = STEPS[i].ir;
    return w->source && w->source->ir_version > ir ? w->source->ir_version : ir;
}

/* --- which tensors are written
 * ------------------------------------------------------------------*/
static bool is_source_initializer(const qn_onnx_writer *w, const qn_tensor *tensor)
{
    return w->source && tensor->source >= 0 && (size_t)tensor->source < w->source->n_initializers;
}

/* The document's own copy of a constant, when the tensor still is exactly that. */
static const qn_onnx_tensor *unchanged(const qn_onnx_writer *w, const qn_tensor *tensor)
{
    if (!w->source || tensor->source < 0)
        return NULL;
    const size_t index = (size_t)tensor->source;
    const qn_onnx_tensor *old = index < w->source->n_initializers ? &w->source->initializers[index]
                                : index - w->source->n_initializers < w->source->n_nodes
                                    ? &w->source->constants[index - w->source->n_initializers]
                                    : NULL;
    const bool same = old && old->blob == tensor->constant && old->dtype == tensor->type.dtype &&
                      tensor->type.kind == QN_TYPE_PLAIN && strcmp(old->name, tensor->name) == 0;
    return same ? old : NULL;
}

static void mark_emitted(qn_onnx_writer *w)
{
    const qn_graph *graph = w->graph;
    for (size_t i = 0; i < graph->n_inputs; i++)
        w->emitted[graph->inputs[i]->id] = 1;
    for (size_t i = 0; i < graph->n_outputs; i++)
        w->emitted[graph->outputs[i]->id] = 1;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs; k++)
            if (node->inputs[k])
                w->emitted[node->inputs[k]->id] = 1;
        for (uint32_t k = 0; k < node->n_outputs; k++)
            if (node->outputs[k])
                w->emitted[node->outputs[k]->id] = 1;
    }
    /* What nothing read in the file either stays: its owner knows why it is there. */
    for (size_t i = 0; i < graph->n_tensors; i++) {
        const qn_tensor *tensor = graph->tensors[i];
        if (tensor->constant && is_source_initializer(w, tensor) &&
            !w->source->initializers[tensor->source].is_used && unchanged(w, tensor))
            w->emitted[i] = 1;
    }
}

/* --- nodes and constants
 * ------------------------------------------------------------------------*/
static qn_status put_node(qn_onnx_writer *w, const qn_node *node, qn_onnx_out *out, qn_error *error)
{
    qn_onnx_out message;
    qn__out_init(&message, w->graph->ctx);
    const qn_status status = qn__onnx_encode_node(w, node, &message, error);
    qn__out_message(out, GRAPH_NODE, &message);
    qn__out_free(&message);
    return status;
}

/* Constant nodes stay Constant nodes, in the order of the file and in front of everything. */
static void put_constant_nodes(qn_onnx_writer *w, qn_onnx_out *out)
{
    if (!w->source)
        return;
    for (size_t i = 0; i < w->source->n_nodes; i++) {
        const qn_onnx_tensor *constant = &w->source->constants[i];
        const qn_tensor *tensor =
            constant->blob ? qn__graph_find_tensor(w->graph, constant->name) : NULL;
        if (!tensor || !w->emitted[tensor->id] || unchanged(w, tensor) != constant ||
            constant->is_external || qn__onnx_goes_beside(w, constant->blob))
            continue;
        const qn_span body = w->source->nodes[i].body;
        qn__out_span(out, GRAPH_NODE, body.data, body.size, true);
        w->emitted[tensor->id] = 2; /* not an initializer */
    }
}

static qn_status put_constant(qn_onnx_writer *w, const qn_tensor *tensor, qn_onnx_out *out,
                              qn_error *error)
{
    const qn_onnx_tensor *old = unchanged(w, tensor);
    const bool beside = qn__onnx_goes_beside(w, tensor->constant);
    if (old && old->body.size > 0 && !old->is_external && !beside) {
        qn__out_span(out, GRAPH_INITIALIZER, old->body.data, old->body.size, true);
        return QN_OK;
    }
    int64_t dims[QN_MAX_RANK];
    QN_FAIL_IF(!qn__tensor_static_dims(tensor, dims), error, QN_INTERNAL,
               "constant \"%s\" has no fixed shape", tensor->name);
    qn_onnx_out message;
    qn__out_init(&message, w->graph->ctx);
    const qn_status status =
        beside ? qn__onnx_encode_beside(w, tensor->name, tensor->type.dtype, tensor->rank, dims,
                                        tensor->constant, &message, error)
               : qn__onnx_encode_tensor(tensor->name, tensor->type.dtype, tensor->rank, dims,
                                        tensor->constant, &message, error);
    qn__out_message(out, GRAPH_INITIALIZER, &message);
    qn__out_free(&message);
    return status;
}

static qn_status put_constants(qn_onnx_writer *w, qn_onnx_out *out, qn_error *error)
{
    const qn_graph *graph = w->graph;
    for (size_t i = 0; i < graph->n_tensors; i++) {
        const qn_tensor *tensor = graph->tensors[i];
        if (tensor->constant && w->emitted[i] == 1)
            QN_TRY(put_constant(w, tensor, out, error));
    }
    return QN_OK;
}

/* --- graph ------------------------------------------------------------------------------------*/
/* Name and element type of a ValueInfoProto, or the tensor name of a TensorAnnotation. */
static qn_status peek_value(qn_onnx_writer *w, qn_span body, const char **name, qn_dtype *dtype,
                            qn_error *error)
{
    *name = "";
    *dtype = QN_DTYPE_NONE;
    qn_wire value = qn__wire_open(body, "ValueInfoProto", w->graph->ctx->limits.nesting);
    qn_wire type, tensor;
    qn_field f, t, e;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&value, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number == VALUE_NAME)
            QN_TRY(qn__wire_string(&value, &f, &w->graph->arena, name, error));
        if (f.number != VALUE_TYPE)
            continue;
        QN_TRY(qn__wire_enter(&value, &f, "TypeProto", &type, error));
        for (bool types = true;;) {
            QN_TRY(qn__wire_next(&type, &t, &types, error));
            if (!types)
                break;
            if (t.number != TYPE_TENSOR)
                continue;
            QN_TRY(qn__wire_enter(&type, &t, "TypeProto.Tensor", &tensor, error));
            for (bool elems = true;;) {
                QN_TRY(qn__wire_next(&tensor, &e, &elems, error));
                if (!elems)
                    break;
                if (e.number == TYPE_TENSOR_ELEM)
                    *dtype = qn__dtype_of_onnx((int64_t)e.value);
            }
        }
    }
}

static qn_status keep_value(qn_onnx_writer *w, const qn_field *f, qn_onnx_out *out, qn_error *error)
{
    const char *name;
    qn_dtype dtype;
    QN_TRY(peek_value(w, f->body, &name, &dtype, error));
    const qn_tensor *tensor = name[0] ? qn__graph_find_tensor(w->graph, name) : NULL;
    if (qn__names_get(&w->source->aside_names, name)) {
        qn__out_borrow(out, f->whole.data, f->whole.size);
        return QN_OK;
    }
    if (f->number == GRAPH_INPUT) {
        /* A default's listing goes with its initializer. IR 3 demanded the listing; from IR 4 on it
         * would turn a constant into something a caller may change. */
        bool runtime = false;
        for (size_t i = 0; i < w->graph->n_inputs; i++)
            runtime = runtime || w->graph->inputs[i] == tensor;
        if (!runtime && (!tensor || !w->emitted[tensor->id] || tensor->type.dtype != dtype ||
                         w->source->ir_version < 4))
            return QN_OK;
    } else if (f->number == GRAPH_VALUE_INFO) {
        if (!tensor || !w->emitted[tensor->id] || tensor->type.dtype != dtype)
            return QN_OK;
    } else if (!tensor || !w->emitted[tensor->id]) {
        return QN_OK; /* annotation of a tensor that is gone */
    }
    qn__out_borrow(out, f->whole.data, f->whole.size);
    return QN_OK;
}

static qn_status put_source_fields(qn_onnx_writer *w, qn_onnx_out *out, qn_error *error)
{
    qn_wire wire = qn__wire_open(w->source->graph, "GraphProto", w->graph->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&wire, &f, &more, error));
        if (!more)
            return QN_OK;
        switch (f.number) {
        case GRAPH_NODE:
        case GRAPH_INITIALIZER:
            break;
        case GRAPH_INPUT:
        case GRAPH_VALUE_INFO:
        case GRAPH_QUANTIZATION_ANNOTATION:
            QN_TRY(keep_value(w, &f, out, error));
            break;
        default:
            qn__out_borrow(out, f.whole.data, f.whole.size);
        }
    }
}

static qn_status put_graph(qn_onnx_writer *w, qn_onnx_out *out, qn_error *error)
{
    const qn_graph *graph = w->graph;
    mark_emitted(w);
    put_constant_nodes(w, out);
    for (size_t i = 0; i < graph->n_nodes; i++)
        QN_TRY(put_node(w, graph->nodes[i], out, error));
    for (size_t i = 0; w->source && i < w->source->n_aside; i++)
        qn__out_span(out, GRAPH_NODE, w->source->aside[i].body.data, w->source->aside[i].body.size,
                     true);
    QN_TRY(put_constants(w, out, error));
    for (size_t i = 0; w->source && i < w->source->n_kept; i++)
        qn__out_span(out, GRAPH_INITIALIZER, w->source->kept[i].body.data,
                     w->source->kept[i].body.size, true);
    if (w->source)
        return put_source_fields(w, out, error);
    qn__out_string(out, GRAPH_NAME, graph->name && graph->name[0] ? graph->name : "graph");
    for (size_t i = 0; i < graph->n_inputs; i++)
        QN_TRY(qn__onnx_encode_value(w, GRAPH_INPUT, graph->inputs[i], out, error));
    for (size_t i = 0; i < graph->n_outputs; i++)
        QN_TRY(qn__onnx_encode_value(w, GRAPH_OUTPUT, graph->outputs[i], out, error));
    return QN_OK;
}

/* --- model ------------------------------------------------------------------------------------*/
static void put_opset(const qn_onnx_writer *w, const char *domain, int64_t version,
                      qn_onnx_out *out)
{
    qn_onnx_out message;
    qn__out_init(&message, w->graph->ctx);
    qn__out_string(&message, OPSET_DOMAIN, domain);
    qn__out_int(&message, OPSET_VERSION, version);
    qn__out_message(out, MODEL_OPSET_IMPORT, &message);
    qn__out_free(&message);
}

static qn_status opset_domain(qn_onnx_writer *w, const qn_field *field, const char **domain,
                              qn_error *error)
{
    *domain = "";
    qn_wire wire = qn__wire_open(field->body, "OperatorSetIdProto", 1);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&wire, &f, &more, error));
        if (!more)
            break;
        if (f.number == OPSET_DOMAIN)
            QN_TRY(qn__wire_string(&wire, &f, &w->graph->arena, domain, error));
    }
    if (strcmp(*domain, "ai.onnx") == 0)
        *domain = "";
    return QN_OK;
}

/* Other than the default. */
static void put_requantize(const qn_onnx_writer *w, qn_onnx_out *out)
{
    const qn_requantize kind = w->graph->requantize;
    if (kind == QN_REQUANTIZE_DEFAULT || kind == QN_REQUANTIZE_FLOAT)
        return;
    qn_onnx_out entry;
    qn__out_init(&entry, w->graph->ctx);
    qn__out_string(&entry, METADATA_KEY, QN_ONNX_REQUANTIZE);
    qn__out_string(&entry, METADATA_VALUE, qn__requantize_name(kind));
    qn__out_message(out, MODEL_METADATA, &entry);
    qn__out_free(&entry);
}

static qn_status put_source_model(qn_onnx_writer *w, const qn_onnx_out *graph, qn_onnx_out *out,
                                  qn_error *error)
{
    bool has_onnx = false, has_microsoft = false, has_ir = false;
    qn_wire wire = qn__wire_open(w->source->model, "ModelProto", w->graph->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&wire, &f, &more, error));
        if (!more)
            break;
        if (f.number == MODEL_IR_VERSION) {
            if (!has_ir)
                qn__out_int(out, MODEL_IR_VERSION, ir_version_for(w));
            has_ir = true;
        } else if (f.number == MODEL_GRAPH) {
            qn__out_message(out, MODEL_GRAPH, graph);
        } else if (f.number == MODEL_METADATA) {
            qn_span value;
            bool ours;
            QN_TRY(qn__onnx_requantize_property(&wire, &f, &ours, &value, error));
            if (!ours)
                qn__out_borrow(out, f.whole.data, f.whole.size);
        } else if (f.number == MODEL_OPSET_IMPORT) {
            const char *domain;
            QN_TRY(opset_domain(w, &f, &domain, error));
            if (domain[0] == '\0') {
                if (!has_onnx)
                    put_opset(w, "", w->opset, out);
                has_onnx = true;
                continue;
            }
            has_microsoft = has_microsoft || strcmp(domain, "com.microsoft") == 0;
            qn__out_borrow(out, f.whole.data, f.whole.size);
        } else {
            qn__out_borrow(out, f.whole.data, f.whole.size);
        }
    }
    if (w->microsoft && !has_microsoft)
        put_opset(w, "com.microsoft", 1, out);
    put_requantize(w, out);
    return QN_OK;
}

static void put_new_model(qn_onnx_writer *w, const qn_onnx_out *graph, qn_onnx_out *out)
{
    qn__out_int(out, MODEL_IR_VERSION, ir_version_for(w));
    qn__out_string(out, MODEL_PRODUCER_NAME,
                   w->options->producer ? w->options->producer : "quench");
    qn__out_string(out, MODEL_PRODUCER_VERSION, QN_VERSION_STRING);
    qn__out_message(out, MODEL_GRAPH, graph);
    put_opset(w, "", w->opset, out);
    if (w->microsoft)
        put_opset(w, "com.microsoft", 1, out);
    put_requantize(w, out);
}

static void write_piece(void *arg, const void *data, size_t size)
{
    qn__file_write(arg, data, size);
}

static qn_status write_file(const qn_context *ctx, const char *path, const qn_onnx_out *model,
                            qn_error *error)
{
    qn_file_writer *file = NULL;
    QN_TRY(qn__file_create(ctx, path, &file, error));
    qn__out_each(model, write_piece, file);
    return qn__file_commit(file, error);
}

/* The whole file, as ropes: model holds graph. */
static qn_status put_file(qn_onnx_writer *w, qn_onnx_out *graph, qn_onnx_out *model,
                          qn_error *error)
{
    qn__out_init(graph, w->graph->ctx);
    qn__out_init(model, w->graph->ctx);
    memset(w->emitted, 0, w->graph->n_tensors);
    QN_TRY(put_graph(w, graph, error));
    if (w->source)
        QN_TRY(put_source_model(w, graph, model, error));
    else
        put_new_model(w, graph, model);
    return graph->failed || model->failed ? QN_NOMEM(error) : QN_OK;
}

static qn_status write_clone(qn_onnx_writer *w, const char *path, uint64_t *bytes, qn_error *error)
{
    const qn_context *ctx = w->graph->ctx;
    qn_onnx_out graph, model;
    qn_onnx_beside beside = {.ctx = ctx};
    qn__out_init(&graph, ctx);
    qn__out_init(&model, ctx);
    qn_status status;
    QN_TRY_GOTO(qn__onnx_lower(w, error));
    QN_TRY_GOTO(qn__onnx_downgrade(w->graph, w->opset, error));
    if (w->source)
        QN_TRY_GOTO(qn__onnx_check_aside(w->source, w->graph, w->opset, error));
    w->emitted = qn__calloc(ctx, w->graph->n_tensors + 1, 1);
    if (!w->emitted)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(put_file(w, &graph, &model, error));
    const uint64_t limit =
        ctx->limits.model_bytes < INT32_MAX ? ctx->limits.model_bytes : INT32_MAX;
    if (model.total > limit) {
        qn__out_free(&model);
        qn__out_free(&graph);
        const char *slash = strrchr(path, '/');
        beside.location = qn__arena_printf(&w->graph->arena, "%s.data", slash ? slash + 1 : path);
        if (!beside.location) {
            status = QN_NOMEM(error);
            goto done;
        }
        w->beside = &beside;
        QN_TRY_GOTO(put_file(w, &graph, &model, error));
        if (model.total > INT32_MAX)
            QN_FAIL_GOTO(error, QN_LIMIT,
                         "%s: %" PRIu64
                         " bytes without its weights, a protobuf message cannot have "
                         "2 GiB",
                         path, model.total);
    }
    QN_TRY_GOTO(qn__arena_check(&w->graph->arena, error));
    QN_TRY_GOTO(w->beside ? qn__onnx_write_beside(w, path, &model, error)
                          : write_file(ctx, path, &model, error));
    if (bytes)
        *bytes = model.total + beside.bytes;
done:
    qn__onnx_beside_free(&beside);
    qn__out_free(&model);
    qn__out_free(&graph);
    qn__free(ctx, w->emitted);
    qn__free(ctx, w->ops);
    return status;
}

static qn_status onnx_write(const qn_graph *graph, const char *path,
                            const qn_write_options *options, uint64_t *bytes, qn_error *error)
{
    qn_onnx_writer w = {.options = options,
                        .source = qn__onnx_source_of(graph),
                        .opset = qn__onnx_opset_written(graph, options)};
    QN_TRY(qn__graph_clone(graph, &w.graph, error));
    const qn_status status = write_clone(&w, path, bytes, error);
    qn__graph_destroy(w.graph);
    return status;
}

/* ONNX has no magic number: the first field must be one of ModelProto's, with its wire type. */
static bool probe(const qn_context *ctx, const uint8_t *data, size_t size_bytes)
{
    (void)ctx;
    qn_wire wire = qn__wire_open((qn_span){data, size_bytes}, "ModelProto", 1);
    qn_field f;
    bool more = false;
    if (size_bytes == 0)
        return false;
    if (qn__wire_next(&wire, &f, &more, NULL) != QN_OK)
        return data[0] == (MODEL_IR_VERSION << 3 | PB_WT_VARINT) ||
               data[0] == (MODEL_GRAPH << 3 | PB_WT_STRING) ||
               data[0] == (MODEL_PRODUCER_NAME << 3 | PB_WT_STRING);
    switch (f.number) {
    case MODEL_IR_VERSION:
    case 5: /* model_version */
        return f.type == PB_WT_VARINT;
    case MODEL_PRODUCER_NAME:
    case MODEL_PRODUCER_VERSION:
    case 4: /* domain */
    case 6: /* doc_string */
    case MODEL_GRAPH:
    case MODEL_OPSET_IMPORT:
    case MODEL_METADATA:
        return f.type == PB_WT_STRING;
    default:
        return false;
    }
}

static bool describe_changes(const qn_graph *graph, char *text, size_t size_bytes)
{
    const long long from = qn__onnx_opset_of(graph), to = qn__onnx_opset_written(graph, NULL);
    if (from == 0 || from == to)
        return false;
    (void)snprintf(text, size_bytes, "opset %lld -> %lld", from, to);
    return true;
}

const qn_format qn__format_onnx = {
    "onnx", probe, qn__onnx_read, onnx_write, describe_changes, qn__onnx_read_partial};
