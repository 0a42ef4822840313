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
        /* The bound is what lives at the fullest moment. */
        uint64_t change[64];
        size_t most = 0;
        for (uint32_t t = 0; t < 50; t++) {
            size_t live = 0;
            for (size_t i = 0; i < n; i++)
                live += items[i].first <= t && t <= items[i].last ? items[i].bytes : 0;
            most = live > most ? live : most;
        }
        assert_int_equal(qn__memory_bound(items, n, change, 64), most);
        assert_int_equal(qn__memory_plan(ctx, items, n, most, &total, &error), QN_OK);
        assert_true(most <= total && total <= sum);
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
    assert_int_equal(qn__memory_plan(ctx, items, 10, 2048, &total, &error), QN_OK);
    assert_int_equal(total, 2048);
    qn_mem_item huge[2] = {{.bytes = SIZE_MAX - 100, .first = 0, .last = 1},
                           {.bytes = SIZE_MAX / 2, .first = 0, .last = 1}};
    assert_int_equal(qn__memory_plan(ctx, huge, 2, 0, &total, &error), QN_LIMIT);
    qn_context_destroy(ctx);
}

/* What the largest tensor's place leaves free is in pieces: the order of time needs no more than
 * what lives at once. */
static void holes_are_avoided(void **state)
{
    (void)state;
    qn_context *ctx = NULL;
    qn_error error;
    assert_int_equal(qn_context_create(NULL, &ctx, &error), QN_OK);
    qn_mem_item items[] = {{.bytes = 3 * 64, .first = 1, .last = 2},
                           {.bytes = 2 * 64, .first = 2, .last = 3},
                           {.bytes = 2 * 64, .first = 3, .last = 4},
                           {.bytes = 4 * 64, .first = 4, .last = 5}};
    size_t total = 0;
    assert_int_equal(qn__memory_plan(ctx, items, 4, SIZE_MAX, &total, &error), QN_OK);
    assert_int_equal(total, 7 * 64); /* the first way alone */
    assert_int_equal(qn__memory_plan(ctx, items, 4, 6 * 64, &total, &error), QN_OK);
    assert_int_equal(total, 6 * 64);
    qn_context_destroy(ctx);
}

/* An input that is only read stays where the caller has it; one that an operator may overwrite is
 * copied, and so is every one when a hook or a caller of single steps is there. */
static void inputs_stay_the_callers(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        net *const n = net_start();
        builder *const b = &n->b;
        float data[64], before[64];
        net_fill(data, 64);
        memcpy(before, data, sizeof(data));
        const int64_t dims[2] = {4, 16};
        const int64_t shape[1] = {64};
        qn_tensor *x = net_input(n, data, false, 2, dims);
        if (kind == 1)
            x = NODE(b, RESHAPE, "r", x,
                     build_const(b, "s", QN_DTYPE_I64, shape, 1, (int64_t[]){1}));
        qn_tensor *y = NODE(b, RELU, "y", x);
        build_output(b, kind == 2 ? NODE(b, ADD, "z", y, x) : y);
        if (kind == 3)
            build_output(b, NODE(b, IDENTITY, "same", x));
        qn_plan *plan = NULL;
        qn_exec *exec = NULL;
        assert_ok(b, qn__plan_create(b->graph, NULL, &plan, &b->error));
        assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
        const void *inputs[1] = {data};
        for (int run = 0; run < 4; run++) {
            float other[64];
            net_fill(other, 64);
            const float *const given = run % 2 ? other : data;
            inputs[0] = given;
            if (run < 2) {
                assert_ok(b, qn__exec_run(exec, inputs, &b->error));
            } else { /* the input is gone once the run has begun */
                float copy[64];
                memcpy(copy, given, sizeof(copy));
                inputs[0] = copy;
                assert_ok(b, qn__exec_begin(exec, inputs, &b->error));
                memset(copy, 0, sizeof(copy));
                for (size_t s = 0; s < qn__exec_n_steps(exec); s++)
                    assert_ok(b, qn__exec_step(exec, s, &b->error));
            }
            const float *const got = qn__exec_output(exec, 0)->data;
            for (size_t i = 0; i < 64; i++) {
                const float relu = given[i] > 0.0f ? given[i] : 0.0f;
                assert_true(got[i] == (kind == 2 ? relu + given[i] : relu));
            }
            if (kind == 3) {
                assert_ptr_not_equal(qn__exec_output(exec, 1)->data, given);
                assert_memory_equal(qn__exec_output(exec, 1)->data, given, sizeof(data));
            }
            assert_memory_equal(data, before, sizeof(data));
        }
        qn__exec_destroy(exec);
        qn__plan_destroy(plan);
        net_end(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lifetimes),
        cmocka_unit_test(inputs_stay_the_callers),
        cmocka_unit_test(chains_reuse_memory),
        cmocka_unit_test(holes_are_avoided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
