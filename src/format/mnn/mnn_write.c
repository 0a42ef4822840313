/* Graph -> .mnn: the source document with what quantization changed.
 *
 * Operators stay as the file has them, in its order. Changed are
 *   - convolutions: weights and bias; where BatchNorm, Scale, ReLU were merged into one, these go
 *     away and the convolution makes their tensor
 *   - additions and the like: the ReLU behind them; Eltwise becomes BinaryOp
 *   - UnaryOp: its table
 *   - the records of tensors (Net.extraTensorDescribe)
 * Operators that passes removed because they change nothing stay, and hand their input's record on.
 * What no output needs any more goes away. A graph in which none of that changed anything is
 * written with the file's own bytes. */
#include "format/mnn/mnn_write.h"

#include <string.h>

#include "core/context.h"
#include "core/io.h"

/* --- looking at operators ---------------------------------------------------------------------*/
int64_t qn__mnn_op_input(const qn_mnn_writer *w, size_t op, size_t i)
{
    size_t n = 0;
    qn__fb_bytes(w->ops[op].object, QN_MNN_Op_inputIndexes, &n);
    return i < n ? qn__fb_int_at(&w->doc, w->ops[op].object, QN_MNN_Op_inputIndexes, i) : -1;
}

int64_t qn__mnn_op_output(const qn_mnn_writer *w, size_t op, size_t i)
{
    size_t n = 0;
    qn__fb_bytes(w->ops[op].object, QN_MNN_Op_outputIndexes, &n);
    return i < n ? qn__fb_int_at(&w->doc, w->ops[op].object, QN_MNN_Op_outputIndexes, i) : -1;
}

int64_t qn__mnn_written_type(const qn_mnn_writer *w, size_t op)
{
    return qn__fb_int(&w->doc, w->ops[op].object, QN_MNN_Op_type);
}

qn_fb_object *qn__mnn_own_op(qn_mnn_writer *w, size_t op)
{
    qn_mnn_written *o = &w->ops[op];
    if (!o->own) {
        qn_fb_object *copy = qn__fb_copy(&w->doc, o->object);
        if (!copy)
            return NULL;
        o->object = copy;
        o->own = true;
    }
    w->changed = true;
    return o->object;
}

const qn_node *qn__mnn_node_of(const qn_mnn_writer *w, size_t op, qn_op type)
{
    for (const qn_node *n = w->ops[op].first; n != NULL; n = w->next_node[n->id])
        if (n->op == type)
            return n;
    return NULL;
}

static qn_status set_index(qn_mnn_writer *w, size_t op, uint32_t slot, int64_t id)
{
    const int32_t value = (int32_t)id;
    qn_fb_object *object = qn__mnn_own_op(w, op);
    if (!object || !qn__fb_set_vector(&w->doc, object, slot, &value, 1))
        return QN_NOMEM(w->error);
    return QN_OK;
}

/* --- the graph's side -------------------------------------------------------------------------*/
static bool is_cast(const qn_node *node)
{
    return node->op == QN_OP_QUANTIZE_LINEAR || node->op == QN_OP_DEQUANTIZE_LINEAR;
}

static qn_status collect_nodes(qn_mnn_writer *w)
{
    const qn_graph *g = w->graph;
    for (size_t i = g->n_nodes; i-- > 0;) { /* backwards: lists come out in the graph's order */
        const qn_node *node = g->nodes[i];
        if (node->n_sources == 0) {
            QN_FAIL_IF(!is_cast(node), w->error, QN_UNSUPPORTED,
                       "%s \"%s\" is not in the .mnn file the model came from and cannot be added "
                       "to it",
                       qn__op_name(node->op), node->name);
            continue;
        }
        QN_FAIL_IF(node->sources[0] >= w->source->n_ops, w->error, QN_INTERNAL,
                   "%s \"%s\" comes from operator %u of %zu", qn__op_name(node->op), node->name,
                   node->sources[0], w->source->n_ops);
        qn_mnn_written *o = &w->ops[node->sources[0]];
        w->next_node[node->id] = o->first;
        o->first = node;
        o->n_nodes++;
    }
    return QN_OK;
}

