/* Bounded reading of protobuf through nanopb's streams. Lengths are checked by the stream before a
 * span is made, so spans always lie inside the message that holds them. */
#include "format/onnx/onnx_wire.h"

#include <string.h>

qn_wire qn__wire_open(qn_span message, const char *what, uint32_t depth)
{
    static const uint8_t NOTHING[1] = {0}; /* an absent message has no address to count from */
    const uint8_t *const data = message.data != NULL ? message.data : NOTHING;
    return (qn_wire){.stream = pb_istream_from_buffer(data, message.size),
                     .end = data + message.size,
                     .what = what,
                     .depth_left = depth};
}

qn_status qn__wire_enter(const qn_wire *w, const qn_field *field, const char *what, qn_wire *out,
                         qn_error *error)
{
    QN_TRY(qn__wire_expect(w, field, PB_WT_STRING, error));
    QN_FAIL_IF(w->depth_left == 0, error, QN_LIMIT, "%s: messages are nested too deep", what);
    *out = qn__wire_open(field->body, what, w->depth_left - 1);
    return QN_OK;
}

static const uint8_t *position(const qn_wire *w)
{
    return w->end - w->stream.bytes_left;
}

qn_status qn__wire_next(qn_wire *w, qn_field *field, bool *more, qn_error *error)
{
    const uint8_t *const start = position(w);
    const size_t before = w->stream.bytes_left;
    bool eof = false;
    *field = (qn_field){0};
    if (before == 0) {
        *more = false;
        return QN_OK;
    }
    bool ok = pb_decode_tag(&w->stream, &field->type, &field->number, &eof) && field->number != 0;
    if (ok) {
        if (field->type == PB_WT_VARINT) {
            ok = pb_decode_varint(&w->stream, &field->value);
        } else if (field->type == PB_WT_64BIT) {
            ok = pb_decode_fixed64(&w->stream, &field->value);
        } else if (field->type == PB_WT_32BIT) {
            uint32_t bits = 0;
            ok = pb_decode_fixed32(&w->stream, &bits);
            field->value = bits;
        } else if (field->type == PB_WT_STRING) {
            uint32_t length = 0;
            ok = pb_decode_varint32(&w->stream, &length) && length <= w->stream.bytes_left;
            if (ok) {
                field->body = (qn_span){position(w), length};
                ok = pb_read(&w->stream, NULL, length);
            }
        } else {
            ok = false; /* groups are not part of proto2/3 files written since 2001 */
        }
    }
    QN_FAIL_IF(!ok, error, QN_CORRUPT, "%s: broken or truncated field %u at %zu bytes from its end",
               w->what, (unsigned)field->number, before);
    field->whole = (qn_span){start, before - w->stream.bytes_left};
    *more = true;
    return QN_OK;
}

qn_status qn__wire_expect(const qn_wire *w, const qn_field *field, pb_wire_type_t type,
                          qn_error *error)
{
    QN_FAIL_IF(field->type != type, error, QN_CORRUPT,
               "%s: field %u has wire type %d instead of %d", w->what, (unsigned)field->number,
               (int)field->type, (int)type);
    return QN_OK;
}

qn_status qn__wire_string(const qn_wire *w, const qn_field *field, qn_arena *arena,
                          const char **out, qn_error *error)
{
    QN_TRY(qn__wire_expect(w, field, PB_WT_STRING, error));
    QN_FAIL_IF(memchr(field->body.data, 0, field->body.size) != NULL, error, QN_CORRUPT,
               "%s: field %u: text with a zero byte", w->what, (unsigned)field->number);
    char *text = qn__arena_strndup(arena, (const char *)field->body.data, field->body.size);
    if (!text)
        return QN_NOMEM(error);
    *out = text;
    return QN_OK;
}

qn_status qn__wire_scalars(const qn_wire *w, const qn_field *field, pb_wire_type_t element,
                           qn_wire_put put, void *arg, qn_error *error)
{
    if (field->type == element) {
        put(arg, field->value);
        return QN_OK;
    }
    QN_TRY(qn__wire_expect(w, field, PB_WT_STRING, error));
    pb_istream_t stream = pb_istream_from_buffer(field->body.data, field->body.size);
    while (stream.bytes_left > 0) {
        uint64_t bits = 0;
        bool ok;
        if (element == PB_WT_VARINT) {
            ok = pb_decode_varint(&stream, &bits);
        } else if (element == PB_WT_64BIT) {
            ok = pb_decode_fixed64(&stream, &bits);
        } else {
            uint32_t low = 0;
            ok = pb_decode_fixed32(&stream, &low);
            bits = low;
        }
        QN_FAIL_IF(!ok, error, QN_CORRUPT, "%s: field %u: broken list of numbers", w->what,
                   (unsigned)field->number);
        put(arg, bits);
    }
    return QN_OK;
}

static void count_one(void *arg, uint64_t bits)
{
    (void)bits;
    ++*(size_t *)arg;
}

qn_status qn__wire_scalar_count(const qn_wire *w, const qn_field *field, pb_wire_type_t element,
                                size_t *count, qn_error *error)
{
    return qn__wire_scalars(w, field, element, count_one, count, error);
}
