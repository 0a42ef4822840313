/* Opsets 1 to 6 raised to the meaning of opset 7: explicit broadcasting, shapes and sizes as
 * attributes, types by name. */
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_read.h"

static bool is_binary(qn_op op)
{
    switch (op) {
    case QN_OP_ADD:
    case QN_OP_SUB:
    case QN_OP_MUL:
    case QN_OP_DIV:
    case QN_OP_POW:
    case QN_OP_AND:
    case QN_OP_OR:
    case QN_OP_XOR:
    case QN_OP_EQUAL:
    case QN_OP_GREATER:
    case QN_OP_LESS:
        return true;
    default:
        return false;
    }
}

/* Input 1, whose first axis is axis `axis` of input 0, as numpy would have to see it: with ones
 * behind its own axes. */
static qn_status align(qn_onnx_reader *r, qn_node *node, int64_t axis, qn_error *error)
{
    const qn_tensor *a = node->inputs[0], *b = node->inputs[1];
    int64_t dims[QN_MAX_RANK];
    if (!a->has_shape || !b->has_shape)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "broadcasts along an axis of a tensor of unknown rank");
    axis += axis < 0 ? a->rank : 0;
    if (axis < 0 || axis + b->rank > a->rank)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT,
                                  "axis %lld does not fit ranks %u and %u", (long long)axis,
                                  a->rank, b->rank);
    if (axis + b->rank == a->rank)
        return QN_OK;
    if (b->constant == NULL || !qn__tensor_static_dims(b, dims))
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "broadcasts \"%s\", which is computed, along axis %lld", b->name,
                                  (long long)axis);
    const size_t rank = a->rank - (size_t)axis;
    for (size_t d = b->rank; d < rank; d++)
        dims[d] = 1;
    const char *name = qn__arena_printf(&r->graph->arena, "%s_%s", node->name, b->name);
    qn_tensor *aligned =
        name ? qn__graph_add_constant(r->graph, name, b->type, rank, dims, b->constant) : NULL;
    if (!aligned)
        return QN_NOMEM(error);
    node->inputs[1] = aligned;
    return QN_OK;
}

static qn_status broadcast(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    const int64_t wanted = qn__attr_int(node, "broadcast", 0);
    const bool has_axis = qn__node_attr(node, "axis") != NULL;
    const int64_t axis = qn__attr_int(node, "axis", 0);
    qn__node_remove_attr(node, "broadcast");
    qn__node_remove_attr(node, "axis");
    if (wanted == 0 || !has_axis || node->n_inputs < 2 || !node->inputs[0] || !node->inputs[1])
        return QN_OK;
    return align(r, node, axis, error);
}

/* A slope for each channel lay along axis 1. */
static qn_status slope(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    const qn_tensor *s = node->n_inputs > 1 ? node->inputs[1] : NULL;
    const bool one = s && s->has_shape && s->rank == 1 && s->dims[0].kind == QN_DIM_CONST &&
                     s->dims[0].value == 1;
    return s && node->inputs[0] && s->has_shape && s->rank == 1 && !one ? align(r, node, 1, error)
                                                                        : QN_OK;
}

static qn_status in_test_mode(qn_onnx_reader *r, qn_node *node, bool known, qn_error *error)
{
    if (!known && qn__attr_int(node, "is_test", 0) == 0)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "is in training mode (is_test is 0)");
    qn__node_remove_attr(node, "is_test");
    return QN_OK;
}

static qn_status cast_by_name(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    static const char *const names[] = {"",        "FLOAT",  "UINT8",  "INT8",   "UINT16",
                                        "INT16",   "INT32",  "INT64",  "STRING", "BOOL",
                                        "FLOAT16", "DOUBLE", "UINT32", "UINT64"};
    const char *name = qn__attr_string(node, "to", NULL);
    if (!name)
        return QN_OK;
    for (size_t i = 1; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) != 0)
            continue;
        qn__node_remove_attr(node, "to");
        return qn__node_set_int(r->graph, node, "to", (int64_t)i) ? QN_OK : QN_NOMEM(error);
    }
    return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "casts to \"%.40s\"", name);
}

