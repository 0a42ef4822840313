/* Meaning of older opsets raised to the newest one, and lowered again for writing. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_read.h"

bool qn__onnx_set_input(qn_graph *graph, qn_node *node, uint32_t index, qn_tensor *tensor)
{
    if (index >= node->n_inputs) {
        qn_tensor **inputs = qn__arena_calloc(&graph->arena, (size_t)index + 1, sizeof(*inputs));
        if (!inputs)
            return false;
        for (uint32_t i = 0; i < node->n_inputs; i++)
            inputs[i] = node->inputs[i];
        node->inputs = inputs;
        node->n_inputs = index + 1;
    }
    node->inputs[index] = tensor;
    return true;
}

qn_tensor *qn__onnx_const_ints(qn_graph *graph, const char *name, const int64_t *values,
                               size_t count)
{
    qn_blob *blob = qn__blob_copy(graph->ctx, values, count * sizeof(*values));
    if (!blob)
        return NULL;
    const int64_t dims[1] = {(int64_t)count};
    qn_tensor *tensor =
        qn__graph_add_constant(graph, name, qn_type_plain_make(QN_DTYPE_I64), 1, dims, blob);
    qn__blob_unref(blob);
    return tensor;
}

qn_tensor *qn__onnx_const_float(qn_graph *graph, const char *name, float value)
{
    qn_blob *blob = qn__blob_copy(graph->ctx, &value, sizeof(value));
    if (!blob)
        return NULL;
    qn_tensor *tensor =
        qn__graph_add_constant(graph, name, qn_type_plain_make(QN_DTYPE_F32), 0, NULL, blob);
    qn__blob_unref(blob);
    return tensor;
}

static const char *part_name(qn_graph *graph, const qn_node *node, const char *part)
{
    return qn__arena_printf(&graph->arena, "%s_%s", node->name, part);
}

/* attribute of ints -> constant input; nothing when the node has no such attribute */
static qn_status ints_to_input(qn_onnx_reader *r, qn_node *node, const char *attr, uint32_t index,
                               qn_error *error)
{
    const qn_attr *a = qn__node_attr(node, attr);
    if (!a)
        return QN_OK;
    if (a->kind != QN_ATTR_INTS)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT,
                                  "attribute \"%s\" is not a list of "
                                  "integers",
                                  attr);
    const char *name = part_name(r->graph, node, attr);
    qn_tensor *tensor = name ? qn__onnx_const_ints(r->graph, name, a->ints, a->count) : NULL;
    if (!tensor || !qn__onnx_set_input(r->graph, node, index, tensor))
        return QN_NOMEM(error);
    qn__node_remove_attr(node, attr);
    return QN_OK;
}

static qn_status float_to_input(qn_onnx_reader *r, qn_node *node, const char *attr, uint32_t index,
                                qn_error *error)
{
    const qn_attr *a = qn__node_attr(node, attr);
    if (!a)
        return QN_OK;
    if (a->kind != QN_ATTR_FLOAT)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "attribute \"%s\" is not a number",
                                  attr);
    const char *name = part_name(r->graph, node, attr);
    qn_tensor *tensor = name ? qn__onnx_const_float(r->graph, name, a->f) : NULL;
    if (!tensor || !qn__onnx_set_input(r->graph, node, index, tensor))
        return QN_NOMEM(error);
    qn__node_remove_attr(node, attr);
    return QN_OK;
}

/* --- steps ------------------------------------------------------------------------------------*/
static qn_status clip_inputs(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    QN_TRY(float_to_input(r, node, "min", 1, error));
    return float_to_input(r, node, "max", 2, error);
}

static qn_status pad_inputs(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    QN_TRY(ints_to_input(r, node, "pads", 1, error));
    return float_to_input(r, node, "value", 2, error);
}

static qn_status slice_inputs(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    QN_TRY(ints_to_input(r, node, "starts", 1, error));
    QN_TRY(ints_to_input(r, node, "ends", 2, error));
    return ints_to_input(r, node, "axes", 3, error);
}

static qn_status batch_norm_spatial(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    if (qn__attr_int(node, "spatial", 1) != 1)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "attribute spatial is not 1");
    qn__node_remove_attr(node, "spatial");
    return QN_OK;
}

static qn_status batch_norm_outputs(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    for (uint32_t i = 1; i < node->n_outputs; i++)
        if (node->outputs[i])
            return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "has training output \"%s\"",
                                      node->outputs[i]->name);
    node->n_outputs = node->n_outputs > 1 ? 1 : node->n_outputs;
    return QN_OK;
}

static qn_status dropout_ratio(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    return float_to_input(r, node, "ratio", 1, error);
}

static qn_status axes_input(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    return ints_to_input(r, node, "axes", 1, error);
}

/* TopK's k was an attribute. */
static qn_status k_input(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    const qn_attr *a = qn__node_attr(node, "k");
    if (!a || a->kind != QN_ATTR_INT)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "attribute \"k\" is missing");
    const char *name = part_name(r->graph, node, "k");
    qn_tensor *tensor = name ? qn__onnx_const_ints(r->graph, name, &a->i, 1) : NULL;
    if (!tensor || !qn__onnx_set_input(r->graph, node, 1, tensor))
        return QN_NOMEM(error);
    qn__node_remove_attr(node, "k");
    return QN_OK;
}

