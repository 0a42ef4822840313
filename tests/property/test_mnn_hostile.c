/* .mnn files that are cut, flipped or lie: an error, or a graph that verifies and can be written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cpu_seconds.h"

#include "property/mnn_seeds.h"

static qn_context *ctx;

static int setup(void **state)
{
    (void)state;
    ctx = mnn_hostile_context();
    return ctx ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    qn_context_destroy(ctx);
    return 0;
}

static void test_seeds_are_sound(void **state)
{
    (void)state;
    for (int which = 0; which < N_MNN_SEEDS; which++) {
        size_t size;
        uint8_t *bytes = mnn_seed(ctx, which, &size);
        assert_non_null(bytes);
        const mnn_fate fate = mnn_try(ctx, bytes, size);
        assert_true(fate.ok && fate.is_tree);
        assert_int_equal(fate.is_graph, which != 3);
        qn__free(ctx, bytes);
    }
}

static void test_every_truncation(void **state)
{
    (void)state;
    for (int which = 0; which < N_MNN_SEEDS; which++) {
        size_t size;
        uint8_t *bytes = mnn_seed(ctx, which, &size);
        for (size_t cut = 0; cut < size; cut++) {
            const mnn_fate fate = mnn_try(ctx, bytes, cut);
            if (!fate.ok || fate.is_graph)
                fail_msg("seed %d cut at %zu of %zu", which, cut, size);
        }
        qn__free(ctx, bytes);
    }
}

static void test_every_byte_and_word(void **state)
{
    (void)state;
    static const uint8_t BYTES[] = {0, 0x7f, 0x80, 0xff};
    static const uint32_t WORDS[] = {0, 1, INT32_MAX, 0x80000000u, UINT32_MAX};
    size_t graphs = 0, refused = 0;
    for (int which = 0; which < N_MNN_SEEDS; which++) {
        size_t size;
        uint8_t *bytes = mnn_seed(ctx, which, &size);
        uint8_t *damaged = qn__alloc(ctx, size);
        for (size_t at = 0; at < size; at++)
            for (size_t kind = 0; kind < 12 + (at % 4 == 0 && at + 4 <= size ? 5 : 0); kind++) {
                memcpy(damaged, bytes, size);
                if (kind < 8)
                    damaged[at] ^= (uint8_t)(1u << kind);
                else if (kind < 12)
                    damaged[at] = BYTES[kind - 8];
                else
                    memcpy(damaged + at, &WORDS[kind - 12], 4);
                const mnn_fate fate = mnn_try(ctx, damaged, size);
                graphs += fate.is_graph;
                refused += !fate.is_graph;
                if (!fate.ok)
                    fail_msg("seed %d byte %zu damage %zu", which, at, kind);
            }
        qn__free(ctx, damaged);
        qn__free(ctx, bytes);
    }
    assert_true(graphs > 1000 && refused > 1000);
}

/* --- bombs
 * --------------------------------------------------------------------------------------*/
static void put32(uint8_t *bytes, size_t at, uint32_t value)
{
    memcpy(bytes + at, &value, 4);
}

static void assert_refused(const uint8_t *bytes, size_t size, qn_status want, const char *what)
{
    qn_error error = {0};
    qn_fb_document doc;
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    const double before = cpu_seconds();
    const qn_status status = qn__fb_read(ctx, &qn__mnn_schema, "f.mnn", file, &doc, &error);
    const double taken = cpu_seconds() - before;
    qn__blob_unref(file);
    if (status == QN_OK)
        qn__fb_free(&doc);
    if (status != want || taken > 2.0) /* a hundredth of it without sanitizers */
        fail_msg("%s: status %d in %g s: %s", what, (int)status, taken, error.message);
}

/* Tables of 64 references to the next table, each level: 64^n tables from a few kilobytes. */
static void test_shared_tables_explode(void **state)
{
    (void)state;
    enum { LEVELS = 12, WIDTH = 64, LEVEL_BYTES = 20 + 4 * WIDTH };
    static uint8_t bytes[40 + LEVELS * LEVEL_BYTES];
    const size_t vt_attr = 8, vt_list = vt_attr + 22, first = 40;
    const uint16_t attr[] = {22, 8, 0, 0, 0, 0, 0, 0, 0, 0, 4}, list[] = {8, 8, 0, 4};
    memcpy(bytes + vt_attr, attr, sizeof(attr));
    memcpy(bytes + vt_list, list, sizeof(list));
    size_t at = first;
    for (int level = 0; level < LEVELS; level++) {
        /* an Attribute, whose list's vector names the next Attribute WIDTH times */
        put32(bytes, at, (uint32_t)(at - vt_attr));
        put32(bytes, at + 4, 4);
        put32(bytes, at + 8, (uint32_t)(at + 8 - vt_list));
        put32(bytes, at + 12, 4);
        const uint32_t n = level + 1 < LEVELS ? WIDTH : 0;
        put32(bytes, at + 16, n);
        const size_t next = at + 20 + 4 * (size_t)n;
        for (uint32_t i = 0; i < n; i++)
            put32(bytes, at + 20 + 4 * i, (uint32_t)(next - (at + 20 + 4 * i)));
        at = next;
    }
    put32(bytes, 0, (uint32_t)first);
    /* The same tables read with the record they are made of as the root. */
    qn_fb_schema schema = qn__mnn_schema;
    schema.root = QN_MNN_REC_Attribute;
    qn_error error = {0};
    qn_fb_document doc;
    qn_blob *file = qn__blob_copy(ctx, bytes, at);
    const double before = cpu_seconds();
    const qn_status status = qn__fb_read(ctx, &schema, "f.mnn", file, &doc, &error);
    assert_true(cpu_seconds() - before < 2.0);
    qn__blob_unref(file);
    if (status != QN_LIMIT || !strstr(error.message, "again and again"))
        fail_msg("%d %s", (int)status, error.message);
}

