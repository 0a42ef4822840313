/* What is inside a qn_model, and what the public functions share. */
#ifndef QN_QUANT_MODEL_H
#define QN_QUANT_MODEL_H

#include "ir/graph.h"
#include "quench/model.h"
#include "run/run.h"

struct qn_model {
    const qn_context *ctx;
    qn_graph *graph; /* as read, or as quantized */
    char *path;      /* of the file it came from; never NULL */
    uint64_t file_bytes;
};

/* New model around graph; the graph passes to it on success. path is copied. */
qn_status qn__model_create(const qn_context *ctx, qn_graph *graph, const char *path,
                           uint64_t file_bytes, qn_model **out, qn_error *error);
/* Clone of graph after all simplifying passes. */
qn_status qn__model_simplified(const qn_graph *graph, qn_graph **out, qn_error *error);
/* What a session runs: the same with bytes as kernels want them, or a plain clone where the file
 * was written that way (.qnm). requantize: of the session, DEFAULT as the graph says; tables:
 * chains of nodes may become one, what lies between them is not looked at. */
qn_status qn__model_runnable(const qn_graph *graph, qn_requantize requantize, bool tables,
                             qn_graph **out, qn_error *error);
/* Dims of every input: given (NULL: none are), or the graph's with `batch` for a symbolic first
 * one. INVALID_ARGUMENT naming the input where one stays open. */
qn_status qn__model_input_dims(const qn_graph *graph, const int64_t (*given)[QN_MAX_RANK],
                               int64_t batch, int64_t (*dims)[QN_MAX_RANK], qn_error *error);
/* The same with BatchNormalization and activations left as nodes of their own, for training mode.
 * What is simplified further from it has the same names. */
qn_status qn__model_unfolded(const qn_graph *graph, qn_graph **out, qn_error *error);
/* Clone of graph with every input's dims fixed and shapes inferred anew. dims NULL: symbolic first
 * dimensions become `batch`. */
qn_status qn__graph_bound(const qn_graph *graph, const int64_t (*dims)[QN_MAX_RANK], int64_t batch,
                          qn_graph **out, qn_error *error);

#endif
