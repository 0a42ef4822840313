/* Weights as IDSTQuan stores them -> integers with scales, and floats. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_source.h"

/* Bytes that are read from the front; a read beyond the end gives zeros and is remembered. */
typedef struct reader {
    const uint8_t *data;
    size_t size, at;
    bool short_of;
} reader;

static const uint8_t *take(reader *in, size_t n)
{
    if (n > in->size - in->at) {
        in->short_of = true;
        return NULL;
    }
    const uint8_t *p = in->data + in->at;
    in->at += n;
    return p;
}

static uint32_t take_uint(reader *in, size_t n)
{
    const uint8_t *p = take(in, n);
    uint32_t value = 0;
    for (size_t i = 0; p && i < n; i++)
        value |= (uint32_t)p[i] << (8 * i);
    return value;
}

/* Element i of a stream of b-bit numbers, most significant bit first. */
static uint32_t bits_at(const uint8_t *bytes, size_t i, uint32_t b)
{
    uint32_t value = 0;
    for (size_t bit = i * b; bit < (i + 1) * b; bit++)
        value = value << 1 | (bytes[bit / 8] >> (7 - bit % 8) & 1u);
    return value;
}

static uint32_t bits_for(uint32_t levels)
{
    uint32_t bits = 1;
    while ((1u << bits) < levels)
        bits++;
    return bits;
}

static void sort_levels(int8_t *levels, uint32_t *count, bool unique)
{
    for (uint32_t i = 1; i < *count; i++) {
        const int8_t value = levels[i];
        uint32_t k = i;
        for (; k > 0 && levels[k - 1] > value; k--)
            levels[k] = levels[k - 1];
        levels[k] = value;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *count; i++)
        if (!unique || kept == 0 || levels[kept - 1] != levels[i])
            levels[kept++] = levels[i];
    *count = kept;
}

/* Rank, dimensions: the number of weights must be the one that is expected. */
static qn_status read_dims(reader *in, bool wide, size_t expected, qn_error *error)
{
    const uint32_t rank = take_uint(in, 1);
    QN_FAIL_IF(in->short_of || rank == 0 || rank > 32, error, QN_CORRUPT,
               "packed weights have rank %u", rank);
    size_t count = 1;
    for (uint32_t i = 0; i < rank; i++) {
        const uint32_t dim = take_uint(in, wide ? 4 : 2);
        QN_FAIL_IF(!qn_mul_size(&count, count, dim), error, QN_CORRUPT,
                   "packed weights are too many");
    }
    QN_FAIL_IF(in->short_of || count != expected, error, QN_CORRUPT,
               "%zu packed weights where %zu are expected", count, expected);
    return QN_OK;
}

typedef struct table {
    int8_t levels[256];
    uint32_t count, bits;
} table;

static qn_status read_table(reader *in, bool unique, table *out, qn_error *error)
{
    out->count = take_uint(in, 1);
    if (out->count == 0)
        out->count = 256;
    const uint8_t *levels = take(in, out->count);
    QN_FAIL_IF(!levels, error, QN_CORRUPT, "packed weights end in their table of levels");
    memcpy(out->levels, levels, out->count);
    out->bits = bits_for(out->count);
    sort_levels(out->levels, &out->count, unique);
    return QN_OK;
}

static qn_status take_bits(reader *in, size_t count, uint32_t bits, const uint8_t **out,
                           qn_error *error)
{
    size_t total;
    QN_FAIL_IF(!qn_mul_size(&total, count, bits), error, QN_CORRUPT, "%zu packed weights", count);
    *out = take(in, total / 8 + (total % 8 != 0));
    QN_FAIL_IF(!*out, error, QN_CORRUPT, "packed weights end too early: %zu of %u bits", count,
               bits);
    return QN_OK;
}

static qn_status level(const table *t, uint32_t index, int8_t *out, qn_error *error)
{
    QN_FAIL_IF(index >= t->count, error, QN_CORRUPT, "packed weight has level %u of %u", index,
               t->count);
    *out = t->levels[index];
    return QN_OK;
}

static qn_status read_dense(reader *in, bool wide, size_t expected, qn_mnn_packed *out,
                            qn_error *error)
{
    table t;
    const uint8_t *indexes;
    QN_TRY(read_dims(in, wide, expected, error));
    QN_TRY(read_table(in, false, &t, error));
    QN_TRY(take_bits(in, expected, t.bits, &indexes, error));
    out->bits = (int32_t)t.bits;
    for (size_t i = 0; i < expected; i++)
        QN_TRY(level(&t, t.bits == 8 ? indexes[i] : bits_at(indexes, i, t.bits), &out->integers[i],
                     error));
    return QN_OK;
}

