/* Operators that move data: the axes are those of the file's layout. */
#include <inttypes.h>
#include <string.h>

#include "format/mnn/mnn_read.h"

qn_status qn__mnn_lower_identity(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, r->n_out, error));
    for (size_t i = 0; i < r->n_in; i++) {
        qn_tensor *out;
        QN_TRY(qn__mnn_op1(r, QN_OP_IDENTITY, qn__mnn_in(r, i), &out, error));
        QN_TRY(qn__mnn_put(r, i, out, qn__mnn_in_format(r, i), error));
    }
    return QN_OK;
}

qn_status qn__mnn_lower_convert(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_TensorConvertInfo, error));
    const int64_t from = qn__mnn_in_format(r, 0), to = qn_mnn_int(r, QN_MNN_TensorConvertInfo_dest);
    qn_tensor *x = qn__mnn_in(r, 0);
    if (qn_mnn_is_nhwc(from) && !qn_mnn_is_nhwc(to))
        QN_TRY(qn__mnn_to_nchw(r, x, from, &x, error));
    else if (!qn_mnn_is_nhwc(from) && qn_mnn_is_nhwc(to))
        QN_TRY(qn__mnn_from_nchw(r, x, to, &x, error));
    return qn__mnn_put(r, 0, x, to, error);
}

/* --- shapes -----------------------------------------------------------------------------------*/
/* The target of a Reshape: a constant list, or a tensor where it is computed when running. */
typedef struct target {
    bool known;
    int64_t dims[QN_MAX_RANK];
    size_t rank;
    qn_tensor *tensor;
} target;

static qn_status read_target(qn_mnn_reader *r, target *t, qn_error *error)
{
    *t = (target){0};
    if (r->n_in == 1) {
        QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Reshape, error));
        t->known = true;
        return qn__mnn_ints(r, QN_MNN_Reshape_dims, t->dims, QN_MAX_RANK, &t->rank, error);
    }
    t->tensor = qn__mnn_in(r, 1);
    qn_error ignored;
    t->known = qn__mnn_const_input(r, 1, t->dims, QN_MAX_RANK, &t->rank, &ignored) == QN_OK;
    return QN_OK;
}

static qn_status reshape_to(qn_mnn_reader *r, qn_tensor *x, const target *t, bool zero_is_size,
                            qn_tensor **out, qn_error *error)
{
    qn_tensor *shape = t->known ? qn__mnn_ints_constant(r, "shape", t->dims, t->rank) : t->tensor;
    if (!shape)
        return QN_NOMEM(error);
    qn_node *node = qn__mnn_node(r, QN_OP_RESHAPE, (qn_tensor *[]){x, shape}, 2);
    if (!node || (zero_is_size && !qn__node_set_int(r->graph, node, "allowzero", 1)))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    *out = node->outputs[0];
    return QN_OK;
}

/* NC4HW4 tensors whose shape is meant in NHWC go there and back. */
static qn_status reshape_as_nhwc(qn_mnn_reader *r, qn_tensor *x, target *t, qn_error *error)
{
    const int64_t nhwc = QN_MNN_MNN_DATA_FORMAT_NHWC;
    if (!t->known)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "an NHWC shape that is not constant");
    if (r->n_in > 1) {
        if (t->rank != 4)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "an NHWC shape of rank %zu", t->rank);
    } else if (t->rank > 2) { /* the parameters say N, C, ... */
        const int64_t channels = t->dims[1];
        memmove(t->dims + 1, t->dims + 2, (t->rank - 2) * sizeof(*t->dims));
        t->dims[t->rank - 1] = channels;
    }
    QN_TRY(qn__mnn_from_nchw(r, x, nhwc, &x, error));
    QN_TRY(reshape_to(r, x, t, false, &x, error));
    QN_TRY(qn__mnn_to_nchw(r, x, nhwc, &x, error));
    return qn__mnn_put_like(r, x, error);
}

