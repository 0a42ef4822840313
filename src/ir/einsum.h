/* An Einsum equation over given shapes. */
#ifndef QN_IR_EINSUM_H
#define QN_IR_EINSUM_H

#include "ir/graph.h"

enum { QN_EINSUM_INPUTS = 8, QN_EINSUM_LABELS = 52 + QN_MAX_RANK };

/* Every letter, and every axis of "...", is a label with one size. Labels [0, n_out) are the
 * output's axes in order; the others are summed over. */
typedef struct qn_einsum {
    size_t n_inputs, n_labels, n_out;
    int64_t dims[QN_EINSUM_LABELS];
    int64_t strides[QN_EINSUM_INPUTS][QN_EINSUM_LABELS]; /* elements; 0: does not have the label */
} qn_einsum;

/* False, with a reason, when the equation or a shape is wrong. All shapes are static. */
bool qn__einsum_read(qn_einsum *e, const char *equation, const qn_tensor *const *inputs,
                     size_t n_inputs, const char **reason);

#endif
