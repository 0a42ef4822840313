/* Convolution and pooling: spatial arithmetic with padding, stride, dilation. */
#include "ir/infer_util.h"

#include <inttypes.h>
#include <string.h>

#define MAX_SPATIAL (QN_MAX_RANK - 2)

typedef enum auto_pad { PAD_EXPLICIT, PAD_SAME_UPPER, PAD_SAME_LOWER, PAD_VALID } auto_pad;

/* Window of a convolution or pool over n spatial axes. */
typedef struct window {
    size_t n;
    auto_pad mode;
    int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL];
    int64_t extent[MAX_SPATIAL]; /* dilated kernel */
    int64_t begin[MAX_SPATIAL], end[MAX_SPATIAL];
} window;

/* List attribute of n values, each at least `low`; `fallback` when absent. */
static qn_status read_list(const qn_infer *in, const char *name, size_t n, int64_t low,
                           int64_t fallback, int64_t *out, qn_error *error)
{
    const qn_attr *attr = qn__node_attr(in->node, name);
    for (size_t i = 0; i < n; i++)
        out[i] = fallback;
    if (attr == NULL)
        return QN_OK;
    QN_INFER_CHECK(in, error, attr->kind == QN_ATTR_INTS, "attribute \"%s\" is not a list", name);
    if (attr->count == 0)
        return QN_OK;
    QN_INFER_CHECK(in, error, attr->count == n, "\"%s\" has %zu values, %zu are needed", name,
                   attr->count, n);
    for (size_t i = 0; i < n; i++) {
        QN_INFER_CHECK(in, error, attr->ints[i] >= low && attr->ints[i] <= INT32_MAX,
                       "\"%s\" has value %" PRId64 ", %" PRId64 " is the least", name,
                       attr->ints[i], low);
        out[i] = attr->ints[i];
    }
    return QN_OK;
}

static qn_status read_mode(const qn_infer *in, auto_pad *out, qn_error *error)
{
    static const char *const NAMES[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    const char *text = qn__attr_string(in->node, "auto_pad", "NOTSET");
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, NAMES[i]) == 0) {
            *out = (auto_pad)i;
            return QN_OK;
        }
    }
    return qn__infer_fail(in, error, QN_CORRUPT, "\"auto_pad\" is \"%s\"", text);
}

/* kernel is filled in already. */
static qn_status read_window(const qn_infer *in, window *w, qn_error *error)
{
    int64_t pads[2 * MAX_SPATIAL];
    QN_TRY(read_mode(in, &w->mode, error));
    QN_TRY(read_list(in, "strides", w->n, 1, 1, w->stride, error));
    QN_TRY(read_list(in, "dilations", w->n, 1, 1, w->dilation, error));
    QN_TRY(read_list(in, "pads", 2 * w->n, 0, 0, pads, error));
    for (size_t i = 0; i < w->n; i++) {
        QN_INFER_CHECK(in, error, w->kernel[i] >= 1 && w->kernel[i] <= INT32_MAX,
                       "kernel has size %" PRId64 " along axis %zu", w->kernel[i], i + 2);
        w->extent[i] = (w->kernel[i] - 1) * w->dilation[i] + 1;
        QN_INFER_CHECK(in, error, w->extent[i] <= INT32_MAX,
                       "window has size %" PRId64 " along axis %zu", w->extent[i], i + 2);
        w->begin[i] = w->mode == PAD_EXPLICIT ? pads[i] : 0;
        w->end[i] = w->mode == PAD_EXPLICIT ? pads[w->n + i] : 0;
    }
    return QN_OK;
}

static void split_pad(window *w, size_t i, int64_t total)
{
    if (total < 0)
        total = 0;
    const int64_t small = total / 2;
    w->begin[i] = w->mode == PAD_SAME_UPPER ? small : total - small;
    w->end[i] = total - w->begin[i];
}

/* Writes resolved pads as the attribute and forgets auto_pad. */
static qn_status store_pads(const qn_infer *in, const window *w, qn_error *error)
{
    int64_t pads[2 * MAX_SPATIAL];
    for (size_t i = 0; i < w->n; i++) {
        pads[i] = w->begin[i];
        pads[w->n + i] = w->end[i];
    }
    if (!qn__node_set_ints(in->graph, in->node, "pads", pads, 2 * w->n))
        return QN_NOMEM(error);
    qn__node_remove_attr(in->node, "auto_pad");
    return QN_OK;
}

static bool spatial_static(const qn_tensor *x, size_t n)
{
    bool all = true;
    for (size_t i = 0; i < n; i++)
        all &= x->dims[2 + i].kind == QN_DIM_CONST;
    return all;
}

