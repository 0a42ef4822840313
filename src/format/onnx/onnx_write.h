/* Steps of writing an ONNX file. All work on a private clone of the graph. */
#ifndef QN_FORMAT_ONNX_WRITE_H
#define QN_FORMAT_ONNX_WRITE_H

#include "format/onnx/onnx_format.h"
#include "format/onnx/onnx_out.h"
#include "format/onnx/onnx_read.h"

typedef struct qn_written_op { /* operator a node is written as, when not its own */
    const char *domain, *name;
} qn_written_op;

typedef struct qn_onnx_writer {
    qn_graph *graph;        /* the clone */
    qn_onnx_source *source; /* may be NULL */
    const qn_write_options *options;
    int64_t opset;
    bool microsoft;     /* an operator of com.microsoft is written */
    qn_written_op *ops; /* by node id */
    size_t n_ops;
    uint8_t *emitted; /* by tensor id: made by a node, an input or a constant that is written */
} qn_onnx_writer;

/* Expands activations and quantized types into nodes of the file. */
qn_status qn__onnx_lower(qn_onnx_writer *w, qn_error *error);
bool qn__onnx_set_written_op(qn_onnx_writer *w, const qn_node *node, const char *domain,
                             const char *name);

/* Messages (onnx_encode.c). */
qn_status qn__onnx_encode_node(const qn_onnx_writer *w, const qn_node *node, qn_onnx_out *out,
                               qn_error *error);
qn_status qn__onnx_encode_tensor(const char *name, qn_dtype dtype, size_t rank, const int64_t *dims,
                                 const qn_blob *blob, qn_onnx_out *out, qn_error *error);
qn_status qn__onnx_encode_value(const qn_onnx_writer *w, uint32_t field, const qn_tensor *tensor,
                                qn_onnx_out *out, qn_error *error);

#endif
