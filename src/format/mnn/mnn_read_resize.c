/* Interp and Resize: MNN's rules for coordinates as ONNX names them. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "format/mnn/mnn_read.h"

/* What is resized, with channels at axis 1. `free`: N or C is not known, only H and W are given. */
typedef struct resize {
    qn_tensor *x;
    bool by_scale, free;
    float scale[4]; /* N, C, H, W */
    int64_t size[4];
    const char *mode, *nearest, *coordinates;
    float cubic;
} resize;

static qn_status emit(qn_mnn_reader *r, const resize *s, qn_error *error)
{
    const int64_t four[1] = {4}, axes[2] = {2, 3};
    const bool two = s->free && !s->by_scale;
    qn_tensor *given = s->by_scale
                           ? qn__mnn_floats_constant(r, "scales", s->scale, 1, four)
                           : qn__mnn_ints_constant(r, "sizes", s->size + 2 * two, two ? 2 : 4);
    if (!given)
        return QN_NOMEM(error);
    qn_tensor *inputs[4] = {s->x, NULL, s->by_scale ? given : NULL, s->by_scale ? NULL : given},
              *out;
    qn_graph *g = r->graph;
    qn_node *node = qn__mnn_node(r, QN_OP_RESIZE, inputs, 4);
    if (!node || !qn__node_set_string(g, node, "mode", s->mode) ||
        !qn__node_set_string(g, node, "coordinate_transformation_mode", s->coordinates) ||
        (s->nearest && !qn__node_set_string(g, node, "nearest_mode", s->nearest)) ||
        (two && !qn__node_set_ints(g, node, "axes", axes, 2)) ||
        !qn__node_set_float(g, node, "cubic_coeff_a", s->cubic))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    QN_TRY(qn__mnn_from_nchw(r, node->outputs[0], qn__mnn_in_format(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

static qn_status start(qn_mnn_reader *r, resize *s, qn_error *error)
{
    *s = (resize){.x = qn__mnn_in(r, 0), .scale = {1, 1, 1, 1}, .cubic = -0.75f};
    QN_TRY(qn__mnn_need_rank(r, s->x, 4, 4, error));
    return qn__mnn_to_nchw(r, s->x, qn__mnn_in_format(r, 0), &s->x, error);
}

/* Height and width in numbers; N and C stay. */
static qn_status set_sizes(qn_mnn_reader *r, resize *s, const int64_t *hw, qn_error *error)
{
    for (size_t i = 0; i < 2; i++) {
        s->free |= s->x->dims[i].kind != QN_DIM_CONST;
        s->size[i] = s->x->dims[i].value;
        s->size[2 + i] = hw[i];
    }
    if (hw[0] < 1 || hw[1] < 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "output of %" PRId64 "x%" PRId64, hw[0], hw[1]);
    return QN_OK;
}

/* Sizes as MNN rounds them from a scale; it then computes with the ratio of sizes. */
static qn_status set_scales(qn_mnn_reader *r, resize *s, float height, float width, qn_error *error)
{
    const float scale[2] = {height, width};
    int64_t hw[2];
    bool known = true;
    for (size_t i = 0; i < 2; i++) {
        if (!(scale[i] > 0.0f) || !(scale[i] < 65536.0f))
            return qn__mnn_fail(r, error, QN_CORRUPT, "scale %g", (double)scale[i]);
        known &= s->x->dims[2 + i].kind == QN_DIM_CONST;
        hw[i] = known ? (int64_t)((float)s->x->dims[2 + i].value * scale[i]) : 0;
        s->scale[2 + i] = scale[i];
    }
    s->by_scale =
        s->x->dims[0].kind != QN_DIM_CONST || s->x->dims[1].kind != QN_DIM_CONST || !known;
    return s->by_scale ? QN_OK : set_sizes(r, s, hw, error);
}

static qn_status set_rules(qn_mnn_reader *r, resize *s, qn_error *error)
{
    const int64_t kind = qn_mnn_int(r, QN_MNN_Interp_resizeType);
    const int64_t rule = qn_mnn_int(r, QN_MNN_Interp_ctm);
    switch (kind) {
    case 1:
    case 4:
        s->mode = "nearest";
        s->nearest = kind == 1 ? "floor" : "round_prefer_floor";
        break;
    case 2:
        s->mode = "linear";
        break;
    case 3:
        s->mode = "cubic";
        break;
    default:
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "interpolation %" PRId64, kind);
    }
    switch (rule) {
    case QN_MNN_CoordinateTransformationMode_NotSet: /* old files have two flags */
        if (qn_mnn_int(r, QN_MNN_Interp_halfPixelCenters) && kind != 1)
            s->coordinates = "half_pixel";
        else if (qn_mnn_int(r, QN_MNN_Interp_alignCorners))
            s->coordinates = "align_corners";
        else
            s->coordinates = "asymmetric";
        return QN_OK;
    case QN_MNN_CoordinateTransformationMode_AlignCorners:
        s->coordinates = "align_corners";
        break;
    case QN_MNN_CoordinateTransformationMode_HalfPixels:
        s->coordinates = "half_pixel";
        break;
    case QN_MNN_CoordinateTransformationMode_PytorchHalfPixels:
        s->coordinates = "pytorch_half_pixel";
        break;
    case QN_MNN_CoordinateTransformationMode_Asymmetric:
        s->coordinates = "asymmetric";
        break;
    case QN_MNN_CoordinateTransformationMode_TensorflowHalfPixels:
        s->coordinates = "tf_half_pixel_for_nn";
        break;
    default:
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "coordinate rule %" PRId64, rule);
    }
    return QN_OK;
}

/* Input 1: a size or scale for every axis, or height and width. */
static qn_status from_input(qn_mnn_reader *r, resize *s, qn_error *error)
{
    static const size_t NHWC[2] = {1, 2}, NCHW[2] = {2, 3};
    qn_tensor *given = qn__mnn_in(r, 1);
    const size_t *at = qn_mnn_is_nhwc(qn__mnn_in_format(r, 0)) ? NHWC : NCHW;
    size_t n;
    if (qn__dtype_is_float(given->type.dtype)) {
        const float *v = qn__tensor_floats(r->graph, given, &n);
        if (!v)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "scales that are not constant");
        if (n == 2) { /* as sizes, whatever the type */
            if (!(fabsf(v[0]) < 1e9f) || !(fabsf(v[1]) < 1e9f))
                return qn__mnn_fail(r, error, QN_CORRUPT, "output of %gx%g", (double)v[0],
                                    (double)v[1]);
            return set_sizes(r, s, (const int64_t[2]){(int64_t)v[0], (int64_t)v[1]}, error);
        }
        if (n != 4)
            return qn__mnn_fail(r, error, QN_CORRUPT, "%zu scales", n);
        for (size_t i = 0; i < 4; i++)
            if (i != at[0] && i != at[1] && v[i] != 1.0f)
                return qn__mnn_fail(r, error, QN_UNSUPPORTED, "resizing batch or channels");
        s->by_scale = true;
        s->scale[2] = v[at[0]];
        s->scale[3] = v[at[1]];
        return QN_OK;
    }
    int64_t v[QN_MAX_RANK];
    QN_TRY(qn__mnn_const_input(r, 1, v, QN_MAX_RANK, &n, error));
    if (n != 2 && n != 4)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu sizes", n);
    const int64_t hw[2] = {n == 2 ? v[0] : v[at[0]], n == 2 ? v[1] : v[at[1]]};
    return set_sizes(r, s, hw, error);
}

qn_status qn__mnn_lower_interp(qn_mnn_reader *r, qn_error *error)
{
    resize s;
    QN_TRY(qn__mnn_need_inputs(r, 1, 2, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Interp, error));
    QN_TRY(start(r, &s, error));
    QN_TRY(set_rules(r, &s, error));
    if (r->n_in > 1) {
        QN_TRY(from_input(r, &s, error));
        return emit(r, &s, error);
    }
    const int64_t hw[2] = {qn_mnn_int(r, QN_MNN_Interp_outputHeight),
                           qn_mnn_int(r, QN_MNN_Interp_outputWidth)};
    if (hw[0] != 0 && hw[1] != 0)
        QN_TRY(set_sizes(r, &s, hw, error));
    else
        QN_TRY(set_scales(r, &s, qn_mnn_real(r, QN_MNN_Interp_heightScale),
                          qn_mnn_real(r, QN_MNN_Interp_widthScale), error));
    return emit(r, &s, error);
}

qn_status qn__mnn_lower_resize(qn_mnn_reader *r, qn_error *error)
{
    resize s;
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Resize, error));
    QN_TRY(start(r, &s, error));
    s.mode = "linear";
    s.coordinates = "asymmetric";
    QN_TRY(set_scales(r, &s, qn_mnn_real(r, QN_MNN_Resize_yScale),
                      qn_mnn_real(r, QN_MNN_Resize_xScale), error));
    return emit(r, &s, error);
}
