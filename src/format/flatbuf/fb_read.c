/* A file becomes a verified tree.
 *
 * Offsets only lead forward, so a file holds no cycle, but tables, vectors and strings may be
 * shared or overlap: what is read is charged to a budget in proportion to the file, so that a small
 * file cannot describe a large tree, nor long strings many times over. */
#include <stdarg.h>
#include <stdio.h>

#include "format/flatbuf/fb_internal.h"

/* Real files use less than 12 bytes of tree, strings and vectors per byte. */
enum { BUDGET_PER_BYTE = 32, BUDGET_FREE = 1 << 20, MAX_UNKNOWN = 64 };

typedef struct reader {
    const qn_fb_schema *schema;
    const char *path;
    const uint8_t *data;
    uint64_t size;
    uint64_t budget; /* bytes that may still be read or allocated */
    uint32_t max_depth;
    qn_fb_document doc;
    qn_error *error;
} reader;

/* A table whose frame is verified. */
typedef struct table {
    uint64_t position, vtable;
    uint32_t size, n_slots;
} table;

static qn_status fail(const reader *r, const fb_way *way, qn_status status, const char *format, ...)
    QN_PRINTF(4, 5);
static qn_status fail(const reader *r, const fb_way *way, qn_status status, const char *format, ...)
{
    char where[FB_WAY_BYTES], what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    qn__fb_way_text(way, where);
    return qn__error_set(r->error, status, "%s: %s: %s", r->path, where, what);
}

static qn_status charge(reader *r, const fb_way *way, uint64_t bytes)
{
    if (bytes > r->budget)
        return fail(r, way, QN_LIMIT,
                    "the file of %llu bytes describes more than %d times its size: it refers to "
                    "the same data again and again",
                    (unsigned long long)r->size, BUDGET_PER_BYTE);
    r->budget -= bytes;
    return QN_OK;
}

/* Follows the offset at `at` (which is inside) to something that begins with four bytes. */
static qn_status follow(const reader *r, const fb_way *way, uint64_t at, uint64_t *target)
{
    const uint32_t offset = fb_load32(r->data + at);
    const uint64_t to = at + offset;
    if (offset == 0 || offset > INT32_MAX || to + 4 > r->size)
        return fail(r, way, QN_CORRUPT,
                    "offset %u at byte %llu leads outside the file (%llu bytes)", offset,
                    (unsigned long long)at, (unsigned long long)r->size);
    if (to % 4 != 0)
        return fail(r, way, QN_CORRUPT, "offset %u at byte %llu leads to an unaligned place",
                    offset, (unsigned long long)at);
    *target = to;
    return QN_OK;
}

static qn_status read_text(reader *r, const fb_way *way, uint64_t at, qn_fb_text *out)
{
    uint64_t to = 0;
    QN_TRY(follow(r, way, at, &to));
    const uint32_t length = fb_load32(r->data + to);
    if (to + 4 + length + 1 > r->size)
        return fail(r, way, QN_CORRUPT, "a string of %u bytes at byte %llu of a file of %llu",
                    length, (unsigned long long)to, (unsigned long long)r->size);
    if (r->data[to + 4 + length] != 0)
        return fail(r, way, QN_CORRUPT, "the string at byte %llu does not end with NUL",
                    (unsigned long long)to);
    *out = (qn_fb_text){(const char *)r->data + to + 4, length};
    return charge(r, way, length);
}

/* The count of the vector at *at, whose elements begin at *at on return. */
static qn_status read_count(reader *r, const fb_way *way, uint64_t *at, size_t element,
                            uint32_t *count)
{
    uint64_t to = 0;
    QN_TRY(follow(r, way, *at, &to));
    *count = fb_load32(r->data + to);
    if (to + 4 + (uint64_t)*count * element > r->size)
        return fail(r, way, QN_CORRUPT,
                    "a vector of %u elements at byte %llu does not fit into a file of %llu bytes",
                    *count, (unsigned long long)to, (unsigned long long)r->size);
    *at = to + 4;
    return charge(r, way, (uint64_t)*count * element);
}

