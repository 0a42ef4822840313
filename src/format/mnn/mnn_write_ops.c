/* Parameters of operators that quantization changed. */
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_source.h"
#include "format/mnn/mnn_write.h"

/* --- convolutions -----------------------------------------------------------------------------*/
/* What a convolution will be: integers with scales, or floats; the bias, zeros when it has none. */
typedef struct layer {
    size_t rows, count;
    int8_t *q;     /* NULL: floats */
    float *scales; /* [rows] with q */
    uint32_t bits;
    float *values; /* [count] without q */
    float *bias;   /* [rows] */
} layer;

static qn_status integers_of(qn_mnn_writer *w, const qn_node *node, layer *l)
{
    const qn_tensor *t = node->inputs[1];
    const qn_quant *quant = t->type.quant;
    const bool plain = quant->is_signed && quant->bits <= 8 && quant->block == 0 &&
                       quant->n_codebook == 0 && (quant->axis == 0 || quant->n_scales == 1);
    QN_FAIL_IF(!plain || (quant->n_scales != 1 && quant->n_scales != l->rows), w->error,
               QN_UNSUPPORTED, "Conv \"%s\": MNN's weights are signed, up to 8 bits, per channel",
               node->name);
    l->q = qn__arena_calloc(&w->doc.arena, l->count, 1);
    l->scales = qn__arena_calloc(&w->doc.arena, l->rows, sizeof(*l->scales));
    if (!l->q || !l->scales)
        return QN_NOMEM(w->error);
    for (size_t r = 0; r < l->rows; r++)
        l->scales[r] = quant->scales[quant->n_scales == 1 ? 0 : r];
    for (size_t i = 0; i < l->count; i++) {
        const int64_t q = qn__load_int(t->constant->data, t->type.dtype, i);
        const int32_t zero =
            quant->zero_points
                ? quant->zero_points[quant->n_scales == 1 ? 0 : i / (l->count / l->rows)]
                : 0;
        QN_FAIL_IF(zero != 0 || q < INT8_MIN || q > INT8_MAX, w->error, QN_UNSUPPORTED,
                   "Conv \"%s\": weight %zu is %d with zero point %d; MNN's have none", node->name,
                   i, (int)q, zero);
        l->q[i] = (int8_t)q;
    }
    /* the fewest bits that hold what is there, at least the type's */
    l->bits = quant->bits < 2 ? 2 : quant->bits;
    for (size_t i = 0; i < l->count; i++)
        while (l->q[i] < -(1 << (l->bits - 1)) || l->q[i] >= 1 << (l->bits - 1))
            l->bits++;
    return QN_OK;
}

static qn_status floats_of(qn_mnn_writer *w, const qn_tensor *t, size_t count, float **out)
{
    float *values = qn__arena_calloc(&w->doc.arena, count, sizeof(*values));
    if (!values)
        return QN_NOMEM(w->error);
    const qn_quant *q = t->type.kind == QN_TYPE_QUANT ? t->type.quant : NULL; /* int32 biases */
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)qn__load_real(t->constant->data, t->type.dtype, i);
        if (q)
            values[i] *= q->scales[q->n_scales == 1 ? 0 : i % q->n_scales];
    }
    *out = values;
    return QN_OK;
}

static qn_status layer_of(qn_mnn_writer *w, const qn_node *node, size_t outputs, layer *l)
{
    const qn_tensor *t = node->inputs[1];
    const qn_tensor *bias = node->n_inputs > 2 ? node->inputs[2] : NULL;
    size_t n_bias;
    QN_FAIL_IF(!qn__tensor_count(t, &l->count) || l->count == 0 || outputs == 0 ||
                   l->count % outputs != 0,
               w->error, QN_INTERNAL, "%s \"%s\": weights do not fit %zu outputs",
               qn__op_name(node->op), node->name, outputs);
    l->rows = outputs;
    if (qn_mnn_is_quant(t))
        QN_TRY(integers_of(w, node, l));
    else
        QN_TRY(floats_of(w, t, l->count, &l->values));
    l->bias = qn__arena_calloc(&w->doc.arena, l->rows, sizeof(*l->bias));
    if (!l->bias)
        return QN_NOMEM(w->error);
    if (bias == NULL)
        return QN_OK;
    QN_FAIL_IF(bias->constant == NULL || !qn__tensor_count(bias, &n_bias) ||
                   (n_bias != l->rows && n_bias != 1),
               w->error, QN_UNSUPPORTED, "%s \"%s\": its bias is not one constant per output",
               qn__op_name(node->op), node->name);
    float *values = NULL;
    QN_TRY(floats_of(w, bias, n_bias, &values));
    for (size_t r = 0; r < l->rows; r++)
        l->bias[r] = values[n_bias == 1 ? 0 : r];
    return QN_OK;
}

