/* What nodes make, element by element, of one quantized tensor of bytes, and nothing else, before
 * they come to another one is a table of 256 bytes: a Gelu written out as Div, Erf, Add, Mul and
 * Mul between DequantizeLinear and QuantizeLinear, or x * Sigmoid(x) of quantized nodes. Tables are
 * made by computing the nodes themselves, as constants are folded. For running only. */
#include "pass/pass.h"

#include "core/context.h"

#include <string.h>

enum { MAX_NODES = 64, BYTES = 256 };

/* Nodes that become one: all that lies between the tensor they read and the one they make. */
typedef struct region {
    const qn_tensor *made; /* the twin of `to` */
    qn_tensor *from, *to;
    uint32_t n;
    qn_node *nodes[MAX_NODES]; /* [0] makes `to` */
} region;

/* What is known of a tensor, by id. */
typedef struct facts {
    qn_tensor *up; /* the nearest one that alone decides it, element by element; NULL: none */
    uint32_t depth;
    qn_tensor *bytes, *twin; /* in `trial`: the 256 bytes in its place, and what they come to */
} facts;

typedef struct tables {
    qn_graph *graph;
    qn_graph *trial; /* every region on the bytes 0 to 255 */
    qn_uses uses;
    facts *of;         /* [n_tensors] */
    uint32_t *seen;    /* by node id: number of the search that met it last */
    uint32_t searches; /* so far */
    uint8_t *taken;    /* by node id: inside a region */
    region *regions;
    size_t n_regions, capacity;
    qn_error *error;
} tables;

static bool is_quantized(const qn_tensor *t)
{
    return t->type.kind == QN_TYPE_QUANT;
}

static bool has_one_scale(const qn_tensor *t)
{
    const qn_quant *const q = t->type.quant;
    return q->axis < 0 && q->block == 0 && q->n_codebook == 0;
}

static bool is_byte(const qn_tensor *t)
{
    return is_quantized(t) && qn__dtype_bits(t->type.dtype) == 8 && has_one_scale(t) &&
           t->constant == NULL;
}

static bool may_be_inside(const qn_tensor *t)
{
    return t->has_shape && (t->type.kind == QN_TYPE_PLAIN || (is_quantized(t) && has_one_scale(t)));
}

/* Where the ways up from two tensors meet. */
static qn_tensor *meet(const tables *t, qn_tensor *a, qn_tensor *b)
{
    for (int steps = 0; steps < 2 * MAX_NODES && a != NULL && b != NULL; steps++) {
        if (a == b)
            return a;
        if (t->of[a->id].depth >= t->of[b->id].depth)
            a = t->of[a->id].up;
        else
            b = t->of[b->id].up;
    }
    return NULL;
}

/* NULL: it is not one that works by element, or reads tensors that have nothing in common. */
static qn_tensor *decided_by(const tables *t, const qn_node *node)
{
    qn_tensor *from = NULL;
    if ((qn__op_flags(node->op) & QN_OPF_BY_ELEMENT) == 0 || node->n_outputs != 1 ||
        node->outputs[0] == NULL || !may_be_inside(node->outputs[0]))
        return NULL;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        qn_tensor *const x = node->inputs[i];
        if (x == NULL || x->constant != NULL)
            continue;
        from = !may_be_inside(x) ? NULL : from != NULL ? meet(t, from, x) : x;
        if (from == NULL)
            return NULL;
    }
    for (uint32_t i = 0; from != NULL && i < node->n_inputs; i++) {
        const qn_tensor *const x = node->inputs[i];
        size_t count;
        if (x != NULL && x->constant != NULL &&
            (!qn__tensor_count(x, &count) || count != 1 || x->rank > from->rank))
            return NULL;
    }
    return from;
}

/* All nodes between two tensors; false: too many, or others read what they make for each other. */
static bool find_region(tables *t, qn_tensor *from, qn_tensor *to, region *out)
{
    const uint32_t now = ++t->searches;
    *out = (region){.from = from, .to = to, .n = 1, .nodes = {to->producer}};
    t->seen[to->producer->id] = now;
    for (uint32_t i = 0; i < out->n; i++)
        for (uint32_t k = 0; k < out->nodes[i]->n_inputs; k++) {
            const qn_tensor *const x = out->nodes[i]->inputs[k];
            if (x == NULL || x->constant != NULL || x == from || t->seen[x->producer->id] == now)
                continue;
            if (out->n == MAX_NODES)
                return false;
            t->seen[x->producer->id] = now;
            out->nodes[out->n++] = x->producer;
        }
    for (uint32_t i = 1; i < out->n; i++) {
        const qn_tensor *const y = out->nodes[i]->outputs[0];
        if (t->uses.is_output[y->id])
            return false;
        for (size_t u = t->uses.offsets[y->id]; u < t->uses.offsets[y->id + 1]; u++)
            if (t->seen[t->uses.users[u]->id] != now)
                return false;
    }
    return true;
}

