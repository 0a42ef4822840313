/* The arena planner: tensors alive at the same time never overlap, and memory is reused. */
#include "run_net.h"

#include "run/plan.h"

static void random_lifetimes(void **state)
{
    (void)state;
    qn_context *ctx = NULL;
    qn_error error;
    assert_int_equal(qn_context_create(NULL, &ctx, &error), QN_OK);
    for (int round = 0; round < 200; round++) {
        enum { MAX = 60 };
        qn_mem_item items[MAX];
        const size_t n = 1 + net_random(MAX);
        size_t sum = 0, total = 0;
        for (size_t i = 0; i < n; i++) {
            const uint32_t first = net_random(40);
            items[i] = (qn_mem_item){.bytes = net_random(5) == 0 ? 0 : net_random(5000),
                                     .first = first,
                                     .last = first + net_random(10)};
            sum += (items[i].bytes + 63) / 64 * 64;
        }
        assert_int_equal(qn__memory_plan(ctx, items, n, &total, &error), QN_OK);
        assert_true(total <= sum);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(items[i].offset % 64, 0);
            assert_true(items[i].offset + items[i].bytes <= total);
            for (size_t j = 0; j < i; j++) {
                const bool together =
                    items[i].first <= items[j].last && items[j].first <= items[i].last;
                const bool overlap = items[i].offset < items[j].offset + items[j].bytes &&
                                     items[j].offset < items[i].offset + items[i].bytes;
                assert_false(together && overlap);
            }
        }
    }
    qn_context_destroy(ctx);
}

static void chains_reuse_memory(void **state)
{
    (void)state;
    qn_context *ctx = NULL;
    qn_error error;
    assert_int_equal(qn_context_create(NULL, &ctx, &error), QN_OK);
    qn_mem_item items[10];
    size_t total = 0;
    for (uint32_t i = 0; i < 10; i++)
        items[i] = (qn_mem_item){.bytes = 1024, .first = i, .last = i + 1};
    assert_int_equal(qn__memory_plan(ctx, items, 10, &total, &error), QN_OK);
    assert_int_equal(total, 2048);
    qn_mem_item huge[2] = {{.bytes = SIZE_MAX - 100, .first = 0, .last = 1},
                           {.bytes = SIZE_MAX / 2, .first = 0, .last = 1}};
    assert_int_equal(qn__memory_plan(ctx, huge, 2, &total, &error), QN_LIMIT);
    qn_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lifetimes),
        cmocka_unit_test(chains_reuse_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
