/* Files with records of tensors (Net.extraTensorDescribe): the float graph gets the types that
 * MNN's CPU backend would compute with.
 *
 * An operator runs in int8 when its output and all its float inputs have a record and its kind
 * allows it. Where the graph's own integer operators do the same, tensors become quantized; other
 * operators that MNN runs in int8 stay float between Dequantize and Quantize, which rounds at the
 * same places. Everything else is float. */
#include "format/mnn/mnn_quant_read.h"

#include <math.h>

#include "core/context.h"

enum { PROPAGATION_ROUNDS = 3 };

typedef struct record {
    bool known;
    bool handed_on; /* from another tensor */
    float scale;
    int32_t zero, min, max;
} record;

typedef struct typer {
    qn_graph *graph;
    const qn_mnn_source *source;
    const qn_fb_document *doc;
    size_t n_tensors;                     /* of the graph, before twins are added */
    record *records;                      /* [source->n_tensors] */
    qn_tensor **by_id;                    /* [source->n_tensors] the graph's tensor, or NULL */
    uint8_t *is_int8;                     /* [source->n_ops] */
    record *types;                        /* [n_tensors] what an integer node wants or makes */
    uint8_t *rounded;                     /* [n_tensors] float values that MNN keeps as int8 */
    uint8_t *integer;                     /* [next_node_id] */
    qn_tensor **quantized, **dequantized; /* [n_tensors] twins */
    qn_error *error;
} typer;

/* --- records ----------------------------------------------------------------------------------*/
static qn_status read_record(typer *t, const qn_fb_object *info, int64_t id)
{
    const double scale = qn__fb_real(t->doc, info, QN_MNN_TensorQuantInfo_scale);
    const double zero = qn__fb_real(t->doc, info, QN_MNN_TensorQuantInfo_zero);
    const double min = qn__fb_real(t->doc, info, QN_MNN_TensorQuantInfo_min);
    const double max = qn__fb_real(t->doc, info, QN_MNN_TensorQuantInfo_max);
    const int64_t type = qn__fb_int(t->doc, info, QN_MNN_TensorQuantInfo_type);
    if (scale == 0 || (type != 0 && type != QN_MNN_DataType_DT_INT8))
        return QN_OK; /* MNN does not compute with it */
    const bool whole = rint(zero) == zero && rint(min) == min && rint(max) == max;
    QN_FAIL_IF(!(scale > 0) || !isfinite((float)scale) || !whole || min < INT8_MIN ||
                   max > INT8_MAX || min > max || zero < INT8_MIN || zero > INT8_MAX,
               t->error, QN_CORRUPT,
               "%s: tensor %d has the scale %g, zero point %g and levels %g to %g", t->graph->file,
               (int)id, scale, zero, min, max);
    t->records[id] = (record){true, false, (float)scale, (int32_t)zero, (int32_t)min, (int32_t)max};
    return QN_OK;
}

static qn_status read_records(typer *t, bool *any)
{
    size_t n = 0;
    qn_fb_object **list = qn__fb_tables(t->doc->root, QN_MNN_Net_extraTensorDescribe, &n);
    *any = false;
    for (size_t i = 0; i < n; i++) {
        const qn_fb_object *info = qn__fb_table(list[i], QN_MNN_TensorDescribe_quantInfo);
        const int64_t id = qn__fb_int(t->doc, list[i], QN_MNN_TensorDescribe_index);
        if (!info || id < 0 || (uint64_t)id >= t->source->n_tensors)
            continue;
        QN_TRY(read_record(t, info, id));
        *any |= t->records[id].known;
    }
    return QN_OK;
}

static bool is_f32(const qn_tensor *t)
{
    return t && t->type.kind == QN_TYPE_PLAIN && t->type.dtype == QN_DTYPE_F32;
}

static int64_t index_of(const typer *t, size_t op, uint32_t slot, size_t i)
{
    size_t n = 0;
    qn__fb_bytes(t->source->ops[op], slot, &n);
    return i < n ? qn__fb_int_at(t->doc, t->source->ops[op], slot, i) : -1;
}

static int64_t output_of(const typer *t, size_t op)
{
    return index_of(t, op, QN_MNN_Op_outputIndexes, 0);
}

