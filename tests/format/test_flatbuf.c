/* FlatBuffers by table: every kind of field, edits, fields of newer versions, damaged files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "format/flatbuf/flatbuf.h"

enum { LEAF, ROOT };
enum { LEAF_x, LEAF_y };
enum {
    ROOT_flag,
    ROOT_i8,
    ROOT_u16,
    ROOT_i64,
    ROOT_f32,
    ROOT_f64,
    ROOT_name,
    ROOT_leaf,
    ROOT_any_type,
    ROOT_any,
    ROOT_wide,
    ROOT_bytes,
    ROOT_names,
    ROOT_leaves,
    ROOT_self,
    ROOT_N
};

static const qn_fb_field LEAF_FIELDS[] = {{"x", QN_FB_SCALAR, QN_FB_I32, -1, 7},
                                          {"y", QN_FB_SCALAR, QN_FB_F32, -1, 0.5}};
static const qn_fb_field ROOT_FIELDS[] = {
    {"flag", QN_FB_SCALAR, QN_FB_BOOL, -1, 1}, {"i8", QN_FB_SCALAR, QN_FB_I8, -1, -3},
    {"u16", QN_FB_SCALAR, QN_FB_U16, -1, 0},   {"i64", QN_FB_SCALAR, QN_FB_I64, -1, 0},
    {"f32", QN_FB_SCALAR, QN_FB_F32, -1, 0},   {"f64", QN_FB_SCALAR, QN_FB_F64, -1, 0},
    {"name", QN_FB_STRING, 0, -1, 0},          {"leaf", QN_FB_TABLE, 0, LEAF, 0},
    {"any_type", QN_FB_SCALAR, QN_FB_U8, -1},  {"any", QN_FB_UNION, 0, 0, 0},
    {"wide", QN_FB_VECTOR, QN_FB_I64, -1, 0},  {"bytes", QN_FB_VECTOR, QN_FB_U8, -1, 0},
    {"names", QN_FB_VECTOR_STRING, 0, -1, 0},  {"leaves", QN_FB_VECTOR_TABLE, 0, LEAF, 0},
    {"self", QN_FB_TABLE, 0, ROOT, 0}};
static const qn_fb_record RECORDS[] = {{"Leaf", 2, LEAF_FIELDS}, {"Root", ROOT_N, ROOT_FIELDS}};
static const int32_t MEMBERS[] = {-1, LEAF, ROOT};
static const qn_fb_union UNIONS[] = {{"Any", 3, MEMBERS}};
static const qn_fb_schema SCHEMA = {"test", RECORDS, 2, UNIONS, 1, ROOT, NULL};
static const qn_fb_schema NAMED = {"test", RECORDS, 2, UNIONS, 1, ROOT, "TEST"};
static const qn_fb_union NO_MEMBERS[] = {{"Any", 1, MEMBERS}};
static const qn_fb_schema FEWER = {"test", RECORDS, 2, NO_MEMBERS, 1, ROOT, NULL};
/* The same format as an older program knows it. */
static const qn_fb_record OLD_RECORDS[] = {{"Leaf", 1, LEAF_FIELDS},
                                           {"Root", ROOT_name, ROOT_FIELDS}};
static const qn_fb_schema OLD = {"test", OLD_RECORDS, 2, UNIONS, 1, ROOT, NULL};

static int setup(void **state)
{
    qn_context *ctx;
    if (qn_context_create(NULL, &ctx, NULL) != QN_OK)
        return -1;
    *state = ctx;
    return 0;
}

static int teardown(void **state)
{
    qn_context_destroy(*state);
    return 0;
}

static qn_fb_object *leaf(qn_fb_document *d, int64_t x)
{
    qn_fb_object *object = qn__fb_new(d, LEAF);
    qn__fb_set_int(object, LEAF_x, x);
    return object;
}

