/* MatMul of matrices followed by Add of a constant bias vector is Gemm: same products, same sums,
 * one rounding place fewer to quantize. */
#include "pass/pass.h"

#include "core/context.h"

static bool plain_f32(const qn_tensor *tensor)
{
    return tensor != NULL && tensor->type.kind == QN_TYPE_PLAIN &&
           tensor->type.dtype == QN_DTYPE_F32;
}

/* [n] or [1, n] */
static bool is_bias(const qn_tensor *tensor, int64_t n)
{
    int64_t dims[QN_MAX_RANK];
    if (!plain_f32(tensor) || tensor->constant == NULL || !qn__tensor_static_dims(tensor, dims))
        return false;
    return (tensor->rank == 1 && dims[0] == n) ||
           (tensor->rank == 2 && dims[0] == 1 && dims[1] == n);
}

/* The MatMul that `add` can join, and its bias. */
static qn_node *match(const qn_node *add, const qn_uses *uses, qn_tensor **bias)
{
    if (add->op != QN_OP_ADD || add->n_inputs != 2 || add->act != QN_ACT_NONE ||
        add->n_outputs != 1 || !plain_f32(add->outputs[0]))
        return NULL;
    for (uint32_t k = 0; k < 2; k++) {
        qn_node *matmul = qn__pass_sole_producer(uses, add->inputs[k]);
        if (matmul == NULL || matmul->op != QN_OP_MATMUL || matmul->act != QN_ACT_NONE ||
            matmul->n_inputs != 2)
            continue;
        const qn_tensor *a = matmul->inputs[0], *b = matmul->inputs[1];
        if (!plain_f32(a) || !plain_f32(b) || !plain_f32(add->inputs[k]) || !a->has_shape ||
            !b->has_shape || a->rank != 2 || b->rank != 2 || b->dims[1].kind != QN_DIM_CONST ||
            !is_bias(add->inputs[1 - k], b->dims[1].value))
            continue;
        *bias = add->inputs[1 - k];
        return matmul;
    }
    return NULL;
}

static bool join(qn_graph *graph, qn_node *matmul, qn_node *add, qn_tensor *bias)
{
    qn_tensor **inputs = qn__arena_calloc(&graph->arena, 3, sizeof(*inputs));
    if (inputs == NULL || !qn__node_add_sources(graph, matmul, add))
        return false;
    inputs[0] = matmul->inputs[0];
    inputs[1] = matmul->inputs[1];
    inputs[2] = bias;
    matmul->inputs = inputs;
    matmul->n_inputs = 3;
    matmul->op = QN_OP_GEMM;
    qn__pass_take_output(matmul, add);
    return true;
}

qn_status qn__pass_matmul_bias(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    (void)options;
    qn_status status = QN_OK;
    qn_uses uses = {0};
    uint8_t *remove = NULL;
    QN_TRY(qn__uses_build(graph, &uses, error));
    remove = qn__calloc(graph->ctx, (size_t)graph->next_node_id + 1, 1);
    if (remove == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        qn_tensor *bias = NULL;
        qn_node *add = graph->nodes[i], *matmul = match(add, &uses, &bias);
        if (matmul == NULL)
            continue;
        if (!join(graph, matmul, add, bias)) {
            status = QN_NOMEM(error);
            goto done;
        }
        remove[add->id] = 1;
    }
    qn__graph_remove_marked(graph, remove);
done:
    qn__uses_free(&uses);
    qn__free(graph->ctx, remove);
    return status;
}
