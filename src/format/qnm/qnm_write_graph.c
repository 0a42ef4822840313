/* The graph section. Strings are collected while the rest is written and go in front of it. */
#include "format/qnm/qnm_write.h"

#include "ir/names.h"

#include <string.h>

typedef struct writer {
    const qn_graph *graph;
    bool strip_names;
    qn_qnm_constants *constants;
    qn_error *error;
    qn_strbuf strings, body;
    uint32_t n_strings;
    qn_name_table known; /* string to its index + 1 */
    uint32_t *ids;       /* new id of a tensor, or QN_QNM_ABSENT */
    const qn_tensor **tensors;
    uint32_t n_tensors, n_named; /* the first n_named are inputs and outputs */
    uint8_t types[QN_DTYPE_COUNT];
    uint16_t ops[QN_OP_COUNT];
    bool failed; /* out of memory */
} writer;

#define FAIL(w, ...) QN_FAIL((w)->error, QN_UNSUPPORTED, __VA_ARGS__)

static void put(writer *w, uint64_t value, size_t bytes)
{
    qn_qnm_append(&w->body, value, bytes);
}

static void put_f32(writer *w, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    put(w, bits, 4);
}

static void put_string(writer *w, const char *text)
{
    const void *const seen = qn__names_get(&w->known, text);
    if (seen != NULL) {
        put(w, (uintptr_t)seen - 1, 4);
        return;
    }
    const size_t length = strlen(text);
    put(w, w->n_strings, 4);
    qn_qnm_append(&w->strings, length, 4);
    qn__strbuf_append(&w->strings, text, length);
    w->n_strings++;
    if (!qn__names_put(w->graph->ctx, &w->known, text, (void *)(uintptr_t)w->n_strings))
        w->failed = true;
}

/* --- which tensors, and their order ----------------------------------------------------------- */
static void number(writer *w, const qn_tensor *tensor)
{
    if (tensor == NULL || w->ids[tensor->id] != QN_QNM_ABSENT)
        return;
    w->ids[tensor->id] = w->n_tensors;
    w->tensors[w->n_tensors++] = tensor;
}

/* Inputs and outputs come first: whoever reads gets their names before any that is made up. */
static qn_status number_all(writer *w)
{
    const qn_graph *const graph = w->graph;
    w->ids = qn__calloc(graph->ctx, graph->n_tensors + 1, sizeof(*w->ids));
    w->tensors = qn__calloc(graph->ctx, graph->n_tensors + 1, sizeof(*w->tensors));
    if (w->ids == NULL || w->tensors == NULL)
        return QN_NOMEM(w->error);
    memset(w->ids, 0xFF, (graph->n_tensors + 1) * sizeof(*w->ids));
    for (size_t i = 0; i < graph->n_inputs; i++)
        number(w, graph->inputs[i]);
    for (size_t i = 0; i < graph->n_outputs; i++)
        number(w, graph->outputs[i]);
    w->n_named = w->n_tensors;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *const node = graph->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs; k++)
            number(w, node->inputs[k]);
        for (uint32_t k = 0; k < node->n_outputs; k++)
            number(w, node->outputs[k]);
    }
    return QN_OK;
}

/* --- tables of types and operators ------------------------------------------------------------ */
static void mark_types(const writer *w, bool types[QN_DTYPE_COUNT], bool ops[QN_OP_COUNT])
{
    for (uint32_t i = 0; i < w->n_tensors; i++)
        types[w->tensors[i]->type.dtype] = true;
    for (size_t i = 0; i < w->graph->n_nodes; i++) {
        const qn_node *const node = w->graph->nodes[i];
        ops[node->op] = true;
        for (uint32_t a = 0; a < node->n_attrs; a++)
            if (node->attrs[a].kind == QN_ATTR_TENSOR)
                types[node->attrs[a].t_dtype] = true;
    }
}

static void put_tables(writer *w)
{
    bool types[QN_DTYPE_COUNT] = {0}, ops[QN_OP_COUNT] = {0};
    uint32_t n_types = 0, n_ops = 0;
    mark_types(w, types, ops);
    for (int i = QN_DTYPE_NONE + 1; i < QN_DTYPE_COUNT; i++)
        if (types[i])
            w->types[i] = (uint8_t)n_types++;
    put(w, n_types, 4);
    for (int i = QN_DTYPE_NONE + 1; i < QN_DTYPE_COUNT; i++)
        if (types[i])
            put_string(w, qn__dtype_name((qn_dtype)i));
    for (int i = QN_OP_NONE + 1; i < QN_OP_COUNT; i++)
        if (ops[i])
            w->ops[i] = (uint16_t)n_ops++;
    put(w, n_ops, 4);
    for (int i = QN_OP_NONE + 1; i < QN_OP_COUNT; i++) {
        if (!ops[i])
            continue;
        put_string(w, qn__op_domain((qn_op)i));
        put_string(w, qn__op_name((qn_op)i));
    }
}

