/* What is inside a model and a session of the stand-alone runtime. */
#ifndef QN_RT_RT_H
#define QN_RT_RT_H

#include "core/context.h"
#include "quench/runtime.h"
#include "run/run.h"

struct qn_rt_model {
    qn_context ctx; /* without threads */
    qn_graph *graph;
    qn_plan *plan;
    size_t self_bytes; /* of a session before its executor's memory, a multiple of 64 */
    size_t arena_bytes;
};

/* Fills in self_bytes and arena_bytes (session.c). LIMIT on overflow. */
qn_status qn__rt_session_layout(qn_rt_model *model, qn_error *error);

#endif
