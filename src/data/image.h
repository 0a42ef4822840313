/* Picture decoders, one per file format, and what they share. */
#ifndef QN_DATA_IMAGE_H
#define QN_DATA_IMAGE_H

#include "data/data.h"

typedef struct qn_image_source {
    const qn_context *ctx;
    const uint8_t *bytes;
    size_t size_bytes;
    const char *name;  /* for messages */
    uint32_t channels; /* wanted: 1, 3 or 4 (RGBA: opaque where the file has no alpha) */
    bool as_mnn;       /* JPEG in the arithmetic of MNN's decoder */
} qn_image_source;

qn_status qn__jpeg_decode(const qn_image_source *src, qn_image *out, qn_error *error);
qn_status qn__png_decode(const qn_image_source *src, qn_image *out, qn_error *error);
qn_status qn__webp_decode(const qn_image_source *src, qn_image *out, qn_error *error);
qn_status qn__bmp_decode(const qn_image_source *src, qn_image *out, qn_error *error);
qn_status qn__pnm_decode(const qn_image_source *src, qn_image *out, qn_error *error);

/* LIMIT or CORRUPT when the size is 0 or above the context's limits. */
qn_status qn__image_check_size(const qn_image_source *src, uint64_t width, uint64_t height,
                               qn_error *error);
/* Uninitialised pixels; the size was checked before. */
qn_status qn__image_alloc(const qn_context *ctx, uint32_t width, uint32_t height, uint32_t channels,
                          qn_image *out, qn_error *error);
/* ITU-R 601 luma in Pillow's 16-bit arithmetic; identity where R = G = B. In place is fine. */
void qn__rgb_to_gray(const uint8_t *rgb, uint8_t *gray, size_t count);
/* Turns an RGB image into the wanted channel count. */
qn_status qn__image_to_channels(qn_image *image, uint32_t channels, qn_error *error);

/* The part [x0, x0 + width) x [y0, y0 + height) of src resized to full_width x full_height. */
typedef struct qn_resize_region {
    uint32_t full_width, full_height;
    uint32_t x0, y0, width, height;
    qn_filter filter;
} qn_resize_region;
qn_status qn__image_resize_region(const qn_image *src, const qn_resize_region *region,
                                  qn_image *out, qn_error *error);

/* The part [x0, x0 + width) x [y0, y0 + height) of src resized as MNN does: corners on corners,
 * interpolated values rounded or truncated. */
typedef struct qn_mnn_resize {
    uint32_t x0, y0, width, height;
    uint32_t out_width, out_height;
    bool truncate;
} qn_mnn_resize;
qn_status qn__image_resize_mnn(const qn_image *src, const qn_mnn_resize *resize, qn_image *out,
                               qn_error *error);
/* MNN's luma, (19 R + 38 G + 7 B) / 64, of an RGB or RGBA image, in place. */
void qn__image_gray_mnn(qn_image *image);

#endif
