/* Products of float activations with weights in blocks, each with its own scale: com.microsoft's
 * MatMulNBits, or DequantizeLinear with a block_size in front of a MatMul. */
#ifndef QN_FORMAT_ONNX_BLOCKS_H
#define QN_FORMAT_ONNX_BLOCKS_H

#include "format/onnx/onnx_lower.h"

/* MatMulNBits becomes MatMul on weights [K, N] of 4 or 8 bits in blocks along K. */
qn_status qn__onnx_read_nbits(qn_onnx_reader *r, qn_node *node, qn_error *error);
/* Are these constant weights in blocks? */
bool qn__onnx_is_blocked(const qn_tensor *tensor);
/* Writes a MatMul or Gemm of such weights; *done: it was one. */
qn_status qn__onnx_lower_blocks(qn_lower *l, qn_node *node, bool *done, qn_error *error);

#endif
