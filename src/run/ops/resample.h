/* Resize: where each output position lies in the input. */
#ifndef QN_RUN_OPS_RESAMPLE_H
#define QN_RUN_OPS_RESAMPLE_H

#include "run/ops/qcore.h"

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

/* One axis of a linear or cubic Resize. */
typedef struct qn_resize_pass {
    size_t taps, outer, in, inner, out;
    int32_t *index; /* [out][taps] */
    float *weight;
    uint8_t *outside;  /* [out] of the input, when the region may be; else NULL */
    size_t last_inner; /* elements below the axis in the finished output */
} qn_resize_pass;

typedef struct qn_resize_state {
    float extrapolation;
    size_t n_passes, buffer; /* floats of one scratch buffer */
    qn_resize_pass passes[QN_MAX_RANK];
    bool bytes, truncates; /* linear on bytes; sums of them are truncated */
    qn_qparams x, y;
} qn_resize_state;

typedef struct qn_resize_bytes {
    const qn_resize_state *s;
    const uint8_t *src;
    uint8_t *dst;
    qn_q8_dequantize_fn dequantize;
} qn_resize_bytes;

typedef struct qn_resize_job {
    const qn_resize_pass *pass;
    const float *src;
    float *dst;
} qn_resize_job;

/* resize_rows.c, as tasks (qn__parallel_ranges): positions of a qn_resize_bytes, which makes two
 * passes at once; rows of a qn_resize_job. */
void qn__resize_bytes_rows(void *arg, size_t begin, size_t end);
void qn__resize_rows(void *arg, size_t begin, size_t end);

/* index.c: tables for the nearest mode, run by qn__run_index. */
qn_status qn__prepare_resize_nearest(const qn_plan *plan, qn_step *step, const qn_resize *resize,
                                     qn_error *error);
qn_status qn__run_index(const qn_step *step, const qn_run_env *env, const qn_view *in,
                        const qn_view *out, qn_error *error);
void qn__release_index(const qn_context *ctx, qn_step *step);

#endif
