/* MNN's resizing: corners of the cropped picture on the corners of the result, two taps a
 * direction, 8 bits out.
 *
 * Its map comes from four pairs of corners, as a projective matrix in float32 whose perspective
 * cancels; the scale that is left can differ from (from - 1) / (to - 1) in the last bit, and a
 * truncated pixel shows that. So the matrix is made in the same steps: both quadrilaterals mapped
 * from the unit square, one inverted (in double), the product in float32. x then advances by a
 * float32 step inside tiles of 512 columns. */
#include "data/image.h"

#include <math.h>
#include <string.h>

#define QN_MNN_TILE 512

/* Row-major 3 x 3. */
typedef struct qn_matrix {
    float m[9];
} qn_matrix;

typedef struct qn_corner {
    float x, y;
} qn_corner;

/* Corners in MNN's order: top left, bottom left, top right, bottom right. */
static void corners(float x0, float y0, float width, float height, qn_corner out[4])
{
    out[0] = (qn_corner){x0, y0};
    out[1] = (qn_corner){x0, y0 + height - 1};
    out[2] = (qn_corner){x0 + width - 1, y0};
    out[3] = (qn_corner){x0 + width - 1, y0 + height - 1};
}

/* The projective map that takes (0,0), (0,1), (1,1), (1,0) to the points: because the order of the
 * corners crosses over, the map of a rectangle has a perspective of about -2. */
static qn_matrix from_square(const qn_corner p[4])
{
    const float x0 = p[2].x - p[0].x, y0 = p[2].y - p[0].y;
    const float x1 = p[2].x - p[1].x, y1 = p[2].y - p[1].y;
    const float x2 = p[2].x - p[3].x, y2 = p[2].y - p[3].y;
    float a1, a2;
    if (fabsf(x2) > fabsf(y2))
        a1 = ((x0 - x1) * y2 / x2 - y0 + y1) / (x1 * y2 / x2 - y1);
    else
        a1 = (x0 - x1 - (y0 - y1) * x2 / y2) / (x1 - y1 * x2 / y2);
    if (fabsf(x1) > fabsf(y1))
        a2 = (y0 - y2 - (x0 - x2) * y1 / x1) / (y2 - x2 * y1 / x1);
    else
        a2 = ((y0 - y2) * x1 / y1 - x0 + x2) / (y2 * x1 / y1 - x2);
    return (qn_matrix){{a2 * p[3].x + p[3].x - p[0].x, a1 * p[1].x + p[1].x - p[0].x, p[0].x,
                        a2 * p[3].y + p[3].y - p[0].y, a1 * p[1].y + p[1].y - p[0].y, p[0].y, a2,
                        a1, 1.0f}};
}

static double cross(float a, float b, float c, float d)
{
    return (double)a * b - (double)c * d;
}

static float scaled_cross(float a, float b, float c, float d, double scale)
{
    return (float)((double)(a * b - c * d) * scale);
}

static qn_matrix inverse(const qn_matrix *from)
{
    const float *m = from->m;
    const double det = m[0] * cross(m[4], m[8], m[5], m[7]) + m[1] * cross(m[5], m[6], m[3], m[8]) +
                       m[2] * cross(m[3], m[7], m[4], m[6]);
    const double s = 1.0 / det;
    return (qn_matrix){
        {scaled_cross(m[4], m[8], m[5], m[7], s), scaled_cross(m[2], m[7], m[1], m[8], s),
         scaled_cross(m[1], m[5], m[2], m[4], s), scaled_cross(m[5], m[6], m[3], m[8], s),
         scaled_cross(m[0], m[8], m[2], m[6], s), scaled_cross(m[2], m[3], m[0], m[5], s),
         scaled_cross(m[3], m[7], m[4], m[6], s), scaled_cross(m[1], m[6], m[0], m[7], s),
         scaled_cross(m[0], m[4], m[1], m[3], s)}};
}

typedef struct qn_mnn_map {
    float scale_x, scale_y, x0, y0;
} qn_mnn_map;

static qn_mnn_map make_map(const qn_mnn_resize *r)
{
    qn_mnn_map map = {0, 0, (float)r->x0, (float)r->y0};
    if (r->out_width < 2 || r->out_height < 2) { /* the matrix does not exist */
        if (r->out_width > 1)
            map.scale_x = (float)(r->width - 1) / (float)(r->out_width - 1);
        if (r->out_height > 1)
            map.scale_y = (float)(r->height - 1) / (float)(r->out_height - 1);
        return map;
    }
    if (r->width < 2 || r->height < 2) {
        map.scale_x = (float)(r->width - 1) / (float)(r->out_width - 1);
        map.scale_y = (float)(r->height - 1) / (float)(r->out_height - 1);
        return map;
    }
    qn_corner from[4], to[4];
    corners(0, 0, (float)r->out_width, (float)r->out_height, from);
    corners((float)r->x0, (float)r->y0, (float)r->width, (float)r->height, to);
    const qn_matrix square = from_square(from), b = inverse(&square), a = from_square(to);
    map.scale_x = a.m[0] * b.m[0] + a.m[1] * b.m[3] + a.m[2] * b.m[6];
    map.x0 = a.m[0] * b.m[2] + a.m[1] * b.m[5] + a.m[2] * b.m[8];
    map.scale_y = a.m[3] * b.m[1] + a.m[4] * b.m[4] + a.m[5] * b.m[7];
    map.y0 = a.m[3] * b.m[2] + a.m[4] * b.m[5] + a.m[5] * b.m[8];
    return map;
}

