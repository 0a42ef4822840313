/* Builders that the lowering of every operator family stands on. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_read.h"
#include "ir/names.h"

qn_status qn__mnn_fail(const qn_mnn_reader *r, qn_error *error, qn_status status,
                       const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    qn__error_set(error, status, "%s", text);
    return qn__mnn_under(r, error, status);
}

qn_status qn__mnn_under(const qn_mnn_reader *r, qn_error *error, qn_status status)
{
    const char *type = qn__mnn_op_name(r->type);
    if (type)
        return qn__error_prefix(error, status, "%s: operator \"%s\" %s", r->graph->file, r->name,
                                type);
    return qn__error_prefix(error, status, "%s: operator \"%s\" of type %" PRId64, r->graph->file,
                            r->name, r->type);
}

/* --- the operator -----------------------------------------------------------------------------*/
qn_status qn__mnn_need_main(const qn_mnn_reader *r, int32_t record, qn_error *error)
{
    if (!r->main)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has no parameters");
    if (r->main->record != record)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has the parameters of another operator, %s",
                            qn__mnn_schema.records[r->main->record].name);
    return QN_OK;
}

qn_status qn__mnn_need_inputs(const qn_mnn_reader *r, size_t least, size_t most, qn_error *error)
{
    if (r->n_in < least || r->n_in > most)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has %zu inputs, needs %zu to %zu", r->n_in,
                            least, most);
    return QN_OK;
}

qn_status qn__mnn_ints(const qn_mnn_reader *r, uint32_t slot, int64_t *out, size_t most,
                       size_t *count, qn_error *error)
{
    size_t n = 0;
    qn__fb_bytes(r->main, slot, &n);
    if (n > most)
        return qn__mnn_fail(r, error, QN_CORRUPT, "\"%s\" has %zu values, %zu is the most",
                            qn__mnn_schema.records[r->main->record].fields[slot].name, n, most);
    for (size_t i = 0; i < n; i++)
        out[i] = qn__fb_int_at(r->doc, r->main, slot, i);
    *count = n;
    return QN_OK;
}

int64_t qn__mnn_in_id(const qn_mnn_reader *r, size_t i)
{
    return qn__fb_int_at(r->doc, r->op, QN_MNN_Op_inputIndexes, i);
}

qn_tensor *qn__mnn_in(const qn_mnn_reader *r, size_t i)
{
    return i < r->n_in ? r->values[qn__mnn_in_id(r, i)].tensor : NULL;
}

int64_t qn__mnn_in_format(const qn_mnn_reader *r, size_t i)
{
    return i < r->n_in ? r->values[qn__mnn_in_id(r, i)].format : QN_MNN_MNN_DATA_FORMAT_NCHW;
}

qn_status qn__mnn_need_rank(const qn_mnn_reader *r, const qn_tensor *tensor, size_t least,
                            size_t most, qn_error *error)
{
    if (!tensor->has_shape)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "the rank of \"%s\" is not known",
                            tensor->name);
    if (tensor->rank < least || tensor->rank > most)
        return qn__mnn_fail(r, error, QN_CORRUPT, "\"%s\" has rank %u, needs %zu to %zu",
                            tensor->name, tensor->rank, least, most);
    return QN_OK;
}

qn_status qn__mnn_const_input(const qn_mnn_reader *r, size_t i, int64_t *out, size_t most,
                              size_t *count, qn_error *error)
{
    const qn_tensor *tensor = qn__mnn_in(r, i);
    if (!tensor)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has no input %zu", i);
    size_t n = 0;
    const int64_t *values = qn__tensor_ints(r->graph, tensor, &n);
    if (!values && tensor->value_dims) { /* shape arithmetic that came out constant */
        n = tensor->n_value_dims;
        bool known = n <= most;
        for (size_t k = 0; known && k < n; k++) {
            known = tensor->value_dims[k].kind == QN_DIM_CONST;
            out[k] = tensor->value_dims[k].value;
        }
        if (known) {
            *count = n;
            return QN_OK;
        }
    }
    if (!values)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "\"%s\" is not constant", tensor->name);
    if (n > most)
        return qn__mnn_fail(r, error, QN_CORRUPT, "\"%s\" has %zu values, %zu is the most",
                            tensor->name, n, most);
    if (n > 0)
        memcpy(out, values, n * sizeof(*out));
    *count = n;
    return QN_OK;
}