static void fill(qn_fb_document *d)
{
    static const int64_t WIDE[] = {-1, INT64_MIN, 5};
    static const char *const NAMES[] = {"", "a\"b", "c"};
    qn_fb_object *root = d->root, *leaves[2] = {leaf(d, 1), qn__fb_new(d, LEAF)};
    qn__fb_set_int(root, ROOT_flag, 0);
    qn__fb_set_int(root, ROOT_i8, -128);
    qn__fb_set_int(root, ROOT_u16, 65535);
    qn__fb_set_int(root, ROOT_i64, INT64_MIN + 1);
    qn__fb_set_real(root, ROOT_f32, 0.25);
    qn__fb_set_real(root, ROOT_f64, 1e300);
    assert_true(qn__fb_set_string(d, root, ROOT_name, "net"));
    qn__fb_set_table(root, ROOT_leaf, leaf(d, -5));
    qn__fb_set_union(d, root, ROOT_any, leaf(d, 9));
    assert_true(qn__fb_set_vector(d, root, ROOT_wide, WIDE, 3));
    assert_true(qn__fb_set_vector(d, root, ROOT_bytes, NULL, 0));
    assert_true(qn__fb_set_strings(d, root, ROOT_names, NAMES, 3));
    assert_true(qn__fb_set_tables(d, root, ROOT_leaves, leaves, 2));
}

static void build_read(const qn_fb_document *d, const qn_fb_schema *schema, qn_fb_document *out)
{
    qn_error error;
    uint8_t *bytes = NULL;
    size_t size = 0;
    assert_int_equal(qn__fb_build(d, &bytes, &size, &error), QN_OK);
    qn_blob *blob = qn__blob_copy(d->ctx, bytes, size);
    qn__free(d->ctx, bytes);
    const qn_status status = qn__fb_read(d->ctx, schema, "f", blob, out, &error);
    if (status != QN_OK)
        fail_msg("%s", error.message);
    qn__blob_unref(blob);
}

static void assert_same_dump(const qn_fb_document *a, const qn_fb_document *b)
{
    qn_strbuf ta, tb;
    qn__strbuf_init(&ta, a->ctx, 1u << 20);
    qn__strbuf_init(&tb, a->ctx, 1u << 20);
    qn__fb_dump(a, &ta);
    qn__fb_dump(b, &tb);
    assert_string_equal(ta.data, tb.data);
    qn__strbuf_free(&ta);
    qn__strbuf_free(&tb);
}

static void test_every_kind(void **state)
{
    qn_fb_document made, back;
    assert_int_equal(qn__fb_create(*state, &NAMED, &made, NULL), QN_OK);
    fill(&made);
    build_read(&made, &NAMED, &back);
    const qn_fb_object *root = back.root;
    size_t count;
    assert_int_equal(qn__fb_int(&back, root, ROOT_flag), 0);
    assert_int_equal(qn__fb_int(&back, root, ROOT_i8), -128);
    assert_int_equal(qn__fb_int(&back, root, ROOT_u16), 65535);
    assert_true(qn__fb_int(&back, root, ROOT_i64) == INT64_MIN + 1);
    assert_true(qn__fb_real(&back, root, ROOT_f32) == 0.25);
    assert_true(qn__fb_real(&back, root, ROOT_f64) == 1e300);
    assert_string_equal(qn__fb_string(root, ROOT_name), "net");
    assert_int_equal(qn__fb_int(&back, qn__fb_table(root, ROOT_leaf), LEAF_x), -5);
    assert_int_equal(qn__fb_int(&back, root, ROOT_any_type), 1);
    assert_int_equal(qn__fb_int(&back, qn__fb_table(root, ROOT_any), LEAF_x), 9);
    assert_true(qn__fb_int_at(&back, root, ROOT_wide, 1) == INT64_MIN);
    assert_int_equal(qn__fb_int_at(&back, root, ROOT_wide, 3), 0); /* beyond the end */
    /* Vectors of eight-byte numbers are aligned in the file. */
    assert_int_equal((qn__fb_bytes(root, ROOT_wide, &count) - back.file->data) % 8, 0);
    assert_int_equal(count, 3);
    assert_true(qn__fb_has(root, ROOT_bytes)); /* empty, but there */
    assert_null(qn__fb_bytes(root, ROOT_bytes, &count));
    assert_int_equal(count, 0);
    assert_string_equal(qn__fb_string_at(root, ROOT_names, 1), "a\"b");
    assert_null(qn__fb_string_at(root, ROOT_names, 3));
    qn_fb_object **leaves = qn__fb_tables(root, ROOT_leaves, &count);
    assert_int_equal(count, 2);
    assert_int_equal(qn__fb_int(&back, leaves[0], LEAF_x), 1);
    assert_int_equal(qn__fb_int(&back, leaves[1], LEAF_x), 7); /* the schema's default */
    assert_true(qn__fb_real(&back, leaves[1], LEAF_y) == 0.5);
    assert_false(qn__fb_has(root, ROOT_self));
    assert_null(qn__fb_table(root, ROOT_self));
    assert_same_dump(&made, &back);
    qn__fb_free(&made);
    qn__fb_free(&back);
}

