/* Resizing. Bilinear and bicubic are antialiased and follow Pillow's 8-bit arithmetic: weights in
 * 22-bit fixed point, rounded to 8 bits between the two passes. Only the region asked
 * for, and the source rows it needs, are computed. */
#include "data/image.h"

#include <math.h>
#include <string.h>

#include "core/checked.h"
#include "kernel/kernel.h"

/* For output i: taps [first[i], first[i] + (offset[i + 1] - offset[i])) with weights from
 * weights[offset[i]]. */
typedef struct qn_axis {
    uint32_t n;
    uint32_t *first;
    size_t *offset;
    int32_t *weights;
} qn_axis;

static void axis_free(const qn_context *ctx, qn_axis *axis)
{
    qn__free(ctx, axis->first);
    qn__free(ctx, axis->offset);
    qn__free(ctx, axis->weights);
}

static double filter_triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double filter_cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

typedef struct qn_axis_map {
    double scale;   /* source pixels per output pixel */
    double stretch; /* of the filter: scale, at least 1 */
    double support;
    double (*filter)(double x);
    uint32_t in_size;
} qn_axis_map;

static void axis_range(const qn_axis_map *map, double centre, uint32_t *first, uint32_t *end)
{
    const double low = centre - map->support + 0.5, high = centre + map->support + 0.5;
    const double size = map->in_size;
    *first = low <= 0 ? 0 : low >= size ? map->in_size - 1 : (uint32_t)low;
    *end = high >= size ? map->in_size : high < 0 ? 0 : (uint32_t)high;
    if (*end <= *first)
        *end = *first + 1;
}

static void axis_weights(const qn_axis_map *map, double centre, uint32_t first, uint32_t count,
                         int32_t *weights)
{
    const double inverse = 1.0 / map->stretch;
    double sum = 0;
    for (uint32_t k = 0; k < count; k++)
        sum += map->filter(((double)k + (double)first - centre + 0.5) * inverse);
    for (uint32_t k = 0; k < count; k++) {
        double w = map->filter(((double)k + (double)first - centre + 0.5) * inverse);
        if (sum != 0.0)
            w /= sum;
        w *= 1 << QN_RESIZE_BITS;
        weights[k] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
    }
}

/* Outputs [begin, begin + n) of in_size pixels resized to out_size. */
static qn_status axis_init(const qn_context *ctx, qn_axis *axis, uint32_t in_size,
                           uint32_t out_size, uint32_t begin, uint32_t n, qn_filter filter,
                           qn_error *error)
{
    qn_axis_map map = {.scale = (double)in_size / out_size, .in_size = in_size};
    map.stretch = map.scale < 1.0 ? 1.0 : map.scale;
    map.filter = filter == QN_FILTER_BICUBIC ? filter_cubic : filter_triangle;
    map.support = (filter == QN_FILTER_BICUBIC ? 2.0 : 1.0) * map.stretch;
    axis->n = n;
    axis->first = qn__calloc(ctx, n, sizeof(*axis->first));
    axis->offset = qn__calloc(ctx, (size_t)n + 1, sizeof(*axis->offset));
    if (axis->first == NULL || axis->offset == NULL)
        return QN_NOMEM(error);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t end;
        axis_range(&map, ((double)begin + i + 0.5) * map.scale, &axis->first[i], &end);
        axis->offset[i + 1] = axis->offset[i] + (end - axis->first[i]);
    }
    axis->weights = qn__calloc(ctx, axis->offset[n], sizeof(*axis->weights));
    if (axis->weights == NULL)
        return QN_NOMEM(error);
    for (uint32_t i = 0; i < n; i++)
        axis_weights(&map, ((double)begin + i + 0.5) * map.scale, axis->first[i],
                     (uint32_t)(axis->offset[i + 1] - axis->offset[i]),
                     axis->weights + axis->offset[i]);
    return QN_OK;
}

