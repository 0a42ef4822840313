/* .mnn document -> graph: inputs, operators in the file's order, outputs. */
#include "format/mnn/mnn_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_quant_read.h"
#include "format/mnn/mnn_source.h"

enum { MEANING_OPSET = 28 }; /* of the nodes made here */
enum { IS_READ = 1, IS_CLAIMED = 2, IS_OUTPUT = 4 };

static const struct {
    int64_t type;
    qn_mnn_lower_fn lower;
} ROWS[] = {
#define QN_MNN_OP(type, function) {QN_MNN_OpType_##type, function},
#include "format/mnn/mnn_ops.def"
#undef QN_MNN_OP
};

qn_mnn_lower_fn qn__mnn_lower_of(int64_t type)
{
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++)
        if (ROWS[i].type == type)
            return ROWS[i].lower;
    return NULL;
}

/* --- inputs -----------------------------------------------------------------------------------*/
static qn_status add_input(qn_mnn_reader *r, qn_error *error)
{
    qn_graph *graph = r->graph;
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Input, error));
    if (r->n_out != 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has %zu outputs", r->n_out);
    const int64_t type = qn_mnn_int(r, QN_MNN_Input_dtype);
    const qn_dtype dtype = qn__mnn_dtype(type);
    if (dtype == QN_DTYPE_NONE)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "data type %" PRId64, type);
    int64_t dims[QN_MAX_RANK];
    size_t rank;
    QN_TRY(qn__mnn_ints(r, QN_MNN_Input_dims, dims, QN_MAX_RANK, &rank, error));
    qn_tensor *tensor = qn__graph_add_tensor(graph, r->name, qn_type_plain_make(dtype));
    if (!tensor)
        return QN_NOMEM(error);
    for (size_t i = 0; i < rank; i++) /* 0 and -1: not known */
        if (dims[i] < -1)
            return qn__mnn_fail(r, error, QN_CORRUPT, "dimension %zu is %" PRId64, i, dims[i]);
    if (qn__fb_has(r->main, QN_MNN_Input_dims))
        qn__tensor_set_shape(tensor, rank, dims);
    for (size_t i = 0; i < rank; i++) {
        char symbol[64];
        snprintf(symbol, sizeof(symbol), "input%u_dim%zu", (unsigned)tensor->id, i);
        if (dims[i] > 0)
            continue;
        tensor->dims[i] = (qn_dim){QN_DIM_SYMBOL, 1, qn__graph_intern(graph, symbol)};
        if (!tensor->dims[i].symbol)
            return QN_NOMEM(error);
    }
    graph->inputs[graph->n_inputs++] = tensor;
    return qn__mnn_put(r, 0, tensor, qn_mnn_int(r, QN_MNN_Input_dformat), error);
}

/* --- operators --------------------------------------------------------------------------------*/
qn_status qn__mnn_lower_const(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Blob, error));
    if (r->n_out != 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has %zu outputs", r->n_out);
    qn_tensor *tensor;
    QN_TRY(qn__mnn_blob(r, r->main, r->name, &tensor, error));
    return qn__mnn_put(r, 0, tensor, qn_mnn_int(r, QN_MNN_Blob_dataFormat), error);
}

/* Tensor ids of the operator: in range, inputs made before, outputs not made yet. */
static qn_status check_ids(qn_mnn_reader *r, qn_error *error)
{
    qn__fb_bytes(r->op, QN_MNN_Op_inputIndexes, &r->n_in);
    qn__fb_bytes(r->op, QN_MNN_Op_outputIndexes, &r->n_out);
    const int64_t n = (int64_t)r->source->n_tensors;
    for (size_t i = 0; i < r->n_in; i++) {
        const int64_t id = qn__mnn_in_id(r, i);
        if (id < 0 || id >= n)
            return qn__mnn_fail(r, error, QN_CORRUPT, "reads tensor %" PRId64 " of %" PRId64, id,
                                n);
        if (!r->values[id].tensor)
            return qn__mnn_fail(r, error, QN_CORRUPT,
                                "reads tensor %" PRId64 ", which no operator before it makes", id);
        r->marks[id] |= IS_READ;
    }
    if (r->n_out == 0)
        return qn__mnn_fail(r, error, QN_CORRUPT, "makes nothing");
    for (size_t i = 0; i < r->n_out; i++) {
        const int64_t id = qn__fb_int_at(r->doc, r->op, QN_MNN_Op_outputIndexes, i);
        if (id < 0 || id >= n)
            return qn__mnn_fail(r, error, QN_CORRUPT, "makes tensor %" PRId64 " of %" PRId64, id,
                                n);
        if (r->marks[id] & IS_CLAIMED)
            return qn__mnn_fail(r, error, QN_CORRUPT,
                                "makes tensor %" PRId64 ", which is already made", id);
        r->marks[id] |= IS_CLAIMED;
    }
    return QN_OK;
}

static qn_status select_op(qn_mnn_reader *r, size_t index, qn_error *error)
{
    const qn_fb_object *op = r->source->ops[index];
    r->index = index;
    r->op = op;
    r->main = qn__fb_table(op, QN_MNN_Op_main);
    r->type = qn__fb_int(r->doc, op, QN_MNN_Op_type);
    r->name = qn__fb_string(op, QN_MNN_Op_name);
    r->named = false;
    if (!r->name || r->name[0] == '\0') {
        const char *type = qn__mnn_op_name(r->type);
        r->name = qn__arena_printf(&r->graph->arena, "%s%zu", type ? type : "op", index);
    }
    return r->name ? QN_OK : QN_NOMEM(error);
}