/* From as far up as possible; a single node stays what it is. */
static bool largest_region(tables *t, qn_tensor *to, region *out)
{
    bool found = false;
    qn_tensor *from = t->of[to->id].up;
    for (int steps = 0; steps < MAX_NODES && from != NULL; steps++, from = t->of[from->id].up) {
        region r;
        if (!is_byte(from))
            continue;
        if (!find_region(t, from, to, &r))
            break; /* and none that reaches farther */
        if (r.n > 1) {
            *out = r;
            found = true;
        }
    }
    return found;
}

static qn_tensor *add_bytes(tables *t, const qn_tensor *from)
{
    int64_t dims[QN_MAX_RANK];
    const size_t rank = from->rank > 0 ? from->rank : 1;
    void *data;
    for (size_t d = 0; d < rank; d++)
        dims[d] = d + 1 < rank ? 1 : BYTES;
    const char *const name = qn__arena_printf(&t->trial->arena, "from_%u", (unsigned)from->id);
    qn_blob *const blob = qn__blob_create(t->graph->ctx, BYTES, &data);
    if (blob == NULL || name == NULL) {
        qn__blob_unref(blob);
        return NULL;
    }
    for (size_t i = 0; i < BYTES; i++)
        ((uint8_t *)data)[i] = (uint8_t)i;
    qn_tensor *const bytes = qn__graph_add_constant(t->trial, name, from->type, rank, dims, blob);
    qn__blob_unref(blob);
    return bytes;
}

static qn_tensor *twin_of(tables *t, const qn_tensor *x)
{
    facts *const f = &t->of[x->id];
    if (f->twin == NULL && x->constant != NULL)
        f->twin =
            qn__graph_add_constant(t->trial, x->name, x->type, x->rank,
                                   (int64_t[QN_MAX_RANK]){1, 1, 1, 1, 1, 1, 1, 1}, x->constant);
    else if (f->twin == NULL)
        f->twin = qn__graph_add_tensor(t->trial, x->name, x->type);
    return f->twin;
}

/* The region in the trial, reading all bytes. */
static bool add_to_trial(tables *t, region *r)
{
    facts *const from = &t->of[r->from->id];
    if (from->bytes == NULL && (from->bytes = add_bytes(t, r->from)) == NULL)
        return false;
    for (uint32_t i = 0; i < r->n; i++) {
        const qn_node *const node = r->nodes[i];
        qn_node *const twin =
            qn__graph_add_node(t->trial, SIZE_MAX, node->op, node->name, node->n_inputs, 1);
        if (twin == NULL)
            return false;
        twin->n_attrs = node->n_attrs;
        twin->attrs = node->attrs;
        twin->act = node->act;
        twin->act_lo = node->act_lo;
        twin->act_hi = node->act_hi;
        for (uint32_t k = 0; k < node->n_inputs; k++) {
            qn_tensor *const x = node->inputs[k];
            if (x == NULL)
                continue;
            twin->inputs[k] = x == r->from ? from->bytes : twin_of(t, x);
            if (twin->inputs[k] == NULL)
                return false;
        }
        qn_tensor *const y = twin_of(t, node->outputs[0]);
        if (y == NULL)
            return false;
        qn__node_set_output(twin, 0, y);
    }
    r->made = t->of[r->to->id].twin;
    return true;
}

/* From the last node to the first, so that what is found first reaches farthest. */
static qn_status find_all(tables *t)
{
    qn_graph *const graph = t->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_node *const node = graph->nodes[i];
        qn_tensor *const up = decided_by(t, node);
        if (up != NULL)
            t->of[node->outputs[0]->id] = (facts){.up = up, .depth = t->of[up->id].depth + 1};
    }
    for (size_t i = graph->n_nodes; i-- > 0;) {
        const qn_node *const node = graph->nodes[i];
        region r;
        if (t->taken[node->id] || node->n_outputs != 1 || node->outputs[0] == NULL ||
            !is_byte(node->outputs[0]) || !largest_region(t, node->outputs[0], &r))
            continue;
        if (t->n_regions == t->capacity) {
            const size_t more = t->capacity > 0 ? 2 * t->capacity : 16;
            region *const grown = qn__reallocarray(graph->ctx, t->regions, more, sizeof(*grown));
            if (grown == NULL)
                return QN_NOMEM(t->error);
            t->regions = grown;
            t->capacity = more;
        }
        if (!add_to_trial(t, &r))
            return QN_NOMEM(t->error);
        for (uint32_t k = 0; k < r.n; k++)
            t->taken[r.nodes[k]->id] = 1;
        t->regions[t->n_regions++] = r;
    }
    return QN_OK;
}