qn_status qn__mnn_lower_reshape(qn_mnn_reader *r, qn_error *error)
{
    target t;
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    QN_TRY(qn__mnn_need_inputs(r, 1, 2, error));
    QN_TRY(read_target(r, &t, error));
    const bool has_type = r->main && r->main->record == QN_MNN_REC_Reshape;
    const int64_t meant =
        has_type ? qn_mnn_int(r, QN_MNN_Reshape_dimType) : QN_MNN_MNN_DATA_FORMAT_NHWC;
    if (qn__mnn_in_format(r, 0) == QN_MNN_MNN_DATA_FORMAT_NC4HW4 && qn_mnn_is_nhwc(meant))
        return reshape_as_nhwc(r, x, &t, error);
    /* In TensorFlow's shapes 0 is a size, elsewhere it keeps the input's. */
    bool zero = false;
    for (size_t i = 0; t.known && i < t.rank; i++)
        zero |= t.dims[i] == 0;
    const bool tf = r->n_in > 1 && qn_mnn_is_nhwc(qn__mnn_in_format(r, 1));
    QN_TRY(reshape_to(r, x, &t, zero && tf, &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* Axes of Squeeze and Unsqueeze, each once. */
static qn_status read_axes(qn_mnn_reader *r, size_t rank, int64_t *axes, size_t *count,
                           qn_error *error)
{
    int64_t given[QN_MAX_RANK];
    size_t n = 0;
    *count = 0;
    if (r->main && r->main->record == QN_MNN_REC_SqueezeParam &&
        qn__fb_has(r->main, QN_MNN_SqueezeParam_squeezeDims))
        QN_TRY(qn__mnn_ints(r, QN_MNN_SqueezeParam_squeezeDims, given, QN_MAX_RANK, &n, error));
    else if (r->n_in > 1)
        QN_TRY(qn__mnn_const_input(r, 1, given, QN_MAX_RANK, &n, error));
    if (r->type == QN_MNN_OpType_Unsqueeze)
        rank += n;
    for (size_t i = 0; i < n; i++) {
        bool seen = false;
        QN_TRY(qn__mnn_axis(r, &given[i], rank, error));
        for (size_t k = 0; k < *count; k++)
            seen |= axes[k] == given[i];
        if (seen && r->type == QN_MNN_OpType_Unsqueeze)
            return qn__mnn_fail(r, error, QN_CORRUPT, "axis %" PRId64 " is given twice", given[i]);
        if (!seen)
            axes[(*count)++] = given[i];
    }
    return QN_OK;
}

static qn_status with_axes(qn_mnn_reader *r, qn_op op, qn_tensor *x, const int64_t *axes, size_t n,
                           qn_tensor **out, qn_error *error)
{
    return qn__mnn_op2(r, op, x, qn__mnn_ints_constant(r, "axes", axes, n), out, error);
}

qn_status qn__mnn_lower_squeeze(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    int64_t axes[QN_MAX_RANK];
    size_t n;
    QN_TRY(qn__mnn_need_rank(r, x, 0, QN_MAX_RANK, error));
    QN_TRY(read_axes(r, x->rank, axes, &n, error));
    for (int64_t i = 0; n == 0 && i < x->rank; i++)
        if (x->dims[i].kind != QN_DIM_CONST)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "which axes have size 1 is not known");
    if (n == 0)
        for (int64_t i = 0; i < x->rank; i++)
            if (x->dims[i].value == 1)
                axes[n++] = i;
    if (n == 0)
        return qn__mnn_put_like(r, x, error);
    QN_TRY(with_axes(r, QN_OP_SQUEEZE, x, axes, n, &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_unsqueeze(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    int64_t axes[QN_MAX_RANK];
    size_t n;
    QN_TRY(qn__mnn_need_rank(r, x, 0, QN_MAX_RANK, error));
    QN_TRY(read_axes(r, x->rank, axes, &n, error));
    if (n == 0)
        return qn__mnn_put_like(r, x, error);
    QN_TRY(with_axes(r, QN_OP_UNSQUEEZE, x, axes, n, &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_expand_dims(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    int64_t axis = -1;
    size_t n;
    QN_TRY(qn__mnn_need_rank(r, x, 0, QN_MAX_RANK - 1, error));
    if (r->n_in > 1) {
        QN_TRY(qn__mnn_const_input(r, 1, &axis, 1, &n, error));
    } else {
        QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_ExpandDims, error));
        axis = qn_mnn_int(r, QN_MNN_ExpandDims_axis);
    }
    QN_TRY(qn__mnn_axis(r, &axis, (size_t)x->rank + 1, error));
    QN_TRY(with_axes(r, QN_OP_UNSQUEEZE, x, &axis, 1, &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_flatten(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Flatten, error));
    qn_tensor *x = qn__mnn_in(r, 0);
    int64_t axis = qn_mnn_int(r, QN_MNN_Flatten_axis), end = qn_mnn_int(r, QN_MNN_Flatten_endAxis);
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    if (axis != x->rank)
        QN_TRY(qn__mnn_axis(r, &axis, x->rank, error));
    if (end == 0) {
        qn_node *node = qn__mnn_node(r, QN_OP_FLATTEN, &x, 1);
        if (!node || !qn__node_set_int(r->graph, node, "axis", axis))
            return QN_NOMEM(error);
        QN_TRY(qn__mnn_infer(r, node, error));
        return qn__mnn_put_like(r, node->outputs[0], error);
    }
    QN_TRY(qn__mnn_axis(r, &end, x->rank, error));
    if (end < axis)
        return qn__mnn_fail(r, error, QN_CORRUPT, "from axis %" PRId64 " to %" PRId64, axis, end);
    int64_t dims[QN_MAX_RANK] = {0};
    size_t n = (size_t)axis;
    dims[n++] = -1;
    for (int64_t i = end + 1; i < x->rank; i++) {
        if (x->dims[i].kind != QN_DIM_CONST)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "dimension %" PRId64 " is not known", i);
        dims[n++] = x->dims[i].value;
    }
    QN_TRY(qn__mnn_reshape(r, x, dims, n, &x, error));
    return qn__mnn_put_like(r, x, error);
}

qn_status qn__mnn_lower_permute(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0), *out;
    int64_t perm[QN_MAX_RANK];
    size_t n = 0;
    QN_TRY(qn__mnn_need_rank(r, x, 0, QN_MAX_RANK, error));
    if (r->type == QN_MNN_OpType_Transpose) {
        QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
        QN_TRY(qn__mnn_const_input(r, 1, perm, QN_MAX_RANK, &n, error));
    } else {
        QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
        QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Permute, error));
        if (qn__fb_has(r->main, QN_MNN_Permute_dims))
            QN_TRY(qn__mnn_ints(r, QN_MNN_Permute_dims, perm, QN_MAX_RANK, &n, error));
        else
            for (n = 0; n < x->rank; n++)
                perm[n] = (int64_t)(x->rank - 1 - n);
    }
    unsigned seen = 0;
    for (size_t i = 0; i < n; i++)
        seen |= perm[i] >= 0 && perm[i] < x->rank ? 1u << perm[i] : 0;
    if (n != x->rank || seen != (1u << n) - 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "is not a permutation of %u axes", x->rank);
    QN_TRY(qn__mnn_transpose(r, x, perm, n, &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* --- joining ----------------------------------------------------------------------------------*/
static qn_status concat(qn_mnn_reader *r, qn_tensor **inputs, size_t n, int64_t axis,
                        qn_error *error)
{
    qn_node *node = qn__mnn_node(r, QN_OP_CONCAT, inputs, n);
    if (!node || !qn__node_set_int(r->graph, node, "axis", axis))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

static qn_status inputs_of(qn_mnn_reader *r, qn_tensor ***out, qn_error *error)
{
    qn_tensor **inputs = qn__arena_calloc(&r->graph->arena, r->n_in, sizeof(*inputs));
    if (!inputs)
        return QN_NOMEM(error);
    for (size_t i = 0; i < r->n_in; i++)
        inputs[i] = qn__mnn_in(r, i);
    *out = inputs;
    return QN_OK;
}

qn_status qn__mnn_lower_concat(qn_mnn_reader *r, qn_error *error)
{
    int64_t axis = 0;
    qn_tensor **inputs = NULL;
    if (r->main) {
        QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Axis, error));
        axis = qn_mnn_int(r, QN_MNN_Axis_axis);
    }
    QN_TRY(inputs_of(r, &inputs, error));
    QN_TRY(qn__mnn_need_rank(r, inputs[0], 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_axis(r, &axis, inputs[0]->rank, error));
    return concat(r, inputs, r->n_in, axis, error);
}

qn_status qn__mnn_lower_pack(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_PackParam, error));
    int64_t axis = qn_mnn_int(r, QN_MNN_PackParam_axis);
    qn_tensor **inputs = NULL;
    QN_TRY(inputs_of(r, &inputs, error));
    QN_TRY(qn__mnn_need_rank(r, inputs[0], 0, QN_MAX_RANK - 1, error));
    QN_TRY(qn__mnn_axis(r, &axis, (size_t)inputs[0]->rank + 1, error));
    qn_tensor *axes = qn__mnn_ints_constant(r, "axes", &axis, 1);
    for (size_t i = 0; i < r->n_in; i++) {
        qn_node *node =
            axes ? qn__mnn_side_node(r, QN_OP_UNSQUEEZE, (qn_tensor *[]){inputs[i], axes}, 2)
                 : NULL;
        QN_TRY(qn__mnn_infer(r, node, error));
        inputs[i] = node->outputs[0];
    }
    return concat(r, inputs, r->n_in, axis, error);
}

/* --- taking apart -----------------------------------------------------------------------------*/
/* Lengths of the outputs of a Slice along its axis. */
static qn_status split_sizes(qn_mnn_reader *r, qn_dim whole, int64_t *sizes, qn_error *error)
{
    const int64_t from = qn_mnn_int(r, QN_MNN_Slice_sourceType);
    const size_t n = r->n_out;
    size_t n_points = 0;
    qn__fb_bytes(r->main, QN_MNN_Slice_slicePoints, &n_points);
    const bool known = whole.kind == QN_DIM_CONST;
    if (from == QN_MNN_NetSource_CAFFE) { /* positions of the cuts */
        int64_t previous = 0;
        if (n_points + 1 != n && n_points != n)
            return qn__mnn_fail(r, error, QN_CORRUPT, "%zu cuts for %zu outputs", n_points, n);
        for (size_t i = 0; i < n; i++) {
            if (i + 1 == n && !known)
                return qn__mnn_fail(r, error, QN_UNSUPPORTED, "an axis of unknown size");
            const int64_t cut = i + 1 == n
                                    ? whole.value
                                    : qn__fb_int_at(r->doc, r->main, QN_MNN_Slice_slicePoints, i);
            sizes[i] = cut - previous;
            previous = cut;
        }
        return QN_OK;
    }
    if (r->n_in == 1 && n_points <= 1) { /* equal parts */
        int64_t parts = (int64_t)n, size = 0;
        if (n_points == 1 && from == QN_MNN_NetSource_TENSORFLOW)
            parts = qn__fb_int_at(r->doc, r->main, QN_MNN_Slice_slicePoints, 0);
        if (n_points == 1 && from == QN_MNN_NetSource_TORCH)
            size = qn__fb_int_at(r->doc, r->main, QN_MNN_Slice_slicePoints, 0);
        if (size == 0 && !known)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "an axis of unknown size");
        if (size == 0 && (parts < 1 || whole.value % parts != 0))
            return qn__mnn_fail(r, error, QN_CORRUPT, "%" PRId64 " parts of %" PRId64, parts,
                                whole.value);
        for (size_t i = 0; i < n; i++)
            sizes[i] = size != 0 ? size : whole.value / parts;
        return QN_OK;
    }
    const bool by_input = r->n_in > 1;
    const int64_t *given = NULL;
    if (by_input) {
        given = qn__tensor_ints(r->graph, qn__mnn_in(r, 1), &n_points);
        if (!given)
            return qn__mnn_fail(r, error, QN_UNSUPPORTED, "sizes that are not constant");
    }
    if (n_points < n)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu sizes for %zu outputs", n_points, n);
    int64_t sum = 0;
    size_t open = n;
    for (size_t i = 0; i < n; i++) {
        sizes[i] =
            by_input ? given[i] : qn__fb_int_at(r->doc, r->main, QN_MNN_Slice_slicePoints, i);
        if (sizes[i] == -1 && open == n)
            open = i;
        else if (sizes[i] < 0 || __builtin_add_overflow(sum, sizes[i], &sum))
            return qn__mnn_fail(r, error, QN_CORRUPT, "size %" PRId64, sizes[i]);
    }
    if (open < n && !known)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "an axis of unknown size");
    if (open < n)
        sizes[open] = whole.value - sum;
    return QN_OK;
}

qn_status qn__mnn_lower_split(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 2, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Slice, error));
    qn_tensor *x = qn__mnn_in(r, 0);
    int64_t axis = qn_mnn_int(r, QN_MNN_Slice_axis), sum = 0;
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_axis(r, &axis, x->rank, error));
    int64_t *sizes = qn__arena_calloc(&r->graph->arena, r->n_out, sizeof(*sizes));
    if (!sizes)
        return QN_NOMEM(error);
    QN_TRY(split_sizes(r, x->dims[axis], sizes, error));
    for (size_t i = 0; i < r->n_out; i++)
        if (sizes[i] < 0 || __builtin_add_overflow(sum, sizes[i], &sum))
            return qn__mnn_fail(r, error, QN_CORRUPT, "output %zu has size %" PRId64, i, sizes[i]);
    const qn_dim whole = x->dims[axis];
    if (whole.kind == QN_DIM_CONST && sum > whole.value)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%" PRId64 " of %" PRId64, sum, whole.value);
    if (whole.kind == QN_DIM_CONST && sum < whole.value) { /* the rest is not wanted */
        qn_tensor *rest;
        QN_TRY(qn__mnn_slice(r, x, axis, 0, sum, &rest, error));
        x = rest;
    }
    qn_tensor *list = qn__mnn_ints_constant(r, "sizes", sizes, r->n_out);
    qn_node *node =
        list ? qn__mnn_node_outputs(r, QN_OP_SPLIT, (qn_tensor *[]){x, list}, 2, r->n_out) : NULL;
    if (!node || !qn__node_set_int(r->graph, node, "axis", axis))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    for (size_t i = 0; i < r->n_out; i++)
        QN_TRY(qn__mnn_put(r, i, node->outputs[i], qn__mnn_in_format(r, 0), error));
    return QN_OK;
}