qn_status qn__mnn_axis(const qn_mnn_reader *r, int64_t *axis, size_t rank, qn_error *error)
{
    const int64_t given = *axis;
    const int64_t found = given < 0 ? given + (int64_t)rank : given;
    if (found < 0 || found >= (int64_t)rank)
        return qn__mnn_fail(r, error, QN_CORRUPT, "axis %" PRId64 " of a tensor of rank %zu", given,
                            rank);
    *axis = found;
    return QN_OK;
}

/* --- constants --------------------------------------------------------------------------------*/
static qn_tensor *constant(qn_mnn_reader *r, const char *what, qn_dtype dtype, size_t rank,
                           const int64_t *dims, qn_blob *blob)
{
    const char *name = qn__arena_printf(&r->graph->arena, "%s:%s", r->name, what);
    qn_tensor *tensor =
        blob && name
            ? qn__graph_add_constant(r->graph, name, qn_type_plain_make(dtype), rank, dims, blob)
            : NULL;
    qn__blob_unref(blob);
    return tensor;
}

qn_tensor *qn__mnn_ints_constant(qn_mnn_reader *r, const char *what, const int64_t *values,
                                 size_t count)
{
    const int64_t dims[1] = {(int64_t)count};
    return constant(r, what, QN_DTYPE_I64, 1, dims,
                    qn__blob_copy(r->graph->ctx, values, count * sizeof(*values)));
}

qn_tensor *qn__mnn_int_constant(qn_mnn_reader *r, const char *what, int64_t value)
{
    return constant(r, what, QN_DTYPE_I64, 0, NULL,
                    qn__blob_copy(r->graph->ctx, &value, sizeof(value)));
}

qn_tensor *qn__mnn_float_constant(qn_mnn_reader *r, const char *what, float value)
{
    return constant(r, what, QN_DTYPE_F32, 0, NULL,
                    qn__blob_copy(r->graph->ctx, &value, sizeof(value)));
}

qn_tensor *qn__mnn_floats_constant(qn_mnn_reader *r, const char *what, const float *values,
                                   size_t rank, const int64_t *dims)
{
    size_t count, bytes;
    if (!qn_shape_count(&count, dims, rank) || !qn_mul_size(&bytes, count, sizeof(*values)))
        return NULL;
    return constant(r, what, QN_DTYPE_F32, rank, dims, qn__blob_copy(r->graph->ctx, values, bytes));
}

qn_status qn__mnn_vector_constant(qn_mnn_reader *r, const qn_fb_object *object, uint32_t slot,
                                  const char *what, size_t rank, const int64_t *dims,
                                  qn_tensor **out, qn_error *error)
{
    size_t count, wanted;
    const uint8_t *bytes = qn__fb_bytes(object, slot, &count);
    if (!qn_shape_count(&wanted, dims, rank) || wanted != count)
        return qn__mnn_fail(r, error, QN_CORRUPT, "\"%s\" has %zu values, which do not fit",
                            qn__mnn_schema.records[object->record].fields[slot].name, count);
    qn_blob *blob =
        count == 0 ? qn__blob_create(r->graph->ctx, 0, NULL)
                   : qn__blob_slice(r->doc->file, (size_t)(bytes - r->doc->file->data), count * 4);
    *out = constant(r, what, QN_DTYPE_F32, rank, dims, blob);
    return *out ? QN_OK : QN_NOMEM(error);
}

