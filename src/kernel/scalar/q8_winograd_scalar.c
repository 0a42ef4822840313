/* Reference of the 8-bit convolution by Winograd's algorithm. Sums are modulo 2^32. */
#include "kernel/scalar/q8_requant.h"

#include <string.h>

enum { IN = QN_WINOGRAD_IN, OUT = QN_WINOGRAD_OUT, CH = QN_WINOGRAD_CHANNELS };

static void six_to_six(const int32_t *d, size_t step, int32_t *to)
{
    static const int8_t b[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                   {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
    for (size_t i = 0; i < 6; i++) {
        int32_t sum = 0;
        for (size_t j = 0; j < 6; j++)
            sum += b[i][j] * d[j * step];
        to[i * step] = sum;
    }
}

static void six_to_four(const uint32_t *m, size_t step, uint32_t *to)
{
    static const int8_t a[4][6] = {
        {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 2}};
    for (size_t i = 0; i < 4; i++) {
        uint32_t sum = 0;
        for (size_t j = 0; j < 6; j++)
            sum += (uint32_t)a[i][j] * m[j * step];
        to[i * step] = sum;
    }
}

void qn__q8_winograd_inputs_scalar(const qn_q8_winograd_args *args)
{
    for (size_t t = 0; t < args->tiles; t++)
        for (size_t c = 0; c < args->channels; c++) {
            int32_t d[IN], columns[IN], v[IN];
            const qn_q8_winograd_tile *const tile = args->tile + t;
            for (size_t i = 0; i < IN; i++) {
                const size_t j = i % 6;
                d[i] = j >= tile->left && j < tile->right
                           ? tile->in[i / 6][(j - tile->left) * args->channels + c]
                           : args->zeros[c];
            }
            for (size_t j = 0; j < 6; j++)
                six_to_six(d + j, 6, columns + j);
            for (size_t i = 0; i < 6; i++)
                six_to_six(columns + i * 6, 1, v + i * 6);
            for (size_t i = 0; i < IN; i++)
                args->v[i * args->v_step + t * args->channels + c] = (int16_t)v[i];
        }
}

static void column(const qn_q8_winograd_args *args, size_t t, size_t n, const uint8_t *panel)
{
    const int16_t *const u = (const int16_t *)(const void *)(panel + CH * 8);
    const size_t channels = args->channels;
    uint32_t m[IN], lines[4 * 6], out[OUT];
    int32_t base;
    float scale;
    memcpy(&base, panel + n % CH * 4, 4);
    memcpy(&scale, panel + (CH + n % CH) * 4, 4);
    for (size_t i = 0; i < IN; i++) {
        m[i] = 0;
        for (size_t c = 0; c < channels; c++)
            m[i] += (uint32_t)(args->v[i * args->v_step + t * channels + c] *
                               u[(i * channels / 2 + c / 2) * 2 * CH + n % CH * 2 + c % 2]);
    }
    for (size_t j = 0; j < 6; j++)
        six_to_four(m + j, 6, lines + j);
    for (size_t i = 0; i < 4; i++)
        six_to_four(lines + i * 6, 1, out + i * 4);
    const qn_q8_winograd_tile *const tile = args->tile + t;
    for (size_t i = 0; i < OUT; i++) {
        const int32_t sum = (int32_t)(out[i] * QN_WINOGRAD_INVERSE) >> 6;
        if (i / 4 < tile->rows && i % 4 < tile->columns)
            tile->out[i / 4 * args->out_row + i % 4 * args->out_step + n] =
                qn_q8_requant((int32_t)((uint32_t)sum + (uint32_t)base), scale, args->format);
    }
}

void qn__q8_winograd_scalar(const qn_q8_winograd_args *args)
{
    const uint8_t *panel = args->w;
    for (size_t n = 0; n < args->n; n++) {
        for (size_t t = 0; t < args->tiles; t++)
            column(args, t, n, panel);
        if (n % CH == CH - 1)
            panel += qn_q8_winograd_panel_bytes(args->channels);
    }
}
