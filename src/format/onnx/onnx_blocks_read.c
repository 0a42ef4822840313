/* MatMulNBits: weights [N][blocks][bytes], packed along K, low nibble first; scales [N][blocks];
 * zero points packed alike, the middle of the range when there are none. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/checked.h"
#include "core/context.h"
#include "format/onnx/onnx_blocks.h"

typedef struct nbits {
    const qn_tensor *data, *scales, *zeros;
    size_t k, n, bits, block, n_blocks, block_bytes, zero_bytes;
} nbits;

static bool has_bytes(const qn_tensor *t, qn_dtype dtype, size_t bytes)
{
    return t->constant && t->type.kind == QN_TYPE_PLAIN && t->type.dtype == dtype &&
           t->constant->size_bytes == bytes;
}

static qn_status read_attrs(const qn_onnx_reader *r, const qn_node *node, nbits *b, qn_error *error)
{
    const int64_t k = qn__attr_int(node, "K", 0), n = qn__attr_int(node, "N", 0);
    const int64_t bits = qn__attr_int(node, "bits", 4), block = qn__attr_int(node, "block_size", 0);
    if (bits != 4 && bits != 8)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "weights of %" PRId64 " bits",
                                  bits);
    if (block < 16 || block > 65536 || (block & (block - 1)) != 0)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "has a block_size of %" PRId64,
                                  block);
    if (k < 1 || n < 1 || k > INT32_MAX || n > INT32_MAX)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "K is %" PRId64 ", N is %" PRId64, k,
                                  n);
    b->k = (size_t)k;
    b->n = (size_t)n;
    b->bits = (size_t)bits;
    b->block = (size_t)block;
    b->n_blocks = (b->k + b->block - 1) / b->block;
    b->block_bytes = b->block * b->bits / 8;
    b->zero_bytes = (b->n_blocks * b->bits + 7) / 8;
    return QN_OK;
}

static qn_status read_inputs(const qn_onnx_reader *r, const qn_node *node, nbits *b,
                             qn_error *error)
{
    size_t rows, bytes;
    b->data = qn_node_input(node, 1);
    b->scales = qn_node_input(node, 2);
    b->zeros = qn_node_input(node, 3);
    for (uint32_t i = 4; i < node->n_inputs; i++)
        if (node->inputs[i])
            return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "has %s",
                                      i == 4 ? "an order of groups (g_idx)" : "a bias");
    if (!qn_node_input(node, 0) || !b->data || !b->scales)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "an input is missing");
    if (!qn_mul_size(&rows, b->n, b->n_blocks) || !qn_mul_size(&bytes, rows, b->block_bytes) ||
        !has_bytes(b->data, QN_DTYPE_U8, bytes))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "weights \"%s\" are not constant bytes of its K and N",
                                  b->data->name);
    if (!has_bytes(b->scales, QN_DTYPE_F32, rows * sizeof(float)))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "scales \"%s\" are not constant float32, one for each block",
                                  b->scales->name);
    if (b->zeros && !has_bytes(b->zeros, QN_DTYPE_U8, b->n * b->zero_bytes))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "zero points \"%s\" are not constant packed bytes",
                                  b->zeros->name);
    return QN_OK;
}

static int32_t packed_at(const nbits *b, const uint8_t *data, size_t index)
{
    return b->bits == 8 ? data[index] : data[index / 2] >> (index % 2 * 4) & 15;
}

static float scale_at(const nbits *b, size_t n, size_t i)
{
    return (float)qn__load_real(b->scales->constant->data, QN_DTYPE_F32, n * b->n_blocks + i);
}

static int32_t zero_at(const nbits *b, size_t n, size_t i)
{
    return b->zeros ? packed_at(b, (const uint8_t *)b->zeros->constant->data + n * b->zero_bytes, i)
                    : 1 << (b->bits - 1);
}

/* A type has positive scales. Where one is negative (writers give the largest weight the one
 * integer that the positive side lacks) q becomes top - q, and so does the zero point; where it is
 * 0, every weight is the zero point. The integers are unsigned then. */
static qn_status find_kind(const qn_onnx_reader *r, const qn_node *node, const nbits *b,
                           bool *is_unsigned, qn_error *error)
{
    *is_unsigned = b->zeros != NULL;
    for (size_t n = 0; n < b->n; n++)
        for (size_t i = 0; i < b->n_blocks; i++) {
            const float s = scale_at(b, n, i);
            if (!isfinite(s))
                return qn__onnx_node_fail(r, node, error, QN_NONFINITE, "scale %zu is %g",
                                          n * b->n_blocks + i, (double)s);
            *is_unsigned = *is_unsigned || s <= 0.0f;
        }
    return QN_OK;
}

