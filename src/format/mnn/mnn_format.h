/* MNN as a model format. Reading makes a graph of ONNX operators whose tensors have the axes that
 * the file gives them: NC4HW4 and NCHW tensors are N, C, H, W; NHWC tensors are N, H, W, C, and a
 * ConvertTensor between the two is a Transpose. */
#ifndef QN_FORMAT_MNN_FORMAT_H
#define QN_FORMAT_MNN_FORMAT_H

#include "format/format.h"
#include "format/mnn/mnn_schema.h"

extern const qn_format qn__format_mnn;

/* The source document. Graph nodes' sources are indexes into Net.oplists; a tensor's source is its
 * MNN tensor id (-1: made by us). */
typedef struct qn_mnn_source {
    qn_source base; /* format "mnn" */
    const qn_context *ctx;
    qn_fb_document doc;
    const char *path;   /* in doc.arena */
    qn_blob *side_file; /* PATH.weight, or NULL */
    size_t n_ops;
    qn_fb_object **ops; /* Net.oplists */
    size_t n_tensors;   /* Net.tensorName */
} qn_mnn_source;
/* The document of a graph that was read from MNN, else NULL. */
qn_mnn_source *qn__mnn_source_of(const qn_graph *graph);

/* --- mnn_read.c: document -> graph
 * --------------------------------------------------------------*/
qn_status qn__mnn_read(const qn_context *ctx, const char *path, qn_blob *file, qn_graph **out,
                       qn_error *error);

/* --- mnn_write.c: graph -> document (the source document changed), mnn_export.c: graphs of other
 * formats
 * ----------------------------------------------------------------------------------------*/
qn_status qn__mnn_write(const qn_graph *graph, const char *path, const qn_write_options *options,
                        uint64_t *bytes, qn_error *error);
/* What qn__mnn_write saves: the source document with the graph's changes. The graph must outlive
 * it. */
qn_status qn__mnn_document(const qn_graph *graph, qn_fb_document *out, qn_error *error);
/* A document for a graph that has no MNN source. Float and quantized. */
qn_status qn__mnn_export(const qn_graph *graph, const qn_write_options *options,
                         qn_fb_document *out, qn_error *error);

/* --- mnn_packed.c: IDSTQuan.buffer
 * ---------------------------------------------------------------*/
/* Weights of an operator as they are stored: integers with scales, or floats. */
typedef struct qn_mnn_packed {
    size_t rows, columns; /* outputs; weights of each */
    int32_t bits;         /* of the level indexes; 32: plain floats */
    bool symmetric;
    size_t n_blocks;  /* per row: 1 unless block-wise */
    int8_t *integers; /* [rows * columns], or NULL: floats */
    float *scales;    /* [rows * n_blocks] */
    float *minima;    /* asymmetric: w = minimum + (q - lowest) * scale; else NULL */
    int32_t lowest;
    float *values; /* [rows * columns] dequantized, always there */
} qn_mnn_packed;
/* Reads types 1 (dense), 2 (sparse), 3 (half), 4 (raw int8), 8 and plain float vectors, also from
 * the side file. expected: number of weights. Errors: CORRUPT, UNSUPPORTED, LIMIT, NO_MEMORY. */
qn_status qn__mnn_unpack(const qn_mnn_source *source, size_t op, size_t rows, size_t expected,
                         qn_mnn_packed *out, qn_error *error);
void qn__mnn_packed_free(const qn_context *ctx, qn_mnn_packed *packed);
/* IDSTQuan.buffer of q[rows * columns] for bits 2..8. linear: the complete table
 * -2^(bits-1) .. 2^(bits-1)-1, as MNN's tool writes; otherwise the levels between the smallest and
 * the largest used (which MNN expands to int8 before it computes: the only form below 8 bits that
 * its x86 kernels run rightly). sparse: the sparse form where it is smaller, as the tool for 8
 * bits. *type receives IDSTQuan.type, *wide IDSTQuan.shapeInt32. *buffer is freed with qn__free. */
qn_status qn__mnn_pack(const qn_context *ctx, const int8_t *q, size_t rows, size_t columns,
                       uint32_t bits, bool linear, bool sparse, uint8_t **buffer,
                       size_t *size_bytes, int32_t *type, bool *wide, qn_error *error);

/* --- mnn_edit.c: parts that the writer, the exporter and the drop-in tool share
 * -------------------*/
/* Turns convolution `op` (already copied into d) into its integer form: q is [rows][columns] in the
 * weights' file order, scales [rows], bias [rows] or NULL (kept). in/out scale may be 0 (unknown).
 */
typedef struct qn_mnn_conv_edit {
    const int8_t *q;
    const float *scales, *bias;
    size_t rows, columns;
    uint32_t bits;       /* of the packed weights */
    uint32_t nbits;      /* symmetricQuan.nbits: 8 unless MNN's tool is imitated */
    bool linear, sparse; /* see qn__mnn_pack */
    float scale_in, scale_out;
    int32_t zero_in, zero_out;
    int32_t clamp_min, clamp_max; /* of the output's levels; both 0: -127..127 */
    int64_t input_channels;       /* Convolution2DCommon.inputCount; 0: kept */
    const int32_t *winograd;      /* symmetricQuan.winogradAttr; NULL: none */
    size_t n_winograd;
} qn_mnn_conv_edit;
qn_status qn__mnn_edit_conv(qn_fb_document *d, qn_fb_object *op, const qn_mnn_conv_edit *edit,
                            qn_error *error);
/* Replaces Net.extraTensorDescribe's quantInfo of the tensors given; other describes are kept. */
typedef struct qn_mnn_tensor_quant {
    uint32_t index; /* MNN tensor id */
    float scale;
    int32_t zero, min, max;
} qn_mnn_tensor_quant;
qn_status qn__mnn_edit_quants(qn_fb_document *d, const qn_mnn_tensor_quant *quants, size_t count,
                              qn_error *error);
/* Operators of 2019 that MNN no longer runs become ones that it does (mnn_upgrade.c); *changed:
 * there were any. */
qn_status qn__mnn_upgrade(qn_fb_document *d, bool *changed, qn_error *error);
/* Takes what the operator has in the side file into the document: *op becomes a changed copy
 * (mnn_inside.c). Nothing there: it stays. */
qn_status qn__mnn_take_inside(qn_mnn_source *source, qn_fb_document *d, qn_fb_object **op,
                              qn_error *error);
/* Serializes and writes atomically. */
qn_status qn__mnn_save(const qn_fb_document *d, const char *path, uint64_t *bytes, qn_error *error);

#endif
