/* PNG through libspng, decoded to 8-bit RGB: palettes are looked up, low depths scaled, 16 bits cut
 * to the high byte, alpha and transparent colours dropped unless four channels are wanted. */
#include "data/image.h"

#include <string.h>

#include <spng.h>

#include "core/checked.h"

/* Chunks kept in memory (text, profiles); pixels do not count. Their number is limited to 1000 by
 * libspng itself. */
#define QN_PNG_CHUNK_BYTES ((size_t)8 << 20)
/* Deflate cannot expand by more. */
#define QN_DEFLATE_RATIO 1032

static qn_status png_fail(const qn_image_source *src, int code, qn_error *error)
{
    qn_status status;
    switch (code) {
    case SPNG_EMEM:
        status = QN_NO_MEMORY;
        break;
    case SPNG_EUSER_WIDTH:
    case SPNG_EUSER_HEIGHT:
    case SPNG_ECHUNK_LIMITS:
    case SPNG_EOVERFLOW:
        status = QN_LIMIT;
        break;
    case SPNG_ECHUNK_UNKNOWN_CRITICAL:
        status = QN_UNSUPPORTED;
        break;
    default:
        status = QN_CORRUPT;
    }
    QN_FAIL(error, status, "%s: PNG: %s", src->name, spng_strerror(code));
}

/* A cut file is an error even when the pixels are there: chunks must reach a whole IEND. */
static qn_status png_check_end(const qn_image_source *src, qn_error *error)
{
    const uint8_t *b = src->bytes;
    size_t at = 8;
    while (src->size_bytes - at >= 12) {
        const uint32_t length = (uint32_t)b[at] << 24 | (uint32_t)b[at + 1] << 16 |
                                (uint32_t)b[at + 2] << 8 | b[at + 3];
        if (length > src->size_bytes - at - 12)
            break;
        if (memcmp(b + at + 4, "IEND", 4) == 0)
            return QN_OK;
        at += (size_t)length + 12;
    }
    QN_FAIL(error, QN_CORRUPT, "%s: PNG ends early, after %zu bytes", src->name, src->size_bytes);
}

static uint32_t samples_per_pixel(uint8_t color_type)
{
    switch (color_type) {
    case SPNG_COLOR_TYPE_TRUECOLOR:
        return 3;
    case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA:
        return 2;
    case SPNG_COLOR_TYPE_TRUECOLOR_ALPHA:
        return 4;
    default:
        return 1;
    }
}

static qn_status png_check_header(const qn_image_source *src, const struct spng_ihdr *ihdr,
                                  qn_error *error)
{
    QN_TRY(qn__image_check_size(src, ihdr->width, ihdr->height, error));
    const uint64_t row_bits =
        (uint64_t)ihdr->width * samples_per_pixel(ihdr->color_type) * ihdr->bit_depth;
    const uint64_t raw_bytes = (row_bits + 7) / 8 * ihdr->height;
    QN_FAIL_IF(raw_bytes / QN_DEFLATE_RATIO > src->size_bytes, error, QN_CORRUPT,
               "%s: PNG of %u x %u pixels cannot be in %zu bytes", src->name, ihdr->width,
               ihdr->height, src->size_bytes);
    return QN_OK;
}

static qn_status png_run(spng_ctx *png, const qn_image_source *src, qn_image *image,
                         qn_error *error)
{
    struct spng_ihdr ihdr;
    QN_TRY(png_check_end(src, error));
    int code = spng_set_image_limits(png, INT32_MAX, INT32_MAX);
    if (code == 0)
        code = spng_set_chunk_limits(png, QN_PNG_CHUNK_BYTES, QN_PNG_CHUNK_BYTES);
    if (code == 0)
        code = spng_set_png_buffer(png, src->bytes, src->size_bytes);
    if (code == 0)
        code = spng_get_ihdr(png, &ihdr);
    if (code != 0)
        return png_fail(src, code, error);
    QN_TRY(png_check_header(src, &ihdr, error));
    const uint32_t channels = src->channels == 4 ? 4 : 3;
    QN_TRY(qn__image_alloc(src->ctx, ihdr.width, ihdr.height, channels, image, error));
    const size_t size_bytes = (size_t)ihdr.width * ihdr.height * channels;
    code = spng_decode_image(png, image->pixels, size_bytes,
                             channels == 4 ? SPNG_FMT_RGBA8 : SPNG_FMT_RGB8,
                             channels == 4 ? SPNG_DECODE_TRNS : 0);
    if (code != 0)
        return png_fail(src, code, error);
    return qn__image_to_channels(image, src->channels, error);
}

qn_status qn__png_decode(const qn_image_source *src, qn_image *out, qn_error *error)
{
    spng_ctx *png = spng_ctx_new(0);
    if (png == NULL)
        return QN_NOMEM(error);
    qn_image image = {0};
    const qn_status status = png_run(png, src, &image, error);
    spng_ctx_free(png);
    if (status == QN_OK)
        *out = image;
    else
        qn__image_free(&image);
    return status;
}
