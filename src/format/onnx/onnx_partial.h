/* A document of which only a part becomes a graph. */
#ifndef QN_FORMAT_ONNX_PARTIAL_H
#define QN_FORMAT_ONNX_PARTIAL_H

#include "format/onnx/onnx_read.h"

/* Moves nodes that cannot be run, and all that depends on them, from source->nodes to
 * source->aside; inputs and outputs become those of what is left. UNSUPPORTED: nothing is left. */
qn_status qn__onnx_set_aside(qn_onnx_source *source, qn_error *error);
/* May what was set aside stand beside this graph in a file of that opset? (onnx_aside.c) */
qn_status qn__onnx_check_aside(const qn_onnx_source *source, qn_graph *graph, int64_t opset,
                               qn_error *error);

/* Calls fn for each graph inside an attribute of a node. */
typedef qn_status (*qn_onnx_graph_fn)(void *arg, qn_wire *graph, qn_error *error);
qn_status qn__onnx_each_graph(const qn_wire *node, const qn_field *attribute, qn_onnx_graph_fn fn,
                              void *arg, qn_error *error);

#endif
