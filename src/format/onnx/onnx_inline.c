/* Model-local functions and constant If nodes, expanded in the list of the document's nodes. */
#include "format/onnx/onnx_inline.h"

#include <inttypes.h>
#include <string.h>

#include "core/context.h"
#include "ir/names.h"

enum {
    MAX_DEPTH = 24,   /* calls inside calls */
    MAX_PORTS = 4096, /* inputs and outputs of one function */
    MAX_IFS = 4096,   /* each looks for its condition among the nodes */
    MAX_CALLS = 65536,
    MAX_NAMES = 4 << 20,   /* bytes of names made, besides */
    MAX_NAMES_PER_BYTE = 4 /* so many for each byte of the file */
};

/* What names inside a body mean outside. */
typedef struct scope {
    const struct scope *parent;
    const char *prefix;
    qn_name_table names; /* inside -> outside; the value is a string of the document's arena */
    bool closed;         /* a function: unknown names are its own */
} scope;

typedef struct inliner {
    qn_onnx_source *source;
    const qn_onnx_node *origin; /* the main graph's node that is being expanded */
    qn_onnx_node *nodes;
    size_t count, capacity, n_ifs, n_calls, n_bodies, name_bytes;
    bool changed;
} inliner;

static qn_status expand(inliner *in, const qn_onnx_node *node, const scope *s, uint32_t depth,
                        qn_error *error);

/* --- names ------------------------------------------------------------------------------------*/
static size_t most_names(const inliner *in)
{
    const size_t size = in->source->file->size_bytes;
    return size > (SIZE_MAX - MAX_NAMES) / MAX_NAMES_PER_BYTE
               ? SIZE_MAX
               : MAX_NAMES + MAX_NAMES_PER_BYTE * size;
}

static const char *prefixed(inliner *in, const scope *s, const char *name)
{
    in->name_bytes += strlen(s->prefix) + strlen(name) + 2;
    return in->name_bytes > most_names(in)
               ? NULL
               : qn__arena_printf(&in->source->arena, "%s/%s", s->prefix, name);
}

static qn_status no_name(const inliner *in, qn_error *error)
{
    QN_FAIL_IF(in->name_bytes > most_names(in), error, QN_LIMIT,
               "functions and branches written out have more than %zu bytes of names",
               most_names(in));
    return QN_NOMEM(error);
}

static const char *resolve(inliner *in, const scope *s, const char *name)
{
    if (name[0] == '\0')
        return name;
    for (; s != NULL; s = s->parent) {
        const char *const known = qn__names_get(&s->names, name);
        if (known != NULL)
            return known;
        if (s->closed)
            return prefixed(in, s, name);
    }
    return name;
}

static qn_status declare(inliner *in, scope *s, const char *name, const char *outside,
                         qn_error *error)
{
    if (outside == NULL)
        outside = prefixed(in, s, name);
    if (outside == NULL)
        return no_name(in, error);
    if (!qn__names_put(in->source->ctx, &s->names, name, (void *)outside))
        return QN_NOMEM(error);
    return QN_OK;
}

/* Calls inside a call may make the same output: the number tells them apart. */
static const char *prefix_of(inliner *in, const qn_onnx_node *node)
{
    const char *name = node->op_type;
    for (uint32_t i = node->n_outputs; i-- > 0;)
        if (node->outputs[i][0] != '\0')
            name = node->outputs[i];
    in->name_bytes += strlen(name);
    return qn__arena_printf(&in->source->arena, "%s.%zu", name, ++in->n_bodies);
}

/* --- the list ---------------------------------------------------------------------------------*/
static qn_status emit(inliner *in, const qn_onnx_node *node, qn_error *error)
{
    const qn_context *const ctx = in->source->ctx;
    QN_FAIL_IF(in->count >= ctx->limits.nodes, error, QN_LIMIT,
               "functions and branches written out have more than %u nodes", ctx->limits.nodes);
    if (!QN_GROW(ctx, &in->nodes, &in->capacity, in->count))
        return QN_NOMEM(error);
    in->nodes[in->count] = *node;
    in->nodes[in->count++].origin = node->inlined ? in->origin : NULL;
    return QN_OK;
}

