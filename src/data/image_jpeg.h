/* JPEG pixels from coefficients as the decoder inside MNN makes them; image_jpeg.c reads the file.
 */
#ifndef QN_DATA_IMAGE_JPEG_H
#define QN_DATA_IMAGE_JPEG_H

#include "core/status.h"

/* Samples of one component: whole blocks. */
typedef struct qn_jpeg_plane {
    size_t hs, vs;        /* picture's samples for one of these */
    size_t width, height; /* samples that belong to the picture */
    size_t stride;
    uint8_t *samples;
} qn_jpeg_plane;
/* Samples of one block: coefficients and quantization steps in natural order. */
void qn__jpeg_plane_block(const qn_jpeg_plane *plane, size_t row, size_t column,
                          const int16_t *coefficients, const uint16_t *steps);
/* One plane: gray; three: YCbCr. rows: scratch of width rounded up to whole samples, per plane. */
void qn__jpeg_planes_to_rgb(const qn_jpeg_plane *planes, size_t n_planes, uint8_t *rows[3],
                            size_t width, size_t height, uint8_t *rgb);

#endif
