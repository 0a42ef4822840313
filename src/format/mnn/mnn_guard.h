/* Records that keep MNN from running operators in int8.
 *
 * MNN 3.6.1 hands the record of a tensor over Raster (what moves become), ReLU and Pooling to the
 * side that has none, and runs these in int8 when both sides have equal parameters. Not all of its
 * int8 kernels may be used, what feeds nothing but outputs should keep the precision of float, and
 * a record must not limit what a float tensor holds. A record that differs in the last digit of the
 * scale prevents all of it: such an operator runs in float, and the levels of the tensors stay what
 * they are. */
#ifndef QN_FORMAT_MNN_GUARD_H
#define QN_FORMAT_MNN_GUARD_H

#include "core/context.h"

/* How a tensor of the file is quantized. */
typedef struct qn_mnn_record {
    bool known, conflict;
    float scale;
    int32_t zero, min, max;
} qn_mnn_record;

typedef enum qn_mnn_passing {
    QN_MNN_PASSES_NONE = 0,
    QN_MNN_PASSES_VALUES, /* the output is the input, in another order */
    QN_MNN_PASSES_RANGE   /* the output has a range of its own */
} qn_mnn_passing;

/* From a tensor with a record back to a float one. */
void qn__mnn_guard_backwards(qn_mnn_passing kind, qn_mnn_record *in, const qn_mnn_record *out);
/* From an input with a record on. exact: MNN's int8 form is right. */
void qn__mnn_guard_forwards(qn_mnn_passing kind, bool exact, const qn_mnn_record *in,
                            qn_mnn_record *out);

#endif