/* Scales and zero points in the order of the blocked type: [blocks][N]. */
static const qn_quant *blocked_quant(qn_graph *graph, const nbits *b, bool is_unsigned)
{
    const size_t count = b->n * b->n_blocks;
    const int32_t top = (1 << b->bits) - 1;
    float *scales = qn__arena_calloc(&graph->arena, count, sizeof(*scales));
    int32_t *zeros = qn__arena_calloc(&graph->arena, count, sizeof(*zeros));
    if (!scales || !zeros)
        return NULL;
    for (size_t n = 0; n < b->n; n++)
        for (size_t i = 0; i < b->n_blocks; i++) {
            const float s = scale_at(b, n, i);
            const int32_t zero = zero_at(b, n, i);
            scales[i * b->n + n] = s == 0.0f ? 1.0f : fabsf(s);
            zeros[i * b->n + n] = s < 0.0f ? top - zero : zero;
        }
    const qn_quant quant = {.bits = (uint8_t)b->bits,
                            .is_signed = !is_unsigned,
                            .axis = 0,
                            .block = (int64_t)b->block,
                            .qmin = is_unsigned ? 0 : -(top + 1) / 2,
                            .qmax = is_unsigned ? top : top / 2,
                            .n_scales = count,
                            .scales = scales,
                            .zero_points = is_unsigned ? zeros : NULL};
    return qn__graph_quant(graph, &quant);
}

static qn_blob *blocked_data(const qn_context *ctx, const nbits *b, qn_dtype dtype)
{
    const int32_t top = (1 << b->bits) - 1;
    const int32_t middle = qn__dtype_is_signed(dtype) ? (top + 1) / 2 : 0;
    size_t count, bytes;
    void *to = NULL;
    if (!qn_mul_size(&count, b->k, b->n) || !qn__dtype_bytes(&bytes, dtype, count))
        return NULL;
    qn_blob *blob = qn__blob_create(ctx, bytes, &to);
    for (size_t n = 0; blob && n < b->n; n++) {
        const uint8_t *row =
            (const uint8_t *)b->data->constant->data + n * b->n_blocks * b->block_bytes;
        for (size_t k = 0; k < b->k; k++) {
            const float s = scale_at(b, n, k / b->block);
            const int32_t q = s == 0.0f ? zero_at(b, n, k / b->block) : packed_at(b, row, k);
            qn__store_int(to, dtype, k * b->n + n, (s < 0.0f ? top - q : q) - middle);
        }
    }
    return blob;
}

/* "w_packed" -> "w" */
static const char *own_name(qn_graph *graph, const char *name)
{
    static const char SUFFIX[] = "_packed";
    const size_t length = strlen(name), suffix = sizeof(SUFFIX) - 1;
    return length > suffix && strcmp(name + length - suffix, SUFFIX) == 0
               ? qn__arena_strndup(&graph->arena, name, length - suffix)
               : name;
}

qn_status qn__onnx_read_nbits(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    static const qn_dtype types[2][2] = {{QN_DTYPE_I4, QN_DTYPE_U4}, {QN_DTYPE_I8, QN_DTYPE_U8}};
    static const char *const gone[] = {"K", "N", "bits", "block_size", "accuracy_level"};
    nbits b = {0};
    bool is_unsigned;
    QN_TRY(read_attrs(r, node, &b, error));
    QN_TRY(read_inputs(r, node, &b, error));
    QN_TRY(find_kind(r, node, &b, &is_unsigned, error));
    const qn_dtype dtype = types[b.bits == 8][is_unsigned];
    const qn_quant *quant = blocked_quant(r->graph, &b, is_unsigned);
    qn_blob *blob = quant ? blocked_data(r->graph->ctx, &b, dtype) : NULL;
    const int64_t dims[2] = {(int64_t)b.k, (int64_t)b.n};
    const char *name = own_name(r->graph, b.data->name);
    qn_tensor *w = blob && name
                       ? qn__graph_add_constant(r->graph, name, qn_type_quant_make(dtype, quant), 2,
                                                dims, blob)
                       : NULL;
    qn__blob_unref(blob);
    if (!w)
        return QN_NOMEM(error);
    node->inputs[1] = w;
    node->n_inputs = 2;
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
        qn__node_remove_attr(node, gone[i]);
    return QN_OK;
}
