/* ONNX as a model format. */
#ifndef QN_FORMAT_ONNX_FORMAT_H
#define QN_FORMAT_ONNX_FORMAT_H

#include "format/format.h"

extern const qn_format qn__format_onnx;

/* ai.onnx version of the file the graph was read from, 0 when it was not an ONNX file. */
int64_t qn__onnx_opset_of(const qn_graph *graph);
/* ai.onnx version that writing the graph now would use. */
int64_t qn__onnx_opset_written(const qn_graph *graph, const qn_write_options *options);

#endif
