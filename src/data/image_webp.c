/* WebP, lossy and lossless, through libwebp; alpha is dropped. */
#include "data/image.h"

#include <webp/decode.h>

qn_status qn__webp_decode(const qn_image_source *src, qn_image *out, qn_error *error)
{
    const uint8_t *b = src->bytes;
    const uint64_t riff_bytes =
        src->size_bytes < 12
            ? 0
            : (uint64_t)b[4] | (uint64_t)b[5] << 8 | (uint64_t)b[6] << 16 | (uint64_t)b[7] << 24;
    QN_FAIL_IF(riff_bytes + 8 > src->size_bytes || riff_bytes < 4, error, QN_CORRUPT,
               "%s: WebP ends early: %zu bytes, its header says %llu", src->name, src->size_bytes,
               (unsigned long long)riff_bytes + 8);
    WebPBitstreamFeatures features;
    QN_FAIL_IF(WebPGetFeatures(b, src->size_bytes, &features) != VP8_STATUS_OK, error, QN_CORRUPT,
               "%s: WebP: malformed header", src->name);
    QN_FAIL_IF(features.has_animation, error, QN_UNSUPPORTED, "%s: animated WebP", src->name);
    QN_FAIL_IF(features.width <= 0 || features.height <= 0, error, QN_CORRUPT,
               "%s: WebP of %d x %d pixels", src->name, features.width, features.height);
    const uint32_t width = (uint32_t)features.width, height = (uint32_t)features.height;
    QN_TRY(qn__image_check_size(src, width, height, error));
    qn_image image;
    QN_TRY(qn__image_alloc(src->ctx, width, height, 3, &image, error));
    const size_t stride = (size_t)width * 3;
    qn_status status;
    if (stride > INT32_MAX ||
        WebPDecodeRGBInto(b, src->size_bytes, image.pixels, stride * height, (int)stride) == NULL)
        status = qn__error_set(error, QN_CORRUPT, "%s: WebP: damaged picture data", src->name);
    else
        status = qn__image_to_channels(&image, src->channels, error);
    if (status == QN_OK)
        *out = image;
    else
        qn__image_free(&image);
    return status;
}
