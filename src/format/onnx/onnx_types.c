/* Scales and zero points of the file become types of the graph: the nodes themselves, and operators
 * on integers. What pairs up around float operators is collapsed in onnx_collapse.c. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_blocks.h"
#include "format/onnx/onnx_collapse.h"
#include "format/onnx/onnx_dynamic.h"
#include "format/onnx/onnx_qtypes.h"
#include "format/onnx/onnx_read.h"

typedef struct qn_scaled { /* a tensor with its parameters, as inputs of a node */
    qn_tensor *tensor, *scale, *zero_point;
    int64_t axis; /* of a vector of scales */
    int64_t block;
    bool has_axis; /* the axis is meant, even where a single scale would not need it */
} qn_scaled;

static bool is_quant(const qn_tensor *tensor)
{
    return tensor && tensor->type.kind == QN_TYPE_QUANT;
}

static qn_scaled scaled_at(const qn_node *node, uint32_t tensor, uint32_t scale, int64_t axis)
{
    return (qn_scaled){qn_node_input(node, tensor),
                       qn_node_input(node, scale),
                       qn_node_input(node, scale + 1),
                       axis,
                       0,
                       false};
}

/* --- parameters -------------------------------------------------------------------------------*/
static qn_status check_storage(const qn_onnx_reader *r, const qn_node *node, qn_dtype dtype,
                               qn_error *error)
{
    const uint32_t bits = qn__dtype_bits(dtype);
    if (qn__dtype_is_float(dtype) || dtype == QN_DTYPE_BOOL || (bits > 16 && dtype != QN_DTYPE_I32))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "quantizes to %s",
                                  qn__dtype_name(dtype));
    return QN_OK;
}

static qn_status read_scales(const qn_onnx_reader *r, const qn_node *node, const qn_scaled *s,
                             qn_quant *quant, qn_error *error)
{
    const qn_tensor *scale = s->scale;
    if (!scale || !scale->constant)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "scale \"%s\" is not constant",
                                  scale ? scale->name : "");
    if (!qn__dtype_is_float(scale->type.dtype) || scale->type.kind != QN_TYPE_PLAIN)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "scale \"%s\" is %s, not a float",
                                  scale->name, qn__dtype_name(scale->type.dtype));
    quant->scales = qn__tensor_floats(r->graph, scale, &quant->n_scales);
    if (!quant->scales)
        return QN_NOMEM(error);
    if (quant->n_scales == 0)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "scale \"%s\" is empty", scale->name);
    for (size_t i = 0; i < quant->n_scales; i++)
        if (!isfinite(quant->scales[i]) || quant->scales[i] <= 0.0f)
            return qn__onnx_node_fail(r, node, error, QN_NONFINITE,
                                      "scale \"%s\"[%zu] is %g, not a positive number", scale->name,
                                      i, (double)quant->scales[i]);
    return QN_OK;
}

static qn_status read_zero_points(const qn_onnx_reader *r, const qn_node *node, const qn_scaled *s,
                                  qn_quant *quant, qn_error *error)
{
    const qn_tensor *zp = s->zero_point;
    if (!zp)
        return QN_OK;
    size_t count = 0;
    const int64_t *values = zp->constant ? qn__tensor_ints(r->graph, zp, &count) : NULL;
    if (!values)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "zero point \"%s\" is not a constant integer", zp->name);
    if (count != quant->n_scales)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "%zu zero points for %zu scales",
                                  count, quant->n_scales);
    int32_t *points = qn__arena_calloc(&r->graph->arena, count, sizeof(*points));
    if (!points)
        return QN_NOMEM(error);
    bool zero = true;
    for (size_t i = 0; i < count; i++) {
        points[i] = (int32_t)values[i]; /* at most 32 bits wide: checked with the storage */
        zero = zero && points[i] == 0;
    }
    quant->zero_points = zero ? NULL : points;
    return QN_OK;
}

