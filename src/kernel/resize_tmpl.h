/* Resizing bytes, as loops that a compiler makes vectors of. The including file defines COLUMNS and
 * PIXELS (the functions) and may define WIDEN: the instruction for four bytes to a pixel. */
#include "kernel/kernel.h"

#include <string.h>

enum { HALF = 1 << (QN_RESIZE_BITS - 1), COLUMNS_AT_ONCE = 64 };
typedef int32_t pixel __attribute__((vector_size(16)));
typedef uint8_t pixel_bytes __attribute__((vector_size(4)));

static inline uint8_t clip8(int32_t sum)
{
    const int32_t v = sum >> QN_RESIZE_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static inline __attribute__((always_inline)) void
some_columns(const uint8_t *restrict rows, size_t stride, const int32_t *restrict weights,
             size_t taps, size_t n, uint8_t *restrict out)
{
    int32_t sums[COLUMNS_AT_ONCE];
    for (size_t i = 0; i < n; i++)
        sums[i] = HALF;
    for (size_t t = 0; t < taps; t++)
        for (size_t i = 0; i < n; i++)
            sums[i] += weights[t] * rows[t * stride + i];
    for (size_t i = 0; i < n; i++)
        out[i] = clip8(sums[i]);
}

void COLUMNS(const uint8_t *rows, size_t stride, const int32_t *weights, size_t taps, size_t n,
             uint8_t *out)
{
    size_t i = 0;
    for (; i + COLUMNS_AT_ONCE <= n; i += COLUMNS_AT_ONCE)
        some_columns(rows + i, stride, weights, taps, COLUMNS_AT_ONCE, out + i);
    some_columns(rows + i, stride, weights, taps, n - i, out + i);
}

/* A pixel and the byte behind it. */
static inline pixel load_pixel(const uint8_t *from)
{
#ifdef WIDEN
    int32_t bytes;
    memcpy(&bytes, from, sizeof(bytes));
    return WIDEN(bytes);
#else
    pixel_bytes bytes;
    memcpy(&bytes, from, sizeof(bytes));
    return __builtin_convertvector(bytes, pixel);
#endif
}

void PIXELS(const uint8_t *row, size_t width, const uint32_t *first, const size_t *offset,
            const int32_t *weights, size_t n, uint8_t *out)
{
    for (size_t x = 0; x < n; x++) {
        const size_t taps = offset[x + 1] - offset[x];
        const size_t inside = first[x] + taps < width ? taps : taps - 1;
        const uint8_t *from = row + (size_t)3 * first[x];
        const int32_t *w = weights + offset[x];
        pixel sum = {HALF, HALF, HALF, 0};
        for (size_t t = 0; t < inside; t++)
            sum += w[t] * load_pixel(from + 3 * t);
        if (inside < taps) /* nothing lies behind the row's last pixel */
            sum +=
                w[inside] * (pixel){from[3 * inside], from[3 * inside + 1], from[3 * inside + 2]};
        sum >>= QN_RESIZE_BITS;
        sum &= ~(sum >> 31);
        sum |= sum > 255; /* all ones: the byte is 255 */
        const pixel_bytes bytes = __builtin_convertvector(sum, pixel_bytes);
        if (x + 1 < n) /* the next pixel overwrites the fourth */
            memcpy(out + 3 * x, &bytes, 4);
        else
            memcpy(out + 3 * x, &bytes, 3);
    }
}
