/* Constant folding with the executor's own operators, one forward walk with shape inference. */
#include "ir/infer.h"
#include "run/nd.h"
#include "run/plan.h"

#include <string.h>

/* Enough of a plan for an operator to prepare and run one node. */
typedef struct folder {
    qn_plan plan;
    qn_graph *graph;
    size_t max_bytes;
} folder;

static bool static_bytes(const qn_tensor *t, size_t *bytes)
{
    int64_t dims[QN_MAX_RANK];
    size_t count;
    return t->has_shape && t->type.dtype != QN_DTYPE_NONE && t->type.kind != QN_TYPE_DYNAMIC &&
           qn__tensor_static_dims(t, dims) && qn_shape_count(&count, dims, t->rank) &&
           qn__dtype_bytes(bytes, t->type.dtype, count);
}

/* Elements of less than a byte are moved by Cast only. */
static bool packed_bits(const qn_node *node, const qn_tensor *t)
{
    return qn__dtype_bits(t->type.dtype) < 8 && node->op != QN_OP_CAST &&
           node->op != QN_OP_CAST_LIKE;
}

static size_t data_bytes(const qn_tensor *t)
{
    size_t bytes = 0;
    static_bytes(t, &bytes);
    return bytes;
}

static bool foldable(const folder *f, const qn_node *node)
{
    const bool only_shape = node->op == QN_OP_SHAPE || node->op == QN_OP_SIZE;
    if (node->n_inputs > QN_STEP_MAX_IO || node->n_outputs > QN_STEP_MAX_IO || node->n_outputs == 0)
        return false;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_tensor *const t = node->inputs[i];
        size_t bytes;
        if (t == NULL)
            continue;
        if (packed_bits(node, t))
            return false;
        if (only_shape ? !static_bytes(t, &bytes) : t->constant == NULL)
            return false;
        if (!only_shape && (!static_bytes(t, &bytes) || bytes > t->constant->size_bytes))
            return false;
    }
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        size_t bytes;
        const qn_tensor *const t = node->outputs[i];
        if (t != NULL && (!static_bytes(t, &bytes) || bytes > f->max_bytes || packed_bits(node, t)))
            return false;
    }
    return node->outputs[0] != NULL;
}

/* Buffers of one evaluation, freed together. */
typedef struct evaluation {
    qn_step step;
    qn_view in[QN_STEP_MAX_IO], out[QN_STEP_MAX_IO];
    void *buffers[2 * QN_STEP_MAX_IO + 1];
    size_t n_buffers;
} evaluation;

static void *new_buffer(const folder *f, evaluation *e, size_t bytes)
{
    void *const buffer = qn__alloc_aligned(f->plan.ctx, bytes + 64);
    if (buffer != NULL)
        e->buffers[e->n_buffers++] = buffer;
    return buffer;
}

static qn_view view_of(const qn_tensor *t, qn_layout layout)
{
    qn_view view = {
        .tensor = t, .layout = layout, .rank = t->rank, .count = qn__tensor_elements(t)};
    qn__tensor_dims(t, view.dims);
    return view;
}

static qn_status set_inputs(const folder *f, evaluation *e, qn_error *error)
{
    const qn_node *const node = e->step.node;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_tensor *const t = node->inputs[i];
        if (t == NULL)
            continue;
        e->in[i] = view_of(t, e->step.in_layout[i]);
        if (t->constant == NULL)
            continue; /* Shape and Size read dims only */
        const size_t elem_bytes = qn__dtype_bits(t->type.dtype) / 8;
        void *const data = new_buffer(f, e, data_bytes(t));
        if (data == NULL)
            return QN_NOMEM(error);
        memcpy(data, t->constant->data, data_bytes(t));
        e->in[i].data = data;
        if (e->in[i].layout == QN_LAYOUT_ROW_MAJOR)
            continue;
        void *const moved = new_buffer(f, e, e->in[i].count * elem_bytes);
        if (moved == NULL)
            return QN_NOMEM(error);
        qn__convert_layout(NULL, moved, e->in[i].layout, data, QN_LAYOUT_ROW_MAJOR, t->rank,
                           e->in[i].dims, elem_bytes);
        e->in[i].data = moved;
    }
    return QN_OK;
}