static void test_equal_trees_give_equal_bytes(void **state)
{
    qn_fb_document made, back;
    uint8_t *a, *b;
    size_t na, nb;
    assert_int_equal(qn__fb_create(*state, &SCHEMA, &made, NULL), QN_OK);
    fill(&made);
    build_read(&made, &SCHEMA, &back);
    assert_int_equal(qn__fb_build(&made, &a, &na, NULL), QN_OK);
    assert_int_equal(qn__fb_build(&back, &b, &nb, NULL), QN_OK);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    qn__free(*state, a);
    qn__free(*state, b);
    qn__fb_free(&made);
    qn__fb_free(&back);
}

/* The tree that was edited from is as it was; what was not changed is shared. */
static void test_edit(void **state)
{
    qn_fb_document made, copy, back;
    assert_int_equal(qn__fb_create(*state, &SCHEMA, &made, NULL), QN_OK);
    fill(&made);
    assert_int_equal(qn__fb_edit(&made, &copy, NULL), QN_OK);
    qn_fb_object *mine = qn__fb_copy(&copy, qn__fb_table(copy.root, ROOT_leaf));
    qn__fb_set_int(mine, LEAF_x, 77);
    qn__fb_set_table(copy.root, ROOT_leaf, mine);
    qn__fb_set_union(&copy, copy.root, ROOT_any, qn__fb_new(&copy, ROOT));
    qn__fb_clear(copy.root, ROOT_names);
    build_read(&copy, &SCHEMA, &back);
    assert_int_equal(qn__fb_int(&made, qn__fb_table(made.root, ROOT_leaf), LEAF_x), -5);
    assert_int_equal(qn__fb_int(&made, made.root, ROOT_any_type), 1);
    assert_int_equal(qn__fb_int(&back, qn__fb_table(back.root, ROOT_leaf), LEAF_x), 77);
    assert_int_equal(qn__fb_int(&back, back.root, ROOT_any_type), 2);
    assert_int_equal(qn__fb_table(back.root, ROOT_any)->record, ROOT);
    assert_false(qn__fb_has(back.root, ROOT_names));
    assert_true(qn__fb_has(made.root, ROOT_names));
    qn__fb_free(&back);
    qn__fb_free(&copy);
    qn__fb_free(&made);
}

/* Numbers of newer versions are kept; a field that may refer to something forbids rewriting. */
static void test_unknown_fields(void **state)
{
    qn_fb_document made, old, again;
    qn_error error;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(qn__fb_create(*state, &SCHEMA, &made, NULL), QN_OK);
    qn__fb_set_int(made.root, ROOT_u16, 3);
    qn__fb_set_int(made.root, ROOT_any_type, 200); /* a tag without a table */
    build_read(&made, &OLD, &old);
    assert_int_equal(old.root->n_unknown, 1);
    assert_int_equal(old.root->unknown[0].slot, ROOT_any_type);
    assert_false(old.root->unknown[0].maybe_offset);
    build_read(&old, &SCHEMA, &again); /* through the old program and back */
    assert_int_equal(qn__fb_int(&again, again.root, ROOT_any_type), 200);
    assert_int_equal(qn__fb_int(&again, again.root, ROOT_u16), 3);
    qn__fb_free(&again);
    qn__fb_free(&old);
    assert_true(qn__fb_set_string(&made, made.root, ROOT_name, "net"));
    build_read(&made, &OLD, &old);
    assert_int_equal(qn__fb_build(&old, &bytes, &size, &error), QN_UNSUPPORTED);
    assert_non_null(strstr(error.message, "f: Root: field 6 "));
    qn__fb_free(&old);
    qn__fb_free(&made);
}