/* A copy of the node with the names it has outside. */
static qn_status rename_node(inliner *in, const qn_onnx_node *node, const scope *s,
                             qn_onnx_node *out, qn_error *error)
{
    qn_arena *const arena = &in->source->arena;
    *out = *node;
    if (s == NULL)
        return QN_OK;
    out->inlined = true;
    out->inputs = qn__arena_calloc(arena, node->n_inputs, sizeof(*out->inputs));
    out->outputs = qn__arena_calloc(arena, node->n_outputs, sizeof(*out->outputs));
    if (out->inputs == NULL || out->outputs == NULL)
        return QN_NOMEM(error);
    for (uint32_t i = 0; i < node->n_inputs; i++)
        if ((out->inputs[i] = resolve(in, s, node->inputs[i])) == NULL)
            return no_name(in, error);
    for (uint32_t i = 0; i < node->n_outputs; i++)
        if ((out->outputs[i] = resolve(in, s, node->outputs[i])) == NULL)
            return no_name(in, error);
    out->name = node->name[0] != '\0' ? prefixed(in, s, node->name) : node->name;
    return out->name != NULL ? QN_OK : no_name(in, error);
}

static qn_status emit_identity(inliner *in, const char *from, const char *to, qn_error *error)
{
    qn_arena *const arena = &in->source->arena;
    qn_onnx_node node = {.name = "", .op_type = "Identity", .domain = "", .inlined = true};
    node.n_inputs = node.n_outputs = 1;
    node.inputs = qn__arena_memdup(arena, &from, sizeof(from));
    node.outputs = qn__arena_memdup(arena, &to, sizeof(to));
    if (node.inputs == NULL || node.outputs == NULL)
        return QN_NOMEM(error);
    return emit(in, &node, error);
}

/* --- functions --------------------------------------------------------------------------------*/
const qn_onnx_function *qn__onnx_find_function(const qn_onnx_source *source,
                                               const qn_onnx_node *node)
{
    for (size_t i = 0; i < source->n_functions; i++)
        if (strcmp(source->functions[i].name, node->op_type) == 0 &&
            strcmp(source->functions[i].domain, node->domain) == 0)
            return &source->functions[i];
    return NULL;
}

static qn_status map_ports(inliner *in, const qn_onnx_function *f, const qn_onnx_node *call,
                           scope *s, qn_error *error)
{
    for (size_t i = 0; i < f->n_outputs; i++) {
        const char *const to = i < call->n_outputs ? call->outputs[i] : "";
        if (qn__names_get(&s->names, f->outputs[i]) == NULL)
            QN_TRY(declare(in, s, f->outputs[i], to[0] != '\0' ? to : NULL, error));
    }
    for (size_t i = 0; i < f->n_inputs; i++) /* an output may be an input as it is */
        QN_TRY(declare(in, s, f->inputs[i], i < call->n_inputs ? call->inputs[i] : "", error));
    return QN_OK;
}

static qn_status expand_function(inliner *in, const qn_onnx_function *f, const qn_onnx_node *call,
                                 uint32_t depth, qn_error *error)
{
    qn_onnx_source *const source = in->source;
    QN_FAIL_IF(depth == 0, error, QN_LIMIT,
               "node \"%s\": calls of functions nest deeper than %d (function \"%s\")", call->name,
               MAX_DEPTH, f->name);
    QN_FAIL_IF(in->n_calls++ >= MAX_CALLS, error, QN_LIMIT,
               "functions are called more than %d times", MAX_CALLS);
    QN_FAIL_IF(f->n_inputs + f->n_outputs > MAX_PORTS, error, QN_LIMIT,
               "function \"%s\" has %zu inputs and outputs", f->name, f->n_inputs + f->n_outputs);
    QN_FAIL_IF(f->opset != 0 && f->opset != source->opset, error, QN_UNSUPPORTED,
               "function \"%s\" is of opset %" PRId64 ", the model of %" PRId64, f->name, f->opset,
               source->opset);
    QN_FAIL_IF(call->n_inputs > f->n_inputs || call->n_outputs > f->n_outputs, error, QN_CORRUPT,
               "node \"%s\" has more inputs or outputs than function \"%s\"", call->name, f->name);
    const qn_onnx_node *const caller =
        qn__arena_memdup(&source->arena, call, sizeof(*call)); /* attributes are looked up there */
    if (caller == NULL)
        return QN_NOMEM(error);
    scope s = {.prefix = prefix_of(in, call), .closed = true};
    if (s.prefix == NULL)
        return QN_NOMEM(error);
    qn_status status = map_ports(in, f, call, &s, error);
    qn_wire w = qn__wire_open(f->body, "FunctionProto", source->ctx->limits.nesting);
    qn_field field;
    for (bool more = true; status == QN_OK;) {
        status = qn__wire_next(&w, &field, &more, error);
        if (status != QN_OK || !more)
            break;
        if (field.number != FUNCTION_NODE)
            continue;
        qn_onnx_node node;
        status = qn__onnx_read_node(source, &w, &field, &node, error);
        node.caller = caller;
        node.function = f;
        if (status == QN_OK)
            status = expand(in, &node, &s, depth - 1, error);
    }
    for (size_t i = 0; i < f->n_outputs && i < call->n_outputs && status == QN_OK; i++)
        for (size_t k = 0; k < f->n_inputs && call->outputs[i][0] != '\0'; k++)
            if (strcmp(f->outputs[i], f->inputs[k]) == 0 && status == QN_OK) {
                status = emit_identity(in, k < call->n_inputs ? call->inputs[k] : "",
                                       call->outputs[i], error);
                break;
            }
    qn__names_free(source->ctx, &s.names);
    return status;
}

