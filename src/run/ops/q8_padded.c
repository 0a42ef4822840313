#include "run/ops/q8_padded.h"

#include <string.h>

/* Rows of one picture whose pixels are asked for at once: kernels for them cost something to call.
 */
enum { AT_ONCE = 32 };

typedef uint8_t vector __attribute__((vector_size(QN_Q8_VECTOR), aligned(1), may_alias));

/* n bytes, in whole vectors; mostly one. */
static inline __attribute__((always_inline)) void fill(uint8_t *to, const vector *v, size_t n)
{
    for (size_t i = 0; i < n; i += QN_Q8_VECTOR)
        *(vector *)(void *)(to + i) = *v;
}

void qn__q8_pad(const qn_q8_padded *p, uint8_t *to, size_t begin, size_t end, uint8_t zero,
                qn_q8_put_rows put, const void *ctx)
{
    const vector zeros = (vector){0} + zero;
    size_t image = begin / p->blocks, y = (begin - image * p->blocks) * p->rows;
    uint8_t *rows[AT_ONCE];
    for (; begin < end; image++, y = 0) {
        size_t first = y > p->top ? y - p->top : 0, n = 0;
        for (; y < p->all && begin < end; begin++, to += p->block) {
            uint8_t *row = to;
            for (size_t i = 0; i < p->rows && y < p->all; i++, y++, row += p->pitch) {
                uint8_t *const pixels = row + p->front;
                if (y - p->top >= p->h) {
                    fill(row, &zeros, p->pitch);
                    continue;
                }
                fill(pixels - p->before, &zeros, p->before);
                fill(pixels + p->row, &zeros, p->behind);
                rows[n++] = pixels;
                if (n == AT_ONCE) {
                    put(ctx, image * p->h + first, rows, n);
                    first += n;
                    n = 0;
                }
            }
        }
        if (n > 0)
            put(ctx, image * p->h + first, rows, n);
    }
}
