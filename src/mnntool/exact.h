/* Exact mode: what MNN's tool sees of a network. MNN lowers reshapes, transposes, concatenations,
 * slices and paddings to "rasters": copies that read the tensors the values really come from, made
 * where an operator that computes (or the net's output) needs such a tensor. Between those, no
 * memory is ever written, and no statistics are taken. */
#ifndef QN_MNNTOOL_EXACT_H
#define QN_MNNTOOL_EXACT_H

#include "mnntool/operators.h"

/* One MNN tensor. */
typedef struct qn_mnn_seen {
    uint32_t graph_id;  /* in run->graph; UINT32_MAX: no float32 tensor there */
    uint64_t positions; /* width * height as MNN counts them, 1 for missing dimensions */
    const char *label;  /* "309 output_tensor_0": who met it first; NULL: no statistics */
    bool raster_input;  /* met first as the input of a raster: not in the debug table */
} qn_mnn_seen;

typedef struct qn_mnn_raster {
    const char *name; /* "309_raster_0" */
    uint32_t output;  /* MNN tensor ids */
    size_t n_inputs;
    const uint32_t *inputs;
} qn_mnn_raster;

typedef struct qn_mnn_trace {
    qn_arena arena;
    size_t n_tensors;
    qn_mnn_seen *tensors;
    size_t n_rasters;
    qn_mnn_raster *rasters; /* by name */
} qn_mnn_trace;

/* exact_trace.c: runs the network once on labels instead of values. */
qn_status qn__mnn_trace_create(const qn_mnn_run *run, qn_mnn_trace *out, qn_error *error);
void qn__mnn_trace_free(qn_mnn_trace *trace);

#endif
