/* The graph section: strings, names of types and operators, tensors, inputs, outputs, nodes. */
#include "format/qnm/qnm_read.h"

#include "core/context.h"

typedef struct reader {
    qn_graph *graph;
    qn_blob *bytes;
    const qn_qnm_layout *layout;
    qn_qnm_cursor in;
    qn_error *error;
    size_t n_strings, n_types, n_ops;
    const char **strings; /* in the graph's arena, as the rest */
    qn_dtype *types;
    qn_op *ops;
} reader;

/* Smallest records, so that a count is checked before memory is asked for. */
enum { TENSOR_BYTES = 8, NODE_BYTES = 14, ATTR_BYTES = 9 };
/* Tensors of a graph against the limit on nodes. */
enum { TENSORS_PER_NODE = 8 };

#define FAIL(r, status, format, ...)                                                               \
    return qn__error_set((r)->error, (status), "%s: " format, (r)->graph->file, __VA_ARGS__)
#define FAIL_IF(cond, r, status, ...)                                                              \
    do {                                                                                           \
        if (cond)                                                                                  \
            FAIL(r, status, __VA_ARGS__);                                                          \
    } while (0)

static qn_status cut_off(reader *r, const char *what, size_t index)
{
    FAIL(r, QN_CORRUPT, "the graph section ends in %s %zu", what, index);
}

static void *new_array(reader *r, size_t count, size_t bytes)
{
    return qn__arena_calloc(&r->graph->arena, count + 1, bytes);
}

/* --- tables ----------------------------------------------------------------------------------- */
static qn_status read_strings(reader *r)
{
    const size_t count = qn_qnm_u32(&r->in);
    if (!qn_qnm_fits(&r->in, count, 4))
        return cut_off(r, "the table of strings, of length", count);
    r->strings = new_array(r, count, sizeof(*r->strings));
    if (r->strings == NULL)
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < count; i++) {
        const size_t length = qn_qnm_u32(&r->in);
        const uint8_t *const text = qn_qnm_take(&r->in, length);
        if (text == NULL)
            return cut_off(r, "string", i);
        FAIL_IF(memchr(text, 0, length) != NULL, r, QN_CORRUPT, "string %zu holds a zero byte", i);
        r->strings[i] = qn__arena_strndup(&r->graph->arena, (const char *)text, length);
        if (r->strings[i] == NULL)
            return QN_NOMEM(r->error);
    }
    r->n_strings = count;
    return QN_OK;
}

static qn_status read_string(reader *r, const char *what, size_t index, const char **out)
{
    const uint32_t at = qn_qnm_u32(&r->in);
    if (r->in.failed)
        return cut_off(r, what, index);
    FAIL_IF(at >= r->n_strings, r, QN_CORRUPT, "%s %zu names string %u of %zu", what, index, at,
            r->n_strings);
    *out = r->strings[at];
    return QN_OK;
}

static qn_dtype find_type(const char *name)
{
    for (int i = QN_DTYPE_NONE + 1; i < QN_DTYPE_COUNT; i++)
        if (strcmp(qn__dtype_name((qn_dtype)i), name) == 0)
            return (qn_dtype)i;
    return QN_DTYPE_NONE;
}

static qn_status read_types(reader *r)
{
    const size_t count = qn_qnm_u32(&r->in);
    if (!qn_qnm_fits(&r->in, count, 4))
        return cut_off(r, "the table of types, of length", count);
    r->types = new_array(r, count, sizeof(*r->types));
    if (r->types == NULL)
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < count; i++) {
        const char *name;
        QN_TRY(read_string(r, "type", i, &name));
        r->types[i] = find_type(name);
        FAIL_IF(r->types[i] == QN_DTYPE_NONE, r, QN_UNSUPPORTED, "unknown element type \"%s\"",
                name);
    }
    r->n_types = count;
    return QN_OK;
}