/* The type that scale and zero point give to integers stored as `storage`. */
static qn_status make_type(const qn_onnx_reader *r, const qn_node *node, const qn_scaled *s,
                           qn_dtype storage, qn_type *out, qn_error *error)
{
    qn_quant quant = {.axis = -1};
    QN_TRY(check_storage(r, node, storage, error));
    if (s->zero_point && s->zero_point->type.dtype != storage)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "zero point \"%s\" is %s, not %s",
                                  s->zero_point->name, qn__dtype_name(s->zero_point->type.dtype),
                                  qn__dtype_name(storage));
    QN_TRY(read_scales(r, node, s, &quant, error));
    QN_TRY(read_zero_points(r, node, s, &quant, error));
    quant.bits = (uint8_t)qn__dtype_bits(storage);
    quant.is_signed = qn__dtype_is_signed(storage);
    const int64_t lo = quant.is_signed ? -((int64_t)1 << (quant.bits - 1)) : 0;
    quant.qmin = (int32_t)lo;
    quant.qmax = (int32_t)(lo + ((int64_t)1 << quant.bits) - 1);
    int64_t axis = s->axis;
    const qn_tensor *t = s->tensor;
    if (axis < 0 && t && t->has_shape)
        axis += t->rank;
    /* A vector of one scale over a constant with one channel: kept as a vector. */
    const bool one_channel = s->has_axis && s->scale->rank == 1 && t && t->constant && axis >= 0 &&
                             axis < t->rank && t->dims[axis].value == 1;
    if (quant.n_scales > 1 || one_channel) {
        if (axis < 0 || axis >= QN_MAX_RANK)
            return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                      "axis %" PRId64 " of a tensor of unknown rank", s->axis);
        if (s->scale->rank != 1 && s->block <= 0)
            return qn__onnx_node_fail(r, node, error, QN_CORRUPT,
                                      "scale \"%s\" has rank %u without blocks", s->scale->name,
                                      s->scale->rank);
        quant.axis = (int8_t)axis;
        quant.block = s->block > 0 ? s->block : 0;
    }
    const qn_quant *kept = qn__graph_quant(r->graph, &quant);
    if (!kept)
        return QN_NOMEM(error);
    *out = qn_type_quant_make(storage, kept);
    return QN_OK;
}

/* Integers without a type that movers made, and what those took them out of. */
typedef struct moved {
    qn_node *movers[16];
    size_t n;
    const qn_tensor *from;
} moved;

static moved moved_from(const qn_onnx_reader *r, const qn_tensor *t)
{
    moved m = {.from = t};
    for (qn_node *node = t->producer;
         node && m.n < sizeof m.movers / sizeof *m.movers && m.from->type.dtype == QN_DTYPE_NONE &&
         node->n_inputs > 0 && node->inputs[0] &&
         (node->n_outputs == 1 || node->op == QN_OP_SPLIT) && qn__onnx_is_mover(node) &&
         (node->id >= r->n_qops || r->qops[node->id] == QN_QOP_NONE);
         node = m.from->producer) {
        m.movers[m.n++] = node;
        m.from = node->inputs[0];
    }
    return m;
}

/* Of integers that movers take out of a constant, as rows out of a quantized table, only who reads
 * them knows the scale: constant and movers get the type. */
static qn_status type_back(qn_onnx_reader *r, const qn_tensor *t, qn_type type, qn_error *error)
{
    const moved m = moved_from(r, t);
    const bool same = is_quant(m.from) && qn__onnx_same_quant(m.from->type, type);
    int64_t dims[QN_MAX_RANK];
    if (m.n == 0 || type.quant->axis >= 0 || (!same && !m.from->constant) ||
        m.from->type.dtype != type.dtype || (!same && !qn__tensor_static_dims(m.from, dims)))
        return QN_OK;
    if (!same) { /* (Others may read the constant as plain integers, or with another scale.) */
        qn_tensor *const typed = qn__graph_add_constant(r->graph, m.from->name, type, m.from->rank,
                                                        dims, m.from->constant);
        if (!typed)
            return QN_NOMEM(error);
        m.movers[m.n - 1]->inputs[0] = typed;
    }
    for (size_t i = 0; i < m.n; i++)
        for (uint32_t k = 0; k < m.movers[i]->n_outputs; k++)
            if (m.movers[i]->outputs[k])
                m.movers[i]->outputs[k]->type = type;
    r->typed_back = true;
    return QN_OK;
}