static int64_t type_of(const typer *t, size_t op)
{
    return qn__fb_int(t->doc, t->source->ops[op], QN_MNN_Op_type);
}

/* The float input of an operator that has only one, else -1. */
static int64_t single_input(const typer *t, size_t op)
{
    int64_t found = -1, id;
    for (size_t i = 0; (id = index_of(t, op, QN_MNN_Op_inputIndexes, i)) >= 0; i++) {
        if (!is_f32(t->by_id[id]))
            continue;
        if (found >= 0)
            return -1;
        found = id;
    }
    return found;
}

static bool hands_records_on(int64_t type)
{
    return qn__mnn_move(type) != QN_MNN_MOVE_NONE || type == QN_MNN_OpType_ReLU ||
           type == QN_MNN_OpType_ReLU6 || type == QN_MNN_OpType_Pooling ||
           type == QN_MNN_OpType_Pooling3D || type == QN_MNN_OpType_Interp ||
           type == QN_MNN_OpType_CropAndResize || type == QN_MNN_OpType_ROIPooling;
}

/* As MNN does at load: over an operator of one float input a record goes to the side that has none.
 */
static void propagate(typer *t)
{
    for (int round = 0; round < PROPAGATION_ROUNDS; round++)
        for (size_t op = 0; op < t->source->n_ops; op++) {
            if (!hands_records_on(type_of(t, op)) ||
                index_of(t, op, QN_MNN_Op_outputIndexes, 1) >= 0)
                continue;
            const int64_t in = single_input(t, op), out = output_of(t, op);
            if (in < 0 || out < 0 || t->records[in].known == t->records[out].known)
                continue;
            const int64_t to = t->records[in].known ? out : in;
            t->records[to] = t->records[to == out ? in : out];
            t->records[to].handed_on = true;
        }
}

/* --- which operators run in int8 --------------------------------------------------------------*/
static bool conv_is_int8(const typer *t, size_t op)
{
    const qn_fb_object *main = qn__fb_table(t->source->ops[op], QN_MNN_Op_main);
    if (!main || main->record != QN_MNN_REC_Convolution2D ||
        index_of(t, op, QN_MNN_Op_inputIndexes, 1) >= 0 ||
        qn__fb_has(main, QN_MNN_Convolution2D_weight))
        return false;
    const qn_fb_object *quan = qn__fb_table(main, QN_MNN_Convolution2D_quanParameter);
    return quan && (qn__fb_has(quan, QN_MNN_IDSTQuan_buffer) ||
                    qn__fb_has(main, QN_MNN_Convolution2D_external));
}

static bool same_parameters(const typer *t, size_t op)
{
    const record *out = &t->records[output_of(t, op)];
    int64_t id;
    for (size_t i = 0; (id = index_of(t, op, QN_MNN_Op_inputIndexes, i)) >= 0; i++)
        if (is_f32(t->by_id[id]) &&
            (t->records[id].scale != out->scale || t->records[id].zero != out->zero))
            return false;
    return true;
}

static bool op_is_int8(const typer *t, size_t op)
{
    const int64_t out = output_of(t, op), type = type_of(t, op);
    int64_t id;
    bool any = false;
    if (out < 0 || !t->records[out].known)
        return false;
    for (size_t i = 0; (id = index_of(t, op, QN_MNN_Op_inputIndexes, i)) >= 0; i++) {
        if (is_f32(t->by_id[id]) && !t->records[id].known)
            return false;
        any |= is_f32(t->by_id[id]);
    }
    if (!any)
        return false;
    switch (type) {
    case QN_MNN_OpType_Convolution:
    case QN_MNN_OpType_ConvolutionDepthwise:
        return conv_is_int8(t, op);
    case QN_MNN_OpType_Softmax:
    case QN_MNN_OpType_LayerNorm:
    case QN_MNN_OpType_BinaryOp:
    case QN_MNN_OpType_Scale:
    case QN_MNN_OpType_Interp:
    case QN_MNN_OpType_PReLU:
        return true;
    case QN_MNN_OpType_UnaryOp: {
        const qn_fb_object *main = qn__fb_table(t->source->ops[op], QN_MNN_Op_main);
        return main && main->record == QN_MNN_REC_UnaryOp &&
               qn__fb_has(main, QN_MNN_UnaryOp_tableInt8);
    }
    case QN_MNN_OpType_ReLU: /* only where MNN has one record for both */
        return t->records[out].handed_on && same_parameters(t, op);
    case QN_MNN_OpType_Pooling:
    case QN_MNN_OpType_Pooling3D:
        return same_parameters(t, op);
    default:
        return qn__mnn_move(type) != QN_MNN_MOVE_NONE && same_parameters(t, op);
    }
}

