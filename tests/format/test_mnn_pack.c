/* Packed weights: sizes, exact bytes of small cases, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/alloc.h"
#include "format/mnn/mnn_format.h"

typedef struct packed {
    uint8_t *bytes;
    size_t size;
    int32_t type;
    bool wide;
} packed;

static qn_context *ctx;

static packed pack(const int8_t *q, size_t rows, size_t columns, uint32_t bits, bool linear,
                   bool sparse)
{
    packed p = {0};
    qn_error error = {0};
    assert_int_equal(qn__mnn_pack(ctx, q, rows, columns, bits, linear, sparse, &p.bytes, &p.size,
                                  &p.type, &p.wide, &error),
                     QN_OK);
    return p;
}

static void expect(packed p, int32_t type, const void *bytes, size_t size)
{
    assert_int_equal(p.type, type);
    assert_int_equal(p.size, size);
    assert_memory_equal(p.bytes, bytes, size);
    qn__free(ctx, p.bytes);
}

static void test_linear_tables_are_complete(void **state)
{
    (void)state;
    const int8_t q[] = {-2, -1, 0, 1, 1};
    const uint8_t bytes[] = {2, 1, 0, 5, 0, 4, 0xfe, 0xff, 0, 1, 0x1b, 0xc0};
    expect(pack(q, 1, 5, 2, true, false), 1, bytes, sizeof(bytes));
    packed p = pack(q, 5, 1, 8, true, false);
    assert_int_equal(p.size, 1 + 4 + 1 + 256 + 5);
    assert_int_equal(p.bytes[5], 0); /* 256 levels */
    assert_int_equal(p.bytes[6], 0x80);
    assert_int_equal(p.bytes[262], 126);
    qn__free(ctx, p.bytes);
}

static void test_narrow_tables_are_never_linear(void **state)
{
    (void)state;
    const int8_t signs[] = {-1, 0};
    const uint8_t three[] = {2, 1, 0, 2, 0, 3, 0xff, 0, 1, 0x10};
    expect(pack(signs, 1, 2, 2, false, false), 1, three, sizeof(three));
    const int8_t same[] = {127, 127};
    const uint8_t two[] = {2, 2, 0, 1, 0, 2, 126, 127, 0xc0};
    expect(pack(same, 2, 1, 8, false, false), 1, two, sizeof(two));
}

static void test_sparse_bridges_long_gaps(void **state)
{
    (void)state;
    int8_t q[700] = {0};
    q[3] = 5;
    q[600] = -7;
    packed p = pack(q, 7, 100, 8, true, true);
    assert_int_equal(p.type, 2);
    uint32_t entries;
    memcpy(&entries, p.bytes + 5, 4);
    assert_int_equal(entries, 4); /* 3, +255, +255, +87 in steps of 8 bits */
    assert_int_equal(p.bytes[9], 8);
    const uint8_t steps[] = {3, 255, 255, 87};
    assert_memory_equal(p.bytes + 10, steps, 4);
    const uint8_t indexes[] = {133, 128, 128, 121};
    assert_memory_equal(p.bytes + p.size - 4, indexes, 4);
    qn__free(ctx, p.bytes);
    const int8_t zeros[64] = {0};
    p = pack(zeros, 8, 8, 8, true, true);
    assert_int_equal(p.type, 1); /* no entry at all is no sparse form */
    qn__free(ctx, p.bytes);
}

static void test_wide_dimensions(void **state)
{
    (void)state;
    static const int8_t q[65536] = {1};
    packed p = pack(q, 1, 65536, 8, true, false);
    assert_true(p.wide);
    const uint8_t head[] = {2, 1, 0, 0, 0, 0, 0, 1, 0};
    assert_memory_equal(p.bytes, head, sizeof(head));
    qn__free(ctx, p.bytes);
    p = pack(q, 1, 65535, 8, true, false);
    assert_false(p.wide);
    qn__free(ctx, p.bytes);
}

static void refuse(const int8_t *q, size_t rows, size_t columns, uint32_t bits, qn_status expected)
{
    packed p = {0};
    qn_error error = {0};
    assert_int_equal(qn__mnn_pack(ctx, q, rows, columns, bits, true, false, &p.bytes, &p.size,
                                  &p.type, &p.wide, &error),
                     expected);
    assert_null(p.bytes);
    assert_true(error.message[0] != '\0');
}

static void test_refusals(void **state)
{
    (void)state;
    const int8_t q[] = {7, 8};
    refuse(q, 1, 2, 4, QN_INVALID_ARGUMENT);
    refuse(q, 1, 2, 1, QN_INVALID_ARGUMENT);
    refuse(q, 1, 2, 9, QN_INVALID_ARGUMENT);
    refuse(q, 0, 2, 8, QN_INVALID_ARGUMENT);
    refuse(q, SIZE_MAX / 2, 3, 8, QN_LIMIT);
    refuse(q, 1u << 20, 1u << 20, 8, QN_LIMIT);
}

int main(void)
{
    if (qn_context_create(NULL, &ctx, NULL) != QN_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_tables_are_complete),
        cmocka_unit_test(test_narrow_tables_are_never_linear),
        cmocka_unit_test(test_sparse_bridges_long_gaps),
        cmocka_unit_test(test_wide_dimensions),
        cmocka_unit_test(test_refusals),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qn_context_destroy(ctx);
    return failed;
}
