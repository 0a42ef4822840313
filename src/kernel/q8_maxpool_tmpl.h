/* Largest bytes of a window. The including file defines MAXPOOL, the function, and VBYTES, the
 * bytes of a register. */
#include "kernel/kernel.h"

typedef uint8_t wide __attribute__((vector_size(VBYTES), aligned(1), may_alias));
typedef uint8_t narrow __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t least __attribute__((vector_size(8), aligned(1), may_alias));

/* Channels from c on, as many as vectors of this type hold entirely; c moves on. */
#define CHANNELS(V)                                                                                \
    for (; c + sizeof(V) <= args->channels; c += sizeof(V)) {                                      \
        const V flip = (V){0} + args->flip, lo = (V){0} + args->lo, hi = (V){0} + args->hi;        \
        V best = (V){0} + args->least;                                                             \
        for (size_t i = 0; i < args->rows; i++) {                                                  \
            const uint8_t *in = args->in + i * args->row + c;                                      \
            for (size_t j = 0; j < args->cols; j++, in += args->col) {                             \
                const V v = *(const V *)in ^ flip;                                                 \
                best = CHOOSE(V, v > best, v, best);                                               \
            }                                                                                      \
        }                                                                                          \
        best = CHOOSE(V, best > lo, best, lo);                                                     \
        best = CHOOSE(V, best < hi, best, hi);                                                     \
        *(V *)(args->out + c) = best ^ flip;                                                       \
    }
#define CHOOSE(V, mask, yes, no) (((yes) & (V)(mask)) | ((no) & ~(V)(mask)))

void MAXPOOL(const qn_q8_maxpool_args *args)
{
    size_t c = 0;
    CHANNELS(wide)
    CHANNELS(narrow)
    CHANNELS(least)
    for (; c < args->channels; c++) {
        uint8_t best = args->least;
        for (size_t i = 0; i < args->rows; i++) {
            for (size_t j = 0; j < args->cols; j++) {
                const uint8_t v = args->in[i * args->row + j * args->col + c] ^ args->flip;
                best = v > best ? v : best;
            }
        }
        best = best > args->lo ? best : args->lo;
        best = best < args->hi ? best : args->hi;
        args->out[c] = best ^ args->flip;
    }
}
