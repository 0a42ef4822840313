/* Planning a graph whose shapes are static: let each operator prepare, insert layout conversions,
 * decide which values share memory and lay the rest out in one arena. */
#include "ir/packed.h"
#include "run/nd.h"
#include "run/dynamic.h"
#include "run/prepacked.h"
#include "run/plan.h"

#include <string.h>

void qn__plan_options_init(qn_plan_options *options, const qn_context *ctx)
{
    *options = (qn_plan_options){.batch = 1, .cpu_flags = ctx != NULL ? ctx->cpu_flags : 0};
}

/* --- values ---------------------------------------------------------------------------------- */
static qn_status add_value(qn_plan *plan, const qn_tensor *tensor, qn_layout layout, uint32_t *out,
                           qn_error *error)
{
    int64_t dims[QN_MAX_RANK] = {0};
    size_t count, bytes;
    const qn_dtype dtype = tensor->type.dtype;
    QN_FAIL_IF(!tensor->has_shape || !qn__tensor_static_dims(tensor, dims), error, QN_UNSUPPORTED,
               "tensor \"%s\": its shape depends on the data", tensor->name);
    const bool dynamic = tensor->type.kind == QN_TYPE_DYNAMIC;
    QN_FAIL_IF(dtype == QN_DTYPE_NONE || (dynamic && !qn_dynamic_is_bytes(tensor->type)), error,
               QN_UNSUPPORTED, "tensor \"%s\": its type cannot be executed", tensor->name);
    QN_FAIL_IF(!qn_shape_count(&count, dims, tensor->rank) ||
                   !qn__dtype_bytes(&bytes, dtype, count) ||
                   (dynamic && !qn_dynamic_bytes(&bytes, count,
                                                 qn_dynamic_by_rows(tensor->type)
                                                     ? qn_dynamic_rows(count, tensor->rank, dims)
                                                     : 1)) ||
                   bytes > plan->ctx->limits.tensor_bytes,
               error, QN_LIMIT, "tensor \"%s\" has more than %llu bytes", tensor->name,
               (unsigned long long)plan->ctx->limits.tensor_bytes);
    QN_FAIL_IF(qn__dtype_bits(dtype) < 8 && layout != QN_LAYOUT_ROW_MAJOR, error, QN_UNSUPPORTED,
               "tensor \"%s\": activations of %s cannot be executed", tensor->name,
               qn__dtype_name(dtype));
    if (!QN_GROW(plan->ctx, &plan->values, &plan->values_capacity, plan->n_values))
        return QN_NOMEM(error);
    const uint32_t index = (uint32_t)plan->n_values;
    const qn_tensor *const shown = tensor->id < plan->source->n_tensors &&
                                           plan->source->tensors[tensor->id]->type.dtype == dtype
                                       ? plan->source->tensors[tensor->id]
                                       : tensor;
    qn_value *const value = &plan->values[index];
    *value = (qn_value){.bytes = bytes, .root = index, .is_constant = tensor->constant != NULL};
    value->view =
        (qn_view){.tensor = shown, .layout = layout, .rank = tensor->rank, .count = count};
    memcpy(value->view.dims, dims, sizeof(dims));
    plan->n_values++;
    plan->by_layout[layout][tensor->id] = index;
    *out = index;
    return QN_OK;
}

static size_t element_bytes(const qn_tensor *tensor)
{
    return qn__dtype_bits(tensor->type.dtype) / 8;
}

/* Constants lie where the blob is, unless its elements are unaligned (mapped files) or another
 * layout is asked for. */