/* The last node that is no QuantizeLinear becomes the table, so that it keeps a name that says
 * something. */
static qn_status replace(tables *t, const region *r)
{
    qn_graph *const graph = t->graph;
    qn_node *last = r->nodes[0];
    if (last->op == QN_OP_QUANTIZE_LINEAR && last->inputs[0] != r->from)
        last = last->inputs[0]->producer;
    const char *const name = qn__arena_printf(&graph->arena, "%s_table", r->to->name);
    qn_tensor *const table =
        name != NULL ? qn__graph_add_constant(graph, name, qn_type_plain_make(QN_DTYPE_U8), 1,
                                              (int64_t[]){BYTES}, r->made->constant)
                     : NULL;
    qn_tensor **const inputs = qn__arena_calloc(&graph->arena, 2, sizeof(*inputs));
    if (table == NULL || inputs == NULL)
        return QN_NOMEM(t->error);
    for (uint32_t i = 0; i < r->n; i++) {
        t->taken[r->nodes[i]->id] = r->nodes[i] != last ? 2 : 0;
        if (r->nodes[i] != last && !qn__node_add_sources(graph, last, r->nodes[i]))
            return QN_NOMEM(t->error);
    }
    if (last != r->nodes[0])
        qn__node_set_output(r->nodes[0], 0, NULL);
    qn__node_set_output(last, 0, r->to);
    inputs[0] = r->from;
    inputs[1] = table;
    last->op = QN_OP_TABLE;
    last->inputs = inputs;
    last->n_inputs = 2;
    last->n_attrs = 0;
    last->act = QN_ACT_NONE;
    return QN_OK;
}

/* Regions of operators that cannot be executed stay, for an error that names them. */
static qn_status replace_all(tables *t)
{
    bool any = false;
    for (size_t i = 0; i < t->n_regions; i++) {
        const region *const r = &t->regions[i];
        const bool made = r->made->constant != NULL && r->made->constant->size_bytes == BYTES;
        if (made)
            QN_TRY(replace(t, r));
        any = any || made;
    }
    if (!any)
        return QN_OK;
    for (size_t i = 0; i < t->graph->n_nodes; i++) {
        uint8_t *const mark = &t->taken[t->graph->nodes[i]->id];
        *mark = *mark == 2;
    }
    qn__graph_remove_marked(t->graph, t->taken);
    return qn__graph_verify(t->graph, t->error);
}

static qn_status make_all(tables *t, qn_status (*resolve)(qn_graph *, size_t, qn_error *))
{
    QN_TRY(find_all(t));
    if (t->n_regions == 0)
        return QN_OK;
    QN_TRY(qn__graph_sort(t->trial, t->error));
    qn_error error;
    const qn_status status = resolve(t->trial, BYTES * sizeof(double), &error);
    if (status == QN_NO_MEMORY)
        return QN_NOMEM(t->error);
    return status == QN_OK ? replace_all(t) : QN_OK; /* else planning says what is wrong */
}

qn_status qn__bytes_to_tables(qn_graph *graph, qn_requantize requantize,
                              qn_status (*resolve)(qn_graph *, size_t, qn_error *), qn_error *error)
{
    bool any = false;
    for (size_t i = 0; i < graph->n_tensors && !any; i++)
        any = is_byte(graph->tensors[i]);
    if (!any)
        return QN_OK;
    const qn_context *const ctx = graph->ctx;
    tables t = {.graph = graph, .error = error};
    qn_status status = qn__graph_create(ctx, &t.trial, error);
    if (status == QN_OK)
        status = qn__uses_build(graph, &t.uses, error);
    if (status == QN_OK) {
        t.trial->opset = graph->opset;
        t.trial->requantize = requantize;
        t.of = qn__calloc(ctx, graph->n_tensors + 1, sizeof(*t.of));
        t.seen = qn__calloc(ctx, graph->next_node_id + (size_t)1, sizeof(*t.seen));
        t.taken = qn__calloc(ctx, graph->next_node_id + (size_t)1, 1);
        status = t.of != NULL && t.seen != NULL && t.taken != NULL ? make_all(&t, resolve)
                                                                   : QN_NOMEM(error);
    }
    qn__free(ctx, t.of);
    qn__free(ctx, t.seen);
    qn__free(ctx, t.taken);
    qn__free(ctx, t.regions);
    qn__uses_free(&t.uses);
    qn__graph_destroy(t.trial);
    return status;
}
