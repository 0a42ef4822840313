/* Exact mode: what MNN's tool sees of a network. MNN lowers reshapes, transposes, concatenations,
 * slices and paddings to "rasters": copies that read the tensors the values really come from, made
 * where an operator that computes (or the net's output) needs such a tensor. Between those, no
 * memory is ever written, and no statistics are taken. */
#ifndef QN_MNNTOOL_EXACT_H
#define QN_MNNTOOL_EXACT_H

#include "mnntool/tool.h"

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

/* Operators: type, name ("" when it has none), tensor ids; -1 where there is none. */
int64_t qn__mnn_op_type(const qn_mnn_source *source, size_t op);
const char *qn__mnn_op_title(const qn_mnn_source *source, size_t op);
size_t qn__mnn_op_count(const qn_mnn_source *source, size_t op, bool outputs);
int64_t qn__mnn_op_tensor(const qn_mnn_source *source, size_t op, bool outputs, size_t index);
/* Is the operator named in skip_quant_op_names? */
bool qn__mnn_op_skipped(const qn_mnn_run *run, size_t op);

#endif
