/* PBM, PGM and PPM, plain (P1 P2 P3) and raw (P4 P5 P6), up to 16 bits per sample. */
#include "data/image.h"

#include <string.h>

typedef struct qn_pnm {
    const qn_image_source *src;
    const uint8_t *p, *end;
    char kind; /* '1'..'6' */
    uint32_t width, height, channels, max;
} qn_pnm;

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void skip_blank(qn_pnm *pnm)
{
    while (pnm->p < pnm->end) {
        if (*pnm->p == '#') {
            const uint8_t *line = memchr(pnm->p, '\n', (size_t)(pnm->end - pnm->p));
            pnm->p = line != NULL ? line + 1 : pnm->end;
        } else if (is_space(*pnm->p)) {
            pnm->p++;
        } else {
            return;
        }
    }
}

static qn_status pnm_early(const qn_pnm *pnm, qn_error *error)
{
    QN_FAIL(error, QN_CORRUPT, "%s: PNM ends early or is malformed at byte %zu", pnm->src->name,
            (size_t)(pnm->p - pnm->src->bytes));
}

static bool read_number(qn_pnm *pnm, uint32_t *out)
{
    skip_blank(pnm);
    const uint8_t *start = pnm->p;
    uint32_t value = 0;
    for (; pnm->p < pnm->end && *pnm->p >= '0' && *pnm->p <= '9'; pnm->p++) {
        if (value > (INT32_MAX - 9) / 10)
            return false;
        value = value * 10 + (*pnm->p - '0');
    }
    *out = value;
    return pnm->p > start;
}

static qn_status pnm_header(qn_pnm *pnm, qn_error *error)
{
    const qn_image_source *src = pnm->src;
    pnm->kind = (char)src->bytes[1];
    pnm->p = src->bytes + 2;
    pnm->end = src->bytes + src->size_bytes;
    QN_FAIL_IF(pnm->kind == '7', error, QN_UNSUPPORTED, "%s: PAM picture (P7)", src->name);
    pnm->channels = pnm->kind == '3' || pnm->kind == '6' ? 3 : 1;
    pnm->max = 1;
    const bool bitmap = pnm->kind == '1' || pnm->kind == '4';
    if (pnm->p == pnm->end || !(is_space(*pnm->p) || *pnm->p == '#') ||
        !read_number(pnm, &pnm->width) || !read_number(pnm, &pnm->height) ||
        (!bitmap && !read_number(pnm, &pnm->max)))
        return pnm_early(pnm, error);
    QN_TRY(qn__image_check_size(src, pnm->width, pnm->height, error));
    QN_FAIL_IF(pnm->max == 0 || pnm->max > 65535, error, QN_CORRUPT, "%s: PNM of maximum %u",
               src->name, pnm->max);
    if (pnm->kind >= '4') { /* one blank before the raw samples */
        if (pnm->p == pnm->end || !is_space(*pnm->p))
            return pnm_early(pnm, error);
        pnm->p++;
    }
    return QN_OK;
}

/* Bytes of one row; of a plain file, the fewest it can have. */
static size_t pnm_row_bytes(const qn_pnm *pnm)
{
    const size_t samples = (size_t)pnm->width * pnm->channels;
    if (pnm->kind == '4')
        return (samples + 7) / 8;
    if (pnm->kind == '2' || pnm->kind == '3')
        return 2 * samples - 1;
    return pnm->kind == '1' || pnm->max < 256 ? samples : 2 * samples;
}

static uint8_t scale_sample(const qn_pnm *pnm, uint32_t value)
{
    if (pnm->max == 255)
        return (uint8_t)value;
    if (value > pnm->max)
        value = pnm->max;
    return (uint8_t)((2 * 255 * value + pnm->max) / (2 * pnm->max));
}

static void raw_samples(const qn_pnm *pnm, uint8_t *dst)
{
    const size_t count = (size_t)pnm->width * pnm->height * pnm->channels;
    if (pnm->max == 255) {
        memcpy(dst, pnm->p, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        dst[i] = scale_sample(
            pnm, pnm->max < 256 ? pnm->p[i] : (uint32_t)pnm->p[2 * i] << 8 | pnm->p[2 * i + 1]);
}

/* 1 is black. */
static void raw_bits(const qn_pnm *pnm, uint8_t *dst)
{
    const size_t stride = pnm_row_bytes(pnm);
    for (uint32_t y = 0; y < pnm->height; y++)
        for (uint32_t x = 0; x < pnm->width; x++)
            *dst++ = (pnm->p[stride * y + x / 8] >> (7 - x % 8) & 1) != 0 ? 0 : 255;
}

static qn_status plain_samples(qn_pnm *pnm, uint8_t *dst, qn_error *error)
{
    const size_t count = (size_t)pnm->width * pnm->height * pnm->channels;
    for (size_t i = 0; i < count; i++) {
        uint32_t value;
        if (pnm->kind == '1') { /* bits may follow each other without blanks */
            skip_blank(pnm);
            if (pnm->p == pnm->end || (*pnm->p != '0' && *pnm->p != '1'))
                return pnm_early(pnm, error);
            dst[i] = *pnm->p++ == '1' ? 0 : 255;
            continue;
        }
        if (!read_number(pnm, &value))
            return pnm_early(pnm, error);
        QN_FAIL_IF(value > pnm->max, error, QN_CORRUPT, "%s: PNM sample %u above the maximum %u",
                   pnm->src->name, value, pnm->max);
        dst[i] = scale_sample(pnm, value);
    }
    return QN_OK;
}

qn_status qn__pnm_decode(const qn_image_source *src, qn_image *out, qn_error *error)
{
    qn_pnm pnm = {.src = src};
    QN_TRY(pnm_header(&pnm, error));
    if ((size_t)(pnm.end - pnm.p) / pnm_row_bytes(&pnm) < pnm.height)
        QN_FAIL(error, QN_CORRUPT, "%s: PNM of %u x %u pixels ends early, after %zu bytes",
                src->name, pnm.width, pnm.height, src->size_bytes);
    qn_image image;
    QN_TRY(qn__image_alloc(src->ctx, pnm.width, pnm.height, pnm.channels, &image, error));
    qn_status status = QN_OK;
    if (pnm.kind <= '3')
        status = plain_samples(&pnm, image.pixels, error);
    else if (pnm.kind == '4')
        raw_bits(&pnm, image.pixels);
    else
        raw_samples(&pnm, image.pixels);
    if (status == QN_OK)
        status = qn__image_to_channels(&image, src->channels, error);
    if (status == QN_OK)
        *out = image;
    else
        qn__image_free(&image);
    return status;
}
