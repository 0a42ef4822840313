/* Quantized convolution in real integers: the same three ways as float convolution (conv.c), on
 * bytes as they lie. Padding is read from a row of zero points. */
#ifndef QN_RUN_OPS_Q8_CONV_H
#define QN_RUN_OPS_Q8_CONV_H

#include "run/ops/q8_depthwise.h"
#include "run/ops/q8_padded.h"
#include "run/ops/q8_run.h"
#include "run/ops/window_rows.h"

typedef enum qn_q8_way { QN_Q8_DEPTHWISE, QN_Q8_ROWS, QN_Q8_TAPS } qn_q8_way;

/* A band of the copy lies where sums would (qn_q8_held), and leaves room for weights in the first
 * level; so many bytes of weights are read again for each. */
enum { QN_Q8_BAND_BYTES = 24 << 10, QN_Q8_BAND_WEIGHTS = 32 << 10 };
_Static_assert(QN_Q8_BAND_BYTES <= QN_Q8_SUMS * sizeof(int32_t), "no room for a band");

/* Tails of three rows of a window are put together, QN_Q8_JOINED bytes at a time, which hold a
 * whole number of windows. */
enum { QN_Q8_TAIL_ROWS = 3 };

typedef struct qn_q8_conv {
    qn_q8_way way;
    qn_window window; /* the node's */
    qn_window inner;  /* what the GEMM sees: QN_Q8_ROWS works on a padded buffer; kc is then a whole
                         number of the kernel's groups of k, and weights of what lies behind a
                         window are zeros */
    size_t cin;       /* channels of one group */
    /* QN_Q8_ROWS: neighbouring outputs that are one of so many times the channels, because a panel
     * of weights is at most half full: weights are repeated where the next window lies. */
    size_t fold;
    /* QN_Q8_ROWS, where kernels have tables of distances: a window is one tap, whose groups of k
     * are read where they lie in the copy. Of `tail` bytes of each of three rows that are more than
     * whole groups a copy is made that puts those of a window together; 0: what is left of a row is
     * a group, and its other weights are zeros. */
    bool spread;
    size_t tail;
    ptrdiff_t tails[QN_Q8_TAIL_ROWS]; /* from a window to those of each row, less where they go */
    uint8_t masks[QN_Q8_TAIL_ROWS][QN_Q8_JOINED];
    qn_q8_padded copy;
    size_t band;          /* not 0: the copy is made for so many rows of outputs at a time */
    size_t more;          /* blocks that they read beyond theirs */
    uint8_t flip;         /* of the copy's bytes */
    float *scale;         /* [fold * oc] or NULL; bias and fixed behind it */
    int32_t *bias;        /* or NULL */
    qn_multiplier *fixed; /* or NULL */
    bool direct;          /* output pixel i reads input pixel i */
    qn_q8_packed packed;
    ptrdiff_t *taps;    /* offsets of taps from a window's first element, where there are more */
    qn_tap_span *spans; /* [inner.kw] */
    uint8_t *zeros;     /* [kc] zero points */
    uint8_t zero;       /* their byte */
    qn_q8_depthwise depthwise;
    /* Parts of the scratch: offsets in bytes. */
    size_t padded_at, rows_at;
    bool has_rows;
} qn_q8_conv;

/* The numbers of the columns of the product. */
static inline qn_requant qn_q8_conv_columns(const qn_q8_conv *s, const qn_requant *requant)
{
    qn_requant out = *requant;
    if (s->fold > 1) {
        out.scale = s->scale;
        out.bias = s->bias;
        out.fixed = s->fixed;
    }
    return out;
}

/* Looks for weights that the model file has packed already, in so many parts; false: weights have
 * to be packed. Begins `out` either way, again where it was begun before. salt: as qn__q8_look_up
 * has it. */
bool qn__q8_conv_find(const qn_plan *plan, const qn_step *step, const qn_window *window,
                      size_t groups, const qn_qparams *x, const qn_requant *requant, size_t parts,
                      uint64_t salt, qn_q8_conv *out);
/* After that, with the parts that the weights have. Sets layouts, scratch, packed bytes and kernel
 * name of the step. requant stays borrowed. */
qn_status qn__q8_conv_prepare(const qn_plan *plan, qn_step *step, const qn_qparams *x,
                              const qn_qweights *weights, const qn_requant *requant,
                              qn_q8_conv *out, qn_error *error);
void qn__q8_conv_run(const qn_q8_conv *conv, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, const qn_requant *requant);
void qn__q8_conv_free(const qn_context *ctx, qn_q8_conv *conv);

#endif
