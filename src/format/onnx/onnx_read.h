/* Steps of reading an ONNX graph. */
#ifndef QN_FORMAT_ONNX_READ_H
#define QN_FORMAT_ONNX_READ_H

#include "format/onnx/onnx_source.h"

typedef enum qn_qop {
    QN_QOP_NONE = 0,
#define QN_QOP(id, domain, name, op) QN_QOP_##id,
#include "format/onnx/onnx_qops.def"
#undef QN_QOP
    QN_QOP_COUNT
} qn_qop;
typedef struct qn_qop_info {
    const char *domain, *name;
    qn_op op;
} qn_qop_info;
const qn_qop_info *qn__qop_info(qn_qop qop);

typedef struct qn_onnx_reader {
    qn_graph *graph;
    qn_onnx_source *source;
    uint8_t *qops; /* qn_qop by id of the nodes read from the file */
    size_t n_qops;
    bool typed_back; /* some tensors got their type from who reads them */
} qn_onnx_reader;

/* Raise with the node's name and the operator as the file calls it. */
qn_status qn__onnx_node_fail(const qn_onnx_reader *r, const qn_node *node, qn_error *error,
                             qn_status status, const char *format, ...) QN_PRINTF(5, 6);

/* Raises nodes of older opsets to the newest meaning (onnx_upgrade.def). */
qn_status qn__onnx_upgrade(qn_onnx_reader *r, qn_error *error);
/* One node of an opset below 7, whose inputs are inferred (onnx_upgrade_old.c). */
qn_status qn__onnx_upgrade_old(qn_onnx_reader *r, qn_node *node, qn_error *error);
/* The steps that need shapes. *changed: infer again. */
qn_status qn__onnx_upgrade_shaped(qn_onnx_reader *r, bool *changed, qn_error *error);
/* DequantizeLinear with scales that are no constants, once shapes are known. *changed as above,
 * else left as it is. */
qn_status qn__onnx_lower_made_scales(qn_onnx_reader *r, bool *changed, qn_error *error);
/* Lowers nodes to what opset `target` can say. */
qn_status qn__onnx_downgrade(qn_graph *graph, int64_t target, qn_error *error);

qn_status qn__onnx_read(const qn_context *ctx, const char *path, qn_blob *file, qn_graph **out,
                        qn_error *error);
/* What cannot be run is set aside (onnx_partial.c). */
qn_status qn__onnx_read_partial(const qn_context *ctx, const char *path, qn_blob *file,
                                qn_graph **out, qn_error *error);
/* The graph's operator for a node of the file; *qop for operators on integers. */
qn_op qn__onnx_find_op(const qn_onnx_node *node, int64_t opset, qn_qop *qop);

/* Writes out operators of onnxruntime that several of ONNX's say as well. */
qn_status qn__onnx_expand(qn_onnx_reader *r, qn_error *error);
/* Puts a node with one output at *at, which moves on behind it: in front of ours, and called after
 * it. Inputs end with the last one that is there; Cast is to float32. NULL: no memory. */
enum { QN_ONNX_PUT = 4 };
qn_tensor *qn__onnx_put(qn_graph *graph, size_t *at, const qn_node *ours, qn_op op,
                        const char *what, qn_dtype dtype, qn_tensor *const inputs[QN_ONNX_PUT]);
/* Turns QuantizeLinear, DequantizeLinear and integer operators into types. */
qn_status qn__onnx_read_types(qn_onnx_reader *r, qn_error *error);

/* Small edits the steps share. */
bool qn__onnx_set_input(qn_graph *graph, qn_node *node, uint32_t index, qn_tensor *tensor);
qn_tensor *qn__onnx_const_ints(qn_graph *graph, const char *name, const int64_t *values,
                               size_t count);
qn_tensor *qn__onnx_const_float(qn_graph *graph, const char *name, float value);

#endif
