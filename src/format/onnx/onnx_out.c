/* Writing protobuf with nanopb's number encodings. */
#include "format/onnx/onnx_out.h"

#include <pb_encode.h>
#include <string.h>

void qn__out_init(qn_onnx_out *out, const qn_context *ctx)
{
    *out = (qn_onnx_out){.ctx = ctx};
    qn__strbuf_init(&out->text, ctx, SIZE_MAX / 2);
}

void qn__out_free(qn_onnx_out *out)
{
    qn__strbuf_free(&out->text);
    qn__free(out->ctx, out->parts);
    out->parts = NULL;
    out->n_parts = out->parts_capacity = 0;
}

static void add_part(qn_onnx_out *out, qn_out_part part)
{
    if (out->failed)
        return;
    if (!QN_GROW(out->ctx, &out->parts, &out->parts_capacity, out->n_parts)) {
        out->failed = true;
        return;
    }
    out->parts[out->n_parts++] = part;
}

void qn__out_bytes(qn_onnx_out *out, const void *data, size_t size)
{
    if (out->failed || size == 0)
        return;
    const size_t offset = out->text.length;
    qn__strbuf_append(&out->text, data, size);
    if (out->text.failed) {
        out->failed = true;
        return;
    }
    out->total += size;
    qn_out_part *last = out->n_parts > 0 ? &out->parts[out->n_parts - 1] : NULL;
    if (last && !last->borrowed && last->offset + last->size == offset)
        last->size += size;
    else
        add_part(out, (qn_out_part){NULL, offset, size});
}

void qn__out_borrow(qn_onnx_out *out, const void *data, size_t size)
{
    if (size < 256) {
        qn__out_bytes(out, data, size);
        return;
    }
    out->total += size;
    add_part(out, (qn_out_part){data, 0, size});
}

static void put_varint(qn_onnx_out *out, uint64_t value)
{
    pb_byte_t bytes[10];
    pb_ostream_t stream = pb_ostream_from_buffer(bytes, sizeof(bytes));
    if (pb_encode_varint(&stream, value))
        qn__out_bytes(out, bytes, stream.bytes_written);
}

static void put_tag(qn_onnx_out *out, uint32_t field, pb_wire_type_t type)
{
    put_varint(out, (uint64_t)field << 3 | (uint64_t)type);
}

void qn__out_int(qn_onnx_out *out, uint32_t field, int64_t value)
{
    put_tag(out, field, PB_WT_VARINT);
    put_varint(out, (uint64_t)value);
}

void qn__out_float(qn_onnx_out *out, uint32_t field, float value)
{
    pb_byte_t bytes[4];
    pb_ostream_t stream = pb_ostream_from_buffer(bytes, sizeof(bytes));
    put_tag(out, field, PB_WT_32BIT);
    if (pb_encode_fixed32(&stream, &value))
        qn__out_bytes(out, bytes, stream.bytes_written);
}

void qn__out_span(qn_onnx_out *out, uint32_t field, const void *data, size_t size, bool borrow)
{
    put_tag(out, field, PB_WT_STRING);
    put_varint(out, size);
    if (borrow)
        qn__out_borrow(out, data, size);
    else
        qn__out_bytes(out, data, size);
}

void qn__out_string(qn_onnx_out *out, uint32_t field, const char *text)
{
    qn__out_span(out, field, text, strlen(text), false);
}

void qn__out_message(qn_onnx_out *out, uint32_t field, const qn_onnx_out *message)
{
    out->failed = out->failed || message->failed;
    put_tag(out, field, PB_WT_STRING);
    put_varint(out, message->total);
    for (size_t i = 0; i < message->n_parts; i++) {
        const qn_out_part *part = &message->parts[i];
        if (part->borrowed)
            qn__out_borrow(out, part->borrowed, part->size);
        else
            qn__out_bytes(out, message->text.data + part->offset, part->size);
    }
}

void qn__out_each(const qn_onnx_out *out, void (*put)(void *arg, const void *data, size_t size),
                  void *arg)
{
    for (size_t i = 0; i < out->n_parts; i++) {
        const qn_out_part *part = &out->parts[i];
        put(arg, part->borrowed ? part->borrowed : out->text.data + part->offset, part->size);
    }
}
