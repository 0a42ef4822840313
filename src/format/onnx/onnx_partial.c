/* What quench cannot run is set aside: nodes of unknown operators, with graphs or strings inside,
 * whose shapes are not known before running, and everything that depends on them. They stay bytes
 * of the file, are no part of the graph, and are written behind it as they were. What they read of
 * the graph becomes an output of it; a constant that both sides read is there twice, so that
 * quantizing it changes one side only. A call of a function, or an If, of which one node cannot be
 * run, stays as a whole. */
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_inline.h"
#include "format/onnx/onnx_partial.h"

typedef enum maker { BY_NOBODY, BY_INPUT, BY_INITIALIZER, BY_NODE } maker;

typedef struct use { /* of one name of the main graph */
    maker maker;
    size_t index; /* of the input, initializer or node */
    bool aside;   /* what makes it is set aside */
    bool fixed;   /* by the file and the shapes of its inputs */
    bool open;    /* its shape is decided by the data */
    bool read_inside, read_aside, is_output;
    const char *inside_name; /* of the graph's own copy, or NULL */
} use;

typedef struct division {
    qn_onnx_source *source;
    qn_name_table uses;
    bool *aside; /* [n_nodes] */
} division;

static use *use_of(const division *d, const char *name)
{
    return name[0] != '\0' ? qn__names_get(&d->uses, name) : NULL;
}

/* The first maker counts; that there is another is found when the graph is built. */
static qn_status add_maker(division *d, const char *name, maker by, size_t index, bool aside,
                           qn_error *error)
{
    if (name[0] == '\0' || use_of(d, name) != NULL)
        return QN_OK;
    use *const u = qn__arena_calloc(&d->source->arena, 1, sizeof(*u));
    if (!u || !qn__names_put(d->source->ctx, &d->uses, name, u))
        return QN_NOMEM(error);
    *u = (use){.maker = by, .index = index, .aside = aside, .fixed = by == BY_INITIALIZER};
    return QN_OK;
}

static qn_status add_makers(division *d, qn_error *error)
{
    const qn_onnx_source *s = d->source;
    for (size_t i = 0; i < s->n_initializers; i++)
        QN_TRY(add_maker(d, s->initializers[i].name, BY_INITIALIZER, i, false, error));
    for (size_t i = 0; i < s->n_kept; i++)
        QN_TRY(add_maker(d, s->kept[i].name, BY_INITIALIZER, i, true, error));
    for (size_t i = 0; i < s->n_inputs; i++)
        QN_TRY(add_maker(d, s->inputs[i].name, BY_INPUT, i, s->inputs[i].is_other, error));
    return QN_OK;
}

/* --- what can be run --------------------------------------------------------------------------*/
static bool is_constant(const qn_onnx_node *node)
{
    return node->domain[0] == '\0' && strcmp(node->op_type, "Constant") == 0;
}

static bool can_have(const qn_onnx_node *node, const qn_attr *a)
{
    if (a->kind == QN_ATTR_OPAQUE)
        return false;
    if (is_constant(node))
        return strncmp(a->name, "value", 5) == 0 && a->kind != QN_ATTR_STRING &&
               a->kind != QN_ATTR_STRINGS;
    const bool names_type = strcmp(a->name, "to") == 0 || strcmp(a->name, "dtype") == 0;
    return !names_type || a->kind != QN_ATTR_INT || qn__dtype_of_onnx(a->i) != QN_DTYPE_NONE;
}

static qn_status check_node(division *d, const qn_onnx_node *node, bool *runs, qn_error *error)
{
    qn_onnx_source *const s = d->source;
    qn_qop qop;
    *runs = !node->whole && qn__onnx_find_op(node, s->opset, &qop) != QN_OP_NONE &&
            (node->domain[0] != '\0' || strcmp(node->op_type, "If") != 0);
    if (!*runs || node->literal != NULL)
        return QN_OK;
    qn_wire w = qn__wire_open(node->body, "NodeProto", s->ctx->limits.nesting);
    qn_field f;
    for (bool more = true; *runs;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number != NODE_ATTRIBUTE)
            continue;
        qn_attr a = {0};
        const char *own = NULL;
        QN_TRY(qn__wire_expect(&w, &f, PB_WT_STRING, error));
        QN_TRY(qn__onnx_resolve_attr(s, node, &f.body, &own, error));
        if (f.body.size == 0 && own != NULL) /* the caller says nothing */
            continue;
        const qn_status status = qn__onnx_read_attr(s, &s->arena, f.body, &a, error);
        if (status == QN_OK && own != NULL)
            a.name = own;
        if (status != QN_OK && status != QN_UNSUPPORTED)
            return qn__error_prefix(error, status, "node \"%s\" %s", node->name, node->op_type);
        *runs = status == QN_OK && can_have(node, &a);
        qn__blob_unref(a.t);
    }
    return QN_OK;
}