static qn_status add_constant(qn_plan *plan, const qn_tensor *tensor, qn_layout layout,
                              uint32_t *out, qn_error *error)
{
    QN_TRY(add_value(plan, tensor, layout, out, error));
    qn_value *const value = &plan->values[*out];
    QN_FAIL_IF(value->bytes > tensor->constant->size_bytes, error, QN_CORRUPT,
               "constant \"%s\" has %zu bytes, its shape needs %zu", tensor->name,
               tensor->constant->size_bytes, value->bytes);
    const void *const data = tensor->constant->data;
    const bool same = layout == QN_LAYOUT_ROW_MAJOR;
    const size_t element = element_bytes(tensor);
    if (same && (element < 2 || (uintptr_t)data % element == 0)) {
        value->view.data = (void *)data;
        return QN_OK;
    }
    QN_FAIL_IF(!same && qn__dtype_bits(tensor->type.dtype) < 8, error, QN_UNSUPPORTED,
               "constant \"%s\": packed elements have no other layout", tensor->name);
    void *const copy = qn__alloc_aligned(plan->ctx, value->bytes + 1);
    if (copy == NULL)
        return QN_NOMEM(error);
    memcpy(copy, data, value->bytes);
    value->owned = copy;
    if (!same) {
        void *const moved = qn__alloc_aligned(plan->ctx, value->bytes + 1);
        if (moved == NULL)
            return QN_NOMEM(error);
        qn__convert_layout(NULL, moved, layout, copy, QN_LAYOUT_ROW_MAJOR, tensor->rank,
                           value->view.dims, element_bytes(tensor));
        qn__free_aligned(plan->ctx, copy);
        value->owned = moved;
    }
    value->view.data = value->owned;
    plan->packed_bytes += value->bytes;
    return QN_OK;
}

static qn_status add_step(qn_plan *plan, uint32_t n_in, uint32_t n_out, qn_plan_step **out,
                          qn_error *error)
{
    if (!QN_GROW(plan->ctx, &plan->steps, &plan->steps_capacity, plan->n_steps))
        return QN_NOMEM(error);
    qn_plan_step *const step = &plan->steps[plan->n_steps];
    *step =
        (qn_plan_step){.op.kernels = &plan->kernels, .op.inplace_input = -1, .op.kernel_name = ""};
    step->in = qn__calloc(plan->ctx, (size_t)n_in + n_out + 1, sizeof(*step->in));
    if (step->in == NULL)
        return QN_NOMEM(error);
    step->out = step->in + n_in;
    step->n_in = n_in;
    step->n_out = n_out;
    plan->n_steps++;
    *out = step;
    return QN_OK;
}

/* The value of a tensor in a layout; made by a conversion step (once) where it is not there. */
static qn_status need_value(qn_plan *plan, const qn_tensor *tensor, qn_layout layout, uint32_t *out,
                            qn_error *error)
{
    const uint32_t known = plan->by_layout[layout][tensor->id];
    if (known != QN_NO_VALUE) {
        *out = known;
        return QN_OK;
    }
    if (tensor->constant != NULL)
        return add_constant(plan, tensor, layout, out, error);
    const uint32_t from = plan->primary[tensor->id];
    QN_FAIL_IF(from == QN_NO_VALUE, error, QN_CORRUPT, "tensor \"%s\" is read but never written",
               tensor->name);
    qn_plan_step *step;
    QN_TRY(add_step(plan, 1, 1, &step, error));
    step->op.kernel_name = layout == QN_LAYOUT_ROW_MAJOR ? "to_row_major" : "to_channels_last";
    step->op.alias = qn__layout_trivial(tensor->rank, plan->values[from].view.dims);
    step->in[0] = from;
    step->out[0] = QN_NO_VALUE;
    QN_TRY(add_value(plan, tensor, layout, out, error));
    step->out[0] = *out;
    return QN_OK;
}

/* --- steps ----------------------------------------------------------------------------------- */
static qn_layout producer_layout(const qn_plan *plan, const qn_tensor *tensor)
{
    if (tensor == NULL || tensor->constant != NULL || plan->primary[tensor->id] == QN_NO_VALUE)
        return QN_LAYOUT_ROW_MAJOR;
    return plan->values[plan->primary[tensor->id]].view.layout;
}

static qn_status check_shapes(const qn_node *node, qn_error *error)
{
    int64_t dims[QN_MAX_RANK];
    for (uint32_t i = 0; i < node->n_inputs + node->n_outputs; i++) {
        const qn_tensor *const t =
            i < node->n_inputs ? node->inputs[i] : node->outputs[i - node->n_inputs];
        QN_FAIL_IF(t != NULL && (!t->has_shape || !qn__tensor_static_dims(t, dims)), error,
                   QN_UNSUPPORTED,
                   "node \"%s\" (%s): the shape of \"%s\" is not known before running", node->name,
                   qn__op_name(node->op), t->name);
        size_t count;
        QN_FAIL_IF(t != NULL && (!qn_shape_count(&count, dims, t->rank) || count > SIZE_MAX / 64),
                   error, QN_LIMIT, "node \"%s\" (%s): tensor \"%s\" is too large", node->name,
                   qn__op_name(node->op), t->name);
    }
    return QN_OK;
}

