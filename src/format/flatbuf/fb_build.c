/* A tree becomes a file. Everything is laid out from front to back: a vtable before the first table
 * that uses it, a table, then what it refers to, field by field. The tree is walked twice by the
 * same code: once to know all sizes and once to write, so that large vectors are copied once. */
#include <stdarg.h>
#include <stdio.h>

#include "format/flatbuf/fb_internal.h"

typedef struct vtable {
    uint64_t hash, position;
    size_t first, count; /* in builder.entries */
} vtable;

typedef struct builder {
    const qn_fb_document *doc;
    uint8_t *bytes;    /* NULL: measuring */
    uint64_t position; /* end of what was laid out */
    uint32_t max_depth;
    vtable *vtables;
    size_t n_vtables, vtables_capacity;
    uint16_t *entries; /* of all vtables: their contents */
    size_t n_entries, entries_capacity;
    uint32_t *buckets; /* hash -> index in vtables + 1 */
    size_t n_buckets;  /* a power of two */
    qn_error *error;
} builder;

static qn_status fail_at(const builder *b, const fb_way *way, qn_status status, const char *format,
                         ...) QN_PRINTF(4, 5);
static qn_status fail_at(const builder *b, const fb_way *way, qn_status status, const char *format,
                         ...)
{
    char where[FB_WAY_BYTES], what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    qn__fb_way_text(way, where);
    const char *path = b->doc->path ? b->doc->path : "", *colon = b->doc->path ? ": " : "";
    return qn__error_set(b->error, status, "%s%s%s: %s", path, colon, where, what);
}

/* Lays out size bytes such that byte `lead` of them is aligned. */
static qn_status place(builder *b, const fb_way *way, uint64_t size, uint64_t lead,
                       uint64_t alignment, uint64_t *at)
{
    const uint64_t start = (b->position + lead + alignment - 1) / alignment * alignment - lead;
    if (size > FB_MAX_BYTES || start + size > FB_MAX_BYTES)
        return fail_at(b, way, QN_LIMIT, "the file would be larger than 2 GiB");
    b->position = start + size;
    *at = start;
    return QN_OK;
}

static void put32(builder *b, uint64_t at, uint64_t value)
{
    const uint32_t number = (uint32_t)value;
    if (b->bytes)
        memcpy(b->bytes + at, &number, sizeof(number));
}

/* The field at `at` refers to what lies at `target`, behind it. */
static void refer(builder *b, uint64_t at, uint64_t target)
{
    put32(b, at, target - at);
}

static void put_bytes(builder *b, uint64_t at, const void *data, uint64_t size)
{
    if (b->bytes && size)
        memcpy(b->bytes + at, data, size);
}

/* --- vtables
 * ------------------------------------------------------------------------------------*/

static bool grow_buckets(builder *b)
{
    const qn_context *ctx = b->doc->ctx;
    const size_t n = b->n_buckets ? b->n_buckets * 2 : 64;
    uint32_t *buckets = qn__calloc(ctx, n, sizeof(*buckets));
    if (!buckets)
        return false;
    for (size_t i = 0; i < b->n_vtables; i++) {
        size_t at = b->vtables[i].hash & (n - 1);
        while (buckets[at])
            at = (at + 1) & (n - 1);
        buckets[at] = (uint32_t)i + 1;
    }
    qn__free(ctx, b->buckets);
    b->buckets = buckets;
    b->n_buckets = n;
    return true;
}

