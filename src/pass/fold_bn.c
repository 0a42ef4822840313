/* BatchNormalization at inference as a map per channel:
 *     y = scale * (x - mean) / sqrt(var + epsilon) + shift
 * in double, so that denormal and zero variances give what the formula says. */
#include "pass/pass.h"

#include <math.h>

static bool read_param(const qn_tensor *tensor, size_t n)
{
    size_t count, bytes;
    return tensor != NULL && tensor->constant != NULL && tensor->type.kind == QN_TYPE_PLAIN &&
           qn__dtype_is_float(tensor->type.dtype) && tensor->rank == 1 &&
           qn__tensor_count(tensor, &count) && count == n &&
           qn__dtype_bytes(&bytes, tensor->type.dtype, count) &&
           bytes <= tensor->constant->size_bytes;
}

static double at(const qn_tensor *tensor, size_t i)
{
    return qn__load_real(tensor->constant->data, tensor->type.dtype, i);
}

qn_status qn__affine_of_bn(qn_graph *graph, const qn_node *node, qn_affine *out, bool *ok,
                           qn_error *error)
{
    size_t n;
    *ok = false;
    if (node->op != QN_OP_BATCH_NORMALIZATION || node->n_inputs < 5 || node->inputs[1] == NULL ||
        qn__attr_int(node, "training_mode", 0) != 0 || !qn__tensor_count(node->inputs[1], &n))
        return QN_OK;
    for (uint32_t i = 1; i < node->n_outputs; i++)
        if (node->outputs[i] != NULL)
            return QN_OK;
    for (uint32_t i = 1; i < 5; i++)
        if (!read_param(node->inputs[i], n))
            return QN_OK;
    double *a = qn__arena_calloc(&graph->arena, n, sizeof(*a));
    double *b = qn__arena_calloc(&graph->arena, n, sizeof(*b));
    if (a == NULL || b == NULL)
        return QN_NOMEM(error);
    const double epsilon = (double)qn__attr_float(node, "epsilon", 1e-5f);
    for (size_t c = 0; c < n; c++) {
        a[c] = at(node->inputs[1], c) / sqrt(at(node->inputs[4], c) + epsilon);
        b[c] = at(node->inputs[2], c) - a[c] * at(node->inputs[3], c);
        if (!isfinite(a[c]) || !isfinite(b[c]))
            return QN_OK;
    }
    *out = (qn_affine){n, a, b};
    *ok = true;
    return QN_OK;
}