/* A shape that the data decide is planned with its bound where only the caller sees the tensor. */
static void bound_output(qn_plan *plan, const qn_node *node)
{
    const qn_graph *const graph = plan->graph;
    qn_tensor *const t = node->outputs[0];
    int64_t dims[QN_MAX_RANK];
    bool is_output = false;
    if (!t->has_shape || qn__tensor_static_dims(t, dims))
        return;
    for (size_t i = 0; i < graph->n_outputs; i++)
        is_output = is_output || graph->outputs[i] == t;
    for (size_t i = 0; i < graph->n_nodes && is_output; i++)
        for (uint32_t k = 0; k < graph->nodes[i]->n_inputs; k++)
            is_output = is_output && graph->nodes[i]->inputs[k] != t;
    for (size_t i = 0; i < t->rank; i++) {
        dims[i] = t->dims[i].value;
        is_output = is_output && dims[i] >= 0 && t->dims[i].kind != QN_DIM_SYMBOL;
    }
    if (is_output)
        qn__tensor_set_shape(t, t->rank, dims);
}

static qn_status plan_node(qn_plan *plan, const qn_node *node, qn_error *error)
{
    QN_FAIL_IF(node->n_inputs > QN_STEP_MAX_IO || node->n_outputs > QN_STEP_MAX_IO, error, QN_LIMIT,
               "node \"%s\" (%s) has more than %d inputs or outputs", node->name,
               qn__op_name(node->op), QN_STEP_MAX_IO);
    QN_FAIL_IF(node->n_outputs == 0 || node->outputs[0] == NULL, error, QN_CORRUPT,
               "node \"%s\" (%s) has no first output", node->name, qn__op_name(node->op));
    if (node->op == QN_OP_NON_MAX_SUPPRESSION || node->op == QN_OP_NON_ZERO)
        bound_output(plan, node);
    QN_TRY(check_shapes(node, error));
    qn_step op = {.node = node,
                  .kernels = &plan->kernels,
                  .inplace_input = -1,
                  .kernel_name = qn__op_name(node->op)};
    for (uint32_t i = 0; i < node->n_inputs; i++)
        op.in_layout[i] = producer_layout(plan, node->inputs[i]);
    QN_TRY(qn__step_prepare(plan, &op, error));
    uint32_t in[QN_STEP_MAX_IO];
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < node->n_inputs && status == QN_OK; i++) {
        in[i] = QN_NO_VALUE;
        if (node->inputs[i] != NULL)
            status = need_value(plan, node->inputs[i], op.in_layout[i], &in[i], error);
    }
    qn_plan_step *step = NULL;
    if (status == QN_OK)
        status = add_step(plan, node->n_inputs, node->n_outputs, &step, error);
    if (status != QN_OK) {
        if (op.impl->release != NULL)
            op.impl->release(plan->ctx, &op);
        return status;
    }
    step->op = op;
    step->macs = qn__node_macs(node);
    memcpy(step->in, in, node->n_inputs * sizeof(*in));
    for (uint32_t i = 0; i < node->n_outputs; i++)
        step->out[i] = QN_NO_VALUE;
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i] == NULL)
            continue;
        QN_TRY(add_value(plan, node->outputs[i], op.out_layout[i], &step->out[i], error));
        plan->primary[node->outputs[i]->id] = step->out[i];
    }
    plan->packed_bytes += op.packed_bytes;
    plan->mapped_bytes += op.mapped_bytes;
    return QN_OK;
}

/* Nodes whose outputs nobody needs are not planned, unless every tensor must exist. */
static void mark_needed(const qn_plan *plan, uint8_t *needed)
{
    const qn_graph *const graph = plan->graph;
    for (size_t i = 0; i < graph->n_outputs; i++)
        needed[graph->outputs[i]->id] = 1;
    for (size_t i = graph->n_nodes; i-- > 0;) {
        const qn_node *const node = graph->nodes[i];
        bool wanted = plan->options.keep_all;
        for (uint32_t o = 0; o < node->n_outputs && !wanted; o++)
            wanted = node->outputs[o] != NULL && needed[node->outputs[o]->id];
        if (!wanted)
            continue;
        for (uint32_t o = 0; o < node->n_outputs; o++)
            if (node->outputs[o] != NULL)
                needed[node->outputs[o]->id] = 1;
        for (uint32_t k = 0; k < node->n_inputs; k++)
            if (node->inputs[k] != NULL)
                needed[node->inputs[k]->id] = 1;
    }
}

