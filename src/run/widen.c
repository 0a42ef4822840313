/* Nodes on float16, bfloat16 and double whose operator knows float32 only, and nodes on quantized
 * tensors that no operator on integers takes (pools over four axes, linear Resize of three):
 * inputs are converted, the operator computes in float32, results are rounded back. */
#include "run/nd.h"
#include "run/plan.h"

#include <string.h>

typedef struct widened {
    qn_step inner;
    qn_node node;
    qn_tensor *tensors;   /* the node's, with float32 where something is converted */
    qn_tensor **pointers; /* inputs, then outputs */
    size_t *offsets;      /* of each tensor's float32 values in scratch; SIZE_MAX: used as it is */
} widened;

static bool is_quant(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_QUANT;
}

static bool is_wide(const qn_node *node, const qn_tensor *t)
{
    if (t == NULL || t->type.kind == QN_TYPE_DYNAMIC)
        return false;
    if (is_quant(t))
        return true;
    switch (t->type.dtype) {
    case QN_DTYPE_F16:
    case QN_DTYPE_BF16:
    case QN_DTYPE_F64:
        return true;
    case QN_DTYPE_I8:
    case QN_DTYPE_U8: /* exact in float32, and only selected or bounded there */
        return node->op == QN_OP_MAX_POOL || node->op == QN_OP_CLIP;
    default:
        return false;
    }
}

static qn_tensor *tensor_at(const qn_node *node, uint32_t i)
{
    return i < node->n_inputs ? node->inputs[i] : node->outputs[i - node->n_inputs];
}

static void release(const qn_context *ctx, qn_step *step)
{
    widened *const w = step->state;
    if (w == NULL)
        return;
    if (w->inner.impl != NULL && w->inner.impl->release != NULL)
        w->inner.impl->release(ctx, &w->inner);
    for (uint32_t i = 0; w->tensors != NULL && w->offsets != NULL && i < w->node.n_inputs; i++)
        if (w->offsets[i] != SIZE_MAX)
            qn__blob_unref(w->tensors[i].constant);
    qn__free(ctx, w->tensors);
    qn__free(ctx, w->pointers);
    qn__free(ctx, w->offsets);
    qn__free(ctx, w);
    step->state = NULL;
}

static qn_status widen_constant(const qn_plan *plan, const qn_tensor *from, qn_tensor *to,
                                qn_error *error)
{
    const size_t count = qn__tensor_elements(from);
    size_t bytes, need;
    void *data;
    to->constant = NULL;
    if (!qn__dtype_bytes(&need, from->type.dtype, count) || need > from->constant->size_bytes ||
        !qn_mul_size(&bytes, count, sizeof(float)))
        QN_FAIL(error, QN_CORRUPT, "constant \"%s\" is too short", from->name);
    to->constant = qn__blob_create(plan->ctx, bytes, &data);
    if (to->constant == NULL)
        return QN_NOMEM(error);
    qn_view view = {
        .tensor = from, .rank = from->rank, .count = count, .data = (void *)from->constant->data};
    qn__tensor_dims(from, view.dims);
    qn__view_to_f32(&view, data);
    return QN_OK;
}

/* Copies of the node and its tensors, and where their float32 values go. */
static qn_status copy_node(const qn_plan *plan, const qn_node *node, widened *w, size_t *scratch,
                           qn_error *error)
{
    const uint32_t n = node->n_inputs + node->n_outputs;
    w->node = *node;
    w->tensors = qn__calloc(plan->ctx, n, sizeof(*w->tensors));
    w->pointers = qn__calloc(plan->ctx, n, sizeof(qn_tensor *));
    w->offsets = qn__calloc(plan->ctx, n, sizeof(*w->offsets));
    if (w->tensors == NULL || w->pointers == NULL || w->offsets == NULL)
        return QN_NOMEM(error);
    memset(w->offsets, 0xFF, n * sizeof(*w->offsets));
    w->node.inputs = w->pointers;
    w->node.outputs = w->pointers + node->n_inputs;
    for (uint32_t i = 0; i < n; i++) {
        const qn_tensor *const t = tensor_at(node, i);
        if (t == NULL)
            continue;
        w->tensors[i] = *t;
        w->pointers[i] = &w->tensors[i];
        if (!is_wide(node, t))
            continue;
        w->offsets[i] = 0;
        w->tensors[i].type = qn_type_plain_make(QN_DTYPE_F32);
        if (t->constant != NULL) {
            QN_TRY(widen_constant(plan, t, &w->tensors[i], error));
            continue;
        }
        size_t bytes;
        if (!qn_mul_size(&bytes, qn__tensor_elements(t), sizeof(float)) ||
            bytes > SIZE_MAX / 4 - *scratch)
            QN_FAIL(error, QN_LIMIT, "tensor \"%s\" is too large", t->name);
        w->offsets[i] = *scratch;
        *scratch += (bytes + 63) & ~(size_t)63;
    }
    return QN_OK;
}

