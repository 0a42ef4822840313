/* Operators of onnxruntime that several of ONNX's say as well are written out: what its optimizer
 * makes of DynamicQuantizeLinear and products, and of DequantizeLinear and QuantizeLinear around
 * Where; LSTM with weights in bytes. */
#include "core/context.h"
#include "format/onnx/onnx_read.h"

#include <string.h>

typedef struct expansion {
    qn_onnx_reader *r;
    qn_graph *graph;
    qn_node *node;        /* becomes the last one */
    size_t at;            /* where it is */
    bool failed;          /* no memory */
    qn_node **quantizers; /* by id of the tensors that were there: that of it, or NULL */
    size_t n_tensors;
} expansion;

static const char *part_name(expansion *e, const char *part)
{
    return qn__arena_printf(&e->graph->arena, "%s_%s", e->node->name, part);
}

qn_tensor *qn__onnx_put(qn_graph *graph, size_t *at, const qn_node *ours, qn_op op,
                        const char *what, qn_dtype dtype, qn_tensor *const inputs[QN_ONNX_PUT])
{
    const char *const name = qn__arena_printf(&graph->arena, "%s_%s", ours->name, what);
    uint32_t n = QN_ONNX_PUT;
    while (n > 0 && inputs[n - 1] == NULL)
        n--;
    qn_tensor *const out =
        name ? qn__graph_add_tensor(graph, name, qn_type_plain_make(dtype)) : NULL;
    qn_node *const made = out ? qn__graph_add_node(graph, *at, op, name, n, 1) : NULL;
    if (made == NULL)
        return NULL;
    ++*at;
    for (uint32_t i = 0; i < n; i++)
        made->inputs[i] = inputs[i];
    qn__node_set_output(made, 0, out);
    if (op == QN_OP_CAST && !qn__node_set_int(graph, made, "to", qn__dtype_onnx(QN_DTYPE_F32)))
        return NULL;
    return out;
}

/* One of unknown type. */
static qn_tensor *put(expansion *e, qn_op op, const char *what, qn_tensor *a, qn_tensor *b,
                      qn_tensor *c, qn_tensor *d)
{
    qn_tensor *const inputs[QN_ONNX_PUT] = {a, b, c, d};
    qn_tensor *const out = e->failed || a == NULL ? NULL
                                                  : qn__onnx_put(e->graph, &e->at, e->node, op,
                                                                 what, QN_DTYPE_NONE, inputs);
    e->failed |= out == NULL;
    return out;
}

/* The integers, scale and zero point of this run. */
typedef struct dynamic {
    qn_tensor *q, *scale, *zero;
} dynamic;

static dynamic quantize(expansion *e, qn_tensor *x)
{
    static const char *const PARTS[3] = {"quantized", "scale", "zero_point"};
    const char *const name = part_name(e, "quantize");
    qn_tensor *out[3];
    qn_node **const known = x->id < e->n_tensors ? &e->quantizers[x->id] : NULL;
    if (known && *known)
        return (dynamic){(*known)->outputs[0], (*known)->outputs[1], (*known)->outputs[2]};
    for (int i = 0; i < 3; i++) {
        const char *const part = part_name(e, PARTS[i]);
        out[i] =
            part ? qn__graph_add_tensor(e->graph, part, qn_type_plain_make(QN_DTYPE_NONE)) : NULL;
        e->failed |= out[i] == NULL;
    }
    qn_node *const made =
        e->failed || name == NULL
            ? NULL
            : qn__graph_add_node(e->graph, e->at, QN_OP_DYNAMIC_QUANTIZE_LINEAR, name, 1, 3);
    if (made == NULL) {
        e->failed = true;
        return (dynamic){NULL, NULL, NULL};
    }
    e->at++;
    made->inputs[0] = x;
    for (uint32_t i = 0; i < 3; i++)
        qn__node_set_output(made, i, out[i]);
    if (known)
        *known = made;
    return (dynamic){out[0], out[1], out[2]};
}

/* Our node itself. */
static void become(expansion *e, qn_op op, qn_tensor *a, qn_tensor *b)
{
    e->node->op = op;
    e->node->inputs[0] = a;
    e->node->inputs[1] = b;
    e->node->n_inputs = b ? 2 : 1;
}