static qn_status plan_steps(qn_plan *plan, const uint8_t *needed, qn_error *error)
{
    const qn_graph *const graph = plan->graph;
    for (size_t i = 0; i < graph->n_inputs; i++) {
        const qn_tensor *const t = graph->inputs[i];
        QN_FAIL_IF(t->constant != NULL, error, QN_CORRUPT, "input \"%s\" is constant", t->name);
        QN_FAIL_IF(t->type.kind == QN_TYPE_DYNAMIC, error, QN_UNSUPPORTED,
                   "input \"%s\" has no scale", t->name);
        QN_TRY(add_value(plan, t, QN_LAYOUT_ROW_MAJOR, &plan->inputs[i], error));
        plan->primary[t->id] = plan->inputs[i];
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        bool wanted = false;
        for (uint32_t o = 0; o < graph->nodes[i]->n_outputs && !wanted; o++)
            wanted = graph->nodes[i]->outputs[o] != NULL && needed[graph->nodes[i]->outputs[o]->id];
        if (wanted)
            QN_TRY(plan_node(plan, graph->nodes[i], error));
    }
    for (size_t i = 0; i < graph->n_outputs; i++)
        QN_TRY(need_value(plan, graph->outputs[i], QN_LAYOUT_ROW_MAJOR, &plan->outputs[i], error));
    return QN_OK;
}

/* --- sharing and placing memory -------------------------------------------------------------- */
/* Step s happens at time s + 1; inputs are written at time 0. */
static void find_last_uses(const qn_plan *plan, uint32_t *last, uint32_t *uses)
{
    for (size_t s = 0; s < plan->n_steps; s++) {
        const qn_plan_step *const step = &plan->steps[s];
        for (uint32_t i = 0; i < step->n_out; i++)
            if (step->out[i] != QN_NO_VALUE)
                last[step->out[i]] = (uint32_t)s + 1;
        for (uint32_t i = 0; i < step->n_in; i++)
            if (step->in[i] != QN_NO_VALUE) {
                last[step->in[i]] = (uint32_t)s + 1;
                uses[step->in[i]]++;
            }
    }
    for (size_t i = 0; i < plan->graph->n_outputs; i++)
        last[plan->outputs[i]] = (uint32_t)plan->n_steps + 1;
}

/* Another input in the same memory (not the very same value) would be overwritten while read. */
static bool sole_reader_of_root(qn_plan *plan, const qn_plan_step *step, uint32_t value)
{
    for (uint32_t i = 0; i < step->n_in; i++)
        if (step->in[i] != QN_NO_VALUE && step->in[i] != value &&
            qn__plan_root(plan, step->in[i]) == qn__plan_root(plan, value))
            return false;
    return true;
}

static bool can_share(qn_plan *plan, const qn_plan_step *step, uint32_t from, uint32_t to,
                      uint32_t now)
{
    const qn_value *const root = &plan->values[qn__plan_root(plan, from)];
    if (root->is_constant) /* a hook may write to what it is shown */
        return false;
    const bool dies = root->last <= now;
    if (step->op.alias) /* with hooks that change values a shared tensor must not change another */
        return plan->values[to].bytes == plan->values[from].bytes &&
               (dies || !plan->options.keep_all);
    return dies && plan->values[to].bytes <= root->bytes && sole_reader_of_root(plan, step, from);
}

