/* What a linear or cubic Resize does for every element; the rest is in resize.c. */
#include "kernel/vmath.h"
#include "run/ops/resample.h"

#include <string.h>

/* Channels at once, and those of loops of a fixed length, which are made vectors of. */
enum { CHANNELS = 64, BLOCK = 16 };

static void sum_block(const qn_resize_state *s, const float *values, const float weights[4],
                      uint8_t *restrict out)
{
    const float scale = s->y.scale, zero = (float)s->y.zero;
    const float lo = (float)s->y.qmin - zero, hi = (float)s->y.qmax - zero;
    const int32_t to = s->y.zero;
    float sums[BLOCK];
    for (size_t i = 0; i < BLOCK; i++) {
        float v = (values[i] * weights[0] + values[CHANNELS + i] * weights[1] +
                   values[2 * CHANNELS + i] * weights[2] + values[3 * CHANNELS + i] * weights[3]) /
                  scale;
        v = v > lo ? v : lo;
        sums[i] = v < hi ? v : hi;
    }
    if (!s->truncates)
        for (size_t i = 0; i < BLOCK; i++)
            sums[i] = qn_rne_small(sums[i]);
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = (uint8_t)((int32_t)sums[i] + to);
}

/* Positions one behind the other, some channels at a time: neighbours often lie between the same
 * elements of the input. */
void qn__resize_bytes_rows(void *arg, size_t begin, size_t end)
{
    const qn_resize_bytes *const job = arg;
    const qn_resize_state *const s = job->s;
    const qn_resize_pass *const a = &s->passes[0], *const b = &s->passes[1];
    const size_t n = b->inner, middle = a->inner / (b->in * n);
    const uint8_t flip = s->x.dtype == QN_DTYPE_I8 ? 0x80 : 0;
    qn_q8_dequantize_args args = {.scale = s->x.scale, .zero = s->x.zero + flip, .flip = flip};
    float values[4 * CHANNELS] = {0}, weights[4];
    uint8_t bytes[CHANNELS];
    for (size_t row = begin, run; row < end; row += run) {
        const size_t j = row % b->out, m = row / b->out % middle;
        const size_t k = row / b->out / middle % a->out, o = row / b->out / middle / a->out;
        run = b->out - j < end - row ? b->out - j : end - row;
        for (size_t c = 0; c < n; c += CHANNELS) {
            args.n = n - c < CHANNELS ? n - c : CHANNELS;
            for (size_t i = 0; i < run; i++) {
                const int32_t *const at = b->index + 2 * (j + i);
                const bool moved = i == 0 || at[0] != at[-2] || at[1] != at[-1];
                for (size_t t = 0; t < 4; t++) {
                    weights[t] = a->weight[2 * k + t / 2] * b->weight[2 * (j + i) + t % 2];
                    const size_t y = (o * a->in + (size_t)a->index[2 * k + t / 2]) * middle + m;
                    args.src = job->src + (y * b->in + (size_t)at[t % 2]) * n + c;
                    args.dst = values + t * CHANNELS;
                    if (moved && args.n >= CHANNELS / 2)
                        job->dequantize(&args);
                    for (size_t q = 0; moved && args.n < CHANNELS / 2 && q < args.n; q++)
                        args.dst[q] = (float)((args.src[q] ^ flip) - args.zero) * args.scale;
                }
                for (size_t q = 0; q < args.n; q += BLOCK)
                    sum_block(s, values + q, weights, bytes + q);
                memcpy(job->dst + (row + i) * n + c, bytes, args.n);
            }
        }
    }
}

void qn__resize_rows(void *arg, size_t begin, size_t end)
{
    const qn_resize_job *const job = arg;
    const qn_resize_pass *const p = job->pass;
    const size_t n = p->inner;
    for (size_t row = begin; row < end; row++) {
        const size_t k = row % p->out;
        const float *const src = job->src + row / p->out * p->in * n;
        float *restrict const dst = job->dst + row * n;
        const int32_t *const index = p->index + k * p->taps;
        const float *const w = p->weight + k * p->taps;
        const float *const a = src + (size_t)index[0] * n, *const b = src + (size_t)index[1] * n;
        if (p->taps == 2) {
            for (size_t i = 0; i < n; i++)
                dst[i] = a[i] * w[0] + b[i] * w[1];
            continue;
        }
        if (p->taps != 4) {
            memset(dst, 0, n * sizeof(float));
            for (size_t t = 0; t < p->taps; t++) {
                const float *const x = src + (size_t)index[t] * n;
                for (size_t i = 0; i < n; i++)
                    dst[i] += x[i] * w[t];
            }
            continue;
        }
        const float *const c = src + (size_t)index[2] * n, *const d = src + (size_t)index[3] * n;
        for (size_t i = 0; i < n; i++)
            dst[i] = a[i] * w[0] + b[i] * w[1] + c[i] * w[2] + d[i] * w[3];
    }
}