static inline uint8_t clip8(int32_t sum)
{
    const int32_t v = sum >> QN_RESIZE_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void row_resize_gray(const qn_axis *axis, const uint8_t *src, uint8_t *dst)
{
    for (uint32_t x = 0; x < axis->n; x++) {
        const uint8_t *p = src + axis->first[x];
        int32_t v = 1 << (QN_RESIZE_BITS - 1);
        for (size_t k = axis->offset[x]; k < axis->offset[x + 1]; k++)
            v += axis->weights[k] * *p++;
        dst[x] = clip8(v);
    }
}

/* A part of an image: pixels at the upper left, bytes from row to row. */
typedef struct qn_view {
    const uint8_t *pixels;
    size_t stride;
    uint32_t width, height, channels;
} qn_view;

static void resize_columns(const qn_kernels *kernels, const qn_axis *axis, const qn_view *src,
                           uint8_t *dst)
{
    const size_t n = (size_t)src->width * src->channels;
    for (uint32_t y = 0; y < axis->n; y++)
        kernels->u8_columns.fn(src->pixels + src->stride * axis->first[y], src->stride,
                               axis->weights + axis->offset[y],
                               axis->offset[y + 1] - axis->offset[y], n, dst + n * y);
}

static void resize_rows(const qn_kernels *kernels, const qn_axis *axis, const qn_view *src,
                        uint8_t *dst)
{
    for (uint32_t y = 0; y < src->height; y++) {
        const uint8_t *from = src->pixels + src->stride * y;
        uint8_t *to = dst + (size_t)axis->n * src->channels * y;
        if (src->channels == 3)
            kernels->u8_pixels.fn(from, src->width, axis->first, axis->offset, axis->weights,
                                  axis->n, to);
        else
            row_resize_gray(axis, from, to);
    }
}

static void copy_region(const qn_image *src, uint32_t x0, uint32_t y0, qn_image *out)
{
    const size_t stride = (size_t)out->width * out->channels;
    for (uint32_t y = 0; y < out->height; y++)
        memcpy(out->pixels + stride * y,
               src->pixels + ((size_t)(y0 + y) * src->width + x0) * src->channels, stride);
}

/* One pass in one direction. */
static qn_status resize_pass(const qn_context *ctx, const qn_axis *axis, bool vertical,
                             const qn_view *src, qn_image *out, qn_error *error)
{
    qn_kernels kernels;
    QN_TRY(qn__image_alloc(ctx, vertical ? src->width : axis->n, vertical ? axis->n : src->height,
                           src->channels, out, error));
    qn__kernels_init(&kernels, ctx->cpu_flags);
    if (vertical)
        resize_columns(&kernels, axis, src, out->pixels);
    else
        resize_rows(&kernels, axis, src, out->pixels);
    return QN_OK;
}

/* Makes positions relative to the first source pixel any output needs; returns that pixel and how
 * many follow. */
static void axis_rebase(qn_axis *axis, uint32_t *begin, uint32_t *count)
{
    const uint32_t last = axis->n - 1;
    *begin = axis->first[0];
    *count = axis->first[last] + (uint32_t)(axis->offset[last + 1] - axis->offset[last]) - *begin;
    for (uint32_t i = 0; i < axis->n; i++)
        axis->first[i] -= *begin;
}

/* Rows first, except where Pillow (since 13) takes columns first: the intermediate 8-bit rounding
 * makes the order visible. Found by comparing its results with both orders. */
static bool columns_first(const qn_image *src, const qn_resize_region *r)
{
    const int64_t less_width = (int64_t)src->width - r->full_width;
    const int64_t less_height = (int64_t)src->height - r->full_height;
    return less_height > 0 && 2 * less_width < less_height;
}

static qn_status resize_antialiased(const qn_image *src, const qn_resize_region *r, qn_image *out,
                                    qn_error *error)
{
    const qn_context *ctx = src->ctx;
    const bool horizontal = r->full_width != src->width, vertical = r->full_height != src->height;
    qn_status status = QN_OK;
    qn_axis x_axis = {0}, y_axis = {0};
    qn_image middle = {0};
    uint32_t x = r->x0, y = r->y0, width = r->width, height = r->height;
    if (horizontal) {
        QN_TRY_GOTO(
            axis_init(ctx, &x_axis, src->width, r->full_width, r->x0, r->width, r->filter, error));
        axis_rebase(&x_axis, &x, &width);
    }
    if (vertical) {
        QN_TRY_GOTO(axis_init(ctx, &y_axis, src->height, r->full_height, r->y0, r->height,
                              r->filter, error));
        axis_rebase(&y_axis, &y, &height);
    }
    const size_t stride = (size_t)src->width * src->channels;
    const qn_view from = {src->pixels + stride * y + (size_t)x * src->channels, stride, width,
                          height, src->channels};
    if (!horizontal || !vertical) {
        status = resize_pass(ctx, vertical ? &y_axis : &x_axis, vertical, &from, out, error);
        goto done;
    }
    const bool columns = columns_first(src, r);
    QN_TRY_GOTO(resize_pass(ctx, columns ? &y_axis : &x_axis, columns, &from, &middle, error));
    const qn_view then = {middle.pixels, (size_t)middle.width * middle.channels, middle.width,
                          middle.height, middle.channels};
    status = resize_pass(ctx, columns ? &x_axis : &y_axis, !columns, &then, out, error);
done:
    qn__image_free(&middle);
    axis_free(ctx, &x_axis);
    axis_free(ctx, &y_axis);
    return status;
}

/* The source column (row) of each output, stepped as Pillow's affine scaler does. */
static void nearest_positions(uint32_t in_size, uint32_t out_size, uint32_t begin, uint32_t n,
                              uint32_t *positions)
{
    const double step = (double)in_size / out_size;
    double at = step * 0.5;
    for (uint32_t i = 0; i < begin + n; i++, at += step) {
        const uint32_t position = at >= in_size ? in_size - 1 : (uint32_t)at;
        if (i >= begin)
            positions[i - begin] = position;
    }
}

static void resize_nearest(const qn_image *src, const qn_resize_region *r, uint32_t *xs,
                           uint32_t *ys, qn_image *out)
{
    const size_t c = src->channels;
    nearest_positions(src->width, r->full_width, r->x0, r->width, xs);
    nearest_positions(src->height, r->full_height, r->y0, r->height, ys);
    uint8_t *dst = out->pixels;
    for (uint32_t y = 0; y < r->height; y++) {
        const uint8_t *row = src->pixels + (size_t)ys[y] * src->width * c;
        for (uint32_t x = 0; x < r->width; x++, dst += c)
            memcpy(dst, row + c * xs[x], c);
    }
}

/* Two taps with half-pixel centres: position and 11-bit weight of the second tap. */
static void plain_tap(uint32_t in_size, uint32_t out_size, uint32_t i, uint32_t *position,
                      uint32_t *weight)
{
    const double at = ((double)i + 0.5) * ((double)in_size / out_size) - 0.5;
    *weight = 0;
    if (at <= 0) {
        *position = 0;
    } else if (at >= in_size - 1) {
        *position = in_size - 1;
    } else {
        *position = (uint32_t)at;
        *weight = (uint32_t)((at - *position) * 2048 + 0.5);
    }
}

static void resize_plain(const qn_image *src, const qn_resize_region *r, uint32_t *xs,
                         uint32_t *weights, qn_image *out)
{
    const size_t c = src->channels;
    for (uint32_t x = 0; x < r->width; x++)
        plain_tap(src->width, r->full_width, r->x0 + x, &xs[x], &weights[x]);
    uint8_t *dst = out->pixels;
    for (uint32_t y = 0; y < r->height; y++) {
        uint32_t sy, wy;
        plain_tap(src->height, r->full_height, r->y0 + y, &sy, &wy);
        const uint8_t *top = src->pixels + (size_t)sy * src->width * c;
        const uint8_t *bottom = sy + 1 < src->height ? top + (size_t)src->width * c : top;
        for (uint32_t x = 0; x < r->width; x++) {
            const size_t a = c * xs[x], b = xs[x] + 1 < src->width ? a + c : a;
            const uint32_t wx = weights[x];
            for (size_t k = 0; k < c; k++) {
                const uint32_t t = top[a + k] * (2048 - wx) + top[b + k] * wx;
                const uint32_t u = bottom[a + k] * (2048 - wx) + bottom[b + k] * wx;
                *dst++ = (uint8_t)((t * (2048 - wy) + u * wy + (1u << 21)) >> 22);
            }
        }
    }
}

static qn_status resize_sampled(const qn_image *src, const qn_resize_region *r, qn_image *out,
                                qn_error *error)
{
    qn_status status = QN_OK;
    qn_image result = {0};
    uint32_t *a = qn__calloc(src->ctx, r->width, sizeof(*a));
    uint32_t *b = qn__calloc(src->ctx, r->width > r->height ? r->width : r->height, sizeof(*b));
    if (a == NULL || b == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    QN_TRY_GOTO(qn__image_alloc(src->ctx, r->width, r->height, src->channels, &result, error));
    if (r->filter == QN_FILTER_NEAREST)
        resize_nearest(src, r, a, b, &result);
    else
        resize_plain(src, r, a, b, &result);
    *out = result;
done:
    qn__free(src->ctx, a);
    qn__free(src->ctx, b);
    return status;
}

qn_status qn__image_resize_region(const qn_image *src, const qn_resize_region *region,
                                  qn_image *out, qn_error *error)
{
    const qn_resize_region *r = region;
    QN_FAIL_IF(r->width == 0 || r->height == 0 || r->full_width > INT32_MAX ||
                   r->full_height > INT32_MAX || r->width > r->full_width ||
                   r->x0 > r->full_width - r->width || r->height > r->full_height ||
                   r->y0 > r->full_height - r->height,
               error, QN_INVALID_ARGUMENT, "resize to %u x %u, part %u x %u at %u, %u",
               r->full_width, r->full_height, r->width, r->height, r->x0, r->y0);
    QN_FAIL_IF((uint64_t)r->width * r->height > src->ctx->limits.image_pixels, error, QN_LIMIT,
               "resize to %u x %u is above the limit of %llu pixels", r->width, r->height,
               (unsigned long long)src->ctx->limits.image_pixels);
    if (r->full_width == src->width && r->full_height == src->height) {
        QN_TRY(qn__image_alloc(src->ctx, r->width, r->height, src->channels, out, error));
        copy_region(src, r->x0, r->y0, out);
        return QN_OK;
    }
    if (r->filter == QN_FILTER_BILINEAR || r->filter == QN_FILTER_BICUBIC)
        return resize_antialiased(src, r, out, error);
    return resize_sampled(src, r, out, error);
}

qn_status qn__image_resize(const qn_image *src, uint32_t width, uint32_t height, qn_filter filter,
                           qn_image *out, qn_error *error)
{
    const qn_resize_region region = {width, height, 0, 0, width, height, filter};
    return qn__image_resize_region(src, &region, out, error);
}
