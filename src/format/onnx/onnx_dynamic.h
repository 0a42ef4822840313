/* Products whose activations are quantized at run time, in the form that ONNX has for them:
 * DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul [-> Add]. */
#ifndef QN_FORMAT_ONNX_DYNAMIC_H
#define QN_FORMAT_ONNX_DYNAMIC_H

#include "format/onnx/onnx_lower.h"

/* Reading: such chains become MatMul on a dynamic tensor, the bias its third input. Others stay. */
qn_status qn__onnx_collapse_dynamic(qn_onnx_reader *r, qn_error *error);
/* Writing: a QuantizeLinear to a dynamic tensor, and MatMul and Gemm of one. *done: it was that. */
qn_status qn__onnx_lower_dynamic(qn_lower *l, qn_node *node, bool *done, qn_error *error);

#endif
