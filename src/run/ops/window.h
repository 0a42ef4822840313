/* Sliding windows of convolutions and pools: sizes, strides, pads from a node's attributes, checked
 * against the shapes of its tensors, so that loops over a window need no further checks. */
#ifndef QN_RUN_OPS_WINDOW_H
#define QN_RUN_OPS_WINDOW_H

#include "run/op.h"

/* One-dimensional nodes have h = oh = kh = 1. Everything fits ptrdiff_t. */
typedef struct qn_window {
    size_t n, c, h, w;     /* input */
    size_t oc, oh, ow;     /* output */
    size_t kh, kw, sh, sw; /* kernel, strides */
    size_t dh, dw;         /* dilations */
    size_t pt, pl, pb, pr; /* pads */
} qn_window;

/* Sizes, strides, pads and dilations stay below this, so that sums and products of two of them fit
 * int64_t whatever a file says. */
enum { QN_WINDOW_MAX_EXTENT = 1 << 30 };

/* Integers from an attribute, which has `count` of them if it is there, each at least lo. */
qn_status qn__window_ints(const qn_step *step, const char *name, size_t count, int64_t lo,
                          int64_t fallback, int64_t *out, qn_error *error);

/* Reads strides, pads, auto_pad and dilations. kernel: spatial sizes from the weights, or NULL: the
 * attribute kernel_shape. transposed: the relation of input and output is ConvTranspose's. is_pool:
 * the output may be rounded up. */
qn_status qn__window_read(const qn_step *step, const int64_t *kernel, bool transposed, bool is_pool,
                          qn_window *out, qn_error *error);

/* The taps [*first, *last) of a window that starts at `start` (may be negative) and lie inside an
 * axis of `size` elements. */
static inline void qn_window_taps(ptrdiff_t start, size_t size, size_t taps, size_t dilation,
                                  size_t *first, size_t *last)
{
    const ptrdiff_t n = (ptrdiff_t)taps, d = (ptrdiff_t)dilation, end = (ptrdiff_t)size;
    if (start >= 0 && start + (n - 1) * d < end) { /* most windows: no division */
        *first = 0;
        *last = taps;
        return;
    }
    const ptrdiff_t lo = start >= 0 ? 0 : (-start + d - 1) / d;
    const ptrdiff_t hi = start >= end ? 0 : (end - start + d - 1) / d;
    *first = (size_t)(lo < n ? lo : n);
    *last = (size_t)(hi < n ? hi : n);
    if (*last < *first)
        *last = *first;
}

#endif