static bool same_bias(const layer *l, const qn_blob *stored)
{
    for (size_t r = 0; r < l->rows; r++) {
        float value = 0;
        if (stored && (r + 1) * sizeof(value) <= stored->size_bytes)
            memcpy(&value, stored->data + r * sizeof(value), sizeof(value));
        if (value != l->bias[r])
            return false;
    }
    return true;
}

/* Does the file say the same already? */
static qn_status is_stored(qn_mnn_writer *w, size_t op, const layer *l, bool *same)
{
    qn_mnn_packed packed;
    qn_mnn_stored stored;
    QN_TRY(qn__mnn_stored(w->source, op, &stored, w->error));
    *same = same_bias(l, stored.bias);
    qn__mnn_stored_free(&stored);
    if (!*same)
        return QN_OK;
    QN_TRY(qn__mnn_unpack(w->source, op, l->rows, l->count, &packed, w->error));
    if (l->q)
        *same = packed.integers != NULL && packed.symmetric && packed.n_blocks == 1 &&
                memcmp(packed.integers, l->q, l->count) == 0 &&
                memcmp(packed.scales, l->scales, l->rows * sizeof(float)) == 0;
    else
        *same = memcmp(packed.values, l->values, l->count * sizeof(float)) == 0;
    qn__mnn_packed_free(w->graph->ctx, &packed);
    return QN_OK;
}

static qn_status write_floats(qn_mnn_writer *w, size_t op, const layer *l)
{
    qn_fb_object *object = qn__mnn_own_op(w, op);
    qn_fb_object *conv = object ? qn__fb_copy(&w->doc, qn__fb_table(object, QN_MNN_Op_main)) : NULL;
    if (!conv ||
        !qn__fb_set_vector(&w->doc, conv, QN_MNN_Convolution2D_weight, l->values, l->count) ||
        !qn__fb_set_vector(&w->doc, conv, QN_MNN_Convolution2D_bias, l->bias, l->rows))
        return QN_NOMEM(w->error);
    qn__fb_clear(conv, QN_MNN_Convolution2D_quanParameter);
    qn__fb_clear(conv, QN_MNN_Convolution2D_symmetricQuan);
    qn__fb_clear(conv, QN_MNN_Convolution2D_external);
    qn__fb_set_union(&w->doc, object, QN_MNN_Op_main, conv);
    return QN_OK;
}

static void scale_and_zero(const qn_tensor *t, float *scale, int32_t *zero)
{
    const bool known = qn_mnn_is_quant(t) && t->type.quant->n_scales == 1;
    *scale = known ? t->type.quant->scales[0] : 0;
    *zero = known && t->type.quant->zero_points ? t->type.quant->zero_points[0] : 0;
}

static qn_status write_integers(qn_mnn_writer *w, size_t op, const qn_node *node, const layer *l)
{
    qn_mnn_conv_edit edit = {.q = l->q,
                             .scales = l->scales,
                             .bias = l->bias,
                             .rows = l->rows,
                             .columns = l->count / l->rows,
                             .bits = l->bits,
                             .nbits = 8, /* fewer switch MNN's x86 kernels to ones that fail */
                             .linear = l->bits == 8,
                             .sparse = l->bits == 8};
    const qn_tensor *x = node->inputs[0];
    const qn_tensor *y = node->outputs[0];
    scale_and_zero(x, &edit.scale_in, &edit.zero_in);
    scale_and_zero(y, &edit.scale_out, &edit.zero_out);
    if (qn_mnn_is_quant(y)) {
        edit.clamp_min = y->type.quant->qmin;
        edit.clamp_max = y->type.quant->qmax;
    }
    if (x->has_shape && x->rank > 1 && x->dims[1].kind == QN_DIM_CONST)
        edit.input_channels = x->dims[1].value;
    qn_fb_object *object = qn__mnn_own_op(w, op);
    if (!object)
        return QN_NOMEM(w->error);
    return qn__mnn_edit_conv(&w->doc, object, &edit, w->error);
}