/* The quantized tensor that `s->tensor` is under `type`. */
static qn_status apply_type(qn_onnx_reader *r, const qn_node *node, const qn_scaled *s,
                            qn_type type, qn_tensor **out, qn_error *error)
{
    qn_tensor *t = s->tensor;
    *out = t;
    if (t->type.dtype == QN_DTYPE_NONE)
        QN_TRY(type_back(r, t, type, error));
    if (t->type.kind == QN_TYPE_QUANT && qn__onnx_same_quant(t->type, type))
        return QN_OK;
    if (t->constant && t->type.kind == QN_TYPE_QUANT) { /* the same integers on another scale */
        int64_t dims[QN_MAX_RANK];
        if (!qn__tensor_static_dims(t, dims))
            return QN_NOMEM(error);
        *out = qn__graph_add_constant(r->graph, t->name, type, t->rank, dims, t->constant);
        return *out ? QN_OK : QN_NOMEM(error);
    }
    if (t->type.kind == QN_TYPE_QUANT)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "reads \"%s\" with another scale than it was made with", t->name);
    if (t->type.dtype != QN_DTYPE_NONE && t->type.dtype != type.dtype)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "\"%s\" is %s, its zero point %s",
                                  t->name, qn__dtype_name(t->type.dtype),
                                  qn__dtype_name(type.dtype));
    if (t->type.dtype == QN_DTYPE_NONE)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "reads \"%s\", integers of unknown scale", t->name);
    t->type = type;
    return QN_OK;
}

static qn_dtype storage_of(const qn_onnx_reader *r, const qn_scaled *s)
{
    if (s->zero_point)
        return s->zero_point->type.dtype;
    const qn_dtype made = s->tensor ? moved_from(r, s->tensor).from->type.dtype : QN_DTYPE_NONE;
    return made != QN_DTYPE_NONE ? made : QN_DTYPE_U8;
}

static qn_status read_input(qn_onnx_reader *r, const qn_node *node, qn_scaled s, qn_tensor **out,
                            qn_error *error)
{
    qn_type type;
    if (!s.tensor)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "an input is missing");
    QN_TRY(make_type(r, node, &s, storage_of(r, &s), &type, error));
    return apply_type(r, node, &s, type, out, error);
}

static qn_status read_output(const qn_onnx_reader *r, qn_node *node, qn_tensor *scale,
                             qn_tensor *zero_point, qn_error *error)
{
    const qn_scaled s = {NULL, scale, zero_point, -1, 0, false};
    if (node->n_outputs != 1 || !node->outputs[0])
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "needs one output");
    return make_type(r, node, &s, storage_of(r, &s), &node->outputs[0]->type, error);
}

/* --- float weights that the file quantizes itself
 * -----------------------------------------------*/
static void quantize_values(const qn_tensor *from, const int64_t *dims, qn_type type, size_t count,
                            void *out)
{
    const qn_quant *q = type.quant;
    size_t inner = 1;
    for (size_t d = from->rank; q->axis >= 0 && d-- > (size_t)q->axis + 1;)
        inner *= (size_t)dims[d];
    for (size_t i = 0; i < count; i++) {
        const size_t c = q->axis >= 0 ? i / inner % q->n_scales : 0;
        const float x = (float)qn__load_real(from->constant->data, QN_DTYPE_F32, i);
        /* As the runtime does: float division, ties to even, then saturation. */
        const float zp = q->zero_points ? (float)q->zero_points[c] : 0.0f;
        float value = rintf(x / q->scales[c]) + zp;
        value = value > (float)q->qmin ? value : (float)q->qmin; /* NaN goes here too */
        value = value < (float)q->qmax ? value : (float)q->qmax;
        qn__store_int(out, type.dtype, i, (int64_t)value);
    }
}