/* Inputs that decide shapes, or that kernels read once: bit i for input i. */
static uint32_t fixed_inputs(qn_op op)
{
    switch (op) {
    case QN_OP_CONSTANT_OF_SHAPE:
        return 1;
    case QN_OP_RANGE:
        return 7;
    case QN_OP_RESHAPE:
    case QN_OP_EXPAND:
    case QN_OP_TILE:
    case QN_OP_TOP_K:
    case QN_OP_ONE_HOT:
    case QN_OP_SPLIT:
    case QN_OP_SQUEEZE:
    case QN_OP_UNSQUEEZE:
    case QN_OP_REDUCE_SUM:
    case QN_OP_REDUCE_MEAN:
    case QN_OP_REDUCE_MAX:
    case QN_OP_REDUCE_MIN:
    case QN_OP_REDUCE_PROD:
    case QN_OP_REDUCE_L1:
    case QN_OP_REDUCE_L2:
    case QN_OP_REDUCE_LOG_SUM:
    case QN_OP_REDUCE_LOG_SUM_EXP:
    case QN_OP_REDUCE_SUM_SQUARE:
        return 1 << 1;
    case QN_OP_NON_MAX_SUPPRESSION:
        return 1 << 2;
    case QN_OP_CLIP:
    case QN_OP_DROPOUT:
    case QN_OP_QUANTIZE_LINEAR:
    case QN_OP_DEQUANTIZE_LINEAR: /* not of every type and shape where it is made */
        return 1 << 1 | 1 << 2;
    case QN_OP_PAD:
    case QN_OP_RESIZE:
        return 1 << 1 | 1 << 2 | 1 << 3;
    case QN_OP_SLICE:
    case QN_OP_BATCH_NORMALIZATION:
        return 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4;
    default:
        return 0;
    }
}

/* --- what is read aside -----------------------------------------------------------------------*/
static qn_status read_name(division *d, const qn_wire *w, const qn_field *f, qn_error *error)
{
    const char *name;
    QN_TRY(qn__wire_string(w, f, &d->source->arena, &name, error));
    use *const u = use_of(d, name);
    if (u)
        u->read_aside = true;
    return QN_OK;
}

static qn_status read_names(void *arg, qn_wire *graph, qn_error *error);

qn_status qn__onnx_each_graph(const qn_wire *node, const qn_field *attribute, qn_onnx_graph_fn fn,
                              void *arg, qn_error *error)
{
    qn_wire attr, graph;
    qn_field f;
    QN_TRY(qn__wire_enter(node, attribute, "AttributeProto", &attr, error));
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&attr, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number != ATTR_G && f.number != ATTR_GRAPHS)
            continue;
        QN_TRY(qn__wire_enter(&attr, &f, "GraphProto", &graph, error));
        QN_TRY(fn(arg, &graph, error));
    }
}

/* A node's inputs, and what the graphs inside it read of the graph around. A name of their own that
 * is also one outside counts as read: that keeps more than is needed, never less. */
static qn_status read_node(division *d, qn_wire *node, qn_error *error)
{
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(node, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number == NODE_INPUT)
            QN_TRY(read_name(d, node, &f, error));
        else if (f.number == NODE_ATTRIBUTE)
            QN_TRY(qn__onnx_each_graph(node, &f, read_names, d, error));
    }
}

/* Depth is bounded by that of messages. */
static qn_status read_names(void *arg, qn_wire *graph, qn_error *error)
{
    division *const d = arg;
    qn_wire node;
    qn_field f, v;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(graph, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number == GRAPH_NODE) {
            QN_TRY(qn__wire_enter(graph, &f, "NodeProto", &node, error));
            QN_TRY(read_node(d, &node, error));
        } else if (f.number == GRAPH_OUTPUT) {
            QN_TRY(qn__wire_enter(graph, &f, "ValueInfoProto", &node, error));
            for (bool fields = true;;) {
                QN_TRY(qn__wire_next(&node, &v, &fields, error));
                if (!fields)
                    break;
                if (v.number == VALUE_NAME)
                    QN_TRY(read_name(d, &node, &v, error));
            }
        }
    }
}