qn_status qn__mnn_write_weights(qn_mnn_writer *w, size_t op, const qn_node *node)
{
    const qn_fb_object *main = qn__fb_table(w->ops[op].object, QN_MNN_Op_main);
    const qn_fb_object *common = qn__fb_table(main, QN_MNN_Convolution2D_common);
    layer l = {0};
    bool same = false;
    if (node->n_inputs < 2 || node->inputs[1] == NULL || node->inputs[1]->constant == NULL ||
        common == NULL)
        return QN_OK; /* computed by other operators */
    const int64_t outputs = qn__fb_int(&w->doc, common, QN_MNN_Convolution2DCommon_outputCount);
    QN_TRY(layer_of(w, node, outputs > 0 ? (size_t)outputs : 0, &l));
    QN_TRY(is_stored(w, op, &l, &same));
    if (same && !qn__fb_has(main, QN_MNN_Convolution2D_external))
        return QN_OK; /* a changed file has all weights inside */
    QN_FAIL_IF(l.q && node->op != QN_OP_CONV, w->error, QN_UNSUPPORTED,
               "%s \"%s\" has no integer form in .mnn files", qn__op_name(node->op), node->name);
    return l.q ? write_integers(w, op, node, &l) : write_floats(w, op, &l);
}

/* --- activations ------------------------------------------------------------------------------*/
static qn_status set_conv_act(qn_mnn_writer *w, size_t op, bool six)
{
    qn_fb_object *object = qn__mnn_own_op(w, op);
    qn_fb_object *conv = object ? qn__fb_copy(&w->doc, qn__fb_table(object, QN_MNN_Op_main)) : NULL;
    const qn_fb_object *from = conv ? qn__fb_table(conv, QN_MNN_Convolution2D_common) : NULL;
    qn_fb_object *common = from ? qn__fb_copy(&w->doc, from) : NULL;
    if (!common)
        return QN_NOMEM(w->error);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu, !six);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu6, six);
    qn__fb_set_table(conv, QN_MNN_Convolution2D_common, common);
    qn__fb_set_union(&w->doc, object, QN_MNN_Op_main, conv);
    return QN_OK;
}

static qn_status set_binary_act(qn_mnn_writer *w, size_t op, bool relu)
{
    const qn_fb_object *main = qn__fb_table(w->ops[op].object, QN_MNN_Op_main);
    if (qn__fb_int(&w->doc, main, QN_MNN_BinaryOp_activationType) == relu)
        return QN_OK;
    qn_fb_object *object = qn__mnn_own_op(w, op);
    qn_fb_object *binary = object ? qn__fb_copy(&w->doc, main) : NULL;
    if (!binary)
        return QN_NOMEM(w->error);
    qn__fb_set_int(binary, QN_MNN_BinaryOp_activationType, relu);
    qn__fb_set_union(&w->doc, object, QN_MNN_Op_main, binary);
    return QN_OK;
}

/* Does the saturation of the output's integers do what the activation does? */
static bool absorbs(const qn_node *node)
{
    const qn_tensor *y = node->outputs[0];
    if (!qn_mnn_is_quant(y) || y->type.quant->n_scales != 1)
        return false;
    const float lo = node->act == QN_ACT_RELU ? 0 : node->act_lo;
    const float hi = node->act == QN_ACT_RELU ? INFINITY : node->act_hi;
    float scale;
    int32_t zero;
    scale_and_zero(y, &scale, &zero);
    const double bottom = isinf(lo) ? INT8_MIN : rint((double)lo / (double)scale) + zero;
    const double top = isinf(hi) ? INT8_MAX : rint((double)hi / (double)scale) + zero;
    return bottom <= y->type.quant->qmin && top >= y->type.quant->qmax;
}

