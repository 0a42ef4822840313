/* JPEG with the arithmetic of the decoder that MNN's tool uses (stb_image, by its documented
 * integer steps): a 12-bit inverse DCT, linear upsampling of chroma, colours in 12 bits. Levels
 * differ from libjpeg's by one to three in a few percent of the pixels, which is enough to move
 * thresholds that a divergence search chooses. libjpeg still reads the file: only coefficients are
 * taken. */
#include "data/image_jpeg_mnn.h"

#include <string.h>

#include "core/checked.h"

#define FIX(x) ((int)((x)*4096 + 0.5))

/* --- inverse DCT -------------------------------------------------------------------------------*/

typedef struct idct_parts {
    int64_t x[4], t[4];
} idct_parts;

/* 64 bits, because coefficients of a damaged file may be anything. Eight coefficients, `step`
 * apart; sums x[k] +- t[3 - k] are the values k and 7 - k. */
static inline idct_parts idct(const int64_t *s, size_t step)
{
    idct_parts r;
    int64_t p1 = (s[2 * step] + s[6 * step]) * FIX(0.5411961f);
    const int64_t t2 = p1 + s[6 * step] * FIX(-1.847759065f);
    const int64_t t3 = p1 + s[2 * step] * FIX(0.765366865f);
    const int64_t t0 = (s[0] + s[4 * step]) * 4096, t1 = (s[0] - s[4 * step]) * 4096;
    r.x[0] = t0 + t3;
    r.x[3] = t0 - t3;
    r.x[1] = t1 + t2;
    r.x[2] = t1 - t2;
    const int64_t a = s[7 * step], b = s[5 * step], c = s[3 * step], d = s[step];
    const int64_t p5 = (a + c + b + d) * FIX(1.175875602f);
    p1 = p5 + (a + d) * FIX(-0.899976223f);
    const int64_t p2 = p5 + (b + c) * FIX(-2.562915447f);
    const int64_t p3 = (a + c) * FIX(-1.961570560f), p4 = (b + d) * FIX(-0.390180644f);
    r.t[3] = d * FIX(1.501321110f) + p1 + p4;
    r.t[2] = c * FIX(3.072711026f) + p2 + p3;
    r.t[1] = b * FIX(2.053119869f) + p2 + p4;
    r.t[0] = a * FIX(0.298631336f) + p1 + p3;
    return r;
}