/* --- types ------------------------------------------------------------------------------------*/
/* Operators whose integer form in the graph computes what MNN's does. */
static bool has_integer_form(const qn_node *node)
{
    switch (node->op) {
    case QN_OP_CONV:
    case QN_OP_ADD:
    case QN_OP_MUL:
    case QN_OP_MAX_POOL:
    case QN_OP_AVERAGE_POOL:
    case QN_OP_GLOBAL_AVERAGE_POOL:
    case QN_OP_CONCAT:
    case QN_OP_RESHAPE:
    case QN_OP_FLATTEN:
    case QN_OP_SQUEEZE:
    case QN_OP_UNSQUEEZE:
    case QN_OP_TRANSPOSE:
    case QN_OP_SLICE:
    case QN_OP_SPLIT:
    case QN_OP_GATHER:
    case QN_OP_DEPTH_TO_SPACE:
        return true;
    default:
        return false;
    }
}

static bool is_value_input(const qn_node *node, uint32_t i)
{
    return i == 0 || node->op == QN_OP_ADD || node->op == QN_OP_MUL || node->op == QN_OP_CONCAT;
}

/* Parameters of a tensor inside operator `op`: before its main node those of its input, after it
 * those of its output. */
static void set_type(typer *t, const qn_tensor *tensor, size_t op, bool before)
{
    const int32_t id = tensor->source;
    const int64_t in = single_input(t, op);
    if (id >= 0 && (size_t)id < t->source->n_tensors && t->records[id].known)
        t->types[tensor->id] = t->records[id];
    else if (before && in >= 0)
        t->types[tensor->id] = t->records[in];
    else
        t->types[tensor->id] = t->records[output_of(t, op)];
}

/* An activation behind the main node of an int8 operator goes into that node: MNN has one rounding
 * there. Returns the node's last one of the operator. */
static qn_status take_activation(typer *t, qn_node *node, uint8_t *removed, const qn_uses *uses)
{
    const qn_tensor *y = node->outputs[0];
    if (qn_uses_count(uses, y) != 1 || uses->is_output[y->id])
        return QN_OK;
    qn_node *next = uses->users[uses->offsets[y->id]];
    if (next->n_sources != 1 || next->sources[0] != node->sources[0] ||
        (next->op != QN_OP_RELU && next->op != QN_OP_CLIP) || next->n_inputs < 1 ||
        next->inputs[0] != y)
        return QN_OK;
    float bounds[2] = {0, INFINITY};
    for (uint32_t i = 1; next->op == QN_OP_CLIP && i < 3; i++) {
        size_t n = 0;
        const float *value = i < next->n_inputs && next->inputs[i]
                                 ? qn__tensor_floats(t->graph, next->inputs[i], &n)
                                 : NULL;
        bounds[i - 1] = value && n == 1 ? value[0] : i == 1 ? -INFINITY : INFINITY;
    }
    node->act = next->op == QN_OP_RELU ? QN_ACT_RELU : QN_ACT_CLIP;
    node->act_lo = bounds[0];
    node->act_hi = bounds[1];
    node->act_name = next->name;
    node->act_source = (int32_t)next->sources[0];
    qn_tensor *out = next->outputs[0];
    qn__node_set_output(next, 0, NULL);
    qn__node_set_output(node, 0, out);
    removed[next->id] = 1;
    return QN_OK;
}

