/* Constants of the graph from Blob records and from operators' weights. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_read.h"
#include "format/mnn/mnn_source.h"

enum { SPENT_PER_BYTE = 256, SPENT_AT_LEAST = 64 << 20 };

qn_status qn__mnn_spend(qn_mnn_reader *r, size_t bytes, qn_error *error)
{
    const qn_blob *side = r->source->side_file;
    const uint64_t there = r->doc->file->size_bytes + (side ? side->size_bytes : 0);
    if (bytes > UINT64_MAX - r->spent ||
        (r->spent += bytes) > there * SPENT_PER_BYTE + SPENT_AT_LEAST)
        return qn__mnn_fail(r, error, QN_LIMIT,
                            "its constants and those before it are too many for a file of "
                            "%" PRIu64 " bytes",
                            there);
    return QN_OK;
}

/* --- Blob -------------------------------------------------------------------------------------*/
static const struct {
    int64_t type;   /* DataType */
    qn_dtype dtype; /* in the graph */
    int32_t slot;   /* of Blob, -1: not in files */
    qn_dtype stored;
} TYPES[] = {
    {QN_MNN_DataType_DT_FLOAT, QN_DTYPE_F32, QN_MNN_Blob_float32s, QN_DTYPE_F32},
    {QN_MNN_DataType_DT_INT32, QN_DTYPE_I64, QN_MNN_Blob_int32s, QN_DTYPE_I32},
    {QN_MNN_DataType_DT_INT64, QN_DTYPE_I64, QN_MNN_Blob_int64s, QN_DTYPE_I64},
    {QN_MNN_DataType_DT_BOOL, QN_DTYPE_BOOL, QN_MNN_Blob_int32s, QN_DTYPE_I32},
    {QN_MNN_DataType_DT_UINT8, QN_DTYPE_U8, QN_MNN_Blob_uint8s, QN_DTYPE_U8},
    {QN_MNN_DataType_DT_QUINT8, QN_DTYPE_U8, QN_MNN_Blob_uint8s, QN_DTYPE_U8},
    {QN_MNN_DataType_DT_INT8, QN_DTYPE_I8, QN_MNN_Blob_int8s, QN_DTYPE_I8},
    {QN_MNN_DataType_DT_QINT8, QN_DTYPE_I8, QN_MNN_Blob_int8s, QN_DTYPE_I8},
    {QN_MNN_DataType_DT_HALF, QN_DTYPE_F32, QN_MNN_Blob_uint8s, QN_DTYPE_F16},
    {QN_MNN_DataType_DT_BFLOAT16, QN_DTYPE_F32, QN_MNN_Blob_uint8s, QN_DTYPE_BF16},
    {QN_MNN_DataType_DT_DOUBLE, QN_DTYPE_F32, -1, QN_DTYPE_F64},
};

static int type_row(int64_t type)
{
    for (size_t i = 0; i < sizeof(TYPES) / sizeof(TYPES[0]); i++)
        if (TYPES[i].type == type)
            return (int)i;
    return -1;
}

qn_dtype qn__mnn_dtype(int64_t data_type)
{
    const int row = type_row(data_type);
    return row < 0 ? QN_DTYPE_NONE : TYPES[row].dtype;
}

/* The blob's bytes, `count` values of the type stored. */
static qn_status blob_bytes(qn_mnn_reader *r, const qn_fb_object *blob, int row, size_t count,
                            qn_blob **out, qn_error *error)
{
    size_t wanted, n = 0;
    if (!qn__dtype_bytes(&wanted, TYPES[row].stored, count))
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu values are too many", count);
    if (qn__fb_has(blob, QN_MNN_Blob_external)) {
        qn__fb_bytes(blob, QN_MNN_Blob_external, &n);
        if (n < 2)
            return qn__mnn_fail(r, error, QN_CORRUPT, "\"external\" has %zu values", n);
        const int64_t size = qn__fb_int_at(r->doc, blob, QN_MNN_Blob_external, 1);
        if (size < 0 || (uint64_t)size != wanted)
            return qn__mnn_fail(r, error, QN_CORRUPT,
                                "%" PRId64 " external bytes where %zu are needed", size, wanted);
        const int64_t at = qn__fb_int_at(r->doc, blob, QN_MNN_Blob_external, 0);
        const qn_status status = qn__mnn_side_bytes(r->source, r->op, at, size, out, error);
        return status == QN_OK ? status : qn__mnn_under(r, error, status);
    }
    const uint8_t *bytes = qn__fb_bytes(blob, (uint32_t)TYPES[row].slot, &n);
    const size_t have =
        TYPES[row].slot == QN_MNN_Blob_uint8s || TYPES[row].slot == QN_MNN_Blob_int8s
            ? n
            : n * (TYPES[row].slot == QN_MNN_Blob_int64s ? 8 : 4);
    if (have != wanted)
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu bytes where %zu values are needed", have,
                            count);
    qn_blob *file = r->doc->file;
    *out = have == 0 ? qn__blob_copy(r->graph->ctx, "", 0)
                     : qn__blob_slice(file, (size_t)(bytes - file->data), have);
    return *out ? QN_OK : QN_NOMEM(error);
}