static qn_status read_strings(reader *r, const fb_way *way, uint64_t at, qn_fb_value *value)
{
    uint32_t count;
    QN_TRY(read_count(r, way, &at, 4, &count));
    QN_TRY(charge(r, way, (uint64_t)count * sizeof(qn_fb_text)));
    qn_fb_text *strings = qn__arena_calloc(&r->doc.arena, count, sizeof(*strings));
    if (!strings)
        return QN_NOMEM(r->error);
    for (uint32_t i = 0; i < count; i++) {
        const fb_way element = {way->up, way->record, way->slot, i};
        QN_TRY(read_text(r, &element, at + 4u * (uint64_t)i, &strings[i]));
    }
    *value = (qn_fb_value){.present = true, .count = count, .strings = strings};
    return QN_OK;
}

/* What needs no other table. */
static qn_status read_plain(reader *r, const fb_way *way, const qn_fb_field *field, uint64_t at,
                            qn_fb_value *value)
{
    uint32_t count;
    switch (field->kind) {
    case QN_FB_SCALAR:
        *value = qn__fb_load(field->element, r->data + at);
        return QN_OK;
    case QN_FB_STRING:
        QN_TRY(read_text(r, way, at, &value->string));
        value->present = true;
        return QN_OK;
    case QN_FB_VECTOR:
        QN_TRY(read_count(r, way, &at, qn__fb_scalar_bytes(field->element), &count));
        *value = (qn_fb_value){.present = true, .count = count, .bytes = r->data + at};
        return QN_OK;
    case QN_FB_VECTOR_STRING:
        return read_strings(r, way, at, value);
    case QN_FB_TABLE:
    case QN_FB_UNION:
    case QN_FB_VECTOR_TABLE:
        break;
    }
    return QN_OK;
}

/* Slots beyond the schema. A field that lies where no offset can lie, or whose value leads nowhere,
 * is a number and can be moved. */
static qn_status read_unknown(reader *r, const fb_way *way, const table *t, qn_fb_object *object)
{
    const uint8_t *vtable = r->data + t->vtable + 4;
    uint32_t count = 0, known = r->schema->records[object->record].n_fields;
    for (uint32_t slot = known; slot < t->n_slots; slot++)
        count += fb_load16(vtable + 2 * (size_t)slot) != 0;
    if (count == 0)
        return QN_OK;
    if (count > MAX_UNKNOWN)
        return fail(r, way, QN_UNSUPPORTED, "%u fields that are not known", count);
    QN_TRY(charge(r, way, (uint64_t)count * (sizeof(qn_fb_unknown) + 2 * t->n_slots)));
    qn_fb_unknown *unknown = qn__arena_calloc(&r->doc.arena, count, sizeof(*unknown));
    if (!unknown)
        return QN_NOMEM(r->error);
    object->unknown = unknown;
    for (uint32_t slot = known; slot < t->n_slots; slot++) {
        const uint32_t offset = fb_load16(vtable + 2 * (size_t)slot);
        if (offset == 0)
            continue;
        if (offset < 4 || offset >= t->size)
            return fail(r, way, QN_CORRUPT, "slot %u at byte %u of a table of %u bytes", slot,
                        offset, t->size);
        uint32_t end = t->size; /* where the next field begins */
        for (uint32_t i = 0; i < t->n_slots; i++) {
            const uint32_t other = fb_load16(vtable + 2 * (size_t)i);
            if (other > offset && other < end)
                end = other;
        }
        const uint64_t at = t->position + offset;
        uint32_t size = 8;
        while (size > end - offset || at % size != 0)
            size /= 2;
        *unknown = (qn_fb_unknown){.slot = slot, .size_bytes = size};
        memcpy(unknown->bytes, r->data + at, size);
        if (size >= 4) {
            const uint64_t value = fb_load32(unknown->bytes);
            unknown->maybe_offset =
                value % 4 == 0 && at + value >= t->position + t->size && at + value + 4 <= r->size;
        }
        /* Bytes behind it that are not padding: a structure, larger than a number. */
        for (uint64_t i = at + size; i < t->position + end; i++)
            if (r->data[i] != 0)
                unknown->maybe_offset = true;
        unknown++;
        object->n_unknown++;
    }
    return QN_OK;
}