/* --- nodes ------------------------------------------------------------------------------------*/
static qn_node *add_node(qn_mnn_reader *r, qn_op op, const char *name, qn_tensor *const *inputs,
                         size_t n_inputs, size_t n_outputs)
{
    qn_graph *graph = r->graph;
    const char *temporary =
        qn__arena_printf(&graph->arena, "%s:%s_output", r->name, qn__op_name(op));
    while (n_inputs > 0 && !inputs[n_inputs - 1])
        n_inputs--;
    qn_node *node = temporary && name ? qn__graph_add_node(graph, SIZE_MAX, op, name,
                                                           (uint32_t)n_inputs, (uint32_t)n_outputs)
                                      : NULL;
    uint32_t *sources = qn__arena_calloc(&graph->arena, 1, sizeof(*sources));
    if (!node || !sources)
        return NULL;
    sources[0] = (uint32_t)r->index;
    node->sources = sources;
    node->n_sources = 1;
    for (size_t i = 0; i < n_inputs; i++)
        node->inputs[i] = inputs[i];
    for (size_t i = 0; i < n_outputs; i++) {
        qn_tensor *out = qn__graph_add_tensor(graph, temporary, qn_type_plain_make(QN_DTYPE_NONE));
        if (!out)
            return NULL;
        qn__node_set_output(node, (uint32_t)i, out);
    }
    return node;
}

qn_node *qn__mnn_side_node(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, size_t n_inputs)
{
    return add_node(r, op, qn__arena_printf(&r->graph->arena, "%s:%s", r->name, qn__op_name(op)),
                    inputs, n_inputs, 1);
}

qn_node *qn__mnn_node_outputs(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, size_t n_inputs,
                              size_t n_outputs)
{
    const char *name =
        r->named ? qn__arena_printf(&r->graph->arena, "%s:%s", r->name, qn__op_name(op)) : r->name;
    r->named = true;
    return add_node(r, op, name, inputs, n_inputs, n_outputs);
}

qn_node *qn__mnn_node(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, size_t n_inputs)
{
    return qn__mnn_node_outputs(r, op, inputs, n_inputs, 1);
}

qn_status qn__mnn_infer(qn_mnn_reader *r, qn_node *node, qn_error *error)
{
    if (!node)
        return QN_NOMEM(error);
    return qn__node_infer(r->graph, node, error);
}

static qn_status finish(qn_mnn_reader *r, qn_node *node, qn_tensor **out, qn_error *error)
{
    QN_TRY(qn__mnn_infer(r, node, error));
    *out = node->outputs[0];
    return QN_OK;
}

qn_status qn__mnn_op1(qn_mnn_reader *r, qn_op op, qn_tensor *a, qn_tensor **out, qn_error *error)
{
    return finish(r, qn__mnn_node(r, op, &a, 1), out, error);
}

qn_status qn__mnn_op2(qn_mnn_reader *r, qn_op op, qn_tensor *a, qn_tensor *b, qn_tensor **out,
                      qn_error *error)
{
    if (!a || !b)
        return QN_NOMEM(error);
    return finish(r, qn__mnn_node(r, op, (qn_tensor *[]){a, b}, 2), out, error);
}

qn_status qn__mnn_op3(qn_mnn_reader *r, qn_op op, qn_tensor *a, qn_tensor *b, qn_tensor *c,
                      qn_tensor **out, qn_error *error)
{
    if (!a || !b || !c)
        return QN_NOMEM(error);
    return finish(r, qn__mnn_node(r, op, (qn_tensor *[]){a, b, c}, 3), out, error);
}

static qn_status transpose(qn_mnn_reader *r, qn_node *node, const int64_t *perm, size_t rank,
                           qn_tensor **out, qn_error *error)
{
    if (!node || !qn__node_set_ints(r->graph, node, "perm", perm, rank))
        return QN_NOMEM(error);
    return finish(r, node, out, error);
}