/* *index is the vtable that equals the last `count` entries, which are dropped if it is not new. */
static qn_status share_vtable(builder *b, const fb_way *way, size_t count, size_t *index)
{
    const uint16_t *entries = b->entries + b->n_entries - count;
    const uint64_t hash = qn__fb_hash(entries, count * sizeof(*entries));
    if (b->n_vtables * 2 >= b->n_buckets && !grow_buckets(b))
        return QN_NOMEM(b->error);
    size_t at = hash & (b->n_buckets - 1);
    for (; b->buckets[at]; at = (at + 1) & (b->n_buckets - 1)) {
        const vtable *known = &b->vtables[b->buckets[at] - 1];
        if (known->hash == hash && known->count == count &&
            memcmp(b->entries + known->first, entries, count * sizeof(*entries)) == 0) {
            b->n_entries -= count;
            *index = b->buckets[at] - 1;
            return QN_OK;
        }
    }
    if (!QN_GROW(b->doc->ctx, &b->vtables, &b->vtables_capacity, b->n_vtables))
        return QN_NOMEM(b->error);
    uint64_t position = 0;
    QN_TRY(place(b, way, count * sizeof(*entries), 0, 2, &position));
    put_bytes(b, position, entries, count * sizeof(*entries));
    *index = b->n_vtables++;
    b->vtables[*index] = (vtable){hash, position, b->n_entries - count, count};
    b->buckets[at] = (uint32_t)*index + 1;
    return QN_OK;
}

/* --- tables
 * -------------------------------------------------------------------------------------*/

static uint32_t field_bytes(const qn_fb_field *field)
{
    return field->kind == QN_FB_SCALAR ? (uint32_t)qn__fb_scalar_bytes(field->element) : 4;
}

static qn_status count_slots(const builder *b, const fb_way *way, const qn_fb_object *object,
                             size_t *n_slots)
{
    const uint32_t n_fields = b->doc->schema->records[object->record].n_fields;
    *n_slots = 0;
    for (uint32_t slot = 0; slot < n_fields; slot++)
        if (object->values[slot].present)
            *n_slots = slot + 1;
    for (uint32_t i = 0; i < object->n_unknown; i++) {
        const qn_fb_unknown *unknown = &object->unknown[i];
        if (unknown->maybe_offset)
            return fail_at(b, way, QN_UNSUPPORTED,
                           "field %u is of a newer version of the format and may refer to other "
                           "data, so the file cannot be written again",
                           unknown->slot);
        if (unknown->slot >= *n_slots)
            *n_slots = unknown->slot + 1;
    }
    return QN_OK;
}

/* Appends the vtable of object to b->entries: large fields first, so that there is no padding. */
static qn_status append_entries(builder *b, const fb_way *way, const qn_fb_object *object,
                                size_t count)
{
    const qn_fb_record *record = &b->doc->schema->records[object->record];
    if (b->n_entries + count > b->entries_capacity) {
        const size_t capacity = b->entries_capacity * 2 + count + 256;
        uint16_t *more = qn__reallocarray(b->doc->ctx, b->entries, capacity, sizeof(*more));
        if (!more)
            return QN_NOMEM(b->error);
        b->entries = more;
        b->entries_capacity = capacity;
    }
    uint16_t *entries = b->entries + b->n_entries;
    memset(entries, 0, count * sizeof(*entries));
    uint32_t size = 4;
    for (uint32_t bytes = 8; bytes; bytes /= 2) {
        for (uint32_t slot = 0; slot < record->n_fields; slot++)
            if (object->values[slot].present && field_bytes(&record->fields[slot]) == bytes) {
                entries[2 + slot] = (uint16_t)size;
                size += bytes;
            }
        for (uint32_t i = 0; i < object->n_unknown; i++)
            if (object->unknown[i].size_bytes == bytes) {
                entries[2 + object->unknown[i].slot] = (uint16_t)size;
                size += bytes;
            }
    }
    if (size > UINT16_MAX || count * sizeof(*entries) > UINT16_MAX)
        return fail_at(b, way, QN_LIMIT, "a table larger than 64 KiB");
    entries[0] = (uint16_t)(count * sizeof(*entries));
    entries[1] = (uint16_t)size;
    b->n_entries += count;
    return QN_OK;
}