/* A QuantizeLinear of a constant makes a constant. */
static qn_status fold_quantize(qn_onnx_reader *r, qn_node *node, bool *folded, qn_error *error)
{
    const qn_tensor *from = node->inputs[0];
    qn_tensor *to = node->outputs[0];
    const qn_quant *q = to->type.quant;
    int64_t dims[QN_MAX_RANK];
    size_t count, bytes;
    void *data = NULL;
    *folded = false;
    if (!from->constant || from->type.kind != QN_TYPE_PLAIN || from->type.dtype != QN_DTYPE_F32 ||
        q->block > 0 || qn__dtype_bits(to->type.dtype) > 16 || qn__node_attr(node, "precision") ||
        !qn__tensor_static_dims(from, dims) || !qn__tensor_count(from, &count) ||
        !qn__dtype_bytes(&bytes, to->type.dtype, count))
        return QN_OK;
    if (q->axis >= 0 && (q->axis >= from->rank || (size_t)dims[q->axis] != q->n_scales))
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "%zu scales along axis %d of \"%s\"",
                                  q->n_scales, q->axis, from->name);
    qn_blob *blob = qn__blob_create(r->graph->ctx, bytes, &data);
    if (!blob)
        return QN_NOMEM(error);
    quantize_values(from, dims, to->type, count, data);
    qn__node_set_output(node, 0, NULL);
    to->producer = NULL;
    qn__tensor_set_shape(to, from->rank, dims);
    qn__tensor_set_constant(to, blob);
    qn__blob_unref(blob);
    *folded = true;
    return QN_OK;
}

/* --- QuantizeLinear, DequantizeLinear
 * -----------------------------------------------------------*/
static bool is_half(qn_dtype dtype)
{
    return dtype == QN_DTYPE_F16 || dtype == QN_DTYPE_BF16;
}

/* The float type that a node's attribute names, that of its scale if it names none. */
static qn_status read_float_type(const qn_onnx_reader *r, const qn_node *node, const char *name,
                                 qn_dtype *out, qn_error *error)
{
    const int64_t code = qn__attr_int(node, name, 0);
    const qn_tensor *scale = qn_node_input(node, 1);
    *out = scale && is_half(scale->type.dtype) ? scale->type.dtype : QN_DTYPE_F32;
    if (code == 0)
        return QN_OK;
    *out = qn__dtype_of_onnx(code);
    if (*out != QN_DTYPE_F32 && !is_half(*out))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "has %s %" PRId64, name, code);
    return QN_OK;
}

/* The scales of the type are float32, whatever those of the file are; a quotient that is rounded to
 * less stays an attribute. */
static qn_status read_precision(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    qn_dtype precision;
    QN_TRY(read_float_type(r, node, "precision", &precision, error));
    const qn_tensor *scale = qn_node_input(node, 1);
    if (is_half(precision) && (!scale || scale->type.dtype != precision))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "divides in %s by a scale of another type",
                                  qn__dtype_name(precision));
    qn__node_remove_attr(node, "precision");
    if (is_half(precision) &&
        !qn__node_set_int(r->graph, node, "precision", qn__dtype_onnx(precision)))
        return QN_NOMEM(error);
    return QN_OK;
}

static qn_status read_quantize(qn_onnx_reader *r, qn_node *node, bool *folded, qn_error *error)
{
    qn_scaled s = scaled_at(node, 0, 1, qn__attr_int(node, "axis", 1));
    s.block = qn__attr_int(node, "block_size", 0);
    s.has_axis = qn__node_attr(node, "axis") != NULL;
    if (!s.tensor || node->n_outputs != 1 || !node->outputs[0])
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "needs an input and an output");
    qn_dtype storage = qn__dtype_of_onnx(qn__attr_int(node, "output_dtype", 2));
    storage = s.zero_point ? s.zero_point->type.dtype : storage;
    QN_TRY(make_type(r, node, &s, storage, &node->outputs[0]->type, error));
    QN_TRY(read_precision(r, node, error));
    node->n_inputs = 1;
    qn__node_remove_attr(node, "axis");
    qn__node_remove_attr(node, "block_size");
    qn__node_remove_attr(node, "output_dtype");
    return fold_quantize(r, node, folded, error);
}

