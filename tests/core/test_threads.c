/* The pool: every index once, worker numbers in range, many short loops, and several callers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "core/context.h"
#include "core/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COUNT = 300, ROUNDS = 3000 };

typedef struct counts {
    uint32_t size;
    _Atomic uint32_t wrong_workers;
    uint32_t plain[MAX_COUNT]; /* not atomic: the pool must order them */
} counts;

static void count_index(void *arg, uint32_t worker, size_t index)
{
    counts *const c = arg;
    c->plain[index]++;
    if (worker >= c->size)
        c->wrong_workers++;
}

static void every_index_runs_once(void **state)
{
    qn_context *const ctx = *state;
    for (uint32_t size = 1; size <= 5; size++) {
        qn_pool *pool = NULL;
        assert_int_equal(qn__pool_create(ctx, size, &pool, NULL), QN_OK);
        assert_int_equal(qn__pool_size(pool), size);
        static counts c;
        for (size_t count = 0; count < MAX_COUNT; count++) {
            memset(&c, 0, sizeof c);
            c.size = size;
            qn__parallel_worker(pool, count_index, &c, count);
            for (size_t i = 0; i < MAX_COUNT; i++)
                assert_int_equal(c.plain[i], i < count ? 1 : 0);
            assert_int_equal(c.wrong_workers, 0);
        }
        qn__pool_destroy(ctx, pool);
    }
}

static void add_index(void *arg, size_t index)
{
    uint64_t *const sums = arg;
    sums[index] += index + 1;
}

static void short_loops_see_each_others_results(void **state)
{
    qn_context *const ctx = *state;
    qn_pool *pool = NULL;
    assert_int_equal(qn__pool_create(ctx, 3, &pool, NULL), QN_OK);
    uint64_t sums[7] = {0};
    for (int round = 0; round < ROUNDS; round++)
        qn__parallel(pool, add_index, sums, 7);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(sums[i], (uint64_t)ROUNDS * (i + 1));
    qn__pool_destroy(ctx, pool);
}

typedef struct caller {
    qn_pool *pool;
    uint64_t sums[5];
} caller;

static void *call_many_loops(void *arg)
{
    caller *const c = arg;
    for (int round = 0; round < ROUNDS; round++)
        qn__parallel(c->pool, add_index, c->sums, 5);
    return NULL;
}

static void two_callers_share_a_pool(void **state)
{
    qn_context *const ctx = *state;
    caller callers[2] = {{0}};
    pthread_t thread;
    assert_int_equal(qn__pool_create(ctx, 2, &callers[0].pool, NULL), QN_OK);
    callers[1].pool = callers[0].pool;
    assert_int_equal(pthread_create(&thread, NULL, call_many_loops, &callers[1]), 0);
    call_many_loops(&callers[0]);
    pthread_join(thread, NULL);
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < 5; i++)
            assert_int_equal(callers[k].sums[i], (uint64_t)ROUNDS * (i + 1));
    qn__pool_destroy(ctx, callers[0].pool);
}

static void no_pool_runs_in_the_caller(void **state)
{
    (void)state;
    uint64_t sums[3] = {0};
    qn__parallel(NULL, add_index, sums, 3);
    assert_int_equal(sums[2], 3);
    assert_int_equal(qn__pool_size(NULL), 1);
}

static int setup(void **state)
{
    return qn_context_create(NULL, (qn_context **)state, NULL) == QN_OK ? 0 : 1;
}
static int teardown(void **state)
{
    qn_context_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_runs_once),
        cmocka_unit_test(short_loops_see_each_others_results),
        cmocka_unit_test(two_callers_share_a_pool),
        cmocka_unit_test(no_pool_runs_in_the_caller),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