static qn_status read_ops(reader *r)
{
    const size_t count = qn_qnm_u32(&r->in);
    if (!qn_qnm_fits(&r->in, count, 8))
        return cut_off(r, "the table of operators, of length", count);
    r->ops = new_array(r, count, sizeof(*r->ops));
    if (r->ops == NULL)
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < count; i++) {
        const char *domain, *name;
        QN_TRY(read_string(r, "operator", i, &domain));
        QN_TRY(read_string(r, "operator", i, &name));
        r->ops[i] = qn__op_find(domain, name);
        FAIL_IF(r->ops[i] == QN_OP_NONE, r, QN_UNSUPPORTED, "unknown operator \"%s%s%s\"", domain,
                domain[0] != '\0' ? "." : "", name);
    }
    r->n_ops = count;
    return QN_OK;
}

/* --- tensors ---------------------------------------------------------------------------------- */
static const int64_t *read_i64s(reader *r, size_t count)
{
    int64_t *const out = new_array(r, count, sizeof(*out));
    for (size_t i = 0; out != NULL && i < count; i++)
        out[i] = (int64_t)qn_qnm_u64(&r->in);
    return out;
}

static const float *read_f32s(reader *r, size_t count)
{
    float *const out = new_array(r, count, sizeof(*out));
    for (size_t i = 0; out != NULL && i < count; i++)
        out[i] = qn_qnm_f32(&r->in);
    return out;
}

/* A slice of the data section; on a big-endian host a copy in its order. */
static qn_status read_data(reader *r, const char *name, qn_dtype dtype, qn_blob **out)
{
    const uint64_t offset = qn_qnm_u64(&r->in), length = qn_qnm_u64(&r->in);
    const qn_qnm_range data = r->layout->data;
    const size_t element = qn__dtype_bits(dtype) / 8;
    FAIL_IF(r->in.failed || offset % QN_QNM_ALIGN != 0 || offset > data.bytes ||
                length > data.bytes - offset,
            r, QN_CORRUPT, "constant \"%s\" has bytes %llu + %llu of %zu", name,
            (unsigned long long)offset, (unsigned long long)length, data.bytes);
    FAIL_IF(length > r->graph->ctx->limits.tensor_bytes, r, QN_LIMIT,
            "constant \"%s\" has %llu bytes, more than the limit of %llu", name,
            (unsigned long long)length, (unsigned long long)r->graph->ctx->limits.tensor_bytes);
    if (QN_QNM_SWAP && element > 1) {
        void *copy;
        const size_t whole = (size_t)length / element * element;
        *out = qn__blob_create(r->graph->ctx, whole, &copy);
        if (*out != NULL)
            qn_qnm_swap(copy, r->bytes->data + data.offset + offset, whole, element);
    } else {
        *out = qn__blob_slice(r->bytes, data.offset + (size_t)offset, (size_t)length);
    }
    return *out != NULL ? QN_OK : QN_NOMEM(r->error);
}

static qn_status read_quant(reader *r, size_t index, const qn_quant **out)
{
    qn_qnm_cursor *const in = &r->in;
    qn_quant *const q = new_array(r, 1, sizeof(*q));
    if (q == NULL)
        return QN_NOMEM(r->error);
    q->bits = qn_qnm_u8(in);
    q->is_signed = qn_qnm_u8(in) != 0;
    q->axis = (int8_t)qn_qnm_u8(in);
    const uint8_t flags = qn_qnm_u8(in);
    q->block = (int64_t)qn_qnm_u64(in);
    q->qmin = (int32_t)qn_qnm_u32(in);
    q->qmax = (int32_t)qn_qnm_u32(in);
    q->n_scales = qn_qnm_u32(in);
    q->n_codebook = qn_qnm_u32(in);
    const bool scales = (flags & QN_QNM_QUANT_SCALES) != 0, zeros = flags & QN_QNM_QUANT_ZEROS;
    if (!qn_qnm_fits(in, (scales || zeros) ? q->n_scales : 0, 4) ||
        !qn_qnm_fits(in, q->n_codebook, 4))
        return cut_off(r, "tensor", index);
    bool ok = true;
    if (scales)
        ok = (q->scales = read_f32s(r, q->n_scales)) != NULL;
    if (ok && zeros) {
        int32_t *const values = new_array(r, q->n_scales, sizeof(*values));
        for (size_t i = 0; values != NULL && i < q->n_scales; i++)
            values[i] = (int32_t)qn_qnm_u32(in);
        ok = (q->zero_points = values) != NULL;
    }
    if (ok && q->n_codebook > 0)
        ok = (q->codebook = read_f32s(r, q->n_codebook)) != NULL;
    *out = q;
    return ok ? QN_OK : QN_NOMEM(r->error);
}

