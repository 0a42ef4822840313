#include "kernel/q8_winograd.h"

#include <string.h>

enum { CH = QN_WINOGRAD_CHANNELS };

/* Two channels of four columns, as they lie in a packed line. */
typedef int16_t lanes __attribute__((vector_size(16)));
enum { LANES = 8 };

/* G times three vectors. */
static inline void three_to_six(const lanes w[3], lanes u[6])
{
    const lanes ends = w[0] + w[2], far = w[0] + 4 * w[2], twice = w[1] + w[1];
    u[0] = 6 * w[0];
    u[1] = -4 * (ends + w[1]);
    u[2] = -4 * (ends - w[1]);
    u[3] = far + twice;
    u[4] = far - twice;
    u[5] = 12 * w[2];
}

/* w: of the first column and channel; k weights a column. to: lines of products `step` apart. */
static void pack_lanes(int16_t *to, const int8_t *w, size_t k, size_t step)
{
    int16_t all[9][LANES];
    lanes line[3], lines[3][6], u[6];
    for (size_t n = 0; n < LANES; n++, w += n % 2 != 0 ? 9 : k - 9)
        for (size_t i = 0; i < 9; i++)
            all[i][n] = w[i];
    for (size_t j = 0; j < 3; j++) {
        for (size_t i = 0; i < 3; i++)
            memcpy(&line[i], all[i * 3 + j], sizeof(line[i]));
        three_to_six(line, lines[j]);
    }
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < 3; j++)
            line[j] = lines[j][i];
        three_to_six(line, u);
        for (size_t j = 0; j < 6; j++, to += step)
            memcpy(to, &u[j], sizeof(u[j]));
    }
}

/* Sums of a column's weights, above and below zero. */
static bool column_sum(const int8_t *w, size_t count, int32_t *sum)
{
    int64_t high = 0, low = 0;
    for (size_t i = 0; i < count; i++) {
        high += w[i] > 0 ? w[i] : 0;
        low += w[i] < 0 ? w[i] : 0;
    }
    *sum = (int32_t)(high + low);
    return high * UINT8_MAX < 1 << 25 && low * UINT8_MAX > -(1 << 25);
}

bool qn__q8_winograd_pack(void *packed, const int8_t *w, size_t n, size_t channels,
                          const int32_t *bias, int32_t zero, const float *scale)
{
    const size_t k = channels * 9;
    uint8_t *panel = packed;
    for (size_t n0 = 0; n0 < n; n0 += CH, w += CH * k) {
        int32_t base[CH];
        for (size_t i = 0; i < CH; i++) {
            if (!column_sum(w + i * k, k, &base[i]))
                return false;
            const uint32_t first = bias != NULL ? (uint32_t)bias[n0 + i] : 0;
            base[i] = (int32_t)(first - (uint32_t)zero * (uint32_t)base[i]);
        }
        memcpy(panel, base, sizeof(base));
        memcpy(panel + sizeof(base), scale + n0, CH * sizeof(float));
        int16_t *u = (int16_t *)(void *)(panel + sizeof(base) + CH * sizeof(float));
        for (size_t c = 0; c < channels; c += 2, u += 2 * CH) {
            /* Lines of products are far apart, often in the same set of the cache. */
            int16_t all[QN_WINOGRAD_IN][2 * CH];
            for (size_t i = 0; i < CH; i += LANES / 2)
                pack_lanes(all[0] + 2 * i, w + i * k + c * 9, k, 2 * CH);
            for (size_t i = 0; i < QN_WINOGRAD_IN; i++)
                memcpy(u + i * channels * CH, all[i], sizeof(all[i]));
        }
        panel += qn_q8_winograd_panel_bytes(channels);
    }
    return true;
}