static qn_status shape_input(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    const qn_attr *shape = qn__node_attr(node, "shape");
    if (!shape)
        return QN_OK;
    if (shape->kind != QN_ATTR_INTS)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT,
                                  "attribute \"shape\" is not a list of integers");
    const char *name = qn__arena_printf(&r->graph->arena, "%s_shape", node->name);
    qn_tensor *tensor =
        name ? qn__onnx_const_ints(r->graph, name, shape->ints, shape->count) : NULL;
    if (!tensor || !qn__onnx_set_input(r->graph, node, 1, tensor))
        return QN_NOMEM(error);
    qn__node_remove_attr(node, "shape");
    return QN_OK;
}

static qn_status rename_pads(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    size_t count;
    const int64_t *pads = qn__attr_ints(node, "paddings", &count);
    if (!pads)
        return QN_OK;
    if (!qn__node_set_ints(r->graph, node, "pads", pads, count))
        return QN_NOMEM(error);
    qn__node_remove_attr(node, "paddings");
    return QN_OK;
}

/* Upsample's factors, which the later step takes from input 1. */
static qn_status upsample_scales(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    const float scales[4] = {1, 1, qn__attr_float(node, "height_scale", 0),
                             qn__attr_float(node, "width_scale", 0)};
    const int64_t dims[1] = {4};
    if (qn__node_attr(node, "scales") || node->n_inputs > 1)
        return QN_OK;
    if (!(scales[2] >= 1) || !(scales[3] >= 1))
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "has no scales");
    const char *name = qn__arena_printf(&r->graph->arena, "%s_scales", node->name);
    qn_blob *blob = qn__blob_copy(r->graph->ctx, scales, sizeof(scales));
    qn_tensor *tensor =
        name && blob ? qn__graph_add_constant(r->graph, name, qn_type_plain_make(QN_DTYPE_F32), 1,
                                              dims, blob)
                     : NULL;
    qn__blob_unref(blob);
    if (!tensor || !qn__onnx_set_input(r->graph, node, 1, tensor))
        return QN_NOMEM(error);
    qn__node_remove_attr(node, "height_scale");
    qn__node_remove_attr(node, "width_scale");
    return QN_OK;
}

qn_status qn__onnx_upgrade_old(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    qn__node_remove_attr(node, "consumed_inputs");
    if (is_binary(node->op))
        return broadcast(r, node, error);
    switch (node->op) {
    case QN_OP_GEMM:
        qn__node_remove_attr(node, "broadcast");
        return QN_OK;
    case QN_OP_PRELU:
        return slope(r, node, error);
    case QN_OP_BATCH_NORMALIZATION: /* training has more outputs */
        return in_test_mode(r, node, node->n_outputs == 1, error);
    case QN_OP_DROPOUT:
        return in_test_mode(r, node, false, error);
    case QN_OP_CAST:
        return cast_by_name(r, node, error);
    case QN_OP_RESHAPE:
        return shape_input(r, node, error);
    case QN_OP_PAD:
        return rename_pads(r, node, error);
    case QN_OP_RESIZE:
        return upsample_scales(r, node, error);
    case QN_OP_CONCAT:
        if (r->source->opset < 4 && !qn__node_attr(node, "axis") &&
            !qn__node_set_int(r->graph, node, "axis", 1))
            return QN_NOMEM(error);
        return QN_OK;
    case QN_OP_TILE:
        return r->source->opset >= 6 ? QN_OK
                                     : qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                                          "repeats one axis, as before opset 6");
    case QN_OP_LSTM:
    case QN_OP_GRU:
    case QN_OP_RNN:
        qn__node_remove_attr(node, "output_sequence");
        return QN_OK;
    default:
        return QN_OK;
    }
}
