#include "data/tensor_file.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "core/checked.h"
#include "data/zip.h"

/* --- npy header: a Python dict literal ---------------------------------------------------------*/

typedef struct qn_npy_cursor {
    const char *p, *end;
} qn_npy_cursor;

static void skip_space(qn_npy_cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
        c->p++;
}

static bool take(qn_npy_cursor *c, char wanted)
{
    skip_space(c);
    if (c->p == c->end || *c->p != wanted)
        return false;
    c->p++;
    return true;
}

static bool take_string(qn_npy_cursor *c, char *out, size_t capacity)
{
    skip_space(c);
    if (c->p == c->end || (*c->p != '\'' && *c->p != '"'))
        return false;
    const char quote = *c->p++;
    size_t n = 0;
    while (c->p < c->end && *c->p != quote) {
        if (n + 1 >= capacity)
            return false;
        out[n++] = *c->p++;
    }
    out[n] = '\0';
    return take(c, quote);
}

static bool take_word(qn_npy_cursor *c, const char *word)
{
    const size_t n = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, word, n) != 0)
        return false;
    c->p += n;
    return true;
}

static bool take_number(qn_npy_cursor *c, int64_t *out)
{
    skip_space(c);
    const char *start = c->p;
    int64_t value = 0;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
        if (value > (INT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (*c->p - '0');
    }
    if (c->p == start)
        return false;
    if (c->p < c->end && *c->p == 'L') /* Python 2 */
        c->p++;
    *out = value;
    return true;
}

static bool take_shape(qn_npy_cursor *c, qn_tensor_file *file)
{
    if (!take(c, '('))
        return false;
    file->rank = 0;
    while (!take(c, ')')) {
        if (file->rank == QN_MODEL_MAX_RANK + 1 || !take_number(c, &file->dims[file->rank]))
            return false;
        file->rank++;
        if (!take(c, ',')) {
            if (!take(c, ')'))
                return false;
            break;
        }
    }
    return true;
}

typedef struct qn_element_info {
    const char *npy; /* without the byte order */
    const char *raw; /* --raw-type */
    qn_element element;
    size_t bytes;
} qn_element_info;

static const qn_element_info element_infos[] = {
    {"f2", "f16", QN_ELEMENT_F16, 2},  {"f4", "f32", QN_ELEMENT_F32, 4},
    {"f8", "f64", QN_ELEMENT_F64, 8},  {"u1", "u8", QN_ELEMENT_U8, 1},
    {"i1", "i8", QN_ELEMENT_I8, 1},    {"u2", "u16", QN_ELEMENT_U16, 2},
    {"i2", "i16", QN_ELEMENT_I16, 2},  {"u4", "u32", QN_ELEMENT_U32, 4},
    {"i4", "i32", QN_ELEMENT_I32, 4},  {"i8", "i64", QN_ELEMENT_I64, 8},
    {"b1", "bool", QN_ELEMENT_BOOL, 1}};

static bool set_element(qn_tensor_file *file, const char *name, bool raw)
{
    for (size_t i = 0; i < sizeof(element_infos) / sizeof(element_infos[0]); i++) {
        const qn_element_info *info = &element_infos[i];
        if (strcmp(name, raw ? info->raw : info->npy) == 0) {
            file->element = info->element;
            file->element_bytes = info->bytes;
            return true;
        }
    }
    return false;
}

static qn_status npy_type(qn_tensor_file *file, const char *path, const char *descr,
                          qn_error *error)
{
    QN_FAIL_IF(descr[0] == '\0' || strchr("<>=|", descr[0]) == NULL ||
                   !set_element(file, descr + 1, false),
               error, QN_UNSUPPORTED,
               "%s: .npy of type \"%s\" (wanted f2 f4 f8 u1 i1 u2 i2 u4 i4 "
               "i8 or b1)",
               path, descr);
    file->big_endian = descr[0] == '>';
    return QN_OK;
}

static qn_status npy_dict(qn_tensor_file *file, const char *path, const char *text, size_t length,
                          qn_error *error)
{
    qn_npy_cursor c = {text, text + length};
    bool has_descr = false, has_order = false, has_shape = false, fortran = false;
    char key[32], descr[32];
    bool ok = take(&c, '{');
    while (ok && !take(&c, '}')) {
        ok = take_string(&c, key, sizeof(key)) && take(&c, ':');
        if (ok && strcmp(key, "descr") == 0) {
            skip_space(&c);
            QN_FAIL_IF(c.p < c.end && *c.p == '[', error, QN_UNSUPPORTED,
                       "%s: .npy of a structured type", path);
            ok = take_string(&c, descr, sizeof(descr));
            has_descr = true;
        } else if (ok && strcmp(key, "fortran_order") == 0) {
            fortran = take_word(&c, "True");
            ok = fortran || take_word(&c, "False");
            has_order = true;
        } else if (ok && strcmp(key, "shape") == 0) {
            ok = take_shape(&c, file);
            has_shape = true;
        } else {
            ok = false;
        }
        if (ok && !take(&c, ',')) {
            ok = take(&c, '}');
            break;
        }
    }
    QN_FAIL_IF(!ok || !has_descr || !has_order || !has_shape, error, QN_CORRUPT,
               "%s: malformed .npy header", path);
    QN_FAIL_IF(fortran && file->rank > 1, error, QN_UNSUPPORTED,
               "%s: .npy in Fortran order (save numpy.ascontiguousarray of it)", path);
    return npy_type(file, path, descr, error);
}

static qn_status npy_open(qn_tensor_file *file, const char *path, const uint8_t *b, size_t size,
                          qn_error *error)
{
    QN_FAIL_IF(size < 10, error, QN_CORRUPT, "%s: .npy of %zu bytes", path, size);
    const uint8_t major = b[6];
    QN_FAIL_IF(major < 1 || major > 3, error, QN_UNSUPPORTED, "%s: .npy version %u.%u", path, major,
               b[7]);
    const size_t prefix = major == 1 ? 10 : 12;
    QN_FAIL_IF(size < prefix, error, QN_CORRUPT, "%s: .npy of %zu bytes", path, size);
    size_t length = (size_t)b[8] | (size_t)b[9] << 8;
    if (major > 1)
        length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    QN_FAIL_IF(length > size - prefix, error, QN_CORRUPT,
               "%s: .npy header of %zu bytes in a file of %zu", path, length, size);
    QN_TRY(npy_dict(file, path, (const char *)b + prefix, length, error));
    size_t count, bytes;
    const size_t rest = size - prefix - length;
    QN_FAIL_IF(!qn_shape_count(&count, file->dims, file->rank) ||
                   !qn_mul_size(&bytes, count, file->element_bytes) || bytes != rest,
               error, QN_CORRUPT,
               "%s: .npy has %zu bytes of data, not what its shape and type need", path, rest);
    file->data = b + prefix + length;
    return QN_OK;
}

static qn_status raw_open(qn_tensor_file *file, const char *path, const char *type,
                          const int64_t *dims, uint32_t rank, qn_error *error)
{
    QN_FAIL_IF(!set_element(file, type, true), error, QN_INVALID_ARGUMENT,
               "--raw-type %s is not one of f32 f64 f16 u8 i8 u16 i16 u32 i32 i64 bool", type);
    size_t count, bytes;
    const size_t size = file->view.size_bytes;
    QN_FAIL_IF(!qn_shape_count(&count, dims, rank) || count == 0 ||
                   !qn_mul_size(&bytes, count, file->element_bytes),
               error, QN_INVALID_ARGUMENT, "%s: a raw sample of this shape has no size", path);
    QN_FAIL_IF(size == 0 || size % bytes != 0, error, QN_CORRUPT,
               "%s: %zu bytes are not a whole number of samples of %zu bytes", path, size, bytes);
    file->is_raw = true;
    file->rank = rank + 1;
    file->dims[0] = (int64_t)(size / bytes);
    memcpy(file->dims + 1, dims, rank * sizeof(*dims));
    file->data = file->view.data;
    return QN_OK;
}

static bool is_npy(const uint8_t *data, size_t size)
{
    return size >= 6 && memcmp(data, "\x93NUMPY", 6) == 0;
}

/* numpy.savez: a zip archive of NAME.npy. */
static bool names_input(const char *member, const char *input)
{
    const size_t n = strlen(input);
    return strncmp(member, input, n) == 0 && (member[n] == '\0' || strcmp(member + n, ".npy") == 0);
}

static qn_status npz_open(qn_tensor_file *file, const char *path, const char *input, bool alone,
                          qn_error *error)
{
    qn_arena arena;
    qn_zip_member *members = NULL;
    const qn_zip_member *found = NULL;
    size_t count = 0;
    const uint8_t *data = NULL;
    qn_status status = QN_OK;
    qn__arena_init(&arena, file->ctx);
    QN_TRY_GOTO(qn__zip_list(file->ctx, &arena, &file->view, path, &members, &count, error));
    for (size_t i = 0; i < count && found == NULL; i++)
        if (names_input(members[i].name, input))
            found = &members[i];
    if (found == NULL && alone && count == 1)
        found = &members[0];
    if (found == NULL)
        QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT, "%s: no array for input \"%s\" among %zu%s%s%s",
                     path, input, count, count > 0 ? " (the first is \"" : "",
                     count > 0 ? members[0].name : "", count > 0 ? "\")" : "");
    QN_TRY_GOTO(qn__zip_read(file->ctx, &file->view, path, found, file->ctx->limits.tensor_bytes,
                             &data, &file->own, error));
    if (!is_npy(data, (size_t)found->bytes))
        QN_FAIL_GOTO(error, QN_CORRUPT, "%s: member \"%s\" is not a .npy array", path, found->name);
    status = npy_open(file, path, data, (size_t)found->bytes, error);
done:
    qn__free(file->ctx, members);
    qn__arena_free(&arena);
    return status;
}

