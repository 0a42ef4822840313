/* BatchNormalization, and Mul, Add, Sub, Div with a constant per channel, go into the weights of
 * the Conv, ConvTranspose or Gemm before them. One walk takes chains of them, too. */
#include "pass/pass.h"

#include "core/context.h"

#include <math.h>

/* Each fold copies the weights; a hostile chain must not make that quadratic in the file's size. */
#define MAX_FOLDS 64

/* A constant that has one value, or one per index of axis 1 of x. */
static bool per_channel(const qn_tensor *constant, const qn_tensor *x, size_t n)
{
    int64_t dims[QN_MAX_RANK];
    if (constant == NULL || constant->constant == NULL || constant->type.kind != QN_TYPE_PLAIN ||
        constant->type.dtype != QN_DTYPE_F32 || !qn__tensor_static_dims(constant, dims) ||
        constant->rank > x->rank)
        return false;
    for (size_t i = 0; i < constant->rank; i++) {
        const size_t axis = x->rank - constant->rank + i;
        if (dims[i] != 1 && (axis != 1 || dims[i] != (int64_t)n))
            return false;
    }
    return true;
}

static qn_status affine_of_binary(qn_graph *graph, const qn_node *node, uint32_t x_index,
                                  qn_affine *out, bool *ok, qn_error *error)
{
    *ok = false;
    const qn_tensor *x = node->inputs[x_index], *k = node->inputs[1 - x_index];
    const qn_op op = node->op;
    const bool supported =
        op == QN_OP_MUL || op == QN_OP_ADD || op == QN_OP_SUB || (op == QN_OP_DIV && x_index == 0);
    if (!supported || !x->has_shape || x->rank < 2 || x->dims[1].kind != QN_DIM_CONST)
        return QN_OK;
    const size_t n = (size_t)x->dims[1].value;
    size_t count;
    if (!per_channel(k, x, n) || !qn__tensor_count(k, &count) ||
        count > k->constant->size_bytes / sizeof(float))
        return QN_OK;
    double *a = qn__arena_calloc(&graph->arena, n, sizeof(*a));
    double *b = qn__arena_calloc(&graph->arena, n, sizeof(*b));
    if (a == NULL || b == NULL)
        return QN_NOMEM(error);
    for (size_t c = 0; c < n; c++) {
        const double value = qn__load_real(k->constant->data, QN_DTYPE_F32, count == 1 ? 0 : c);
        a[c] = 1;
        if (op == QN_OP_MUL)
            a[c] = value;
        else if (op == QN_OP_DIV)
            a[c] = 1 / value;
        else if (op == QN_OP_ADD)
            b[c] = value;
        else if (x_index == 0)
            b[c] = -value;
        else
            b[c] = value, a[c] = -1; /* k - x */
        if (!isfinite(a[c]) || !isfinite(b[c]))
            return QN_OK;
    }
    *out = (qn_affine){n, a, b};
    *ok = true;
    return QN_OK;
}

static bool plain_f32(const qn_tensor *tensor)
{
    return tensor != NULL && tensor->type.kind == QN_TYPE_PLAIN &&
           tensor->type.dtype == QN_DTYPE_F32;
}

static bool foldable_into(const qn_node *producer, const qn_tensor *x)
{
    return producer != NULL && producer->act == QN_ACT_NONE && producer->n_sources < MAX_FOLDS &&
           plain_f32(x) && x->producer_output == 0 &&
           (producer->op == QN_OP_CONV || producer->op == QN_OP_CONV_TRANSPOSE ||
            producer->op == QN_OP_GEMM);
}

/* The map `node` is, and the producer it could go into (NULL: none). */
static qn_status match(qn_graph *graph, const qn_node *node, const qn_uses *uses, qn_node **into,
                       qn_affine *affine, qn_error *error)
{
    bool ok = false;
    *into = NULL;
    if (node->act != QN_ACT_NONE || node->n_outputs < 1 || !plain_f32(node->outputs[0]))
        return QN_OK;
    const bool bn = node->op == QN_OP_BATCH_NORMALIZATION;
    const bool binary = node->op == QN_OP_MUL || node->op == QN_OP_ADD || node->op == QN_OP_SUB ||
                        node->op == QN_OP_DIV;
    if (!bn && !(binary && node->n_inputs == 2))
        return QN_OK;
    for (uint32_t i = 0; i < (bn ? 1u : 2u) && !ok; i++) {
        qn_node *producer = qn__pass_sole_producer(uses, node->inputs[i]);
        if (!foldable_into(producer, node->inputs[i]))
            continue;
        QN_TRY(bn ? qn__affine_of_bn(graph, node, affine, &ok, error)
                  : affine_of_binary(graph, node, i, affine, &ok, error));
        if (ok)
            *into = producer;
    }
    return QN_OK;
}

qn_status qn__pass_fold_affine(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
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
        qn_node *node = graph->nodes[i], *into;
        qn_affine affine;
        bool done = false;
        if (node->op == QN_OP_BATCH_NORMALIZATION && !options->fold_batch_norm)
            continue;
        QN_TRY_GOTO(match(graph, node, &uses, &into, &affine, error));
        if (into != NULL)
            QN_TRY_GOTO(qn__affine_apply(graph, into, &affine, &uses, &done, error));
        if (!done)
            continue;
        if (!qn__node_add_sources(graph, into, node)) {
            status = QN_NOMEM(error);
            goto done;
        }
        qn__pass_take_output(into, node);
        remove[node->id] = 1;
    }
    qn__graph_remove_marked(graph, remove);
done:
    qn__uses_free(&uses);
    qn__free(graph->ctx, remove);
    return status;
}
