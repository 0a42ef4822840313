/* Compact files that are cut or changed: an error, or a graph that verifies, runs and can be
 * written; with the checksum always an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "property/qnm_seeds.h"

static memory_file file;
static qn_context *ctx;

static int setup(void **state)
{
    (void)state;
    ctx = qnm_context(&file, NULL);
    return ctx != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    qn_context_destroy(ctx);
    free(file.data);
    return 0;
}

static uint8_t *seed(int which, size_t *size)
{
    assert_true(qnm_seed(ctx, which));
    uint8_t *const copy = malloc(file.size + 1);
    assert_non_null(copy);
    memcpy(copy, file.data, file.size);
    *size = file.size;
    return copy;
}

static void test_seeds_are_sound(void **state)
{
    (void)state;
    for (int which = 0; which < N_QNM_SEEDS; which++) {
        size_t size;
        uint8_t *const bytes = seed(which, &size);
        const qnm_fate fate = qnm_try(ctx, &file, bytes, size);
        assert_true(fate.ok && fate.is_graph && fate.is_whole);
        assert_int_equal(fate.ran, which != 2);
        free(bytes);
    }
}

static void test_every_truncation(void **state)
{
    (void)state;
    for (int which = 0; which < N_QNM_SEEDS; which++) {
        size_t size;
        uint8_t *const bytes = seed(which, &size);
        for (size_t cut = 0; cut < size; cut++) {
            const qnm_fate fate = qnm_try(ctx, &file, bytes, cut);
            if (!fate.ok || fate.is_graph)
                fail_msg("seed %d cut at %zu", which, cut);
        }
        free(bytes);
    }
}

/* Cut, and the header says so. */
static void test_every_truncation_with_its_length(void **state)
{
    (void)state;
    for (int which = 0; which < N_QNM_SEEDS; which++) {
        size_t size;
        uint8_t *const bytes = seed(which, &size);
        for (size_t cut = QN_QNM_HEADER_BYTES; cut < size; cut++) {
            qn_qnm_put(bytes + 16, cut, 8);
            const qnm_fate fate = qnm_try(ctx, &file, bytes, cut);
            if (!fate.ok || fate.is_whole)
                fail_msg("seed %d cut at %zu", which, cut);
        }
        free(bytes);
    }
}

static void test_every_changed_byte(void **state)
{
    (void)state;
    static const uint8_t CHANGES[] = {0x01, 0x80, 0xFF};
    for (int which = 0; which < N_QNM_SEEDS; which++) {
        size_t size, accepted = 0;
        uint8_t *const bytes = seed(which, &size);
        for (size_t at = 0; at < size; at++) {
            /* of a long file one change a byte, in turn */
            for (size_t n = 0; n < (which < 4 ? sizeof(CHANGES) : 1); n++) {
                const size_t i = (at + n) % sizeof(CHANGES);
                bytes[at] ^= CHANGES[i];
                const qnm_fate fate = qnm_try(ctx, &file, bytes, size);
                if (!fate.ok || fate.is_whole)
                    fail_msg("seed %d byte %zu ^ %#x", which, at, CHANGES[i]);
                accepted += fate.is_graph;
                bytes[at] ^= CHANGES[i];
            }
        }
        assert_true(accepted > size / 4); /* constants may be anything */
        free(bytes);
    }
}

/* Several bytes at once, the checksum made right. */
static void test_random_damage(void **state)
{
    (void)state;
    enum { ROUNDS = 3000 };
    uint32_t random = 1;
    for (int which = 0; which < N_QNM_SEEDS; which++) {
        size_t size;
        uint8_t *const bytes = seed(which, &size), *const copy = malloc(size);
        assert_non_null(copy);
        for (int round = 0; round < ROUNDS; round++) {
            memcpy(copy, bytes, size);
            for (uint32_t n = 1 + round % 4; n > 0; n--) {
                random = random * 1664525u + 1013904223u;
                copy[(random >> 8) % size] = (uint8_t)(random % 3 == 0 ? 0xFF : random >> 24);
            }
            qn_qnm_put(copy + QN_QNM_CHECKSUM_AT, qn__qnm_checksum(copy, size), 4);
            const qnm_fate fate = qnm_try(ctx, &file, copy, size);
            if (!fate.ok)
                fail_msg("seed %d round %d", which, round);
        }
        free(copy);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_are_sound),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_truncation_with_its_length),
        cmocka_unit_test(test_every_changed_byte),
        cmocka_unit_test(test_random_damage),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
