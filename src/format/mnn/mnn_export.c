/* Graphs of other formats as .mnn documents: the walk over the nodes and the tensors it leaves. */
#include "format/mnn/mnn_export.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pass/pass.h"

/* The converter whose conventions the operators follow; the runtime looks at it to tell old files
 * from new ones. */
#define MNN_VERSION "3.6.1"

static const qn_mnx_export_row ROWS[QN_OP_COUNT] = {
#define QN_MNN_ROW(op, function, argument) [QN_OP_##op] = {function, argument},
#include "format/mnn/mnn_export.def"
#undef QN_MNN_ROW
};

qn_status qn__mnx_no_form(const qn_node *node, qn_error *error, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return qn__error_set(error, QN_UNSUPPORTED, "node \"%s\" (%s): no MNN form of %s", node->name,
                         qn__op_name(node->op), text);
}

bool qn__mnx_is_quant(const qn_tensor *tensor)
{
    return tensor != NULL && tensor->type.kind == QN_TYPE_QUANT;
}

/* --- objects -----------------------------------------------------------------------------------*/
qn_fb_object *qn__mnx_new(qn_mnx_exporter *x, int32_t record)
{
    qn_fb_object *object = qn__fb_new(x->doc, record);
    if (object != NULL)
        return object;
    x->doc->arena.failed = true;
    memset(x->scratch_values, 0, sizeof(x->scratch_values));
    x->scratch = (qn_fb_object){.record = record, .values = x->scratch_values};
    return &x->scratch;
}

void qn__mnx_set_floats(qn_mnx_exporter *x, qn_fb_object *object, uint32_t slot,
                        const float *values, size_t count)
{
    if (!qn__fb_set_vector(x->doc, object, slot, values, count))
        x->doc->arena.failed = true;
}

