#include "kernel/q8_winograd.h"

#include <string.h>

enum { CH = QN_WINOGRAD_CHANNELS };

/* G's rows times three vectors of a line. */
static inline void weights6(const int16_t w[3][CH], int16_t u[6][CH])
{
    for (size_t n = 0; n < CH; n++) {
        const int a = w[0][n], b = w[1][n], c = w[2][n];
        u[0][n] = (int16_t)(6 * a);
        u[1][n] = (int16_t)(-4 * (a + c + b));
        u[2][n] = (int16_t)(-4 * (a + c - b));
        u[3][n] = (int16_t)(a + 4 * c + 2 * b);
        u[4][n] = (int16_t)(a + 4 * c - 2 * b);
        u[5][n] = (int16_t)(12 * c);
    }
}

/* One channel of 16 columns, whose weights of a column are `step` apart. */
static void pack_channel(int16_t *to, const int8_t *w, size_t step, size_t products_step)
{
    int16_t line[3][CH], lines[6][3][CH], all[6][CH], u[6][CH];
    for (size_t j = 0; j < 3; j++) {
        for (size_t i = 0; i < 3; i++)
            for (size_t n = 0; n < CH; n++)
                line[i][n] = w[n * step + i * 3 + j];
        weights6((const int16_t(*)[CH])line, u);
        for (size_t i = 0; i < 6; i++)
            memcpy(lines[i][j], u[i], sizeof(u[i]));
    }
    for (size_t i = 0; i < 6; i++) {
        weights6((const int16_t(*)[CH])lines[i], all);
        for (size_t j = 0; j < 6; j++, to += products_step)
            for (size_t n = 0; n < CH; n++)
                to[2 * n] = all[j][n];
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
        int16_t *const u = (int16_t *)(void *)(panel + sizeof(base) + CH * sizeof(float));
        for (size_t c = 0; c < channels; c++)
            pack_channel(u + c / 2 * 2 * CH + c % 2, w + c * 9, k, channels * CH);
        panel += qn_q8_winograd_panel_bytes(channels);
    }
    return true;
}