/* Quantize and Dequantize nodes that quantization added stand between tensors of the same values,
 * of which the file has one. */
static void find_ids(qn_mnn_writer *w)
{
    const qn_graph *g = w->graph;
    for (size_t t = 0; t < g->n_tensors; t++) {
        const int32_t id = g->tensors[t]->source;
        w->id_of[t] = id >= 0 && (size_t)id < w->source->n_tensors ? id : -1;
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const qn_node *node = g->nodes[i];
        if (node->n_sources > 0 || node->inputs[0] == NULL || node->outputs[0] == NULL)
            continue;
        int32_t *in = &w->id_of[node->inputs[0]->id], *out = &w->id_of[node->outputs[0]->id];
        if (*in < 0 && node->op == QN_OP_DEQUANTIZE_LINEAR)
            *in = *out;
        if (*out < 0)
            *out = *in;
    }
}

qn_status qn__mnn_note(qn_mnn_writer *w, int64_t id, const qn_tensor *t)
{
    if (id < 0 || !qn_mnn_is_quant(t))
        return QN_OK;
    const qn_quant *q = t->type.quant;
    QN_FAIL_IF(q->bits != 8 || !q->is_signed || q->n_scales != 1 || q->n_codebook != 0, w->error,
               QN_UNSUPPORTED,
               "tensor \"%s\": MNN's tensors have signed 8-bit values of one scale (target mnn)",
               t->name);
    qn_mnn_record *r = &w->records[id];
    const qn_mnn_record found = {
        true, false, q->scales[0], q->zero_points ? q->zero_points[0] : 0, q->qmin, q->qmax};
    if (r->known && (r->scale != found.scale || r->zero != found.zero))
        r->conflict = true; /* readers that want other parameters requantize for themselves */
    else
        *r = found;
    return QN_OK;
}

static qn_status note_tensors(qn_mnn_writer *w)
{
    const qn_graph *g = w->graph;
    for (size_t i = 0; i < g->n_inputs; i++)
        if (w->id_of[g->inputs[i]->id] >= 0)
            w->in_graph[w->id_of[g->inputs[i]->id]] = 1;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const qn_node *node = g->nodes[i];
        for (uint32_t k = 0; k < node->n_inputs + node->n_outputs; k++) {
            const qn_tensor *t =
                k < node->n_inputs ? node->inputs[k] : node->outputs[k - node->n_inputs];
            const int32_t id = t == NULL ? -1 : w->id_of[t->id];
            if (id < 0)
                continue;
            w->in_graph[id] = 1;
            QN_TRY(qn__mnn_note(w, id, t));
        }
    }
    return QN_OK;
}

/* --- merged operators -------------------------------------------------------------------------*/
static bool has_weights(const qn_node *node)
{
    return node->op == QN_OP_CONV || node->op == QN_OP_CONV_TRANSPOSE;
}

static const qn_node *weights_node(const qn_mnn_writer *w, size_t op)
{
    for (const qn_node *n = w->ops[op].first; n != NULL; n = w->next_node[n->id])
        if (has_weights(n))
            return n;
    return NULL;
}

/* The tensor of the file that the operator's nodes make in the end, starting from this one. */
static int32_t final_id(const qn_mnn_writer *w, size_t op, const qn_tensor *t)
{
    for (const qn_node *n = w->ops[op].first; n != NULL; n = w->next_node[n->id])
        for (uint32_t k = 0; k < n->n_outputs; k++)
            if (n->outputs[k] != NULL && w->id_of[n->outputs[k]->id] >= 0)
                return w->id_of[n->outputs[k]->id];
    return w->id_of[t->id];
}

/* Nobody but the merged node stands for operator `op`. */
static qn_status drop(qn_mnn_writer *w, const qn_node *node, uint32_t op)
{
    QN_FAIL_IF(op >= w->source->n_ops || w->ops[op].n_nodes > 0, w->error, QN_UNSUPPORTED,
               "%s \"%s\": an operator that only a part was merged of cannot be written",
               qn__op_name(node->op), node->name);
    w->ops[op].dropped = true;
    w->changed = true;
    return QN_OK;
}

