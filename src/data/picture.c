/* Preprocessing: which part of the resized picture becomes the tensor, and with which values. */
#include "data/picture.h"

#include <math.h>
#include <string.h>

#include "core/io.h"
#include "data/image.h"

#define QN_LETTERBOX_VALUE 114

static qn_status plan_layout(qn_picture_plan *plan, const qn_input_spec *spec, int64_t *width,
                             int64_t *height, qn_channels channels, qn_error *error)
{
    const int64_t *d = spec->dims;
    QN_FAIL_IF(spec->rank != 4, error, QN_INVALID_ARGUMENT,
               "input \"%s\" has rank %u: pictures need a 4-D input", spec->name, spec->rank);
    QN_FAIL_IF(d[0] == 0, error, QN_INVALID_ARGUMENT, "input \"%s\" has batch 0", spec->name);
    const bool alpha = channels >= QN_CHANNELS_RGBA;
    const bool first = alpha ? d[1] == 4 : d[1] == 1 || d[1] == 3;
    const bool last = alpha ? d[3] == 4 : d[3] == 1 || d[3] == 3;
    QN_FAIL_IF(!first && !last && d[1] >= 0, error, QN_INVALID_ARGUMENT,
               "input \"%s\" is [%lld,%lld,%lld,%lld]: pictures need %s channels", spec->name,
               (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3],
               alpha ? "4" : "1 or 3");
    plan->channels_last = !first && last;
    const int64_t n = plan->channels_last ? d[3] : d[1];
    plan->n_channels = n > 0 ? (uint32_t)n : channels == QN_CHANNELS_GRAY ? 1 : alpha ? 4 : 3;
    *height = plan->channels_last ? d[1] : d[2];
    *width = plan->channels_last ? d[2] : d[3];
    QN_FAIL_IF(plan->n_channels == 3 && channels == QN_CHANNELS_GRAY, error, QN_INVALID_ARGUMENT,
               "input \"%s\" has 3 channels: --channels GRAY does not fit", spec->name);
    QN_FAIL_IF(plan->n_channels == 1 && channels == QN_CHANNELS_BGR, error, QN_INVALID_ARGUMENT,
               "input \"%s\" has 1 channel: --channels BGR does not fit", spec->name);
    plan->reversed = channels == QN_CHANNELS_BGR || channels == QN_CHANNELS_BGRA;
    return QN_OK;
}

