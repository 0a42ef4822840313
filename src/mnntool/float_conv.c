#include "mnntool/float_conv.h"

static bool is_float(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_PLAIN && t->type.dtype == QN_DTYPE_F32;
}

bool qn__mnn_conv_read(const qn_node *node, qn_mnn_conv *out)
{
    const qn_tensor *const x = node->n_inputs > 1 ? node->inputs[0] : NULL;
    const qn_tensor *const w = node->n_inputs > 1 ? node->inputs[1] : NULL;
    const qn_tensor *const b = node->n_inputs > 2 ? node->inputs[2] : NULL;
    const qn_step step = {.node = node};
    int64_t dims[QN_MAX_RANK];
    qn_error ignored;
    if (node->op != QN_OP_CONV || !is_float(x) || !is_float(w) || w->constant == NULL ||
        x->rank != 4 || w->rank != 4 || (b != NULL && (!is_float(b) || b->constant == NULL)))
        return false;
    qn__tensor_dims(w, dims);
    if (w->constant->size_bytes / sizeof(float) < qn__tensor_elements(w))
        return false;
    const int64_t groups = qn__attr_int(node, "group", 1);
    if (qn__window_read(&step, dims + 2, false, false, &out->window, &ignored) != QN_OK)
        return false;
    const size_t c = out->window.c, oc = out->window.oc;
    if (groups < 1 || (uint64_t)groups > c || c % (size_t)groups != 0 || oc % (size_t)groups != 0 ||
        dims[0] != (int64_t)oc || dims[1] != (int64_t)(c / (size_t)groups) ||
        (groups > 1 && (size_t)groups == c))
        return false;
    if (b != NULL && qn__tensor_elements(b) != oc)
        return false;
    out->groups = (size_t)groups;
    out->group_c = c / out->groups;
    out->group_oc = oc / out->groups;
    return out->window.n > 0 && out->window.oh > 0 && out->window.ow > 0 && oc > 0;
}

const qn_run_op *qn__mnn_float_op(const qn_node *node)
{
    qn_mnn_conv conv;
    if (qn__mnn_sigmoid_takes(node))
        return &qn__mnn_sigmoid_op;
    if (qn__mnn_pool_takes(node))
        return &qn__mnn_pool_op;
    if (!qn__mnn_conv_read(node, &conv))
        return NULL;
    if (qn__mnn_winograd_takes(&conv))
        return &qn__mnn_winograd_op;
    return qn__mnn_tiled_takes(&conv) ? &qn__mnn_tiled_op : NULL;
}
