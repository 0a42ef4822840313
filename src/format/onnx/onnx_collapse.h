/* Q/DQ pairs around float operators become operators on quantized tensors. */
#ifndef QN_FORMAT_ONNX_COLLAPSE_H
#define QN_FORMAT_ONNX_COLLAPSE_H

#include "format/onnx/onnx_read.h"

/* Quantize- and DequantizeLinear nodes already have their parameters in types. What pairs up the
 * way runtimes fuse it is collapsed; everything else stays a node. */
qn_status qn__onnx_collapse(qn_onnx_reader *r, qn_error *error);

#endif
