/* From JPEG coefficients to pixels in the arithmetic of the decoder inside MNN, where libjpeg's
 * differs by a level here and there: inverse DCT with 12 fractional bits, chroma widened by 3:1
 * weights, YCbCr to RGB in 16 bits by groups of eight pixels and in 32 for the rest of a row. KL
 * thresholds see single levels. */
#include "data/image_jpeg.h"

#include <string.h>

enum { DCT_BITS = 12, GROUP = 8, CHUNK = 256 };

/* --- inverse DCT (Loeffler, Ligtenberg and Moschytz, 1989, as in libjpeg's slow version) -------*/

/* Sums wrap: the coefficients of a damaged file may have any size. */
static uint32_t fixed(double x)
{
    return (uint32_t)(int32_t)(x * (1 << DCT_BITS) + 0.5);
}

/* even[4], odd[4]: out[i] = even[i] + odd[i], out[7 - i] = even[i] - odd[i]. */
static void transform(const uint32_t s[8], uint32_t even[4], uint32_t odd[4])
{
    const uint32_t e1 = (s[2] + s[6]) * fixed(0.5411961);
    const uint32_t e2 = e1 + s[6] * fixed(-1.847759065), e3 = e1 + s[2] * fixed(0.765366865);
    const uint32_t e0 = (s[0] + s[4]) * (1u << DCT_BITS), e4 = (s[0] - s[4]) * (1u << DCT_BITS);
    even[0] = e0 + e3;
    even[1] = e4 + e2;
    even[2] = e4 - e2;
    even[3] = e0 - e3;
    const uint32_t a = (s[7] + s[3] + s[5] + s[1]) * fixed(1.175875602);
    const uint32_t p1 = (s[7] + s[1]) * fixed(-0.899976223);
    const uint32_t p2 = (s[5] + s[3]) * fixed(-2.562915447);
    const uint32_t p3 = (s[7] + s[3]) * fixed(-1.961570560);
    const uint32_t p4 = (s[5] + s[1]) * fixed(-0.390180644);
    odd[0] = s[1] * fixed(1.501321110) + a + p1 + p4;
    odd[1] = s[3] * fixed(3.072711026) + a + p2 + p3;
    odd[2] = s[5] * fixed(2.053119869) + a + p2 + p4;
    odd[3] = s[7] * fixed(0.298631336) + a + p1 + p3;
}

static uint8_t clamp_level(int32_t value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void inverse_dct(const int16_t *coefficients, const uint16_t *steps, uint8_t *out,
                        size_t stride)
{
    uint32_t rows[64], s[8], even[4], odd[4];
    for (size_t x = 0; x < 8; x++) {
        int16_t others = 0;
        for (size_t k = 1; k < 8; k++)
            others |= coefficients[8 * k + x];
        if (others == 0) { /* most columns: the transform of a constant */
            const uint32_t constant = (uint32_t)(4 * (int16_t)(coefficients[x] * steps[x]));
            for (size_t k = 0; k < 8; k++)
                rows[8 * k + x] = constant;
            continue;
        }
        for (size_t k = 0; k < 8; k++)
            s[k] = (uint32_t)(int16_t)(coefficients[8 * k + x] * steps[8 * k + x]);
        transform(s, even, odd);
        for (size_t i = 0; i < 4; i++) {
            rows[8 * i + x] = (uint32_t)((int32_t)(even[i] + 512 + odd[i]) >> 10);
            rows[8 * (7 - i) + x] = (uint32_t)((int32_t)(even[i] + 512 - odd[i]) >> 10);
        }
    }
    for (size_t y = 0; y < 8; y++) {
        transform(rows + 8 * y, even, odd);
        for (size_t i = 0; i < 4; i++) {
            const uint32_t middle = even[i] + 65536 + (128u << 17);
            out[y * stride + i] = clamp_level((int32_t)(middle + odd[i]) >> 17);
            out[y * stride + 7 - i] = clamp_level((int32_t)(middle - odd[i]) >> 17);
        }
    }
}

/* --- chroma to full size ----------------------------------------------------------------------*/

static void widen_rows(const uint8_t *near, const uint8_t *far, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)((3 * near[i] + far[i] + 2) >> 2);
}

static void widen_columns(const uint8_t *in, size_t n, uint8_t *out)
{
    if (n == 1) {
        out[0] = out[1] = in[0];
        return;
    }
    out[0] = in[0];
    out[1] = (uint8_t)((3 * in[0] + in[1] + 2) >> 2);
    for (size_t i = 1; i + 1 < n; i++) {
        out[2 * i] = (uint8_t)((3 * in[i] + in[i - 1] + 2) >> 2);
        out[2 * i + 1] = (uint8_t)((3 * in[i] + in[i + 1] + 2) >> 2);
    }
    /* (the weights are the other way round at this end) */
    out[2 * n - 2] = (uint8_t)((3 * in[n - 2] + in[n - 1] + 2) >> 2);
    out[2 * n - 1] = in[n - 1];
}

