/* Model files: which reader a file needs is found from its bytes, which writer a graph needs from
 * the document it came from. */
#ifndef QN_FORMAT_FORMAT_H
#define QN_FORMAT_FORMAT_H

#include "ir/graph.h"

/* How quantized types are written. */
typedef enum qn_write_format {
    QN_WRITE_QDQ = 0,      /* QuantizeLinear/DequantizeLinear pairs around float operators */
    QN_WRITE_QOPERATOR = 1 /* QLinearConv and its like on integer tensors */
} qn_write_format;

typedef struct qn_write_options {
    qn_write_format format;
    bool dedicated_pairs; /* QDQ: every consumer reads a pair of its own */
    const char *producer; /* producer_name of a file that has no source document; NULL: "quench" */
    /* Constant folding for formats that a graph must be lowered to (run/run.h, qn__graph_resolve);
     * NULL: shapes are inferred, nothing is folded. A pointer, as in pass/pass.h. */
    qn_status (*resolve)(qn_graph *graph, size_t max_bytes, qn_error *error);
} qn_write_options;

typedef struct qn_format {
    const char *name; /* also the extension of its files */
    /* Do these bytes look like the format? Never reads past size_bytes. */
    bool (*probe)(const qn_context *ctx, const uint8_t *data, size_t size_bytes);
    qn_status (*read)(const qn_context *ctx, const char *path, qn_blob *file, qn_graph **out,
                      qn_error *error);
    qn_status (*write)(const qn_graph *graph, const char *path, const qn_write_options *options,
                       uint64_t *bytes, qn_error *error);
    /* What a written graph changes besides its nodes ("opset 9 -> 13"); false: nothing. */
    bool (*describe_changes)(const qn_graph *graph, char *text, size_t size_bytes);
    /* See qn__format_read_partial; NULL: not for this format. */
    qn_status (*read_partial)(const qn_context *ctx, const char *path, qn_blob *file,
                              qn_graph **out, qn_error *error);
} qn_format;

/* Reads a model of any known format; the graph is inferred and verified. Errors: IO, CORRUPT,
 * UNSUPPORTED, LIMIT, UNSAFE_PATH, NONFINITE, NO_MEMORY; the message names file and node. */
qn_status qn__format_read(const qn_context *ctx, const char *path, qn_graph **out, qn_error *error);
/* The same, but what cannot be run stays outside the graph, bytes of the file that are written with
 * it. ONNX only: UNSUPPORTED for other formats, and where nothing is left. */
qn_status qn__format_read_partial(const qn_context *ctx, const char *path, qn_graph **out,
                                  qn_error *error);
/* Writes in the format that path's extension names (.onnx, .mnn, .qnm), with any other extension in
 * the format the graph was read from (ONNX when it was read from none), atomically. options and
 * bytes may be NULL. Errors: IO, LIMIT (2 GiB), UNSUPPORTED, NO_MEMORY. */
qn_status qn__format_write(const qn_graph *graph, const char *path, const qn_write_options *options,
                           uint64_t *bytes, qn_error *error);
/* Is that format the compact one, which wants shapes fixed and the graph simplified first? */
bool qn__format_is_compact(const qn_graph *graph, const char *path);
/* See qn_format.describe_changes. path as of qn__format_write; NULL: the format it was read from.
 */
bool qn__format_changes(const qn_graph *graph, const char *path, char *text, size_t size_bytes);

#endif