static qn_status resolve_auto_pad(const qn_infer *in, window *w, const qn_tensor *x,
                                  qn_error *error)
{
    if (w->mode == PAD_EXPLICIT)
        return QN_OK;
    if (w->mode != PAD_VALID) {
        if (!spatial_static(x, w->n))
            return QN_OK;
        for (size_t i = 0; i < w->n; i++) {
            const int64_t size = x->dims[2 + i].value;
            QN_INFER_CHECK(in, error, size <= INT64_MAX / 4, "input has size %" PRId64, size);
            const int64_t out = size / w->stride[i] + (size % w->stride[i] != 0);
            split_pad(w, i, out > 0 ? (out - 1) * w->stride[i] + w->extent[i] - size : 0);
        }
    }
    QN_TRY(store_pads(in, w, error));
    w->mode = PAD_EXPLICIT;
    return QN_OK;
}

/* Output size along spatial axis i. */
static qn_status window_dim(const qn_infer *in, const window *w, size_t i, qn_dim size,
                            bool ceil_mode, qn_dim *out, qn_error *error)
{
    const bool same = w->mode == PAD_SAME_UPPER || w->mode == PAD_SAME_LOWER;
    const int64_t pad = w->begin[i] + w->end[i];
    if (size.kind != QN_DIM_CONST) {
        const bool keeps = w->stride[i] == 1 && (same || pad == w->extent[i] - 1);
        *out = keeps ? size : qn_dim_unknown();
        return QN_OK;
    }
    int64_t padded;
    QN_INFER_CHECK(in, error, !__builtin_add_overflow(size.value, pad, &padded),
                   "padded input is too large along axis %zu", i + 2);
    /* Rounded up, a window that is too large by less than a stride is there once. */
    const int64_t free = padded - w->extent[i];
    QN_INFER_CHECK(in, error, free >= 0 || (ceil_mode && free > -w->stride[i]),
                   "window of %" PRId64 " is larger than the padded input, %" PRId64
                   ", along axis %zu",
                   w->extent[i], padded, i + 2);
    int64_t steps = free / w->stride[i];
    if (ceil_mode && free > 0 && free % w->stride[i] != 0) {
        steps++;
        /* A window that would start in the end padding is not there. */
        if (steps * w->stride[i] >= size.value + w->begin[i])
            steps--;
    }
    *out = qn_dim_const(steps + 1);
    return QN_OK;
}

static qn_status check_kernel_attr(const qn_infer *in, const window *w, qn_error *error)
{
    int64_t kernel[MAX_SPATIAL];
    QN_TRY(read_list(in, "kernel_shape", w->n, 1, -1, kernel, error));
    for (size_t i = 0; i < w->n; i++)
        QN_INFER_CHECK(in, error, kernel[i] == -1 || kernel[i] == w->kernel[i],
                       "\"kernel_shape\" says %" PRId64
                       " along axis %zu, weight \"%s\" has %" PRId64,
                       kernel[i], i + 2, qn_infer_in(in, 1)->name, w->kernel[i]);
    return QN_OK;
}

/* Common to both convolutions: x and w have shapes, weight dims are constant. */
static qn_status check_conv(const qn_infer *in, const qn_tensor *x, const qn_tensor *weight,
                            int64_t group, int64_t n_out, qn_error *error)
{
    const bool integer = in->node->op == QN_OP_CONV_INTEGER; /* input 2 is a zero point */
    const bool grouped = in->node->op == QN_OP_CONV || integer;
    const qn_tensor *bias = integer ? NULL : qn_infer_in(in, 2);
    const int64_t per_group = weight->dims[grouped ? 1 : 0].value;
    int64_t channels;
    QN_INFER_CHECK(in, error, group >= 1, "\"group\" is %" PRId64, group);
    QN_INFER_CHECK(in, error, !__builtin_mul_overflow(per_group, grouped ? group : 1, &channels),
                   "\"group\" is %" PRId64, group);
    QN_INFER_CHECK(in, error, x->dims[1].kind != QN_DIM_CONST || x->dims[1].value == channels,
                   "weight \"%s\" has %" PRId64 " channels for %" PRId64
                   " groups, input \"%s\" has %" PRId64,
                   weight->name, per_group, group, x->name, x->dims[1].value);
    QN_INFER_CHECK(in, error, n_out % group == 0 && channels % group == 0,
                   "weight \"%s\": %" PRId64 " to %" PRId64 " channels do not divide into %" PRId64
                   " groups",
                   weight->name, channels, n_out, group);
    if (qn_has_shape(bias))
        QN_INFER_CHECK(in, error,
                       bias->rank == 1 &&
                           (bias->dims[0].kind != QN_DIM_CONST || bias->dims[0].value == n_out),
                       "bias \"%s\" does not have %" PRId64 " values", bias->name, n_out);
    return QN_OK;
}

