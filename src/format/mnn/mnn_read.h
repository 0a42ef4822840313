/* Lowering of .mnn operators to graph nodes. One function per OpType (mnn_ops.def), each in the
 * mnn_read_*.c of its family; they stand on the builders below.
 *
 * Every integer tensor of MNN is int64 in the graph, as ONNX's shape arithmetic wants it; what a
 * comparison makes is BOOL. A lowering function makes nodes, whose shapes are inferred at once, and
 * ends with qn__mnn_put for each output of the operator. */
#ifndef QN_FORMAT_MNN_READ_H
#define QN_FORMAT_MNN_READ_H

#include "format/mnn/mnn_format.h"

/* What is known of an MNN tensor. */
typedef struct qn_mnn_value {
    qn_tensor *tensor; /* NULL: nothing made it yet */
    int64_t format;    /* QN_MNN_MNN_DATA_FORMAT_*: what its axes are */
} qn_mnn_value;

typedef struct qn_mnn_reader {
    qn_mnn_source *source;
    const qn_fb_document *doc;
    qn_graph *graph;
    qn_mnn_value *values; /* [source->n_tensors] */
    uint8_t *marks;       /* [source->n_tensors] who uses it, see mnn_read.c */
    /* The operator being lowered. */
    size_t index;
    const qn_fb_object *op, *main; /* main NULL: it has no parameters */
    int64_t type;                  /* OpType */
    const char *name;              /* of the operator, or made from type and index */
    size_t n_in, n_out;
    bool named;     /* a node took the operator's own name */
    uint64_t spent; /* bytes of constants that were looked at or made */
} qn_mnn_reader;

typedef qn_status (*qn_mnn_lower_fn)(qn_mnn_reader *r, qn_error *error);

/* "operator "NAME" TYPE: ..." */
qn_status qn__mnn_fail(const qn_mnn_reader *r, qn_error *error, qn_status status,
                       const char *format, ...) QN_PRINTF(4, 5);
/* Puts the same in front of a message that is there already. */
qn_status qn__mnn_under(const qn_mnn_reader *r, qn_error *error, qn_status status);

/* --- the operator -----------------------------------------------------------------------------*/
/* Parameters of this record, else CORRUPT. */
qn_status qn__mnn_need_main(const qn_mnn_reader *r, int32_t record, qn_error *error);
qn_status qn__mnn_need_inputs(const qn_mnn_reader *r, size_t least, size_t most, qn_error *error);
static inline int64_t qn_mnn_int(const qn_mnn_reader *r, uint32_t slot)
{
    return qn__fb_int(r->doc, r->main, slot);
}
static inline float qn_mnn_real(const qn_mnn_reader *r, uint32_t slot)
{
    return (float)qn__fb_real(r->doc, r->main, slot);
}
/* Elements of an integer vector of the parameters, at most `most`. */
qn_status qn__mnn_ints(const qn_mnn_reader *r, uint32_t slot, int64_t *out, size_t most,
                       size_t *count, qn_error *error);
int64_t qn__mnn_in_id(const qn_mnn_reader *r, size_t i);
qn_tensor *qn__mnn_in(const qn_mnn_reader *r, size_t i); /* NULL beyond n_in */
int64_t qn__mnn_in_format(const qn_mnn_reader *r, size_t i);
static inline bool qn_mnn_is_nhwc(int64_t format)
{
    return format == QN_MNN_MNN_DATA_FORMAT_NHWC || format == QN_MNN_MNN_DATA_FORMAT_NHWC4;
}
/* The rank must be known: CORRUPT or UNSUPPORTED otherwise. */
qn_status qn__mnn_need_rank(const qn_mnn_reader *r, const qn_tensor *tensor, size_t least,
                            size_t most, qn_error *error);
/* Values of constant integer input i, at most `most`; UNSUPPORTED when it is not constant. */
qn_status qn__mnn_const_input(const qn_mnn_reader *r, size_t i, int64_t *out, size_t most,
                              size_t *count, qn_error *error);
/* axis counted from the end when negative; 0 .. rank-1 afterwards. */
qn_status qn__mnn_axis(const qn_mnn_reader *r, int64_t *axis, size_t rank, qn_error *error);

/* --- constants. NULL: out of memory -----------------------------------------------------------*/
qn_tensor *qn__mnn_ints_constant(qn_mnn_reader *r, const char *what, const int64_t *values,
                                 size_t count);
qn_tensor *qn__mnn_int_constant(qn_mnn_reader *r, const char *what, int64_t value); /* rank 0 */
qn_tensor *qn__mnn_float_constant(qn_mnn_reader *r, const char *what, float value); /* rank 0 */
qn_tensor *qn__mnn_floats_constant(qn_mnn_reader *r, const char *what, const float *values,
                                   size_t rank, const int64_t *dims);
/* A float vector of the file, which is not copied. CORRUPT when it has not the right number. */
qn_status qn__mnn_vector_constant(qn_mnn_reader *r, const qn_fb_object *object, uint32_t slot,
                                  const char *what, size_t rank, const int64_t *dims,
                                  qn_tensor **out, qn_error *error);