static void become_sum(expansion *e, qn_op op, qn_tensor *a, qn_tensor *b, qn_tensor *bias)
{
    if (bias)
        become(e, QN_OP_ADD, put(e, op, "product", a, b, NULL, NULL), bias);
    else
        become(e, op, a, b);
}

/* A product of integers times both scales. */
static void product(expansion *e, dynamic a, qn_tensor *b, qn_tensor *scale, qn_tensor *zero,
                    qn_tensor *bias)
{
    qn_tensor *const sums = put(e, QN_OP_MATMUL_INTEGER, "MatMulInteger", a.q, b, a.zero, zero);
    qn_tensor *const floats = put(e, QN_OP_CAST, "Cast", sums, NULL, NULL, NULL);
    qn_tensor *const scales = put(e, QN_OP_MUL, "scales", a.scale, scale, NULL, NULL);
    become_sum(e, QN_OP_MUL, floats, scales, bias);
}

static qn_tensor *dequantize(expansion *e, const char *what, qn_tensor *x, qn_tensor *scale,
                             qn_tensor *zero, int64_t axis)
{
    qn_tensor *const out = put(e, QN_OP_DEQUANTIZE_LINEAR, what, x, scale, zero, NULL);
    if (out && !qn__node_set_int(e->graph, out->producer, "axis", axis))
        e->failed = true;
    return out;
}

/* A constant's values in one or two axes less. */
static qn_tensor *flat(expansion *e, qn_tensor *t, size_t count)
{
    const int64_t dims[1] = {(int64_t)count};
    return t ? qn__graph_add_constant(e->graph, t->name, t->type, 1, dims, t->constant) : NULL;
}

/* A constant number, or a matrix of one row, as a vector of so many; others as they are. */
static qn_tensor *as_vector(expansion *e, qn_tensor *t, size_t count)
{
    const int64_t dims[1] = {(int64_t)count};
    size_t n;
    if (!t || !t->constant || !qn__tensor_count(t, &n) || (n == count && t->rank < 2))
        return t;
    qn_tensor *made = NULL;
    if (n == count && t->dims[t->rank - 1].value == dims[0]) {
        made = flat(e, t, count);
    } else if (n == 1 && qn__dtype_bits(t->type.dtype) >= 8) {
        const size_t size = qn__dtype_bits(t->type.dtype) / 8;
        void *data = NULL;
        qn_blob *const blob =
            count > SIZE_MAX / size ? NULL : qn__blob_create(e->graph->ctx, count * size, &data);
        for (size_t i = 0; blob && i < count; i++)
            memcpy((uint8_t *)data + i * size, t->constant->data, size);
        made = blob ? qn__graph_add_constant(e->graph, t->name, t->type, 1, dims, blob) : NULL;
        qn__blob_unref(blob);
    } else {
        return t;
    }
    e->failed |= made == NULL;
    return made;
}

static qn_status need(const expansion *e, uint32_t first, uint32_t second, uint32_t third,
                      qn_error *error)
{
    const qn_node *const node = e->node;
    if (!qn_node_input(node, first) || !qn_node_input(node, second) ||
        !qn_node_input(node, third) || node->n_outputs < 1 || !node->outputs[0])
        return qn__onnx_node_fail(e->r, node, error, QN_CORRUPT, "an input or output is missing");
    return QN_OK;
}

static qn_status dynamic_matmul(expansion *e, qn_error *error)
{
    qn_node *const node = e->node;
    QN_TRY(need(e, 0, 1, 2, error));
    product(e, quantize(e, node->inputs[0]), node->inputs[1], node->inputs[2],
            qn_node_input(node, 3), qn_node_input(node, 4));
    return QN_OK;
}

