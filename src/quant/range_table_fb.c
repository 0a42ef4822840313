/* onnxruntime's calibration.flatbuffers: a table with one vector of pairs of strings, a tensor's
 * name and its largest magnitude. */
#include "quant/range_table.h"

#include "core/number.h"

#include <string.h>

typedef struct bytes {
    const uint8_t *data;
    size_t size;
    bool failed;
} bytes;

static uint32_t u32_at(bytes *b, size_t at)
{
    if (at > b->size || b->size - at < 4) {
        b->failed = true;
        return 0;
    }
    const uint8_t *p = b->data + at;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t u16_at(bytes *b, size_t at)
{
    if (at > b->size || b->size - at < 2) {
        b->failed = true;
        return 0;
    }
    return (uint32_t)b->data[at] | (uint32_t)b->data[at + 1] << 8;
}

static size_t follow(bytes *b, size_t at)
{
    return at + u32_at(b, at);
}

/* What field `index` of the table at `at` points to; 0: it is not there. */
static size_t field(bytes *b, size_t at, size_t index)
{
    const int64_t vtable = (int64_t)at - (int32_t)u32_at(b, at);
    if (b->failed || vtable < 0 || (uint64_t)vtable > b->size) {
        b->failed = true;
        return 0;
    }
    const uint32_t size = u16_at(b, (size_t)vtable);
    if (4 + 2 * index + 2 > size)
        return 0;
    const uint32_t offset = u16_at(b, (size_t)vtable + 4 + 2 * index);
    return offset == 0 || b->failed ? 0 : follow(b, at + offset);
}

static const char *string(bytes *b, size_t at, size_t *length)
{
    *length = u32_at(b, at);
    b->failed |= at == 0 || b->failed || *length > b->size - at - 4;
    const char *text = b->failed ? NULL : (const char *)b->data + at + 4;
    b->failed |= text != NULL && memchr(text, 0, *length) != NULL;
    return b->failed ? NULL : text;
}

qn_status qn__range_table_fb(qn_range_table *t, const uint8_t *data, size_t size, qn_error *error)
{
    bytes b = {data, size, false};
    t->kind = "onnxruntime's calibration table";
    const size_t list = field(&b, follow(&b, 0), 0);
    const size_t count = list == 0 ? 0 : u32_at(&b, list);
    b.failed |= count > size / 4;
    for (size_t i = 0; i < count && !b.failed; i++) {
        char copy[64];
        double most;
        size_t name_length = 0, length = 0;
        const size_t pair = follow(&b, list + 4 + 4 * i);
        const char *name = string(&b, field(&b, pair, 0), &name_length);
        const char *value = string(&b, field(&b, pair, 1), &length);
        if (name == NULL || value == NULL || length >= sizeof(copy)) {
            b.failed = true;
            break;
        }
        memcpy(copy, value, length);
        copy[length] = '\0';
        if (!qn__parse_f64(copy, NULL, &most) || !(most >= 0) ||
            !qn__range_table_add(t, name, name_length, -most, most, false))
            b.failed = true;
    }
    if (t->nomem)
        return QN_NOMEM(error);
    QN_FAIL_IF(b.failed, error, QN_CORRUPT, "%s: neither text nor a calibration table", t->path);
    return QN_OK;
}