static bool is_csv(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL && strcasecmp(dot, ".csv") == 0;
}

static qn_status open_view(qn_tensor_file *file, const char *path, const char *input, bool alone,
                           qn_error *error)
{
    const uint8_t *b = file->view.data;
    const size_t size = file->view.size_bytes;
    if (is_npy(b, size))
        return npy_open(file, path, b, size, error);
    if (size >= 4 && (memcmp(b, "PK\3\4", 4) == 0 || memcmp(b, "PK\5\6", 4) == 0))
        return npz_open(file, path, input, alone, error);
    if (is_csv(path))
        return qn__csv_open(file, path, error);
    QN_FAIL(error, QN_CORRUPT,
            "%s: not a .npy, .npz or .csv file (raw data need --raw-type and --raw-shape)", path);
}

qn_status qn__tensor_file_open(const qn_context *ctx, const char *path, const char *input,
                               bool alone, const char *raw_type, const int64_t *raw_dims,
                               uint32_t raw_rank, qn_tensor_file *out, qn_error *error)
{
    qn_tensor_file file = {.ctx = ctx};
    QN_TRY(qn__file_open(ctx, path, &file.view, error));
    const qn_status status = raw_type != NULL
                                 ? raw_open(&file, path, raw_type, raw_dims, raw_rank, error)
                                 : open_view(&file, path, input, alone, error);
    if (status != QN_OK) {
        qn__tensor_file_close(&file);
        return status;
    }
    *out = file;
    return QN_OK;
}