void qn__mnx_set_ints(qn_mnx_exporter *x, qn_fb_object *object, uint32_t slot,
                      const int64_t *values, size_t count)
{
    int32_t *narrow = qn__arena_calloc(&x->graph->arena, count + 1, sizeof(*narrow));
    if (narrow == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        narrow[i] = values[i] > INT32_MAX   ? INT32_MAX
                    : values[i] < INT32_MIN ? INT32_MIN
                                            : (int32_t)values[i];
    if (!qn__fb_set_vector(x->doc, object, slot, narrow, count))
        x->doc->arena.failed = true;
}

static void set_string(qn_mnx_exporter *x, qn_fb_object *object, uint32_t slot, const char *text)
{
    if (!qn__fb_set_string(x->doc, object, slot, text))
        x->doc->arena.failed = true;
}

qn_fb_object *qn__mnx_op(qn_mnx_exporter *x, const char *name, int32_t type, int32_t record,
                         const int32_t *inputs, size_t n_inputs, const int32_t *outputs,
                         size_t n_outputs)
{
    qn_fb_object *op = qn__mnx_new(x, QN_MNN_REC_Op);
    if (!QN_GROW(x->graph->ctx, &x->ops, &x->ops_capacity, x->n_ops))
        x->doc->arena.failed = true;
    else
        x->ops[x->n_ops++] = op;
    if (n_inputs > 0 && !qn__fb_set_vector(x->doc, op, QN_MNN_Op_inputIndexes, inputs, n_inputs))
        x->doc->arena.failed = true;
    if (!qn__fb_set_vector(x->doc, op, QN_MNN_Op_outputIndexes, outputs, n_outputs))
        x->doc->arena.failed = true;
    if (name == NULL && outputs[0] >= 0)
        name = x->names[outputs[0]];
    set_string(x, op, QN_MNN_Op_name, name != NULL ? name : "");
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    qn__fb_set_int(op, QN_MNN_Op_defaultDimentionFormat, QN_MNN_MNN_DATA_FORMAT_NHWC);
    if (record < 0)
        return NULL;
    qn_fb_object *main_table = qn__mnx_new(x, record);
    if (main_table != &x->scratch && op != &x->scratch)
        qn__fb_set_union(x->doc, op, QN_MNN_Op_main, main_table);
    return main_table;
}

/* --- tensors -----------------------------------------------------------------------------------*/
/* -1 when out of memory, which the arena remembers. */
static int32_t new_id(qn_mnx_exporter *x, const char *name, const qn_mnx_value *described)
{
    size_t capacity = x->ids_capacity;
    if (!QN_GROW(x->graph->ctx, &x->names, &capacity, x->n_ids) ||
        !QN_GROW(x->graph->ctx, &x->described, &x->ids_capacity, x->n_ids) || name == NULL) {
        x->doc->arena.failed = true;
        return -1;
    }
    x->names[x->n_ids] = name;
    x->described[x->n_ids] = described;
    return (int32_t)x->n_ids++;
}

/* A name that no tensor of the graph has. */
static const char *new_name(qn_mnx_exporter *x, const char *base, const char *suffix)
{
    const char *text = qn__arena_printf(&x->graph->arena, "%s%s", base, suffix);
    qn_tensor *holder =
        text == NULL ? NULL : qn__graph_add_tensor(x->graph, text, qn_type_plain_make(0));
    return holder == NULL ? NULL : holder->name;
}

qn_mnx_value *qn__mnx_value(qn_mnx_exporter *x, const qn_tensor *tensor)
{
    return x->values[tensor->id];
}

int32_t qn__mnx_between(qn_mnx_exporter *x, const qn_node *node, const char *suffix,
                        const qn_tensor *like)
{
    return new_id(x, new_name(x, node->name, suffix), like ? qn__mnx_value(x, like) : NULL);
}

void qn__mnx_convert(qn_mnx_exporter *x, const char *name, int32_t from, int32_t to,
                     qn_mnx_layout layout)
{
    qn_fb_object *info = qn__mnx_op(x, name, QN_MNN_OpType_ConvertTensor,
                                    QN_MNN_REC_TensorConvertInfo, &from, 1, &to, 1);
    const int planar = QN_MNN_MNN_DATA_FORMAT_NCHW, packed = QN_MNN_MNN_DATA_FORMAT_NC4HW4;
    qn__fb_set_int(info, QN_MNN_TensorConvertInfo_source,
                   layout == QN_MNX_PACKED ? planar : packed);
    qn__fb_set_int(info, QN_MNN_TensorConvertInfo_dest, layout == QN_MNX_PACKED ? packed : planar);
}

static void set_blob_dims(qn_mnx_exporter *x, qn_fb_object *blob, const int64_t *dims, size_t rank)
{
    if (rank > 0)
        qn__mnx_set_ints(x, blob, QN_MNN_Blob_dims, dims, rank);
    qn__fb_set_int(blob, QN_MNN_Blob_dataFormat, QN_MNN_MNN_DATA_FORMAT_NCHW);
}

int32_t qn__mnx_ints(qn_mnx_exporter *x, const qn_node *node, const char *suffix,
                     const int64_t *values, size_t count, bool scalar)
{
    const int32_t id = qn__mnx_between(x, node, suffix, NULL);
    qn_fb_object *blob = qn__mnx_op(x, NULL, QN_MNN_OpType_Const, QN_MNN_REC_Blob, NULL, 0, &id, 1);
    const int64_t length = (int64_t)count;
    set_blob_dims(x, blob, &length, scalar ? 0 : 1);
    qn__fb_set_int(blob, QN_MNN_Blob_dataType, QN_MNN_DataType_DT_INT32);
    qn__mnx_set_ints(x, blob, QN_MNN_Blob_int32s, values, count);
    return id;
}

int32_t qn__mnx_scalar(qn_mnx_exporter *x, const qn_node *node, const char *suffix, float value)
{
    const int32_t id = qn__mnx_between(x, node, suffix, NULL);
    qn_fb_object *blob = qn__mnx_op(x, NULL, QN_MNN_OpType_Const, QN_MNN_REC_Blob, NULL, 0, &id, 1);
    set_blob_dims(x, blob, NULL, 0);
    qn__fb_set_int(blob, QN_MNN_Blob_dataType, QN_MNN_DataType_DT_FLOAT);
    qn__mnx_set_floats(x, blob, QN_MNN_Blob_float32s, &value, 1);
    return id;
}

static qn_status constant(qn_mnx_exporter *x, const qn_tensor *tensor, int32_t *id, qn_error *error)
{
    int64_t dims[QN_MAX_RANK];
    size_t count;
    QN_FAIL_IF(!qn__tensor_static_dims(tensor, dims) || !qn__tensor_count(tensor, &count), error,
               QN_CORRUPT, "constant \"%s\" has no shape", tensor->name);
    *id = new_id(x, tensor->name, qn__mnx_value(x, tensor));
    qn_fb_object *blob = qn__mnx_op(x, NULL, QN_MNN_OpType_Const, QN_MNN_REC_Blob, NULL, 0, id, 1);
    set_blob_dims(x, blob, dims, tensor->rank);
    const qn_dtype dtype = tensor->type.dtype;
    const uint8_t *data = tensor->constant->data;
    if (qn__dtype_is_float(dtype) || qn__mnx_is_quant(tensor)) {
        const qn_quant *quant = tensor->type.quant;
        float *values = qn__arena_calloc(&x->doc->arena, count + 1, sizeof(*values));
        if (values == NULL)
            return QN_NOMEM(error);
        QN_FAIL_IF(qn__mnx_is_quant(tensor) && quant->n_scales != 1, error, QN_UNSUPPORTED,
                   "constant \"%s\": no MNN form of a scale per channel", tensor->name);
        for (size_t i = 0; i < count; i++)
            values[i] = !qn__mnx_is_quant(tensor)
                            ? (float)qn__load_real(data, dtype, i)
                            : (float)(qn__load_int(data, dtype, i) -
                                      (quant->zero_points ? quant->zero_points[0] : 0)) *
                                  quant->scales[0];
        qn__fb_set_int(blob, QN_MNN_Blob_dataType, QN_MNN_DataType_DT_FLOAT);
        qn__fb_borrow_vector(blob, QN_MNN_Blob_float32s, values, count);
        return QN_OK;
    }
    int64_t *values = qn__arena_calloc(&x->graph->arena, count + 1, sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++)
        values[i] = qn__load_int(data, dtype, i);
    qn__fb_set_int(blob, QN_MNN_Blob_dataType, QN_MNN_DataType_DT_INT32);
    qn__mnx_set_ints(x, blob, QN_MNN_Blob_int32s, values, count);
    return QN_OK;
}

qn_status qn__mnx_get(qn_mnx_exporter *x, const qn_tensor *tensor, qn_mnx_layout layout,
                      int32_t *id, qn_error *error)
{
    qn_mnx_value *value = qn__mnx_value(x, tensor);
    if (tensor->constant != NULL && value->ids[0] < 0)
        QN_TRY(constant(x, tensor, &value->ids[0], error));
    if (tensor->constant != NULL)
        layout = QN_MNX_PLANAR;
    const qn_mnx_layout other = layout == QN_MNX_PACKED ? QN_MNX_PLANAR : QN_MNX_PACKED;
    if (value->ids[layout] < 0) {
        if (x->doc->arena.failed || x->graph->arena.failed)
            return QN_NOMEM(error);
        QN_FAIL_IF(value->ids[other] < 0, error, QN_CORRUPT,
                   "tensor \"%s\" is read before it is made", tensor->name);
        const char *name =
            layout == QN_MNX_PLANAR && value->output_name != NULL
                ? value->output_name
                : new_name(x, tensor->name, layout == QN_MNX_PACKED ? "_nc4hw4" : "_nchw");
        value->ids[layout] = new_id(x, name, value);
        qn__mnx_convert(x, NULL, value->ids[other], value->ids[layout], layout);
    }
    *id = value->ids[layout];
    return QN_OK;
}

int32_t qn__mnx_put(qn_mnx_exporter *x, const qn_node *node, uint32_t index, qn_mnx_layout layout,
                    bool fused)
{
    const qn_tensor *tensor = node->outputs[index];
    if (tensor == NULL)
        return qn__mnx_between(x, node, "_unused", NULL);
    qn_mnx_value *value = qn__mnx_value(x, tensor);
    const char *name = value->output_name == NULL ? tensor->name
                       : layout == QN_MNX_PLANAR  ? value->output_name
                                                  : new_name(x, value->output_name, "_nc4hw4");
    value->ids[layout] = new_id(x, name, value);
    if (fused || index != 0 || node->act == QN_ACT_NONE)
        return value->ids[layout];
    x->pending = true;
    x->pending_to = value->ids[layout];
    x->pending_from = qn__mnx_between(x, node, "_linear", tensor);
    return x->pending_from;
}

qn_mnx_layout qn__mnx_layout(qn_mnx_exporter *x, const qn_node *node, bool constants_too)
{
    bool any = false, all_four = true;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_tensor *t = node->inputs[i];
        if (t == NULL)
            continue;
        if (t->constant != NULL) {
            all_four = all_four && constants_too && t->rank <= 4;
            continue;
        }
        any = any || qn__mnx_value(x, t)->ids[QN_MNX_PACKED] >= 0;
        all_four = all_four && t->rank == 4;
    }
    return any && all_four ? QN_MNX_PACKED : QN_MNX_PLANAR;
}