typedef struct qn_mnn_tap {
    uint32_t at, next; /* pixels, times the channels along x */
    float part;        /* of next */
} qn_mnn_tap;

static qn_mnn_tap tap_at(float position, uint32_t size, uint32_t step)
{
    const float last = (float)(size - 1);
    const float p = position < last ? (position > 0.0f ? position : 0.0f) : last;
    qn_mnn_tap tap = {(uint32_t)p, (uint32_t)ceilf(p), 0.0f};
    tap.part = p - (float)tap.at;
    tap.at *= step;
    tap.next *= step;
    return tap;
}

static void taps_along_x(const qn_mnn_map *map, const qn_image *src, const qn_mnn_resize *r,
                         qn_mnn_tap *taps)
{
    for (uint32_t start = 0; start < r->out_width; start += QN_MNN_TILE) {
        const uint32_t left = r->out_width - start, n = left < QN_MNN_TILE ? left : QN_MNN_TILE;
        float x = map->scale_x * (float)start + map->x0;
        const float end = map->scale_x * (float)(start + n) + map->x0;
        const float step = (end - x) / (float)n;
        for (uint32_t i = 0; i < n; i++) {
            taps[start + i] = tap_at(x, src->width, src->channels);
            x += step;
        }
    }
}

/* Sums from left to right: the order decides pixels whose value is nearly an integer. */
static inline float mix(const uint8_t *top, const uint8_t *bottom, const qn_mnn_tap *x, float y,
                        uint32_t c)
{
    return (1.0f - x->part) * (1.0f - y) * (float)top[x->at + c] +
           x->part * (1.0f - y) * (float)top[x->next + c] +
           y * (1.0f - x->part) * (float)bottom[x->at + c] +
           x->part * y * (float)bottom[x->next + c];
}

static void resize_row(const uint8_t *top, const uint8_t *bottom, const qn_mnn_tap *taps, float y,
                       uint32_t n, uint32_t channels, float offset, uint8_t *dst)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < channels; c++) {
            const float v = mix(top, bottom, &taps[i], y, c) + offset;
            dst[i * channels + c] = (uint8_t)(v < 255.0f ? (v > 0.0f ? v : 0.0f) : 255.0f);
        }
}

qn_status qn__image_resize_mnn(const qn_image *src, const qn_mnn_resize *resize, qn_image *out,
                               qn_error *error)
{
    const qn_mnn_resize *r = resize;
    qn_image result;
    QN_FAIL_IF(r->width == 0 || r->height == 0 || r->x0 >= src->width || r->y0 >= src->height ||
                   r->width > src->width - r->x0 || r->height > src->height - r->y0,
               error, QN_INVALID_ARGUMENT, "crop %ux%u at %u,%u of a picture of %u x %u pixels",
               r->width, r->height, r->x0, r->y0, src->width, src->height);
    qn_mnn_tap *taps = qn__calloc(src->ctx, r->out_width, sizeof(*taps));
    if (taps == NULL)
        return QN_NOMEM(error);
    const qn_status status =
        qn__image_alloc(src->ctx, r->out_width, r->out_height, src->channels, &result, error);
    if (status == QN_OK) {
        const qn_mnn_map map = make_map(r);
        const size_t stride = (size_t)src->width * src->channels;
        const float offset = r->truncate ? 0.0f : 0.5f;
        taps_along_x(&map, src, r, taps);
        for (uint32_t i = 0; i < r->out_height; i++) {
            const float at = map.scale_y * (float)i + map.y0;
            const qn_mnn_tap y = tap_at(at, src->height, 1);
            resize_row(src->pixels + y.at * stride, src->pixels + y.next * stride, taps, y.part,
                       r->out_width, src->channels, offset,
                       result.pixels + (size_t)i * r->out_width * src->channels);
        }
        *out = result;
    }
    qn__free(src->ctx, taps);
    return status;
}

void qn__image_gray_mnn(qn_image *image)
{
    const size_t n = (size_t)image->width * image->height, c = image->channels;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = image->pixels + i * c;
        image->pixels[i] = (uint8_t)((19u * p[0] + 38u * p[1] + 7u * p[2]) >> 6);
    }
    image->channels = 1;
}