static qn_status scale_per_group(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                              "has a scale per group, as before opset 21");
}

/* Hardmax worked on a matrix, as Softmax did: the same only along the last axis. */
static qn_status one_axis(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    const int64_t axis = qn__attr_int(node, "axis", 1);
    const qn_tensor *x = node->n_inputs > 0 ? node->inputs[0] : NULL;
    const bool last = axis == -1 || (x && x->has_shape && axis == x->rank - 1);
    if (!last)
        return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                  "axis %lld is not the last one, as before opset 13",
                                  (long long)axis);
    return qn__node_set_int(r->graph, node, "axis", -1) ? QN_OK : QN_NOMEM(error);
}

static qn_status split_input(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    return ints_to_input(r, node, "split", 1, error);
}

static qn_status split_count(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    if (node->n_inputs > 1 && node->inputs[1])
        return QN_OK;
    return qn__node_set_int(r->graph, node, "num_outputs", node->n_outputs) ? QN_OK
                                                                            : QN_NOMEM(error);
}

/* Upsample (7, 9) and Resize of opset 10 take x * scale as coordinate; nearest rounds down, and
 * Resize-10 rounds up where it makes the picture smaller. */
static qn_status resize_legacy(qn_onnx_reader *r, qn_node *node, qn_error *error)
{
    qn_graph *graph = r->graph;
    const qn_attr *scales = qn__node_attr(node, "scales");
    qn_tensor *tensor = node->n_inputs > 1 ? node->inputs[1] : NULL;
    if (!tensor && scales && scales->kind == QN_ATTR_FLOATS) {
        const int64_t dims[1] = {(int64_t)scales->count};
        qn_blob *blob = qn__blob_copy(graph->ctx, scales->floats, scales->count * sizeof(float));
        const char *name = part_name(graph, node, "scales");
        if (blob && name)
            tensor = qn__graph_add_constant(graph, name, qn_type_plain_make(QN_DTYPE_F32), 1, dims,
                                            blob);
        qn__blob_unref(blob);
        if (!tensor)
            return QN_NOMEM(error);
        qn__node_remove_attr(node, "scales");
    }
    if (!tensor)
        return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "has no scales");
    const char *mode = qn__attr_string(node, "mode", "nearest");
    bool up = true, down = false;
    if (strcmp(mode, "nearest") == 0 && tensor->constant) {
        size_t count = 0;
        const float *values = qn__tensor_floats(graph, tensor, &count);
        for (size_t i = 0; values && i < count; i++) {
            up = up && values[i] >= 1.0f;
            down = down || values[i] < 1.0f;
        }
        for (size_t i = 0; values && down && i < count; i++)
            if (values[i] > 1.0f)
                return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                          "enlarges one axis and shrinks another");
    }
    const bool is_upsample = strcmp(r->source->nodes[node->sources[0]].op_type, "Upsample") == 0;
    if (strcmp(mode, "linear") != 0 && strcmp(mode, "nearest") != 0) {
        if (strcmp(mode, "bilinear") != 0)
            return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED, "has mode \"%s\"", mode);
        mode = "linear";
    }
    if (!qn__onnx_set_input(graph, node, 1, NULL) || !qn__onnx_set_input(graph, node, 2, tensor) ||
        !qn__node_set_string(graph, node, "mode", mode) ||
        !qn__node_set_string(graph, node, "coordinate_transformation_mode", "asymmetric") ||
        !qn__node_set_string(graph, node, "nearest_mode", down && !is_upsample ? "ceil" : "floor"))
        return QN_NOMEM(error);
    return QN_OK;
}

qn_status qn__onnx_upgrade(qn_onnx_reader *r, qn_error *error)
{
    const int64_t opset = r->source->opset;
    qn_graph *graph = r->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        if (node->id < r->n_qops && r->qops[node->id] != QN_QOP_NONE)
            continue;
        if (opset < 7)
            QN_TRY(qn__onnx_upgrade_old(r, node, error));
#define QN_UPGRADE(id, since, step)                                                                \
    if (node->op == QN_OP_##id && opset < since)                                                   \
        QN_TRY(step(r, node, error));
#define QN_DOWNGRADE(id, since, step)
#define QN_SINCE(id, since)
#include "format/onnx/onnx_upgrade.def"
#undef QN_UPGRADE
#undef QN_DOWNGRADE
#undef QN_SINCE
        if (opset < 7) /* the next one may need to know ranks */
            QN_TRY(qn__node_infer(graph, node, error));
    }
    return QN_OK;
}

/* --- Softmax before opset 13: the input as a matrix, cut in two at `axis`
 * -----------------------*/