static qn_status read_tensor(reader *r, size_t index)
{
    qn_qnm_cursor *const in = &r->in;
    const char *name;
    QN_TRY(read_string(r, "tensor", index, &name));
    const uint8_t kind = qn_qnm_u8(in), type = qn_qnm_u8(in), rank = qn_qnm_u8(in);
    const uint8_t flags = qn_qnm_u8(in);
    int64_t dims[QN_MAX_RANK];
    FAIL_IF(kind > QN_TYPE_DYNAMIC || type >= r->n_types || rank > QN_MAX_RANK, r, QN_CORRUPT,
            "tensor %zu \"%s\" has type %u of kind %u and rank %u", index, name, type, kind, rank);
    for (size_t i = 0; i < rank; i++)
        dims[i] = (int64_t)qn_qnm_u64(in);
    qn_type t = {(qn_type_kind)kind, r->types[type], NULL};
    qn_blob *data = NULL;
    if (kind != QN_TYPE_PLAIN)
        QN_TRY(read_quant(r, index, &t.quant));
    if (in->failed)
        return cut_off(r, "tensor", index);
    if ((flags & QN_QNM_TENSOR_CONSTANT) != 0)
        QN_TRY(read_data(r, name, t.dtype, &data));
    qn_tensor *const tensor = qn__graph_add_tensor(r->graph, name, t);
    if (tensor == NULL) {
        qn__blob_unref(data);
        return QN_NOMEM(r->error);
    }
    qn__tensor_set_shape(tensor, rank, dims);
    tensor->constant = data; /* its reference */
    return QN_OK;
}

static qn_status read_tensors(reader *r)
{
    const size_t count = qn_qnm_u32(&r->in);
    const uint64_t most = (uint64_t)r->graph->ctx->limits.nodes * TENSORS_PER_NODE;
    if (!qn_qnm_fits(&r->in, count, TENSOR_BYTES))
        return cut_off(r, "the table of tensors, of length", count);
    FAIL_IF(count > most, r, QN_LIMIT, "%zu tensors, more than the limit of %llu", count,
            (unsigned long long)most);
    for (size_t i = 0; i < count; i++)
        QN_TRY(read_tensor(r, i));
    return QN_OK;
}

static qn_status read_tensor_ref(reader *r, const char *what, size_t index, bool optional,
                                 qn_tensor **out)
{
    const uint32_t id = qn_qnm_u32(&r->in);
    if (r->in.failed)
        return cut_off(r, what, index);
    *out = NULL;
    if (optional && id == QN_QNM_ABSENT)
        return QN_OK;
    FAIL_IF(id >= r->graph->n_tensors, r, QN_CORRUPT, "%s %zu names tensor %u of %zu", what, index,
            id, r->graph->n_tensors);
    *out = r->graph->tensors[id];
    return QN_OK;
}

static qn_status read_list(reader *r, const char *what, qn_tensor ***out, size_t *n_out)
{
    const size_t count = qn_qnm_u32(&r->in);
    if (!qn_qnm_fits(&r->in, count, 4))
        return cut_off(r, what, count);
    qn_tensor **const list = new_array(r, count, sizeof(*list));
    if (list == NULL)
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < count; i++)
        QN_TRY(read_tensor_ref(r, what, i, false, &list[i]));
    *out = list;
    *n_out = count;
    return QN_OK;
}

