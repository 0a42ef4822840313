/* Facts about quantized types that reader and writer of ONNX share. */
#ifndef QN_FORMAT_ONNX_QTYPES_H
#define QN_FORMAT_ONNX_QTYPES_H

#include "ir/graph.h"

/* Same scales, zero points, axis, block and storage. */
bool qn__onnx_same_quant(qn_type a, qn_type b);
/* Does the node only move or choose elements, so that it runs on integers as it is? */
bool qn__onnx_is_mover(const qn_node *node);
/* Does it so here? Some do that the runtimes have no integer version of. */
bool qn__onnx_keeps_bytes(const qn_node *node);
/* Is it a Resize that is linear along at most two axes, which runs on integers too? */
bool qn__onnx_is_bilinear(qn_graph *graph, const qn_node *node);
/* A linear Resize of the integers themselves, as ONNX has it. */
bool qn__onnx_truncates(const qn_node *node);
/* Is quantizing an output with `type` all that the activation would do? */
bool qn__onnx_act_implied(qn_act act, float lo, float hi, qn_type type);
/* Does the int32 bias's scale equal s_x * s_w, in float32, for every channel? */
bool qn__onnx_bias_fits(qn_type bias, qn_type x, qn_type w);

#endif