static bool has_wide_field(const builder *b, const qn_fb_object *object)
{
    const qn_fb_record *record = &b->doc->schema->records[object->record];
    for (uint32_t slot = 0; slot < record->n_fields; slot++)
        if (object->values[slot].present && field_bytes(&record->fields[slot]) == 8)
            return true;
    for (uint32_t i = 0; i < object->n_unknown; i++)
        if (object->unknown[i].size_bytes == 8)
            return true;
    return false;
}

/* Lays out the table itself, with its numbers. *entries: where its vtable begins in b->entries. */
static qn_status begin_table(builder *b, const fb_way *way, const qn_fb_object *object,
                             uint64_t *table, size_t *entries)
{
    const qn_fb_record *record = &b->doc->schema->records[object->record];
    size_t n_slots = 0, index = 0;
    QN_TRY(count_slots(b, way, object, &n_slots));
    QN_TRY(append_entries(b, way, object, n_slots + 2));
    QN_TRY(share_vtable(b, way, n_slots + 2, &index));
    *entries = b->vtables[index].first;
    const uint16_t *offsets = b->entries + *entries;
    /* Fields begin at byte 4: that is what has to be aligned. */
    QN_TRY(place(b, way, offsets[1], 4, has_wide_field(b, object) ? 8 : 4, table));
    if (!b->bytes)
        return QN_OK;
    put32(b, *table, *table - b->vtables[index].position);
    for (uint32_t slot = 0; slot < record->n_fields; slot++)
        if (object->values[slot].present && record->fields[slot].kind == QN_FB_SCALAR)
            qn__fb_store(record->fields[slot].element, &object->values[slot],
                         b->bytes + *table + offsets[2 + slot]);
    for (uint32_t i = 0; i < object->n_unknown; i++)
        put_bytes(b, *table + offsets[2 + object->unknown[i].slot], object->unknown[i].bytes,
                  object->unknown[i].size_bytes);
    return QN_OK;
}

static qn_status write_table(builder *b, const fb_way *way, const qn_fb_object *object,
                             int32_t record, uint32_t depth, uint64_t *at);

static qn_status write_text(builder *b, const fb_way *way, const qn_fb_text *text, uint64_t *at)
{
    QN_TRY(place(b, way, 4 + (uint64_t)text->length + 1, 0, 4, at));
    put32(b, *at, text->length);
    put_bytes(b, *at + 4, text->text, text->length);
    return QN_OK;
}

static qn_status write_vector(builder *b, const fb_way *way, const qn_fb_value *value,
                              qn_fb_scalar element, uint64_t *at)
{
    const uint64_t width = qn__fb_scalar_bytes(element), bytes = value->count * width;
    QN_TRY(place(b, way, 4 + bytes, 4, width < 4 ? 4 : width, at));
    put32(b, *at, value->count);
    put_bytes(b, *at + 4, value->bytes, bytes);
    return QN_OK;
}

/* A vector of offsets, then what they refer to. */
static qn_status write_references(builder *b, const fb_way *way, const qn_fb_field *field,
                                  const qn_fb_value *value, uint32_t depth, uint64_t *at)
{
    QN_TRY(place(b, way, 4 + 4 * (uint64_t)value->count, 0, 4, at));
    put32(b, *at, value->count);
    for (uint32_t i = 0; i < value->count; i++) {
        const fb_way here = {way->up, way->record, way->slot, i};
        uint64_t target = 0;
        if (field->kind == QN_FB_VECTOR_STRING)
            QN_TRY(write_text(b, &here, &value->strings[i], &target));
        else
            QN_TRY(write_table(b, &here, value->tables[i], field->target, depth + 1, &target));
        refer(b, *at + 4 + 4 * (uint64_t)i, target);
    }
    return QN_OK;
}

/* The record that the union's tag asks for. */
static int32_t union_record(const builder *b, const fb_way *way, const qn_fb_object *object)
{
    const qn_fb_union *u = &b->doc->schema->unions[way->record->fields[way->slot].target];
    const qn_fb_value *tag = &object->values[way->slot - 1];
    return tag->present && tag->i >= 0 && tag->i < u->n_members ? u->members[tag->i] : -1;
}

