/* Protobuf being written: a rope of copied and borrowed bytes, so that large tensors are never
 * copied and the lengths of messages are known before anything reaches the file. */
#ifndef QN_FORMAT_ONNX_OUT_H
#define QN_FORMAT_ONNX_OUT_H

#include "core/strbuf.h"

typedef struct qn_out_part {
    const void *borrowed; /* NULL: `size` bytes of text from `offset` */
    size_t offset, size;
} qn_out_part;

typedef struct qn_onnx_out {
    const qn_context *ctx;
    qn_strbuf text;
    qn_out_part *parts;
    size_t n_parts, parts_capacity;
    uint64_t total;
    bool failed; /* sticky: out of memory */
} qn_onnx_out;

void qn__out_init(qn_onnx_out *out, const qn_context *ctx);
void qn__out_free(qn_onnx_out *out);
void qn__out_bytes(qn_onnx_out *out, const void *data, size_t size);
/* data must outlive the rope */
void qn__out_borrow(qn_onnx_out *out, const void *data, size_t size);
void qn__out_int(qn_onnx_out *out, uint32_t field, int64_t value);
void qn__out_float(qn_onnx_out *out, uint32_t field, float value);
void qn__out_string(qn_onnx_out *out, uint32_t field, const char *text);
void qn__out_span(qn_onnx_out *out, uint32_t field, const void *data, size_t size, bool borrow);
/* A message field; its parts are moved or copied, `message` stays the caller's to free, but must
 * live as long as `out`. */
void qn__out_message(qn_onnx_out *out, uint32_t field, const qn_onnx_out *message);
/* Calls put for each piece in order. */
void qn__out_each(const qn_onnx_out *out, void (*put)(void *arg, const void *data, size_t size),
                  void *arg);

#endif
