/* y[c] = a[c] * x[c] + b[c] multiplied into the weights and bias of the node that makes x. All in
 * double; only the stored weight is rounded to float. */
#include "pass/pass.h"

#include "core/context.h"

#include <math.h>
#include <string.h>

/* How weights of one node lie: the output channel of element i. */
typedef struct weights {
    const qn_tensor *tensor;
    int64_t dims[QN_MAX_RANK];
    size_t count, n_out;
    size_t inner;     /* elements under one index of the channel axis */
    size_t per_group; /* ConvTranspose: output channels of a group */
    size_t group_in;  /* ConvTranspose: input channels of a group */
    qn_op op;
    bool transposed; /* Gemm: [N, K] */
} weights;

static size_t channel_of(const weights *w, size_t i)
{
    if (w->op == QN_OP_CONV || w->transposed)
        return i / w->inner; /* [M, C/group, k...] or [N, K] */
    if (w->op == QN_OP_GEMM)
        return i % w->n_out;         /* [K, N] */
    const size_t row = i / w->inner; /* [C, M/group, k...] */
    const size_t in_channel = row / w->per_group;
    return in_channel / w->group_in * w->per_group + row % w->per_group;
}

static bool plain_f32(const qn_tensor *tensor)
{
    return tensor->type.kind == QN_TYPE_PLAIN && tensor->type.dtype == QN_DTYPE_F32;
}

static bool read_weights(const qn_node *node, weights *w)
{
    if (node->n_inputs < 2 || node->inputs[1] == NULL || node->act != QN_ACT_NONE)
        return false;
    *w = (weights){.tensor = node->inputs[1], .op = node->op};
    if (w->tensor->constant == NULL || !plain_f32(w->tensor) ||
        !qn__tensor_static_dims(w->tensor, w->dims) || !qn__tensor_count(w->tensor, &w->count) ||
        w->count == 0 || w->count > w->tensor->constant->size_bytes / sizeof(float))
        return false;
    const size_t rank = w->tensor->rank;
    const int64_t group = qn__attr_int(node, "group", 1);
    switch (node->op) {
    case QN_OP_CONV:
        w->n_out = (size_t)w->dims[0];
        w->inner = w->count / w->n_out;
        return rank >= 3;
    case QN_OP_CONV_TRANSPOSE:
        if (rank < 3 || group < 1 || w->dims[0] % group != 0)
            return false;
        w->per_group = (size_t)w->dims[1];
        w->group_in = (size_t)(w->dims[0] / group);
        w->n_out = w->per_group * (size_t)group;
        w->inner = w->count / (size_t)w->dims[0] / w->per_group;
        return true;
    case QN_OP_GEMM:
        w->transposed = qn__attr_int(node, "transB", 0) != 0;
        w->n_out = (size_t)w->dims[w->transposed ? 0 : 1];
        w->inner = w->transposed ? w->count / w->n_out : 1;
        return rank == 2;
    default:
        return false;
    }
}

/* Existing bias times Gemm's beta; zeros when there is none. False: not a constant per channel. */
static bool read_bias(const qn_node *node, const weights *w, double *out)
{
    const qn_tensor *bias = node->n_inputs > 2 ? node->inputs[2] : NULL;
    const double beta = node->op == QN_OP_GEMM ? (double)qn__attr_float(node, "beta", 1.0f) : 1.0;
    size_t count;
    if (bias == NULL)
        return true;
    if (bias->constant == NULL || !plain_f32(bias) || !qn__tensor_count(bias, &count) ||
        count > bias->constant->size_bytes / sizeof(float))
        return false;
    /* [N], [1, N] or one value for all; [M, 1] is per row, not per channel */
    const bool per_channel = count == w->n_out && bias->rank >= 1 &&
                             bias->dims[bias->rank - 1].value == (int64_t)w->n_out;
    if (count != 1 && !per_channel)
        return false;
    for (size_t c = 0; c < w->n_out; c++)
        out[c] = beta * qn__load_real(bias->constant->data, QN_DTYPE_F32, count == 1 ? 0 : c);
    return true;
}

/* A constant made by an earlier fold of the same pass has no other reader: drop its data. */
static void forget(qn_tensor *tensor, const qn_uses *uses)
{
    if (tensor != NULL && tensor->id >= uses->n_tensors && tensor->source == -1)
        qn__tensor_set_constant(tensor, NULL);
}

