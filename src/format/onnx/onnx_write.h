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
    struct qn_onnx_beside *beside; /* NULL: all in one file */
} qn_onnx_writer;

/* Weights in a file beside the model (onnx_beside.c), as offsets into it. */
typedef struct qn_onnx_beside {
    const qn_context *ctx;
    const char *location; /* its name; in the clone's arena */
    uint64_t bytes;
    size_t n_blobs, capacity;
    const qn_blob **blobs; /* in order, each from a multiple of 64 bytes on; borrowed */
} qn_onnx_beside;

/* Do these contents go beside the model? */
bool qn__onnx_goes_beside(const qn_onnx_writer *w, const qn_blob *blob);
/* A TensorProto whose data lie there. */
qn_status qn__onnx_encode_beside(qn_onnx_writer *w, const char *name, qn_dtype dtype, size_t rank,
                                 const int64_t *dims, const qn_blob *blob, qn_onnx_out *out,
                                 qn_error *error);
/* Writes both files: old ones or new ones. */
qn_status qn__onnx_write_beside(const qn_onnx_writer *w, const char *path, const qn_onnx_out *model,
                                qn_error *error);
void qn__onnx_beside_free(qn_onnx_beside *beside);

/* Expands activations and quantized types into nodes of the file. */
qn_status qn__onnx_lower(qn_onnx_writer *w, qn_error *error);
bool qn__onnx_set_written_op(qn_onnx_writer *w, const qn_node *node, const char *domain,
                             const char *name);

/* Messages (onnx_encode.c). */
qn_status qn__onnx_encode_node(const qn_onnx_writer *w, const qn_node *node, qn_onnx_out *out,
                               qn_error *error);
/* All but the data. */
qn_status qn__onnx_encode_tensor_head(const char *name, qn_dtype dtype, size_t rank,
                                      const int64_t *dims, qn_onnx_out *out, qn_error *error);
qn_status qn__onnx_encode_tensor(const char *name, qn_dtype dtype, size_t rank, const int64_t *dims,
                                 const qn_blob *blob, qn_onnx_out *out, qn_error *error);
qn_status qn__onnx_encode_value(const qn_onnx_writer *w, uint32_t field, const qn_tensor *tensor,
                                qn_onnx_out *out, qn_error *error);

#endif
