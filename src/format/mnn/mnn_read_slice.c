/* Parts of a tensor: SliceTf, StridedSlice with its masks, Crop. */
#include <inttypes.h>

#include "format/mnn/mnn_read.h"

/* A constant Slice, one range per axis. */
typedef struct ranges {
    size_t n;
    int64_t axes[QN_MAX_RANK], begin[QN_MAX_RANK], end[QN_MAX_RANK], step[QN_MAX_RANK];
} ranges;

static qn_status slice(qn_mnn_reader *r, qn_tensor *x, const ranges *s, qn_tensor **out,
                       qn_error *error)
{
    qn_tensor *inputs[5] = {x, qn__mnn_ints_constant(r, "starts", s->begin, s->n),
                            qn__mnn_ints_constant(r, "ends", s->end, s->n),
                            qn__mnn_ints_constant(r, "axes", s->axes, s->n),
                            qn__mnn_ints_constant(r, "steps", s->step, s->n)};
    for (size_t i = 1; i < 5; i++)
        if (!inputs[i])
            return QN_NOMEM(error);
    qn_node *node = qn__mnn_node(r, QN_OP_SLICE, inputs, 5);
    QN_TRY(qn__mnn_infer(r, node, error));
    *out = node->outputs[0];
    return QN_OK;
}

qn_status qn__mnn_lower_slice_tf(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 3, 3, error));
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    ranges s = {0};
    int64_t size[QN_MAX_RANK];
    size_t n_begin, n_size;
    qn_error ignored;
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    const bool known =
        qn__mnn_const_input(r, 1, s.begin, QN_MAX_RANK, &n_begin, &ignored) == QN_OK &&
        qn__mnn_const_input(r, 2, size, QN_MAX_RANK, &n_size, &ignored) == QN_OK;
    if (!known) {
        qn_tensor *end;
        QN_TRY(qn__mnn_op2(r, QN_OP_ADD, qn__mnn_in(r, 1), qn__mnn_in(r, 2), &end, error));
        QN_TRY(qn__mnn_op3(r, QN_OP_SLICE, x, qn__mnn_in(r, 1), end, &out, error));
        return qn__mnn_put_like(r, out, error);
    }
    if (n_begin != x->rank || n_size != x->rank)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu beginnings and %zu sizes for rank %u",
                            n_begin, n_size, x->rank);
    s.n = x->rank;
    for (size_t i = 0; i < s.n; i++) {
        s.axes[i] = (int64_t)i;
        s.step[i] = 1;
        s.end[i] = INT64_MAX;
        if (size[i] < -1 ||
            (size[i] >= 0 && __builtin_add_overflow(s.begin[i], size[i], &s.end[i])))
            return qn__mnn_fail(r, error, QN_CORRUPT, "size %" PRId64, size[i]);
        if (size[i] > 0 && s.begin[i] < 0 && s.end[i] == 0)
            s.end[i] = INT64_MAX;
    }
    QN_TRY(slice(r, x, &s, &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* ONNX's Slice as the converter stores it: begin, end, axes, steps. */
static qn_status strided_onnx(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *inputs[5] = {0};
    for (size_t i = 0; i < r->n_in; i++)
        inputs[i] = qn__mnn_in(r, i);
    qn_node *node = qn__mnn_node(r, QN_OP_SLICE, inputs, r->n_in);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

typedef struct masks {
    int64_t begin, end, ellipsis, new_axis, shrink;
} masks;

static bool has_bit(int64_t mask, size_t i)
{
    return i < 32 && (mask >> i & 1) != 0;
}

/* TensorFlow's masks: what is one range of `s`, which axes vanish and where new ones come. */
static qn_status strided_ranges(qn_mnn_reader *r, const masks *m, size_t rank, size_t given,
                                const int64_t *begin, const int64_t *end, const int64_t *step,
                                ranges *s, int64_t *gone, size_t *n_gone, int64_t *fresh,
                                size_t *n_fresh, qn_error *error)
{
    size_t consumed = 0, out_axis = 0;
    for (size_t i = 0; i < given; i++) /* axes that the list names itself */
        consumed += !has_bit(m->ellipsis, i) && !has_bit(m->new_axis, i);
    if (consumed > rank)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu ranges for rank %zu", consumed, rank);
    size_t axis = 0;
    for (size_t i = 0; i < given; i++) {
        if (has_bit(m->ellipsis, i)) {
            axis += rank - consumed;
            out_axis += rank - consumed;
            continue;
        }
        if (has_bit(m->new_axis, i)) {
            fresh[(*n_fresh)++] = (int64_t)out_axis++;
            continue;
        }
        const bool shrink = has_bit(m->shrink, i), down = !shrink && step[i] < 0;
        if (step[i] == 0 || (shrink && begin[i] > INT32_MAX))
            return qn__mnn_fail(r, error, QN_CORRUPT, "step %" PRId64, step[i]);
        s->axes[s->n] = (int64_t)axis;
        s->step[s->n] = shrink ? 1 : step[i];
        s->begin[s->n] = has_bit(m->begin, i) ? (down ? INT64_MAX : 0) : begin[i];
        s->end[s->n] = has_bit(m->end, i) ? (down ? INT64_MIN : INT64_MAX) : end[i];
        if (shrink)
            s->end[s->n] = s->begin[s->n] == -1 ? INT64_MAX : s->begin[s->n] + 1;
        s->n++;
        if (shrink)
            gone[(*n_gone)++] = (int64_t)axis;
        else
            out_axis++;
        axis++;
    }
    return QN_OK;
}

qn_status qn__mnn_lower_strided_slice(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 3, 5, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_StridedSliceParam, error));
    if (qn_mnn_int(r, QN_MNN_StridedSliceParam_fromType) == 1)
        return strided_onnx(r, error);
    if (r->n_in == 5)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "writing into a tensor");
    const masks m = {qn_mnn_int(r, QN_MNN_StridedSliceParam_beginMask),
                     qn_mnn_int(r, QN_MNN_StridedSliceParam_endMask),
                     qn_mnn_int(r, QN_MNN_StridedSliceParam_ellipsisMask),
                     qn_mnn_int(r, QN_MNN_StridedSliceParam_newAxisMask),
                     qn_mnn_int(r, QN_MNN_StridedSliceParam_shrinkAxisMask)};
    if (m.ellipsis & (m.ellipsis - 1))
        return qn__mnn_fail(r, error, QN_CORRUPT, "more than one ellipsis");
    qn_tensor *x = qn__mnn_in(r, 0);
    int64_t begin[QN_MAX_RANK], end[QN_MAX_RANK], step[QN_MAX_RANK];
    int64_t gone[QN_MAX_RANK], fresh[QN_MAX_RANK];
    size_t n, n_end, n_step, n_gone = 0, n_fresh = 0;
    ranges s = {0};
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_const_input(r, 1, begin, QN_MAX_RANK, &n, error));
    QN_TRY(qn__mnn_const_input(r, 2, end, QN_MAX_RANK, &n_end, error));
    n_step = n;
    for (size_t i = 0; i < n; i++)
        step[i] = 1;
    if (r->n_in > 3)
        QN_TRY(qn__mnn_const_input(r, 3, step, QN_MAX_RANK, &n_step, error));
    if (n != n_end || n != n_step)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu beginnings, %zu ends, %zu steps", n, n_end,
                            n_step);
    QN_TRY(strided_ranges(r, &m, x->rank, n, begin, end, step, &s, gone, &n_gone, fresh, &n_fresh,
                          error));
    if (s.n > 0)
        QN_TRY(slice(r, x, &s, &x, error));
    if (n_gone > 0)
        QN_TRY(qn__mnn_op2(r, QN_OP_SQUEEZE, x, qn__mnn_ints_constant(r, "gone", gone, n_gone), &x,
                           error));
    if (n_fresh > 0)
        QN_TRY(qn__mnn_op2(r, QN_OP_UNSQUEEZE, x, qn__mnn_ints_constant(r, "new", fresh, n_fresh),
                           &x, error));
    return qn__mnn_put_like(r, x, error);
}