/* --- nodes ------------------------------------------------------------------------------------ */
static qn_status read_attr_tensor(reader *r, const qn_node *node, qn_attr *attr)
{
    const uint8_t type = qn_qnm_u8(&r->in);
    attr->t_rank = qn_qnm_u8(&r->in);
    FAIL_IF(type >= r->n_types || attr->t_rank > QN_MAX_RANK, r, QN_CORRUPT,
            "node \"%s\": attribute \"%s\" has type %u and rank %u", node->name, attr->name, type,
            attr->t_rank);
    attr->t_dtype = r->types[type];
    attr->t_dims = read_i64s(r, attr->t_rank);
    if (attr->t_dims == NULL)
        return QN_NOMEM(r->error);
    return read_data(r, attr->name, attr->t_dtype, &attr->t);
}

static qn_status read_attr_strings(reader *r, qn_attr *attr)
{
    const char **const strings = new_array(r, attr->count, sizeof(*strings));
    if (strings == NULL)
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < attr->count; i++)
        QN_TRY(read_string(r, "string of an attribute", i, &strings[i]));
    attr->strings = strings;
    return QN_OK;
}

static qn_status read_attr(reader *r, const qn_node *node, qn_attr *attr)
{
    qn_qnm_cursor *const in = &r->in;
    QN_TRY(read_string(r, "attribute of node", r->graph->n_nodes - 1, &attr->name));
    const uint8_t kind = qn_qnm_u8(in);
    if (kind == QN_ATTR_FLOATS || kind == QN_ATTR_INTS || kind == QN_ATTR_STRINGS) {
        attr->count = qn_qnm_u32(in);
        if (!qn_qnm_fits(in, attr->count, kind == QN_ATTR_INTS ? 8 : 4))
            return cut_off(r, "an attribute of node", r->graph->n_nodes - 1);
    }
    qn_status status = QN_OK;
    switch (kind) {
    case QN_ATTR_FLOAT:
        attr->f = qn_qnm_f32(in);
        break;
    case QN_ATTR_INT:
        attr->i = (int64_t)qn_qnm_u64(in);
        break;
    case QN_ATTR_STRING:
        status = read_string(r, "an attribute of node", r->graph->n_nodes - 1, &attr->s);
        break;
    case QN_ATTR_TENSOR:
        status = read_attr_tensor(r, node, attr);
        break;
    case QN_ATTR_FLOATS:
        attr->floats = read_f32s(r, attr->count);
        status = attr->floats != NULL ? QN_OK : QN_NOMEM(r->error);
        break;
    case QN_ATTR_INTS:
        attr->ints = read_i64s(r, attr->count);
        status = attr->ints != NULL ? QN_OK : QN_NOMEM(r->error);
        break;
    case QN_ATTR_STRINGS:
        status = read_attr_strings(r, attr);
        break;
    default:
        FAIL(r, QN_UNSUPPORTED, "node \"%s\": attribute \"%s\" is of unknown kind %u", node->name,
             attr->name, kind);
    }
    attr->kind = (qn_attr_kind)kind;
    return status;
}

static qn_status read_act(reader *r, qn_node *node, size_t index)
{
    if (node->act == QN_ACT_NONE)
        return QN_OK;
    if (node->act == QN_ACT_CLIP) {
        node->act_lo = qn_qnm_f32(&r->in);
        node->act_hi = qn_qnm_f32(&r->in);
    }
    const char *name;
    QN_TRY(read_string(r, "node", index, &name));
    node->act_name = name[0] != '\0' ? name : NULL;
    return QN_OK;
}

