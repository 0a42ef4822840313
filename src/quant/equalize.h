/* What equalize.c follows and equalize_choose.c weighs. */
#ifndef QN_QUANT_EQUALIZE_H
#define QN_QUANT_EQUALIZE_H

#include "quant/quant.h"

enum { QN_EQ_FOREIGN = -1, QN_EQ_SINKS = 32, QN_EQ_MAKERS = 8, QN_EQ_TENSORS = 16 };

/* What one equalized tensor flows into. channel[i]: which channel of the first tensor channel i of
 * the one being looked at is, or QN_EQ_FOREIGN: another tensor's, behind a Concat. */
typedef struct qn_eq_end {
    qn_node *node;          /* Conv that reads it, or makes it */
    const int32_t *channel; /* [its input channels, or its output channels] */
} qn_eq_end;

typedef struct qn_eq_flow {
    qn_graph *graph;
    const qn_uses *uses;
    size_t channels;
    size_t n_sinks, n_makers, n_tensors;
    qn_eq_end sinks[QN_EQ_SINKS];
    qn_eq_end makers[QN_EQ_MAKERS];    /* the first tensor's, then those of what is added to it */
    qn_tensor *tensors[QN_EQ_TENSORS]; /* scaled: the first, then what Mul and pools make of it */
    const int32_t *channel[QN_EQ_TENSORS];
    size_t n_between; /* tensors inside shuffles: scaled too, 5-D */
    qn_tensor *between[2 * QN_EQ_TENSORS];
} qn_eq_flow;

/* Channels of a 4-D tensor. */
bool qn__eq_channels(const qn_tensor *t, size_t *out);
/* Are two maps alike, with no foreign channel? */
bool qn__eq_same(const int32_t *a, const int32_t *b, size_t channels);
/* Where is t among the flow's tensors? n_tensors: nowhere. */
size_t qn__eq_find(const qn_eq_flow *flow, const qn_tensor *t);
/* Input channel of weight i of a Conv: i runs over [O][I/group][kh][kw]. */
size_t qn__eq_input_channel(const qn_weight_view *view, size_t group, size_t i);

/* Exponents e [channels] from the peaks of the channels, by tensor id < n_peaks; false: nothing to
 * scale (or out of memory, which the graph's arena remembers). */
bool qn__eq_choose(const qn_eq_flow *flow, float *const *peaks, size_t n_peaks, int32_t *e);

#endif
