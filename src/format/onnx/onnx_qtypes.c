/* Comparisons of quantized types as ONNX runtimes make them. */
#include "format/onnx/onnx_qtypes.h"

#include <math.h>
#include <string.h>

bool qn__onnx_same_quant(qn_type a, qn_type b)
{
    if (a.kind != QN_TYPE_QUANT || b.kind != QN_TYPE_QUANT || a.dtype != b.dtype)
        return false;
    const qn_quant *p = a.quant, *q = b.quant;
    if (p == q)
        return true;
    if (p->axis != q->axis || p->block != q->block || p->n_scales != q->n_scales ||
        p->n_codebook != q->n_codebook ||
        memcmp(p->scales, q->scales, p->n_scales * sizeof(float)) != 0)
        return false;
    if (p->n_codebook > 0 && memcmp(p->codebook, q->codebook, p->n_codebook * sizeof(float)) != 0)
        return false;
    for (size_t i = 0; i < p->n_scales; i++)
        if ((p->zero_points ? p->zero_points[i] : 0) != (q->zero_points ? q->zero_points[i] : 0))
            return false;
    return true;
}

bool qn__onnx_is_mover(const qn_node *node)
{
    if (node->op == QN_OP_RESIZE)
        return strcmp(qn__attr_string(node, "mode", "nearest"), "nearest") == 0;
    if (node->op == QN_OP_DROPOUT || node->op == QN_OP_GLOBAL_MAX_POOL)
        return false; /* no integer version in the runtimes */
    return (qn__op_flags(node->op) & QN_OPF_SAME_VALUES) != 0;
}

bool qn__onnx_keeps_bytes(const qn_node *node)
{
    return qn__onnx_is_mover(node) || node->op == QN_OP_GLOBAL_MAX_POOL || node->op == QN_OP_PAD;
}

bool qn__onnx_is_bilinear(qn_graph *graph, const qn_node *node)
{
    size_t n_axes = 0, moved = 0;
    if (strcmp(qn__attr_string(node, "mode", "nearest"), "linear") != 0 ||
        strcmp(qn__attr_string(node, "coordinate_transformation_mode", ""), "tf_crop_and_resize") ==
            0 ||
        qn__attr_int(node, "antialias", 0) != 0)
        return false;
    if (qn__attr_ints(node, "axes", &n_axes) && n_axes > 0)
        return n_axes <= 2;
    const qn_tensor *scales = node->n_inputs > 2 ? node->inputs[2] : NULL;
    const float *values =
        scales && scales->constant ? qn__tensor_floats(graph, scales, &n_axes) : NULL;
    for (size_t i = 0; values && i < n_axes; i++)
        moved += values[i] != 1.0f;
    if (values && n_axes > 0)
        return moved <= 2;
    const qn_tensor *sizes = node->n_inputs > 3 ? node->inputs[3] : NULL;
    return sizes && sizes->constant && sizes->has_shape && sizes->rank == 1 &&
           sizes->dims[0].value <= 4;
}

bool qn__onnx_truncates(const qn_node *node)
{
    return node->op == QN_OP_RESIZE && qn__attr_int(node, "truncates", 0) != 0;
}

bool qn__onnx_act_implied(qn_act act, float lo, float hi, qn_type type)
{
    if (act == QN_ACT_NONE)
        return true;
    if (type.kind != QN_TYPE_QUANT || type.quant->n_scales != 1)
        return false;
    /* QuantizeLinear saturates at the limits of the storage type, not at qmin and qmax. */
    const uint32_t bits = qn__dtype_bits(type.dtype);
    const double qlo = qn__dtype_is_signed(type.dtype) ? -ldexp(1.0, (int)bits - 1) : 0.0;
    const double qhi = qlo + ldexp(1.0, (int)bits) - 1.0;
    const double zp = type.quant->zero_points ? type.quant->zero_points[0] : 0;
    const double scale = (double)type.quant->scales[0];
    if (act == QN_ACT_RELU)
        return zp == qlo;
    return rint((double)lo / scale) + zp <= qlo && rint((double)hi / scale) + zp >= qhi;
}

bool qn__onnx_bias_fits(qn_type bias, qn_type x, qn_type w)
{
    if (bias.kind != QN_TYPE_QUANT || x.kind != QN_TYPE_QUANT || w.kind != QN_TYPE_QUANT ||
        bias.dtype != QN_DTYPE_I32 || x.quant->n_scales != 1 || bias.quant->zero_points)
        return false;
    const size_t nb = bias.quant->n_scales, nw = w.quant->n_scales;
    if (nb != nw && nb != 1 && nw != 1)
        return false;
    for (size_t i = 0; i < nb || i < nw; i++) {
        const float wanted = x.quant->scales[0] * w.quant->scales[nw == 1 ? 0 : i];
        const float found = bias.quant->scales[nb == 1 ? 0 : i];
        if (fabsf(found - wanted) > 1e-6f * wanted) /* a writer may have multiplied in double */
            return false;
    }
    return true;
}
