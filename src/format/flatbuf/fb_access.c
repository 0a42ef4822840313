/* Looking at a tree: scalars with their defaults, elements of vectors, the way to an object. */
#include <stdio.h>

#include "format/flatbuf/fb_internal.h"

size_t qn__fb_scalar_bytes(qn_fb_scalar type)
{
    static const uint8_t BYTES[] = {
        [QN_FB_NONE] = 0, [QN_FB_BOOL] = 1, [QN_FB_I8] = 1,  [QN_FB_U8] = 1,
        [QN_FB_I16] = 2,  [QN_FB_U16] = 2,  [QN_FB_I32] = 4, [QN_FB_U32] = 4,
        [QN_FB_I64] = 8,  [QN_FB_U64] = 8,  [QN_FB_F32] = 4, [QN_FB_F64] = 8};
    return (size_t)type < sizeof(BYTES) ? BYTES[type] : 0;
}

bool qn__fb_is_real(qn_fb_scalar type)
{
    return type == QN_FB_F32 || type == QN_FB_F64;
}

uint32_t qn__fb_max_depth(const qn_context *ctx)
{
    return ctx->limits.nesting < FB_MAX_DEPTH ? ctx->limits.nesting : FB_MAX_DEPTH;
}

void qn__fb_way_text(const fb_way *way, char text[FB_WAY_BYTES])
{
    const fb_way *steps[FB_MAX_DEPTH + 2];
    size_t n = 0, length = 0;
    for (; way && n < sizeof(steps) / sizeof(steps[0]); way = way->up)
        steps[n++] = way;
    text[0] = '\0';
    for (size_t i = n; i-- > 0 && length < FB_WAY_BYTES;) {
        const fb_way *step = steps[i];
        if (i + 1 == n)
            length += (size_t)snprintf(text, FB_WAY_BYTES, "%s", step->record->name);
        if (step->slot >= 0 && length < FB_WAY_BYTES)
            length += (size_t)snprintf(text + length, FB_WAY_BYTES - length, ".%s",
                                       step->record->fields[step->slot].name);
        if (step->index >= 0 && length < FB_WAY_BYTES)
            length += (size_t)snprintf(text + length, FB_WAY_BYTES - length, "[%lld]",
                                       (long long)step->index);
    }
}

qn_fb_value qn__fb_load(qn_fb_scalar type, const uint8_t *at)
{
    qn_fb_value value = {.present = true};
    int8_t i8;
    int16_t i16;
    int32_t i32;
    float f32;
    switch (type) {
    case QN_FB_BOOL:
    case QN_FB_U8:
        value.i = at[0];
        break;
    case QN_FB_I8:
        memcpy(&i8, at, 1), value.i = i8;
        break;
    case QN_FB_I16:
        memcpy(&i16, at, 2), value.i = i16;
        break;
    case QN_FB_U16:
        value.i = fb_load16(at);
        break;
    case QN_FB_I32:
        memcpy(&i32, at, 4), value.i = i32;
        break;
    case QN_FB_U32:
        value.i = fb_load32(at);
        break;
    case QN_FB_I64:
    case QN_FB_U64:
        memcpy(&value.i, at, 8);
        break;
    case QN_FB_F32:
        memcpy(&f32, at, 4), value.f = (double)f32;
        break;
    case QN_FB_F64:
        memcpy(&value.f, at, 8);
        break;
    case QN_FB_NONE:
        break;
    }
    return value;
}

void qn__fb_store(qn_fb_scalar type, const qn_fb_value *value, uint8_t *at)
{
    if (type == QN_FB_F32) {
        const float f32 = (float)value->f;
        memcpy(at, &f32, sizeof(f32));
    } else { /* the low bytes of an integer, all of a double */
        memcpy(at, &value->i, qn__fb_scalar_bytes(type));
    }
}

uint64_t qn__fb_hash(const void *data, size_t size_bytes)
{
    const uint8_t *bytes = data;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static const qn_fb_field *field_of(const qn_fb_document *d, const qn_fb_object *object,
                                   uint32_t slot)
{
    return &d->schema->records[object->record].fields[slot];
}

bool qn__fb_has(const qn_fb_object *object, uint32_t slot)
{
    return object->values[slot].present;
}

int64_t qn__fb_int(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot)
{
    const qn_fb_field *field = field_of(d, object, slot);
    const qn_fb_value *value = &object->values[slot];
    if (!value->present)
        return (int64_t)field->fallback;
    return field->element == QN_FB_BOOL ? value->i != 0 : value->i;
}

double qn__fb_real(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot)
{
    const qn_fb_field *field = field_of(d, object, slot);
    if (!object->values[slot].present)
        return field->fallback;
    return qn__fb_is_real(field->element) ? object->values[slot].f : (double)object->values[slot].i;
}

const char *qn__fb_string(const qn_fb_object *object, uint32_t slot)
{
    return object->values[slot].present ? object->values[slot].string.text : NULL;
}

qn_fb_object *qn__fb_table(const qn_fb_object *object, uint32_t slot)
{
    return object->values[slot].present ? object->values[slot].table : NULL;
}

qn_fb_object **qn__fb_tables(const qn_fb_object *object, uint32_t slot, size_t *count)
{
    const qn_fb_value *value = &object->values[slot];
    *count = value->present ? value->count : 0;
    return *count ? value->tables : NULL;
}

const uint8_t *qn__fb_bytes(const qn_fb_object *object, uint32_t slot, size_t *count)
{
    const qn_fb_value *value = &object->values[slot];
    *count = value->present ? value->count : 0;
    return *count ? value->bytes : NULL;
}

/* A missing element is 0: a caller that checked the count never sees it. */
static qn_fb_value element_at(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot,
                              size_t index)
{
    const qn_fb_scalar type = field_of(d, object, slot)->element;
    const qn_fb_value *value = &object->values[slot];
    if (!value->present || index >= value->count)
        return (qn_fb_value){.present = false};
    return qn__fb_load(type, value->bytes + index * qn__fb_scalar_bytes(type));
}

int64_t qn__fb_int_at(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot,
                      size_t index)
{
    const qn_fb_value value = element_at(d, object, slot, index);
    return field_of(d, object, slot)->element == QN_FB_BOOL ? value.i != 0 : value.i;
}

double qn__fb_real_at(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot,
                      size_t index)
{
    const qn_fb_value value = element_at(d, object, slot, index);
    return qn__fb_is_real(field_of(d, object, slot)->element) ? value.f : (double)value.i;
}

const char *qn__fb_string_at(const qn_fb_object *object, uint32_t slot, size_t index)
{
    const qn_fb_value *value = &object->values[slot];
    return value->present && index < value->count ? value->strings[index].text : NULL;
}
