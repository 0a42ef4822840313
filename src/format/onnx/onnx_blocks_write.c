/* Products with weights in blocks. QDQ: DequantizeLinear in front of MatMul; a Gemm becomes MatMul
 * and Add, the form that runtimes fuse. QOperator: MatMulNBits. */
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_blocks.h"

/* Activations are rounded to int8 in blocks too, which is when runtimes are fast. */
#define ACCURACY_INT8 4

bool qn__onnx_is_blocked(const qn_tensor *t)
{
    return t && t->constant && t->type.kind == QN_TYPE_QUANT && t->type.quant->block > 0 &&
           t->type.quant->n_codebook == 0 && t->rank == 2;
}

/* Weights [N][K] with their scales [N][blocks] and zero points. */
typedef struct rows {
    const void *data;
    qn_dtype dtype;
    const qn_quant *quant;
    size_t n, k, n_blocks;
    bool transposed; /* the constant is [N, K], else [K, N] */
} rows;

static size_t weight_index(const rows *r, size_t n, size_t k)
{
    return r->transposed ? n * r->k + k : k * r->n + n;
}

static size_t scale_index(const rows *r, size_t n, size_t b)
{
    return r->transposed ? n * r->n_blocks + b : b * r->n + n;
}

/* Blocks must lie along K. */
static bool read_rows(const qn_lower *l, const qn_node *node, rows *out)
{
    const qn_tensor *w = node->inputs[1];
    const qn_type type = l->entries[w->id].type;
    const bool gemm = node->op == QN_OP_GEMM;
    out->transposed = gemm && qn__attr_int(node, "transB", 0) != 0;
    out->data = w->constant->data;
    out->dtype = type.dtype;
    out->quant = type.quant;
    out->n = (size_t)w->dims[out->transposed ? 0 : 1].value;
    out->k = (size_t)w->dims[out->transposed ? 1 : 0].value;
    const size_t block = (size_t)type.quant->block;
    out->n_blocks = (out->k + block - 1) / block;
    return type.quant->axis == (out->transposed ? 1 : 0) && out->n > 0 && out->k > 0 &&
           type.quant->n_scales == out->n * out->n_blocks &&
           (!gemm ||
            (qn__attr_float(node, "alpha", 1.0f) == 1.0f &&
             qn__attr_float(node, "beta", 1.0f) == 1.0f && qn__attr_int(node, "transA", 0) == 0));
}

/* --- MatMulNBits ------------------------------------------------------------------------------*/
static bool nbits_fits(const rows *r)
{
    const int64_t block = r->quant->block;
    const uint32_t bits = qn__dtype_bits(r->dtype);
    return (bits == 4 || bits == 8) && block >= 16 && (block & (block - 1)) == 0;
}

static qn_tensor *add_bytes(qn_graph *graph, const char *name, qn_dtype dtype, size_t rank,
                            const int64_t *dims, qn_blob *blob)
{
    qn_tensor *t = name && blob ? qn__graph_add_constant(graph, name, qn_type_plain_make(dtype),
                                                         rank, dims, blob)
                                : NULL;
    qn__blob_unref(blob);
    return t;
}

static void put(uint8_t *to, size_t bits, size_t index, int64_t value)
{
    if (bits == 8)
        to[index] = (uint8_t)value;
    else
        to[index / 2] = (uint8_t)(to[index / 2] | (value & 15) << (index % 2 * 4));
}

static qn_tensor *nbits_data(qn_graph *graph, const rows *r, const char *base)
{
    const size_t bits = qn__dtype_bits(r->dtype), bytes = (size_t)r->quant->block * bits / 8;
    const int64_t middle = qn__dtype_is_signed(r->dtype) ? (int64_t)1 << (bits - 1) : 0;
    const int64_t dims[3] = {(int64_t)r->n, (int64_t)r->n_blocks, (int64_t)bytes};
    void *data = NULL;
    qn_blob *blob = qn__blob_create(graph->ctx, r->n * r->n_blocks * bytes, &data);
    if (!blob)
        return NULL;
    memset(data, 0, blob->size_bytes);
    for (size_t n = 0; n < r->n; n++) {
        uint8_t *row = (uint8_t *)data + n * r->n_blocks * bytes;
        for (size_t k = 0; k < r->k; k++)
            put(row, bits, k, qn__load_int(r->data, r->dtype, weight_index(r, n, k)) + middle);
    }
    return add_bytes(graph, qn__onnx_named(graph, base, "_packed"), QN_DTYPE_U8, 3, dims, blob);
}