static qn_status write_field(builder *b, const fb_way *way, const qn_fb_object *object,
                             uint32_t depth, uint64_t *at)
{
    const qn_fb_field *field = &way->record->fields[way->slot];
    const qn_fb_value *value = &object->values[way->slot];
    switch (field->kind) {
    case QN_FB_SCALAR:
        break;
    case QN_FB_STRING:
        return write_text(b, way, &value->string, at);
    case QN_FB_TABLE:
        return write_table(b, way, value->table, field->target, depth + 1, at);
    case QN_FB_UNION:
        return write_table(b, way, value->table, union_record(b, way, object), depth + 1, at);
    case QN_FB_VECTOR:
        return write_vector(b, way, value, field->element, at);
    case QN_FB_VECTOR_STRING:
    case QN_FB_VECTOR_TABLE:
        return write_references(b, way, field, value, depth, at);
    }
    return QN_OK;
}

static qn_status write_table(builder *b, const fb_way *way, const qn_fb_object *object,
                             int32_t record_index, uint32_t depth, uint64_t *at)
{
    if (depth > b->max_depth)
        return fail_at(b, way, QN_LIMIT, "tables are nested deeper than %u", b->max_depth);
    if (!object || object->record != record_index)
        return fail_at(b, way, QN_INTERNAL, "a table of the wrong record");
    const qn_fb_record *record = &b->doc->schema->records[object->record];
    size_t entries = 0;
    QN_TRY(begin_table(b, way, object, at, &entries));
    for (uint32_t slot = 0; slot < record->n_fields; slot++) {
        const fb_way here = {way, record, slot, -1};
        uint64_t target = 0;
        if (!object->values[slot].present || record->fields[slot].kind == QN_FB_SCALAR)
            continue;
        QN_TRY(write_field(b, &here, object, depth, &target));
        refer(b, *at + b->entries[entries + 2 + slot], target);
    }
    return QN_OK;
}

static qn_status lay_out(builder *b)
{
    const qn_fb_schema *schema = b->doc->schema;
    const fb_way way = {NULL, &schema->records[schema->root], -1, -1};
    uint64_t start = 0, root = 0;
    b->position = 0;
    b->n_vtables = b->n_entries = 0;
    if (b->buckets)
        memset(b->buckets, 0, b->n_buckets * sizeof(*b->buckets));
    QN_TRY(place(b, &way, schema->identifier ? 8 : 4, 0, 4, &start));
    if (schema->identifier)
        put_bytes(b, 4, schema->identifier, 4);
    QN_TRY(write_table(b, &way, b->doc->root, schema->root, 1, &root));
    refer(b, 0, root);
    /* The smallest file that readers take is 12 bytes long. */
    return place(b, &way, b->position < 12 ? 12 - b->position : 0, 0, 1, &start);
}

qn_status qn__fb_build(const qn_fb_document *document, uint8_t **bytes, size_t *size_bytes,
                       qn_error *error)
{
    const qn_context *ctx = document->ctx;
    builder b = {.doc = document, .max_depth = qn__fb_max_depth(ctx), .error = error};
    qn_status status;
    QN_TRY_GOTO(lay_out(&b));
    const uint64_t size = b.position;
    b.bytes = qn__calloc(ctx, size, 1); /* zeros are padding and ends of strings */
    if (!b.bytes) {
        status = QN_NOMEM(error);
        goto done;
    }
    QN_TRY_GOTO(lay_out(&b));
    *bytes = b.bytes;
    *size_bytes = size;
    b.bytes = NULL;
done:
    qn__free(ctx, b.bytes);
    qn__free(ctx, b.vtables);
    qn__free(ctx, b.entries);
    qn__free(ctx, b.buckets);
    return status;
}