qn_status qn__mnn_lower_unpack(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Axis, error));
    qn_tensor *x = qn__mnn_in(r, 0);
    int64_t axis = qn_mnn_int(r, QN_MNN_Axis_axis);
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_axis(r, &axis, x->rank, error));
    for (size_t i = 0; i < r->n_out; i++) {
        qn_tensor *index = qn__mnn_int_constant(r, "index", (int64_t)i);
        qn_node *node = index ? qn__mnn_node(r, QN_OP_GATHER, (qn_tensor *[]){x, index}, 2) : NULL;
        if (!node || !qn__node_set_int(r->graph, node, "axis", axis))
            return QN_NOMEM(error);
        QN_TRY(qn__mnn_infer(r, node, error));
        QN_TRY(qn__mnn_put(r, i, node->outputs[0], qn__mnn_in_format(r, 0), error));
    }
    return QN_OK;
}

qn_status qn__mnn_lower_gather(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 2, 3, error));
    qn_tensor *x = qn__mnn_in(r, 0), *index = qn__mnn_in(r, 1);
    int64_t axis = 0;
    size_t n = 1;
    if (r->main && r->main->record == QN_MNN_REC_Axis)
        axis = qn_mnn_int(r, QN_MNN_Axis_axis);
    else if (r->n_in > 2)
        QN_TRY(qn__mnn_const_input(r, 2, &axis, 1, &n, error));
    if (n != 1)
        return qn__mnn_fail(r, error, QN_CORRUPT, "has no axis");
    QN_TRY(qn__mnn_need_rank(r, x, 1, QN_MAX_RANK, error));
    QN_TRY(qn__mnn_axis(r, &axis, x->rank, error));
    qn_node *node = qn__mnn_node(r, QN_OP_GATHER, (qn_tensor *[]){x, index}, 2);
    if (!node || !qn__node_set_int(r->graph, node, "axis", axis))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}
