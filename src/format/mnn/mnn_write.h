/* What the two halves of the writer share: mnn_write.c decides which operators stay and how they
 * are wired, mnn_write_ops.c changes their parameters. */
#ifndef QN_FORMAT_MNN_WRITE_H
#define QN_FORMAT_MNN_WRITE_H

#include "format/mnn/mnn_guard.h"
#include "format/mnn/mnn_format.h"

/* An operator of the file and what the graph made of it. */
typedef struct qn_mnn_written {
    qn_fb_object *object; /* the file's, or a changed copy */
    bool own;             /* object is a copy */
    bool dropped;         /* merged into another one */
    bool live;
    uint32_t n_nodes;     /* of the graph that come first of all from it */
    const qn_node *first; /* next_node[id] leads on */
} qn_mnn_written;

typedef struct qn_mnn_writer {
    const qn_graph *graph;
    qn_mnn_source *source;
    qn_fb_document doc;
    qn_mnn_written *ops;       /* [source->n_ops] */
    const qn_node **next_node; /* [graph->next_node_id] */
    int32_t *id_of;            /* [graph->n_tensors] MNN tensor of the same values, or -1 */
    qn_mnn_record *records;    /* [source->n_tensors] */
    uint8_t *in_graph;         /* [source->n_tensors] some tensor of the graph is it */
    bool changed;              /* anything differs from the file */
    qn_error *error;
} qn_mnn_writer;

/* The operator as a copy that may be changed; NULL: out of memory. */
qn_fb_object *qn__mnn_own_op(qn_mnn_writer *w, size_t op);
/* Node of the operator with that type, or NULL. */
const qn_node *qn__mnn_node_of(const qn_mnn_writer *w, size_t op, qn_op type);
/* Tensor id, or -1 when the operator has no such input or output. */
int64_t qn__mnn_op_input(const qn_mnn_writer *w, size_t op, size_t i);
int64_t qn__mnn_op_output(const qn_mnn_writer *w, size_t op, size_t i);
int64_t qn__mnn_written_type(const qn_mnn_writer *w, size_t op);
/* Notes how tensor `id` is quantized, from its type. */
qn_status qn__mnn_note(qn_mnn_writer *w, int64_t id, const qn_tensor *tensor);

/* --- mnn_write_same.c
 * ---------------------------------------------------------------------------*/
/* Does reading the file again give this graph? */
qn_status qn__mnn_is_unchanged(const qn_graph *graph, qn_mnn_source *source, bool *same,
                               qn_error *error);

/* --- mnn_write_records.c ----------------------------------------------------------------------*/
/* Where the graph has none of an operator's nodes, because they change nothing, what is known of
 * one side holds for the other. */
void qn__mnn_hand_records_on(qn_mnn_writer *w);
/* Keeps operators in float that MNN would run in int8 though they must not. */
void qn__mnn_guard_records(qn_mnn_writer *w);

/* --- mnn_write_ops.c --------------------------------------------------------------------------*/
static inline bool qn_mnn_is_quant(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_QUANT;
}
/* Weights and bias of a convolution, where they differ from the file's. */
qn_status qn__mnn_write_weights(qn_mnn_writer *w, size_t op, const qn_node *node);
/* Puts the node's activation into the operator: *done false when the operator cannot hold it. */
qn_status qn__mnn_write_act(qn_mnn_writer *w, size_t op, const qn_node *node, bool *done);
/* Eltwise of two inputs -> BinaryOp, which has an int8 form; what records make of a BinaryOp's
 * activation; tables of UnaryOp. */
qn_status qn__mnn_write_eltwise(qn_mnn_writer *w, size_t op);
qn_status qn__mnn_write_binary_act(qn_mnn_writer *w, size_t op);
qn_status qn__mnn_write_table(qn_mnn_writer *w, size_t op);
/* Takes what lies in the side file into the operator; convolutions have theirs already. */
qn_status qn__mnn_write_inside(qn_mnn_writer *w, size_t op);

#endif
