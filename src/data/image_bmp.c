/* Windows and OS/2 bitmaps: 1, 4, 8 bits with a palette, 16, 24, 32 bits, with or without masks. */
#include "data/image.h"

#include <string.h>

typedef struct qn_bmp {
    uint32_t width, height;
    bool top_down;
    uint32_t bits;
    size_t stride;
    const uint8_t *rows;
    const uint8_t *palette; /* B G R (X) */
    uint32_t n_palette, palette_step;
    uint32_t masks[3]; /* R G B of 16 and 32 bits */
} qn_bmp;

static uint32_t read16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t read32(const uint8_t *p)
{
    return read16(p) | read16(p + 2) << 16;
}

static const char *compression_name(uint32_t compression)
{
    static const char *const names[] = {"none", "RLE8", "RLE4", "bit fields", "JPEG", "PNG"};
    return compression < 6 ? names[compression] : "unknown";
}

static qn_status bmp_size(const qn_image_source *src, qn_bmp *bmp, int64_t width, int64_t height,
                          qn_error *error)
{
    bmp->top_down = height < 0;
    if (height < 0)
        height = -height;
    QN_FAIL_IF(width < 0, error, QN_CORRUPT, "%s: BMP with a width of %lld", src->name,
               (long long)width);
    QN_TRY(qn__image_check_size(src, (uint64_t)width, (uint64_t)height, error));
    bmp->width = (uint32_t)width;
    bmp->height = (uint32_t)height;
    return QN_OK;
}

/* Masks of 16 and 32 bits: at most 16 neighbouring bits each. */
static qn_status bmp_masks(const qn_image_source *src, qn_bmp *bmp, uint32_t compression,
                           const uint8_t *masks, qn_error *error)
{
    static const uint32_t defaults[2][3] = {{0x7c00, 0x03e0, 0x001f},
                                            {0xff0000, 0x00ff00, 0x0000ff}};
    memcpy(bmp->masks, defaults[bmp->bits == 32], sizeof(bmp->masks));
    if (compression != 3)
        return QN_OK;
    for (size_t i = 0; i < 3; i++) {
        const uint32_t mask = read32(masks + 4 * i);
        const uint32_t low = mask == 0 ? 0 : mask >> __builtin_ctz(mask);
        QN_FAIL_IF(mask == 0 || (low & (low + 1)) != 0 || low > 0xffff, error, QN_UNSUPPORTED,
                   "%s: BMP with a colour mask of 0x%x", src->name, mask);
        bmp->masks[i] = mask;
    }
    return QN_OK;
}

static qn_status bmp_header(const qn_image_source *src, qn_bmp *bmp, qn_error *error)
{
    const uint8_t *b = src->bytes;
    const size_t size = src->size_bytes;
    QN_FAIL_IF(size < 26, error, QN_CORRUPT, "%s: BMP ends early, after %zu bytes", src->name,
               size);
    const uint32_t offset = read32(b + 10), header = read32(b + 14);
    const bool core = header == 12;
    QN_FAIL_IF(!core && header != 40 && header != 52 && header != 56 && header != 64 &&
                   header != 108 && header != 124,
               error, QN_UNSUPPORTED, "%s: BMP header of %u bytes", src->name, header);
    QN_FAIL_IF(size < 14 + (size_t)header, error, QN_CORRUPT, "%s: BMP ends early, after %zu bytes",
               src->name, size);
    if (core)
        QN_TRY(bmp_size(src, bmp, read16(b + 18), read16(b + 20), error));
    else
        QN_TRY(bmp_size(src, bmp, (int32_t)read32(b + 18), (int32_t)read32(b + 22), error));
    bmp->bits = core ? read16(b + 24) : read16(b + 28);
    const uint32_t compression = core ? 0 : read32(b + 30);
    QN_FAIL_IF(compression != 0 && !(compression == 3 && (bmp->bits == 16 || bmp->bits == 32)),
               error, QN_UNSUPPORTED, "%s: BMP of %u bits with compression %u (%s)", src->name,
               bmp->bits, compression, compression_name(compression));
    size_t at = 14 + (size_t)header;
    const uint8_t *masks = b + 54; /* inside the longer headers, behind the 40-byte one */
    if (compression == 3 && header == 40) {
        QN_FAIL_IF(size < at + 12, error, QN_CORRUPT, "%s: BMP ends early, after %zu bytes",
                   src->name, size);
        at += 12;
    }
    QN_FAIL_IF(compression == 3 && header == 64, error, QN_UNSUPPORTED,
               "%s: OS/2 BMP with compression 3", src->name);
    switch (bmp->bits) {
    case 1:
    case 4:
    case 8:
        bmp->n_palette = core ? 0 : read32(b + 46);
        if (bmp->n_palette == 0 || bmp->n_palette > 1u << bmp->bits)
            bmp->n_palette = 1u << bmp->bits;
        bmp->palette_step = core ? 3 : 4;
        bmp->palette = b + at;
        QN_FAIL_IF(size - at < (size_t)bmp->n_palette * bmp->palette_step, error, QN_CORRUPT,
                   "%s: BMP ends early, after %zu bytes", src->name, size);
        break;
    case 16:
    case 32:
        QN_TRY(bmp_masks(src, bmp, compression, masks, error));
        break;
    case 24:
        break;
    default:
        QN_FAIL(error, QN_UNSUPPORTED, "%s: BMP of %u bits per pixel", src->name, bmp->bits);
    }
    bmp->stride = ((size_t)bmp->width * bmp->bits + 31) / 32 * 4;
    QN_FAIL_IF(offset < at || offset > size || (size - offset) / bmp->stride < bmp->height, error,
               QN_CORRUPT, "%s: BMP of %u x %u pixels ends early, after %zu bytes", src->name,
               bmp->width, bmp->height, size);
    bmp->rows = b + offset;
    return QN_OK;
}