/* Values in the type the graph has. */
static qn_blob *converted(qn_mnn_reader *r, const qn_blob *from, qn_dtype stored, qn_dtype dtype,
                          size_t count)
{
    void *values;
    qn_blob *to = qn__blob_create(r->graph->ctx, count * qn__dtype_bits(dtype) / 8, &values);
    for (size_t i = 0; to && i < count; i++) {
        if (dtype == QN_DTYPE_F32)
            ((float *)values)[i] = (float)qn__load_real(from->data, stored, i);
        else if (dtype == QN_DTYPE_BOOL)
            ((uint8_t *)values)[i] = qn__load_int(from->data, stored, i) != 0;
        else
            ((int64_t *)values)[i] = qn__load_int(from->data, stored, i);
    }
    return to;
}

qn_status qn__mnn_blob(qn_mnn_reader *r, const qn_fb_object *blob, const char *name,
                       qn_tensor **out, qn_error *error)
{
    const int64_t type = qn__fb_int(r->doc, blob, QN_MNN_Blob_dataType);
    const int row = type_row(type);
    if (row < 0 || TYPES[row].slot < 0)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "a constant of data type %" PRId64, type);
    int64_t dims[QN_MAX_RANK];
    size_t rank = 0, count;
    qn__fb_bytes(blob, QN_MNN_Blob_dims, &rank);
    if (rank > QN_MAX_RANK)
        return qn__mnn_fail(r, error, QN_LIMIT, "a constant of rank %zu", rank);
    for (size_t i = 0; i < rank; i++)
        dims[i] = qn__fb_int_at(r->doc, blob, QN_MNN_Blob_dims, i);
    if (!qn_shape_count(&count, dims, rank))
        return qn__mnn_fail(r, error, QN_CORRUPT, "the dimensions of a constant");
    qn_blob *bytes = NULL;
    QN_TRY(blob_bytes(r, blob, row, count, &bytes, error));
    if (TYPES[row].stored != TYPES[row].dtype) {
        const qn_status status = qn__mnn_spend(r, bytes->size_bytes, error);
        if (status != QN_OK) {
            qn__blob_unref(bytes);
            return status;
        }
        qn_blob *made = converted(r, bytes, TYPES[row].stored, TYPES[row].dtype, count);
        qn__blob_unref(bytes);
        bytes = made;
    }
    if (!bytes)
        return QN_NOMEM(error);
    *out = qn__graph_add_constant(r->graph, name, qn_type_plain_make(TYPES[row].dtype), rank, dims,
                                  bytes);
    qn__blob_unref(bytes);
    return *out ? QN_OK : QN_NOMEM(error);
}

/* --- weights ----------------------------------------------------------------------------------*/
/* How many weights there are: known for plain floats; packed ones say it themselves. */
static qn_status count_weights(qn_mnn_reader *r, const qn_mnn_stored *stored, size_t *out,
                               qn_error *error)
{
    const int64_t type = stored->quan ? qn__fb_int(r->doc, stored->quan, QN_MNN_IDSTQuan_type) : 0;
    if (stored->quan && qn__fb_has(stored->quan, QN_MNN_IDSTQuan_index)) {
        *out = (size_t)qn__fb_int(r->doc, stored->quan, QN_MNN_IDSTQuan_weightSize);
        return QN_OK;
    }
    if (!stored->blob)
        return qn__mnn_fail(r, error, QN_CORRUPT, "there are no weights");
    const uint8_t *b = stored->blob->data;
    const size_t size = stored->blob->size_bytes;
    if (type != 1 && type != 2) {
        *out = size / (type == 3 ? 2 : type == 4 ? 1 : 4);
        return QN_OK;
    }
    const size_t width = qn__fb_int(r->doc, stored->quan, QN_MNN_IDSTQuan_shapeInt32) != 0 ? 4 : 2;
    size_t count = 1;
    if (size == 0 || (size - 1) / width < b[0])
        return qn__mnn_fail(r, error, QN_CORRUPT, "packed weights end in their dimensions");
    for (size_t i = 0; i < b[0]; i++) {
        const int64_t dim =
            width == 2 ? b[1 + 2 * i] | b[2 + 2 * i] << 8 : qn__load_int(b + 1, QN_DTYPE_U32, i);
        if (!qn_mul_size(&count, count, (size_t)dim))
            return qn__mnn_fail(r, error, QN_CORRUPT, "packed weights are too many");
    }
    *out = count;
    return QN_OK;
}