static void share_memory(qn_plan *plan, const uint32_t *last, const uint32_t *uses)
{
    for (size_t v = 0; v < plan->n_values; v++)
        plan->values[v].last = last[v];
    for (size_t s = 0; s < plan->n_steps; s++) {
        qn_plan_step *const step = &plan->steps[s];
        const uint32_t now = (uint32_t)s + 1;
        for (uint32_t i = 0; i < step->n_out; i++)
            if (step->out[i] != QN_NO_VALUE)
                plan->values[step->out[i]].first = now;
        qn__plan_join(plan, step, now, uses);
        qn__plan_fuse(plan, step, now, uses);
        const int source = step->op.alias ? 0 : step->op.inplace_input;
        if (source < 0 || (uint32_t)source >= step->n_in || step->in[source] == QN_NO_VALUE ||
            step->out[0] == QN_NO_VALUE)
            continue;
        const uint32_t from = step->in[source], to = step->out[0];
        if (!can_share(plan, step, from, to, now))
            continue;
        const uint32_t root = qn__plan_root(plan, from);
        plan->values[root].shares = true;
        plan->values[to].root = root;
        plan->values[to].at = plan->values[from].at;
        if (last[to] > plan->values[root].last)
            plan->values[root].last = last[to];
        step->skip = step->op.alias;
    }
    for (size_t v = 0; v < plan->n_values; v++)
        qn__plan_root(plan, (uint32_t)v);
}

/* Inputs that are only read need no copy: whatever lies in their memory is they themselves. */
static void find_borrowed(qn_plan *plan)
{
    for (size_t i = 0; i < plan->graph->n_inputs; i++)
        plan->values[plan->inputs[i]].borrows = true;
    for (size_t s = 0; s < plan->n_steps; s++) {
        const qn_plan_step *const step = &plan->steps[s];
        for (uint32_t i = 0; i < step->n_out && !step->skip; i++)
            if (step->out[i] != QN_NO_VALUE)
                plan->values[plan->values[step->out[i]].root].borrows = false;
    }
    for (size_t i = 0; i < plan->graph->n_outputs; i++)
        plan->values[plan->values[plan->outputs[i]].root].borrows = false;
}

static qn_status place_values(qn_plan *plan, qn_error *error)
{
    const size_t room = plan->n_values + plan->n_steps + 1;
    qn_mem_item *const items = qn__calloc(plan->ctx, room, sizeof(*items));
    uint32_t *const owners = qn__calloc(plan->ctx, plan->n_values + 1, sizeof(*owners));
    const size_t times = plan->n_steps + 3; /* after the last output's last use */
    uint64_t *const change = qn__calloc(plan->ctx, times, sizeof(*change));
    qn_status status = QN_OK;
    size_t n = 0;
    if (items == NULL || owners == NULL || change == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t v = 0; v < plan->n_values; v++) {
        const qn_value *const value = &plan->values[v];
        if (value->is_constant || value->root != v)
            continue;
        items[n] = (qn_mem_item){.bytes = value->bytes, .first = value->first, .last = value->last};
        owners[n++] = (uint32_t)v;
    }
    const size_t n_values = n; /* then what steps need for themselves */
    for (size_t s = 0; s < plan->n_steps; s++) {
        const uint32_t now = (uint32_t)s + 1;
        if (plan->steps[s].op.scratch_bytes > 0 && !plan->steps[s].skip)
            items[n++] =
                (qn_mem_item){.bytes = plan->steps[s].op.scratch_bytes, .first = now, .last = now};
    }
    plan->live_bytes = qn__memory_bound(items, n, change, times);
    QN_TRY_GOTO(qn__memory_plan(plan->ctx, items, n, plan->live_bytes, &plan->arena_bytes, error));
    for (size_t i = 0; i < n_values; i++)
        plan->values[owners[i]].offset = items[i].offset;
    for (size_t i = n_values; i < n; i++)
        plan->steps[items[i].first - 1].scratch_at = items[i].offset;
    if (plan->arena_bytes > plan->ctx->limits.arena_bytes)
        QN_FAIL_GOTO(error, QN_LIMIT, "activations need %zu bytes, more than the limit of %llu",
                     plan->arena_bytes, (unsigned long long)plan->ctx->limits.arena_bytes);
done:
    qn__free(plan->ctx, items);
    qn__free(plan->ctx, owners);
    qn__free(plan->ctx, change);
    return status;
}

static qn_status lay_out(qn_plan *plan, qn_error *error)
{
    uint32_t *const last = qn__calloc(plan->ctx, plan->n_values + 1, 2 * sizeof(*last));
    if (last == NULL)
        return QN_NOMEM(error);
    uint32_t *const uses = last + plan->n_values;
    find_last_uses(plan, last, uses);
    share_memory(plan, last, uses);
    find_borrowed(plan);
    qn__free(plan->ctx, last);
    return place_values(plan, error);
}