/* Checks ranks and reads the window; *known false: shapes are not there yet. */
static qn_status conv_start(const qn_infer *in, window *w, bool *known, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    QN_TRY(qn__infer_need(in, 1, error));
    const qn_tensor *x = qn_infer_in(in, 0), *weight = qn_infer_in(in, 1);
    int64_t dims[QN_MAX_RANK];
    qn__infer_dtype_like(in, 0, x);
    *known = qn_has_shape(x) && qn__tensor_static_dims(weight, dims);
    if (!*known)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank >= 3, "input \"%s\" has rank %u, 3 is the least", x->name,
                   x->rank);
    QN_INFER_CHECK(in, error, weight->rank == x->rank,
                   "weight \"%s\" has rank %u, input \"%s\" has rank %u", weight->name,
                   weight->rank, x->name, x->rank);
    w->n = (size_t)x->rank - 2;
    for (size_t i = 0; i < w->n; i++)
        w->kernel[i] = dims[2 + i];
    QN_TRY(read_window(in, w, error));
    return check_kernel_attr(in, w, error);
}

qn_status qn__infer_conv(qn_infer *in, qn_error *error)
{
    window w = {0};
    bool known;
    QN_TRY(conv_start(in, &w, &known, error));
    if (!known)
        return QN_OK;
    const qn_tensor *x = in->node->inputs[0], *weight = in->node->inputs[1];
    const int64_t n_out = weight->dims[0].value;
    QN_TRY(check_conv(in, x, weight, qn__attr_int(in->node, "group", 1), n_out, error));
    QN_TRY(resolve_auto_pad(in, &w, x, error));
    qn_dim dims[QN_MAX_RANK] = {x->dims[0], qn_dim_const(n_out)};
    for (size_t i = 0; i < w.n; i++)
        QN_TRY(window_dim(in, &w, i, x->dims[2 + i], false, &dims[2 + i], error));
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}

/* (size - 1) * stride + extent + extra, or false. */
static bool transpose_full(int64_t *out, int64_t size, const window *w, size_t i, int64_t extra)
{
    int64_t full;
    if (size < 1 || __builtin_mul_overflow(size - 1, w->stride[i], &full) ||
        __builtin_add_overflow(full, w->extent[i], &full) ||
        __builtin_add_overflow(full, extra, &full))
        return false;
    *out = full;
    return true;
}

/* Padding of a transposed convolution from output_shape or auto_pad. */
static qn_status transpose_pads(const qn_infer *in, window *w, const qn_tensor *x, int64_t *extra,
                                qn_error *error)
{
    int64_t wanted[MAX_SPATIAL];
    size_t count = 0;
    const int64_t *shape = qn__attr_ints(in->node, "output_shape", &count);
    QN_INFER_CHECK(in, error, count == 0 || count == w->n || count == w->n + 2,
                   "\"output_shape\" has %zu values, %zu are needed", count, w->n);
    if (count == 0 && w->mode == PAD_EXPLICIT)
        return QN_OK;
    if (count == 0 && w->mode == PAD_VALID) {
        w->mode = PAD_EXPLICIT;
        return store_pads(in, w, error);
    }
    if (!spatial_static(x, w->n))
        return QN_OK;
    for (size_t i = 0; i < w->n; i++) {
        int64_t full;
        QN_INFER_CHECK(in, error, transpose_full(&full, x->dims[2 + i].value, w, i, extra[i]),
                       "output is too large along axis %zu", i + 2);
        wanted[i] = count > 0 ? shape[count - w->n + i] : 0;
        if (count == 0 && __builtin_mul_overflow(x->dims[2 + i].value, w->stride[i], &wanted[i]))
            wanted[i] = 0;
        /* A larger output has elements at its end that no tap reaches. */
        if (wanted[i] > full && wanted[i] - full < w->stride[i]) {
            extra[i] += wanted[i] - full;
            full = wanted[i];
        }
        QN_INFER_CHECK(in, error, wanted[i] >= 1 && wanted[i] <= full,
                       "output of %" PRId64 " along axis %zu needs negative pads", wanted[i],
                       i + 2);
        /* ONNX: only SAME_UPPER puts the odd element at the end. */
        const auto_pad mode = w->mode;
        w->mode = mode == PAD_SAME_UPPER ? PAD_SAME_UPPER : PAD_SAME_LOWER;
        split_pad(w, i, full - wanted[i]);
        w->mode = mode;
    }
    qn__node_remove_attr(in->node, "output_shape");
    if (!qn__node_set_ints(in->graph, in->node, "output_padding", extra, w->n))
        return QN_NOMEM(error);
    w->mode = PAD_EXPLICIT;
    return store_pads(in, w, error);
}

