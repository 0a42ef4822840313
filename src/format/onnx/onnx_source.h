/* The source document of an ONNX file: known parts decoded, everything else as spans of the file.
 */
#ifndef QN_FORMAT_ONNX_SOURCE_H
#define QN_FORMAT_ONNX_SOURCE_H

#include "format/onnx/onnx_proto.h"
#include "format/onnx/onnx_wire.h"
#include "ir/graph.h"
#include "ir/names.h"

typedef struct qn_onnx_function {
    qn_span body;
    const char *name, *domain;
    int64_t opset; /* of ai.onnx, 0: not said */
    size_t n_inputs, n_outputs;
    const char **inputs, **outputs;
} qn_onnx_function;

typedef struct qn_onnx_node {
    qn_span body;
    qn_span rest;                        /* of body, from the first attribute or later field on */
    const char *name, *op_type, *domain; /* never NULL; domain "ai.onnx" is read as "" */
    uint32_t n_inputs, n_outputs;
    const char **inputs, **outputs; /* "" where absent */
    bool inlined;                   /* written out from a function or branch (onnx_inline.c) */
    bool whole;                     /* a call or an If that is not written out (onnx_partial.c) */
    const struct qn_onnx_node *origin; /* of what is inlined: the main graph's call or If */
    const struct qn_onnx_node *caller; /* whose attributes the function's refer to; or NULL */
    const qn_onnx_function *function;
    const struct qn_onnx_tensor *literal; /* a Constant made from a branch's initializer */
} qn_onnx_node;

/* A decoded TensorProto. */
typedef struct qn_onnx_tensor {
    const char *name;
    qn_span body;
    qn_dtype dtype;
    size_t rank;
    int64_t dims[QN_MAX_RANK];
    qn_blob *blob;    /* owned by the document */
    bool is_input;    /* listed as a graph input too */
    bool is_used;     /* something in the file reads it */
    bool is_external; /* data lie in another file */
} qn_onnx_tensor;

typedef struct qn_onnx_value {
    const char *name;
    qn_span body;
    qn_dtype dtype; /* NONE: absent, or not a tensor type */
    bool is_other;  /* sequence, map, optional... or an element type quench has not */
    bool has_shape;
    size_t rank;
    int64_t dims[QN_MAX_RANK]; /* -1: symbolic or unknown */
    const char *symbols[QN_MAX_RANK];
} qn_onnx_value;

typedef struct qn_onnx_file { /* external data, opened once */
    const char *path;
    qn_blob *blob;
} qn_onnx_file;

typedef struct qn_onnx_source {
    qn_source base;
    const qn_context *ctx;
    qn_arena arena;
    qn_blob *file;
    const char *path;
    qn_span model, graph;
    int64_t ir_version;
    int64_t opset;            /* of ai.onnx */
    qn_requantize requantize; /* of metadata_props */
    const char *graph_name;
    size_t n_nodes, n_initializers, n_inputs, n_outputs, n_values, n_functions;
    qn_onnx_node *nodes;
    qn_onnx_tensor *initializers;
    qn_onnx_value *inputs, *outputs;
    qn_onnx_function *functions;
    /* Constant nodes that became constants: by node index; blob NULL for other nodes. Tensors made
     * of them carry source = n_initializers + node index. */
    qn_onnx_tensor *constants;
    /* What is no part of the graph and stays bytes (onnx_partial.c): nodes, constants of types that
     * quench has not, and the names that only they make or read. */
    size_t n_aside, n_kept;
    qn_onnx_node *aside;
    qn_onnx_tensor *kept; /* without blobs */
    qn_name_table aside_names;
    size_t n_external, external_capacity;
    qn_onnx_file *external;
} qn_onnx_source;

/* Metadata property that says how sums are requantized; absent: floats. */
#define QN_ONNX_REQUANTIZE "quench.requantize"
/* Whether an entry of metadata_props is that one, and its value. */
qn_status qn__onnx_requantize_property(const qn_wire *w, const qn_field *field, bool *ours,
                                       qn_span *value, qn_error *error);

/* Decodes the document around the file's bytes. *out has one reference. partial: constants of types
 * that quench has not are kept as bytes. */
qn_status qn__onnx_source_read(const qn_context *ctx, const char *path, qn_blob *file, bool partial,
                               qn_onnx_source **out, qn_error *error);
/* Parts of a graph. */
qn_status qn__onnx_read_node(qn_onnx_source *source, const qn_wire *graph, const qn_field *field,
                             qn_onnx_node *out, qn_error *error);
qn_status qn__onnx_read_value(qn_onnx_source *source, const qn_wire *graph, const qn_field *field,
                              qn_onnx_value *out, qn_error *error);
/* Names are copied into arena. */
qn_status qn__onnx_read_tensor(qn_onnx_source *source, qn_arena *arena, qn_span body,
                               uint32_t depth, qn_onnx_tensor *out, qn_error *error);
/* Attribute of a NodeProto as the graph keeps it; tensors get an own reference. */
qn_status qn__onnx_read_attr(qn_onnx_source *source, qn_arena *arena, qn_span body, qn_attr *out,
                             qn_error *error);
/* Opens a data file named by the model. UNSAFE_PATH unless it lies inside the model's folder. The
 * blob is borrowed from the document. */
qn_status qn__onnx_open_external(qn_onnx_source *source, const char *location, qn_blob **out,
                                 qn_error *error);

/* The document of a graph that was read from ONNX, else NULL. */
qn_onnx_source *qn__onnx_source_of(const qn_graph *graph);

#endif