/* Where scales are constants, floats of both sides: they collapse as those of any file do. */
static qn_status matmul_to_float(expansion *e, qn_error *error)
{
    qn_node *const node = e->node;
    QN_TRY(need(e, 0, 1, 2, error));
    QN_TRY(need(e, 0, 1, 3, error));
    qn_tensor *const scale = node->inputs[2], *const zero = qn_node_input(node, 4);
    qn_tensor *const b = node->inputs[1], *const b_scale = node->inputs[3];
    qn_tensor *const b_zero = qn_node_input(node, 5), *const bias = qn_node_input(node, 6);
    if (!scale->constant || !b_scale->constant) {
        product(e, (dynamic){node->inputs[0], scale, zero}, b, b_scale, b_zero, bias);
        return QN_OK;
    }
    size_t scales = 1, zeros = 1; /* either may be one for all columns */
    if (qn__tensor_count(b_scale, &scales) && b_zero && b_zero->constant &&
        qn__tensor_count(b_zero, &zeros))
        scales = zeros > scales ? zeros : scales;
    qn_tensor *const left = dequantize(e, "left", node->inputs[0], scale, zero, 1);
    qn_tensor *const right =
        dequantize(e, "right", b, as_vector(e, b_scale, scales), as_vector(e, b_zero, scales), -1);
    become_sum(e, QN_OP_MATMUL, left, right, bias);
    return QN_OK;
}

static qn_status where(expansion *e, qn_error *error)
{
    qn_node *const node = e->node;
    QN_TRY(need(e, 0, 1, 4, error));
    QN_TRY(need(e, 2, 5, 7, error));
    qn_tensor *const scale = node->inputs[7], *const zero = qn_node_input(node, 8);
    qn_tensor *const a =
        dequantize(e, "first", node->inputs[1], node->inputs[2], node->inputs[3], 1);
    qn_tensor *const b =
        dequantize(e, "second", node->inputs[4], node->inputs[5], node->inputs[6], 1);
    qn_tensor *const chosen = put(e, QN_OP_WHERE, "Where", node->inputs[0], a, b, NULL);
    become(e, QN_OP_QUANTIZE_LINEAR, chosen, scale);
    node->inputs[2] = zero;
    node->n_inputs = zero ? 3 : 2;
    return QN_OK;
}

/* --- LSTM -------------------------------------------------------------------------------------*/
/* [directions][n][rows] bytes to LSTM's [directions][rows][n]. */
static qn_tensor *turned(expansion *e, const qn_tensor *w, const int64_t *dims)
{
    const size_t d = (size_t)dims[0], n = (size_t)dims[1], rows = (size_t)dims[2];
    const uint8_t *const from = w->constant->data;
    const int64_t to_dims[3] = {dims[0], dims[2], dims[1]};
    void *data = NULL;
    qn_blob *const blob = qn__blob_create(e->graph->ctx, d * n * rows, &data);
    if (!blob)
        return NULL;
    uint8_t *to = data;
    for (size_t i = 0; i < d; i++)
        for (size_t row = 0; row < rows; row++)
            for (size_t k = 0; k < n; k++)
                *to++ = from[(i * n + k) * rows + row];
    qn_tensor *const t = qn__graph_add_constant(e->graph, w->name, w->type, 3, to_dims, blob);
    qn__blob_unref(blob);
    return t;
}

static bool is_bytes(const qn_tensor *t, size_t rank, int64_t *dims)
{
    return t && t->constant && t->type.kind == QN_TYPE_PLAIN &&
           (t->type.dtype == QN_DTYPE_U8 || t->type.dtype == QN_DTYPE_I8) &&
           (rank == 0 || t->rank == rank) && qn__tensor_static_dims(t, dims);
}