static qn_status read_dequantize(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    qn_scaled s = scaled_at(node, 0, 1, qn__attr_int(node, "axis", 1));
    s.block = qn__attr_int(node, "block_size", 0);
    s.has_axis = qn__node_attr(node, "axis") != NULL;
    if (node->n_outputs != 1 || !node->outputs[0])
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "needs one output");
    if (s.scale && !s.scale->constant && !is_quant(s.tensor))
        return QN_OK; /* to qn__onnx_lower_made_scales */
    qn_dtype made;
    QN_TRY(read_input(r, node, s, &node->inputs[0], error));
    QN_TRY(read_float_type(r, node, "output_dtype", &made, error));
    node->outputs[0]->type = qn_type_plain_make(made);
    node->n_inputs = 1;
    qn__node_remove_attr(node, "axis");
    qn__node_remove_attr(node, "block_size");
    qn__node_remove_attr(node, "output_dtype");
    return QN_OK;
}

/* --- operators on integers --------------------------------------------------------------------*/
/* int32 bias: its scale is the product of the input's and the weight's. */
static qn_status read_bias(qn_onnx_reader *r, qn_node *node, qn_tensor *bias, qn_type x, qn_type w,
                           qn_tensor **out, qn_error *error)
{
    qn_graph *graph = r->graph;
    *out = NULL;
    if (!bias)
        return QN_OK;
    if (!bias->constant || bias->type.dtype != QN_DTYPE_I32 || x.quant->n_scales != 1)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "bias \"%s\" is not a constant of int32", bias->name);
    const size_t count = w.quant->n_scales;
    float *scales = qn__arena_calloc(&graph->arena, count, sizeof(*scales));
    if (!scales)
        return QN_NOMEM(error);
    for (size_t i = 0; i < count; i++) {
        scales[i] = x.quant->scales[0] * w.quant->scales[i];
        if (!(scales[i] > 0.0f))
            return qn__onnx_node_fail(r, node, error, QN_NONFINITE,
                                      "the scale of its bias underflows");
    }
    const qn_quant quant = {.bits = 32,
                            .is_signed = true,
                            .axis = w.quant->axis >= 0 ? 0 : -1,
                            .qmin = INT32_MIN,
                            .qmax = INT32_MAX,
                            .n_scales = count,
                            .scales = scales};
    const qn_quant *kept = qn__graph_quant(graph, &quant);
    if (!kept)
        return QN_NOMEM(error);
    const qn_scaled s = {bias, NULL, NULL, -1, 0, false};
    return apply_type(r, node, &s, qn_type_quant_make(QN_DTYPE_I32, kept), out, error);
}

static qn_status read_product(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    qn_tensor *x, *w, *b = NULL;
    const bool gemm = node->op == QN_OP_GEMM;
    int64_t axis = 0;
    if (gemm)
        axis = qn__attr_int(node, "transB", 0) ? 0 : 1;
    else if (node->op == QN_OP_MATMUL)
        axis = -1;
    qn_tensor *bias = node->op == QN_OP_MATMUL ? NULL : qn_node_input(node, gemm ? 6 : 8);
    const uint32_t out = gemm ? 7 : 6;
    qn_tensor *scale = qn_node_input(node, out), *zero_point = qn_node_input(node, out + 1);
    QN_TRY(read_input(r, node, scaled_at(node, 0, 1, 1), &x, error));
    qn_scaled weights = scaled_at(node, 3, 4, axis);
    weights.has_axis = true;
    QN_TRY(read_input(r, node, weights, &w, error));
    QN_TRY(read_bias(r, node, bias, x->type, w->type, &b, error));
    if (scale)
        QN_TRY(read_output(r, node, scale, zero_point, error));
    else if (!gemm)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "has no output scale");
    node->inputs[0] = x;
    node->inputs[1] = w;
    if (node->n_inputs > 2)
        node->inputs[2] = b;
    node->n_inputs = b ? 3 : 2;
    return QN_OK;
}

