/* FlatBuffers without generated code: a schema is a table, a file becomes a tree of objects over
 * the file's bytes, and a tree becomes a file. Wire format: the FlatBuffers internals page
 * (flatbuffers.dev).
 *
 * Reading verifies everything it follows: offsets, vtables, vectors, strings and their terminators,
 * alignment, depth, number of objects. Vectors of scalars and strings stay slices of the file, so a
 * tree is small. Slots that the schema does not know are kept where their meaning cannot matter
 * (inline scalars that no offset could be) and otherwise remembered by slot: a document that holds
 * such a slot can be written back only as it is.
 */
#ifndef QN_FORMAT_FLATBUF_H
#define QN_FORMAT_FLATBUF_H

#include "core/alloc.h"
#include "core/blob.h"
#include "core/context.h"
#include "core/strbuf.h"

typedef enum qn_fb_kind {
    QN_FB_SCALAR = 0,
    QN_FB_STRING,
    QN_FB_TABLE,
    QN_FB_UNION, /* the slot before it holds the tag (u8) */
    QN_FB_VECTOR,
    QN_FB_VECTOR_STRING,
    QN_FB_VECTOR_TABLE
} qn_fb_kind;

typedef enum qn_fb_scalar {
    QN_FB_NONE = 0,
    QN_FB_BOOL,
    QN_FB_I8,
    QN_FB_U8,
    QN_FB_I16,
    QN_FB_U16,
    QN_FB_I32,
    QN_FB_U32,
    QN_FB_I64,
    QN_FB_U64,
    QN_FB_F32,
    QN_FB_F64
} qn_fb_scalar;
size_t qn__fb_scalar_bytes(qn_fb_scalar type); /* 0 for NONE */

typedef struct qn_fb_field {
    const char *name;
    qn_fb_kind kind;
    qn_fb_scalar element; /* SCALAR, VECTOR */
    int32_t target;       /* record of TABLE and VECTOR_TABLE, union of UNION, else -1 */
    double fallback;      /* default of SCALAR */
} qn_fb_field;

typedef struct qn_fb_record {
    const char *name;
    uint32_t n_fields;
    const qn_fb_field *fields; /* by slot */
} qn_fb_record;

typedef struct qn_fb_union {
    const char *name;
    uint32_t n_members;
    const int32_t *members; /* record by tag, -1: none (tag 0 and unknown ones) */
} qn_fb_union;

typedef struct qn_fb_schema {
    const char *format; /* "MNN" */
    const qn_fb_record *records;
    uint32_t n_records;
    const qn_fb_union *unions;
    uint32_t n_unions;
    int32_t root;
    const char *identifier; /* four characters at byte 4, or NULL */
} qn_fb_schema;

struct qn_fb_object;
typedef struct qn_fb_text {
    const char *text; /* NUL-terminated */
    uint32_t length;
} qn_fb_text;
typedef struct qn_fb_value {
    bool present;
    uint32_t count; /* of vectors */
    union {
        int64_t i; /* integer scalars, U64 as its bits */
        double f;  /* F32, F64 */
        qn_fb_text string;
        struct qn_fb_object *table; /* TABLE, UNION */
        const uint8_t *bytes;       /* VECTOR: count little-endian elements, any alignment */
        qn_fb_text *strings;
        struct qn_fb_object **tables;
    };
} qn_fb_value;

/* A slot beyond the schema: its inline bytes. */
typedef struct qn_fb_unknown {
    uint32_t slot;
    uint32_t size_bytes; /* 1, 2, 4 or 8 as far as the layout tells */
    bool maybe_offset;   /* could refer to something: cannot be moved */
    uint8_t bytes[8];
} qn_fb_unknown;

typedef struct qn_fb_object {
    int32_t record;
    uint32_t position; /* of the table in the file, UINT32_MAX: made by us */
    uint32_t n_unknown;
    const qn_fb_unknown *unknown;
    qn_fb_value *values; /* [n_fields], by slot */
} qn_fb_object;

typedef struct qn_fb_document {
    const qn_context *ctx;
    const qn_fb_schema *schema;
    qn_arena arena;
    const char *path; /* of the file it was read from, for messages; NULL for a new document */
    qn_blob *file;    /* referenced: values point into it; NULL for a new document */
    qn_fb_object *root;
    size_t n_objects;
} qn_fb_document;

