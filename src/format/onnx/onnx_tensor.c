/* TensorProto: raw data stay where they are in the file, typed fields are decoded. */
#include <inttypes.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_source.h"

typedef struct tensor_fields {
    int64_t data_type, location;
    size_t n_dims;
    bool has_raw, has_segment;
    qn_span raw;
    const char *external_path;
    const char *external_offset, *external_length;
} tensor_fields;

typedef struct dims_reader {
    int64_t *dims;
    size_t count;
} dims_reader;

static void put_dim(void *arg, uint64_t bits)
{
    dims_reader *r = arg;
    if (r->count < QN_MAX_RANK)
        r->dims[r->count] = (int64_t)bits;
    r->count++;
}

static qn_status read_entry(qn_arena *arena, const qn_wire *w, const qn_field *field,
                            tensor_fields *t, qn_error *error)
{
    qn_wire entry;
    QN_TRY(qn__wire_enter(w, field, "StringStringEntryProto", &entry, error));
    const char *key = "", *value = "";
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&entry, &f, &more, error));
        if (!more)
            break;
        if (f.number == ENTRY_KEY)
            QN_TRY(qn__wire_string(&entry, &f, arena, &key, error));
        else if (f.number == ENTRY_VALUE)
            QN_TRY(qn__wire_string(&entry, &f, arena, &value, error));
    }
    if (strcmp(key, "location") == 0)
        t->external_path = value;
    else if (strcmp(key, "offset") == 0)
        t->external_offset = value;
    else if (strcmp(key, "length") == 0)
        t->external_length = value;
    return QN_OK;
}

static qn_status read_fields(qn_onnx_source *source, qn_arena *arena, qn_wire *w, tensor_fields *t,
                             qn_onnx_tensor *out, qn_error *error)
{
    dims_reader dims = {out->dims, 0};
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(w, &f, &more, error));
        if (!more)
            break;
        switch (f.number) {
        case TENSOR_DIMS:
            QN_TRY(qn__wire_scalars(w, &f, PB_WT_VARINT, put_dim, &dims, error));
            break;
        case TENSOR_DATA_TYPE:
            QN_TRY(qn__wire_expect(w, &f, PB_WT_VARINT, error));
            t->data_type = (int64_t)f.value;
            break;
        case TENSOR_NAME:
            QN_TRY(qn__wire_string(w, &f, arena, &out->name, error));
            break;
        case TENSOR_RAW_DATA:
            QN_TRY(qn__wire_expect(w, &f, PB_WT_STRING, error));
            t->raw = f.body;
            t->has_raw = true;
            break;
        case TENSOR_SEGMENT:
            t->has_segment = true;
            break;
        case TENSOR_EXTERNAL_DATA:
            QN_TRY(read_entry(arena, w, &f, t, error));
            break;
        case TENSOR_DATA_LOCATION:
            QN_TRY(qn__wire_expect(w, &f, PB_WT_VARINT, error));
            t->location = (int64_t)f.value;
            break;
        default:
            break;
        }
    }
    QN_FAIL_IF(dims.count > source->ctx->limits.rank || dims.count > QN_MAX_RANK, error, QN_LIMIT,
               "tensor \"%s\" has rank %zu, the limit is %u", out->name, dims.count,
               source->ctx->limits.rank);
    out->rank = dims.count;
    return QN_OK;
}