static qn_status read_binary(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    qn_tensor *a, *b;
    QN_TRY(read_input(r, node, scaled_at(node, 0, 1, 1), &a, error));
    QN_TRY(read_input(r, node, scaled_at(node, 3, 4, 1), &b, error));
    QN_TRY(read_output(r, node, qn_node_input(node, 6), qn_node_input(node, 7), error));
    node->inputs[0] = a;
    node->inputs[1] = b;
    node->n_inputs = 2;
    return QN_OK;
}

static qn_status read_unary(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    qn_tensor *x;
    if (qn__attr_int(node, "channels_last", 0) != 0)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "has its channels last");
    QN_TRY(read_input(r, node, scaled_at(node, 0, 1, 1), &x, error));
    QN_TRY(read_output(r, node, qn_node_input(node, 3), qn_node_input(node, 4), error));
    node->inputs[0] = x;
    node->n_inputs = 1;
    qn__node_remove_attr(node, "channels_last");
    if (node->op != QN_OP_SOFTMAX || qn__attr_int(node, "opset", 13) >= 13)
        qn__node_remove_attr(node, "opset"); /* else qn__onnx_upgrade_shaped does */
    return QN_OK;
}

static qn_status read_concat(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    if (node->n_inputs < 5 || (node->n_inputs - 2) % 3 != 0)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "has %u inputs", node->n_inputs);
    QN_TRY(read_output(r, node, node->inputs[0], node->inputs[1], error));
    const uint32_t count = (node->n_inputs - 2) / 3;
    for (uint32_t i = 0; i < count; i++) { /* slot i is behind slot 2 + 3 i */
        qn_tensor *x;
        QN_TRY(read_input(r, node, scaled_at(node, 2 + 3 * i, 3 + 3 * i, 1), &x, error));
        node->inputs[i] = x;
    }
    node->n_inputs = count;
    return QN_OK;
}

static qn_status read_qop(qn_onnx_reader *r, qn_node *node, qn_qop qop, qn_error *error)
{
    if (qn__node_attr(node, "channels_last") && qop == QN_QOP_CONV)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "has its channels last");
    switch (qop) {
    case QN_QOP_CONV:
    case QN_QOP_MATMUL:
    case QN_QOP_GEMM:
        return read_product(r, node, error);
    case QN_QOP_MATMUL_NBITS:
        return qn__onnx_read_nbits(r, node, error);
    case QN_QOP_ADD:
    case QN_QOP_MUL:
        return read_binary(r, node, error);
    case QN_QOP_CONCAT:
        return read_concat(r, node, error);
    default:
        return read_unary(r, node, error);
    }
}

/* --- all nodes --------------------------------------------------------------------------------*/
static qn_status computes_on_integers(const qn_onnx_reader *r, const qn_node *node,
                                      const qn_tensor *integers, qn_error *error)
{
    return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "computes on the integers of \"%s\"",
                              integers->name);
}

/* What a Pad of integers fills with is an integer too: that of its third input, or 0. */
static qn_status read_pad_value(const qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    static const uint8_t none[8] = {0};
    const qn_type type = node->inputs[0]->type;
    const qn_tensor *value = qn_node_input(node, 2);
    int64_t dims[QN_MAX_RANK] = {0};
    size_t size = 0;
    if (strcmp(qn__attr_string(node, "mode", "constant"), "constant") != 0)
        return QN_OK;
    if (value && (!value->constant || value->type.kind != QN_TYPE_PLAIN ||
                  value->type.dtype != type.dtype || !qn__tensor_static_dims(value, dims)))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "fills integers with \"%s\", which is no constant of their type",
                                  value->name);
    if (!value && (!qn__dtype_bytes(&size, type.dtype, 1) || size > sizeof(none)))
        return QN_NOMEM(error);
    qn_blob *blob =
        value ? qn__blob_ref(value->constant) : qn__blob_copy(r->graph->ctx, none, size);
    qn_tensor *typed = blob ? qn__graph_add_constant(r->graph, value ? value->name : "pad", type,
                                                     value ? value->rank : 0, dims, blob)
                            : NULL;
    qn__blob_unref(blob);
    return typed && qn__onnx_set_input(r->graph, node, 2, typed) ? QN_OK : QN_NOMEM(error);
}

