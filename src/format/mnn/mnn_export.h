/* Inside of the MNN exporter (mnn_export*.c): a graph of ONNX operators becomes operators of a new
 * .mnn document. One function per family of operators; mnn_export.def says which.
 *
 * Layouts. Convolutions, poolings and their like read and write NC4HW4, everything the format does
 * not tie to it NCHW; operators that work element by element follow their inputs. Each tensor has
 * an MNN tensor id per layout it exists in; a ConvertTensor is written where a layout is asked for
 * that does not exist yet, once. The contents of the .mnn tensor have the graph's axes in both.
 *
 * Errors of allocation are remembered in the document's arena and asked for once, at the end:
 * objects that cannot be made are replaced by a scratch one, so callers need no checks. */
#ifndef QN_FORMAT_MNN_EXPORT_H
#define QN_FORMAT_MNN_EXPORT_H

#include "core/context.h"
#include "format/mnn/mnn_format.h"

typedef enum qn_mnx_layout { QN_MNX_PLANAR = 0, QN_MNX_PACKED = 1 } qn_mnx_layout;

/* What a graph tensor is in the document. */
typedef struct qn_mnx_value {
    int32_t ids[2];          /* by layout, -1: not there */
    const char *output_name; /* name its planar form must have, or NULL */
    bool has_quant;
    qn_mnn_tensor_quant quant; /* index is not used */
} qn_mnx_value;

typedef struct qn_mnx_exporter qn_mnx_exporter;
typedef struct qn_mnx_export_row {
    qn_status (*function)(qn_mnx_exporter *x, const qn_node *node, int32_t argument,
                          qn_error *error);
    int32_t argument; /* of the function: MNN's name of the operation */
} qn_mnx_export_row;

struct qn_mnx_exporter {
    qn_graph *graph;          /* a copy: shapes fixed, float graphs simplified */
    const qn_graph *symbolic; /* the caller's graph: tells which sizes are free */
    qn_fb_document *doc;
    size_t n_values;
    qn_mnx_value **values; /* [n_values] by tensor id; tensors of equal contents share one */
    size_t n_ids, ids_capacity;
    const char **names;             /* [n_ids] */
    const qn_mnx_value **described; /* [n_ids] value whose quantization the tensor has, or NULL */
    size_t n_ops, ops_capacity;
    qn_fb_object **ops;
    qn_fb_object scratch; /* stands for objects that could not be allocated */
    qn_fb_value scratch_values[64];
    /* activation still to be written after the operator in work */
    bool pending;
    int32_t pending_from, pending_to;
};

/* --- tensors (mnn_export.c) --------------------------------------------------------------------*/
qn_mnx_value *qn__mnx_value(qn_mnx_exporter *x, const qn_tensor *tensor);
/* Id of a tensor in a layout; constants become Const operators (always planar). */
qn_status qn__mnx_get(qn_mnx_exporter *x, const qn_tensor *tensor, qn_mnx_layout layout,
                      int32_t *id, qn_error *error);
/* New id for output `index` of a node in a layout. The last one asked for a graph output is the one
 * that carries its name. An activation of the node that the operator does not do itself (`fused`
 * false) is written by the driver. */
int32_t qn__mnx_put(qn_mnx_exporter *x, const qn_node *node, uint32_t index, qn_mnx_layout layout,
                    bool fused);
/* A tensor between two operators of one node, quantized as `like` (may be NULL). */
int32_t qn__mnx_between(qn_mnx_exporter *x, const qn_node *node, const char *suffix,
                        const qn_tensor *like);
/* Layout for an operator that takes either: packed when every input of rank `rank` exists packed,
 * or one does and rank is 4. */
qn_mnx_layout qn__mnx_layout(qn_mnx_exporter *x, const qn_node *node, bool constants_too);
/* Const of int32 values; rank 0 when scalar. */
int32_t qn__mnx_ints(qn_mnx_exporter *x, const qn_node *node, const char *suffix,
                     const int64_t *values, size_t count, bool scalar);