/* The attribute of that name in a node's body. */
static qn_status find_attr(const qn_onnx_source *source, qn_span message, uint32_t field_number,
                           const char *name, qn_span *body, qn_error *error)
{
    qn_wire w = qn__wire_open(message, "NodeProto", source->ctx->limits.nesting);
    const size_t length = strlen(name);
    qn_field f, g;
    body->size = 0;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number != field_number || f.type != PB_WT_STRING)
            continue;
        qn_wire attr = qn__wire_open(f.body, "AttributeProto", source->ctx->limits.nesting);
        for (bool fields = true;;) {
            QN_TRY(qn__wire_next(&attr, &g, &fields, error));
            if (!fields)
                break;
            if (g.number == ATTR_NAME && g.type == PB_WT_STRING && g.body.size == length &&
                memcmp(g.body.data, name, length) == 0)
                *body = f.body;
        }
    }
}

/* Name and, when there is one, the function's attribute that it refers to. */
static qn_status read_reference(qn_onnx_source *source, qn_span body, const char **name,
                                const char **refers, qn_error *error)
{
    qn_wire w = qn__wire_open(body, "AttributeProto", source->ctx->limits.nesting);
    qn_field f;
    *name = *refers = NULL;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number == ATTR_NAME)
            QN_TRY(qn__wire_string(&w, &f, &source->arena, name, error));
        else if (f.number == ATTR_REF_ATTR_NAME)
            QN_TRY(qn__wire_string(&w, &f, &source->arena, refers, error));
    }
}

qn_status qn__onnx_resolve_attr(qn_onnx_source *source, const qn_onnx_node *node, qn_span *body,
                                const char **name, qn_error *error)
{
    *name = NULL;
    while (node->caller != NULL && body->size > 0) {
        const char *own, *refers;
        QN_TRY(read_reference(source, *body, &own, &refers, error));
        if (refers == NULL)
            return QN_OK;
        *name = *name == NULL ? own : *name;
        QN_TRY(find_attr(source, node->caller->body, NODE_ATTRIBUTE, refers, body, error));
        if (body->size == 0) /* what the function says where the call does not */
            return find_attr(source, node->function->body, FUNCTION_ATTRIBUTE_PROTO, refers, body,
                             error);
        node = node->caller;
    }
    return QN_OK;
}

/* --- If ---------------------------------------------------------------------------------------*/
static qn_status constant_of(const inliner *in, const qn_onnx_node *node, qn_onnx_tensor *out,
                             qn_error *error)
{
    qn_span body;
    *out = (qn_onnx_tensor){.name = ""};
    if (node->literal != NULL) {
        *out = *node->literal;
        qn__blob_ref(out->blob);
        return QN_OK;
    }
    QN_TRY(find_attr(in->source, node->body, NODE_ATTRIBUTE, "value", &body, error));
    if (body.size == 0)
        return QN_OK;
    qn_attr attr;
    QN_TRY(qn__onnx_read_attr(in->source, &in->source->arena, body, &attr, error));
    if (attr.kind == QN_ATTR_TENSOR) {
        out->dtype = attr.t_dtype;
        out->rank = attr.t_rank;
        memcpy(out->dims, attr.t_dims, attr.t_rank * sizeof(*out->dims));
        out->blob = attr.t;
    }
    return QN_OK;
}