static void test_build_refuses(void **state)
{
    qn_fb_document made;
    qn_error error;
    uint8_t *bytes;
    size_t size;
    static const uint8_t NOTHING[1];
    assert_int_equal(qn__fb_create(*state, &SCHEMA, &made, NULL), QN_OK);
    qn__fb_set_table(made.root, ROOT_leaf, qn__fb_new(&made, ROOT));
    assert_int_equal(qn__fb_build(&made, &bytes, &size, &error), QN_INTERNAL);
    qn__fb_clear(made.root, ROOT_leaf);
    qn_fb_object *deep = made.root;
    for (int i = 0; i < 63; i++) {
        qn__fb_set_table(deep, ROOT_self, qn__fb_new(&made, ROOT));
        deep = qn__fb_table(deep, ROOT_self);
    }
    assert_int_equal(qn__fb_build(&made, &bytes, &size, &error), QN_OK);
    qn__free(*state, bytes);
    qn__fb_set_table(deep, ROOT_self, qn__fb_new(&made, ROOT));
    assert_int_equal(qn__fb_build(&made, &bytes, &size, &error), QN_LIMIT);
    qn__fb_clear(made.root, ROOT_self);
    /* Measured before anything is copied. */
    qn__fb_borrow_vector(made.root, ROOT_bytes, NOTHING, (size_t)1 << 31);
    assert_int_equal(qn__fb_build(&made, &bytes, &size, &error), QN_LIMIT);
    qn__fb_borrow_vector(made.root, ROOT_wide, NOTHING, (size_t)1 << 40);
    assert_int_equal(qn__fb_build(&made, &bytes, &size, &error), QN_LIMIT);
    qn__fb_free(&made);
}

static void check_message(const qn_context *ctx, const qn_fb_schema *schema, const void *bytes,
                          size_t size, qn_status want, const char *text)
{
    qn_fb_document doc;
    qn_error error;
    qn_blob *blob = qn__blob_copy(ctx, bytes, size);
    const qn_status status = qn__fb_read(ctx, schema, "f", blob, &doc, &error);
    qn__blob_unref(blob);
    if (status == QN_OK)
        fail_msg("accepted; expected \"%s\"", text);
    if (status != want || !strstr(error.message, text))
        fail_msg("%s instead of \"%s\"", error.message, text);
}

/* Messages name the way to what is wrong. */
static void test_messages(void **state)
{
    qn_fb_document made, back;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(qn__fb_create(*state, &SCHEMA, &made, NULL), QN_OK);
    fill(&made);
    build_read(&made, &SCHEMA, &back);
    assert_int_equal(qn__fb_build(&made, &bytes, &size, NULL), QN_OK);
    size_t count;
    const uint32_t at = qn__fb_tables(back.root, ROOT_leaves, &count)[1]->position;
    const uint8_t *text = (const uint8_t *)qn__fb_string_at(back.root, ROOT_names, 1);
    const size_t text_at = (size_t)(text - back.file->data);
    uint8_t saved[4];
    memcpy(saved, bytes + at, 4);
    memcpy(bytes + at, "\0\0\0\x40", 4);
    check_message(*state, &SCHEMA, bytes, size, QN_CORRUPT, "f: Root.leaves[1]: vtable at ");
    memcpy(bytes + at, saved, 4);
    bytes[text_at + 3] = 'x';
    check_message(*state, &SCHEMA, bytes, size, QN_CORRUPT,
                  "f: Root.names[1]: the string at byte ");
    bytes[text_at + 3] = 0;
    bytes[text_at - 1] = 0x7f;
    check_message(*state, &SCHEMA, bytes, size, QN_CORRUPT,
                  "f: Root.names[1]: a string of 2130706435 ");
    bytes[text_at - 1] = 0;
    check_message(*state, &FEWER, bytes, size, QN_UNSUPPORTED,
                  "f: Root.any: unknown Any tag 1 of \"net\"");
    qn__free(*state, bytes);
    check_message(*state, &SCHEMA, "abcd", 4, QN_CORRUPT, "too few for a test file");
    qn__fb_free(&back);
    qn__fb_free(&made);
}

