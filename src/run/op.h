/* How an operator is added to the executor: one file in src/run/ops, one row in run/ops.def.
 *
 * Planning calls `prepare`, which reads attributes and constant inputs, chooses kernels, packs
 * weights (kept in the step, freed by `release`), states the layouts it wants and its scratch bytes.
 * Running calls `run` with views whose layouts are as asked. */
#ifndef QN_RUN_OP_H
#define QN_RUN_OP_H

#include "kernel/kernel.h"
#include "run/run.h"

#define QN_STEP_MAX_IO 64 /* inputs or outputs of one node */

typedef struct qn_step {
    const qn_node *node;     /* of the bound graph: every shape static */
    const struct qn_run_op *impl;
    const qn_kernels *kernels;
    const char *kernel_name; /* for profiles; set by prepare */
    /* Layout of each input and output. Before prepare: the producers' layouts (inputs) and
     * ROW_MAJOR (outputs). prepare may ask for another input layout (a conversion is inserted) and
     * sets the outputs'. Constants are always row-major. */
    qn_layout in_layout[QN_STEP_MAX_IO], out_layout[QN_STEP_MAX_IO];
    size_t scratch_bytes;    /* of the session, 64-byte aligned, shared by all steps */
    int8_t inplace_input;    /* output 0 may reuse this input's memory; -1: none */
    void *state;             /* operator's own, from qn__alloc; freed by release */
} qn_step;

typedef struct qn_run_env {
    const qn_plan *plan;
    qn_pool *pool; /* may be NULL */
    void *scratch;
} qn_run_env;

typedef struct qn_run_op {
    qn_op op;
    qn_status (*prepare)(const qn_plan *plan, qn_step *step, qn_error *error);
    qn_status (*run)(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error);
    void (*release)(const qn_context *ctx, qn_step *step); /* may be NULL */
} qn_run_op;
const qn_run_op *qn__run_op_find(qn_op op); /* NULL: cannot be executed */

/* For operators: raise naming file and node. */
qn_status qn__step_fail(const qn_step *step, qn_error *error, qn_status status, const char *format,
                        ...) QN_PRINTF(4, 5);
const qn_plan_options *qn__plan_get_options(const qn_plan *plan);
const qn_context *qn__plan_context(const qn_plan *plan);

#endif