/* --- whole ----------------------------------------------------------------------------------- */
static qn_status make_tables(qn_plan *plan, qn_error *error)
{
    const qn_graph *const graph = plan->graph;
    uint32_t **const tables[] = {&plan->by_layout[0], &plan->by_layout[1], &plan->primary};
    for (size_t k = 0; k < 3; k++) {
        *tables[k] = qn__calloc(plan->ctx, graph->n_tensors + 1, sizeof(uint32_t));
        if (*tables[k] == NULL)
            return QN_NOMEM(error);
        memset(*tables[k], 0xFF, (graph->n_tensors + 1) * sizeof(uint32_t));
    }
    plan->inputs = qn__calloc(plan->ctx, graph->n_inputs + 1, sizeof(uint32_t));
    plan->outputs = qn__calloc(plan->ctx, graph->n_outputs + 1, sizeof(uint32_t));
    return plan->inputs != NULL && plan->outputs != NULL ? QN_OK : QN_NOMEM(error);
}

/* Tells each step which packed weights are read next: of a product that uses each of them once all
 * that a second-level cache has room for, as it waits for nothing else, of others what they begin
 * with. */
static void look_ahead(qn_plan *plan)
{
    enum { BEGIN = 512 << 10, MOST = 1344 << 10 };
    for (size_t s = plan->n_steps; s-- > 1;) {
        const qn_plan_step *const next = &plan->steps[s];
        const bool packed = next->op.weights != NULL;
        plan->steps[s - 1].ahead = packed ? next->op.weights : next->ahead;
        const size_t bytes = next->op.packed_bytes;
        const bool once = next->macs <= bytes && bytes <= MOST;
        plan->steps[s - 1].ahead_bytes = !packed                 ? next->ahead_bytes
                                         : once || bytes < BEGIN ? bytes
                                                                 : BEGIN;
    }
}

/* Packed weights of 8 bits take an eighth more than the constants. Where they fill large pages they
 * get them; without memory for that each is packed into its own. */
static void make_room(qn_plan *plan)
{
    const qn_graph *const graph = plan->graph;
    size_t bytes = 0;
    for (size_t i = 0; i < graph->n_tensors; i++) {
        const qn_tensor *const t = graph->tensors[i];
        if (t->constant != NULL && t->type.kind == QN_TYPE_QUANT &&
            qn__dtype_bits(t->type.dtype) == 8 &&
            !qn_add_size(&bytes, bytes, t->constant->size_bytes))
            return;
    }
    if (bytes < QN_LARGE_PAGE || qn__plan_packed(plan) != NULL || bytes > SIZE_MAX / 2)
        return;
    for (size_t i = 0; i < graph->n_tensors; i++)
        if (graph->tensors[i]->constant != NULL)
            qn__will_read(graph->tensors[i]->constant->data,
                          graph->tensors[i]->constant->size_bytes);
    bytes += bytes / 8;
    qn_packed_room *const room = qn__calloc(plan->ctx, 1, sizeof(*room));
    if (room == NULL)
        return;
    room->memory = qn__alloc_aligned(plan->ctx, bytes + QN_LARGE_PAGE);
    if (room->memory == NULL) {
        qn__free(plan->ctx, room);
        return;
    }
    uint8_t *const memory = room->memory;
    room->at = memory + (QN_LARGE_PAGE - (uintptr_t)memory % QN_LARGE_PAGE) % QN_LARGE_PAGE;
    room->end = room->at + bytes;
    qn__large_pages(room->at, bytes);
    plan->room = room;
}

uint8_t *qn__plan_packed_room(const qn_plan *plan, size_t bytes)
{
    qn_packed_room *const room = plan->room;
    if (room == NULL || bytes > (size_t)(room->end - room->at))
        return NULL;
    uint8_t *const at = room->at;
    room->at += bytes < (size_t)(room->end - at) / 64 * 64 ? (bytes + 63) / 64 * 64 : bytes;
    return at;
}

