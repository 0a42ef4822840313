/* Datasets and pictures inside the library. */
#ifndef QN_DATA_DATA_H
#define QN_DATA_DATA_H

#include "core/context.h"
#include "quench/dataset.h"

/* Decoded picture: 8 bits per channel, interleaved, rows tightly packed. */
typedef struct qn_image {
    const qn_context *ctx;
    uint32_t width, height, channels; /* 1 (gray) or 3 (RGB) */
    uint8_t *pixels;                  /* freed with qn__image_free */
} qn_image;
/* By content, not extension: JPEG, PNG, WebP, BMP, PNM. want_channels: 1 or 3. EXIF rotation is not
 * applied (as Pillow's open). Errors name `name`. */
qn_status qn__image_decode(const qn_context *ctx, const uint8_t *bytes, size_t size_bytes,
                           const char *name, uint32_t want_channels, qn_image *out,
                           qn_error *error);
/* The same; JPEG levels as MNN's decoder makes them, which differ by one here and there. */
qn_status qn__image_decode_as_mnn(const qn_context *ctx, const uint8_t *bytes, size_t size_bytes,
                                  const char *name, uint32_t want_channels, qn_image *out,
                                  qn_error *error);
void qn__image_free(qn_image *image);
/* Same result as Pillow's resize, to +-1 level (bilinear, bicubic, nearest). */
qn_status qn__image_resize(const qn_image *src, uint32_t width, uint32_t height, qn_filter filter,
                           qn_image *out, qn_error *error);

/* What qn_dataset_create needs to know of a model, so that data knows nothing of graphs. */
typedef struct qn_input_spec {
    const char *name;
    uint32_t rank;
    int64_t dims[QN_MODEL_MAX_RANK]; /* -1 unknown */
    bool filled; /* with pictures: not the picture's input, all its values are `fill` */
    float fill;
} qn_input_spec;
qn_status qn__dataset_create(const qn_context *ctx, const qn_input_spec *inputs, size_t n_inputs,
                             const qn_dataset_options *options, qn_dataset **out, qn_error *error);
const qn_dataset_options *qn__dataset_options(const qn_dataset *dataset);
/* Samples that differ in shape (sizes of inputs; ranks are equal): a number below n_shapes for each
 * kind. */
size_t qn__dataset_n_shapes(const qn_dataset *dataset);
size_t qn__dataset_shape_of(const qn_dataset *dataset, size_t index);
/* A permutation of the samples that has those of one shape side by side. */
size_t qn__dataset_nth(const qn_dataset *dataset, size_t position);
/* FNV-1a 64 of the sample's file bytes (row bytes for data), for recipes. */
qn_status qn__dataset_hash(const qn_dataset *dataset, size_t index, uint64_t *out, qn_error *error);

#endif