qn_status qn__infer_conv_transpose(qn_infer *in, qn_error *error)
{
    window w = {0};
    bool known;
    QN_TRY(conv_start(in, &w, &known, error));
    if (!known)
        return QN_OK;
    const qn_tensor *x = in->node->inputs[0], *weight = in->node->inputs[1];
    const int64_t group = qn__attr_int(in->node, "group", 1);
    int64_t n_out, extra[MAX_SPATIAL];
    QN_INFER_CHECK(in, error,
                   group >= 1 && !__builtin_mul_overflow(weight->dims[1].value, group, &n_out),
                   "\"group\" is %" PRId64, group);
    QN_TRY(check_conv(in, x, weight, group, n_out, error));
    QN_TRY(read_list(in, "output_padding", w.n, 0, 0, extra, error));
    for (size_t i = 0; i < w.n; i++)
        QN_INFER_CHECK(in, error, extra[i] < w.stride[i] || extra[i] < w.dilation[i],
                       "\"output_padding\" %" PRId64 " is not below stride %" PRId64, extra[i],
                       w.stride[i]);
    QN_TRY(transpose_pads(in, &w, x, extra, error));
    qn_dim dims[QN_MAX_RANK] = {x->dims[0], qn_dim_const(n_out)};
    for (size_t i = 0; i < w.n; i++) {
        int64_t full;
        dims[2 + i] = qn_dim_unknown();
        if (x->dims[2 + i].kind != QN_DIM_CONST || w.mode != PAD_EXPLICIT)
            continue;
        QN_INFER_CHECK(in, error, transpose_full(&full, x->dims[2 + i].value, &w, i, extra[i]),
                       "output is too large along axis %zu", i + 2);
        const int64_t size = full - w.begin[i] - w.end[i];
        QN_INFER_CHECK(in, error, size >= 1, "pads leave %" PRId64 " elements along axis %zu", size,
                       i + 2);
        dims[2 + i] = qn_dim_const(size);
    }
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}

qn_status qn__infer_pool(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    window w = {0};
    if (in->node->op == QN_OP_MAX_POOL) {
        qn__infer_type_moved(in, 0, x);
        qn__infer_dtype(in, 1, QN_DTYPE_I64);
    } else {
        qn__infer_dtype_like(in, 0, x);
    }
    if (!x->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank >= 3, "input \"%s\" has rank %u, 3 is the least", x->name,
                   x->rank);
    w.n = (size_t)x->rank - 2;
    const qn_attr *kernel = qn__node_attr(in->node, "kernel_shape");
    QN_INFER_CHECK(in, error, kernel != NULL && kernel->count == w.n,
                   "\"kernel_shape\" does not have %zu values", w.n);
    QN_TRY(read_list(in, "kernel_shape", w.n, 1, 1, w.kernel, error));
    QN_TRY(read_window(in, &w, error));
    QN_TRY(resolve_auto_pad(in, &w, x, error));
    const bool ceil_mode = qn__attr_int(in->node, "ceil_mode", 0) != 0;
    qn_dim dims[QN_MAX_RANK] = {x->dims[0], x->dims[1]};
    for (size_t i = 0; i < w.n; i++) {
        QN_INFER_CHECK(in, error, w.begin[i] < w.extent[i] && w.end[i] < w.extent[i],
                       "pads %" PRId64 ", %" PRId64 " are not smaller than the window of %" PRId64,
                       w.begin[i], w.end[i], w.extent[i]);
        QN_TRY(window_dim(in, &w, i, x->dims[2 + i], ceil_mode, &dims[2 + i], error));
    }
    QN_TRY(qn__infer_shape_set(in, 0, x->rank, dims, error));
    return qn__infer_shape_set(in, 1, x->rank, dims, error);
}

qn_status qn__infer_global_pool(qn_infer *in, qn_error *error)
{
    QN_TRY(qn__infer_need(in, 0, error));
    const qn_tensor *x = in->node->inputs[0];
    if (in->node->op == QN_OP_GLOBAL_MAX_POOL)
        qn__infer_type_moved(in, 0, x);
    else
        qn__infer_dtype_like(in, 0, x);
    if (!x->has_shape)
        return QN_OK;
    QN_INFER_CHECK(in, error, x->rank >= 2, "input \"%s\" has rank %u, 2 is the least", x->name,
                   x->rank);
    qn_dim dims[QN_MAX_RANK] = {x->dims[0], x->dims[1]};
    for (size_t i = 2; i < x->rank; i++)
        dims[i] = qn_dim_const(1);
    return qn__infer_shape_set(in, 0, x->rank, dims, error);
}
