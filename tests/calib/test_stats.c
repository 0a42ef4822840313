/* Statistics files: merging parts gives the bytes of one run; every truncation and every damaged
 * byte is refused; what has right checksums and wrong content ends in one line of error. */
#include "stats_seed.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static qn_context *ctx;
static memory_file file;

static int make_context(void **state)
{
    (void)state;
    ctx = stats_context(&file);
    return ctx != NULL ? 0 : -1;
}

static int drop_context(void **state)
{
    (void)state;
    qn_context_destroy(ctx);
    free(file.data);
    return 0;
}

static uint8_t *written(const qn_stats *stats, size_t *size)
{
    qn_error error = {0};
    if (qn__stats_write(stats, "f", &error) != QN_OK)
        fail_msg("%s", error.message);
    uint8_t *copy = malloc(file.size);
    assert_non_null(copy);
    memcpy(copy, file.data, file.size);
    *size = file.size;
    return copy;
}

static void put(const uint8_t *data, size_t size)
{
    memcpy(file.data, data, size);
    file.size = size;
}

/* Few values in each tensor, and more than admm keeps as they are. */
static void test_parts_are_the_whole(void **state)
{
    static const uint64_t cuts[][4] = {{0, 4, 7, 10}, {0, 1, 2, 10}, {0, 5, 5, 10}};
    (void)state;
    for (size_t many = 1; many <= 300; many += 299)
        for (size_t c = 0; c < 3; c++) {
            size_t size, merged_size;
            qn_error error = {0};
            qn_stats *whole = seed_stats(ctx, 0, SEED_SAMPLES, many);
            uint8_t *want = written(whole, &size);
            qn_stats *total = seed_stats(ctx, cuts[c][2], cuts[c][3], many);
            for (size_t p = 0; p < 2; p++) {
                qn_stats *part = seed_stats(ctx, cuts[c][p], cuts[c][p + 1], many);
                if (qn__stats_merge(total, part, &error) != QN_OK)
                    fail_msg("%s", error.message);
                qn__stats_free(part);
            }
            uint8_t *got = written(total, &merged_size);
            assert_int_equal(size, merged_size);
            assert_memory_equal(want, got, size);
            qn__stats_free(whole);
            qn__stats_free(total);
            free(want);
            free(got);
        }
}

static void test_not_parts_of_one_run(void **state)
{
    (void)state;
    qn_error error = {0};
    qn_stats *a = seed_stats(ctx, 0, 4, 1), *b = seed_stats(ctx, 3, 6, 1);
    assert_int_equal(qn__stats_merge(a, b, &error), QN_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "sample 3, \"3.png\", is in the other"));
    qn__stats_free(b);
    b = seed_stats(ctx, 4, 6, 1);
    b->head.preprocess.mean[0] = 1;
    assert_int_equal(qn__stats_merge(a, b, &error), QN_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "the preprocessing differs"));
    b->head.preprocess.mean[0] = a->head.preprocess.mean[0];
    b->head.model++;
    assert_int_equal(qn__stats_merge(a, b, &error), QN_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "the model differs"));
    b->head.model--;
    b->stages[QN_STATS_MAIN].graph++;
    assert_int_equal(qn__stats_merge(a, b, &error), QN_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "options of quantization differ"));
    qn__stats_free(a);
    qn__stats_free(b);
}

static void test_read_back(void **state)
{
    (void)state;
    bool accepted = false;
    for (size_t many = 1; many <= 300; many += 299) {
        qn_stats *s = seed_stats(ctx, 0, SEED_SAMPLES, many);
        size_t size;
        free(written(s, &size));
        assert_true(stats_try(ctx, &file, &accepted));
        assert_true(accepted);
        qn__stats_free(s);
    }
}

static void test_cut_and_damaged(void **state)
{
    (void)state;
    qn_stats *s = seed_stats(ctx, 0, 4, 1), *read = NULL;
    size_t size;
    uint8_t *seed = written(s, &size);
    for (size_t n = 0; n < size; n++) {
        put(seed, n);
        assert_int_not_equal(qn__stats_open(ctx, "f", &read, NULL), QN_OK);
    }
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit += 3) {
            put(seed, size);
            file.data[i] ^= (uint8_t)(1 << bit);
            assert_int_not_equal(qn__stats_open(ctx, "f", &read, NULL), QN_OK);
        }
    free(seed);
    qn__stats_free(s);
}

/* Every byte of the content changed, under checksums that fit. */
static void test_wrong_content(void **state)
{
    (void)state;
    static const uint8_t flips[] = {0x01, 0x40, 0x80, 0xFF};
    qn_stats *s = seed_stats(ctx, 0, 3, 1);
    size_t size, refused = 0;
    uint8_t *seed = written(s, &size);
    for (size_t i = 12; i < size; i++)
        for (size_t f = 0; f < sizeof(flips); f++) {
            bool accepted = false;
            put(seed, size);
            file.data[i] ^= flips[f];
            stats_fix_checksums(file.data, size);
            if (!stats_try(ctx, &file, &accepted))
                fail_msg("byte %zu ^ %02x", i, flips[f]);
            refused += !accepted;
        }
    assert_true(refused > size); /* names, sums and bits of floats may be anything */
    free(seed);
    qn__stats_free(s);
}

/* A journal gives what is whole in it. */
static void test_journal_cut(void **state)
{
    (void)state;
    qn_stats *s = seed_stats(ctx, 0, 3, 1);
    s->part = s->n_parts = 1;
    qn_error error = {0};
    assert_int_equal(qn__stats_write_as(s, "f", true, &error), QN_OK);
    const size_t size = file.size;
    uint8_t *seed = malloc(size);
    assert_non_null(seed);
    memcpy(seed, file.data, size);
    size_t whole = 0, empty = 0;
    for (size_t n = 12; n <= size; n++) {
        qn_stats *read = NULL;
        put(seed, n);
        const qn_status status = qn__stats_open_journal(ctx, "f", &read, &error);
        assert_true(status == QN_OK || status == QN_CORRUPT);
        if (status != QN_OK)
            continue;
        whole += read->stages[QN_STATS_MAIN].n_samples == 3;
        empty += read->stages[QN_STATS_MAIN].n_samples == 0;
        qn__stats_free(read);
    }
    assert_int_equal(whole, 1);
    assert_true(empty > 100);
    free(seed);
    qn__stats_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_are_the_whole), cmocka_unit_test(test_not_parts_of_one_run),
        cmocka_unit_test(test_read_back),           cmocka_unit_test(test_cut_and_damaged),
        cmocka_unit_test(test_wrong_content),       cmocka_unit_test(test_journal_cut),
    };
    return cmocka_run_group_tests_name("stats", tests, make_context, drop_context);
}
