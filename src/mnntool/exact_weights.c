#include "mnntool/exact_weights.h"

#include <math.h>
#include <stdbool.h>

enum { ITERATIONS = 1000 };
#define SMALL_SCALE 1e-6f
#define EPSILON 1e-9f

static float largest_of(const float *w, size_t n)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(w[i]));
    return largest;
}

static float clamped(float value, float low, float high)
{
    return fmaxf(low, fminf(high, value));
}

void qn__mnn_fake_quantize(float *w, size_t rows, size_t columns, int32_t clamp)
{
    const float limit = (float)clamp;
    for (size_t r = 0; r < rows; r++) {
        float *row = w + r * columns;
        const float largest = largest_of(row, columns);
        const float scale = largest < SMALL_SCALE ? largest : largest / limit;
        for (size_t i = 0; scale > 0 && i < columns; i++)
            row[i] = scale * clamped(roundf(row[i] / scale), -limit, limit);
    }
}

void qn__mnn_scales_max_abs(const float *w, size_t rows, size_t columns, int32_t clamp,
                            float *scales)
{
    for (size_t r = 0; r < rows; r++)
        scales[r] = largest_of(w + r * columns, columns) / (float)clamp;
}

/* One alternation; false: the scale is where it was. */
static bool alternate(const float *w, size_t n, float limit, float *scale)
{
    const float divisor = *scale + EPSILON;
    float wq = 0, qq = 0;
    for (size_t i = 0; i < n; i++) {
        const float q = clamped(roundf(w[i] / divisor), -limit, limit);
        wq += w[i] * q;
        qq += q * q;
    }
    const float next = wq / (qq + EPSILON);
    const bool moved = next != *scale;
    *scale = next;
    return moved;
}

float qn__mnn_scales_admm(const float *w, size_t rows, size_t columns, int32_t clamp, float *scales)
{
    const float limit = (float)clamp;
    float kept = 0, rounded = 0;
    for (size_t r = 0; r < rows; r++) {
        const float *row = w + r * columns;
        scales[r] = largest_of(row, columns) / (limit * 1.25f);
        for (int i = 0; i < ITERATIONS; i++)
            if (!alternate(row, columns, limit, &scales[r]))
                break;
        for (size_t i = 0; i < columns; i++) {
            const float q = clamped(roundf(row[i] / (scales[r] + EPSILON)), -limit, limit);
            kept += fabsf(row[i]);
            rounded += fabsf(q * scales[r]);
        }
    }
    return kept - rounded;
}

void qn__mnn_round_weights(const float *w, size_t rows, size_t columns, uint32_t bits,
                           const float *scales, int8_t *q)
{
    const float high = (float)((1 << (bits - 1)) - 1), low = -high - 1;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = r * columns; i < (r + 1) * columns; i++)
            q[i] =
                scales[r] > SMALL_SCALE ? (int8_t)clamped(roundf(w[i] / scales[r]), low, high) : 0;
}

void qn__mnn_fill_scales(float *scales, size_t rows)
{
    float largest = 0;
    for (size_t r = 0; r < rows; r++)
        largest = fmaxf(largest, scales[r]);
    for (size_t r = 0; r < rows; r++)
        if (!(scales[r] > 0))
            scales[r] = largest > 0 ? largest : 1.0f;
}