static inline uint8_t clamp8(int64_t v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void idct_block(const JCOEF *coefficients, const UINT16 *quants, uint8_t *dst, size_t stride)
{
    int64_t in[64], mid[64];
    for (size_t i = 0; i < 64; i++)
        in[i] = (int16_t)(coefficients[i] * quants[i]);
    for (size_t i = 0; i < 8; i++) {
        const idct_parts p = idct(in + i, 8);
        for (size_t k = 0; k < 4; k++) {
            mid[8 * k + i] = (p.x[k] + 512 + p.t[3 - k]) >> 10;
            mid[8 * (7 - k) + i] = (p.x[k] + 512 - p.t[3 - k]) >> 10;
        }
    }
    for (size_t i = 0; i < 8; i++, dst += stride) {
        const idct_parts p = idct(mid + 8 * i, 1);
        for (size_t k = 0; k < 4; k++) {
            const int64_t x = p.x[k] + 65536 + (128 << 17);
            dst[k] = clamp8((x + p.t[3 - k]) >> 17);
            dst[7 - k] = clamp8((x - p.t[3 - k]) >> 17);
        }
    }
}

qn_status qn__jpeg_mnn_plane(struct jpeg_decompress_struct *cinfo, jvirt_barray_ptr blocks,
                             int component, const qn_context *ctx, qn_jpeg_plane *out,
                             qn_error *error)
{
    const jpeg_component_info *c = &cinfo->comp_info[component];
    out->stride = (size_t)c->width_in_blocks * 8;
    out->rows = (uint32_t)(((uint64_t)cinfo->image_height * (uint64_t)c->v_samp_factor +
                            (uint64_t)cinfo->max_v_samp_factor - 1) /
                           (uint64_t)cinfo->max_v_samp_factor);
    out->hs = (uint32_t)(cinfo->max_h_samp_factor / c->h_samp_factor);
    out->vs = (uint32_t)(cinfo->max_v_samp_factor / c->v_samp_factor);
    QN_FAIL_IF(cinfo->max_h_samp_factor % c->h_samp_factor != 0 ||
                   cinfo->max_v_samp_factor % c->v_samp_factor != 0,
               error, QN_UNSUPPORTED, "JPEG with fractional sampling factors");
    size_t bytes;
    if (!qn_mul_size(&bytes, out->stride, (size_t)c->height_in_blocks * 8))
        return QN_NOMEM(error);
    out->values = qn__alloc(ctx, bytes);
    if (out->values == NULL)
        return QN_NOMEM(error);
    QN_FAIL_IF(c->quant_table == NULL, error, QN_CORRUPT, "JPEG without a quantization table");
    for (JDIMENSION y = 0; y < c->height_in_blocks; y++) {
        JBLOCKARRAY row = cinfo->mem->access_virt_barray((j_common_ptr)cinfo, blocks, y, 1, FALSE);
        for (JDIMENSION x = 0; x < c->width_in_blocks; x++)
            idct_block(row[0][x], c->quant_table->quantval,
                       out->values + (size_t)y * 8 * out->stride + (size_t)x * 8, out->stride);
    }
    return QN_OK;
}

/* --- upsampling --------------------------------------------------------------------------------*/

static void widen(const uint8_t *in, size_t w, uint8_t *out)
{
    out[0] = in[0];
    if (w == 1) {
        out[1] = in[0];
        return;
    }
    out[1] = (uint8_t)((in[0] * 3 + in[1] + 2) >> 2);
    for (size_t i = 1; i + 1 < w; i++) {
        const int n = 3 * in[i] + 2;
        out[2 * i] = (uint8_t)((n + in[i - 1]) >> 2);
        out[2 * i + 1] = (uint8_t)((n + in[i + 1]) >> 2);
    }
    out[2 * w - 2] = (uint8_t)((in[w - 2] * 3 + in[w - 1] + 2) >> 2); /* as there: not mirrored */
    out[2 * w - 1] = in[w - 1];
}

static void widen_both(const uint8_t *near, const uint8_t *far, size_t w, uint8_t *out)
{
    int t1 = 3 * near[0] + far[0];
    out[0] = (uint8_t)((t1 + 2) >> 2);
    for (size_t i = 1; i < w; i++) {
        const int t0 = t1;
        t1 = 3 * near[i] + far[i];
        out[2 * i - 1] = (uint8_t)((3 * t0 + t1 + 8) >> 4);
        out[2 * i] = (uint8_t)((3 * t1 + t0 + 8) >> 4);
    }
    out[2 * w - 1] = (uint8_t)((t1 + 2) >> 2);
}

void qn__jpeg_mnn_row(const qn_jpeg_plane *plane, uint32_t width, uint32_t y, uint8_t *out)
{
    const size_t w = (width + plane->hs - 1) / plane->hs;
    const uint32_t last = plane->rows - 1, half = plane->vs >> 1;
    /* Row y lies between two rows of the plane; which one is nearer alternates. */
    const uint32_t phase = (y + half) % plane->vs, step = (y + half) / plane->vs;
    const uint32_t below = step < last ? step : last, above = step > 0 ? step - 1 : 0;
    const uint8_t *lower = plane->values + (size_t)below * plane->stride;
    const uint8_t *upper = plane->values + (size_t)(above < last ? above : last) * plane->stride;
    const bool bottom = phase >= half;
    const uint8_t *near = bottom ? lower : upper, *far = bottom ? upper : lower;
    if (plane->hs == 1 && plane->vs == 1) {
        memcpy(out, near, w);
    } else if (plane->hs == 1 && plane->vs == 2) {
        for (size_t i = 0; i < w; i++)
            out[i] = (uint8_t)((3 * near[i] + far[i] + 2) >> 2);
    } else if (plane->hs == 2 && plane->vs == 1) {
        widen(near, w, out);
    } else if (plane->hs == 2 && plane->vs == 2) {
        widen_both(near, far, w, out);
    } else {
        for (size_t i = 0; i < w; i++)
            memset(out + i * plane->hs, near[i], plane->hs);
    }
}

/* --- colours -----------------------------------------------------------------------------------*/

#define COLOUR(x) (((int)((x)*4096.0f + 0.5f)) << 8)

static void ycc_to_rgb(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint8_t *rgb,
                       uint32_t width)
{
    for (uint32_t i = 0; i < width; i++, rgb += 3) {
        const int base = (y[i] << 20) + (1 << 19), r = cr[i] - 128, b = cb[i] - 128;
        const int blue_part = (int)((uint32_t)(b * -COLOUR(0.34414f)) & 0xffff0000u);
        rgb[0] = clamp8((base + r * COLOUR(1.40200f)) >> 20);
        rgb[1] = clamp8((base + r * -COLOUR(0.71414f) + blue_part) >> 20);
        rgb[2] = clamp8((base + b * COLOUR(1.77200f)) >> 20);
    }
}

static uint8_t times(uint32_t x, uint32_t y)
{
    const uint32_t t = x * y + 128;
    return (uint8_t)((t + (t >> 8)) >> 8);
}

void qn__jpeg_mnn_colours(const struct jpeg_decompress_struct *cinfo, uint8_t *const rows[4],
                          uint8_t *rgb, uint32_t width)
{
    const int n = cinfo->num_components;
    const jpeg_component_info *c = cinfo->comp_info;
    const int transform = cinfo->saw_Adobe_marker ? cinfo->Adobe_transform : -1;
    const bool is_rgb =
        n == 3 &&
        ((c[0].component_id == 'R' && c[1].component_id == 'G' && c[2].component_id == 'B') ||
         (transform == 0 && !cinfo->saw_JFIF_marker));
    if (n == 1 || is_rgb || (n == 4 && transform == 0)) {
        for (uint32_t i = 0; i < width; i++)
            for (size_t k = 0; k < 3; k++) {
                const uint8_t v = rows[n == 1 ? 0 : k][i];
                rgb[3 * i + k] = n == 4 ? times(v, rows[3][i]) : v;
            }
        return;
    }
    ycc_to_rgb(rows[0], rows[1], rows[2], rgb, width);
    if (n == 4 && transform == 2)
        for (uint32_t i = 0; i < 3 * width; i++)
            rgb[i] = times(255u - rgb[i], rows[3][i / 3]);
}