static void widen_both(const uint8_t *near, const uint8_t *far, size_t n, uint8_t *out)
{
    int32_t now = 3 * near[0] + far[0];
    out[0] = (uint8_t)((now + 2) >> 2);
    for (size_t i = 1; i < n; i++) {
        const int32_t before = now;
        now = 3 * near[i] + far[i];
        out[2 * i - 1] = (uint8_t)((3 * before + now + 8) >> 4);
        out[2 * i] = (uint8_t)((3 * now + before + 8) >> 4);
    }
    out[2 * n - 1] = (uint8_t)((now + 2) >> 2);
}

/* Row y of the picture from a component that has 1 / (hs, vs) of its samples. */
static const uint8_t *component_row(const qn_jpeg_plane *p, size_t y, size_t width, uint8_t *row)
{
    const size_t vs = p->vs, hs = p->hs;
    const size_t n = (width + hs - 1) / hs;
    /* Between sample rows the nearer one weighs more. */
    const size_t half = vs >> 1, step = (y + half) / vs;
    const size_t below = step < p->height ? step : p->height - 1;
    const size_t above = step > 0 ? (step - 1 < p->height ? step - 1 : p->height - 1) : 0;
    const bool lower = (y + half) % vs >= half;
    const uint8_t *near = p->samples + p->stride * (lower ? below : above);
    const uint8_t *far = p->samples + p->stride * (lower ? above : below);
    if (hs == 1 && vs == 1)
        return p->samples + p->stride * y;
    if (hs == 1 && vs == 2)
        widen_rows(near, far, n, row);
    else if (hs == 2 && vs == 1)
        widen_columns(near, n, row);
    else if (hs == 2 && vs == 2)
        widen_both(near, far, n, row);
    else
        for (size_t i = 0; i < n; i++)
            memset(row + i * hs, near[i], hs);
    return row;
}

/* --- colours ----------------------------------------------------------------------------------*/

static int16_t high_half(int16_t a, int16_t b)
{
    return (int16_t)((a * b) >> 16);
}

static int16_t level_of(int16_t value)
{
    const int16_t v = value > 0 ? value : 0;
    return v < 255 ? v : 255;
}

/* 16-bit arithmetic: products keep their upper half. n is at most CHUNK. */
static void group_pixels(const uint8_t *restrict y, const uint8_t *restrict cb,
                         const uint8_t *restrict cr, size_t n, uint8_t *restrict rgb)
{
    uint8_t planes[3][CHUNK];
    for (size_t i = 0; i < n; i++) {
        const int16_t luma = (int16_t)((256 * y[i] + 128) >> 4);
        const int16_t b = (int16_t)((cb[i] - 128) * 256), r = (int16_t)((cr[i] - 128) * 256);
        const int16_t green = (int16_t)(high_half(-1410, b) + high_half(-2925, r));
        planes[0][i] = (uint8_t)level_of((int16_t)((int16_t)(luma + high_half(5743, r)) >> 4));
        planes[1][i] = (uint8_t)level_of((int16_t)((int16_t)(luma + green) >> 4));
        planes[2][i] = (uint8_t)level_of((int16_t)((int16_t)(luma + high_half(7258, b)) >> 4));
    }
    for (size_t i = 0; i < n; i++, rgb += 3) {
        rgb[0] = planes[0][i];
        rgb[1] = planes[1][i];
        rgb[2] = planes[2][i];
    }
}

static void single_pixel(uint8_t y, int32_t cb, int32_t cr, uint8_t *rgb)
{
    const int32_t luma = y * (1 << 20) + (1 << 19);
    const int32_t green = (int32_t)((uint32_t)(cb * -(1410 << 8)) & 0xffff0000u);
    rgb[0] = clamp_level((luma + cr * (5743 << 8)) >> 20);
    rgb[1] = clamp_level((luma + cr * -(2925 << 8) + green) >> 20);
    rgb[2] = clamp_level((luma + cb * (7258 << 8)) >> 20);
}

static void colour_row(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, size_t n,
                       uint8_t *rgb)
{
    const size_t grouped = n / GROUP * GROUP;
    size_t i = 0;
    for (size_t step; i < grouped; i += step) {
        step = grouped - i < CHUNK ? grouped - i : CHUNK;
        group_pixels(y + i, cb + i, cr + i, step, rgb + 3 * i);
    }
    for (; i < n; i++)
        single_pixel(y[i], cb[i] - 128, cr[i] - 128, rgb + 3 * i);
}

/* --- everything -------------------------------------------------------------------------------*/

void qn__jpeg_plane_block(const qn_jpeg_plane *plane, size_t row, size_t column,
                          const int16_t *coefficients, const uint16_t *steps)
{
    inverse_dct(coefficients, steps, plane->samples + 8 * row * plane->stride + 8 * column,
                plane->stride);
}

void qn__jpeg_planes_to_rgb(const qn_jpeg_plane *planes, size_t n_planes, uint8_t *rows[3],
                            size_t width, size_t height, uint8_t *rgb)
{
    for (size_t y = 0; y < height; y++, rgb += 3 * width) {
        const uint8_t *in[3] = {NULL, NULL, NULL};
        for (size_t c = 0; c < n_planes; c++)
            in[c] = component_row(&planes[c], y, width, rows[c]);
        if (n_planes == 3)
            colour_row(in[0], in[1], in[2], width, rgb);
        for (size_t x = 0; n_planes == 1 && x < width; x++)
            memset(rgb + 3 * x, in[0][x], 3);
    }
}