qn_status qn__mnn_write_act(qn_mnn_writer *w, size_t op, const qn_node *node, bool *done)
{
    const bool relu =
        node->act == QN_ACT_RELU || (node->act_lo == 0 && isinf(node->act_hi) && node->act_hi > 0);
    const bool six = node->act == QN_ACT_CLIP && node->act_lo == 0 && node->act_hi == 6;
    const qn_fb_object *main = qn__fb_table(w->ops[op].object, QN_MNN_Op_main);
    *done = false;
    if (!main || (!relu && !six))
        return QN_OK;
    if (main->record == QN_MNN_REC_Convolution2D) {
        *done = true;
        return set_conv_act(w, op, six);
    }
    if (main->record != QN_MNN_REC_BinaryOp)
        return QN_OK;
    /* MNN's int8 kernels cut at level 0, not at the zero point: let saturation do it instead. */
    const bool absorbed = absorbs(node);
    float scale;
    int32_t zero;
    scale_and_zero(node->outputs[0], &scale, &zero);
    *done = absorbed || (relu && zero == 0);
    return *done ? set_binary_act(w, op, !absorbed) : QN_OK;
}

/* --- Eltwise, UnaryOp -------------------------------------------------------------------------*/
qn_status qn__mnn_write_eltwise(qn_mnn_writer *w, size_t op)
{
    static const struct {
        int64_t eltwise, binary;
    } KINDS[] = {{QN_MNN_EltwiseType_PROD, QN_MNN_BinaryOpOperation_MUL},
                 {QN_MNN_EltwiseType_SUM, QN_MNN_BinaryOpOperation_ADD},
                 {QN_MNN_EltwiseType_MAXIMUM, QN_MNN_BinaryOpOperation_MAXIMUM},
                 {QN_MNN_EltwiseType_SUB, QN_MNN_BinaryOpOperation_SUB}};
    const qn_fb_object *main = qn__fb_table(w->ops[op].object, QN_MNN_Op_main);
    if (!main || main->record != QN_MNN_REC_Eltwise || qn__mnn_op_input(w, op, 2) >= 0)
        return QN_OK;
    size_t n_coeff = 0, kind = 0;
    qn__fb_bytes(main, QN_MNN_Eltwise_coeff, &n_coeff);
    for (size_t i = 0; i < n_coeff; i++)
        if (qn__fb_real_at(&w->doc, main, QN_MNN_Eltwise_coeff, i) != 1)
            return QN_OK;
    const size_t n_kinds = sizeof(KINDS) / sizeof(KINDS[0]);
    while (kind < n_kinds && KINDS[kind].eltwise != qn__fb_int(&w->doc, main, QN_MNN_Eltwise_type))
        kind++;
    if (kind == n_kinds)
        return QN_OK;
    qn_fb_object *object = qn__mnn_own_op(w, op);
    qn_fb_object *binary = qn__fb_new(&w->doc, QN_MNN_REC_BinaryOp);
    if (!object || !binary)
        return QN_NOMEM(w->error);
    qn__fb_set_int(binary, QN_MNN_BinaryOp_opType, KINDS[kind].binary);
    qn__fb_set_int(binary, QN_MNN_BinaryOp_T, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(binary, QN_MNN_BinaryOp_activationType, 0);
    qn__fb_set_int(object, QN_MNN_Op_type, QN_MNN_OpType_BinaryOp);
    qn__fb_set_union(&w->doc, object, QN_MNN_Op_main, binary);
    return QN_OK;
}

/* MNN adds in int8 wherever all sides have records, wanted or not, and then cuts a fused ReLU at
 * level 0. */
qn_status qn__mnn_write_binary_act(qn_mnn_writer *w, size_t op)
{
    const qn_fb_object *main = qn__fb_table(w->ops[op].object, QN_MNN_Op_main);
    const int64_t out = qn__mnn_op_output(w, op, 0);
    if (!main || main->record != QN_MNN_REC_BinaryOp || w->ops[op].dropped || out < 0 ||
        !w->records[out].known || !w->changed ||
        qn__fb_int(&w->doc, main, QN_MNN_BinaryOp_activationType) == 0)
        return QN_OK;
    int64_t in;
    for (size_t i = 0; (in = qn__mnn_op_input(w, op, i)) >= 0; i++)
        if (!w->records[in].known)
            return QN_OK; /* in float */
    const qn_mnn_record *r = &w->records[out];
    const char *name = qn__fb_string(w->ops[op].object, QN_MNN_Op_name);
    QN_FAIL_IF(r->zero != 0 && r->zero != r->min, w->error, QN_UNSUPPORTED,
               "operator \"%s\": MNN's integers cannot apply its activation at zero point %d",
               name ? name : "", r->zero);
    return r->zero == 0 ? QN_OK : set_binary_act(w, op, false); /* saturation does it */
}

/* Level of the output for each of the levels -127..127 of the input. */
enum { TABLE_LEVELS = 255 };

static void sigmoid_table(const qn_mnn_record *in, const qn_mnn_record *out, int8_t *table)
{
    for (int32_t i = 0; i < TABLE_LEVELS; i++) {
        const double x = (i - 127 - in->zero) * (double)in->scale;
        const double q = rint(1.0 / (1.0 + exp(-x)) / (double)out->scale) + out->zero;
        table[i] = (int8_t)(q < out->min ? out->min : q > out->max ? out->max : q);
    }
}

/* Level -128 is outside the table and MNN reads what lies before it. A convolution keeps its levels
 * within the record of its output, so there -128 can be kept away; where it stands for 0, it is
 * needed. */
static bool limit_to_table(qn_mnn_writer *w, int64_t in)
{
    qn_mnn_record *r = &w->records[in];
    for (size_t op = 0; op < w->source->n_ops; op++) {
        const int64_t type = qn__mnn_written_type(w, op);
        if (w->ops[op].dropped || qn__mnn_op_output(w, op, 0) != in)
            continue;
        if (r->zero == INT8_MIN ||
            (type != QN_MNN_OpType_Convolution && type != QN_MNN_OpType_ConvolutionDepthwise))
            return false;
        r->min = r->min < -INT8_MAX ? -INT8_MAX : r->min;
        return true;
    }
    return false;
}

/* A table without both records makes MNN compute nonsense; with them and without it, in float. */
qn_status qn__mnn_write_table(qn_mnn_writer *w, size_t op)
{
    const qn_fb_object *main = qn__fb_table(w->ops[op].object, QN_MNN_Op_main);
    if (!main || main->record != QN_MNN_REC_UnaryOp || w->ops[op].dropped)
        return QN_OK;
    const int64_t in = qn__mnn_op_input(w, op, 0), out = qn__mnn_op_output(w, op, 0);
    const qn_node *node = qn__mnn_node_of(w, op, QN_OP_SIGMOID);
    bool wanted = node != NULL && in >= 0 && out >= 0 && w->records[in].known &&
                  w->records[out].known && qn_mnn_is_quant(node->outputs[0]) &&
                  !w->records[in].conflict && !w->records[out].conflict;
    wanted = wanted && limit_to_table(w, in);
    int8_t table[TABLE_LEVELS];
    size_t n_old = 0;
    const uint8_t *old = qn__fb_bytes(main, QN_MNN_UnaryOp_tableInt8, &n_old);
    if (wanted)
        sigmoid_table(&w->records[in], &w->records[out], table);
    if (wanted ? n_old == TABLE_LEVELS && memcmp(old, table, TABLE_LEVELS) == 0
               : n_old == 0 || !w->changed)
        return QN_OK;
    qn_fb_object *object = qn__mnn_own_op(w, op);
    qn_fb_object *unary = object ? qn__fb_copy(&w->doc, main) : NULL;
    if (!unary)
        return QN_NOMEM(w->error);
    qn__fb_clear(unary, QN_MNN_UnaryOp_tableInt8);
    if (wanted && !qn__fb_set_vector(&w->doc, unary, QN_MNN_UnaryOp_tableInt8, table, TABLE_LEVELS))
        return QN_NOMEM(w->error);
    qn__fb_set_union(&w->doc, object, QN_MNN_Op_main, unary);
    return QN_OK;
}

/* --- what lies in the side file ---------------------------------------------------------------*/
qn_status qn__mnn_write_inside(qn_mnn_writer *w, size_t op)
{
    qn_fb_object *object = w->ops[op].object;
    QN_TRY(qn__mnn_take_inside(w->source, &w->doc, &object, w->error));
    if (object != w->ops[op].object) {
        w->ops[op].object = object;
        w->ops[op].own = w->changed = true;
    }
    return QN_OK;
}
