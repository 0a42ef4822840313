/* One picture file to the float tensor of a model input. */
#ifndef QN_DATA_PICTURE_H
#define QN_DATA_PICTURE_H

#include "data/data.h"
#include "data/image.h"

typedef enum qn_geometry {
    QN_GEOMETRY_NONE = 0,    /* the picture's own size, then the crop */
    QN_GEOMETRY_EXACT = 1,   /* width x height, aspect not kept */
    QN_GEOMETRY_SHORTER = 2, /* shorter side, then the crop */
    QN_GEOMETRY_LETTERBOX = 3
} qn_geometry;

/* Decided once per dataset; immutable, shared by threads. */
typedef struct qn_picture_plan {
    qn_geometry geometry;
    qn_filter filter;
    uint32_t shorter;
    uint32_t width, height;           /* of EXACT and LETTERBOX */
    uint32_t crop_width, crop_height; /* 0: none */
    uint32_t out_width, out_height;
    uint32_t n_channels;                /* 1, 3 or 4 */
    bool reversed;                      /* BGR, BGRA */
    bool channels_last;                 /* NHWC input */
    double centre_width, centre_height; /* MNN filters: fraction kept */
    float values[4][256]; /* (v - mean) * normal by channel, in the order of the tensor */
} qn_picture_plan;

/* Errors: INVALID_ARGUMENT naming the option, for a spec or options that do not fit. */
qn_status qn__picture_plan_init(const qn_context *ctx, qn_picture_plan *plan,
                                const qn_input_spec *spec, const qn_preprocess *preprocess,
                                qn_error *error);
/* The picture's part at the network's size: n_channels * out_height * out_width bytes. */
qn_status qn__picture_pixels(const qn_context *ctx, const qn_picture_plan *plan, const char *path,
                             qn_image *out, qn_error *error);
/* Its values in the order of the tensor. */
void qn__picture_values(const qn_picture_plan *plan, const uint8_t *pixels, float *dst);
/* Both. dst: n_channels * out_height * out_width floats. */
qn_status qn__picture_load(const qn_context *ctx, const qn_picture_plan *plan, const char *path,
                           float *dst, qn_error *error);

#endif