/* A vector whose elements are all the same table, each of which has a vector... */
static void test_shared_tables_are_bounded(void **state)
{
    qn_fb_document made, back;
    qn_fb_object *same[200];
    uint8_t *bytes;
    size_t size, count;
    assert_int_equal(qn__fb_create(*state, &SCHEMA, &made, NULL), QN_OK);
    for (size_t i = 0; i < 200; i++)
        same[i] = leaf(&made, (int64_t)i);
    static uint8_t filler[100000];
    assert_true(qn__fb_set_vector(&made, made.root, ROOT_bytes, filler, sizeof(filler)));
    assert_true(qn__fb_set_tables(&made, made.root, ROOT_leaves, same, 200));
    build_read(&made, &SCHEMA, &back);
    assert_int_equal(qn__fb_build(&made, &bytes, &size, NULL), QN_OK);
    /* The filler becomes a vector of 24,000 references to the first leaf, and the leaves' vector is
     * replaced by it. */
    const size_t vector =
        (size_t)(qn__fb_bytes(back.root, ROOT_bytes, &count) - back.file->data) - 4;
    const uint32_t target = qn__fb_tables(back.root, ROOT_leaves, &count)[0]->position;
    const uint32_t n = 24000;
    memcpy(bytes + vector, &n, 4);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t offset = target - (uint32_t)(vector + 4 + 4 * i);
        memcpy(bytes + vector + 4 + 4 * i, &offset, 4);
    }
    qn_error error;
    qn_fb_document doc;
    const uint32_t root_at = back.root->position;
    for (size_t at = root_at; at < vector; at += 4) { /* the field that led to the leaves */
        uint32_t offset;
        memcpy(&offset, bytes + at, 4);
        if (at + offset > vector + sizeof(filler) && at + offset < target) {
            offset = (uint32_t)(vector - at);
            memcpy(bytes + at, &offset, 4);
        }
    }
    qn_blob *blob = qn__blob_copy(*state, bytes, size);
    const qn_status status = qn__fb_read(*state, &SCHEMA, "f", blob, &doc, &error);
    qn__blob_unref(blob);
    assert_int_equal(status, QN_OK); /* 24,000 small tables of a file of 100 KB are within reason */
    assert_int_equal(doc.n_objects, 24001);
    assert_true(doc.arena.total_bytes < 40 * size);
    qn__fb_free(&doc);
    qn__free(*state, bytes);
    qn__fb_free(&back);
    qn__fb_free(&made);
}

/* Any single damage: refused, or a tree that can be written again. */
static void test_damage(void **state)
{
    qn_fb_document made, doc;
    uint8_t *bytes, *again;
    size_t size, again_size, accepted = 0;
    assert_int_equal(qn__fb_create(*state, &SCHEMA, &made, NULL), QN_OK);
    fill(&made);
    assert_int_equal(qn__fb_build(&made, &bytes, &size, NULL), QN_OK);
    for (size_t at = 0; at < size; at++)
        for (int value = 0; value < 256; value++) {
            qn_error error;
            void *copy;
            qn_blob *blob = qn__blob_create(*state, size, &copy);
            memcpy(copy, bytes, size);
            ((uint8_t *)copy)[at] = (uint8_t)value;
            const qn_status status = qn__fb_read(*state, &SCHEMA, "f", blob, &doc, &error);
            qn__blob_unref(blob);
            if (status != QN_OK)
                continue;
            accepted++;
            const qn_status built = qn__fb_build(&doc, &again, &again_size, &error);
            assert_true(built == QN_OK || built == QN_UNSUPPORTED);
            if (built == QN_OK)
                qn__free(*state, again);
            qn__fb_free(&doc);
        }
    assert_true(accepted > 256);
    for (size_t cut = 0; cut < size; cut++) {
        qn_blob *blob = qn__blob_copy(*state, bytes, cut);
        assert_int_not_equal(qn__fb_read(*state, &SCHEMA, "f", blob, &doc, NULL), QN_OK);
        qn__blob_unref(blob);
    }
    qn__free(*state, bytes);
    qn__fb_free(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal_trees_give_equal_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_build_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_tables_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