/* Scales and zero points are one for each direction, or one for each row of it. */
static qn_status lstm_weights(expansion *e, uint32_t index, uint32_t scale_at, const char *what,
                              qn_tensor **out, qn_error *error)
{
    qn_tensor *const w = qn_node_input(e->node, index), *const scale =
                                                            qn_node_input(e->node, scale_at);
    qn_tensor *const zero = qn_node_input(e->node, scale_at + 1);
    int64_t dims[QN_MAX_RANK], zero_dims[QN_MAX_RANK];
    size_t scales, zeros;
    if (!is_bytes(w, 3, dims) || dims[0] < 1 || dims[0] > 2 || !scale || !scale->constant ||
        scale->type.dtype != QN_DTYPE_F32 || !qn__tensor_count(scale, &scales) ||
        (zero &&
         (!is_bytes(zero, 0, zero_dims) || !qn__tensor_count(zero, &zeros) || zeros != scales)))
        return qn__onnx_node_fail(e->r, e->node, error, QN_UNSUPPORTED,
                                  "input %u is not constant bytes with constant scales", index);
    const size_t all = (size_t)dims[0] * (size_t)dims[2];
    if (scales != (size_t)dims[0] && scales != all)
        return qn__onnx_node_fail(e->r, e->node, error, QN_CORRUPT,
                                  "input %u of %zu rows has %zu scales", index, all, scales);
    qn_tensor *bytes = turned(e, w, dims);
    qn_tensor *const s = flat(e, scale, scales), *const z = flat(e, zero, scales);
    if (!bytes || !s || (zero && !z))
        return QN_NOMEM(error);
    if (scales == (size_t)dims[0] || dims[0] == 1) {
        *out = dequantize(e, what, bytes, s, z, scales == (size_t)dims[0] ? 0 : 1);
        return QN_OK;
    }
    /* Rows of both directions are one axis of a matrix. */
    const int64_t matrix[2] = {(int64_t)all, dims[1]}, shape[3] = {dims[0], dims[2], dims[1]};
    bytes = qn__graph_add_constant(e->graph, bytes->name, bytes->type, 2, matrix, bytes->constant);
    qn_tensor *const to = qn__onnx_const_ints(e->graph, "shape", shape, 3);
    if (!bytes || !to)
        return QN_NOMEM(error);
    *out = put(e, QN_OP_RESHAPE, what, dequantize(e, "rows", bytes, s, z, 0), to, NULL, NULL);
    return QN_OK;
}

/* Input and state are what their integers say (run/ops/recurrent.c), weights as well. */
static qn_status dynamic_lstm(expansion *e, qn_error *error)
{
    qn_node *const node = e->node;
    QN_TRY(need(e, 0, 1, 2, error));
    qn_tensor *w = NULL, *back = NULL;
    QN_TRY(lstm_weights(e, 1, 8, "W", &w, error));
    QN_TRY(lstm_weights(e, 2, 10, "R", &back, error));
    const dynamic x = quantize(e, node->inputs[0]);
    node->inputs[0] = dequantize(e, "input", x.q, x.scale, x.zero, 1);
    node->inputs[1] = w;
    node->inputs[2] = back;
    node->n_inputs = node->n_inputs < 8 ? node->n_inputs : 8;
    if (!qn__node_set_int(e->graph, node, "rounds_state", 1))
        return QN_NOMEM(error);
    return QN_OK;
}

static qn_status expand(expansion *e, qn_error *error)
{
    qn_onnx_reader *const r = e->r;
    const qn_qop qop = e->node->id < r->n_qops ? (qn_qop)r->qops[e->node->id] : QN_QOP_NONE;
    switch (qop) {
    case QN_QOP_DYNAMIC_MATMUL:
        QN_TRY(dynamic_matmul(e, error));
        break;
    case QN_QOP_MATMUL_TO_FLOAT:
        QN_TRY(matmul_to_float(e, error));
        break;
    case QN_QOP_WHERE:
        QN_TRY(where(e, error));
        break;
    case QN_QOP_DYNAMIC_LSTM:
        QN_TRY(dynamic_lstm(e, error));
        break;
    default:
        return QN_OK;
    }
    r->qops[e->node->id] = QN_QOP_NONE;
    return e->failed ? QN_NOMEM(error) : QN_OK;
}

qn_status qn__onnx_expand(qn_onnx_reader *r, qn_error *error)
{
    qn_graph *const graph = r->graph;
    expansion e = {.r = r, .graph = graph, .n_tensors = graph->n_tensors};
    e.quantizers = qn__calloc(graph->ctx, e.n_tensors + 1, sizeof(qn_node *));
    qn_status status = e.quantizers ? QN_OK : QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_nodes && status == QN_OK; i = e.at + 1) {
        e.node = graph->nodes[i];
        e.at = i;
        status = expand(&e, error);
    }
    qn__free(graph->ctx, e.quantizers);
    return status;
}