static qn_status read_sparse(reader *in, bool wide, size_t expected, qn_mnn_packed *out,
                             qn_error *error)
{
    table t;
    const uint8_t *steps, *indexes;
    QN_TRY(read_dims(in, wide, expected, error));
    const uint32_t stored = take_uint(in, 4), step_bits = take_uint(in, 1);
    QN_FAIL_IF(in->short_of || stored > expected || step_bits == 0 || step_bits > 8, error,
               QN_CORRUPT, "sparse weights: %u entries, steps of %u bits", stored, step_bits);
    QN_TRY(take_bits(in, stored, step_bits, &steps, error));
    QN_TRY(read_table(in, true, &t, error));
    QN_TRY(take_bits(in, stored, t.bits, &indexes, error));
    out->bits = (int32_t)t.bits;
    memset(out->integers, 0, expected);
    size_t at = 0;
    for (uint32_t i = 0; i < stored; i++) {
        at += bits_at(steps, i, step_bits);
        QN_FAIL_IF(at >= expected, error, QN_CORRUPT, "sparse weight %zu of %zu", at, expected);
        QN_TRY(level(&t, bits_at(indexes, i, t.bits), &out->integers[at], error));
    }
    return QN_OK;
}

static qn_status finite_floats(const qn_blob *blob, qn_dtype dtype, size_t count, float *out,
                               const char *what, qn_error *error)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)qn__load_real(blob->data, dtype, i);
        QN_FAIL_IF(!isfinite(out[i]), error, QN_NONFINITE, "%s %zu is not finite", what, i);
    }
    return QN_OK;
}

/* Scales, one per row or per block of a row, in pairs (minimum, scale) when asymmetric. */
static qn_status read_scales(const qn_mnn_source *source, const qn_mnn_stored *stored,
                             qn_mnn_packed *out, qn_error *error)
{
    const qn_fb_document *d = &source->doc;
    const qn_dtype dtype = stored->alpha_is_half ? QN_DTYPE_F16 : QN_DTYPE_F32;
    const size_t width = stored->alpha_is_half ? 2 : 4;
    const int64_t type = qn__fb_int(d, stored->quan, QN_MNN_IDSTQuan_type);
    const double factor = qn__fb_real(d, stored->quan, QN_MNN_IDSTQuan_quantScale);
    const int64_t lowest = qn__fb_int(d, stored->quan, QN_MNN_IDSTQuan_aMin);
    const bool old_raw = type == 4 && lowest == 0 && fabs(factor) < 1e-6;
    const size_t per =
        old_raw || qn__fb_int(d, stored->quan, QN_MNN_IDSTQuan_readType) != 0 ? 2 : 1;
    const size_t n = stored->alpha ? stored->alpha->size_bytes / width : 0;
    QN_FAIL_IF(n == 0 || n % (per * out->rows) != 0, error, QN_CORRUPT,
               "%zu scales for %zu rows of weights", n, out->rows);
    QN_FAIL_IF(lowest < INT8_MIN || lowest > INT8_MAX, error, QN_CORRUPT, "\"aMin\" is %" PRId64,
               lowest);
    out->symmetric = per == 1;
    out->n_blocks = n / (per * out->rows);
    QN_FAIL_IF(out->n_blocks > out->columns || out->columns % out->n_blocks != 0, error, QN_CORRUPT,
               "%zu weights in %zu blocks", out->columns, out->n_blocks);
    /* 0 stands for -128 in old files; where levels count from zero, the minimum is what 0 means. */
    out->lowest = (int32_t)(lowest == 0 ? -128 : lowest > 0 ? 0 : lowest);
    const size_t count = n / per;
    out->scales = qn__reallocarray(source->ctx, NULL, count, sizeof(float));
    float *all = qn__reallocarray(source->ctx, NULL, n, sizeof(float));
    if (per == 2)
        out->minima = qn__reallocarray(source->ctx, NULL, count, sizeof(float));
    qn_status status = QN_OK;
    if (!all || !out->scales || (per == 2 && !out->minima))
        status = QN_NOMEM(error);
    if (status == QN_OK)
        status = finite_floats(stored->alpha, dtype, n, all, "scale of weights", error);
    /* MNN multiplies minimum and scale alike; the old raw form has no factor. */
    const float by =
        old_raw || qn__fb_int(d, stored->quan, QN_MNN_IDSTQuan_has_scaleInt) ? 1.0f : (float)factor;
    for (size_t i = 0; status == QN_OK && i < count; i++) {
        out->scales[i] = all[i * per + per - 1] * by;
        if (per == 2)
            out->minima[i] = all[i * 2] * by;
    }
    qn__free(source->ctx, all);
    return status;
}

static void dequantize(qn_mnn_packed *p)
{
    const size_t block = p->columns / p->n_blocks;
    for (size_t i = 0; i < p->rows * p->columns; i++) {
        const size_t s = i / p->columns * p->n_blocks + i % p->columns / block;
        p->values[i] =
            p->symmetric ? (float)p->integers[i] * p->scales[s]
                         : p->minima[s] + ((float)p->integers[i] - (float)p->lowest) * p->scales[s];
    }
}

