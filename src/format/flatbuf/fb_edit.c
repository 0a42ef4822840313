/* Changing a tree. A changed document shares what it does not change with the one it came from. */
#include "format/flatbuf/fb_internal.h"

qn_status qn__fb_create(const qn_context *ctx, const qn_fb_schema *schema, qn_fb_document *out,
                        qn_error *error)
{
    qn_fb_document made = {.ctx = ctx, .schema = schema};
    qn__arena_init(&made.arena, ctx);
    made.root = qn__fb_new(&made, schema->root);
    if (!made.root) {
        qn__fb_free(&made);
        return QN_NOMEM(error);
    }
    *out = made;
    return QN_OK;
}

qn_status qn__fb_edit(const qn_fb_document *from, qn_fb_document *out, qn_error *error)
{
    qn_fb_document made = {.ctx = from->ctx, .schema = from->schema};
    qn__arena_init(&made.arena, from->ctx);
    made.root = qn__fb_copy(&made, from->root);
    made.path = from->path ? qn__arena_strdup(&made.arena, from->path) : NULL;
    if (!made.root || (from->path && !made.path)) {
        qn__fb_free(&made);
        return QN_NOMEM(error);
    }
    made.file = from->file ? qn__blob_ref(from->file) : NULL;
    made.n_objects = from->n_objects;
    *out = made;
    return QN_OK;
}

void qn__fb_free(qn_fb_document *document)
{
    qn__arena_free(&document->arena);
    qn__blob_unref(document->file);
    *document = (qn_fb_document){.ctx = NULL};
}

qn_fb_object *qn__fb_new(qn_fb_document *document, int32_t record)
{
    const size_t n = document->schema->records[record].n_fields;
    qn_fb_object *object = qn__arena_alloc(&document->arena, sizeof(*object));
    qn_fb_value *values = qn__arena_calloc(&document->arena, n, sizeof(*values));
    if (!object || !values)
        return NULL;
    *object = (qn_fb_object){.record = record, .position = UINT32_MAX, .values = values};
    document->n_objects++;
    return object;
}

qn_fb_object *qn__fb_copy(qn_fb_document *document, const qn_fb_object *object)
{
    qn_fb_object *copy = qn__fb_new(document, object->record);
    if (!copy)
        return NULL;
    const size_t n = document->schema->records[object->record].n_fields;
    if (n)
        memcpy(copy->values, object->values, n * sizeof(*copy->values));
    copy->n_unknown = object->n_unknown;
    copy->unknown = object->unknown;
    return copy;
}

void qn__fb_clear(qn_fb_object *object, uint32_t slot)
{
    object->values[slot] = (qn_fb_value){.present = false};
}

void qn__fb_set_int(qn_fb_object *object, uint32_t slot, int64_t value)
{
    object->values[slot] = (qn_fb_value){.present = true, .i = value};
}

void qn__fb_set_real(qn_fb_object *object, uint32_t slot, double value)
{
    object->values[slot] = (qn_fb_value){.present = true, .f = value};
}

static bool text_of(qn_fb_document *d, const char *text, qn_fb_text *out)
{
    const size_t length = strlen(text);
    if (length > FB_MAX_BYTES)
        return false;
    out->text = qn__arena_strndup(&d->arena, text, length);
    out->length = (uint32_t)length;
    return out->text != NULL;
}

bool qn__fb_set_string(qn_fb_document *d, qn_fb_object *object, uint32_t slot, const char *text)
{
    qn_fb_text copy;
    if (!text_of(d, text, &copy))
        return false;
    object->values[slot] = (qn_fb_value){.present = true, .string = copy};
    return true;
}

void qn__fb_set_table(qn_fb_object *object, uint32_t slot, qn_fb_object *table)
{
    object->values[slot] = (qn_fb_value){.present = table != NULL, .table = table};
}

void qn__fb_set_union(qn_fb_document *d, qn_fb_object *object, uint32_t slot, qn_fb_object *table)
{
    const qn_fb_schema *schema = d->schema;
    const qn_fb_field *field = &schema->records[object->record].fields[slot];
    uint32_t tag = 0;
    for (const qn_fb_union *u = &schema->unions[field->target]; table && tag < u->n_members; tag++)
        if (u->members[tag] == table->record)
            break;
    qn__fb_set_int(object, slot - 1, tag);
    qn__fb_set_table(object, slot, table);
}

bool qn__fb_set_tables(qn_fb_document *d, qn_fb_object *object, uint32_t slot,
                       qn_fb_object *const *tables, size_t count)
{
    qn_fb_object **copy =
        count > FB_MAX_BYTES ? NULL : qn__arena_calloc(&d->arena, count, sizeof(qn_fb_object *));
    if (!copy)
        return false;
    if (count)
        memcpy(copy, tables, count * sizeof(qn_fb_object *));
    object->values[slot] = (qn_fb_value){.present = true, .count = (uint32_t)count, .tables = copy};
    return true;
}

bool qn__fb_set_strings(qn_fb_document *d, qn_fb_object *object, uint32_t slot,
                        const char *const *texts, size_t count)
{
    qn_fb_text *copy =
        count > FB_MAX_BYTES ? NULL : qn__arena_calloc(&d->arena, count, sizeof(*copy));
    if (!copy)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!text_of(d, texts[i], &copy[i]))
            return false;
    object->values[slot] =
        (qn_fb_value){.present = true, .count = (uint32_t)count, .strings = copy};
    return true;
}

bool qn__fb_set_vector(qn_fb_document *d, qn_fb_object *object, uint32_t slot, const void *elements,
                       size_t count)
{
    const qn_fb_field *field = &d->schema->records[object->record].fields[slot];
    const size_t bytes = qn__fb_scalar_bytes(field->element);
    if (count > FB_MAX_BYTES)
        return false;
    const void *copy = qn__arena_memdup(&d->arena, elements, count * bytes);
    if (!copy)
        return false;
    qn__fb_borrow_vector(object, slot, copy, count);
    return true;
}

/* A count above what a file can hold stays above it, so that building refuses it. */
void qn__fb_borrow_vector(qn_fb_object *object, uint32_t slot, const void *elements, size_t count)
{
    const uint32_t kept = count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
    object->values[slot] = (qn_fb_value){.present = true, .count = kept, .bytes = elements};
}