static qn_status open_table(const reader *r, const fb_way *way, uint64_t position, table *out)
{
    const int64_t vtable = (int64_t)position - (int32_t)fb_load32(r->data + position);
    if (vtable < 0 || (uint64_t)vtable + 4 > r->size)
        return fail(r, way, QN_CORRUPT, "vtable at %lld lies outside the file", (long long)vtable);
    const uint32_t bytes = fb_load16(r->data + vtable), size = fb_load16(r->data + vtable + 2);
    if (vtable % 2 != 0 || bytes < 4 || bytes % 2 != 0 || (uint64_t)vtable + bytes > r->size)
        return fail(r, way, QN_CORRUPT, "vtable at %lld has a size of %u bytes", (long long)vtable,
                    bytes);
    if (size < 4 || position + size > r->size)
        return fail(r, way, QN_CORRUPT, "table at %llu has a size of %u bytes in a file of %llu",
                    (unsigned long long)position, size, (unsigned long long)r->size);
    *out = (table){position, (uint64_t)vtable, size, (bytes - 4) / 2};
    return QN_OK;
}

/* Byte of a field in the file, 0: absent. */
static qn_status field_at(const reader *r, const fb_way *way, const table *t, uint32_t slot,
                          const qn_fb_field *field, uint64_t *at)
{
    *at = 0;
    const uint32_t offset = slot < t->n_slots ? fb_load16(r->data + t->vtable + 4 + 2 * slot) : 0;
    if (offset == 0)
        return QN_OK;
    const size_t bytes = field->kind == QN_FB_SCALAR ? qn__fb_scalar_bytes(field->element) : 4;
    if (offset < 4 || offset + bytes > t->size)
        return fail(r, way, QN_CORRUPT, "lies at byte %u of a table of %u bytes", offset, t->size);
    if ((t->position + offset) % bytes != 0)
        return fail(r, way, QN_CORRUPT, "%zu bytes at byte %llu are not aligned", bytes,
                    (unsigned long long)(t->position + offset));
    *at = t->position + offset;
    return QN_OK;
}

static qn_status read_table(reader *r, const fb_way *way, uint64_t position, int32_t record,
                            uint32_t depth, qn_fb_object **out);

/* The record of a union's table, by the tag in the slot before it. */
static qn_status union_record(const reader *r, const fb_way *way, const qn_fb_object *object,
                              int32_t *record)
{
    const qn_fb_record *parent = way->record;
    const qn_fb_union *u = &r->schema->unions[parent->fields[way->slot].target];
    const int64_t tag = object->values[way->slot - 1].i;
    *record = tag >= 0 && tag < u->n_members ? u->members[tag] : -1;
    if (*record >= 0)
        return QN_OK;
    const char *name = "";
    for (uint32_t i = 0; i < parent->n_fields; i++)
        if (parent->fields[i].kind == QN_FB_STRING && strcmp(parent->fields[i].name, "name") == 0 &&
            object->values[i].present)
            name = object->values[i].string.text;
    return fail(r, way, tag == 0 ? QN_CORRUPT : QN_UNSUPPORTED, "unknown %s tag %lld of \"%.100s\"",
                u->name, (long long)tag, name);
}

static qn_status read_tables(reader *r, const fb_way *way, uint64_t at, int32_t record,
                             uint32_t depth, qn_fb_value *value)
{
    uint32_t count;
    QN_TRY(read_count(r, way, &at, 4, &count));
    QN_TRY(charge(r, way, (uint64_t)count * sizeof(qn_fb_object *)));
    qn_fb_object **tables = qn__arena_calloc(&r->doc.arena, count, sizeof(qn_fb_object *));
    if (!tables)
        return QN_NOMEM(r->error);
    for (uint32_t i = 0; i < count; i++) {
        const fb_way element = {way->up, way->record, way->slot, i};
        uint64_t to = 0;
        QN_TRY(follow(r, &element, at + 4u * (uint64_t)i, &to));
        QN_TRY(read_table(r, &element, to, record, depth + 1, &tables[i]));
    }
    *value = (qn_fb_value){.present = true, .count = count, .tables = tables};
    return QN_OK;
}