/* --- nodes ------------------------------------------------------------------------------------*/
/* A new node with one new output; inputs may be NULL (absent). Attributes are set before
 * qn__mnn_infer is called on it. NULL: out of memory. */
qn_node *qn__mnn_node(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, size_t n_inputs);
qn_node *qn__mnn_node_outputs(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, size_t n_inputs,
                              size_t n_outputs);
/* The same for nodes that only carry values to and from the operator's own node. */
qn_node *qn__mnn_side_node(qn_mnn_reader *r, qn_op op, qn_tensor *const *inputs, size_t n_inputs);
qn_status qn__mnn_infer(qn_mnn_reader *r, qn_node *node, qn_error *error);
/* Node without attributes, inferred. */
qn_status qn__mnn_op1(qn_mnn_reader *r, qn_op op, qn_tensor *a, qn_tensor **out, qn_error *error);
qn_status qn__mnn_op2(qn_mnn_reader *r, qn_op op, qn_tensor *a, qn_tensor *b, qn_tensor **out,
                      qn_error *error);
qn_status qn__mnn_op3(qn_mnn_reader *r, qn_op op, qn_tensor *a, qn_tensor *b, qn_tensor *c,
                      qn_tensor **out, qn_error *error);
qn_status qn__mnn_transpose(qn_mnn_reader *r, qn_tensor *x, const int64_t *perm, size_t rank,
                            qn_tensor **out, qn_error *error);
qn_status qn__mnn_reshape(qn_mnn_reader *r, qn_tensor *x, const int64_t *dims, size_t rank,
                          qn_tensor **out, qn_error *error);
qn_status qn__mnn_cast(qn_mnn_reader *r, qn_tensor *x, qn_dtype to, qn_tensor **out,
                       qn_error *error);
qn_status qn__mnn_clip(qn_mnn_reader *r, qn_tensor *x, float low, float high, qn_tensor **out,
                       qn_error *error);
/* One element range of an axis. */
qn_status qn__mnn_slice(qn_mnn_reader *r, qn_tensor *x, int64_t axis, int64_t begin, int64_t end,
                        qn_tensor **out, qn_error *error);
/* x with its channels at axis 1, whatever the format of input i; and back again. */
qn_status qn__mnn_to_nchw(qn_mnn_reader *r, qn_tensor *x, int64_t format, qn_tensor **out,
                          qn_error *error);
qn_status qn__mnn_from_nchw(qn_mnn_reader *r, qn_tensor *x, int64_t format, qn_tensor **out,
                            qn_error *error);
/* Input 0 as N, C, H, W, and back. The current converter leaves the width out where operators over
 * one axis allow it: N, C, H. */
qn_status qn__mnn_to_plane(qn_mnn_reader *r, qn_tensor **out, qn_error *error);
qn_status qn__mnn_from_plane(qn_mnn_reader *r, qn_tensor *x, qn_tensor **out, qn_error *error);

/* tensor is output `i` of the operator: it gets the name and id of the file. A tensor that is
 * something else already comes through an Identity. */
qn_status qn__mnn_put(qn_mnn_reader *r, size_t i, qn_tensor *tensor, int64_t format,
                      qn_error *error);
/* Output 0 in the format of input 0. */
qn_status qn__mnn_put_like(qn_mnn_reader *r, qn_tensor *tensor, qn_error *error);

/* --- mnn_weights.c ----------------------------------------------------------------------------*/
/* Operators of a file may share one vector. What all of them together make of it is bounded by a
 * multiple of the bytes that are there: LIMIT. */
qn_status qn__mnn_spend(qn_mnn_reader *r, size_t bytes, qn_error *error);
/* Blob -> constant */
qn_status qn__mnn_blob(qn_mnn_reader *r, const qn_fb_object *blob, const char *name,
                       qn_tensor **out, qn_error *error);
/* The graph's type for an MNN DataType; NONE: there is none. */
qn_dtype qn__mnn_dtype(int64_t data_type);
/* Float weights of the operator as a constant of these dims. dims[*open] (when open >= 0) is found
 * from their number. */
qn_status qn__mnn_weights(qn_mnn_reader *r, size_t rows, size_t rank, int64_t *dims, int open,
                          qn_tensor **out, qn_error *error);
/* Bias, [rows]; *out NULL when there is none. */
qn_status qn__mnn_bias(qn_mnn_reader *r, size_t rows, qn_tensor **out, qn_error *error);

/* --- mnn_read_int8.c: weights and bias of symmetricQuan as floats that are whole numbers, and the
 * result of a product with them brought to the output's levels -------------------------------*/
qn_status qn__mnn_integer_weights(qn_mnn_reader *r, const qn_fb_object *quan, const int64_t *dims,
                                  qn_tensor **weight, qn_tensor **bias, qn_error *error);
qn_status qn__mnn_scaled_levels(qn_mnn_reader *r, const qn_fb_object *quan, qn_tensor *x,
                                bool positive, qn_tensor **out, qn_error *error);

/* The row of mnn_ops.def; NULL: not supported. */
qn_mnn_lower_fn qn__mnn_lower_of(int64_t type);

#define QN_MNN_OP(type, function) qn_status function(qn_mnn_reader *r, qn_error *error);
#include "format/mnn/mnn_ops.def"
#undef QN_MNN_OP

#endif