static qn_status new_constant(qn_graph *graph, const char *name, const char *suffix, size_t rank,
                              const int64_t *dims, qn_blob *blob, qn_tensor **out, qn_error *error)
{
    const char *full = qn__arena_printf(&graph->arena, "%s%s", name, suffix);
    *out = full != NULL ? qn__graph_add_constant(graph, full, qn_type_plain_make(QN_DTYPE_F32),
                                                 rank, dims, blob)
                        : NULL;
    return *out != NULL ? QN_OK : QN_NOMEM(error);
}

/* Scaled weights and bias in float; *finite false when a value left the range. */
static void compute(const weights *w, const qn_affine *affine, const double *bias, float *new_w,
                    float *new_b, bool *finite)
{
    const unsigned char *data = w->tensor->constant->data; /* not always aligned */
    /* neighbours of one channel */
    const size_t run = w->op == QN_OP_GEMM && !w->transposed ? 1 : w->inner;
    *finite = true;
    for (size_t start = 0; start < w->count; start += run) {
        const double a = affine->a[channel_of(w, start)];
        for (size_t i = start; i < start + run; i++) {
            float old;
            memcpy(&old, data + i * sizeof(old), sizeof(old));
            new_w[i] = (float)((double)old * a);
            *finite &= new_w[i] - new_w[i] == 0.0f;
        }
    }
    for (size_t c = 0; c < w->n_out; c++) {
        new_b[c] = (float)(bias[c] * affine->a[c] + affine->b[c]);
        *finite &= isfinite(new_b[c]) != 0;
    }
}

static qn_status attach(qn_graph *graph, qn_node *node, const weights *w, qn_blob *weight_blob,
                        qn_blob *bias_blob, const qn_uses *uses, qn_error *error)
{
    qn_tensor *old_bias = node->n_inputs > 2 ? node->inputs[2] : NULL, *weight, *bias;
    const int64_t bias_dims[1] = {(int64_t)w->n_out};
    QN_TRY(new_constant(graph, w->tensor->name, "_folded", w->tensor->rank, w->dims, weight_blob,
                        &weight, error));
    QN_TRY(new_constant(graph, old_bias != NULL ? old_bias->name : node->name,
                        old_bias != NULL ? "_folded" : "_bias", 1, bias_dims, bias_blob, &bias,
                        error));
    if (node->n_inputs < 3) {
        qn_tensor **inputs = qn__arena_calloc(&graph->arena, 3, sizeof(*inputs));
        if (inputs == NULL)
            return QN_NOMEM(error);
        inputs[0] = node->inputs[0];
        node->inputs = inputs;
        node->n_inputs = 3;
    }
    if (node->op == QN_OP_GEMM)
        qn__node_remove_attr(node, "beta"); /* it is in the bias now */
    forget((qn_tensor *)w->tensor, uses);
    forget(old_bias, uses);
    node->inputs[1] = weight;
    node->inputs[2] = bias;
    return QN_OK;
}

qn_status qn__affine_apply(qn_graph *graph, qn_node *node, const qn_affine *affine,
                           const qn_uses *uses, bool *done, qn_error *error)
{
    weights w;
    qn_status status = QN_OK;
    qn_blob *weight_blob = NULL, *bias_blob = NULL;
    void *new_w, *new_b;
    bool finite;
    *done = false;
    if (!read_weights(node, &w) || w.n_out != affine->n)
        return QN_OK;
    double *bias = qn__calloc(graph->ctx, w.n_out, sizeof(*bias));
    if (bias == NULL)
        return QN_NOMEM(error);
    if (!read_bias(node, &w, bias))
        goto done;
    weight_blob = qn__blob_create(graph->ctx, w.count * sizeof(float), &new_w);
    bias_blob = qn__blob_create(graph->ctx, w.n_out * sizeof(float), &new_b);
    if (weight_blob == NULL || bias_blob == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    compute(&w, affine, bias, new_w, new_b, &finite);
    if (!finite)
        goto done;
    QN_TRY_GOTO(attach(graph, node, &w, weight_blob, bias_blob, uses, error));
    *done = true;
done:
    qn__blob_unref(weight_blob);
    qn__blob_unref(bias_blob);
    qn__free(graph->ctx, bias);
    return status;
}