/* Integers as indices: only a table of bytes may have them (read_table). */
static bool is_index(const qn_node *node)
{
    const int64_t to = qn__attr_int(node, "to", 0);
    return node->op == QN_OP_CAST && node->n_inputs == 1 && node->n_outputs == 1 &&
           is_quant(node->inputs[0]) && node->inputs[0]->type.quant->axis < 0 &&
           qn__dtype_bits(node->inputs[0]->type.dtype) == 8 &&
           (to == qn__dtype_onnx(QN_DTYPE_I32) || to == qn__dtype_onnx(QN_DTYPE_I64));
}

/* A Gather of 256 bytes by the integers of a tensor, as onnx_lower_table.c writes it. Who reads its
 * output says what scale that has. */
static qn_status read_table(qn_onnx_reader *r, qn_node *node, bool *read, qn_error *error)
{
    qn_tensor *bytes = qn_node_input(node, 0), *index = qn_node_input(node, 1);
    const qn_node *cast = index ? index->producer : NULL;
    const int64_t axis = qn__attr_int(node, "axis", 0);
    *read = node->op == QN_OP_GATHER && node->n_inputs == 2 && node->n_outputs == 1 &&
            node->outputs[0] && cast && is_index(cast) && bytes && bytes->constant &&
            bytes->type.kind == QN_TYPE_PLAIN && bytes->has_shape && bytes->rank == 1 &&
            bytes->dims[0].value == 256 && bytes->constant->size_bytes == 256 &&
            (bytes->type.dtype == QN_DTYPE_U8 || bytes->type.dtype == QN_DTYPE_I8) &&
            (axis == 0 || axis == -1);
    if (!*read)
        return QN_OK;
    qn_tensor *table =
        qn__graph_add_constant(r->graph, bytes->name, qn_type_plain_make(QN_DTYPE_U8), 1,
                               (int64_t[]){256}, bytes->constant);
    if (!table)
        return QN_NOMEM(error);
    node->outputs[0]->type = bytes->type;
    node->op = QN_OP_TABLE;
    node->inputs[0] = cast->inputs[0];
    node->inputs[1] = table;
    qn__node_remove_attr(node, "axis");
    return QN_OK;
}

/* Nobody else reads indices, and all tables know what they make. */
static qn_status check_tables(const qn_onnx_reader *r, qn_error *error)
{
    const qn_graph *graph = r->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *node = graph->nodes[i];
        if (node->op == QN_OP_TABLE && (node->n_outputs != 1 || !is_quant(node->outputs[0])))
            return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                      "makes integers of unknown scale");
        for (uint32_t k = 0; k < node->n_inputs; k++) {
            const qn_node *from = node->inputs[k] ? node->inputs[k]->producer : NULL;
            if (from && is_index(from))
                return computes_on_integers(r, from, from->inputs[0], error);
        }
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        const qn_node *from = graph->outputs[i]->producer;
        if (from && is_index(from))
            return computes_on_integers(r, from, from->inputs[0], error);
    }
    return QN_OK;
}