static void test_vectors_of_two_billion(void **state)
{
    (void)state;
    size_t size;
    qn_error error;
    qn_fb_document doc;
    static const uint32_t COUNTS[] = {INT32_MAX, 0x80000000u, UINT32_MAX, 0x40000000u};
    uint8_t *bytes = mnn_seed(ctx, 0, &size);
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    assert_int_equal(qn__fb_read(ctx, &qn__mnn_schema, "f", file, &doc, &error), QN_OK);
    size_t n;
    qn_fb_object *conv =
        qn__fb_table(qn__fb_tables(doc.root, QN_MNN_Net_oplists, &n)[1], QN_MNN_Op_main);
    const size_t places[] = {
        (size_t)(qn__fb_bytes(conv, QN_MNN_Convolution2D_weight, &n) - file->data) - 4,
        (size_t)((const uint8_t *)qn__fb_string_at(doc.root, QN_MNN_Net_tensorName, 0) -
                 file->data) -
            4};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        for (size_t k = 0; k < 4; k++) {
            uint8_t kept[4];
            memcpy(kept, bytes + places[i], 4);
            put32(bytes, places[i], COUNTS[k]);
            assert_refused(bytes, size, QN_CORRUPT, "a count");
            memcpy(bytes + places[i], kept, 4);
        }
    qn__fb_free(&doc);
    qn__blob_unref(file);
    qn__free(ctx, bytes);
}

/* Nested as deep as a file of a megabyte can hold. */
static void test_deep_nesting(void **state)
{
    (void)state;
    enum { DEPTH = 40000, STEP = 24 };
    const size_t vt_attr = 8, vt_list = vt_attr + 22, first = 40, size = first + DEPTH * STEP;
    const uint16_t attr[] = {22, 8, 0, 0, 0, 0, 0, 0, 0, 0, 4}, list[] = {8, 8, 0, 4};
    uint8_t *bytes = qn__calloc(ctx, size, 1);
    memcpy(bytes + vt_attr, attr, sizeof(attr));
    memcpy(bytes + vt_list, list, sizeof(list));
    put32(bytes, 0, (uint32_t)first);
    for (size_t i = 0, at = first; i < DEPTH; i++, at += STEP) {
        put32(bytes, at, (uint32_t)(at - vt_attr));
        put32(bytes, at + 4, 4);
        put32(bytes, at + 8, (uint32_t)(at + 8 - vt_list));
        put32(bytes, at + 12, 4);
        put32(bytes, at + 16, i + 1 < DEPTH ? 1 : 0); /* elements of the vector, and the only one */
        put32(bytes, at + 20, 4);
    }
    qn_fb_schema schema = qn__mnn_schema;
    schema.root = QN_MNN_REC_Attribute;
    qn_error error = {0};
    qn_fb_document doc;
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    const qn_status status = qn__fb_read(ctx, &schema, "f", file, &doc, &error);
    qn__blob_unref(file);
    if (status != QN_LIMIT || !strstr(error.message, "nested deeper"))
        fail_msg("%d %s", (int)status, error.message);
    qn__free(ctx, bytes);
}

/* A hundred thousand tensors of one name, one operator that makes them all. */
static void test_equal_names(void **state)
{
    (void)state;
    enum { N = 100000 };
    qn_fb_document d;
    size_t size;
    uint8_t *bytes;
    const char **names = qn__calloc(ctx, N, sizeof(*names));
    int32_t *outputs = qn__calloc(ctx, N, sizeof(*outputs));
    for (int32_t i = 0; i < N; i++) {
        names[i] = "same";
        outputs[i] = i;
    }
    assert_int_equal(qn__fb_create(ctx, &qn__mnn_schema, &d, NULL), QN_OK);
    qn_fb_object *op = seed_input(&d);
    qn__fb_set_vector(&d, op, QN_MNN_Op_outputIndexes, outputs, N);
    seed_net(&d, &op, 1, names, N);
    assert_int_equal(qn__fb_build(&d, &bytes, &size, NULL), QN_OK);
    const double before = cpu_seconds();
    assert_true(mnn_try(ctx, bytes, size).ok);
    assert_true(cpu_seconds() - before < 5.0);
    qn__free(ctx, bytes);
    qn__fb_free(&d);
    qn__free(ctx, outputs);
    qn__free(ctx, names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_are_sound),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_byte_and_word),
        cmocka_unit_test(test_shared_tables_explode),
        cmocka_unit_test(test_vectors_of_two_billion),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_equal_names),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