/* The operator makes tensor `to` now: nobody else does. */
static qn_status make_output(qn_mnn_writer *w, size_t op, int64_t to)
{
    if (qn__mnn_op_output(w, op, 0) == to || to < 0)
        return QN_OK;
    for (size_t i = 0; i < w->source->n_ops; i++)
        if (i != op && qn__mnn_op_output(w, i, 0) == to && w->ops[i].n_nodes == 0)
            w->ops[i].dropped = true;
    return set_index(w, op, QN_MNN_Op_outputIndexes, to);
}

/* Takes the operators that were merged into node into operator `op`. */
static qn_status merge(qn_mnn_writer *w, size_t op, const qn_node *node)
{
    for (uint32_t i = 1; i < node->n_sources; i++)
        if (node->sources[i] != op)
            QN_TRY(drop(w, node, node->sources[i]));
    int64_t out = final_id(w, op, node->outputs[0]);
    bool done = true;
    const bool own = node->act_source == (int32_t)op; /* the operator has it already */
    if (node->act != QN_ACT_NONE && !(own && has_weights(node)))
        QN_TRY(qn__mnn_write_act(w, op, node, &done));
    QN_FAIL_IF(own && !done, w->error, QN_UNSUPPORTED,
               "%s \"%s\": MNN's integers cannot apply its activation at zero point %d",
               qn__op_name(node->op), node->name, node->outputs[0]->type.quant->zero_points[0]);
    if (node->act != QN_ACT_NONE && node->act_source >= 0 && node->act_source != (int32_t)op) {
        if (done)
            QN_TRY(drop(w, node, (uint32_t)node->act_source));
        else
            out = qn__mnn_op_input(w, (size_t)node->act_source, 0); /* it stays behind */
    }
    if (!done)
        QN_TRY(qn__mnn_note(w, out, node->outputs[0]));
    if (node->n_sources > 1 || (node->act_source >= 0 && node->act_source != (int32_t)op))
        QN_TRY(make_output(w, op, out));
    return QN_OK;
}

static qn_status write_convolution(qn_mnn_writer *w, size_t op, const qn_node *node)
{
    QN_TRY(qn__mnn_write_weights(w, op, node));
    QN_TRY(merge(w, op, node));
    /* Between the file's layout and the convolution may be transpositions of the same operator. */
    QN_TRY(qn__mnn_note(w, qn__mnn_op_input(w, op, 0), node->inputs[0]));
    return qn__mnn_note(w, qn__mnn_op_output(w, op, 0), node->outputs[0]);
}

static const qn_node *binary_node(const qn_mnn_writer *w, size_t op)
{
    const qn_node *n = w->ops[op].first;
    const bool one = w->ops[op].n_nodes == 1 && n->n_inputs == 2 && n->n_outputs == 1;
    return one && (qn__mnn_written_type(w, op) == QN_MNN_OpType_BinaryOp ||
                   qn__mnn_written_type(w, op) == QN_MNN_OpType_Eltwise)
               ? n
               : NULL;
}

static qn_status write_binary(qn_mnn_writer *w, size_t op, const qn_node *node)
{
    if (!qn_mnn_is_quant(node->outputs[0]))
        return QN_OK;                /* as it was, with what follows it */
    for (uint32_t i = 0; i < 2; i++) /* constants too */
        QN_TRY(qn__mnn_note(w, qn__mnn_op_input(w, op, i), node->inputs[i]));
    QN_TRY(qn__mnn_write_eltwise(w, op));
    return merge(w, op, node);
}

