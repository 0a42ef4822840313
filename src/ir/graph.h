/* The graph every format is read into and written from. Operators have ONNX semantics (newest
 * opset's meaning of inputs and attributes; NCHW axes, explicit pads: auto_pad is resolved or kept
 * only while the input's shape is unknown).
 *
 * Structure lives in one arena and is freed with the graph; constant data are shared blobs. A graph
 * belongs to one thread while it is changed; unchanged it may be read by many.
 */
#ifndef QN_IR_GRAPH_H
#define QN_IR_GRAPH_H

#include "ir/type.h"

typedef enum qn_op {
    QN_OP_NONE = 0,
#define QN_OP(id, domain, name, infer, flags) QN_OP_##id,
#include "ir/ops.def"
#undef QN_OP
    QN_OP_COUNT
} qn_op;

typedef enum qn_attr_kind {
    QN_ATTR_FLOAT = 1,
    QN_ATTR_INT = 2,
    QN_ATTR_STRING = 3,
    QN_ATTR_TENSOR = 4, /* t, t_dtype, t_dims, t_rank */
    QN_ATTR_FLOATS = 6,
    QN_ATTR_INTS = 7,
    QN_ATTR_STRINGS = 8,
    QN_ATTR_OPAQUE = 99 /* kept by the source document only (graphs, sparse tensors, unknown) */
} qn_attr_kind;

typedef struct qn_attr {
    const char *name;
    qn_attr_kind kind;
    float f;
    int64_t i;
    const char *s; /* NUL-terminated copy */
    size_t count;  /* of floats, ints, strings */
    const float *floats;
    const int64_t *ints;
    const char *const *strings;
    qn_blob *t;
    qn_dtype t_dtype;
    uint8_t t_rank;
    const int64_t *t_dims;
} qn_attr;

typedef struct qn_tensor {
    uint32_t id;      /* index in graph->tensors */
    const char *name; /* unique in the graph, never empty */
    qn_type type;
    bool has_shape; /* rank and dims are valid */
    uint8_t rank;
    qn_dim dims[QN_MAX_RANK];
    qn_blob *constant;        /* row-major data in the storage dtype, or NULL */
    struct qn_node *producer; /* kept by the functions below; NULL: input or constant */
    uint32_t producer_output;
    /* Symbolic value of a small integer tensor (shape arithmetic), filled by shape inference. */
    const qn_dim *value_dims;
    uint32_t n_value_dims; /* rank 0: 1 */
    int32_t source;        /* format's own index of this tensor's initializer, -1: made by us */
} qn_tensor;

/* Activation fused into its producer (pass/fuse_act.c). Applied to outputs[0]. */
typedef enum qn_act { QN_ACT_NONE = 0, QN_ACT_RELU = 1, QN_ACT_CLIP = 2 } qn_act;

typedef struct qn_node {
    uint32_t id;      /* unique and stable within the graph; not the position */
    const char *name; /* unique, never empty: made from op and output when the file has none */
    qn_op op;
    uint32_t n_inputs, n_outputs;
    qn_tensor **inputs;  /* NULL entries: absent optional inputs */
    qn_tensor **outputs; /* NULL entries: outputs nobody wants */
    uint32_t n_attrs;
    qn_attr *attrs;
    qn_act act;
    float act_lo, act_hi; /* CLIP: bounds; -INFINITY / INFINITY when one-sided */
    const char *act_name; /* name of the node that was fused, for writers and reports */
    /* Source document nodes this node came from; sources[0] is the main one; act_source the fused
     * activation's or -1. Empty: made by us. */
    uint32_t n_sources;
    const uint32_t *sources;
    int32_t act_source;
} qn_node;

/* What a reader keeps of the file; writers of the same format cast it back. */
typedef struct qn_source {
    const char *format; /* "onnx" */
    const struct qn_source_vtable {
        void (*destroy)(struct qn_source *source);
        /* Whether a node is one of the file's operators on integers although its tensors are
         * floats that hold them: written as it is, whatever is decided. NULL: none. */
        bool (*in_integers)(const struct qn_source *source, const struct qn_node *node);
    } * vtable;
    _Atomic uint32_t refs;
    uint64_t data_bytes;                  /* of files beside the document */
    size_t n_aside;                       /* nodes of the document that are no part of the graph */
    const char *first_aside;              /* the first of them, for messages */
    const struct qn_packed_store *packed; /* weights packed ahead (ir/packed.h), or NULL */
} qn_source;
qn_source *qn__source_ref(qn_source *source);
void qn__source_unref(qn_source *source);