/* --- tensors ---------------------------------------------------------------------------------- */
static void put_data(writer *w, const qn_blob *blob, qn_dtype dtype)
{
    put(w, qn__qnm_constant_place(w->constants, blob, qn__dtype_bits(dtype) / 8), 8);
    put(w, blob->size_bytes, 8);
}

static qn_status put_quant(writer *w, const qn_tensor *tensor)
{
    const qn_quant *const q = tensor->type.quant;
    if (q->n_scales > UINT32_MAX || q->n_codebook > UINT32_MAX)
        FAIL(w, "tensor \"%s\" has %zu scales", tensor->name, q->n_scales);
    put(w, q->bits, 1);
    put(w, q->is_signed, 1);
    put(w, (uint8_t)q->axis, 1);
    put(w,
        (q->scales != NULL ? QN_QNM_QUANT_SCALES : 0u) |
            (q->zero_points != NULL ? QN_QNM_QUANT_ZEROS : 0u),
        1);
    put(w, (uint64_t)q->block, 8);
    put(w, (uint32_t)q->qmin, 4);
    put(w, (uint32_t)q->qmax, 4);
    put(w, q->n_scales, 4);
    put(w, q->n_codebook, 4);
    for (size_t i = 0; q->scales != NULL && i < q->n_scales; i++)
        put_f32(w, q->scales[i]);
    for (size_t i = 0; q->zero_points != NULL && i < q->n_scales; i++)
        put(w, (uint32_t)q->zero_points[i], 4);
    for (size_t i = 0; i < q->n_codebook; i++)
        put_f32(w, q->codebook[i]);
    return QN_OK;
}

static qn_status put_tensor(writer *w, uint32_t index)
{
    const qn_tensor *const t = w->tensors[index];
    int64_t dims[QN_MAX_RANK];
    if (!qn__tensor_static_dims(t, dims))
        FAIL(w, "tensor \"%s\": its shape is not known before running", t->name);
    if (t->type.dtype == QN_DTYPE_NONE)
        FAIL(w, "tensor \"%s\" has no known type", t->name);
    put_string(w, w->strip_names && index >= w->n_named ? "" : t->name);
    put(w, t->type.kind, 1);
    put(w, w->types[t->type.dtype], 1);
    put(w, t->rank, 1);
    put(w, t->constant != NULL ? QN_QNM_TENSOR_CONSTANT : 0, 1);
    for (size_t i = 0; i < t->rank; i++)
        put(w, (uint64_t)dims[i], 8);
    if (t->type.kind != QN_TYPE_PLAIN)
        QN_TRY(put_quant(w, t));
    if (t->constant != NULL)
        put_data(w, t->constant, t->type.dtype);
    return QN_OK;
}

static void put_list(writer *w, qn_tensor *const *list, size_t count)
{
    put(w, count, 4);
    for (size_t i = 0; i < count; i++)
        put(w, w->ids[list[i]->id], 4);
}

/* --- nodes ------------------------------------------------------------------------------------ */
static qn_status put_attr(writer *w, const qn_node *node, const qn_attr *a)
{
    if (a->count > UINT32_MAX)
        FAIL(w, "node \"%s\": attribute \"%s\" has %zu values", node->name, a->name, a->count);
    put_string(w, a->name);
    put(w, a->kind, 1);
    if (a->kind == QN_ATTR_FLOATS || a->kind == QN_ATTR_INTS || a->kind == QN_ATTR_STRINGS)
        put(w, a->count, 4);
    switch (a->kind) {
    case QN_ATTR_FLOAT:
        put_f32(w, a->f);
        break;
    case QN_ATTR_INT:
        put(w, (uint64_t)a->i, 8);
        break;
    case QN_ATTR_STRING:
        put_string(w, a->s);
        break;
    case QN_ATTR_TENSOR:
        put(w, w->types[a->t_dtype], 1);
        put(w, a->t_rank, 1);
        for (size_t i = 0; i < a->t_rank; i++)
            put(w, (uint64_t)a->t_dims[i], 8);
        put_data(w, a->t, a->t_dtype);
        break;
    case QN_ATTR_FLOATS:
        for (size_t i = 0; i < a->count; i++)
            put_f32(w, a->floats[i]);
        break;
    case QN_ATTR_INTS:
        for (size_t i = 0; i < a->count; i++)
            put(w, (uint64_t)a->ints[i], 8);
        break;
    case QN_ATTR_STRINGS:
        for (size_t i = 0; i < a->count; i++)
            put_string(w, a->strings[i]);
        break;
    default:
        break; /* opaque ones are not counted */
    }
    return QN_OK;
}