static qn_status write_ops(qn_mnn_writer *w)
{
    for (size_t op = 0; op < w->source->n_ops; op++) {
        const qn_node *node = weights_node(w, op);
        const qn_fb_object *main = qn__fb_table(w->ops[op].object, QN_MNN_Op_main);
        const int64_t type = qn__mnn_written_type(w, op);
        if (type == QN_MNN_OpType_ConvInt8 || type == QN_MNN_OpType_DepthwiseConvInt8)
            continue; /* the form of 2019: as it is */
        if (node != NULL && main != NULL && main->record == QN_MNN_REC_Convolution2D)
            QN_TRY(write_convolution(w, op, node));
        else if ((node = binary_node(w, op)) != NULL)
            QN_TRY(write_binary(w, op, node));
    }
    return QN_OK;
}

/* --- records ----------------------------------------------------------------------------------*/
static const qn_fb_object *info_of(const qn_fb_object *describe)
{
    return qn__fb_table(describe, QN_MNN_TensorDescribe_quantInfo);
}

static bool same_record(const qn_fb_document *d, const qn_fb_object *info, const qn_mnn_record *r)
{
    return (float)qn__fb_real(d, info, QN_MNN_TensorQuantInfo_scale) == r->scale &&
           qn__fb_real(d, info, QN_MNN_TensorQuantInfo_zero) == r->zero &&
           qn__fb_real(d, info, QN_MNN_TensorQuantInfo_min) == r->min &&
           qn__fb_real(d, info, QN_MNN_TensorQuantInfo_max) == r->max;
}

/* Takes the records out of the file that no longer hold; *equal: all that is wanted is there. */
static qn_status clear_records(qn_mnn_writer *w, bool *equal)
{
    size_t n = 0, kept = 0, n_wanted = 0, n_found = 0;
    qn_fb_object **old = qn__fb_tables(w->doc.root, QN_MNN_Net_extraTensorDescribe, &n);
    qn_fb_object **list = qn__arena_calloc(&w->doc.arena, n + 1, sizeof(*list));
    if (!list)
        return QN_NOMEM(w->error);
    for (size_t id = 0; id < w->source->n_tensors; id++)
        n_wanted += w->records[id].known;
    bool same = true;
    for (size_t i = 0; i < n; i++) {
        const int64_t id = qn__fb_int(&w->doc, old[i], QN_MNN_TensorDescribe_index);
        const qn_fb_object *info = info_of(old[i]);
        const bool inside = id >= 0 && (uint64_t)id < w->source->n_tensors;
        const qn_mnn_record *r = inside ? &w->records[id] : NULL;
        list[kept++] = old[i];
        if (!info)
            continue;
        if (r && r->known && same_record(&w->doc, info, r)) {
            n_found++;
            continue;
        }
        same = false;
        if (r && r->known)
            continue; /* replaced later */
        qn_fb_object *copy = qn__fb_copy(&w->doc, old[i]);
        if (!copy)
            return QN_NOMEM(w->error);
        qn__fb_clear(copy, QN_MNN_TensorDescribe_quantInfo);
        list[kept - 1] = copy;
        if (!qn__fb_has(copy, QN_MNN_TensorDescribe_blob) &&
            !qn__fb_has(copy, QN_MNN_TensorDescribe_regions))
            kept--;
    }
    *equal = same && n_found >= n_wanted;
    if (*equal)
        return QN_OK;
    qn__fb_clear(w->doc.root, QN_MNN_Net_extraTensorDescribe);
    if (kept > 0 &&
        !qn__fb_set_tables(&w->doc, w->doc.root, QN_MNN_Net_extraTensorDescribe, list, kept))
        return QN_NOMEM(w->error);
    return QN_OK;
}

static qn_status write_records(qn_mnn_writer *w)
{
    bool equal = false;
    QN_TRY(clear_records(w, &equal));
    if (equal)
        return QN_OK;
    w->changed = true;
    const size_t n_tensors = w->source->n_tensors;
    qn_mnn_tensor_quant *quants = qn__arena_calloc(&w->doc.arena, n_tensors + 1, sizeof(*quants));
    if (!quants)
        return QN_NOMEM(w->error);
    size_t n = 0;
    for (size_t id = 0; id < n_tensors; id++) {
        const qn_mnn_record *r = &w->records[id];
        if (r->known)
            quants[n++] = (qn_mnn_tensor_quant){(uint32_t)id, r->scale, r->zero, r->min, r->max};
    }
    return qn__mnn_edit_quants(&w->doc, quants, n, w->error);
}

