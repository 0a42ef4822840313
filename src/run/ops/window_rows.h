/* Rows of windows for the indirect products of convolutions: pointers to the pixels under each tap,
 * whatever their elements are. */
#ifndef QN_RUN_OPS_WINDOW_ROWS_H
#define QN_RUN_OPS_WINDOW_ROWS_H

#include "run/ops/window.h"

/* Pointers to rows of whatever a kernel reads. */
typedef const uint8_t *qn_row __attribute__((may_alias));

/* Of which columns of outputs a tap lies between the left and the right edge. */
typedef struct qn_tap_span {
    size_t from, to;
} qn_tap_span;

typedef struct qn_window_rows {
    const qn_window *window;
    const qn_tap_span *spans; /* [kw] */
    const void *zeros;        /* what taps outside the input read */
    size_t pixel;             /* bytes */
} qn_window_rows;

void qn__tap_spans(const qn_window *window, qn_tap_span *spans);
/* kh * kw groups of mr_max pointers for outputs m0 .. m0 + mr of all pictures; entries from mr to
 * `end` repeat the last one. in: the first pixel, or a group's part of it. */
void qn__tap_rows(const qn_window_rows *rows, const void *in, size_t m0, size_t mr, size_t end,
                  size_t mr_max, qn_row *a);
/* n pointers `step` bytes apart. */
void qn__spaced_rows(qn_row *a, const void *first, size_t step, size_t n);
/* Of ks groups of mr_max pointers, the last one of the first mr again, up to `end`. */
void qn__repeat_last(qn_row *a, size_t ks, size_t mr, size_t end, size_t mr_max);

#endif
