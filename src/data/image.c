/* Recognises a picture by its first bytes and hands it to its decoder. */
#include "data/image.h"

#include <string.h>

#include "core/checked.h"

qn_status qn__image_check_size(const qn_image_source *src, uint64_t width, uint64_t height,
                               qn_error *error)
{
    QN_FAIL_IF(width == 0 || height == 0, error, QN_CORRUPT, "%s: picture of %llu x %llu pixels",
               src->name, (unsigned long long)width, (unsigned long long)height);
    /* Widths and heights are at most 32 bits wide, so the product cannot wrap. */
    const uint64_t limit = src->ctx->limits.image_pixels;
    QN_FAIL_IF(width > INT32_MAX || height > INT32_MAX || width * height > limit, error, QN_LIMIT,
               "%s: picture of %llu x %llu pixels is above the limit of %llu pixels", src->name,
               (unsigned long long)width, (unsigned long long)height, (unsigned long long)limit);
    return QN_OK;
}

qn_status qn__image_alloc(const qn_context *ctx, uint32_t width, uint32_t height, uint32_t channels,
                          qn_image *out, qn_error *error)
{
    size_t size_bytes;
    if (!qn_mul_size(&size_bytes, width, height) || !qn_mul_size(&size_bytes, size_bytes, channels))
        QN_FAIL(error, QN_LIMIT, "picture of %u x %u x %u bytes", width, height, channels);
    uint8_t *pixels = qn__alloc(ctx, size_bytes);
    if (pixels == NULL)
        return QN_NOMEM(error);
    *out = (qn_image){ctx, width, height, channels, pixels};
    return QN_OK;
}

void qn__image_free(qn_image *image)
{
    if (image == NULL || image->ctx == NULL)
        return;
    qn__free(image->ctx, image->pixels);
    *image = (qn_image){0};
}

void qn__rgb_to_gray(const uint8_t *rgb, uint8_t *gray, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint32_t r = rgb[3 * i], g = rgb[3 * i + 1], b = rgb[3 * i + 2];
        gray[i] = (uint8_t)((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16);
    }
}

qn_status qn__image_to_channels(qn_image *image, uint32_t channels, qn_error *error)
{
    if (channels == image->channels)
        return QN_OK;
    const size_t count = (size_t)image->width * image->height;
    if (channels == 4) {
        qn_image rgba;
        QN_TRY(qn__image_to_channels(image, 3, error));
        QN_TRY(qn__image_alloc(image->ctx, image->width, image->height, 4, &rgba, error));
        for (size_t i = 0; i < count; i++) {
            memcpy(rgba.pixels + 4 * i, image->pixels + 3 * i, 3);
            rgba.pixels[4 * i + 3] = 255;
        }
        qn__image_free(image);
        *image = rgba;
        return QN_OK;
    }
    if (channels == 1) {
        qn__rgb_to_gray(image->pixels, image->pixels, count);
        image->channels = 1;
        return QN_OK;
    }
    qn_image rgb;
    QN_TRY(qn__image_alloc(image->ctx, image->width, image->height, 3, &rgb, error));
    for (size_t i = 0; i < count; i++)
        memset(rgb.pixels + 3 * i, image->pixels[i], 3);
    qn__image_free(image);
    *image = rgb;
    return QN_OK;
}

static bool starts_with(const qn_image_source *src, size_t offset, const char *magic, size_t length)
{
    return src->size_bytes >= offset + length && memcmp(src->bytes + offset, magic, length) == 0;
}

static qn_status decode(const qn_image_source *src, qn_image *out, qn_error *error)
{
    if (starts_with(src, 0, "\xff\xd8\xff", 3))
        return qn__jpeg_decode(src, out, error);
    if (starts_with(src, 0, "RIFF", 4) && starts_with(src, 8, "WEBP", 4))
        return qn__webp_decode(src, out, error);
    if (starts_with(src, 0, "BM", 2))
        return qn__bmp_decode(src, out, error);
    if (src->size_bytes >= 2 && src->bytes[0] == 'P' && src->bytes[1] >= '1' &&
        src->bytes[1] <= '7')
        return qn__pnm_decode(src, out, error);
    QN_FAIL_IF(src->size_bytes == 0, error, QN_CORRUPT, "%s: empty file", src->name);
    QN_FAIL(error, QN_CORRUPT, "%s: not a JPEG, PNG, WebP, BMP or PNM picture", src->name);
}

static qn_status decode_source(qn_image_source src, qn_image *out, qn_error *error)
{
    const uint32_t want_channels = src.channels;
    QN_FAIL_IF(want_channels != 1 && want_channels != 3 && want_channels != 4, error,
               QN_INVALID_ARGUMENT, "%s: pictures have 1, 3 or 4 channels, not %u", src.name,
               want_channels);
    if (starts_with(&src, 0, "\x89PNG\r\n\x1a\n", 8))
        return qn__png_decode(&src, out, error);
    /* The others are opaque, or their alpha is dropped. */
    if (want_channels == 4)
        src.channels = 3;
    qn_image image;
    QN_TRY(decode(&src, &image, error));
    const qn_status status = qn__image_to_channels(&image, want_channels, error);
    if (status == QN_OK)
        *out = image;
    else
        qn__image_free(&image);
    return status;
}

qn_status qn__image_decode(const qn_context *ctx, const uint8_t *bytes, size_t size_bytes,
                           const char *name, uint32_t want_channels, qn_image *out, qn_error *error)
{
    return decode_source((qn_image_source){ctx, bytes, size_bytes, name, want_channels, false}, out,
                         error);
}

qn_status qn__image_decode_as_mnn(const qn_context *ctx, const uint8_t *bytes, size_t size_bytes,
                                  const char *name, uint32_t want_channels, qn_image *out,
                                  qn_error *error)
{
    return decode_source((qn_image_source){ctx, bytes, size_bytes, name, want_channels, true}, out,
                         error);
}