static qn_status take_activations(typer *t)
{
    qn_uses uses;
    QN_TRY(qn__uses_build(t->graph, &uses, t->error));
    uint8_t *removed = qn__arena_calloc(&t->graph->arena, (size_t)t->graph->next_node_id + 1, 1);
    qn_status status = removed ? QN_OK : QN_NOMEM(t->error);
    for (size_t i = 0; status == QN_OK && i < t->graph->n_nodes; i++) {
        qn_node *node = t->graph->nodes[i];
        const bool takes = node->op == QN_OP_CONV || node->op == QN_OP_ADD || node->op == QN_OP_MUL;
        if (takes && node->n_sources > 0 && t->is_int8[node->sources[0]])
            status = take_activation(t, node, removed, &uses);
    }
    qn__uses_free(&uses);
    if (status == QN_OK)
        qn__graph_remove_marked(t->graph, removed);
    return status;
}

static qn_status choose_nodes(typer *t)
{
    for (size_t i = 0; i < t->graph->n_nodes; i++) {
        const qn_node *node = t->graph->nodes[i];
        if (node->n_sources == 0 || !t->is_int8[node->sources[0]])
            continue;
        const size_t op = node->sources[0];
        bool fits = has_integer_form(node);
        for (uint32_t k = 0; k < node->n_inputs; k++)
            if (is_value_input(node, k))
                fits &= is_f32(node->inputs[k]);
        for (uint32_t k = 0; k < node->n_outputs; k++)
            fits &= node->outputs[k] == NULL || is_f32(node->outputs[k]);
        t->integer[node->id] = fits;
        if (!fits) {
            /* the tensors of the file that it makes are rounded all the same */
            for (uint32_t k = 0; k < node->n_outputs; k++)
                if (is_f32(node->outputs[k]) && node->outputs[k]->source >= 0) {
                    t->rounded[node->outputs[k]->id] = 1;
                    set_type(t, node->outputs[k], op, false);
                }
            continue;
        }
        const bool main = node->op == QN_OP_CONV;
        for (uint32_t k = 0; k < node->n_inputs; k++)
            if (is_value_input(node, k) && !t->types[node->inputs[k]->id].known)
                set_type(t, node->inputs[k], op, true);
        for (uint32_t k = 0; k < node->n_outputs; k++)
            if (node->outputs[k] != NULL) {
                if (main)
                    set_type(t, node->outputs[k], op, false);
                else if (qn__mnn_move(type_of(t, op)) != QN_MNN_MOVE_NONE ||
                         node->op == QN_OP_TRANSPOSE || node->op == QN_OP_RESHAPE)
                    t->types[node->outputs[k]->id] = t->types[node->inputs[0]->id];
                else
                    set_type(t, node->outputs[k], op, false);
            }
    }
    return QN_OK;
}

static qn_status make_type(typer *t, const record *r, qn_type *out)
{
    const qn_quant values = {.bits = 8,
                             .is_signed = true,
                             .axis = -1,
                             .qmin = r->min,
                             .qmax = r->max,
                             .n_scales = 1,
                             .scales = &r->scale,
                             .zero_points = &r->zero};
    const qn_quant *quant = qn__graph_quant(t->graph, &values);
    if (!quant)
        return QN_NOMEM(t->error);
    *out = qn_type_quant_make(QN_DTYPE_I8, quant);
    return QN_OK;
}

/* --- constants --------------------------------------------------------------------------------*/
static qn_status integer_weights(typer *t, qn_node *node)
{
    qn_graph *graph = t->graph;
    qn_tensor *w = node->inputs[1];
    qn_mnn_packed packed;
    size_t count = 0;
    if (!qn__tensor_count(w, &count) || !w->has_shape || w->dims[0].value < 1)
        return QN_OK;
    const size_t rows = (size_t)w->dims[0].value;
    QN_TRY(qn__mnn_unpack(t->source, node->sources[0], rows, count, &packed, t->error));
    qn_status status = QN_OK;
    qn_blob *blob = NULL;
    bool usable = packed.integers && packed.symmetric && packed.n_blocks == 1;
    for (size_t r = 0; usable && r < rows; r++)
        usable = packed.scales[r] > 0 && isfinite(packed.scales[r]);
    if (!usable)
        goto done; /* the float values that they stand for */
    const qn_quant values = {.bits = 8,
                             .is_signed = true,
                             .axis = 0,
                             .qmin = INT8_MIN,
                             .qmax = INT8_MAX,
                             .n_scales = rows,
                             .scales = packed.scales};
    const qn_quant *quant = qn__graph_quant(graph, &values);
    blob = qn__blob_copy(graph->ctx, packed.integers, count);
    if (!quant || !blob) {
        status = QN_NOMEM(t->error);
        goto done;
    }
    w->type = qn_type_quant_make(QN_DTYPE_I8, quant);
    qn__tensor_set_constant(w, blob);
done:
    qn__blob_unref(blob);
    qn__mnn_packed_free(graph->ctx, &packed);
    return status;
}