static qn_status plan_geometry(qn_picture_plan *plan, const qn_input_spec *spec,
                               const qn_preprocess *p, int64_t width, int64_t height,
                               qn_error *error)
{
    const bool exact = p->resize_width != 0 || p->resize_height != 0;
    const bool letterbox = p->letterbox_width != 0 || p->letterbox_height != 0;
    const bool crop = p->crop_width != 0 || p->crop_height != 0;
    QN_FAIL_IF(exact && (p->resize_width == 0 || p->resize_height == 0), error, QN_INVALID_ARGUMENT,
               "--resize %ux%u", p->resize_width, p->resize_height);
    QN_FAIL_IF(letterbox && (p->letterbox_width == 0 || p->letterbox_height == 0), error,
               QN_INVALID_ARGUMENT, "--letterbox %ux%u", p->letterbox_width, p->letterbox_height);
    QN_FAIL_IF(crop && (p->crop_width == 0 || p->crop_height == 0), error, QN_INVALID_ARGUMENT,
               "--crop %ux%u", p->crop_width, p->crop_height);
    QN_FAIL_IF(exact && p->resize_shorter != 0, error, QN_INVALID_ARGUMENT,
               "--resize N and --resize WxH exclude each other");
    QN_FAIL_IF(letterbox && (exact || crop || p->resize_shorter != 0), error, QN_INVALID_ARGUMENT,
               "--letterbox cannot be combined with --resize or --crop");
    QN_FAIL_IF(p->resize_shorter != 0 && !crop, error, QN_INVALID_ARGUMENT,
               "--resize %u leaves pictures of different sizes: add --crop", p->resize_shorter);
    plan->filter = p->filter;
    plan->shorter = p->resize_shorter;
    plan->crop_width = p->crop_width;
    plan->crop_height = p->crop_height;
    if (letterbox) {
        plan->geometry = QN_GEOMETRY_LETTERBOX;
        plan->width = p->letterbox_width;
        plan->height = p->letterbox_height;
    } else if (exact) {
        plan->geometry = QN_GEOMETRY_EXACT;
        plan->width = p->resize_width;
        plan->height = p->resize_height;
    } else if (p->resize_shorter != 0) {
        plan->geometry = QN_GEOMETRY_SHORTER;
    } else if (!crop) {
        QN_FAIL_IF(width < 0 || height < 0, error, QN_INVALID_ARGUMENT,
                   "input \"%s\" has no fixed height and width: add --resize WxH, or --resize N "
                   "and --crop",
                   spec->name);
        QN_FAIL_IF(width == 0 || height == 0 || width > INT32_MAX || height > INT32_MAX, error,
                   QN_INVALID_ARGUMENT, "input \"%s\" takes pictures of %lld x %lld pixels",
                   spec->name, (long long)width, (long long)height);
        plan->geometry = QN_GEOMETRY_EXACT;
        plan->width = (uint32_t)width;
        plan->height = (uint32_t)height;
    }
    plan->out_width = crop ? p->crop_width : plan->width;
    plan->out_height = crop ? p->crop_height : plan->height;
    QN_FAIL_IF(plan->geometry == QN_GEOMETRY_EXACT &&
                   (plan->out_width > plan->width || plan->out_height > plan->height),
               error, QN_INVALID_ARGUMENT, "--crop %ux%u is larger than --resize %ux%u",
               plan->out_width, plan->out_height, plan->width, plan->height);
    QN_FAIL_IF(
        (width >= 0 && width != plan->out_width) || (height >= 0 && height != plan->out_height),
        error, QN_INVALID_ARGUMENT,
        "preprocessing gives %u x %u pixels (width x height), input \"%s\" takes %lld x %lld",
        plan->out_width, plan->out_height, spec->name, (long long)width, (long long)height);
    return QN_OK;
}

static bool is_mnn(qn_filter filter)
{
    return filter == QN_FILTER_MNN || filter == QN_FILTER_MNN_TRUNCATE;
}

/* MNN's preprocessing has one geometry: part of the picture to an exact size. */
static qn_status plan_mnn(qn_picture_plan *plan, const qn_preprocess *p, qn_error *error)
{
    const double w = p->centre_width, h = p->centre_height;
    QN_FAIL_IF(!(w >= 0 && w <= 1 && h >= 0 && h <= 1), error, QN_INVALID_ARGUMENT,
               "centre %g x %g: the fractions of a picture that are kept lie within 0 and 1", w, h);
    QN_FAIL_IF((w != 0 || h != 0) && !is_mnn(p->filter), error, QN_INVALID_ARGUMENT,
               "centre fractions need the filter mnn or mnn-truncate");
    QN_FAIL_IF(is_mnn(p->filter) && (plan->geometry != QN_GEOMETRY_EXACT || plan->crop_width != 0),
               error, QN_INVALID_ARGUMENT,
               "the filters mnn and mnn-truncate resize to an exact size: no --crop, --letterbox "
               "or --resize N");
    QN_FAIL_IF(plan->n_channels == 4 && !is_mnn(p->filter), error, QN_INVALID_ARGUMENT,
               "pictures of 4 channels need the filter mnn or mnn-truncate");
    plan->centre_width = w == 0 ? 1 : w;
    plan->centre_height = h == 0 ? 1 : h;
    return QN_OK;
}

static qn_status plan_values(qn_picture_plan *plan, const qn_preprocess *p, qn_error *error)
{
    QN_FAIL_IF(p->n_mean > 1 && p->n_mean != plan->n_channels, error, QN_INVALID_ARGUMENT,
               "--mean has %u values for %u channels", p->n_mean, plan->n_channels);
    QN_FAIL_IF(p->n_normal > 1 && p->n_normal != plan->n_channels, error, QN_INVALID_ARGUMENT,
               "--normal has %u values for %u channels", p->n_normal, plan->n_channels);
    for (uint32_t c = 0; c < plan->n_channels; c++) {
        const float mean = p->n_mean == 0 ? 0.0f : p->mean[p->n_mean == 1 ? 0 : c];
        const float normal = p->n_normal == 0 ? 1.0f : p->normal[p->n_normal == 1 ? 0 : c];
        QN_FAIL_IF(!isfinite(mean) || !isfinite(normal), error, QN_INVALID_ARGUMENT,
                   "--mean and --normal must be finite numbers");
        for (uint32_t v = 0; v < 256; v++)
            plan->values[c][v] = ((float)v - mean) * normal;
    }
    return QN_OK;
}