qn_status qn__mnn_transpose(qn_mnn_reader *r, qn_tensor *x, const int64_t *perm, size_t rank,
                            qn_tensor **out, qn_error *error)
{
    return transpose(r, qn__mnn_node(r, QN_OP_TRANSPOSE, &x, 1), perm, rank, out, error);
}

qn_status qn__mnn_reshape(qn_mnn_reader *r, qn_tensor *x, const int64_t *dims, size_t rank,
                          qn_tensor **out, qn_error *error)
{
    return qn__mnn_op2(r, QN_OP_RESHAPE, x, qn__mnn_ints_constant(r, "shape", dims, rank), out,
                       error);
}

qn_status qn__mnn_cast(qn_mnn_reader *r, qn_tensor *x, qn_dtype to, qn_tensor **out,
                       qn_error *error)
{
    static const struct {
        qn_dtype dtype;
        int64_t onnx;
    } CODES[] = {{QN_DTYPE_F32, 1}, {QN_DTYPE_U8, 2},   {QN_DTYPE_I8, 3},
                 {QN_DTYPE_I64, 7}, {QN_DTYPE_BOOL, 9}, {QN_DTYPE_F16, 10}};
    if (x->type.dtype == to) {
        *out = x;
        return QN_OK;
    }
    int64_t code = 0;
    for (size_t i = 0; i < sizeof(CODES) / sizeof(CODES[0]); i++)
        if (CODES[i].dtype == to)
            code = CODES[i].onnx;
    qn_node *node = qn__mnn_node(r, QN_OP_CAST, &x, 1);
    if (!node || !qn__node_set_int(r->graph, node, "to", code))
        return QN_NOMEM(error);
    return finish(r, node, out, error);
}

qn_status qn__mnn_clip(qn_mnn_reader *r, qn_tensor *x, float low, float high, qn_tensor **out,
                       qn_error *error)
{
    return qn__mnn_op3(r, QN_OP_CLIP, x, qn__mnn_float_constant(r, "min", low),
                       qn__mnn_float_constant(r, "max", high), out, error);
}

qn_status qn__mnn_slice(qn_mnn_reader *r, qn_tensor *x, int64_t axis, int64_t begin, int64_t end,
                        qn_tensor **out, qn_error *error)
{
    qn_tensor *inputs[4] = {x, qn__mnn_ints_constant(r, "starts", &begin, 1),
                            qn__mnn_ints_constant(r, "ends", &end, 1),
                            qn__mnn_ints_constant(r, "axes", &axis, 1)};
    if (!inputs[1] || !inputs[2] || !inputs[3])
        return QN_NOMEM(error);
    return finish(r, qn__mnn_node(r, QN_OP_SLICE, inputs, 4), out, error);
}

/* Moves the channels of x to axis 1 or to the end. */
static qn_status move_channels(qn_mnn_reader *r, qn_tensor *x, bool last, qn_tensor **out,
                               qn_error *error)
{
    QN_TRY(qn__mnn_need_rank(r, x, 0, QN_MAX_RANK, error));
    const int64_t rank = x->rank;
    int64_t perm[QN_MAX_RANK] = {0};
    if (rank <= 2) { /* N and C alone stay */
        *out = x;
        return QN_OK;
    }
    for (int64_t i = 1; i < rank; i++)
        perm[i] = last ? i + 1 : i - 1;
    if (last)
        perm[rank - 1] = 1;
    else
        perm[1] = rank - 1;
    return transpose(r, qn__mnn_side_node(r, QN_OP_TRANSPOSE, &x, 1), perm, (size_t)rank, out,
                     error);
}

qn_status qn__mnn_to_nchw(qn_mnn_reader *r, qn_tensor *x, int64_t format, qn_tensor **out,
                          qn_error *error)
{
    if (qn_mnn_is_nhwc(format))
        return move_channels(r, x, false, out, error);
    *out = x;
    return QN_OK;
}