static qn_status integer_constant(typer *t, const qn_tensor *from, qn_tensor **out)
{
    size_t count;
    int64_t dims[QN_MAX_RANK];
    void *data = NULL;
    const record *r = &t->types[from->id];
    const float *values = qn__tensor_floats(t->graph, from, &count);
    if (!values || !qn__tensor_static_dims(from, dims))
        return QN_NOMEM(t->error);
    qn_blob *blob = qn__blob_create(t->graph->ctx, count, &data);
    qn_type type;
    qn_status status = blob ? make_type(t, r, &type) : QN_NOMEM(t->error);
    for (size_t i = 0; status == QN_OK && i < count; i++) {
        const double q = rint((double)values[i] / (double)r->scale) + r->zero;
        ((int8_t *)data)[i] = (int8_t)(q <= r->min ? r->min : q >= r->max ? r->max : q);
    }
    if (status == QN_OK) {
        const char *name = qn__arena_printf(&t->graph->arena, "%s_quantized", from->name);
        *out = name ? qn__graph_add_constant(t->graph, name, type, from->rank, dims, blob) : NULL;
        status = *out ? QN_OK : QN_NOMEM(t->error);
    }
    qn__blob_unref(blob);
    if (status == QN_OK)
        (*out)->source = from->source;
    return status;
}

/* --- the rewrite ------------------------------------------------------------------------------*/
static bool add_cast(typer *t, qn_op op, qn_tensor *from, qn_tensor *to, const qn_tensor *named_for)
{
    return qn__graph_add_between(t->graph, SIZE_MAX, op, from, to, named_for) != NULL;
}

/* Twins of a tensor: the float one keeps the name, so that outputs and records stay what they are.
 */
static qn_status convert_tensor(typer *t, qn_tensor *tensor, bool made_integer, bool read_float)
{
    qn_type type;
    QN_TRY(make_type(t, &t->types[tensor->id], &type));
    if (made_integer && !read_float) {
        tensor->type = type;
        t->quantized[tensor->id] = tensor;
        return QN_OK;
    }
    qn_tensor *q = qn__graph_add_twin(t->graph, tensor, "quantized", type);
    if (!q)
        return QN_NOMEM(t->error);
    t->quantized[tensor->id] = q;
    if (made_integer) {
        qn__node_set_output(tensor->producer, tensor->producer_output, q);
        t->dequantized[tensor->id] = tensor;
        return add_cast(t, QN_OP_DEQUANTIZE_LINEAR, q, tensor, tensor) ? QN_OK : QN_NOMEM(t->error);
    }
    if (!t->rounded[tensor->id] || !read_float)
        return add_cast(t, QN_OP_QUANTIZE_LINEAR, tensor, q, tensor) ? QN_OK : QN_NOMEM(t->error);
    qn_tensor *raw =
        qn__graph_add_twin(t->graph, tensor, "unrounded", qn_type_plain_make(QN_DTYPE_F32));
    if (!raw)
        return QN_NOMEM(t->error);
    qn__node_set_output(tensor->producer, tensor->producer_output, raw);
    t->dequantized[tensor->id] = tensor;
    return add_cast(t, QN_OP_QUANTIZE_LINEAR, raw, q, tensor) &&
                   add_cast(t, QN_OP_DEQUANTIZE_LINEAR, q, tensor, tensor)
               ? QN_OK
               : QN_NOMEM(t->error);
}