static qn_status build(qn_plan *plan, qn_error *error)
{
    QN_TRY(make_tables(plan, error));
    make_room(plan);
    uint8_t *const needed = qn__calloc(plan->ctx, plan->graph->n_tensors + 1, 1);
    if (needed == NULL)
        return QN_NOMEM(error);
    mark_needed(plan, needed);
    const qn_status status = plan_steps(plan, needed, error);
    qn__free(plan->ctx, needed);
    QN_TRY(status);
    look_ahead(plan);
    return lay_out(plan, error);
}

qn_status qn__plan_make(const qn_graph *graph, const qn_graph *source,
                        const qn_plan_options *options, qn_plan **out, qn_error *error)
{
    qn_plan *const plan = qn__calloc(graph->ctx, 1, sizeof(*plan));
    if (plan == NULL)
        return QN_NOMEM(error);
    plan->ctx = graph->ctx;
    plan->source = source;
    plan->graph = graph;
    if (options != NULL)
        plan->options = *options;
    else
        qn__plan_options_init(&plan->options, graph->ctx);
    plan->options.input_dims = NULL; /* borrowed for the call only */
    if (plan->options.kernels != NULL)
        plan->kernels = *plan->options.kernels;
    else
        qn__kernels_init(&plan->kernels, plan->options.cpu_flags);
    plan->options.kernels = NULL;
    if (plan->options.collect != NULL) {
        const qn_packing_form *const form = plan->options.collect_for;
        plan->kernels.q8_igemm.nr = form->nr;
        plan->kernels.q8_igemm.kr = form->kr;
        plan->kernels.q8_igemm.pairs = form->pairs;
        plan->kernels.q8_dwconv.block = form->block;
        plan->kernels.q8_dwconv.least = form->least;
        plan->kernels.f32_igemm.nr = form->f32_nr;
        plan->kernels.f32_ints.nr = form->ints_nr;
        plan->options.collect_for = NULL; /* borrowed for the call only, too */
    }
    const qn_status status = build(plan, error);
    if (status != QN_OK) {
        qn__plan_destroy(plan);
        return status;
    }
    *out = plan;
    return QN_OK;
}

qn_status qn__plan_create_static(const qn_graph *graph, const qn_plan_options *options,
                                 qn_plan **out, qn_error *error)
{
    const qn_status status = qn__plan_make(graph, graph, options, out, error);
    return status != QN_OK && graph->file != NULL
               ? qn__error_prefix(error, status, "%s", graph->file)
               : status;
}

void qn__plan_destroy(qn_plan *plan)
{
    if (plan == NULL)
        return;
    const qn_context *const ctx = plan->ctx;
    for (size_t i = 0; i < plan->n_steps; i++) {
        qn_plan_step *const step = &plan->steps[i];
        if (step->op.impl != NULL && step->op.impl->release != NULL)
            step->op.impl->release(ctx, &step->op);
        qn__free(ctx, step->in);
    }
    for (size_t i = 0; i < plan->n_values; i++)
        qn__free_aligned(ctx, plan->values[i].owned);
    qn__free(ctx, plan->steps);
    qn__free(ctx, plan->values);
    qn__free(ctx, plan->by_layout[0]);
    qn__free(ctx, plan->by_layout[1]);
    qn__free(ctx, plan->primary);
    qn__free(ctx, plan->inputs);
    qn__free(ctx, plan->outputs);
    if (plan->room != NULL)
        qn__free_aligned(ctx, plan->room->memory);
    qn__free(ctx, plan->room);
    qn__graph_destroy(plan->bound);
    qn__free(ctx, plan);
}

size_t qn__plan_arena_bytes(const qn_plan *plan)
{
    return plan->arena_bytes;
}

void qn__plan_memory(const qn_plan *plan, qn_plan_memory *out)
{
    *out = (qn_plan_memory){plan->arena_bytes, plan->live_bytes, plan->packed_bytes};
}

size_t qn__plan_packed_bytes(const qn_plan *plan)
{
    return plan->packed_bytes;
}

size_t qn__plan_mapped_bytes(const qn_plan *plan)
{
    return plan->mapped_bytes;
}

const qn_packed_store *qn__plan_packed(const qn_plan *plan)
{
    const qn_graph *const graph = plan->graph;
    return graph != NULL && graph->source != NULL ? graph->source->packed : NULL;
}