/* Verifies and reads all of file. CORRUPT: "PATH: Net.oplists[12].main: ..." names the way to what
 * is wrong; LIMIT: more objects or depth than allowed (qn_limits); UNSUPPORTED: an unknown union
 * tag. Work and memory are bounded by a small multiple of the file's size, also for files whose
 * offsets share or overlap. */
qn_status qn__fb_read(const qn_context *ctx, const qn_fb_schema *schema, const char *path,
                      qn_blob *file, qn_fb_document *out, qn_error *error);
/* A new document with an empty root. */
qn_status qn__fb_create(const qn_context *ctx, const qn_fb_schema *schema, qn_fb_document *out,
                        qn_error *error);
void qn__fb_free(qn_fb_document *document);

/* --- looking: absent scalars give the schema's default
 * ------------------------------------------*/
bool qn__fb_has(const qn_fb_object *object, uint32_t slot);
int64_t qn__fb_int(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot);
double qn__fb_real(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot);
const char *qn__fb_string(const qn_fb_object *object, uint32_t slot); /* NULL: absent */
qn_fb_object *qn__fb_table(const qn_fb_object *object, uint32_t slot);
qn_fb_object **qn__fb_tables(const qn_fb_object *object, uint32_t slot, size_t *count);
/* Elements of a VECTOR as raw bytes; *count 0 and NULL when absent or empty. */
const uint8_t *qn__fb_bytes(const qn_fb_object *object, uint32_t slot, size_t *count);
int64_t qn__fb_int_at(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot,
                      size_t index);
double qn__fb_real_at(const qn_fb_document *d, const qn_fb_object *object, uint32_t slot,
                      size_t index);
const char *qn__fb_string_at(const qn_fb_object *object, uint32_t slot, size_t index);

/* --- changing. Everything is allocated in the document's arena; false: out of memory.
 * -----------*/
/* A document whose tree may be changed without changing `from`, which must outlive it: the new root
 * shares all children; before one of them is changed, qn__fb_copy makes it the document's own. */
qn_status qn__fb_edit(const qn_fb_document *from, qn_fb_document *out, qn_error *error);
/* A copy of object that belongs to document (children shared); NULL: out of memory. The caller puts
 * it where the old one was. */
qn_fb_object *qn__fb_copy(qn_fb_document *document, const qn_fb_object *object);
qn_fb_object *qn__fb_new(qn_fb_document *document, int32_t record);
void qn__fb_clear(qn_fb_object *object, uint32_t slot);
void qn__fb_set_int(qn_fb_object *object, uint32_t slot, int64_t value);
void qn__fb_set_real(qn_fb_object *object, uint32_t slot, double value);
bool qn__fb_set_string(qn_fb_document *d, qn_fb_object *object, uint32_t slot, const char *text);
void qn__fb_set_table(qn_fb_object *object, uint32_t slot, qn_fb_object *table);
/* Sets value slot and, before it, the tag of the table's record in the union. */
void qn__fb_set_union(qn_fb_document *d, qn_fb_object *object, uint32_t slot, qn_fb_object *table);
bool qn__fb_set_tables(qn_fb_document *d, qn_fb_object *object, uint32_t slot,
                       qn_fb_object *const *tables, size_t count);
bool qn__fb_set_strings(qn_fb_document *d, qn_fb_object *object, uint32_t slot,
                        const char *const *texts, size_t count);
/* Copies count elements, given in the machine's (little-endian) order. */
bool qn__fb_set_vector(qn_fb_document *d, qn_fb_object *object, uint32_t slot, const void *elements,
                       size_t count);
/* The same without a copy: the bytes must outlive the document. */
void qn__fb_borrow_vector(qn_fb_object *object, uint32_t slot, const void *elements, size_t count);

/* --- writing
 * ------------------------------------------------------------------------------------*/
/* Serializes the tree: equal trees give equal bytes. Scalars that are present are written even when
 * they equal the default. LIMIT: above 2 GiB; UNSUPPORTED: an unknown slot that cannot be moved,
 * named. *bytes is freed with qn__free. */
qn_status qn__fb_build(const qn_fb_document *document, uint8_t **bytes, size_t *size_bytes,
                       qn_error *error);
/* One line per value, for tests and people: path, kind and value; long vectors as a hash. */
void qn__fb_dump(const qn_fb_document *document, qn_strbuf *out);

#endif
