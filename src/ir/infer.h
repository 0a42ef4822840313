/* What a shape inference function sees of its node. One function per operator family, in
 * src/ir/infer_*.c, named in ops.def. */
#ifndef QN_IR_INFER_H
#define QN_IR_INFER_H

#include "ir/graph.h"

typedef struct qn_infer {
    qn_graph *graph;
    qn_node *node;
} qn_infer;

/* The function of an operator; NULL: not an operator. */
typedef qn_status (*qn_infer_fn)(qn_infer *in, qn_error *error);
qn_infer_fn qn__infer_find(qn_op op);

/* Raise with file, node name and op in front of the message. */
qn_status qn__infer_fail(const qn_infer *in, qn_error *error, qn_status status, const char *format,
                         ...) QN_PRINTF(4, 5);

#define QN_OP(id, domain, name, infer, flags) qn_status infer(qn_infer *in, qn_error *error);
#include "ir/ops.def"
#undef QN_OP

#endif