/* *known: the name is a constant boolean of the file; *value is what it says. */
static qn_status condition(const inliner *in, const char *name, bool *known, bool *value,
                           qn_error *error)
{
    const qn_onnx_source *const source = in->source;
    qn_onnx_tensor t = {.name = ""};
    *known = false;
    for (size_t i = 0; i < source->n_initializers && t.blob == NULL; i++)
        if (strcmp(source->initializers[i].name, name) == 0) {
            t = source->initializers[i];
            qn__blob_ref(t.blob);
        }
    for (size_t i = 0; i < in->count && t.blob == NULL; i++)
        if (in->nodes[i].n_outputs == 1 && strcmp(in->nodes[i].outputs[0], name) == 0 &&
            strcmp(in->nodes[i].op_type, "Constant") == 0 && in->nodes[i].domain[0] == '\0')
            QN_TRY(constant_of(in, &in->nodes[i], &t, error));
    int64_t count = 1;
    for (size_t i = 0; i < t.rank; i++)
        count = t.dims[i] == 1 ? count : 0;
    if (t.blob != NULL && t.dtype == QN_DTYPE_BOOL && count == 1 && t.blob->size_bytes >= 1) {
        *known = true;
        *value = t.blob->data[0] != 0;
    }
    qn__blob_unref(t.blob);
    return QN_OK;
}

static qn_status branch_constant(inliner *in, const qn_wire *w, const qn_field *f, scope *s,
                                 qn_error *error)
{
    qn_arena *const arena = &in->source->arena;
    qn_wire message;
    QN_TRY(qn__wire_enter(w, f, "TensorProto", &message, error));
    qn_onnx_tensor *const tensor = qn__arena_calloc(arena, 1, sizeof(*tensor));
    qn_onnx_node node = {.name = "", .op_type = "Constant", .domain = "", .n_outputs = 1};
    if (tensor == NULL)
        return QN_NOMEM(error);
    QN_TRY(qn__onnx_read_tensor(in->source, arena, f->body, message.depth_left, tensor, error));
    node.inlined = true;
    node.literal = tensor;
    qn_status status = declare(in, s, tensor->name, NULL, error);
    const char *const name = status == QN_OK ? resolve(in, s, tensor->name) : NULL;
    node.outputs = name != NULL ? qn__arena_memdup(arena, &name, sizeof(name)) : NULL;
    if (status == QN_OK && node.outputs == NULL)
        status = QN_NOMEM(error);
    if (status == QN_OK)
        status = emit(in, &node, error);
    if (status != QN_OK)
        qn__blob_unref(tensor->blob);
    return status;
}

/* Everything the branch makes gets its name before the first node is written out. */
static qn_status declare_branch(inliner *in, qn_span body, const qn_onnx_node *node, scope *s,
                                qn_error *error)
{
    qn_onnx_source *const source = in->source;
    qn_wire w = qn__wire_open(body, "GraphProto", source->ctx->limits.nesting);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            return QN_OK;
        if (f.number == GRAPH_SPARSE_INITIALIZER || f.number == GRAPH_INPUT)
            QN_FAIL(error, QN_UNSUPPORTED, "node \"%s\": a branch with inputs or sparse constants",
                    node->name);
        if (f.number == GRAPH_INITIALIZER)
            QN_TRY(branch_constant(in, &w, &f, s, error));
        if (f.number != GRAPH_NODE)
            continue;
        qn_onnx_node inner;
        QN_TRY(qn__onnx_read_node(source, &w, &f, &inner, error));
        for (uint32_t i = 0; i < inner.n_outputs; i++)
            if (inner.outputs[i][0] != '\0')
                QN_TRY(declare(in, s, inner.outputs[i], NULL, error));
    }
}

/* What the branch makes gets the names of the If's outputs. */
static qn_status emit_outputs(inliner *in, qn_span body, const qn_onnx_node *node, const scope *s,
                              qn_error *error)
{
    qn_onnx_source *const source = in->source;
    qn_wire w = qn__wire_open(body, "GraphProto", source->ctx->limits.nesting);
    qn_field f;
    uint32_t index = 0;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number != GRAPH_OUTPUT)
            continue;
        qn_onnx_value value;
        QN_TRY(qn__onnx_read_value(source, &w, &f, &value, error));
        if (index < node->n_outputs && node->outputs[index][0] != '\0') {
            const char *const from = resolve(in, s, value.name);
            if (from == NULL)
                return no_name(in, error);
            QN_TRY(emit_identity(in, from, node->outputs[index], error));
        }
        index++;
    }
    QN_FAIL_IF(index < node->n_outputs, error, QN_CORRUPT,
               "node \"%s\": a branch has %u outputs, %u are needed", node->name, (unsigned)index,
               (unsigned)node->n_outputs);
    return QN_OK;
}