qn_status qn__mnx_constant_floats(qn_mnx_exporter *x, const qn_node *node, uint32_t index,
                                  const float **values, size_t *count, qn_error *error)
{
    const qn_tensor *t = qn_node_input(node, index);
    *values = t == NULL || t->constant == NULL ? NULL : qn__tensor_floats(x->graph, t, count);
    if (*values == NULL && x->graph->arena.failed)
        return QN_NOMEM(error);
    return *values != NULL ? QN_OK
                           : qn__mnx_no_form(node, error, "input %u that is not constant", index);
}

qn_status qn__mnx_constant_ints(qn_mnx_exporter *x, const qn_node *node, uint32_t index,
                                const int64_t **values, size_t *count, qn_error *error)
{
    const qn_tensor *t = qn_node_input(node, index);
    *values = t == NULL || t->constant == NULL ? NULL : qn__tensor_ints(x->graph, t, count);
    if (*values == NULL && x->graph->arena.failed)
        return QN_NOMEM(error);
    return *values != NULL ? QN_OK
                           : qn__mnx_no_form(node, error, "input %u that is not constant", index);
}

int qn__mnx_free_dim(const qn_mnx_exporter *x, const qn_tensor *tensor)
{
    const qn_tensor *t = qn__graph_find_tensor(x->symbolic, tensor->name);
    int found = -1;
    if (t == NULL || !t->has_shape || t->rank != tensor->rank)
        return -1;
    for (int i = 0; i < t->rank; i++) {
        if (t->dims[i].kind == QN_DIM_CONST)
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

/* --- small operators that many functions need --------------------------------------------------*/
void qn__mnx_reshape(qn_mnx_exporter *x, const qn_node *node, const char *suffix, int32_t from,
                     int32_t to, const int64_t *dims, size_t rank, int free_dim)
{
    int64_t wanted[QN_MAX_RANK];
    for (size_t i = 0; i < rank; i++)
        wanted[i] = (int)i == free_dim ? -1 : dims[i];
    const int32_t inputs[2] = {from, qn__mnx_ints(x, node, suffix, wanted, rank, false)};
    qn_fb_object *reshape =
        qn__mnx_op(x, NULL, QN_MNN_OpType_Reshape, QN_MNN_REC_Reshape, inputs, 2, &to, 1);
    qn__fb_set_int(reshape, QN_MNN_Reshape_dimType, QN_MNN_MNN_DATA_FORMAT_NCHW);
}

qn_fb_object *qn__mnx_binary(qn_mnx_exporter *x, const char *name, int32_t operation, int32_t a,
                             int32_t b, int32_t to)
{
    const int32_t inputs[2] = {a, b};
    qn_fb_object *binary =
        qn__mnx_op(x, name, QN_MNN_OpType_BinaryOp, QN_MNN_REC_BinaryOp, inputs, 2, &to, 1);
    qn__fb_set_int(binary, QN_MNN_BinaryOp_opType, operation);
    qn__fb_set_int(binary, QN_MNN_BinaryOp_T, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(binary, QN_MNN_BinaryOp_activationType, 0);
    return binary;
}

qn_fb_object *qn__mnx_unary(qn_mnx_exporter *x, const char *name, int32_t operation, int32_t from,
                            int32_t to)
{
    qn_fb_object *unary =
        qn__mnx_op(x, name, QN_MNN_OpType_UnaryOp, QN_MNN_REC_UnaryOp, &from, 1, &to, 1);
    qn__fb_set_int(unary, QN_MNN_UnaryOp_opType, operation);
    qn__fb_set_int(unary, QN_MNN_UnaryOp_T, QN_MNN_DataType_DT_FLOAT);
    return unary;
}

bool qn__mnx_act(const qn_node *node, float *lo, float *hi)
{
    *lo = node->act == QN_ACT_CLIP ? node->act_lo : 0;
    *hi = node->act == QN_ACT_CLIP ? node->act_hi : INFINITY;
    return node->act != QN_ACT_NONE;
}

void qn__mnx_clip(qn_mnx_exporter *x, const char *name, float lo, float hi, int32_t from,
                  int32_t to)
{
    if (lo == 0 && isinf(hi)) {
        qn_fb_object *relu =
            qn__mnx_op(x, name, QN_MNN_OpType_ReLU, QN_MNN_REC_Relu, &from, 1, &to, 1);
        qn__fb_set_real(relu, QN_MNN_Relu_slope, 0);
        return;
    }
    qn_fb_object *clip =
        qn__mnx_op(x, name, QN_MNN_OpType_ReLU6, QN_MNN_REC_Relu6, &from, 1, &to, 1);
    qn__fb_set_real(clip, QN_MNN_Relu6_minValue, isinf(lo) ? -FLT_MAX : lo);
    qn__fb_set_real(clip, QN_MNN_Relu6_maxValue, isinf(hi) ? FLT_MAX : hi);
}

/* --- the walk ----------------------------------------------------------------------------------*/
static bool copies(qn_op op)
{
    return op == QN_OP_IDENTITY || op == QN_OP_DROPOUT || op == QN_OP_QUANTIZE_LINEAR ||
           op == QN_OP_DEQUANTIZE_LINEAR || op == QN_OP_REQUANTIZE;
}

/* MNN describes the quantization of a tensor by one scale. */
static qn_status describe(qn_mnx_value *value, const qn_tensor *tensor, qn_error *error)
{
    const qn_quant *quant = tensor->type.quant;
    if (!qn__mnx_is_quant(tensor))
        return QN_OK;
    QN_FAIL_IF(tensor->type.dtype != QN_DTYPE_I8 || quant->n_scales != 1 || quant->n_codebook != 0,
               error, QN_UNSUPPORTED,
               "tensor \"%s\": MNN has signed 8-bit activations with one scale (quantize for the "
               "target mnn)",
               tensor->name);
    value->has_quant = true;
    value->quant = (qn_mnn_tensor_quant){
        .scale = quant->scales[0],
        .zero = quant->zero_points ? quant->zero_points[0] : 0,
        .min = quant->qmin,
        .max = quant->qmax,
    };
    return QN_OK;
}

static qn_status make_values(qn_mnx_exporter *x, qn_error *error)
{
    qn_graph *g = x->graph;
    x->n_values = g->n_tensors;
    x->values = qn__arena_calloc(&g->arena, g->n_tensors + 1, sizeof(qn_mnx_value *));
    qn_mnx_value *all = qn__arena_calloc(&g->arena, g->n_tensors + 1, sizeof(*all));
    if (x->values == NULL || all == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < g->n_tensors; i++) {
        all[i].ids[0] = all[i].ids[1] = -1;
        x->values[i] = &all[i];
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const qn_node *node = g->nodes[i];
        if (!copies(node->op) || node->n_inputs < 1 || node->inputs[0] == NULL ||
            node->n_outputs < 1 || node->outputs[0] == NULL)
            continue;
        x->values[node->outputs[0]->id] = x->values[node->inputs[0]->id];
    }
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->constant == NULL ||
            (qn__mnx_is_quant(g->tensors[i]) && g->tensors[i]->type.quant->n_scales == 1 &&
             g->tensors[i]->type.dtype == QN_DTYPE_I8))
            QN_TRY(describe(x->values[i], g->tensors[i], error));
    /* Outputs give their names to what they are made of, unless that has one of its own. */
    for (size_t i = 0; i < g->n_inputs; i++)
        x->values[g->inputs[i]->id]->output_name = g->inputs[i]->name;
    for (size_t i = 0; i < g->n_outputs; i++) {
        qn_mnx_value *value = x->values[g->outputs[i]->id];
        if (value->output_name == NULL && g->outputs[i]->constant == NULL)
            value->output_name = g->outputs[i]->name;
    }
    return QN_OK;
}

static int32_t data_type(qn_dtype dtype)
{
    switch (dtype) {
    case QN_DTYPE_U8:
        return QN_MNN_DataType_DT_UINT8;
    case QN_DTYPE_I8:
        return QN_MNN_DataType_DT_INT8;
    default:
        return qn__dtype_is_float(dtype) ? QN_MNN_DataType_DT_FLOAT : QN_MNN_DataType_DT_INT32;
    }
}

static qn_status write_input(qn_mnx_exporter *x, const qn_tensor *tensor, qn_error *error)
{
    qn_mnx_value *value = qn__mnx_value(x, tensor);
    int64_t dims[QN_MAX_RANK];
    QN_FAIL_IF(!qn__tensor_static_dims(tensor, dims), error, QN_UNSUPPORTED,
               "input \"%s\": sizes other than the batch must be fixed", tensor->name);
    if (qn__mnx_free_dim(x, tensor) == 0)
        dims[0] = -1;
    value->ids[QN_MNX_PLANAR] = new_id(x, tensor->name, value);
    qn_fb_object *input = qn__mnx_op(x, tensor->name, QN_MNN_OpType_Input, QN_MNN_REC_Input, NULL,
                                     0, &value->ids[QN_MNX_PLANAR], 1);
    qn__mnx_set_ints(x, input, QN_MNN_Input_dims, dims, tensor->rank);
    qn__fb_set_int(input, QN_MNN_Input_dtype,
                   qn__mnx_is_quant(tensor) ? QN_MNN_DataType_DT_FLOAT
                                            : data_type(tensor->type.dtype));
    qn__fb_set_int(input, QN_MNN_Input_dformat, QN_MNN_MNN_DATA_FORMAT_NCHW);
    return QN_OK;
}

static qn_status write_node(qn_mnx_exporter *x, const qn_node *node, qn_error *error)
{
    const qn_mnx_export_row *row = &ROWS[node->op];
    if (row->function == NULL)
        return qn__mnx_no_form(node, error, "%s", qn__op_name(node->op));
    for (uint32_t i = 0; i < node->n_inputs + node->n_outputs; i++) {
        const qn_tensor *t =
            i < node->n_inputs ? node->inputs[i] : node->outputs[i - node->n_inputs];
        int64_t dims[QN_MAX_RANK];
        if (t != NULL && !qn__tensor_static_dims(t, dims))
            return qn__mnx_no_form(node, error, "tensor \"%s\", whose sizes are not fixed",
                                   t->name);
    }
    x->pending = false;
    QN_TRY(row->function(x, node, row->argument, error));
    float lo, hi;
    if (x->pending && qn__mnx_act(node, &lo, &hi))
        qn__mnx_clip(x, node->act_name, lo, hi, x->pending_from, x->pending_to);
    return QN_OK;
}

/* Outputs are planar; one that shares its contents with an input, a constant or another output is
 * copied to get a name of its own. */
static qn_status write_output(qn_mnx_exporter *x, const qn_tensor *tensor, qn_error *error)
{
    int32_t from;
    int64_t dims[QN_MAX_RANK];
    QN_TRY(qn__mnx_get(x, tensor, QN_MNX_PLANAR, &from, error));
    if (from < 0 || strcmp(x->names[from], tensor->name) == 0)
        return QN_OK;
    QN_FAIL_IF(!qn__tensor_static_dims(tensor, dims) || tensor->rank == 0, error, QN_UNSUPPORTED,
               "output \"%s\": no MNN form of a copy of a scalar", tensor->name);
    const qn_node owner = {.name = tensor->name};
    const int32_t to = new_id(x, tensor->name, qn__mnx_value(x, tensor));
    qn__mnx_reshape(x, &owner, "_shape", from, to, dims, tensor->rank, qn__mnx_free_dim(x, tensor));
    return QN_OK;
}

static qn_status write_net(qn_mnx_exporter *x, const qn_write_options *options, qn_error *error)
{
    qn_graph *g = x->graph;
    qn_fb_object *net = x->doc->root;
    set_string(x, net, QN_MNN_Net_bizCode,
               options && options->producer ? options->producer : "quench");
    qn_fb_object *info = qn__mnx_new(x, QN_MNN_REC_ExtraInfo);
    set_string(x, info, QN_MNN_ExtraInfo_version, MNN_VERSION);
    qn__fb_set_table(net, QN_MNN_Net_extraInfo, info);
    const char **outputs = qn__arena_calloc(&g->arena, g->n_outputs + 1, sizeof(*outputs));
    if (outputs == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < g->n_outputs; i++)
        outputs[i] = g->outputs[i]->name;
    if (!qn__fb_set_tables(x->doc, net, QN_MNN_Net_oplists, x->ops, x->n_ops) ||
        !qn__fb_set_strings(x->doc, net, QN_MNN_Net_outputName, outputs, g->n_outputs) ||
        !qn__fb_set_strings(x->doc, net, QN_MNN_Net_tensorName, x->names, x->n_ids))
        return QN_NOMEM(error);
    qn__fb_set_int(net, QN_MNN_Net_preferForwardType, 0);
    qn__fb_set_int(net, QN_MNN_Net_sourceType, QN_MNN_NetSource_ONNX);
    qn__fb_set_int(net, QN_MNN_Net_tensorNumber, 0);
    qn__fb_set_int(net, QN_MNN_Net_usage, 0);
    return QN_OK;
}

qn_status qn__mnn_export(const qn_graph *graph, const qn_write_options *options,
                         qn_fb_document *out, qn_error *error)
{
    qn_status status = QN_OK;
    qn_mnx_exporter *x = qn__calloc(graph->ctx, 1, sizeof(*x));
    bool created = false;
    if (x == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_tensors; i++)
        if (graph->tensors[i]->type.kind == QN_TYPE_DYNAMIC)
            QN_FAIL_GOTO(error, QN_UNSUPPORTED, "tensor \"%s\": MNN has no scales made at run time",
                         graph->tensors[i]->name);
    x->symbolic = graph;
    x->doc = out;
    QN_TRY_GOTO(qn__mnx_prepare(graph, options, &x->graph, error));
    QN_TRY_GOTO(qn__fb_create(graph->ctx, &qn__mnn_schema, out, error));
    created = true;
    QN_TRY_GOTO(make_values(x, error));
    for (size_t i = 0; i < x->graph->n_inputs; i++)
        QN_TRY_GOTO(write_input(x, x->graph->inputs[i], error));
    for (size_t i = 0; i < x->graph->n_nodes; i++)
        QN_TRY_GOTO(write_node(x, x->graph->nodes[i], error));
    for (size_t i = 0; i < x->graph->n_outputs; i++)
        QN_TRY_GOTO(write_output(x, x->graph->outputs[i], error));
    QN_TRY_GOTO(write_net(x, options, error));
    QN_TRY_GOTO(qn__mnx_export_quants(x, error));
    QN_TRY_GOTO(qn__arena_check(&x->graph->arena, error));
    QN_TRY_GOTO(qn__arena_check(&out->arena, error));
done:
    if (status != QN_OK && created)
        qn__fb_free(out);
    qn__free(graph->ctx, x->ops);
    qn__free(graph->ctx, x->names);
    qn__free(graph->ctx, x->described);
    qn__graph_destroy(x->graph);
    qn__free(graph->ctx, x);
    return status;
}