/* --- dividing ---------------------------------------------------------------------------------*/
static qn_status examine(division *d, size_t index, bool *aside, qn_error *error)
{
    const qn_onnx_node *node = &d->source->nodes[index];
    qn_qop qop;
    const qn_op op = qn__onnx_find_op(node, d->source->opset, &qop);
    const uint32_t needed = qop == QN_QOP_NONE ? fixed_inputs(op) : 0;
    bool runs = false, fixed = true;
    QN_TRY(check_node(d, node, &runs, error));
    for (uint32_t k = 0; k < node->n_inputs; k++) {
        const use *const u = use_of(d, node->inputs[k]);
        QN_FAIL_IF(!u && node->inputs[k][0] != '\0', error, QN_UNSUPPORTED,
                   "node \"%s\" %s reads \"%s\" before it is made: no part of such a file can "
                   "be set aside",
                   node->name, node->op_type, node->inputs[k]);
        if (!u)
            continue;
        fixed = fixed && u->fixed;
        runs = runs && !u->aside && !u->open && (u->fixed || k >= 32 || !(needed >> k & 1));
    }
    *aside = !runs;
    for (uint32_t k = 0; k < node->n_outputs; k++) {
        QN_TRY(add_maker(d, node->outputs[k], BY_NODE, index, !runs, error));
        use *const u = use_of(d, node->outputs[k]);
        if (!u || u->maker != BY_NODE || u->index != index)
            continue;
        u->fixed = fixed || op == QN_OP_SHAPE || op == QN_OP_SIZE;
        u->open = !fixed && (op == QN_OP_NON_ZERO || op == QN_OP_NON_MAX_SUPPRESSION);
    }
    return QN_OK;
}

/* Files list a node behind what it reads; so one walk is enough. What a call or an If was written
 * out to stands together. */
static qn_status divide(division *d, qn_error *error)
{
    const qn_onnx_source *s = d->source;
    for (size_t i = 0, next; i < s->n_nodes; i = next) {
        const qn_onnx_node *const origin = s->nodes[i].origin;
        bool whole = false;
        for (next = i;
             next == i || (origin && next < s->n_nodes && s->nodes[next].origin == origin);
             next++) {
            QN_TRY(examine(d, next, &d->aside[next], error));
            whole = whole || (origin && d->aside[next]);
        }
        for (size_t k = i; k < next && whole; k++) {
            d->aside[k] = true;
            for (uint32_t o = 0; o < s->nodes[k].n_outputs; o++) {
                use *const u = use_of(d, s->nodes[k].outputs[o]);
                if (u && u->maker == BY_NODE && u->index == k)
                    u->aside = true;
            }
        }
    }
    for (size_t i = 0; i < s->n_outputs; i++) {
        use *const u = use_of(d, s->outputs[i].name);
        if (u)
            u->is_output = true;
    }
    return QN_OK;
}

/* Calls and Ifs that are set aside take the place of what they were written out to. */
static void close_up(division *d)
{
    qn_onnx_source *const s = d->source;
    const qn_onnx_node *last = NULL;
    size_t n = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const qn_onnx_node *const origin = d->aside[i] ? s->nodes[i].origin : NULL;
        if (origin && s->nodes[i].literal)
            qn__blob_unref(s->nodes[i].literal->blob);
        if (origin && origin == last)
            continue;
        last = origin;
        d->aside[n] = d->aside[i];
        s->nodes[n++] = origin ? *origin : s->nodes[i];
    }
    s->n_nodes = n;
}

static qn_status note_reads(division *d, qn_error *error)
{
    const qn_onnx_source *s = d->source;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const qn_onnx_node *node = &s->nodes[i];
        if (d->aside[i]) {
            qn_wire w = qn__wire_open(node->body, "NodeProto", s->ctx->limits.nesting);
            QN_TRY(read_node(d, &w, error));
        }
        for (uint32_t k = 0; k < node->n_inputs && !d->aside[i]; k++) {
            use *const u = use_of(d, node->inputs[k]);
            if (u)
                u->read_inside = true;
        }
    }
    return QN_OK;
}

