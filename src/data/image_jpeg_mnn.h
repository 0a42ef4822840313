/* The steps of a JPEG after its coefficients, as MNN's decoder takes them. */
#ifndef QN_DATA_IMAGE_JPEG_MNN_H
#define QN_DATA_IMAGE_JPEG_MNN_H

#include <stdio.h>

#include <jpeglib.h>

#include "data/image.h"

typedef struct qn_jpeg_plane {
    uint8_t *values; /* freed with qn__free */
    size_t stride;
    uint32_t rows;
    uint32_t hs, vs; /* picture pixels per value */
} qn_jpeg_plane;

qn_status qn__jpeg_mnn_plane(struct jpeg_decompress_struct *cinfo, jvirt_barray_ptr blocks,
                             int component, const qn_context *ctx, qn_jpeg_plane *out,
                             qn_error *error);
/* Row y of the picture; out has room for hs values more than width. */
void qn__jpeg_mnn_row(const qn_jpeg_plane *plane, uint32_t width, uint32_t y, uint8_t *out);
void qn__jpeg_mnn_colours(const struct jpeg_decompress_struct *cinfo, uint8_t *const rows[4],
                          uint8_t *rgb, uint32_t width);

#endif
