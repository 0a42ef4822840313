/* A model whose one weight lies outside the file, with any keys and values in place of its
 * location, offset and length. */
#ifndef TEST_EXTERNAL_MODEL_H
#define TEST_EXTERNAL_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "core/blob.h"
#include "core/context.h"
#include "format/onnx/onnx_out.h"
#include "format/onnx/onnx_proto.h"

typedef struct external_entry {
    const char *key, *value;
    size_t length; /* of value; 0: up to its zero */
} external_entry;

/* x + w, w being [n] of float outside the file. */
static inline void external_put(qn_onnx_out *model, const qn_context *ctx, int64_t n,
                                const external_entry *entries, size_t count)
{
    qn_onnx_out graph, node, tensor, pair, import, value;
    qn__out_init(&graph, ctx);
    qn__out_init(&node, ctx);
    qn__out_string(&node, NODE_INPUT, "x");
    qn__out_string(&node, NODE_INPUT, "w");
    qn__out_string(&node, NODE_OUTPUT, "y");
    qn__out_string(&node, NODE_OP_TYPE, "Add");
    qn__out_message(&graph, GRAPH_NODE, &node);
    qn__out_free(&node);
    qn__out_init(&tensor, ctx);
    qn__out_int(&tensor, TENSOR_DIMS, n);
    qn__out_int(&tensor, TENSOR_DATA_TYPE, 1);
    qn__out_string(&tensor, TENSOR_NAME, "w");
    for (size_t i = 0; i < count; i++) {
        const size_t length = entries[i].length > 0 ? entries[i].length : strlen(entries[i].value);
        qn__out_init(&pair, ctx);
        qn__out_string(&pair, 1, entries[i].key);
        qn__out_span(&pair, 2, entries[i].value, length, false);
        qn__out_message(&tensor, TENSOR_EXTERNAL_DATA, &pair);
        qn__out_free(&pair);
    }
    qn__out_int(&tensor, TENSOR_DATA_LOCATION, 1);
    qn__out_message(&graph, GRAPH_INITIALIZER, &tensor);
    qn__out_free(&tensor);
    for (int i = 0; i < 2; i++) {
        qn__out_init(&value, ctx);
        qn__out_string(&value, VALUE_NAME, i == 0 ? "x" : "y");
        if (i == 0)
            qn__out_span(&value, VALUE_TYPE, "\x0a\x02\x08\x01", 4, false); /* of any shape */
        qn__out_message(&graph, i == 0 ? GRAPH_INPUT : GRAPH_OUTPUT, &value);
        qn__out_free(&value);
    }
    qn__out_init(model, ctx);
    qn__out_int(model, MODEL_IR_VERSION, 8);
    qn__out_init(&import, ctx);
    qn__out_int(&import, OPSET_VERSION, 13);
    qn__out_message(model, MODEL_OPSET_IMPORT, &import);
    qn__out_free(&import);
    qn__out_message(model, MODEL_GRAPH, &graph);
    qn__out_free(&graph);
}

/* The file's bytes. NULL: out of memory. */
static inline qn_blob *external_model(const qn_context *ctx, int64_t n,
                                      const external_entry *entries, size_t count)
{
    qn_onnx_out model;
    void *data = NULL;
    external_put(&model, ctx, n, entries, count);
    qn_blob *const blob = qn__blob_create(ctx, (size_t)model.total, &data);
    for (size_t i = 0, at = 0; blob != NULL && i < model.n_parts; at += model.parts[i++].size)
        memcpy((uint8_t *)data + at,
               model.parts[i].borrowed ? model.parts[i].borrowed
                                       : model.text.data + model.parts[i].offset,
               model.parts[i].size);
    qn__out_free(&model);
    return blob;
}

#endif