qn_status qn__mnn_from_nchw(qn_mnn_reader *r, qn_tensor *x, int64_t format, qn_tensor **out,
                            qn_error *error)
{
    if (qn_mnn_is_nhwc(format))
        return move_channels(r, x, true, out, error);
    *out = x;
    return QN_OK;
}

/* dims: 0 is the size that it has. */
static qn_status view_as(qn_mnn_reader *r, qn_tensor *x, const int64_t *dims, size_t rank,
                         qn_tensor **out, qn_error *error)
{
    qn_tensor *shape = qn__mnn_ints_constant(r, "shape", dims, rank);
    qn_node *node = qn__mnn_side_node(r, QN_OP_RESHAPE, (qn_tensor *[]){x, shape}, 2);
    if (!shape)
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    *out = node->outputs[0];
    return QN_OK;
}

qn_status qn__mnn_to_plane(qn_mnn_reader *r, qn_tensor **out, qn_error *error)
{
    static const int64_t PLANE[4] = {0, 0, 0, 1};
    const int64_t format = qn__mnn_in_format(r, 0);
    qn_tensor *x = qn__mnn_in(r, 0);
    QN_TRY(qn__mnn_need_rank(r, x, qn_mnn_is_nhwc(format) ? 4 : 3, 4, error));
    return x->rank == 3 ? view_as(r, x, PLANE, 4, out, error)
                        : qn__mnn_to_nchw(r, x, format, out, error);
}

qn_status qn__mnn_from_plane(qn_mnn_reader *r, qn_tensor *x, qn_tensor **out, qn_error *error)
{
    static const int64_t LINE[3] = {0, 0, 0};
    return qn__mnn_in(r, 0)->rank == 3
               ? view_as(r, x, LINE, 3, out, error)
               : qn__mnn_from_nchw(r, x, qn__mnn_in_format(r, 0), out, error);
}

/* --- outputs ----------------------------------------------------------------------------------*/
static bool made_here(const qn_mnn_reader *r, const qn_tensor *tensor)
{
    return tensor->producer && tensor->source < 0 && tensor->producer->sources[0] == r->index;
}

static bool rename_tensor(qn_graph *graph, qn_tensor *tensor, const char *name)
{
    if (strcmp(tensor->name, name) == 0)
        return true;
    qn_name_table *table = &graph->names->tensors;
    const char *unique = qn__names_unique(table, &graph->arena, name);
    if (!unique || !qn__names_put(graph->ctx, table, unique, tensor))
        return false;
    qn__names_remove(table, tensor->name);
    tensor->name = unique;
    return true;
}

qn_status qn__mnn_put(qn_mnn_reader *r, size_t i, qn_tensor *tensor, int64_t format,
                      qn_error *error)
{
    if (!tensor)
        return QN_NOMEM(error);
    const int64_t id = qn__fb_int_at(r->doc, r->op, QN_MNN_Op_outputIndexes, i);
    const char *name = qn__fb_string_at(r->doc->root, QN_MNN_Net_tensorName, (size_t)id);
    char made[64];
    if (!name || name[0] == '\0') {
        snprintf(made, sizeof(made), "tensor%" PRId64, id);
        name = made;
    }
    /* An input and a constant made for this operator are its output as they are. */
    const bool own = !tensor->producer && tensor->source < 0;
    if (!own && !made_here(r, tensor))
        QN_TRY(qn__mnn_op1(r, QN_OP_IDENTITY, tensor, &tensor, error));
    if (!rename_tensor(r->graph, tensor, name))
        return QN_NOMEM(error);
    tensor->source = (int32_t)id;
    r->values[id] = (qn_mnn_value){tensor, format};
    return QN_OK;
}

qn_status qn__mnn_put_like(qn_mnn_reader *r, qn_tensor *tensor, qn_error *error)
{
    return qn__mnn_put(r, 0, tensor, qn__mnn_in_format(r, 0), error);
}
