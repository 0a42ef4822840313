/* How an operator is added to the executor: one file in src/run/ops, one row in run/ops.def.
 *
 * Planning calls `prepare`, which reads attributes and constant inputs, chooses kernels, packs
 * weights (kept in the step, freed by `release`), states the layouts it wants and its scratch
 * bytes. Running calls `run` with views whose layouts are as asked. */
#ifndef QN_RUN_OP_H
#define QN_RUN_OP_H

#include "kernel/kernel.h"
#include "run/run.h"

#define QN_STEP_MAX_IO 64 /* inputs or outputs of one node */

typedef struct qn_step {
    const qn_node *node; /* of the bound graph: every shape static */
    const struct qn_run_op *impl;
    const qn_kernels *kernels;
    const char *kernel_name; /* for profiles; set by prepare */
    /* Layout of each input and output. Before prepare: the producers' layouts (inputs) and
     * ROW_MAJOR (outputs). prepare may ask for another input layout (a conversion is inserted) and
     * sets the outputs'. Constants are always row-major. */
    qn_layout in_layout[QN_STEP_MAX_IO], out_layout[QN_STEP_MAX_IO];
    size_t scratch_bytes; /* of the session during this step, 64-byte aligned */
    size_t packed_bytes;  /* of packed weights in state, for reports */
    size_t mapped_bytes;  /* of these, not ours but the model file's */
    const void *weights;  /* NULL, or packed_bytes that run reads as a stream: they may be on their
                             way from memory while the step before runs */
    int8_t inplace_input; /* output 0 may reuse this input's memory; -1 (default): none */
    bool alias;           /* output 0 is the bytes of input 0 as they are: run only copies, and is
                             left out where the planner lets both share memory */
    /* Output 0 is the inputs one after another along join_axis: bit i: input i as it is, and run
     * copies it only where it does not lie in its place already. */
    uint64_t joins;
    uint8_t join_axis;
    bool strides_output; /* run heeds the pitch of output 0 */
    bool makes_rows;     /* a QuantizeLinear that the step behind it can do (ops/q8_padded.h): */
    bool takes_rows;     /* it wants to */
    const struct qn_step *quantizer; /* and it has to: input 0 is that step's, which is skipped */
    bool resizes; /* output 0's shape is a bound: run says the true one (out_dims) */
    void *state;  /* operator's own, from qn__alloc; freed by release */
} qn_step;

typedef struct qn_run_env {
    const qn_plan *plan;
    qn_pool *pool; /* may be NULL */
    void *scratch;
    const qn_step *quantizer; /* the step's */
    const uint8_t *ahead;     /* NULL, or what a later step will read first: its packed weights */
    size_t ahead_bytes;
    /* Dims of each output as planned; a step that `resizes` lowers those of output 0 to what it
     * wrote, packed. */
    int64_t (*out_dims)[QN_MAX_RANK];
} qn_run_env;

typedef struct qn_run_op {
    qn_op op; /* QN_OP_NONE for an implementation that several rows of ops.def share */
    qn_status (*prepare)(const qn_plan *plan, qn_step *step, qn_error *error);
    qn_status (*run)(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error);
    void (*release)(const qn_context *ctx, qn_step *step); /* may be NULL */
} qn_run_op;
/* Rows of ops.def. QN_RUN_OP: plain tensors. QN_RUN_QOP: nodes whose inputs[0] has a QUANT type
 * (QuantizeLinear, DequantizeLinear and Requantize are QN_RUN_OP whatever they read). A plain
 * implementation never sees a QUANT activation. NULL: cannot be executed. */
const qn_run_op *qn__run_op_find(qn_op op);
const qn_run_op *qn__run_qop_find(qn_op op);
/* The simulation of a quantized Conv, ConvTranspose, Gemm or MatMul; NULL: the stand-alone runtime
 * has none. */
const qn_run_op *qn__run_simulated_find(qn_op op);

/* For operators with a state: makes step->state, so many bytes of zeros, and fills it; where that
 * fails, release frees what was made. */
qn_status qn__step_make_state(const qn_plan *plan, qn_step *step, size_t state_bytes,
                              qn_status (*fill)(const qn_plan *plan, qn_step *step, void *state,
                                                qn_error *error),
                              void (*release)(const qn_context *ctx, qn_step *step),
                              qn_error *error);
/* For operators: raise naming file and node. */
qn_status qn__step_fail(const qn_step *step, qn_error *error, qn_status status, const char *format,
                        ...) QN_PRINTF(4, 5);
const qn_plan_options *qn__plan_get_options(const qn_plan *plan);
/* DEFAULT (floats, half to even), or another kind. */
qn_requantize qn__plan_requantize(const qn_plan *plan);
const qn_context *qn__plan_context(const qn_plan *plan);
/* May the plan keep so many more bytes of packed weights (qn_plan_options.packed_limit)? */
bool qn__plan_may_pack(const qn_plan *plan, size_t bytes);
/* Memory for so many bytes of packed weights that lives as long as the plan, 64-byte aligned; NULL:
 * they need memory of their own. */
uint8_t *qn__plan_packed_room(const qn_plan *plan, size_t bytes);
/* Weights packed ahead of time, or NULL. */
const struct qn_packed_store *qn__plan_packed(const qn_plan *plan);

/* Input `input` of the node, or NULL when absent. */
const qn_tensor *qn__step_input(const qn_step *step, uint32_t input);
/* Static dims of a tensor of a planned step (planning has made sure they are static). */
void qn__tensor_dims(const qn_tensor *tensor, int64_t dims[QN_MAX_RANK]);
size_t qn__tensor_elements(const qn_tensor *tensor);
/* Real values of a constant input as new row-major float32 (qn__free): any plain dtype, and QUANT
 * dequantized. *out NULL when the input is absent; UNSUPPORTED naming the tensor when it is not
 * constant. count may be NULL. */
qn_status qn__step_const_f32(const qn_plan *plan, const qn_step *step, uint32_t input, float **out,
                             size_t *count, qn_error *error);
/* The same for integers (plain integer dtypes). */
qn_status qn__step_const_ints(const qn_plan *plan, const qn_step *step, uint32_t input,
                              int64_t **out, size_t *count, qn_error *error);
/* A list of integers given as constant input `input` or, in older models, as attribute `name`.
 * *out NULL when there is neither (qn__free). */
qn_status qn__step_ints_param(const qn_plan *plan, const qn_step *step, uint32_t input,
                              const char *name, int64_t **out, size_t *count, qn_error *error);
/* Bounds of node->act for float outputs (-INFINITY, INFINITY without one). */
qn_clamp_f32 qn__step_clamp(const qn_step *step);

#endif