static bool all_finite(const qn_blob *blob)
{
    for (size_t i = 0; i < blob->size_bytes / 4; i++)
        if (!isfinite(qn__load_real(blob->data, QN_DTYPE_F32, i)))
            return false;
    return true;
}

static qn_status weights_blob(qn_mnn_reader *r, const qn_mnn_stored *stored, size_t rows,
                              size_t count, qn_blob **out, qn_error *error)
{
    const bool plain = stored->blob && (!stored->quan || qn__fb_int(r->doc, stored->quan,
                                                                    QN_MNN_IDSTQuan_type) == 8);
    if (plain && stored->blob->size_bytes / 4 == count && stored->blob->size_bytes % 4 == 0) {
        if (!all_finite(stored->blob))
            return qn__mnn_fail(r, error, QN_NONFINITE, "a weight is not finite");
        *out = qn__blob_ref(stored->blob);
        return QN_OK;
    }
    qn_mnn_packed packed;
    const qn_status status = qn__mnn_unpack(r->source, r->index, rows, count, &packed, error);
    if (status != QN_OK)
        return qn__mnn_under(r, error, status);
    *out = qn__blob_copy(r->graph->ctx, packed.values, count * sizeof(float));
    qn__mnn_packed_free(r->graph->ctx, &packed);
    return *out ? QN_OK : QN_NOMEM(error);
}

static qn_tensor *named_constant(qn_mnn_reader *r, const char *what, size_t rank,
                                 const int64_t *dims, qn_blob *blob)
{
    const char *name = qn__arena_printf(&r->graph->arena, "%s:%s", r->name, what);
    return name ? qn__graph_add_constant(r->graph, name, qn_type_plain_make(QN_DTYPE_F32), rank,
                                         dims, blob)
                : NULL;
}

qn_status qn__mnn_weights(qn_mnn_reader *r, size_t rows, size_t rank, int64_t *dims, int open,
                          qn_tensor **out, qn_error *error)
{
    qn_mnn_stored stored;
    qn_status status = qn__mnn_stored(r->source, r->index, &stored, error);
    if (status != QN_OK)
        return qn__mnn_under(r, error, status);
    qn_blob *blob = NULL;
    size_t count = 0, others;
    status = count_weights(r, &stored, &count, error);
    if (status != QN_OK)
        goto done;
    if (open >= 0)
        dims[open] = 1;
    if (!qn_shape_count(&others, dims, rank) || others == 0 || count == 0 || count % others != 0 ||
        (open < 0 && count != others)) {
        status =
            qn__mnn_fail(r, error, QN_CORRUPT, "%zu weights do not fit %zu outputs", count, rows);
        goto done;
    }
    if (open >= 0)
        dims[open] = (int64_t)(count / others);
    if (count > r->graph->ctx->limits.tensor_bytes / sizeof(float))
        status = qn__mnn_fail(r, error, QN_LIMIT, "%zu weights are too many", count);
    else
        status = qn__mnn_spend(r, count * sizeof(float), error);
    if (status == QN_OK)
        status = weights_blob(r, &stored, rows, count, &blob, error);
    if (status == QN_OK && !(*out = named_constant(r, "weight", rank, dims, blob)))
        status = QN_NOMEM(error);
done:
    qn__blob_unref(blob);
    qn__mnn_stored_free(&stored);
    return status;
}

qn_status qn__mnn_bias(qn_mnn_reader *r, size_t rows, qn_tensor **out, qn_error *error)
{
    qn_mnn_stored stored;
    qn_status status = qn__mnn_stored(r->source, r->index, &stored, error);
    if (status != QN_OK)
        return qn__mnn_under(r, error, status);
    const int64_t dims[1] = {(int64_t)rows};
    *out = NULL;
    if (stored.bias) {
        status = qn__mnn_spend(r, stored.bias->size_bytes, error);
        if (status == QN_OK && stored.bias->size_bytes != rows * sizeof(float))
            status = qn__mnn_fail(r, error, QN_CORRUPT, "%zu bytes of bias for %zu outputs",
                                  stored.bias->size_bytes, rows);
        else if (status == QN_OK && !all_finite(stored.bias))
            status = qn__mnn_fail(r, error, QN_NONFINITE, "a bias is not finite");
        else if (status == QN_OK && !(*out = named_constant(r, "bias", 1, dims, stored.bias)))
            status = QN_NOMEM(error);
    }
    qn__mnn_stored_free(&stored);
    return status;
}