static qn_status store_outputs(const folder *f, const evaluation *e, qn_error *error)
{
    const qn_node *const node = e->step.node;
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        qn_tensor *const t = node->outputs[i];
        if (t == NULL)
            continue;
        const size_t elem_bytes = qn__dtype_bits(t->type.dtype) / 8;
        void *data;
        qn_blob *const blob = qn__blob_create(f->plan.ctx, data_bytes(t), &data);
        if (blob == NULL)
            return QN_NOMEM(error);
        if (elem_bytes == 0)
            memcpy(data, e->out[i].data, data_bytes(t));
        else
            qn__convert_layout(NULL, data, QN_LAYOUT_ROW_MAJOR, e->out[i].data, e->out[i].layout,
                               t->rank, e->out[i].dims, elem_bytes);
        qn__tensor_set_constant(t, blob);
        qn__blob_unref(blob);
    }
    return QN_OK;
}

static qn_status run_once(const folder *f, evaluation *e, qn_error *error)
{
    const qn_node *const node = e->step.node;
    QN_TRY(set_inputs(f, e, error));
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i] == NULL)
            continue;
        e->out[i] = view_of(node->outputs[i], e->step.out_layout[i]);
        e->out[i].data = new_buffer(f, e, data_bytes(node->outputs[i]));
        if (e->out[i].data == NULL)
            return QN_NOMEM(error);
    }
    void *const scratch = qn__alloc_aligned(f->plan.ctx, e->step.scratch_bytes + 64);
    if (scratch == NULL)
        return QN_NOMEM(error);
    int64_t dims[1][QN_MAX_RANK]; /* what is folded has the shape it was planned with */
    memcpy(dims[0], e->out[0].dims, sizeof(dims[0]));
    const qn_run_env env = {.plan = &f->plan, .scratch = scratch, .out_dims = dims};
    const qn_status status = e->step.impl->run(&e->step, &env, e->in, e->out, error);
    qn__free_aligned(f->plan.ctx, scratch);
    QN_TRY(status);
    return store_outputs(f, e, error);
}

static qn_status evaluate(const folder *f, qn_node *node, qn_error *error)
{
    evaluation *const e = qn__calloc(f->plan.ctx, 1, sizeof(*e));
    if (e == NULL)
        return QN_NOMEM(error);
    e->step = (qn_step){.node = node, .kernels = &f->plan.kernels, .inplace_input = -1};
    qn_status status = qn__step_prepare(&f->plan, &e->step, error);
    if (status == QN_OK) {
        status = run_once(f, e, error);
        if (e->step.impl->release != NULL)
            e->step.impl->release(f->plan.ctx, &e->step);
    }
    for (size_t i = 0; i < e->n_buffers; i++)
        qn__free_aligned(f->plan.ctx, e->buffers[i]);
    qn__free(f->plan.ctx, e);
    return status;
}

qn_status qn__graph_resolve(qn_graph *graph, size_t max_bytes, qn_error *error)
{
    folder *const f = qn__calloc(graph->ctx, 1, sizeof(*f));
    uint8_t *const folded = qn__calloc(graph->ctx, graph->next_node_id + (size_t)1, 1);
    if (f == NULL || folded == NULL) {
        qn__free(graph->ctx, f);
        qn__free(graph->ctx, folded);
        return QN_NOMEM(error);
    }
    f->plan.ctx = graph->ctx;
    f->plan.graph = f->plan.source = graph; /* which also says how it requantizes */
    qn__plan_options_init(&f->plan.options, graph->ctx);
    qn__kernels_init(&f->plan.kernels, graph->ctx->cpu_flags);
    f->graph = graph;
    f->max_bytes = max_bytes;
    qn_status status = QN_OK;
    for (size_t i = 0; i < graph->n_nodes && status == QN_OK; i++) {
        qn_node *const node = graph->nodes[i];
        qn_infer in = {graph, node};
        status = qn__infer_find(node->op)(&in, error);
        bool fold = status == QN_OK && foldable(f, node);
        if (fold) {
            status = evaluate(f, node, error);
            /* What cannot be executed here may still be meant for another runtime. */
            if (status == QN_UNSUPPORTED) {
                status = QN_OK;
                fold = false;
            }
        }
        if (!fold || status != QN_OK)
            continue;
        folded[node->id] = 1;
        for (uint32_t o = 0; o < node->n_outputs; o++)
            if (node->outputs[o] != NULL)
                node->outputs[o]->producer = NULL;
    }
    qn__graph_remove_marked(graph, folded);
    qn__free(graph->ctx, folded);
    qn__free(graph->ctx, f);
    return status;
}