static qn_tensor *nbits_scales(qn_graph *graph, const rows *r, const char *base)
{
    const int64_t dims[2] = {(int64_t)r->n, (int64_t)r->n_blocks};
    void *data = NULL;
    qn_blob *blob = qn__blob_create(graph->ctx, r->n * r->n_blocks * sizeof(float), &data);
    for (size_t n = 0; blob && n < r->n; n++)
        for (size_t b = 0; b < r->n_blocks; b++)
            ((float *)data)[n * r->n_blocks + b] = r->quant->scales[scale_index(r, n, b)];
    return add_bytes(graph, qn__onnx_named(graph, base, "_scale"), QN_DTYPE_F32, 2, dims, blob);
}

static qn_tensor *nbits_zeros(qn_graph *graph, const rows *r, const char *base)
{
    const size_t bits = qn__dtype_bits(r->dtype), bytes = (r->n_blocks * bits + 7) / 8;
    const int64_t middle = qn__dtype_is_signed(r->dtype) ? (int64_t)1 << (bits - 1) : 0;
    const int64_t dims[2] = {(int64_t)r->n, (int64_t)bytes};
    void *data = NULL;
    qn_blob *blob = qn__blob_create(graph->ctx, r->n * bytes, &data);
    if (!blob)
        return NULL;
    memset(data, 0, blob->size_bytes);
    for (size_t n = 0; n < r->n; n++)
        for (size_t b = 0; b < r->n_blocks; b++)
            put((uint8_t *)data + n * bytes, bits, b,
                r->quant->zero_points[scale_index(r, n, b)] + middle);
    return add_bytes(graph, qn__onnx_named(graph, base, "_zero_point"), QN_DTYPE_U8, 2, dims, blob);
}

static qn_status lower_nbits(qn_lower *l, qn_node *node, const rows *r, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    const char *base = node->inputs[1]->name;
    qn_tensor **inputs = qn__arena_calloc(&graph->arena, 4, sizeof(*inputs));
    const bool zeros = r->quant->zero_points != NULL;
    if (!inputs || !(inputs[1] = nbits_data(graph, r, base)) ||
        !(inputs[2] = nbits_scales(graph, r, base)) ||
        (zeros && !(inputs[3] = nbits_zeros(graph, r, base))))
        return QN_NOMEM(error);
    inputs[0] = node->inputs[0];
    node->inputs = inputs;
    node->n_inputs = zeros ? 4 : 3;
    if (!qn__node_set_int(graph, node, "K", (int64_t)r->k) ||
        !qn__node_set_int(graph, node, "N", (int64_t)r->n) ||
        !qn__node_set_int(graph, node, "bits", qn__dtype_bits(r->dtype)) ||
        !qn__node_set_int(graph, node, "block_size", r->quant->block) ||
        !qn__node_set_int(graph, node, "accuracy_level", ACCURACY_INT8) ||
        !qn__onnx_set_written_op(l->w, node, "com.microsoft", "MatMulNBits"))
        return QN_NOMEM(error);
    return qn__onnx_push_node(graph, node) ? QN_OK : QN_NOMEM(error);
}

/* --- DequantizeLinear -------------------------------------------------------------------------*/
/* The same weights as [K, N], and their type. */
static qn_tensor *upright(qn_graph *graph, const rows *r, const char *base, qn_type *type)
{
    const size_t count = r->n * r->n_blocks;
    float *scales = qn__arena_calloc(&graph->arena, count, sizeof(*scales));
    int32_t *zeros = qn__arena_calloc(&graph->arena, count, sizeof(*zeros));
    size_t bytes;
    void *data = NULL;
    if (!scales || !zeros || !qn__dtype_bytes(&bytes, r->dtype, r->n * r->k))
        return NULL;
    for (size_t n = 0; n < r->n; n++)
        for (size_t b = 0; b < r->n_blocks; b++) {
            scales[b * r->n + n] = r->quant->scales[scale_index(r, n, b)];
            if (r->quant->zero_points)
                zeros[b * r->n + n] = r->quant->zero_points[scale_index(r, n, b)];
        }
    qn_quant quant = *r->quant;
    quant.axis = 0;
    quant.scales = scales;
    quant.zero_points = r->quant->zero_points ? zeros : NULL;
    const qn_quant *kept = qn__graph_quant(graph, &quant);
    qn_blob *blob = kept ? qn__blob_create(graph->ctx, bytes, &data) : NULL;
    if (!blob)
        return NULL;
    for (size_t n = 0; n < r->n; n++)
        for (size_t k = 0; k < r->k; k++)
            qn__store_int(data, r->dtype, k * r->n + n,
                          qn__load_int(r->data, r->dtype, weight_index(r, n, k)));
    const int64_t dims[2] = {(int64_t)r->k, (int64_t)r->n};
    *type = qn_type_quant_make(r->dtype, kept);
    return add_bytes(graph, qn__onnx_named(graph, base, "_transposed_quantized"), r->dtype, 2, dims,
                     blob);
}

