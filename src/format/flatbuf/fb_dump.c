/* A tree as text: one line per value, in the order of the schema. */
#include "format/flatbuf/fb_internal.h"

enum { SHOWN = 16 };

typedef struct dumper {
    const qn_fb_document *doc;
    qn_strbuf *out;
} dumper;

static void put_text(qn_strbuf *out, const qn_fb_text *text)
{
    qn__strbuf_puts(out, "\"");
    for (uint32_t i = 0; i < text->length && !out->failed; i++) {
        const unsigned char c = (unsigned char)text->text[i];
        if (c < ' ' || c == '"' || c == '\\' || c >= 0x7f)
            qn__strbuf_printf(out, "\\x%02x", c);
        else
            qn__strbuf_append(out, &text->text[i], 1);
    }
    qn__strbuf_puts(out, "\"");
}

static void put_scalar(qn_strbuf *out, qn_fb_scalar type, const qn_fb_value *value)
{
    if (type == QN_FB_F32)
        qn__strbuf_printf(out, "%.9g", value->f);
    else if (type == QN_FB_F64)
        qn__strbuf_printf(out, "%.17g", value->f);
    else if (type == QN_FB_U64)
        qn__strbuf_printf(out, "%llu", (unsigned long long)value->i);
    else
        qn__strbuf_printf(out, "%lld", (long long)value->i);
}

static void put_vector(qn_strbuf *out, qn_fb_scalar type, const qn_fb_value *value)
{
    const size_t bytes = qn__fb_scalar_bytes(type);
    qn__strbuf_printf(out, "%u:", value->count);
    for (uint32_t i = 0; i < value->count && i < SHOWN; i++) {
        const qn_fb_value element = qn__fb_load(type, value->bytes + i * bytes);
        qn__strbuf_puts(out, " ");
        put_scalar(out, type, &element);
    }
    if (value->count > SHOWN)
        qn__strbuf_printf(out, " ... hash %016llx",
                          (unsigned long long)qn__fb_hash(value->bytes, value->count * bytes));
}

static void dump_object(const dumper *d, const fb_way *way, const qn_fb_object *object,
                        uint32_t depth);

static void dump_field(const dumper *d, const fb_way *way, const qn_fb_value *value, uint32_t depth)
{
    const qn_fb_field *field = &way->record->fields[way->slot];
    char text[FB_WAY_BYTES];
    const bool is_table = field->kind == QN_FB_TABLE || field->kind == QN_FB_UNION;
    if (is_table) {
        dump_object(d, way, value->table, depth + 1);
        return;
    }
    qn__fb_way_text(way, text);
    qn__strbuf_puts(d->out, text);
    qn__strbuf_puts(d->out, " ");
    switch (field->kind) {
    case QN_FB_SCALAR:
        put_scalar(d->out, field->element, value);
        break;
    case QN_FB_STRING:
        put_text(d->out, &value->string);
        break;
    case QN_FB_VECTOR:
        put_vector(d->out, field->element, value);
        break;
    case QN_FB_VECTOR_STRING:
        qn__strbuf_printf(d->out, "%u:", value->count);
        for (uint32_t i = 0; i < value->count && !d->out->failed; i++) {
            qn__strbuf_puts(d->out, " ");
            put_text(d->out, &value->strings[i]);
        }
        break;
    case QN_FB_VECTOR_TABLE:
        qn__strbuf_printf(d->out, "%u tables", value->count);
        break;
    case QN_FB_TABLE:
    case QN_FB_UNION:
        break;
    }
    qn__strbuf_puts(d->out, "\n");
    for (uint32_t i = 0; field->kind == QN_FB_VECTOR_TABLE && i < value->count && !d->out->failed;
         i++) {
        const fb_way here = {way->up, way->record, way->slot, i};
        dump_object(d, &here, value->tables[i], depth + 1);
    }
}

static void dump_object(const dumper *d, const fb_way *way, const qn_fb_object *object,
                        uint32_t depth)
{
    const qn_fb_record *record = &d->doc->schema->records[object->record];
    char text[FB_WAY_BYTES];
    qn__fb_way_text(way, text);
    qn__strbuf_printf(d->out, "%s %s\n", text, record->name);
    if (depth > FB_MAX_DEPTH)
        return;
    for (uint32_t slot = 0; slot < record->n_fields && !d->out->failed; slot++) {
        const fb_way here = {way, record, slot, -1};
        if (object->values[slot].present)
            dump_field(d, &here, &object->values[slot], depth);
    }
    for (uint32_t i = 0; i < object->n_unknown; i++) {
        const qn_fb_unknown *unknown = &object->unknown[i];
        qn__strbuf_printf(d->out, "%s slot %u:", text, unknown->slot);
        for (uint32_t j = 0; j < unknown->size_bytes; j++)
            qn__strbuf_printf(d->out, " %02x", unknown->bytes[j]);
        qn__strbuf_puts(d->out, unknown->maybe_offset ? " perhaps an offset\n" : "\n");
    }
}

void qn__fb_dump(const qn_fb_document *document, qn_strbuf *out)
{
    const dumper d = {document, out};
    const fb_way way = {NULL, &document->schema->records[document->schema->root], -1, -1};
    dump_object(&d, &way, document->root, 1);
}
