/* Mean (in fixed point) and largest magnitude of every channel of a view. */
#include "calib/calib.h"
#include "kernel/kernel.h"
#include "run/run.h"

#include <math.h>

enum {
    BLOCK = 64,       /* rows added in float32 before they go to double */
    MANY_BLOCKS = 16, /* more than that: every fourth stands for all */
    SKIPPED_BLOCKS = 4
};

size_t qn__view_channels(const qn_view *view)
{
    return view->rank >= 2 ? (size_t)view->dims[1] : 1;
}

static void add_row_major(const float *x, size_t outer, size_t channels, size_t inner, double *sums)
{
    for (size_t n = 0; n < outer; n++)
        for (size_t c = 0; c < channels; c++, x += inner) {
            double sum = 0;
            for (size_t i = 0; i < inner; i++)
                sum += x[i];
            sums[c] += sum;
        }
}

/* Returns the number of rows added. */
static size_t add_channels_last(const qn_context *ctx, const float *values, size_t rows,
                                size_t channels, double *sums)
{
    qn_kernels kernels;
    qn__kernels_init(&kernels, ctx->cpu_flags);

    const size_t step = rows > MANY_BLOCKS * BLOCK ? SKIPPED_BLOCKS * BLOCK : BLOCK;
    size_t added = 0;
    for (size_t row = 0; row < rows; row += step) {
        const size_t n = rows - row < BLOCK ? rows - row : BLOCK;
        kernels.f32_sums.fn(values + row * channels, n, channels, sums);
        added += n;
    }
    return added;
}

static void add_peaks(const qn_view *view, size_t channels, size_t inner, float *peaks)
{
    const float *x = view->data;
    if (view->layout == QN_LAYOUT_CHANNELS_LAST) {
        for (size_t i = 0; i < view->count; i += channels)
            for (size_t c = 0; c < channels; c++)
                peaks[c] = fabsf(x[i + c]) > peaks[c] ? fabsf(x[i + c]) : peaks[c];
        return;
    }
    for (size_t i = 0; i < view->count; i += inner) {
        float peak = 0;
        for (size_t j = 0; j < inner; j++)
            peak = fabsf(x[i + j]) > peak ? fabsf(x[i + j]) : peak;
        const size_t c = i / inner % channels;
        peaks[c] = peak > peaks[c] ? peak : peaks[c];
    }
}

qn_status qn__add_channel_means(const qn_context *ctx, const qn_view *view, qn_fixed *sums,
                                float *peaks, qn_error *error)
{
    const size_t channels = qn__view_channels(view);
    if (view->count == 0 || channels == 0)
        return QN_OK;
    double *sample = qn__calloc(ctx, channels, sizeof(*sample));
    if (sample == NULL)
        return QN_NOMEM(error);
    const size_t per_channel = view->count / channels;
    const size_t outer = view->rank >= 2 ? (size_t)view->dims[0] : 1;
    size_t added = per_channel;
    if (view->layout == QN_LAYOUT_CHANNELS_LAST)
        added = add_channels_last(ctx, view->data, per_channel, channels, sample);
    else
        add_row_major(view->data, outer, channels, per_channel / outer, sample);
    if (peaks != NULL)
        add_peaks(view, channels, per_channel / outer, peaks);
    for (size_t c = 0; c < channels; c++) {
        const double mean = sample[c] / (double)added;
        /* keeps the product inside int64; no network that can be quantized gets there */
        if (fabs(mean) < 1e9)
            sums[c] += (qn_fixed)llrint(mean * QN_FIXED_ONE);
    }
    qn__free(ctx, sample);
    return QN_OK;
}