static bool palette_row(const qn_bmp *bmp, const uint8_t *row, uint8_t *rgb)
{
    const uint32_t per_byte = 8 / bmp->bits, mask = (1u << bmp->bits) - 1;
    for (uint32_t x = 0; x < bmp->width; x++, rgb += 3) {
        const uint32_t shift = 8 - bmp->bits * (x % per_byte + 1);
        const uint32_t index = (uint32_t)row[x / per_byte] >> shift & mask;
        if (index >= bmp->n_palette)
            return false;
        const uint8_t *entry = bmp->palette + (size_t)index * bmp->palette_step;
        rgb[0] = entry[2];
        rgb[1] = entry[1];
        rgb[2] = entry[0];
    }
    return true;
}

static void mask_row(const qn_bmp *bmp, const uint8_t *row, uint8_t *rgb)
{
    uint32_t shifts[3], tops[3];
    for (size_t c = 0; c < 3; c++) {
        shifts[c] = (uint32_t)__builtin_ctz(bmp->masks[c]);
        tops[c] = bmp->masks[c] >> shifts[c];
    }
    for (uint32_t x = 0; x < bmp->width; x++) {
        const uint32_t v =
            bmp->bits == 16 ? read16(row + 2 * (size_t)x) : read32(row + 4 * (size_t)x);
        for (size_t c = 0; c < 3; c++)
            *rgb++ = (uint8_t)(((v & bmp->masks[c]) >> shifts[c]) * 255 / tops[c]);
    }
}

static void bgr_row(const qn_bmp *bmp, const uint8_t *row, uint8_t *rgb)
{
    for (uint32_t x = 0; x < bmp->width; x++, rgb += 3, row += 3) {
        rgb[0] = row[2];
        rgb[1] = row[1];
        rgb[2] = row[0];
    }
}

qn_status qn__bmp_decode(const qn_image_source *src, qn_image *out, qn_error *error)
{
    qn_bmp bmp = {0};
    QN_TRY(bmp_header(src, &bmp, error));
    qn_image image;
    QN_TRY(qn__image_alloc(src->ctx, bmp.width, bmp.height, 3, &image, error));
    for (uint32_t y = 0; y < bmp.height; y++) {
        const uint8_t *row = bmp.rows + bmp.stride * (bmp.top_down ? y : bmp.height - 1 - y);
        uint8_t *rgb = image.pixels + (size_t)3 * bmp.width * y;
        if (bmp.bits == 24) {
            bgr_row(&bmp, row, rgb);
        } else if (bmp.bits > 8) {
            mask_row(&bmp, row, rgb);
        } else if (!palette_row(&bmp, row, rgb)) {
            qn__image_free(&image);
            QN_FAIL(error, QN_CORRUPT, "%s: BMP row %u has a colour outside its palette of %u",
                    src->name, y, bmp.n_palette);
        }
    }
    const qn_status status = qn__image_to_channels(&image, src->channels, error);
    if (status == QN_OK)
        *out = image;
    else
        qn__image_free(&image);
    return status;
}