qn_status qn__picture_plan_init(const qn_context *ctx, qn_picture_plan *plan,
                                const qn_input_spec *spec, const qn_preprocess *preprocess,
                                qn_error *error)
{
    const qn_preprocess *p = preprocess;
    int64_t width = 0, height = 0;
    *plan = (qn_picture_plan){0};
    QN_FAIL_IF((unsigned)p->channels > QN_CHANNELS_BGRA, error, QN_INVALID_ARGUMENT,
               "unknown channel order %d", (int)p->channels);
    QN_FAIL_IF((unsigned)p->filter > QN_FILTER_MNN_TRUNCATE, error, QN_INVALID_ARGUMENT,
               "unknown filter %d", (int)p->filter);
    QN_TRY(plan_layout(plan, spec, &width, &height, p->channels, error));
    QN_TRY(plan_geometry(plan, spec, p, width, height, error));
    QN_TRY(plan_mnn(plan, p, error));
    QN_FAIL_IF((uint64_t)plan->out_width * plan->out_height > ctx->limits.image_pixels, error,
               QN_LIMIT, "pictures of %u x %u pixels are above the limit of %llu pixels",
               plan->out_width, plan->out_height, (unsigned long long)ctx->limits.image_pixels);
    return plan_values(plan, p, error);
}

/* longer * to / shorter, rounded to nearest, halves up. */
static uint64_t scaled_side(uint64_t longer, uint64_t to, uint64_t shorter)
{
    return (2 * longer * to + shorter) / (2 * shorter);
}

static qn_status picture_region(const qn_picture_plan *plan, const qn_image *image,
                                const char *path, qn_resize_region *r, qn_error *error)
{
    const uint64_t w = image->width, h = image->height, n = plan->shorter;
    uint64_t full_width = w, full_height = h;
    if (plan->geometry == QN_GEOMETRY_EXACT) {
        full_width = plan->width;
        full_height = plan->height;
    } else if (plan->geometry == QN_GEOMETRY_SHORTER) {
        full_width = w <= h ? n : scaled_side(w, n, h);
        full_height = w <= h ? scaled_side(h, n, w) : n;
    }
    QN_FAIL_IF(full_width > INT32_MAX || full_height > INT32_MAX, error, QN_LIMIT,
               "%s: picture of %u x %u pixels resized to %llu x %llu", path, image->width,
               image->height, (unsigned long long)full_width, (unsigned long long)full_height);
    QN_FAIL_IF(plan->out_width > full_width || plan->out_height > full_height, error,
               QN_INVALID_ARGUMENT,
               "%s: --crop %ux%u is larger than the picture (%llu x %llu before the crop)", path,
               plan->out_width, plan->out_height, (unsigned long long)full_width,
               (unsigned long long)full_height);
    *r = (qn_resize_region){(uint32_t)full_width, (uint32_t)full_height, 0,           0,
                            plan->out_width,      plan->out_height,      plan->filter};
    r->x0 = (r->full_width - r->width) / 2;
    r->y0 = (r->full_height - r->height) / 2;
    return QN_OK;
}

/* The largest size of the picture's aspect inside width x height, centred, the rest gray. */
static qn_status picture_letterbox(const qn_picture_plan *plan, const qn_image *image,
                                   qn_image *out, qn_error *error)
{
    const uint64_t w = image->width, h = image->height;
    uint64_t inner_width = plan->width, inner_height = plan->height;
    if (w * plan->height > h * plan->width)
        inner_height = scaled_side(h, plan->width, w);
    else
        inner_width = scaled_side(w, plan->height, h);
    if (inner_width == 0)
        inner_width = 1;
    if (inner_height == 0)
        inner_height = 1;
    qn_image inner, result;
    QN_TRY(qn__image_resize(image, (uint32_t)inner_width, (uint32_t)inner_height, plan->filter,
                            &inner, error));
    const qn_status status =
        qn__image_alloc(image->ctx, plan->width, plan->height, image->channels, &result, error);
    if (status == QN_OK) {
        const size_t c = image->channels, stride = plan->width * c;
        const size_t left = (plan->width - inner.width) / 2,
                     top = (plan->height - inner.height) / 2;
        memset(result.pixels, QN_LETTERBOX_VALUE, stride * plan->height);
        for (size_t y = 0; y < inner.height; y++)
            memcpy(result.pixels + stride * (top + y) + left * c,
                   inner.pixels + y * inner.width * c, inner.width * c);
        *out = result;
    }
    qn__image_free(&inner);
    return status;
}

