/* Resize: where each output position lies in the input. */
#ifndef QN_RUN_OPS_RESAMPLE_H
#define QN_RUN_OPS_RESAMPLE_H

#include "run/op.h"

typedef enum qn_coordinate {
    QN_COORD_HALF_PIXEL = 0,
    QN_COORD_HALF_PIXEL_SYMMETRIC = 1,
    QN_COORD_PYTORCH_HALF_PIXEL = 2,
    QN_COORD_ALIGN_CORNERS = 3,
    QN_COORD_ASYMMETRIC = 4,
    QN_COORD_TF_HALF_PIXEL_NN = 5,
    QN_COORD_TF_CROP_AND_RESIZE = 6
} qn_coordinate;
typedef enum qn_nearest {
    QN_NEAREST_ROUND_PREFER_FLOOR = 0,
    QN_NEAREST_ROUND_PREFER_CEIL = 1,
    QN_NEAREST_FLOOR = 2,
    QN_NEAREST_CEIL = 3
} qn_nearest;

typedef struct qn_resize {
    qn_coordinate coordinate;
    qn_nearest nearest;
    size_t rank;
    int64_t in_dims[QN_MAX_RANK], out_dims[QN_MAX_RANK];
    float scales[QN_MAX_RANK];
    bool changes[QN_MAX_RANK];  /* the axis is resampled at all */
    float lengths[QN_MAX_RANK]; /* of the output before it was rounded down */
    float roi_start[QN_MAX_RANK], roi_end[QN_MAX_RANK];
} qn_resize;

/* Position in the input of output position k along axis. */
float qn__resize_coordinate(const qn_resize *resize, size_t axis, int64_t k);
int64_t qn__resize_nearest(const qn_resize *resize, size_t axis, int64_t k);

/* Taps of one output position: elements of the axis and their weights. Linear has two, cubic four;
 * an antialiased filter is wider where the axis shrinks, `half` on each side (0: too wide). */
void qn__linear_taps(const qn_resize *r, size_t axis, int64_t k, int32_t *index, float *weight);
void qn__cubic_taps(const qn_resize *r, size_t axis, int64_t k, float a, bool exclude,
                    int32_t *index, float *weight);
size_t qn__wide_half(float scale, bool cubic);
void qn__wide_taps(const qn_resize *r, size_t axis, int64_t k, float a, bool cubic, bool exclude,
                   size_t half, int32_t *index, float *weight);

/* index.c: tables for the nearest mode, run by qn__run_index. */
qn_status qn__prepare_resize_nearest(const qn_plan *plan, qn_step *step, const qn_resize *resize,
                                     qn_error *error);
qn_status qn__run_index(const qn_step *step, const qn_run_env *env, const qn_view *in,
                        const qn_view *out, qn_error *error);
void qn__release_index(const qn_context *ctx, qn_step *step);

#endif