static qn_status unique_name(division *d, const char *name, const char **out, qn_error *error)
{
    *out = name;
    for (unsigned n = 1; use_of(d, *out); n++) {
        *out = qn__arena_printf(&d->source->arena, "%s_inside%u", name, n);
        if (!*out)
            return QN_NOMEM(error);
    }
    return add_maker(d, *out, BY_NOBODY, 0, false, error);
}

/* Nodes of the graph read the graph's own copies. */
static void rename_inputs(const division *d, const qn_onnx_node *node)
{
    for (uint32_t k = 0; k < node->n_inputs; k++) {
        const use *const u = use_of(d, node->inputs[k]);
        if (u && u->inside_name)
            node->inputs[k] = u->inside_name;
    }
}

/* An initializer that both sides read: the graph's own, under another name. */
static qn_status copy_initializers(division *d, qn_error *error)
{
    qn_onnx_source *const s = d->source;
    size_t shared = 0;
    for (size_t i = 0; i < s->n_initializers; i++) {
        const use *const u = use_of(d, s->initializers[i].name);
        shared += u && u->read_inside && u->read_aside;
    }
    if (shared == 0)
        return QN_OK;
    qn_onnx_tensor *const all =
        qn__arena_calloc(&s->arena, s->n_initializers + shared, sizeof(*all));
    if (!all)
        return QN_NOMEM(error);
    const size_t before = s->n_initializers;
    memcpy(all, s->initializers, before * sizeof(*all));
    s->initializers = all;
    for (size_t i = 0; i < before; i++) {
        use *const u = use_of(d, all[i].name);
        if (!u || !u->read_inside || !u->read_aside)
            continue;
        qn_onnx_tensor copy = all[i];
        QN_TRY(unique_name(d, all[i].name, &copy.name, error));
        copy.body = (qn_span){NULL, 0};
        copy.blob = qn__blob_ref(copy.blob);
        all[s->n_initializers++] = copy;
        u->inside_name = copy.name;
    }
    return QN_OK;
}

/* Constant nodes that something aside reads go there; where the graph reads them too, it keeps a
 * copy that is written as an initializer. */
static qn_status move_constants(division *d, qn_onnx_node *inside, size_t *n_inside,
                                qn_error *error)
{
    qn_onnx_source *const s = d->source;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const qn_onnx_node *node = &s->nodes[i];
        use *const u =
            is_constant(node) && node->n_outputs == 1 ? use_of(d, node->outputs[0]) : NULL;
        if (d->aside[i] || !u || !u->read_aside)
            continue;
        if (u->read_inside || u->is_output) {
            qn_onnx_node copy = *node;
            copy.outputs = qn__arena_calloc(&s->arena, 1, sizeof(*copy.outputs));
            if (!copy.outputs)
                return QN_NOMEM(error);
            QN_TRY(unique_name(d, node->outputs[0], &copy.outputs[0], error));
            copy.inlined = true;
            inside[(*n_inside)++] = copy;
            u->inside_name = copy.outputs[0];
        }
        d->aside[i] = true;
        u->aside = true;
    }
    return QN_OK;
}

static qn_status divide_nodes(division *d, qn_error *error)
{
    qn_onnx_source *const s = d->source;
    qn_onnx_node *const inside = qn__arena_calloc(&s->arena, 2 * s->n_nodes, sizeof(*inside));
    qn_onnx_node *const aside = qn__arena_calloc(&s->arena, s->n_nodes, sizeof(*aside));
    qn_onnx_tensor *const constants =
        qn__arena_calloc(&s->arena, 2 * s->n_nodes, sizeof(*constants));
    size_t n_inside = 0, n_aside = 0, running = 0;
    if (!inside || !aside || !constants)
        return QN_NOMEM(error);
    QN_TRY(move_constants(d, inside, &n_inside, error));
    for (size_t i = 0; i < s->n_nodes; i++) {
        const qn_onnx_node *node = &s->nodes[i];
        QN_FAIL_IF(d->aside[i] && node->inlined, error, QN_UNSUPPORTED,
                   "node \"%s\" %s is inside a function or branch: it cannot be set aside alone",
                   node->name, node->op_type);
        running += !d->aside[i] && !is_constant(node);
    }
    QN_FAIL_IF(running == 0, error, QN_UNSUPPORTED,
               "everything depends on operators that are not supported: no part is left");
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (!d->aside[i]) {
            rename_inputs(d, &s->nodes[i]);
            inside[n_inside++] = s->nodes[i];
        } else {
            aside[n_aside++] = s->nodes[i];
        }
        for (uint32_t k = 0; k < s->nodes[i].n_outputs && d->aside[i]; k++)
            if (s->nodes[i].outputs[k][0] != '\0' &&
                !qn__names_put(s->ctx, &s->aside_names, s->nodes[i].outputs[k], s))
                return QN_NOMEM(error);
    }
    s->nodes = inside;
    s->n_nodes = n_inside;
    s->constants = constants;
    s->aside = aside;
    s->n_aside = n_aside;
    return QN_OK;
}