void qn__picture_values(const qn_picture_plan *plan, const uint8_t *pixels, float *dst)
{
    const size_t n = (size_t)plan->out_width * plan->out_height, c = plan->n_channels;
    for (size_t k = 0; k < c; k++) {
        const float *values = plan->values[k];
        const size_t from = plan->reversed && k < 3 ? 2 - k : k; /* alpha stays last */
        const uint8_t *src = pixels + from;
        float *to = dst + (plan->channels_last ? k : k * n);
        const size_t step = plan->channels_last ? c : 1;
        for (size_t i = 0; i < n; i++)
            to[i * step] = values[src[i * c]];
    }
}

/* The part that is kept, MNN's truncating divisions included. */
static qn_status picture_mnn(const qn_picture_plan *plan, const qn_image *image, const char *path,
                             qn_image *out, qn_error *error)
{
    qn_mnn_resize r = {.out_width = plan->out_width,
                       .out_height = plan->out_height,
                       .truncate = plan->filter == QN_FILTER_MNN_TRUNCATE};
    /* the product of an integer and a float32 fraction, in float32 */
    r.width = (uint32_t)((float)image->width * (float)plan->centre_width);
    r.height = (uint32_t)((float)image->height * (float)plan->centre_height);
    QN_FAIL_IF(r.width == 0 || r.height == 0, error, QN_INVALID_ARGUMENT,
               "%s: nothing is left of %u x %u pixels at %g x %g", path, image->width,
               image->height, plan->centre_width, plan->centre_height);
    r.width = r.width > image->width ? image->width : r.width;
    r.height = r.height > image->height ? image->height : r.height;
    r.x0 = (image->width - r.width) / 2;
    r.y0 = (image->height - r.height) / 2;
    QN_TRY(qn__image_resize_mnn(image, &r, out, error));
    if (plan->n_channels == 1)
        qn__image_gray_mnn(out);
    return QN_OK;
}

static qn_status picture_prepare(const qn_picture_plan *plan, const qn_image *image,
                                 const char *path, qn_image *out, qn_error *error)
{
    if (plan->geometry == QN_GEOMETRY_LETTERBOX)
        return picture_letterbox(plan, image, out, error);
    if (is_mnn(plan->filter))
        return picture_mnn(plan, image, path, out, error);
    qn_resize_region region;
    QN_TRY(picture_region(plan, image, path, &region, error));
    return qn__image_resize_region(image, &region, out, error);
}

qn_status qn__picture_pixels(const qn_context *ctx, const qn_picture_plan *plan, const char *path,
                             qn_image *out, qn_error *error)
{
    qn_file_view view;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    qn_image image;
    /* MNN takes luma after resizing. */
    const uint32_t channels = is_mnn(plan->filter) && plan->n_channels == 1 ? 3 : plan->n_channels;
    qn_status status =
        (plan->filter == QN_FILTER_MNN_TRUNCATE ? qn__image_decode_as_mnn : qn__image_decode)(
            ctx, view.data, view.size_bytes, path, channels, &image, error);
    qn__file_close(ctx, &view);
    if (status != QN_OK)
        return status;
    status = picture_prepare(plan, &image, path, out, error);
    qn__image_free(&image);
    return status;
}

qn_status qn__picture_load(const qn_context *ctx, const qn_picture_plan *plan, const char *path,
                           float *dst, qn_error *error)
{
    qn_image image;
    QN_TRY(qn__picture_pixels(ctx, plan, path, &image, error));
    qn__picture_values(plan, image.pixels, dst);
    qn__image_free(&image);
    return QN_OK;
}