/* A node of ordinary operators: movers hand the type on, others must not see integers. */
static qn_status pass_on(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_node *from = node->inputs[i] ? node->inputs[i]->producer : NULL;
        if (from && is_index(from))
            return computes_on_integers(r, from, from->inputs[0], error);
        if (!is_quant(node->inputs[i]) || node->op == QN_OP_SHAPE || node->op == QN_OP_SIZE)
            continue;
        const bool works = qn__onnx_is_mover(node) || node->op == QN_OP_PAD ||
                           (node->op == QN_OP_RESIZE && qn__onnx_is_bilinear(r->graph, node));
        if (i > 0 || !works || node->inputs[0]->type.quant->axis >= 0)
            return computes_on_integers(r, node, node->inputs[i], error);
        const uint32_t typed = node->op == QN_OP_SPLIT ? node->n_outputs : 1;
        for (uint32_t k = 0; k < typed && k < node->n_outputs; k++)
            if (node->outputs[k])
                node->outputs[k]->type = node->inputs[0]->type;
        /* Sums of the integers are truncated, those of floats between the two rounded. */
        if (node->op == QN_OP_RESIZE && !qn__onnx_is_mover(node) &&
            !qn__node_set_int(r->graph, node, "truncates", 1))
            return QN_NOMEM(error);
    }
    return node->op == QN_OP_PAD && node->n_inputs > 0 && is_quant(node->inputs[0])
               ? read_pad_value(r, node, error)
               : QN_OK;
}

/* Nodes that were read before type_back said what they read, in their order. */
static qn_status reread_typed_back(qn_onnx_reader *r, qn_error *error)
{
    for (size_t i = 0; r->typed_back && i < r->graph->n_nodes; i++) {
        qn_node *node = r->graph->nodes[i];
        if ((node->id < r->n_qops && r->qops[node->id] != QN_QOP_NONE) ||
            node->op == QN_OP_DEQUANTIZE_LINEAR || node->op == QN_OP_TABLE ||
            node->op == QN_OP_SHAPE || node->op == QN_OP_SIZE || is_index(node))
            continue;
        bool any = false;
        for (uint32_t k = 0; k < node->n_inputs; k++)
            any |= is_quant(node->inputs[k]);
        for (uint32_t k = 0; k < node->n_outputs; k++)
            any &= !is_quant(node->outputs[k]);
        if (any)
            QN_TRY(pass_on(r, node, error));
    }
    return QN_OK;
}

static qn_status read_node(qn_onnx_reader *r, qn_node *node, bool *folded, qn_error *error)
{
    const qn_qop qop = node->id < r->n_qops ? (qn_qop)r->qops[node->id] : QN_QOP_NONE;
    *folded = false;
    if (qop != QN_QOP_NONE)
        return read_qop(r, node, qop, error);
    if (node->op == QN_OP_QUANTIZE_LINEAR)
        return read_quantize(r, node, folded, error);
    if (node->op == QN_OP_DEQUANTIZE_LINEAR)
        return read_dequantize(r, node, error);
    bool done = is_index(node);
    if (!done)
        QN_TRY(read_table(r, node, &done, error));
    return done ? QN_OK : pass_on(r, node, error);
}

qn_status qn__onnx_read_types(qn_onnx_reader *r, qn_error *error)
{
    qn_graph *graph = r->graph;
    bool any = false;
    uint8_t *marks = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, 1);
    qn_status status = marks ? QN_OK : QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_nodes && status == QN_OK; i++) {
        qn_node *node = graph->nodes[i];
        bool folded = false;
        status = read_node(r, node, &folded, error);
        marks[node->id] = folded;
        any = any || node->op == QN_OP_QUANTIZE_LINEAR || node->op == QN_OP_DEQUANTIZE_LINEAR;
    }
    if (status == QN_OK)
        status = reread_typed_back(r, error);
    if (status == QN_OK)
        status = check_tables(r, error);
    for (size_t i = 0; i < graph->n_nodes && status == QN_OK; i++)
        marks[graph->nodes[i]->id] |= is_index(graph->nodes[i]);
    if (status == QN_OK)
        qn__graph_remove_marked(graph, marks);
    qn__free(graph->ctx, marks);
    if (status == QN_OK && any)
        status = qn__onnx_collapse(r, error);
    if (status == QN_OK)
        status = qn__onnx_collapse_dynamic(r, error);
    return status;
}
