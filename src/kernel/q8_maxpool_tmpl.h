/* Largest bytes of windows. The including file defines MAXPOOL, the function, VBYTES, the bytes of
 * a register, and may define MOST and LEAST for it: compilers make three instructions of a
 * comparison of vectors. */
#include "kernel/kernel.h"

typedef uint8_t wide __attribute__((vector_size(VBYTES), aligned(1), may_alias));
typedef uint8_t narrow __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t least __attribute__((vector_size(8), aligned(1), may_alias));

#define CHOOSE(V, mask, yes, no) (((yes) & (V)(mask)) | ((no) & ~(V)(mask)))
#define MOST_OF(V, a, b) CHOOSE(V, (a) > (b), a, b)
#define LEAST_OF(V, a, b) CHOOSE(V, (a) < (b), a, b)
#ifndef MOST
#define MOST(a, b) MOST_OF(wide, a, b)
#define LEAST(a, b) LEAST_OF(wide, a, b)
#endif
#define MOST_WIDE(V, a, b) ((V)MOST(a, b))
#define LEAST_WIDE(V, a, b) ((V)LEAST(a, b))

/* One vector of channels of all outputs. */
#define RUN(name, V, MOST_V, LEAST_V)                                                              \
    static inline __attribute__((always_inline)) void name(const qn_q8_maxpool_args *args,         \
                                                           size_t c, const size_t cols)            \
    {                                                                                              \
        const V flip = (V){0} + args->flip, lo = (V){0} + args->lo, hi = (V){0} + args->hi;        \
        const uint8_t *in = args->in + c;                                                          \
        uint8_t *out = args->out + c;                                                              \
        const size_t row = args->row, col = args->col;                                             \
        for (size_t x = 0; x < args->n; x++, in += args->step, out += args->channels) {            \
            V best = (V){0} + args->least;                                                         \
            const uint8_t *at = in;                                                                \
            for (size_t i = 0; i < args->rows; i++, at += row) {                                   \
                const uint8_t *tap = at;                                                           \
                for (size_t j = 0; j < cols; j++, tap += col) {                                    \
                    const V v = *(const V *)tap ^ flip;                                            \
                    best = MOST_V(V, v, best);                                                     \
                }                                                                                  \
            }                                                                                      \
            best = MOST_V(V, best, lo);                                                            \
            best = LEAST_V(V, best, hi);                                                           \
            *(V *)out = best ^ flip;                                                               \
        }                                                                                          \
    }
RUN(run_wide, wide, MOST_WIDE, LEAST_WIDE)
RUN(run_narrow, narrow, MOST_OF, LEAST_OF)
RUN(run_least, least, MOST_OF, LEAST_OF)

void MAXPOOL(const qn_q8_maxpool_args *args)
{
    size_t c = 0;
    for (; c + sizeof(wide) <= args->channels; c += sizeof(wide)) {
        if (args->cols == 3)
            run_wide(args, c, 3);
        else
            run_wide(args, c, args->cols);
    }
    for (; c + sizeof(narrow) <= args->channels; c += sizeof(narrow))
        run_narrow(args, c, args->cols);
    for (; c + sizeof(least) <= args->channels; c += sizeof(least))
        run_least(args, c, args->cols);
    for (; c < args->channels; c++) {
        for (size_t x = 0; x < args->n; x++) {
            uint8_t best = args->least;
            for (size_t i = 0; i < args->rows; i++) {
                for (size_t j = 0; j < args->cols; j++) {
                    const uint8_t v =
                        args->in[x * args->step + i * args->row + j * args->col + c] ^ args->flip;
                    best = v > best ? v : best;
                }
            }
            best = best > args->lo ? best : args->lo;
            best = best < args->hi ? best : args->hi;
            args->out[x * args->channels + c] = best ^ args->flip;
        }
    }
}