static qn_status read_integers(const qn_mnn_source *source, const qn_mnn_stored *stored,
                               int64_t type, size_t expected, qn_mnn_packed *out, qn_error *error)
{
    const bool wide = qn__fb_int(&source->doc, stored->quan, QN_MNN_IDSTQuan_shapeInt32) != 0;
    reader in = {stored->blob->data, stored->blob->size_bytes, 0, false};
    out->integers = qn__alloc(source->ctx, expected);
    if (!out->integers)
        return QN_NOMEM(error);
    if (type == 1) {
        QN_TRY(read_dense(&in, wide, expected, out, error));
    } else if (type == 2) {
        QN_TRY(read_sparse(&in, wide, expected, out, error));
    } else {
        QN_FAIL_IF(in.size != expected, error, QN_CORRUPT, "%zu weights where %zu are expected",
                   in.size, expected);
        memcpy(out->integers, in.data, expected);
        out->bits = 8;
    }
    QN_TRY(read_scales(source, stored, out, error));
    dequantize(out);
    return QN_OK;
}

/* The older sparse form of floats: positions and values. */
static qn_status read_indexed(const qn_mnn_source *source, const qn_mnn_stored *stored,
                              size_t expected, qn_mnn_packed *out, qn_error *error)
{
    const qn_fb_document *d = &source->doc;
    size_t n = 0;
    qn__fb_bytes(stored->quan, QN_MNN_IDSTQuan_index, &n);
    const int64_t size = qn__fb_int(d, stored->quan, QN_MNN_IDSTQuan_weightSize);
    QN_FAIL_IF(size < 0 || (uint64_t)size != expected || !stored->alpha || stored->alpha_is_half ||
                   stored->alpha->size_bytes / 4 != n,
               error, QN_CORRUPT, "%zu indexed weights do not fit", n);
    memset(out->values, 0, expected * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const int64_t at = qn__fb_int_at(d, stored->quan, QN_MNN_IDSTQuan_index, i);
        QN_FAIL_IF(at < 0 || (uint64_t)at >= expected, error, QN_CORRUPT,
                   "indexed weight %" PRId64 " of %zu", at, expected);
        out->values[at] = (float)qn__load_real(stored->alpha->data, QN_DTYPE_F32, i);
    }
    return QN_OK;
}

static qn_status unpack(const qn_mnn_source *source, const qn_mnn_stored *stored, size_t rows,
                        size_t expected, qn_mnn_packed *out, qn_error *error)
{
    QN_FAIL_IF(rows == 0 || expected % rows != 0, error, QN_CORRUPT, "%zu weights in %zu rows",
               expected, rows);
    out->rows = rows;
    out->columns = expected / rows;
    out->n_blocks = 1;
    out->symmetric = true;
    out->bits = 32;
    const int64_t type =
        stored->quan ? qn__fb_int(&source->doc, stored->quan, QN_MNN_IDSTQuan_type) : 0;
    const bool indexed = stored->quan && qn__fb_has(stored->quan, QN_MNN_IDSTQuan_index);
    QN_FAIL_IF(!stored->blob && !indexed, error, QN_CORRUPT, "there are no weights");
    /* A sparse form may stand for far more weights than it has bytes. */
    size_t bytes;
    QN_FAIL_IF(!qn_mul_size(&bytes, expected, sizeof(float)) ||
                   bytes > source->ctx->limits.tensor_bytes,
               error, QN_LIMIT, "%zu weights are too many", expected);
    if (!indexed && type != 2)
        QN_FAIL_IF(expected / 8 > stored->blob->size_bytes, error, QN_CORRUPT,
                   "%zu weights in %zu bytes", expected, stored->blob->size_bytes);
    out->values = qn__alloc(source->ctx, bytes);
    if (!out->values)
        return QN_NOMEM(error);
    if (indexed)
        return read_indexed(source, stored, expected, out, error);
    if (type == 1 || type == 2 || type == 4)
        return read_integers(source, stored, type, expected, out, error);
    QN_FAIL_IF(stored->quan && type != 3 && type != 8, error, QN_UNSUPPORTED,
               "packed weights of type %" PRId64, type);
    const size_t width = type == 3 ? 2 : 4;
    QN_FAIL_IF(stored->blob->size_bytes != expected * width, error, QN_CORRUPT,
               "%zu bytes of weights where %zu are expected", stored->blob->size_bytes,
               expected * width);
    return finite_floats(stored->blob, type == 3 ? QN_DTYPE_F16 : QN_DTYPE_F32, expected,
                         out->values, "weight", error);
}

qn_status qn__mnn_unpack(const qn_mnn_source *source, size_t op, size_t rows, size_t expected,
                         qn_mnn_packed *out, qn_error *error)
{
    qn_mnn_stored stored;
    /* Opening the side file is all that changes in the source. */
    QN_TRY(qn__mnn_stored((qn_mnn_source *)source, op, &stored, error));
    qn_mnn_packed made = {0};
    const qn_status status = unpack(source, &stored, rows, expected, &made, error);
    qn__mnn_stored_free(&stored);
    if (status != QN_OK)
        qn__mnn_packed_free(source->ctx, &made);
    else
        *out = made;
    return status;
}

void qn__mnn_packed_free(const qn_context *ctx, qn_mnn_packed *packed)
{
    qn__free(ctx, packed->integers);
    qn__free(ctx, packed->scales);
    qn__free(ctx, packed->minima);
    qn__free(ctx, packed->values);
    *packed = (qn_mnn_packed){0};
}
