/* The choice of MNN's runtime between plain sums and Winograd's transforms, and its transformed
 * weights. All in float32, as there. */
#include "mnntool/winograd.h"

#include <math.h>

/* Most of a tile is bounded by the image: a unit larger than its geometric mean side is not tried.
 */
enum { LEAST_UNIT = 2, MOST_UNIT = 8 };

const int32_t qn__winograd_points[QN_WINOGRAD_MOST_ALPHA - 1] = {0, 1, -1, 2, -2, 3, -3};

float qn__winograd_divisor(int32_t n_points, int32_t j)
{
    float d = 1;
    for (int32_t i = 0; i < n_points; i++)
        if (i != j)
            d *= (float)(qn__winograd_points[j] - qn__winograd_points[i]);
    return d;
}

void qn__winograd_weight_matrix(int32_t alpha, int32_t kernel, float *g)
{
    const int32_t n = alpha - 1;
    for (int32_t j = 0; j < n; j++) {
        const float d = j == 0 ? fabsf(qn__winograd_divisor(n, j)) : qn__winograd_divisor(n, j);
        float power = 1;
        for (int32_t y = 0; y < kernel; y++, power *= (float)qn__winograd_points[j])
            g[j * kernel + y] = power / d;
    }
    for (int32_t y = 0; y < kernel; y++)
        g[n * kernel + y] = y == kernel - 1 ? 1.0f : 0.0f;
}

void qn__winograd_weights(int32_t alpha, int32_t kernel, const float *g, const float *w, float *out)
{
    for (int32_t y = 0; y < alpha; y++) {
        float half[QN_WINOGRAD_MOST_ALPHA]; /* row y of G w */
        for (int32_t x = 0; x < kernel; x++) {
            half[x] = 0;
            for (int32_t i = 0; i < kernel; i++)
                half[x] += g[y * kernel + i] * w[i * kernel + x];
        }
        for (int32_t x = 0; x < alpha; x++) {
            float sum = 0;
            for (int32_t i = 0; i < kernel; i++)
                sum += half[i] * g[x * kernel + i];
            out[y * alpha + x] = sum;
        }
    }
}

static bool applies(const qn_window *w)
{
    return w->kh == w->kw && w->kh > 1 && w->kh <= QN_WINOGRAD_MOST_ALPHA && w->dh == 1 &&
           w->dw == 1 && w->sh == 1 && w->sw == 1;
}

int32_t qn__mnn_winograd_unit(const qn_window *window, size_t channels, size_t rows)
{
    if (!applies(window))
        return 0;
    const float ic = (float)channels, oc = (float)rows, k = (float)window->kh;
    const float side = sqrtf((float)(window->oh * window->ow));
    const int32_t most = side < LEAST_UNIT  ? LEAST_UNIT
                         : side < MOST_UNIT ? (int32_t)side
                                            : MOST_UNIT;
    const float plain = (float)((double)((float)window->ow * (float)window->oh) * (2.0 * channels) *
                                (double)rows * (double)k * (double)k);
    int32_t best = 0;
    float gain = 0;
    for (int32_t u = LEAST_UNIT; u <= most; u++) {
        const int32_t alpha = u + (int32_t)window->kh - 1;
        if (alpha != 4 && alpha != 6 && alpha != 8)
            continue;
        const float a = (float)alpha, m = (float)u;
        const float tiles = (float)(((window->ow + (size_t)u - 1) / (size_t)u) *
                                    ((window->oh + (size_t)u - 1) / (size_t)u));
        const float cost =
            ((2 * a) * a * a * ic + 2 * a * a * ic * oc + ((a + m) * m * (2 * a) * oc)) * tiles;
        if (plain / cost > gain) {
            gain = plain / cost;
            best = u;
        }
    }
    return gain < 1.0f ? 0 : best;
}