void qn__tensor_file_close(qn_tensor_file *file)
{
    if (file->ctx != NULL) {
        qn__free(file->ctx, file->own);
        qn__file_close(file->ctx, &file->view);
    }
    *file = (qn_tensor_file){0};
}

/* --- elements ----------------------------------------------------------------------------------*/

static float half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31;
    const uint32_t mantissa = half & 0x3ff;
    uint32_t bits = sign | (exponent + 112) << 23 | mantissa << 13;
    float value;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 */
        value = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    if (exponent == 31)
        bits = sign | 0x7f800000u | mantissa << 13;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t load_bytes(const uint8_t *p, size_t n, bool big_endian)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[big_endian ? n - 1 - i : i] << (8 * i);
    return v;
}

static float element_to_float(qn_element element, uint64_t v)
{
    switch (element) {
    case QN_ELEMENT_F16:
        return half_to_float((uint16_t)v);
    case QN_ELEMENT_F32: {
        const uint32_t bits = (uint32_t)v;
        float value;
        memcpy(&value, &bits, sizeof(value));
        return value;
    }
    case QN_ELEMENT_F64: {
        double value;
        memcpy(&value, &v, sizeof(value));
        /* The cast of a value outside float's range is undefined. */
        return value > 0x1.fffffefffffffp127    ? INFINITY
               : value < -0x1.fffffefffffffp127 ? -INFINITY
                                                : (float)value;
    }
    case QN_ELEMENT_U8:
    case QN_ELEMENT_U16:
    case QN_ELEMENT_U32:
        return (float)v;
    case QN_ELEMENT_BOOL:
        return v != 0 ? 1.0f : 0.0f;
    case QN_ELEMENT_I8:
        return (float)(int8_t)v;
    case QN_ELEMENT_I16:
        return (float)(int16_t)v;
    case QN_ELEMENT_I32:
        return (float)(int32_t)v;
    case QN_ELEMENT_I64:
        return (float)(int64_t)v;
    }
    return 0.0f;
}

void qn__tensor_file_read(const qn_tensor_file *file, size_t begin, size_t count, float *dst)
{
    const size_t n = file->element_bytes;
    const uint8_t *p = file->data + begin * n;
    for (size_t i = 0; i < count; i++, p += n)
        dst[i] = element_to_float(file->element, load_bytes(p, n, file->big_endian));
}

bool qn__parse_shape(const char *text, uint32_t *rank, int64_t dims[QN_MODEL_MAX_RANK])
{
    qn_npy_cursor c = {text, text + strlen(text)};
    uint32_t n = 0;
    do {
        if (n == QN_MODEL_MAX_RANK || !take_number(&c, &dims[n]) || dims[n] == 0)
            return false;
        n++;
    } while (take(&c, ',') || take(&c, 'x'));
    skip_space(&c);
    *rank = n;
    return c.p == c.end;
}
