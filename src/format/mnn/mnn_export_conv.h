/* Parts of the MNN exporter that operators on pictures share: windows, weights, rank 3. */
#ifndef QN_FORMAT_MNN_EXPORT_CONV_H
#define QN_FORMAT_MNN_EXPORT_CONV_H

#include "format/mnn/mnn_export.h"

typedef struct qn_mnx_window {
    int64_t kernel[2], strides[2], dilations[2]; /* y, x */
    int64_t pads[4];                             /* top, left, bottom, right */
} qn_mnx_window;
/* strides, dilations and pads of a node over one or two axes. */
qn_status qn__mnx_window(const qn_node *node, size_t axes, const int64_t *kernel,
                         qn_mnx_window *out, qn_error *error);

/* [rows][columns], floats or integers with a scale per row. */
typedef struct qn_mnx_weights {
    size_t rows, columns;
    const float *values; /* or */
    const int8_t *q;
    const float *scales; /* [rows] */
    uint32_t bits;
} qn_mnx_weights;
/* Contents of a constant in its own order; axis: of the scales. */
qn_status qn__mnx_weights(qn_mnx_exporter *x, const qn_node *node, const qn_tensor *tensor,
                          int axis, size_t rows, size_t columns, qn_mnx_weights *out,
                          qn_error *error);

/* A packed tensor of rank 4 for an input of rank 3 or 4, and the way back. */
qn_status qn__mnx_as_image(qn_mnx_exporter *x, const qn_node *node, const qn_tensor *tensor,
                           int32_t *id, qn_error *error);
int32_t qn__mnx_image_out(qn_mnx_exporter *x, const qn_node *node, bool fused);
void qn__mnx_image_done(qn_mnx_exporter *x, const qn_node *node, int32_t id, bool fused);

#endif