static qn_status read_child(reader *r, const fb_way *way, uint64_t at, uint32_t depth,
                            qn_fb_object *object)
{
    const qn_fb_field *field = &way->record->fields[way->slot];
    qn_fb_value *value = &object->values[way->slot];
    if (field->kind == QN_FB_VECTOR_TABLE)
        return read_tables(r, way, at, field->target, depth, value);
    int32_t record = field->target;
    if (field->kind == QN_FB_UNION)
        QN_TRY(union_record(r, way, object, &record));
    uint64_t to = 0;
    QN_TRY(follow(r, way, at, &to));
    QN_TRY(read_table(r, way, to, record, depth + 1, &value->table));
    value->present = true;
    return QN_OK;
}

static qn_status read_table(reader *r, const fb_way *way, uint64_t position, int32_t record_index,
                            uint32_t depth, qn_fb_object **out)
{
    const qn_fb_record *record = &r->schema->records[record_index];
    if (depth > r->max_depth)
        return fail(r, way, QN_LIMIT, "tables are nested deeper than %u", r->max_depth);
    table t = {0};
    QN_TRY(open_table(r, way, position, &t));
    QN_TRY(charge(r, way,
                  4u + 2u * (uint64_t)t.n_slots + sizeof(qn_fb_object) +
                      record->n_fields * sizeof(qn_fb_value)));
    qn_fb_object *object = qn__fb_new(&r->doc, record_index);
    if (!object)
        return QN_NOMEM(r->error);
    object->position = (uint32_t)position;
    *out = object;
    /* Numbers and strings first: unions need their tag, messages the operator's name. */
    for (int children = 0; children < 2; children++)
        for (uint32_t slot = 0; slot < record->n_fields; slot++) {
            const qn_fb_field *field = &record->fields[slot];
            const fb_way here = {way, record, slot, -1};
            const bool child = field->kind == QN_FB_TABLE || field->kind == QN_FB_UNION ||
                               field->kind == QN_FB_VECTOR_TABLE;
            uint64_t at;
            if (child != (children == 1))
                continue;
            QN_TRY(field_at(r, &here, &t, slot, field, &at));
            if (at && child)
                QN_TRY(read_child(r, &here, at, depth, object));
            else if (at)
                QN_TRY(read_plain(r, &here, field, at, &object->values[slot]));
        }
    return read_unknown(r, way, &t, object);
}

static qn_status read_root(reader *r)
{
    const qn_fb_schema *schema = r->schema;
    const fb_way way = {NULL, &schema->records[schema->root], -1, -1};
    uint64_t root = 0;
    if (r->size > FB_MAX_BYTES)
        return fail(r, &way, QN_LIMIT, "the file is larger than 2 GiB");
    if (r->size < 12)
        return fail(r, &way, QN_CORRUPT, "%llu bytes are too few for a %s file",
                    (unsigned long long)r->size, schema->format);
    if (schema->identifier && memcmp(r->data + 4, schema->identifier, 4) != 0)
        return fail(r, &way, QN_CORRUPT, "not a %s file", schema->format);
    QN_TRY(follow(r, &way, 0, &root));
    return read_table(r, &way, root, schema->root, 1, &r->doc.root);
}

qn_status qn__fb_read(const qn_context *ctx, const qn_fb_schema *schema, const char *path,
                      qn_blob *file, qn_fb_document *out, qn_error *error)
{
    reader r = {.schema = schema,
                .path = path,
                .data = file->data,
                .size = file->size_bytes,
                .budget = BUDGET_FREE + (uint64_t)file->size_bytes * BUDGET_PER_BYTE,
                .max_depth = qn__fb_max_depth(ctx),
                .doc = {.ctx = ctx, .schema = schema},
                .error = error};
    qn__arena_init(&r.doc.arena, ctx);
    r.doc.path = qn__arena_strdup(&r.doc.arena, path);
    const qn_status status = r.doc.path ? read_root(&r) : QN_NOMEM(error);
    if (status != QN_OK) {
        qn__fb_free(&r.doc);
        return status;
    }
    r.doc.file = qn__blob_ref(file);
    *out = r.doc;
    return QN_OK;
}