static qn_status connect(typer *t, size_t n_nodes)
{
    for (size_t i = 0; i < n_nodes; i++) {
        qn_node *node = t->graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs; k++) {
            qn_tensor *x = node->inputs[k];
            if (!x || x->id >= t->n_tensors)
                continue;
            const bool wants = t->integer[node->id] && is_value_input(node, k);
            if (wants && x->constant && x->type.kind == QN_TYPE_PLAIN)
                QN_TRY(integer_constant(t, x, &node->inputs[k]));
            else if (wants)
                node->inputs[k] = t->quantized[x->id];
            else if (t->dequantized[x->id])
                node->inputs[k] = t->dequantized[x->id];
        }
    }
    return QN_OK;
}

static qn_status rewrite(typer *t)
{
    qn_graph *graph = t->graph;
    const size_t n_nodes = graph->n_nodes;
    qn_uses uses;
    QN_TRY(qn__uses_build(graph, &uses, t->error));
    qn_status status = QN_OK;
    for (uint32_t id = 0; status == QN_OK && id < t->n_tensors; id++) {
        qn_tensor *tensor = graph->tensors[id];
        const bool made = tensor->producer && t->integer[tensor->producer->id];
        bool read_int = false, read_float = uses.is_output[id];
        for (size_t u = uses.offsets[id]; u < uses.offsets[id + 1]; u++)
            for (uint32_t k = 0; k < uses.users[u]->n_inputs; k++)
                if (uses.users[u]->inputs[k] == tensor) {
                    const bool wants =
                        t->integer[uses.users[u]->id] && is_value_input(uses.users[u], k);
                    read_int |= wants;
                    read_float |= !wants;
                }
        if (!t->types[id].known || tensor->constant || !(made || read_int || t->rounded[id]))
            continue;
        status = convert_tensor(t, tensor, made, read_float);
    }
    qn__uses_free(&uses);
    QN_TRY(status);
    QN_TRY(connect(t, n_nodes));
    for (size_t i = 0; i < n_nodes; i++)
        if (t->integer[graph->nodes[i]->id] && graph->nodes[i]->op == QN_OP_CONV)
            QN_TRY(integer_weights(t, graph->nodes[i]));
    return qn__graph_sort(graph, t->error);
}

qn_status qn__mnn_quant_types(qn_graph *graph, const qn_mnn_source *source, qn_error *error)
{
    typer t = {.graph = graph, .source = source, .doc = &source->doc, .error = error};
    qn_arena *arena = &graph->arena;
    bool any = false;
    t.records = qn__arena_calloc(arena, source->n_tensors + 1, sizeof(*t.records));
    if (!t.records)
        return QN_NOMEM(error);
    QN_TRY(read_records(&t, &any));
    if (!any)
        return QN_OK;
    t.by_id = qn__arena_calloc(arena, source->n_tensors + 1, sizeof(qn_tensor *));
    t.is_int8 = qn__arena_calloc(arena, source->n_ops + 1, 1);
    if (!t.by_id || !t.is_int8)
        return QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_tensors; i++)
        if (graph->tensors[i]->source >= 0 && (size_t)graph->tensors[i]->source < source->n_tensors)
            t.by_id[graph->tensors[i]->source] = graph->tensors[i];
    propagate(&t);
    for (size_t op = 0; op < source->n_ops; op++)
        t.is_int8[op] = op_is_int8(&t, op);
    QN_TRY(take_activations(&t));
    t.n_tensors = graph->n_tensors;
    t.types = qn__arena_calloc(arena, t.n_tensors + 1, sizeof(*t.types));
    t.rounded = qn__arena_calloc(arena, t.n_tensors + 1, 1);
    t.integer = qn__arena_calloc(arena, (size_t)graph->next_node_id * 4 + 1, 1);
    t.quantized = qn__arena_calloc(arena, t.n_tensors + 1, sizeof(qn_tensor *));
    t.dequantized = qn__arena_calloc(arena, t.n_tensors + 1, sizeof(qn_tensor *));
    if (!t.types || !t.rounded || !t.integer || !t.quantized || !t.dequantized)
        return QN_NOMEM(error);
    QN_TRY(choose_nodes(&t));
    return rewrite(&t);
}