typedef struct qn_graph {
    const qn_context *ctx;
    qn_arena arena;
    const char *name;
    const char *file; /* path it was read from, for messages; may be NULL */
    int64_t opset;    /* ai.onnx version whose meaning the nodes have now */
    size_t n_inputs, n_outputs;
    qn_tensor **inputs; /* run-time inputs only, initializers excluded */
    qn_tensor **outputs;
    size_t n_tensors, tensors_capacity;
    qn_tensor **tensors; /* by id; never NULL */
    size_t n_nodes, nodes_capacity;
    qn_node **nodes; /* topological order */
    uint32_t next_node_id;
    qn_requantize requantize;  /* how integer sums become steps of an output; DEFAULT: floats */
    qn_source *source;         /* may be NULL */
    struct qn_name_map *names; /* private: tensor and node names */
} qn_graph;

qn_status qn__graph_create(const qn_context *ctx, qn_graph **out, qn_error *error);
void qn__graph_destroy(qn_graph *graph); /* NULL accepted */
/* Same structure in a new arena over the same blobs and source; ids and order are equal. */
qn_status qn__graph_clone(const qn_graph *graph, qn_graph **out, qn_error *error);

/* --- building. All strings are copied into the arena. --------------------------------------- */
/* New tensor; name NULL or taken: made unique by appending "_1", "_2"... NULL when out of memory.
 */
qn_tensor *qn__graph_add_tensor(qn_graph *graph, const char *name, qn_type type);
/* Tensor of the shape of another, called NAME_SUFFIX after it. NULL when out of memory. */
qn_tensor *qn__graph_add_twin(qn_graph *graph, const qn_tensor *of, const char *suffix,
                              qn_type type);
/* Constant; takes its own reference on blob. */
qn_tensor *qn__graph_add_constant(qn_graph *graph, const char *name, qn_type type, size_t rank,
                                  const int64_t *dims, qn_blob *blob);
void qn__tensor_set_shape(qn_tensor *tensor, size_t rank, const int64_t *dims);
void qn__tensor_set_constant(qn_tensor *tensor, qn_blob *blob); /* own reference; NULL clears */
qn_tensor *qn__graph_find_tensor(const qn_graph *graph, const char *name);
qn_node *qn__graph_find_node(const qn_graph *graph, const char *name);
const char *qn__graph_intern(qn_graph *graph, const char *text);
/* New node appended at position `at` (SIZE_MAX: the end) with NULL inputs and outputs. */
qn_node *qn__graph_add_node(qn_graph *graph, size_t at, qn_op op, const char *name,
                            uint32_t n_inputs, uint32_t n_outputs);
/* New node of one input and one output, called NAME_OP after a tensor. NULL when out of memory. */
qn_node *qn__graph_add_between(qn_graph *graph, size_t at, qn_op op, qn_tensor *from, qn_tensor *to,
                               const qn_tensor *named_for);
void qn__node_set_output(qn_node *node, uint32_t index, qn_tensor *tensor); /* sets producer */
/* Takes node out of graph->nodes; its outputs lose their producer. */
void qn__graph_remove_node(qn_graph *graph, qn_node *node);
/* The same for every node whose marks[node->id] is not 0 ([next_node_id] bytes), in one walk. */
void qn__graph_remove_marked(qn_graph *graph, const uint8_t *marks);
/* Every consumer of `from` (nodes' inputs and graph outputs) reads `to`. */
void qn__graph_replace_uses(qn_graph *graph, qn_tensor *from, qn_tensor *to);
bool qn__node_add_sources(qn_graph *graph, qn_node *node, const qn_node *from);
/* Deterministic topological sort of graph->nodes; CORRUPT naming a node on a cycle. */
qn_status qn__graph_sort(qn_graph *graph, qn_error *error);
/* All invariants (names unique, producers right, indices in range, shapes against blobs' bytes,
 * quantization parameters finite and of the right number, order topological). Run after every
 * reader and pass. Message names node and tensor. */
qn_status qn__graph_verify(const qn_graph *graph, qn_error *error);

/* NULL: the node has no such input. */
static inline qn_tensor *qn_node_input(const qn_node *node, uint32_t index)
{
    return index < node->n_inputs ? node->inputs[index] : NULL;
}

/* Readers of each tensor: users[offsets[id] .. offsets[id+1]) are the nodes that read tensor id (a
 * node appears once per input slot). Freed with qn__uses_free. */
typedef struct qn_uses {
    const qn_context *ctx;
    size_t *offsets; /* [n_tensors + 1] */
    qn_node **users;
    uint8_t *is_output; /* [n_tensors] graph output */
    size_t n_tensors;   /* when it was built */
} qn_uses;
qn_status qn__uses_build(const qn_graph *graph, qn_uses *out, qn_error *error);
void qn__uses_free(qn_uses *uses);
static inline size_t qn_uses_count(const qn_uses *uses, const qn_tensor *t)
{
    return uses->offsets[t->id + 1] - uses->offsets[t->id];
}
/* The only reader of a tensor that is no output of the graph; NULL: there are others, or none. */
static inline qn_node *qn_uses_only(const qn_uses *uses, const qn_tensor *t)
{
    return qn_uses_count(uses, t) == 1 && !uses->is_output[t->id]
               ? uses->users[uses->offsets[t->id]]
               : NULL;
}