static qn_status read_node(reader *r, size_t index)
{
    qn_qnm_cursor *const in = &r->in;
    const char *name;
    QN_TRY(read_string(r, "node", index, &name));
    const uint32_t op = qn_qnm_u16(in), n_inputs = qn_qnm_u16(in), n_outputs = qn_qnm_u16(in);
    const uint32_t n_attrs = qn_qnm_u16(in);
    const uint8_t act = qn_qnm_u8(in);
    if (!qn_qnm_fits(in, n_inputs + n_outputs, 4) || !qn_qnm_fits(in, n_attrs, ATTR_BYTES - 4))
        return cut_off(r, "node", index);
    FAIL_IF(op >= r->n_ops || act > QN_ACT_CLIP, r, QN_CORRUPT,
            "node %zu \"%s\" is of operator %u of %zu with activation %u", index, name, op,
            r->n_ops, act);
    qn_node *const node =
        qn__graph_add_node(r->graph, SIZE_MAX, r->ops[op], name, n_inputs, n_outputs);
    if (node == NULL)
        return QN_NOMEM(r->error);
    for (uint32_t i = 0; i < n_inputs; i++)
        QN_TRY(read_tensor_ref(r, "an input of node", index, true, &node->inputs[i]));
    for (uint32_t i = 0; i < n_outputs; i++) {
        qn_tensor *out;
        QN_TRY(read_tensor_ref(r, "an output of node", index, true, &out));
        if (out == NULL)
            continue;
        FAIL_IF(out->producer != NULL, r, QN_CORRUPT,
                "node \"%s\" writes \"%s\", which node \"%s\" makes", node->name, out->name,
                out->producer->name);
        qn__node_set_output(node, i, out);
    }
    node->act = (qn_act)act;
    QN_TRY(read_act(r, node, index));
    node->attrs = new_array(r, n_attrs, sizeof(*node->attrs));
    if (node->attrs == NULL)
        return QN_NOMEM(r->error);
    for (uint32_t i = 0; i < n_attrs; i++) {
        node->n_attrs = i + 1; /* destroy drops its tensor */
        QN_TRY(read_attr(r, node, &node->attrs[i]));
    }
    return in->failed ? cut_off(r, "node", index) : QN_OK;
}

static qn_status read_nodes(reader *r)
{
    const size_t count = qn_qnm_u32(&r->in);
    if (!qn_qnm_fits(&r->in, count, NODE_BYTES - 1))
        return cut_off(r, "the table of nodes, of length", count);
    FAIL_IF(count > r->graph->ctx->limits.nodes, r, QN_LIMIT,
            "%zu nodes, more than the limit of %u", count, r->graph->ctx->limits.nodes);
    for (size_t i = 0; i < count; i++)
        QN_TRY(read_node(r, i));
    return QN_OK;
}

static qn_status read_all(reader *r)
{
    qn_graph *const graph = r->graph;
    const char *producer;
    QN_TRY(read_strings(r));
    QN_TRY(read_string(r, "producer", 0, &producer));
    QN_TRY(read_string(r, "the graph's name", 0, &graph->name));
    graph->opset = (int64_t)qn_qnm_u64(&r->in);
    QN_TRY(read_types(r));
    QN_TRY(read_ops(r));
    QN_TRY(read_tensors(r));
    QN_TRY(read_list(r, "input", &graph->inputs, &graph->n_inputs));
    QN_TRY(read_list(r, "output", &graph->outputs, &graph->n_outputs));
    QN_TRY(read_nodes(r));
    FAIL_IF(r->in.left != 0, r, QN_CORRUPT, "%zu bytes behind the last node", r->in.left);
    return QN_OK;
}

qn_status qn__qnm_read_graph(qn_graph *graph, qn_blob *bytes, const qn_qnm_layout *layout,
                             qn_error *error)
{
    reader r = {.graph = graph, .bytes = bytes, .layout = layout, .error = error};
    r.in = (qn_qnm_cursor){bytes->data + layout->graph.offset, layout->graph.bytes, false};
    return read_all(&r);
}
