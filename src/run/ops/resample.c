/* Where each output position of a Resize lies in the input, and what it takes from there. */
#include "run/ops/resample.h"

#include <math.h>

float qn__resize_coordinate(const qn_resize *r, size_t axis, int64_t k)
{
    const float x = (float)k, scale = r->scales[axis];
    const int64_t in = r->in_dims[axis], out = r->out_dims[axis];
    switch (r->coordinate) {
    case QN_COORD_HALF_PIXEL:
        break;
    case QN_COORD_HALF_PIXEL_SYMMETRIC: {
        const float adjustment = (float)out / (scale * (float)in);
        const float center = (float)in / 2.0f;
        return center * (1.0f - adjustment) + (x + 0.5f) / scale - 0.5f;
    }
    case QN_COORD_PYTORCH_HALF_PIXEL:
        return out > 1 ? (x + 0.5f) / scale - 0.5f : 0.0f;
    case QN_COORD_ALIGN_CORNERS:
        /* ONNX's definition aligns the corners of a fractional length. */
        return out == 1 ? 0.0f : x * (float)(in - 1) / (r->lengths[axis] - 1.0f);
    case QN_COORD_ASYMMETRIC:
        return x / scale;
    case QN_COORD_TF_CROP_AND_RESIZE: {
        const float start = r->roi_start[axis], end = r->roi_end[axis], last = (float)(in - 1);
        return out > 1 ? start * last + x * (end - start) * last / (float)(out - 1)
                       : 0.5f * (start + end) * last;
    }
    case QN_COORD_TF_HALF_PIXEL_NN:
        return (x + 0.5f) / scale;
    }
    return (x + 0.5f) / scale - 0.5f;
}

/* What float32 makes of a coordinate in the middle of two: as much off is still the middle. */
#define NEARLY 1e-6f

int64_t qn__resize_nearest(const qn_resize *r, size_t axis, int64_t k)
{
    const float x = qn__resize_coordinate(r, axis, k);
    const float down = floorf(x);
    float at = down;
    switch (r->nearest) {
    case QN_NEAREST_ROUND_PREFER_FLOOR:
        at = x - down <= 0.5f + NEARLY ? down : down + 1.0f;
        break;
    case QN_NEAREST_ROUND_PREFER_CEIL:
        at = x - down < 0.5f - NEARLY ? down : down + 1.0f;
        break;
    case QN_NEAREST_FLOOR:
        break;
    case QN_NEAREST_CEIL:
        at = ceilf(x);
        break;
    }
    const float last = (float)(r->in_dims[axis] - 1);
    return (int64_t)(at < 0.0f ? 0.0f : at > last ? last : at);
}

void qn__linear_taps(const qn_resize *r, size_t axis, int64_t k, int32_t *index, float *weight)
{
    const float last = (float)(r->in_dims[axis] - 1);
    float x = r->changes[axis] ? qn__resize_coordinate(r, axis, k) : (float)k;
    x = x < 0.0f ? 0.0f : x > last ? last : x;
    const float down = floorf(x);
    index[0] = (int32_t)down;
    index[1] = down + 1.0f > last ? (int32_t)last : (int32_t)down + 1;
    /* The last element twice, by halves: so onnxruntime sums. */
    weight[1] = down + 1.0f > last ? 0.5f : x - down;
    weight[0] = 1.0f - weight[1];
}

void qn__cubic_taps(const qn_resize *r, size_t axis, int64_t k, float a, bool exclude,
                    int32_t *index, float *weight)
{
    const float x = qn__resize_coordinate(r, axis, k);
    const float down = floorf(x), t = x - down;
    const float d[4] = {t + 1.0f, t, 1.0f - t, 2.0f - t};
    float sum = 0.0f;
    for (int i = 0; i < 4; i++) {
        const float p = d[i];
        weight[i] = i == 1 || i == 2 ? ((a + 2.0f) * p - (a + 3.0f)) * p * p + 1.0f
                                     : ((a * p - 5.0f * a) * p + 8.0f * a) * p - 4.0f * a;
        const int64_t at = (int64_t)down - 1 + i;
        if (exclude && (at < 0 || at >= r->in_dims[axis]))
            weight[i] = 0.0f;
        index[i] = (int32_t)(at < 0 ? 0 : at >= r->in_dims[axis] ? r->in_dims[axis] - 1 : at);
        sum += weight[i];
    }
    for (int i = 0; exclude && i < 4; i++)
        weight[i] /= sum;
}

static float cubic_weight(float distance, float a)
{
    const float p = fabsf(distance);
    return p <= 1.0f  ? ((a + 2.0f) * p - (a + 3.0f)) * p * p + 1.0f
           : p < 2.0f ? ((a * p - 5.0f * a) * p + 8.0f * a) * p - 4.0f * a
                      : 0.0f;
}

size_t qn__wide_half(float scale, bool cubic)
{
    const float reach = (cubic ? 2.0f : 1.0f) / (scale < 1.0f ? scale : 1.0f);
    return reach < 1e6f ? (size_t)ceilf(reach) : 0;
}

void qn__wide_taps(const qn_resize *r, size_t axis, int64_t k, float a, bool cubic, bool exclude,
                   size_t half, int32_t *index, float *weight)
{
    const float x = qn__resize_coordinate(r, axis, k), down = floorf(x);
    const float scale = r->scales[axis] < 1.0f ? r->scales[axis] : 1.0f;
    float sum = 0.0f;
    for (size_t i = 0; i < 2 * half; i++) {
        const int64_t at = (int64_t)down - (int64_t)half + 1 + (int64_t)i;
        const float distance = ((float)at - x) * scale;
        weight[i] = cubic                    ? cubic_weight(distance, a)
                    : fabsf(distance) < 1.0f ? 1.0f - fabsf(distance)
                                             : 0.0f;
        if (exclude && (at < 0 || at >= r->in_dims[axis]))
            weight[i] = 0.0f;
        index[i] = (int32_t)(at < 0 ? 0 : at >= r->in_dims[axis] ? r->in_dims[axis] - 1 : at);
        sum += weight[i];
    }
    for (size_t i = 0; i < 2 * half; i++)
        weight[i] /= sum;
}