static qn_status lower_op(qn_mnn_reader *r, size_t index, qn_error *error)
{
    QN_TRY(select_op(r, index, error));
    QN_TRY(check_ids(r, error));
    if (r->type == QN_MNN_OpType_Input)
        return add_input(r, error);
    const qn_mnn_lower_fn lower = qn__mnn_lower_of(r->type);
    if (!lower)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "the operator is not supported");
    if (r->n_in == 0 && r->type != QN_MNN_OpType_Const && r->type != QN_MNN_OpType_TrainableParam)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has no inputs");
    QN_TRY(lower(r, error));
    for (size_t i = 0; i < r->n_out; i++)
        if (!r->values[qn__fb_int_at(r->doc, r->op, QN_MNN_Op_outputIndexes, i)].tensor)
            return qn__mnn_fail(r, error, QN_CORRUPT, "has %zu outputs", r->n_out);
    return QN_OK;
}

/* --- outputs ----------------------------------------------------------------------------------*/
/* The outputs that the file names, else every tensor that nothing reads. */
static qn_status add_outputs(qn_mnn_reader *r, qn_error *error)
{
    qn_graph *graph = r->graph;
    const qn_fb_value *named = &r->doc->root->values[QN_MNN_Net_outputName];
    const size_t n_named = named->present ? named->count : 0, n = r->source->n_tensors;
    graph->outputs =
        qn__arena_calloc(&graph->arena, n_named > n ? n_named : n, sizeof(*graph->outputs));
    if (!graph->outputs)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n_named; i++) {
        const char *name = qn__fb_string_at(r->doc->root, QN_MNN_Net_outputName, i);
        qn_tensor *tensor = qn__graph_find_tensor(graph, name);
        QN_FAIL_IF(!tensor || tensor->source < 0, error, QN_CORRUPT,
                   "%s: output \"%s\": no operator makes it", graph->file, name);
        QN_FAIL_IF(r->marks[tensor->source] & IS_OUTPUT, error, QN_CORRUPT,
                   "%s: output \"%s\" is listed twice", graph->file, name);
        r->marks[tensor->source] |= IS_OUTPUT;
        graph->outputs[graph->n_outputs++] = tensor;
    }
    for (size_t id = 0; n_named == 0 && id < n; id++) {
        qn_tensor *tensor = r->values[id].tensor;
        if (tensor && !(r->marks[id] & IS_READ) && tensor->producer)
            graph->outputs[graph->n_outputs++] = tensor;
    }
    QN_FAIL_IF(graph->n_outputs == 0, error, QN_CORRUPT, "%s: the model has no outputs",
               graph->file);
    return QN_OK;
}

static qn_status build(qn_mnn_reader *r, qn_error *error)
{
    const qn_context *ctx = r->graph->ctx;
    qn_mnn_source *source = r->source;
    QN_FAIL_IF(source->n_ops == 0, error, QN_CORRUPT, "%s: the model has no operators",
               r->graph->file);
    QN_FAIL_IF(source->n_ops > ctx->limits.nodes, error, QN_LIMIT,
               "%s: %zu operators, the limit is %u", r->graph->file, source->n_ops,
               ctx->limits.nodes);
    r->values = qn__calloc(ctx, source->n_tensors + 1, sizeof(*r->values));
    r->marks = qn__calloc(ctx, source->n_tensors + 1, 1);
    r->graph->inputs = qn__arena_calloc(&r->graph->arena, source->n_ops, sizeof(*r->graph->inputs));
    if (!r->values || !r->marks || !r->graph->inputs)
        return QN_NOMEM(error);
    for (size_t i = 0; i < source->n_ops; i++)
        QN_TRY(lower_op(r, i, error));
    return add_outputs(r, error);
}

qn_status qn__mnn_read(const qn_context *ctx, const char *path, qn_blob *file, qn_graph **out,
                       qn_error *error)
{
    qn_mnn_reader r = {0};
    QN_TRY(qn__mnn_source_read(ctx, path, file, &r.source, error));
    qn_status status = qn__graph_create(ctx, &r.graph, error);
    if (status != QN_OK) {
        qn__source_unref(&r.source->base);
        return status;
    }
    qn_graph *graph = r.graph;
    graph->source = &r.source->base; /* the graph's reference from here on */
    graph->opset = MEANING_OPSET;
    r.doc = &r.source->doc;
    graph->file = qn__arena_strdup(&graph->arena, path);
    status = graph->file ? build(&r, error) : QN_NOMEM(error);
    qn__free(ctx, r.values);
    qn__free(ctx, r.marks);
    if (status == QN_OK)
        status = qn__graph_infer(graph, error);
    if (status == QN_OK)
        status = qn__mnn_quant_types(graph, r.source, error);
    if (status == QN_OK)
        status = qn__graph_verify(graph, error);
    const qn_status memory = qn__arena_check(&graph->arena, error);
    status = memory != QN_OK ? memory : status;
    if (status != QN_OK) {
        qn__graph_destroy(graph);
        return status;
    }
    *out = graph;
    return QN_OK;
}