/* --- the list of operators --------------------------------------------------------------------*/
/* Operators that an output needs, walking from the end: the file's order is one of execution. */
static qn_status mark_live(qn_mnn_writer *w)
{
    uint8_t *wanted = qn__arena_calloc(&w->doc.arena, w->source->n_tensors + 1, 1);
    if (!wanted)
        return QN_NOMEM(w->error);
    for (size_t i = 0; i < w->graph->n_outputs; i++) {
        const int32_t id = w->id_of[w->graph->outputs[i]->id];
        QN_FAIL_IF(id < 0, w->error, QN_UNSUPPORTED,
                   "output \"%s\" is not in the .mnn file the model came from",
                   w->graph->outputs[i]->name);
        wanted[id] = 1;
    }
    for (size_t op = w->source->n_ops; op-- > 0;) {
        qn_mnn_written *o = &w->ops[op];
        o->live = qn__mnn_written_type(w, op) == QN_MNN_OpType_Input;
        for (size_t i = 0; qn__mnn_op_output(w, op, i) >= 0; i++)
            o->live |= wanted[qn__mnn_op_output(w, op, i)] != 0;
        o->live &= !o->dropped;
        for (size_t i = 0; o->live && qn__mnn_op_input(w, op, i) >= 0; i++)
            wanted[qn__mnn_op_input(w, op, i)] = 1;
    }
    return QN_OK;
}

/* A tensor that equalization scaled must not be taken for what its name says: it gets the name that
 * the graph gave it. */
static qn_status rename_tensors(qn_mnn_writer *w)
{
    const size_t n = w->source->n_tensors;
    const char **names = qn__arena_calloc(&w->doc.arena, n + 1, sizeof(*names));
    bool any = false;
    if (!names)
        return QN_NOMEM(w->error);
    for (size_t id = 0; id < n; id++) {
        const char *name = qn__fb_string_at(w->doc.root, QN_MNN_Net_tensorName, id);
        names[id] = name ? name : "";
    }
    for (size_t i = 0; i < w->graph->n_nodes; i++) {
        const qn_node *node = w->graph->nodes[i];
        for (uint32_t k = 0; k < node->n_outputs; k++) {
            const qn_tensor *t = node->outputs[k];
            const int32_t id = t ? t->source : -1;
            const size_t length = id >= 0 && (size_t)id < n ? strlen(names[id]) : 0;
            if (length == 0 || strncmp(t->name, names[id], length) != 0 ||
                strcmp(t->name + length, "_equalized") != 0)
                continue;
            names[id] = t->name;
            any = true;
        }
    }
    if (any && !qn__fb_set_strings(&w->doc, w->doc.root, QN_MNN_Net_tensorName, names, n))
        return QN_NOMEM(w->error);
    return QN_OK;
}

static qn_status list_ops(qn_mnn_writer *w)
{
    size_t n = 0;
    qn_fb_object **list = qn__arena_calloc(&w->doc.arena, w->source->n_ops + 1, sizeof(*list));
    if (!list)
        return QN_NOMEM(w->error);
    for (size_t op = 0; op < w->source->n_ops; op++)
        if (w->ops[op].live)
            list[n++] = w->ops[op].object;
    return qn__fb_set_tables(&w->doc, w->doc.root, QN_MNN_Net_oplists, list, n)
               ? QN_OK
               : QN_NOMEM(w->error);
}