/* Inputs that only nodes aside read are theirs. */
static qn_status divide_inputs(division *d, qn_error *error)
{
    qn_onnx_source *const s = d->source;
    size_t n = 0;
    for (size_t i = 0; i < s->n_inputs; i++) {
        const use *const u = use_of(d, s->inputs[i].name);
        const bool inside = !u || u->maker != BY_INPUT || u->index != i ||
                            (!u->aside && (u->read_inside || u->is_output || !u->read_aside));
        if (inside)
            s->inputs[n++] = s->inputs[i];
        else if (!qn__names_put(s->ctx, &s->aside_names, s->inputs[i].name, s))
            return QN_NOMEM(error);
    }
    s->n_inputs = n;
    return QN_OK;
}

/* The graph's outputs: those of the file that it makes, and what is read aside. */
static qn_status divide_outputs(division *d, qn_error *error)
{
    qn_onnx_source *const s = d->source;
    size_t cut = 0, n = 0;
    for (size_t i = 0; i < s->n_nodes; i++)
        cut += s->nodes[i].n_outputs;
    qn_onnx_value *const outputs =
        qn__arena_calloc(&s->arena, s->n_outputs + cut, sizeof(*outputs));
    if (!outputs)
        return QN_NOMEM(error);
    for (size_t i = 0; i < s->n_outputs; i++) {
        const use *const u = use_of(d, s->outputs[i].name);
        if (!u || !u->aside)
            outputs[n++] = s->outputs[i];
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        for (uint32_t k = 0; k < s->nodes[i].n_outputs; k++) {
            const use *const u = use_of(d, s->nodes[i].outputs[k]);
            if (u && u->maker == BY_NODE && u->read_aside && !u->aside && !u->is_output)
                outputs[n++] = (qn_onnx_value){.name = s->nodes[i].outputs[k]};
        }
    }
    s->outputs = outputs;
    s->n_outputs = n;
    return QN_OK;
}

static qn_status set_aside(division *d, qn_error *error)
{
    qn_onnx_source *const s = d->source;
    d->aside = qn__arena_calloc(&s->arena, s->n_nodes, sizeof(*d->aside));
    if (!d->aside)
        return QN_NOMEM(error);
    QN_TRY(add_makers(d, error));
    QN_TRY(divide(d, error));
    close_up(d);
    QN_TRY(note_reads(d, error));
    QN_TRY(copy_initializers(d, error));
    QN_TRY(divide_nodes(d, error));
    QN_TRY(divide_inputs(d, error));
    QN_TRY(divide_outputs(d, error));
    for (size_t i = 0; i < s->n_aside; i++) { /* constants went there with what reads them */
        const qn_onnx_node *node = &s->aside[i];
        if (is_constant(node))
            continue;
        if (s->base.n_aside++ == 0)
            s->base.first_aside = qn__arena_printf(&s->arena, "\"%s\" (%s)",
                                                   node->name[0] != '\0' ? node->name
                                                   : node->n_outputs > 0 ? node->outputs[0]
                                                                         : "",
                                                   node->op_type);
    }
    return qn__arena_check(&s->arena, error);
}

qn_status qn__onnx_set_aside(qn_onnx_source *source, qn_error *error)
{
    division d = {.source = source};
    const qn_status status = set_aside(&d, error);
    qn__names_free(source->ctx, &d.uses);
    return status;
}