static qn_status softmax_by_matrix(qn_onnx_reader *r, size_t at, int64_t axis, qn_error *error)
{
    qn_graph *graph = r->graph;
    qn_node *node = graph->nodes[at];
    qn_tensor *x = node->inputs[0], *y = node->outputs[0];
    const qn_type type = x->type;
    qn_tensor *shape = qn__graph_add_tensor(graph, part_name(graph, node, "shape"),
                                            qn_type_plain_make(QN_DTYPE_I64));
    qn_tensor *flat = qn__graph_add_tensor(graph, part_name(graph, node, "matrix"), type);
    qn_tensor *result = qn__graph_add_tensor(graph, part_name(graph, node, "result"), type);
    qn_node *to_shape =
        qn__graph_add_node(graph, at, QN_OP_SHAPE, part_name(graph, node, "Shape"), 1, 1);
    qn_node *flatten =
        qn__graph_add_node(graph, at + 1, QN_OP_FLATTEN, part_name(graph, node, "Flatten"), 1, 1);
    qn_node *reshape =
        qn__graph_add_node(graph, at + 3, QN_OP_RESHAPE, part_name(graph, node, "Reshape"), 2, 1);
    if (!shape || !flat || !result || !to_shape || !flatten || !reshape ||
        !qn__node_set_int(graph, flatten, "axis", axis) ||
        !qn__node_set_int(graph, node, "axis", -1))
        return QN_NOMEM(error);
    to_shape->inputs[0] = x;
    flatten->inputs[0] = x;
    node->inputs[0] = flat;
    reshape->inputs[0] = result;
    reshape->inputs[1] = shape;
    qn__node_set_output(to_shape, 0, shape);
    qn__node_set_output(flatten, 0, flat);
    qn__node_set_output(node, 0, result);
    qn__node_set_output(reshape, 0, y);
    return QN_OK;
}

qn_status qn__onnx_upgrade_shaped(qn_onnx_reader *r, bool *changed, qn_error *error)
{
    qn_graph *graph = r->graph;
    *changed = false;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
        const bool on_bytes = node->id < r->n_qops && r->qops[node->id] != QN_QOP_NONE;
        if ((node->op != QN_OP_SOFTMAX && node->op != QN_OP_LOG_SOFTMAX) || node->n_sources == 0 ||
            (on_bytes ? qn__attr_int(node, "opset", 13) : r->source->opset) >= 13)
            continue;
        const qn_tensor *x = node->inputs[0];
        if (!x->has_shape)
            return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                      "its meaning before opset 13 depends on the rank of \"%s\", "
                                      "which is not known",
                                      x->name);
        const int64_t rank = x->rank;
        int64_t axis = qn__attr_int(node, "axis", on_bytes ? -1 : 1);
        qn__node_remove_attr(node, "opset");
        if (axis < -rank || axis > rank)
            return qn__onnx_node_fail(r, node, error, QN_CORRUPT, "axis is outside the rank %d",
                                      (int)rank);
        axis += axis < 0 ? rank : 0;
        int64_t wide = axis, n_wide = 0;
        for (int64_t d = axis; d < rank; d++) {
            if (x->dims[d].kind != QN_DIM_CONST || x->dims[d].value != 1) {
                wide = d;
                n_wide++;
            }
        }
        if (n_wide <= 1 && axis < rank) {
            if (!qn__node_set_int(graph, node, "axis", wide))
                return QN_NOMEM(error);
            continue;
        }
        if (on_bytes)
            return qn__onnx_node_fail(r, node, error, QN_UNSUPPORTED,
                                      "goes over several axes, as Softmax before opset 13");
        QN_TRY(softmax_by_matrix(r, i, axis, error));
        *changed = true;
        i += 3;
    }
    return QN_OK;
}

/* --- writing ----------------------------------------------------------------------------------*/
static qn_status axes_attr(qn_graph *graph, qn_node *node, qn_error *error)
{
    if (node->n_inputs < 2)
        return QN_OK;
    if (node->inputs[1]) {
        size_t count = 0;
        const int64_t *axes = qn__tensor_ints(graph, node->inputs[1], &count);
        if (!axes)
            QN_TRY(qn__arena_check(&graph->arena, error));
        QN_FAIL_IF(!axes, error, QN_UNSUPPORTED,
                   "node \"%s\" %s: axes that are not constant need opset 18", node->name,
                   qn__op_name(node->op));
        if (count > 0 && !qn__node_set_ints(graph, node, "axes", axes, count))
            return QN_NOMEM(error);
    }
    node->n_inputs = 1;
    return QN_OK;
}

static qn_status split_count_drop(qn_graph *graph, qn_node *node, qn_error *error)
{
    (void)graph;
    (void)error;
    qn__node_remove_attr(node, "num_outputs");
    return QN_OK;
}

qn_status qn__onnx_downgrade(qn_graph *graph, int64_t target, qn_error *error)
{
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *node = graph->nodes[i];
#define QN_UPGRADE(id, since, step)
#define QN_SINCE(id, since)
#define QN_DOWNGRADE(id, since, step)                                                              \
    if (node->op == QN_OP_##id && target < since)                                                  \
        QN_TRY(step(graph, node, error));
#include "format/onnx/onnx_upgrade.def"
#undef QN_UPGRADE
#undef QN_DOWNGRADE
#undef QN_SINCE
    }
    return QN_OK;
}