/* --- attributes -------------------------------------------------------------------------------*/
const qn_attr *qn__node_attr(const qn_node *node, const char *name);
int64_t qn__attr_int(const qn_node *node, const char *name, int64_t fallback);
float qn__attr_float(const qn_node *node, const char *name, float fallback);
const char *qn__attr_string(const qn_node *node, const char *name, const char *fallback);
/* *count 0 and NULL when absent. */
const int64_t *qn__attr_ints(const qn_node *node, const char *name, size_t *count);
/* Adds or replaces; false when out of memory. */
bool qn__node_set_int(qn_graph *graph, qn_node *node, const char *name, int64_t value);
bool qn__node_set_float(qn_graph *graph, qn_node *node, const char *name, float value);
bool qn__node_set_string(qn_graph *graph, qn_node *node, const char *name, const char *value);
bool qn__node_set_ints(qn_graph *graph, qn_node *node, const char *name, const int64_t *values,
                       size_t count);
/* Takes its own reference on blob. */
bool qn__node_set_tensor(qn_graph *graph, qn_node *node, const char *name, qn_blob *blob,
                         qn_dtype dtype, size_t rank, const int64_t *dims);
void qn__node_remove_attr(qn_node *node, const char *name);
/* Copies all attributes of `from` that `node` lacks. */
bool qn__node_copy_attrs(qn_graph *graph, qn_node *node, const qn_node *from);
/* The graph takes over a reference and drops it when it is destroyed. */
bool qn__graph_retire_blob(qn_graph *graph, qn_blob *blob);

/* --- operators --------------------------------------------------------------------------------*/
enum {
    QN_OPF_SHAPE = 1u << 0, /* cheap integer/shape arithmetic: fold whenever inputs are known */
    QN_OPF_SAME_VALUES =
        1u << 1,              /* moves or selects values without changing them: reshape, maxpool */
    QN_OPF_SEVERAL = 1u << 2, /* may have more than one output */
    QN_OPF_BY_ELEMENT = 1u << 3 /* an element of the output is made of one of each input */
};
const char *qn__op_name(qn_op op);   /* never NULL */
const char *qn__op_domain(qn_op op); /* "" = ai.onnx */
uint32_t qn__op_flags(qn_op op);
qn_op qn__op_find(const char *domain, const char *name); /* QN_OP_NONE: unknown */

enum { QN_REQUANTIZE_COUNT = QN_REQUANTIZE_SHIFT + 1 };
const char *qn__requantize_name(qn_requantize kind); /* as --requantize has it; DEFAULT: float */

/* --- shapes and constants ---------------------------------------------------------------------*/
/* Fills types and shapes of every tensor from the inputs' (ir/infer.c); constants known to it are
 * used (Reshape's shape...). Leaves has_shape false where nothing is known. */
qn_status qn__graph_infer(qn_graph *graph, qn_error *error);
/* One node, whose inputs are done. What its outputs' shapes were before is forgotten. */
qn_status qn__node_infer(qn_graph *graph, qn_node *node, qn_error *error);

/* All dims constant? Then copied to out[rank]. */
bool qn__tensor_static_dims(const qn_tensor *tensor, int64_t *out);
bool qn__tensor_count(const qn_tensor *tensor, size_t *out); /* elements; false: not static */

/* Constant tensor contents as int64 / float arrays allocated in the graph's arena. NULL when the
 * tensor is not constant, not of that class, or memory is out. */
const int64_t *qn__tensor_ints(qn_graph *graph, const qn_tensor *tensor, size_t *count);
const float *qn__tensor_floats(qn_graph *graph, const qn_tensor *tensor, size_t *count);
/* The same without a copy where the constant's own bytes are float32 and aligned; else *own is the
 * copy, freed by the caller with qn__free. For weights, which may be most of the memory there is.
 */
const float *qn__tensor_floats_lent(const qn_context *ctx, const qn_tensor *tensor, size_t *count,
                                    float **own);

/* New immutable quantization parameters in the graph's arena (arrays copied). */
const qn_quant *qn__graph_quant(qn_graph *graph, const qn_quant *values);
/* Bytes with a scale made at run time: one and a zero point, or by rows one each. quant NULL: no
 * memory. */
qn_type qn__graph_dynamic_type(qn_graph *graph, bool by_rows);
qn_type qn_type_plain_make(qn_dtype dtype);
qn_type qn_type_quant_make(qn_dtype storage, const qn_quant *quant);

/* Multiply-accumulates of a Conv/ConvTranspose/Gemm/MatMul with static shapes, 0 otherwise. */
uint64_t qn__node_macs(const qn_node *node);

/* Human-readable dump, one line per node. */
struct qn_strbuf;
void qn__graph_dump(const qn_graph *graph, struct qn_strbuf *out);

#endif