int32_t qn__mnx_scalar(qn_mnx_exporter *x, const qn_node *node, const char *suffix, float value);
/* Constant input as floats or ints; UNSUPPORTED when it is not constant. */
qn_status qn__mnx_constant_floats(qn_mnx_exporter *x, const qn_node *node, uint32_t index,
                                  const float **values, size_t *count, qn_error *error);
qn_status qn__mnx_constant_ints(qn_mnx_exporter *x, const qn_node *node, uint32_t index,
                                const int64_t **values, size_t *count, qn_error *error);
bool qn__mnx_is_quant(const qn_tensor *tensor);

/* A copy with every size known: symbols of first dimensions are 1 (mnn_export_prepare.c). */
qn_status qn__mnx_prepare(const qn_graph *graph, const qn_write_options *how, qn_graph **out,
                          qn_error *error);
/* Net.extraTensorDescribe of all tensors that have a quantization (mnn_export_quant.c). */
qn_status qn__mnx_export_quants(qn_mnx_exporter *x, qn_error *error);

/* tableInt8 of a UnaryOp between two quantized tensors. */
void qn__mnx_table(qn_mnx_exporter *x, qn_fb_object *unary, const qn_mnn_tensor_quant *in,
                   const qn_mnn_tensor_quant *out, double (*function)(double));

/* --- operators (mnn_export.c) ------------------------------------------------------------------*/
/* New operator; returns its parameter table (record, -1: none). name NULL: the output's. */
qn_fb_object *qn__mnx_op(qn_mnx_exporter *x, const char *name, int32_t type, int32_t record,
                         const int32_t *inputs, size_t n_inputs, const int32_t *outputs,
                         size_t n_outputs);
qn_fb_object *qn__mnx_new(qn_mnx_exporter *x, int32_t record);
void qn__mnx_set_floats(qn_mnx_exporter *x, qn_fb_object *object, uint32_t slot,
                        const float *values, size_t count);
void qn__mnx_set_ints(qn_mnx_exporter *x, qn_fb_object *object, uint32_t slot,
                      const int64_t *values, size_t count); /* as int32, saturated */
/* Reshape of id into dims; free (an index, or -1) is the dimension that follows from the rest. */
void qn__mnx_reshape(qn_mnx_exporter *x, const qn_node *node, const char *suffix, int32_t from,
                     int32_t to, const int64_t *dims, size_t rank, int free_dim);
void qn__mnx_convert(qn_mnx_exporter *x, const char *name, int32_t from, int32_t to,
                     qn_mnx_layout layout);
qn_fb_object *qn__mnx_binary(qn_mnx_exporter *x, const char *name, int32_t operation, int32_t a,
                             int32_t b, int32_t to);
qn_fb_object *qn__mnx_unary(qn_mnx_exporter *x, const char *name, int32_t operation, int32_t from,
                            int32_t to);
/* Normalizes the last `axes` axes; no scale, no shift (mnn_export_math.c). */
qn_fb_object *qn__mnx_layer_norm(qn_mnx_exporter *x, const char *name, size_t axes, float epsilon,
                                 int32_t from, int32_t to);
/* Which dimension of the tensor is free in the caller's graph: -1 none or more than one. */
int qn__mnx_free_dim(const qn_mnx_exporter *x, const qn_tensor *tensor);
/* "NODE (OP): no MNN form of ..." */
qn_status qn__mnx_no_form(const qn_node *node, qn_error *error, const char *format, ...)
    QN_PRINTF(3, 4);
/* Bounds of the node's activation; false: none. */
bool qn__mnx_act(const qn_node *node, float *lo, float *hi);
void qn__mnx_clip(qn_mnx_exporter *x, const char *name, float lo, float hi, int32_t from,
                  int32_t to);

#define QN_MNN_ROW(op, function, argument)                                                         \
    qn_status function(qn_mnx_exporter *x, const qn_node *node, int32_t argument_, qn_error *error);
#include "format/mnn/mnn_export.def"
#undef QN_MNN_ROW

#endif