/* Elements in the order in which they lie, which has nothing to do with what they mean. */
static qn_view in_order(const qn_view *view)
{
    return (qn_view){.tensor = view->tensor,
                     .rank = 1,
                     .dims = {(int64_t)view->count},
                     .count = view->count,
                     .data = view->data};
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    const widened *const w = step->state;
    const uint32_t n_in = w->node.n_inputs, n = n_in + w->node.n_outputs;
    qn_view views[2 * QN_STEP_MAX_IO];
    memset(views, 0, n * sizeof(*views));
    uint8_t *const floats = (uint8_t *)env->scratch + ((w->inner.scratch_bytes + 63) & ~(size_t)63);
    for (uint32_t i = 0; i < n; i++) {
        if (w->pointers[i] == NULL)
            continue;
        const qn_view *const from = i < n_in ? &in[i] : &out[i - n_in];
        views[i] = *from;
        views[i].tensor = w->pointers[i];
        if (w->offsets[i] == SIZE_MAX)
            continue;
        if (w->tensors[i].constant != NULL && from->layout == QN_LAYOUT_ROW_MAJOR) {
            views[i].data = (void *)w->tensors[i].constant->data;
            continue;
        }
        views[i].data = floats + w->offsets[i];
        if (i < n_in) {
            const qn_view flat = in_order(from);
            qn__view_to_f32(&flat, views[i].data);
        }
    }
    const qn_run_env inner = {
        .plan = env->plan, .pool = env->pool, .scratch = env->scratch, .out_dims = env->out_dims};
    QN_TRY(w->inner.impl->run(&w->inner, &inner, views, views + n_in, error));
    for (uint32_t i = n_in; i < n; i++) {
        const qn_view flat = in_order(&out[i - n_in]);
        if (w->pointers[i] != NULL && w->offsets[i] != SIZE_MAX)
            qn__view_from_f32(&flat, views[i].data);
    }
    return QN_OK;
}

static const qn_run_op WIDENED = {QN_OP_NONE, NULL, run, release};

static qn_status widen(const qn_plan *plan, qn_step *step, const qn_run_op *impl, qn_error *error)
{
    const qn_node *const node = step->node;
    widened *const w = qn__calloc(plan->ctx, 1, sizeof(*w));
    size_t scratch = 0;
    if (w == NULL)
        return QN_NOMEM(error);
    step->state = w;
    step->impl = &WIDENED;
    w->inner = *step;
    w->inner.state = NULL;
    w->inner.impl = NULL;
    w->inner.node = &w->node;
    w->inner.inplace_input = -1;
    w->inner.alias = false;
    w->inner.scratch_bytes = 0;
    qn_status status = copy_node(plan, node, w, &scratch, error);
    if (status == QN_OK && is_quant(qn__step_input(step, 0)))
        status = qn__node_impl(&w->node, &impl, error); /* not the one on integers */
    if (status == QN_OK) {
        w->inner.impl = impl;
        status = impl->prepare(plan, &w->inner, error);
        if (status != QN_OK) /* has cleaned up after itself */
            w->inner.impl = NULL;
        /* A constant in another layout than it has is converted when running. */
        for (uint32_t i = 0; status == QN_OK && i < node->n_inputs; i++) {
            const qn_tensor *const t = node->inputs[i];
            if (t == NULL || t->constant == NULL || w->offsets[i] == SIZE_MAX ||
                w->inner.in_layout[i] == QN_LAYOUT_ROW_MAJOR)
                continue;
            if (is_quant(t)) /* scales may follow an axis */
                status = QN_UNSUPPORTED;
            w->offsets[i] = scratch;
            scratch += (qn__tensor_elements(t) * sizeof(float) + 63) & ~(size_t)63;
        }
    }
    if (status != QN_OK) {
        release(plan->ctx, step);
        return status;
    }
    memcpy(step->in_layout, w->inner.in_layout, sizeof(step->in_layout));
    memcpy(step->out_layout, w->inner.out_layout, sizeof(step->out_layout));
    step->kernel_name = w->inner.kernel_name;
    step->packed_bytes = w->inner.packed_bytes;
    step->scratch_bytes = ((w->inner.scratch_bytes + 63) & ~(size_t)63) + scratch;
    step->resizes = w->inner.resizes;
    step->inplace_input = -1;
    step->alias = false;
    return QN_OK;
}

qn_status qn__step_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_step before = *step;
    bool wide = false, fits = true;
    QN_TRY(qn__node_impl(node, &step->impl, error));
    const qn_run_op *const other =
        plan->options.instead != NULL ? plan->options.instead(node) : NULL;
    const qn_run_op *const impl = step->impl = other != NULL ? other : step->impl;
    const qn_status status = impl->prepare(plan, step, error);
    if (status != QN_UNSUPPORTED)
        return status;
    for (uint32_t i = 0; i < node->n_inputs + node->n_outputs; i++) {
        const qn_tensor *const t = tensor_at(node, i);
        wide = wide || is_wide(node, t);
        /* (targets that requantize in integers do nothing in float32) */
        fits = fits && (!is_quant(t) || (qn__plan_requantize(plan) == QN_REQUANTIZE_DEFAULT &&
                                         (t->constant != NULL || t->type.quant->axis < 0)));
    }
    if (!wide || !fits)
        return status;
    qn_error again = {0};
    *step = before;
    const qn_status second = widen(plan, step, impl, &again);
    if (second == QN_UNSUPPORTED)
        return status; /* the first reason says more */
    if (second != QN_OK && error != NULL)
        *error = again;
    return second;
}