/* --- all of it --------------------------------------------------------------------------------*/
static qn_status edit(qn_mnn_writer *w)
{
    const size_t n_ops = w->source->n_ops, n_tensors = w->source->n_tensors;
    qn_arena *arena = &w->doc.arena;
    w->ops = qn__arena_calloc(arena, n_ops + 1, sizeof(*w->ops));
    w->next_node =
        qn__arena_calloc(arena, (size_t)w->graph->next_node_id + 1, sizeof(*w->next_node));
    w->id_of = qn__arena_calloc(arena, w->graph->n_tensors + 1, sizeof(*w->id_of));
    w->records = qn__arena_calloc(arena, n_tensors + 1, sizeof(*w->records));
    w->in_graph = qn__arena_calloc(arena, n_tensors + 1, 1);
    if (!w->ops || !w->next_node || !w->id_of || !w->records || !w->in_graph)
        return QN_NOMEM(w->error);
    for (size_t op = 0; op < n_ops; op++)
        w->ops[op].object = w->source->ops[op];
    QN_TRY(collect_nodes(w));
    find_ids(w);
    QN_TRY(note_tensors(w));
    QN_TRY(write_ops(w));
    qn__mnn_hand_records_on(w);
    qn__mnn_guard_records(w);
    for (size_t op = 0; op < n_ops; op++) {
        QN_TRY(qn__mnn_write_binary_act(w, op));
        QN_TRY(qn__mnn_write_table(w, op));
        QN_TRY(qn__mnn_write_inside(w, op));
    }
    QN_TRY(write_records(w));
    if (!w->changed)
        return QN_OK;
    QN_TRY(rename_tensors(w));
    QN_TRY(mark_live(w));
    return list_ops(w);
}

/* What lies in a side file goes inside when the file changes. */
static qn_status upgrade(qn_mnn_writer *w)
{
    bool old = false;
    QN_TRY(qn__mnn_upgrade(&w->doc, &old, w->error));
    if (old && !w->changed && w->source->side_file)
        QN_FAIL(w->error, QN_UNSUPPORTED,
                "%s: operators of 2019 beside weights in a file of their own", w->source->path);
    w->changed = w->changed || old;
    return QN_OK;
}

/* The side file of an unchanged file goes along under the new name. */
static qn_status save_side_file(qn_mnn_writer *w, const char *path, qn_error *error)
{
    const qn_blob *side = w->source->side_file;
    if (!side || strcmp(path, w->source->path) == 0)
        return QN_OK;
    const char *name = qn__arena_printf(&w->doc.arena, "%s.weight", path);
    return name ? qn__file_write_all(w->graph->ctx, name, side->data, side->size_bytes, error)
                : QN_NOMEM(error);
}

static qn_status save(qn_mnn_writer *w, const char *path, uint64_t *bytes, qn_error *error)
{
    if (w->changed)
        return qn__mnn_save(&w->doc, path, bytes, error);
    QN_TRY(save_side_file(w, path, error));
    const qn_blob *file = w->source->doc.file;
    QN_TRY(qn__file_write_all(w->graph->ctx, path, file->data, file->size_bytes, error));
    if (bytes)
        *bytes = file->size_bytes;
    return QN_OK;
}

qn_status qn__mnn_document(const qn_graph *graph, qn_fb_document *out, qn_error *error)
{
    qn_mnn_writer w = {.graph = graph, .source = qn__mnn_source_of(graph), .error = error};
    QN_FAIL_IF(!w.source, error, QN_INTERNAL, "the graph does not come from a .mnn file");
    QN_TRY(qn__fb_edit(&w.source->doc, &w.doc, error));
    const qn_status status = edit(&w);
    if (status == QN_OK)
        *out = w.doc;
    else
        qn__fb_free(&w.doc);
    return status;
}

qn_status qn__mnn_write(const qn_graph *graph, const char *path, const qn_write_options *options,
                        uint64_t *bytes, qn_error *error)
{
    (void)options;
    qn_mnn_writer w = {.graph = graph, .source = qn__mnn_source_of(graph), .error = error};
    QN_FAIL_IF(!w.source, error, QN_INTERNAL, "%s: the graph does not come from a .mnn file", path);
    bool same = false;
    QN_TRY(qn__mnn_is_unchanged(graph, w.source, &same, error));
    QN_TRY(qn__fb_edit(&w.source->doc, &w.doc, error));
    qn_status status = same ? QN_OK : edit(&w);
    if (status == QN_OK)
        status = upgrade(&w);
    if (status == QN_OK)
        status = save(&w, path, bytes, error);
    qn__fb_free(&w.doc);
    return status;
}
