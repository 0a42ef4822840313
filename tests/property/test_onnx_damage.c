/* Three ONNX files cut at every byte and changed at every byte and word: an error of one line, or a
 * graph that verifies, is written, read again and run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "property/onnx_try.h"

static const char *const SEEDS[] = {QN_SOURCE_DIR "/tests/data/fault.onnx",
                                    QN_SOURCE_DIR "/tests/data/quantized.onnx",
                                    QN_SOURCE_DIR "/tests/data/nested.onnx"};
enum { N_SEEDS = sizeof(SEEDS) / sizeof(SEEDS[0]) };

static onnx_place place;
static qn_context *ctx;

static int setup(void **state)
{
    (void)state;
    ctx = onnx_enter(&place);
    return ctx != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    onnx_leave(&place, ctx);
    return 0;
}

static uint8_t *seed(size_t which, size_t *size)
{
    FILE *const file = fopen(SEEDS[which], "rb");
    assert_non_null(file);
    uint8_t *const bytes = malloc(1 << 16);
    assert_non_null(bytes);
    *size = fread(bytes, 1, 1 << 16, file);
    fclose(file);
    assert_in_range(*size, 500, (1 << 16) - 1);
    return bytes;
}

static void try(size_t which, const uint8_t *bytes, size_t size, size_t at, uint64_t value,
                size_t *accepted)
{
    const onnx_fate fate = onnx_try(ctx, &place, bytes, size);
    if (fate.wrong != NULL)
        fail_msg("%s of %zu bytes, %#llx at %zu: %s", SEEDS[which], size, (unsigned long long)value,
                 at, fate.wrong);
    *accepted += fate.is_graph;
}

static void test_seeds_are_sound(void **state)
{
    (void)state;
    for (size_t which = 0; which < N_SEEDS; which++) {
        size_t size;
        uint8_t *const bytes = seed(which, &size);
        const onnx_fate fate = onnx_try(ctx, &place, bytes, size);
        assert_null(fate.wrong);
        assert_true(fate.is_graph && fate.ran);
        free(bytes);
    }
}

/* Between fields of the model a shorter file may be one too. */
static void test_every_truncation(void **state)
{
    (void)state;
    for (size_t which = 0; which < N_SEEDS; which++) {
        size_t size, accepted = 0;
        uint8_t *const bytes = seed(which, &size);
        for (size_t cut = 0; cut < size; cut++) {
            uint8_t *const part = malloc(cut + 1); /* what reads past it is seen */
            assert_non_null(part);
            memcpy(part, bytes, cut);
            try(which, part, cut, cut, 0, &accepted);
            free(part);
        }
        assert_in_range(accepted, 0, 3);
        free(bytes);
    }
}

static void test_every_byte(void **state)
{
    (void)state;
    static const uint8_t VALUES[] = {0x00, 0x7F, 0x80, 0xFF};
    for (size_t which = 0; which < N_SEEDS; which++) {
        size_t size, accepted = 0;
        uint8_t *const bytes = seed(which, &size);
        for (size_t at = 0; at < size; at++) {
            const uint8_t before = bytes[at];
            for (size_t i = 0; i < 8 + sizeof(VALUES); i++) {
                bytes[at] = i < 8 ? (uint8_t)(before ^ 1u << i) : VALUES[i - 8];
                try(which, bytes, size, at, bytes[at], &accepted);
            }
            bytes[at] = before;
        }
        assert_in_range(accepted, size, 11 * size); /* of 12: numbers may be anything */
        free(bytes);
    }
}

static void test_every_word(void **state)
{
    (void)state;
    static const uint32_t VALUES[] = {0, 1, INT32_MAX, (uint32_t)1 << 31, UINT32_MAX};
    for (size_t which = 0; which < N_SEEDS; which++) {
        size_t size, accepted = 0;
        uint8_t *const bytes = seed(which, &size);
        for (size_t at = 0; at + 4 <= size; at += 4) {
            uint8_t before[4];
            memcpy(before, bytes + at, 4);
            for (size_t i = 0; i < sizeof(VALUES) / sizeof(VALUES[0]); i++) {
                memcpy(bytes + at, VALUES + i, 4);
                try(which, bytes, size, at, VALUES[i], &accepted);
            }
            memcpy(bytes + at, before, 4);
        }
        assert_in_range(accepted, 10, size);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_are_sound),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_every_word),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
