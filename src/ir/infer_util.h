/* Helpers shared by the shape inference functions. Nothing here trusts the node: inputs may be
 * missing, shapes unknown, numbers absurd. */
#ifndef QN_IR_INFER_UTIL_H
#define QN_IR_INFER_UTIL_H

#include "core/context.h"
#include "ir/infer.h"

/* Values of shape arithmetic longer than this are not followed. */
#define QN_MAX_VALUES 4096

/* Input or output, NULL when absent. */
static inline qn_tensor *qn_infer_in(const qn_infer *in, uint32_t index)
{
    return index < in->node->n_inputs ? in->node->inputs[index] : NULL;
}
static inline qn_tensor *qn_infer_out(const qn_infer *in, uint32_t index)
{
    return index < in->node->n_outputs ? in->node->outputs[index] : NULL;
}
static inline bool qn_has_shape(const qn_tensor *tensor)
{
    return tensor != NULL && tensor->has_shape;
}

#define QN_INFER_CHECK(in, error, cond, ...)                                                       \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return qn__infer_fail((in), (error), QN_CORRUPT, __VA_ARGS__);                         \
    } while (0)

/* Input `index` must be there. */
qn_status qn__infer_need(const qn_infer *in, uint32_t index, qn_error *error);
/* Storage type of an output unless it is quantized already. `like` decides: a plain input gives its
 * dtype, a quantized one leaves what the output has (float32 when nothing). */
void qn__infer_dtype(const qn_infer *in, uint32_t output, qn_dtype dtype);
void qn__infer_dtype_like(const qn_infer *in, uint32_t output, const qn_tensor *like);
/* As above for operators that only move values: a quantized input passes its type on when the
 * output has none. */
void qn__infer_type_moved(const qn_infer *in, uint32_t output, const qn_tensor *like);
/* Sets rank and dims; CORRUPT / LIMIT when the elements cannot be counted or are too many. */
qn_status qn__infer_shape_set(const qn_infer *in, uint32_t output, size_t rank, const qn_dim *dims,
                              qn_error *error);
/* Negative axes count from the end; *axis becomes 0..rank-1 (rank itself when `end_ok`). */
qn_status qn__infer_axis(const qn_infer *in, int64_t *axis, size_t rank, bool end_ok,
                         qn_error *error);

/* Value of a small integer tensor (or one of floats that are whole numbers); false: not known at
 * all. Single elements may be DATA. */
bool qn__infer_values(const qn_infer *in, const qn_tensor *tensor, const qn_dim **values,
                      size_t *count);
/* The same where every element is a constant. */
bool qn__infer_ints(const qn_infer *in, const qn_tensor *tensor, const int64_t **values,
                    size_t *count);
/* Integers from attribute `name` or, when that is absent, input `index`. *known: false when the
 * input is there but not constant; *count 0 when neither is there. */
qn_status qn__infer_list(const qn_infer *in, const char *name, uint32_t index,
                         const int64_t **values, size_t *count, bool *known, qn_error *error);
qn_status qn__infer_values_set(const qn_infer *in, uint32_t output, const qn_dim *values,
                               size_t count, qn_error *error);

/* Arithmetic; DATA where the result is not a constant or a multiple of one symbol. */
qn_dim qn__dim_add(qn_dim a, qn_dim b);
qn_dim qn__dim_sub(qn_dim a, qn_dim b);
qn_dim qn__dim_mul(qn_dim a, qn_dim b);
qn_dim qn__dim_div(qn_dim a, qn_dim b, bool exact);
/* Size of the broadcast of two dimensions; false: they contradict each other. */
bool qn__dim_broadcast(qn_dim *out, qn_dim a, qn_dim b);
static inline bool qn_dim_is(qn_dim dim, int64_t value)
{
    return dim.kind == QN_DIM_CONST && dim.value == value;
}
/* Shape of the broadcast of n tensors into dims[QN_MAX_RANK]; *known false when a shape is not. */
qn_status qn__infer_broadcast_shape(const qn_infer *in, const qn_tensor *const *tensors, size_t n,
                                    qn_dim *dims, size_t *rank, bool *known, qn_error *error);

#endif