/* Decimal number of an external data entry. */
static bool parse_number(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (text[0] == '\0')
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > (UINT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *out = value;
    return true;
}

static qn_status open_external(qn_onnx_source *source, const tensor_fields *t, size_t bytes,
                               qn_onnx_tensor *out, qn_error *error)
{
    QN_FAIL_IF(!t->external_path, error, QN_CORRUPT,
               "tensor \"%s\": external data without location", out->name);
    uint64_t offset = 0, length = bytes;
    QN_FAIL_IF(t->external_offset && !parse_number(t->external_offset, &offset), error, QN_CORRUPT,
               "tensor \"%s\": external offset \"%s\" is not a number", out->name,
               t->external_offset);
    QN_FAIL_IF(t->external_length && !parse_number(t->external_length, &length), error, QN_CORRUPT,
               "tensor \"%s\": external length \"%s\" is not a number", out->name,
               t->external_length);
    QN_FAIL_IF(length != bytes, error, QN_CORRUPT,
               "tensor \"%s\" needs %zu bytes, its external data have %" PRIu64, out->name, bytes,
               length);
    qn_blob *file = NULL;
    const qn_status status = qn__onnx_open_external(source, t->external_path, &file, error);
    if (status != QN_OK)
        return qn__error_prefix(error, status, "tensor \"%s\"", out->name);
    QN_FAIL_IF(offset > file->size_bytes || bytes > file->size_bytes - offset, error, QN_CORRUPT,
               "tensor \"%s\": bytes %" PRIu64 "..%" PRIu64 " are past the end of \"%s\" (%zu)",
               out->name, offset, offset + bytes, t->external_path, file->size_bytes);
    out->is_external = true;
    out->blob = qn__blob_slice(file, (size_t)offset, bytes);
    return out->blob ? QN_OK : QN_NOMEM(error);
}

/* --- typed fields -----------------------------------------------------------------------------*/
typedef struct typed_reader {
    uint8_t *data;
    size_t count, capacity, size; /* elements, element bytes */
    int64_t lo, hi;               /* range of one element in int32_data */
    bool out_of_range;
} typed_reader;

static void put_value(void *arg, uint64_t bits)
{
    typed_reader *r = arg;
    const int64_t value = (int64_t)bits;
    if (r->lo < r->hi && (value < r->lo || value > r->hi))
        r->out_of_range = true;
    if (r->count < r->capacity)
        memcpy(r->data + r->count * r->size, &bits, r->size); /* little endian */
    r->count++;
}

/* Field, wire type and element size of a type's typed data. */
static uint32_t typed_field(qn_dtype dtype, pb_wire_type_t *wire, typed_reader *r)
{
    const uint32_t bits = qn__dtype_bits(dtype);
    *wire = PB_WT_VARINT;
    r->size = bits < 8 ? 1 : bits / 8;
    switch (dtype) {
    case QN_DTYPE_F32:
        *wire = PB_WT_32BIT;
        return TENSOR_FLOAT_DATA;
    case QN_DTYPE_F64:
        *wire = PB_WT_64BIT;
        return TENSOR_DOUBLE_DATA;
    case QN_DTYPE_I64:
        return TENSOR_INT64_DATA;
    case QN_DTYPE_U32:
        r->lo = 0;
        r->hi = UINT32_MAX;
        return TENSOR_UINT64_DATA;
    case QN_DTYPE_U64:
        return TENSOR_UINT64_DATA;
    case QN_DTYPE_BOOL:
        r->lo = 0;
        r->hi = 1;
        return TENSOR_INT32_DATA;
    case QN_DTYPE_I8:
    case QN_DTYPE_I16:
    case QN_DTYPE_I32:
        r->lo = -((int64_t)1 << (bits - 1));
        r->hi = ((int64_t)1 << (bits - 1)) - 1;
        return TENSOR_INT32_DATA;
    default: /* unsigned, 16-bit floats as bits, two or four small integers in a byte (which some
                writers sign-extend) */
        r->lo = bits < 8 ? INT8_MIN : 0;
        r->hi = bits == 16 ? UINT16_MAX : UINT8_MAX;
        return TENSOR_INT32_DATA;
    }
}

static qn_status read_typed(qn_onnx_source *source, qn_span body, uint32_t depth, size_t bytes,
                            qn_onnx_tensor *out, qn_error *error)
{
    pb_wire_type_t wire;
    typed_reader r = {0};
    const uint32_t number = typed_field(out->dtype, &wire, &r);
    const size_t expected = bytes / r.size;
    size_t found = 0;
    qn_wire w = qn__wire_open(body, "TensorProto", depth);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number == number)
            QN_TRY(qn__wire_scalar_count(&w, &f, wire, &found, error));
    }
    QN_FAIL_IF(found != expected, error, QN_CORRUPT,
               "tensor \"%s\" (%s) needs %zu values, the file has %zu", out->name,
               qn__dtype_name(out->dtype), expected, found);
    void *data = NULL;
    out->blob = qn__blob_create(source->ctx, bytes, &data);
    if (!out->blob)
        return QN_NOMEM(error);
    r.data = data;
    r.capacity = expected;
    w = qn__wire_open(body, "TensorProto", depth);
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number == number)
            QN_TRY(qn__wire_scalars(&w, &f, wire, put_value, &r, error));
    }
    QN_FAIL_IF(r.out_of_range, error, QN_CORRUPT, "tensor \"%s\": a value does not fit %s",
               out->name, qn__dtype_name(out->dtype));
    return QN_OK;
}

static qn_status read_data(qn_onnx_source *source, const tensor_fields *t, uint32_t depth,
                           qn_onnx_tensor *out, qn_error *error)
{
    size_t count, bytes;
    QN_FAIL_IF(!qn_shape_count(&count, out->dims, out->rank), error, QN_CORRUPT,
               "tensor \"%s\": its dimensions are negative or overflow", out->name);
    QN_FAIL_IF(
        !qn__dtype_bytes(&bytes, out->dtype, count) || bytes > source->ctx->limits.tensor_bytes,
        error, QN_LIMIT, "tensor \"%s\" has %zu elements, above the limit", out->name, count);
    QN_FAIL_IF(t->has_segment, error, QN_UNSUPPORTED, "tensor \"%s\" is stored in segments",
               out->name);
    if (t->location == 1)
        return open_external(source, t, bytes, out, error);
    if (!t->has_raw)
        return read_typed(source, out->body, depth, bytes, out, error);
    QN_FAIL_IF(t->raw.size != bytes, error, QN_CORRUPT,
               "tensor \"%s\" (%s) needs %zu bytes, the file has %zu", out->name,
               qn__dtype_name(out->dtype), bytes, t->raw.size);
    out->blob =
        qn__blob_slice(source->file, (size_t)(t->raw.data - source->file->data), t->raw.size);
    return out->blob ? QN_OK : QN_NOMEM(error);
}

qn_status qn__onnx_read_tensor(qn_onnx_source *source, qn_arena *arena, qn_span body,
                               uint32_t depth, qn_onnx_tensor *out, qn_error *error)
{
    *out = (qn_onnx_tensor){.name = "", .body = body};
    tensor_fields t = {0};
    qn_wire w = qn__wire_open(body, "TensorProto", depth);
    QN_TRY(read_fields(source, arena, &w, &t, out, error));
    out->dtype = qn__dtype_of_onnx(t.data_type);
    QN_FAIL_IF(t.data_type == 0, error, QN_CORRUPT, "tensor \"%s\" has no data type", out->name);
    QN_FAIL_IF(out->dtype == QN_DTYPE_NONE, error, QN_UNSUPPORTED,
               "tensor \"%s\" has data type %" PRId64 ", which is not supported", out->name,
               t.data_type);
    const qn_status status = read_data(source, &t, depth, out, error);
    if (status != QN_OK) {
        qn__blob_unref(out->blob);
        out->blob = NULL;
    }
    return status;
}