qn_status qn__mnn_lower_crop(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Crop, error));
    qn_tensor *x = qn__mnn_in(r, 0), *like = qn__mnn_in(r, 1), *out;
    const int64_t axis = qn_mnn_int(r, QN_MNN_Crop_axis);
    int64_t offset[QN_MAX_RANK];
    size_t n;
    ranges s = {0};
    QN_TRY(qn__mnn_need_rank(r, x, 4, 4, error));
    QN_TRY(qn__mnn_need_rank(r, like, 4, 4, error));
    QN_TRY(qn__mnn_ints(r, QN_MNN_Crop_offset, offset, QN_MAX_RANK, &n, error));
    if (axis < 0 || axis > 4 || (n > 1 && (int64_t)n < 4 - axis))
        return qn__mnn_fail(r, error, QN_CORRUPT, "axis %" PRId64 " with %zu offsets", axis, n);
    for (int64_t i = axis; i < 4; i++) {
        const int64_t at = n == 0 ? 0 : offset[n == 1 ? 0 : i - axis];
        if (like->dims[i].kind != QN_DIM_CONST)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "a size that is not known");
        if (at < 0)
            return qn__mnn_fail(r, error, QN_CORRUPT, "offset %" PRId64, at);
        s.axes[s.n] = i;
        s.step[s.n] = 1;
        s.begin[s.n] = at;
        s.end[s.n++] = at + like->dims[i].value;
    }
    if (s.n == 0)
        return qn__mnn_put_like(r, x, error);
    QN_TRY(slice(r, x, &s, &out, error));
    return qn__mnn_put_like(r, out, error);
}