static qn_status put_node(writer *w, const qn_node *node)
{
    uint32_t n_attrs = 0;
    for (uint32_t i = 0; i < node->n_attrs; i++)
        n_attrs += node->attrs[i].kind != QN_ATTR_OPAQUE;
    if (node->n_inputs > UINT16_MAX || node->n_outputs > UINT16_MAX || n_attrs > UINT16_MAX)
        FAIL(w, "node \"%s\" has %u inputs, %u outputs and %u attributes", node->name,
             node->n_inputs, node->n_outputs, n_attrs);
    put_string(w, w->strip_names ? "" : node->name);
    put(w, w->ops[node->op], 2);
    put(w, node->n_inputs, 2);
    put(w, node->n_outputs, 2);
    put(w, n_attrs, 2);
    put(w, node->act, 1);
    for (uint32_t i = 0; i < node->n_inputs; i++)
        put(w, node->inputs[i] != NULL ? w->ids[node->inputs[i]->id] : QN_QNM_ABSENT, 4);
    for (uint32_t i = 0; i < node->n_outputs; i++)
        put(w, node->outputs[i] != NULL ? w->ids[node->outputs[i]->id] : QN_QNM_ABSENT, 4);
    if (node->act == QN_ACT_CLIP) {
        put_f32(w, node->act_lo);
        put_f32(w, node->act_hi);
    }
    if (node->act != QN_ACT_NONE)
        put_string(w, w->strip_names || node->act_name == NULL ? "" : node->act_name);
    for (uint32_t i = 0; i < node->n_attrs; i++)
        if (node->attrs[i].kind != QN_ATTR_OPAQUE)
            QN_TRY(put_attr(w, node, &node->attrs[i]));
    return QN_OK;
}

/* --- whole ------------------------------------------------------------------------------------ */
static qn_status put_all(writer *w)
{
    const qn_graph *const graph = w->graph;
    QN_TRY(number_all(w));
    put_string(w, "quench " QN_VERSION_STRING);
    put_string(w, graph->name != NULL ? graph->name : "");
    put(w, (uint64_t)graph->opset, 8);
    put_tables(w);
    put(w, w->n_tensors, 4);
    for (uint32_t i = 0; i < w->n_tensors; i++)
        QN_TRY(put_tensor(w, i));
    put_list(w, graph->inputs, graph->n_inputs);
    put_list(w, graph->outputs, graph->n_outputs);
    put(w, graph->n_nodes, 4);
    for (size_t i = 0; i < graph->n_nodes; i++)
        QN_TRY(put_node(w, graph->nodes[i]));
    return QN_OK;
}

qn_status qn__qnm_write_graph(const qn_graph *graph, bool strip_names, qn_qnm_constants *constants,
                              qn_strbuf *out, qn_error *error)
{
    writer w = {.graph = graph, .strip_names = strip_names, .constants = constants, .error = error};
    qn__strbuf_init(&w.strings, graph->ctx, UINT32_MAX);
    qn__strbuf_init(&w.body, graph->ctx, UINT32_MAX);
    qn_status status = put_all(&w);
    if (status == QN_OK) {
        qn_qnm_append(out, w.n_strings, 4);
        qn__strbuf_append(out, w.strings.data, w.strings.length);
        qn__strbuf_append(out, w.body.data, w.body.length);
        if (w.failed || w.strings.failed || w.body.failed || out->failed)
            status = QN_NOMEM(error);
    }
    qn__strbuf_free(&w.strings);
    qn__strbuf_free(&w.body);
    qn__names_free(graph->ctx, &w.known);
    qn__free(graph->ctx, w.ids);
    qn__free(graph->ctx, w.tensors);
    return status;
}