/* Float values of weights that lie the other way round. */
static qn_status dequantize_upright(qn_lower *l, const rows *r, const char *weights,
                                    qn_tensor **out, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    const char *base = qn__onnx_named(graph, weights, "_transposed");
    const char *name = qn__onnx_named(graph, base, "_DequantizeLinear");
    qn_type type;
    qn_params params;
    qn_tensor *q = name ? upright(graph, r, weights, &type) : NULL;
    if (!q)
        return QN_NOMEM(error);
    QN_TRY(qn__onnx_make_params(l, q, type, base, &params, error));
    qn_node *node = qn__graph_add_node(graph, SIZE_MAX, QN_OP_DEQUANTIZE_LINEAR, name, 3, 1);
    *out = qn__onnx_fresh(graph, qn__onnx_named(graph, name, "_Output"),
                          qn_type_plain_make(QN_DTYPE_F32));
    if (!node || !*out || !qn__node_set_int(graph, node, "axis", 0) ||
        !qn__node_set_int(graph, node, "block_size", type.quant->block))
        return QN_NOMEM(error);
    node->inputs[0] = q;
    node->inputs[1] = params.scale;
    node->inputs[2] = params.zero_point;
    node->n_inputs = type.quant->zero_points ? 3 : 2;
    qn__node_set_output(node, 0, *out);
    return QN_OK;
}

static qn_status lower_dequantized(qn_lower *l, qn_node *node, const rows *r, qn_error *error)
{
    qn_tensor *real;
    if (r->transposed)
        QN_TRY(dequantize_upright(l, r, node->inputs[1]->name, &real, error));
    else
        QN_TRY(qn__onnx_float_of(l, node->inputs[1], &real, error));
    node->inputs[1] = real;
    node->n_inputs = 2;
    return qn__onnx_push_node(l->w->graph, node) ? QN_OK : QN_NOMEM(error);
}

/* --- both -------------------------------------------------------------------------------------*/
static qn_status add_bias(qn_lower *l, qn_node *node, qn_tensor *bias, qn_tensor *made,
                          qn_error *error)
{
    qn_graph *graph = l->w->graph;
    const char *name = qn__onnx_named(graph, node->name, "_bias");
    qn_node *add = name ? qn__graph_add_node(graph, SIZE_MAX, QN_OP_ADD, name, 2, 1) : NULL;
    if (!add)
        return QN_NOMEM(error);
    add->inputs[0] = node->outputs[0];
    add->inputs[1] = bias;
    qn__node_set_output(add, 0, made);
    return QN_OK;
}

qn_status qn__onnx_lower_blocks(qn_lower *l, qn_node *node, bool *done, qn_error *error)
{
    qn_graph *graph = l->w->graph;
    rows r;
    *done = (node->op == QN_OP_MATMUL || node->op == QN_OP_GEMM) && node->n_inputs >= 2 &&
            node->inputs[0] && !qn__onnx_is_quantized(l, node->inputs[0]) && node->outputs[0] &&
            !qn__onnx_is_quantized(l, node->outputs[0]) &&
            qn__onnx_is_quantized(l, node->inputs[1]) && qn__onnx_is_blocked(node->inputs[1]) &&
            read_rows(l, node, &r);
    if (!*done)
        return QN_OK;
    const bool nbits = l->w->options->format == QN_WRITE_QOPERATOR && nbits_fits(&r);
    qn_tensor *const out = node->outputs[0];
    qn_tensor *const bias = node->n_inputs > 2 ? node->inputs[2] : NULL;
    qn_tensor *made = out;
    if (node->act != QN_ACT_NONE)
        made = qn__onnx_before_act(graph, l->w->source, node, out);
    if (!made)
        return QN_NOMEM(error);
    qn_tensor *product = made;
    if (bias)
        product = qn__onnx_fresh(graph, qn__onnx_named(graph, node->name, "_product"),
                                 qn_type_plain_make(QN_DTYPE_F32));
    if (!product)
        return QN_NOMEM(error);
    static const char *const gone[] = {"alpha", "beta", "transA", "transB"};
    node->op = QN_OP_MATMUL;
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
        qn__node_remove_attr(node, gone[i]);
    qn__node_set_output(node, 0, product);
    QN_TRY(nbits ? lower_nbits(l, node, &r, error) : lower_dequantized(l, node, &r, error));
    if (bias)
        QN_TRY(add_bias(l, node, bias, made, error));
    return node->act != QN_ACT_NONE ? qn__onnx_emit_act(l, node, made, out, error) : QN_OK;
}