/* node: with its names outside; s: the scope it stands in, which its branches see. */
static qn_status expand_if(inliner *in, const qn_onnx_node *node, const scope *s, uint32_t depth,
                           bool *done, qn_error *error)
{
    qn_onnx_source *const source = in->source;
    bool known = false, value = false;
    qn_span attribute, body = {NULL, 0};
    *done = false;
    if (node->n_inputs != 1 || in->n_ifs++ >= MAX_IFS)
        return QN_OK;
    QN_TRY(condition(in, node->inputs[0], &known, &value, error));
    if (!known)
        return QN_OK;
    QN_FAIL_IF(depth == 0, error, QN_LIMIT, "node \"%s\": branches nest deeper than %d", node->name,
               MAX_DEPTH);
    QN_TRY(find_attr(source, node->body, NODE_ATTRIBUTE, value ? "then_branch" : "else_branch",
                     &attribute, error));
    qn_wire w = qn__wire_open(attribute, "AttributeProto", source->ctx->limits.nesting);
    qn_field f;
    for (bool more = attribute.size > 0; more;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (more && f.number == ATTR_G && f.type == PB_WT_STRING)
            body = f.body;
    }
    QN_FAIL_IF(body.data == NULL, error, QN_CORRUPT, "node \"%s\" has no such branch", node->name);
    scope inner = {.parent = s, .prefix = prefix_of(in, node)};
    if (inner.prefix == NULL)
        return QN_NOMEM(error);
    qn_status status = declare_branch(in, body, node, &inner, error);
    w = qn__wire_open(body, "GraphProto", source->ctx->limits.nesting);
    for (bool more = true; status == QN_OK;) {
        status = qn__wire_next(&w, &f, &more, error);
        if (status != QN_OK || !more)
            break;
        if (f.number != GRAPH_NODE)
            continue;
        qn_onnx_node part;
        status = qn__onnx_read_node(source, &w, &f, &part, error);
        part.caller = node->caller;
        part.function = node->function;
        if (status == QN_OK)
            status = expand(in, &part, &inner, depth - 1, error);
    }
    if (status == QN_OK)
        status = emit_outputs(in, body, node, &inner, error);
    qn__names_free(source->ctx, &inner.names);
    *done = true;
    return status;
}

/* --- all --------------------------------------------------------------------------------------*/
static qn_status expand(inliner *in, const qn_onnx_node *node, const scope *s, uint32_t depth,
                        qn_error *error)
{
    qn_onnx_node named;
    bool done = false;
    QN_TRY(rename_node(in, node, s, &named, error));
    const qn_onnx_function *const function = qn__onnx_find_function(in->source, node);
    if (function != NULL) {
        in->changed = true;
        return expand_function(in, function, &named, depth, error);
    }
    if (strcmp(node->op_type, "If") == 0 && node->domain[0] == '\0')
        QN_TRY(expand_if(in, &named, s, depth, &done, error));
    in->changed = in->changed || done;
    return done ? QN_OK : emit(in, &named, error);
}

/* What was written out from the node at `from` on is forgotten. */
static void drop(inliner *in, size_t from)
{
    for (size_t i = from; i < in->count; i++)
        if (in->nodes[i].literal != NULL)
            qn__blob_unref(in->nodes[i].literal->blob);
    in->count = from;
}

/* A node of the main graph. */
static qn_status expand_main(inliner *in, const qn_onnx_node *node, bool partial, qn_error *error)
{
    const size_t before = in->count;
    in->origin = node;
    const qn_status status = expand(in, node, NULL, MAX_DEPTH, error);
    if (status != QN_UNSUPPORTED || !partial)
        return status;
    drop(in, before);
    in->changed = true;
    qn_onnx_node whole = *node;
    whole.whole = true;
    return emit(in, &whole, error);
}

qn_status qn__onnx_inline(qn_onnx_source *source, bool partial, qn_error *error)
{
    inliner in = {.source = source};
    bool needed = source->n_functions > 0;
    for (size_t i = 0; i < source->n_nodes && !needed; i++)
        needed = strcmp(source->nodes[i].op_type, "If") == 0;
    if (!needed)
        return QN_OK;
    qn_status status = QN_OK;
    for (size_t i = 0; i < source->n_nodes && status == QN_OK; i++)
        status = expand_main(&in, &source->nodes[i], partial, error);
    if (status == QN_OK && in.changed) {
        qn_onnx_node *const nodes =
            qn__arena_calloc(&source->arena, in.count, sizeof(*source->nodes));
        qn_onnx_tensor *const constants =
            qn__arena_calloc(&source->arena, in.count, sizeof(*source->constants));
        if (nodes == NULL || constants == NULL) {
            status = QN_NOMEM(error);
        } else {
            if (in.count > 0)
                memcpy(nodes, in.nodes, in.count * sizeof(*nodes));
            source->nodes = nodes;
            source->constants = constants;
            source->n_nodes = in.count;
        }
    }
    if (status != QN_OK)
        drop(&in, 0);
    qn__free(source->ctx, in.nodes);
    return status;
}
