/* Reductions: the axes of a node. */
#ifndef QN_RUN_OPS_REDUCE_H
#define QN_RUN_OPS_REDUCE_H

#include "run/op.h"

/* A bit for each axis of the input that goes away. */
qn_status qn__reduced_axes(const qn_plan *plan, const qn_step *step, size_t rank, uint32_t *mask,
                           qn_error *error);

/* Any axes, bytes too. */
extern const qn_run_op qn__op_reduce;

#endif
