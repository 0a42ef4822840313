#include "run/ops/window.h"

#include <string.h>

typedef struct axis {
    int64_t in, out, kernel, stride, dilation, pad_begin, pad_end;
} axis;

qn_status qn__window_ints(const qn_step *step, const char *name, size_t count, int64_t lo,
                          int64_t fallback, int64_t *out, qn_error *error)
{
    size_t n = 0;
    const int64_t *const values = qn__attr_ints(step->node, name, &n);
    if (n != 0 && n != count)
        return qn__step_fail(step, error, QN_CORRUPT, "%s has %zu values, %zu are needed", name, n,
                             count);
    for (size_t i = 0; i < count; i++) {
        out[i] = n == 0 ? fallback : values[i];
        if (out[i] < lo || out[i] > QN_WINDOW_MAX_EXTENT)
            return qn__step_fail(step, error, QN_CORRUPT, "%s[%zu] is %lld", name, i,
                                 (long long)out[i]);
    }
    return QN_OK;
}

/* SAME: as many outputs as strides fit into the input (ConvTranspose: input times stride); the odd
 * pad goes to the end (SAME_UPPER) or the beginning (SAME_LOWER). */
static void same_pads(axis *a, bool transposed, bool lower)
{
    const int64_t extent = (a->kernel - 1) * a->dilation + 1;
    const int64_t small = transposed ? a->in : (a->in + a->stride - 1) / a->stride;
    const int64_t large = transposed ? a->out : a->in;
    int64_t total = (small - 1) * a->stride + extent - large;
    total = total < 0 ? 0 : total;
    a->pad_begin = lower ? total - total / 2 : total / 2;
    a->pad_end = total - a->pad_begin;
}

static qn_status check_axis(const qn_step *step, const axis *a, bool transposed, bool is_pool,
                            qn_error *error)
{
    const int64_t extent = (a->kernel - 1) * a->dilation + 1;
    if (transposed) { /* output_padding adds 0..max(stride, dilation) - 1 */
        const int64_t least = (a->in - 1) * a->stride + extent - a->pad_begin - a->pad_end;
        const int64_t slack = a->stride > a->dilation ? a->stride : a->dilation;
        if (a->out < 1 || (a->out >= least && a->out - least < slack) ||
            a->out == a->in * a->stride)
            return QN_OK;
        return qn__step_fail(step, error, QN_CORRUPT, "%lld outputs do not follow from %lld inputs",
                             (long long)a->out, (long long)a->in);
    }
    const int64_t room = a->in + a->pad_begin + a->pad_end - extent;
    const int64_t floor_out = room < 0 ? 0 : room / a->stride + 1;
    const int64_t ceil_out = room < 0 ? 1 : (room + a->stride - 1) / a->stride + 1;
    if (a->out == floor_out || (is_pool && a->out == ceil_out))
        return QN_OK;
    return qn__step_fail(step, error, QN_CORRUPT, "output size is %lld, the window gives %lld",
                         (long long)a->out, (long long)floor_out);
}

qn_status qn__window_read(const qn_step *step, const int64_t *kernel, bool transposed, bool is_pool,
                          qn_window *out, qn_error *error)
{
    const qn_tensor *const in_tensor = step->node->inputs[0];
    const qn_tensor *const out_tensor = step->node->outputs[0];
    if (in_tensor->rank != out_tensor->rank || (in_tensor->rank != 3 && in_tensor->rank != 4))
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "input of rank %u (1-D and 2-D windows can be executed)",
                             in_tensor->rank);
    int64_t in[QN_MAX_RANK], result[QN_MAX_RANK];
    qn__tensor_dims(in_tensor, in);
    qn__tensor_dims(out_tensor, result);
    const size_t axes = in_tensor->rank - 2u;
    int64_t shape[2] = {0}, strides[2], dilations[2], pads[4] = {0};
    if (kernel == NULL)
        QN_TRY(qn__window_ints(step, "kernel_shape", axes, 1, 0, shape, error));
    QN_TRY(qn__window_ints(step, "strides", axes, 1, 1, strides, error));
    QN_TRY(qn__window_ints(step, "dilations", axes, 1, 1, dilations, error));
    const char *const auto_pad = qn__attr_string(step->node, "auto_pad", "NOTSET");
    const bool same = strncmp(auto_pad, "SAME", 4) == 0;
    if (!same && strcmp(auto_pad, "VALID") != 0)
        QN_TRY(qn__window_ints(step, "pads", 2 * axes, 0, 0, pads, error));

    axis a[2] = {{1, 1, 1, 1, 1, 0, 0}, {1, 1, 1, 1, 1, 0, 0}};
    for (size_t i = 0; i < axes; i++) {
        const int64_t taps = kernel != NULL ? kernel[i] : shape[i];
        if (taps < 1 || taps > QN_WINDOW_MAX_EXTENT || in[2 + i] > QN_WINDOW_MAX_EXTENT ||
            result[2 + i] > QN_WINDOW_MAX_EXTENT)
            return qn__step_fail(step, error, QN_CORRUPT, "kernel of %lld over %lld elements",
                                 (long long)taps, (long long)in[2 + i]);
        axis *const x = &a[2 - axes + i];
        *x = (axis){in[2 + i],    result[2 + i], taps,          strides[i],
                    dilations[i], pads[i],       pads[axes + i]};
        if (same)
            same_pads(x, transposed, strcmp(auto_pad, "SAME_LOWER") == 0);
        QN_TRY(check_axis(step, x, transposed, is_pool, error));
    }
    *out = (qn_window){
        .n = (size_t)in[0],
        .c = (size_t)in[1],
        .h = (size_t)a[0].in,
        .w = (size_t)a[1].in,
        .oc = (size_t)result[1],
        .oh = (size_t)a[0].out,
        .ow = (size_t)a[1].out,
        .kh = (size_t)a[0].kernel,
        .kw = (size_t)a[1].kernel,
        .sh = (size_t)a[0].stride,
        .sw = (size_t)a[1].stride,
        .dh = (size_t)a[0].dilation,
        .dw = (size_t)a[1].dilation,
        .pt = (size_t)a[0].pad_begin,
        .pl = (size_t)a[1].pad_begin,
        .pb = (size_t)a[0].pad_end,
        .pr = (size_t)a[1].pad_end,
    };
    return QN_OK;
}
