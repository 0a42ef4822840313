/* Loops over somebody's threads, or in the caller where there are none. */
#include "core/threads.h"

uint32_t qn__pool_size(const qn_pool *pool)
{
    return pool == NULL ? 1 : pool->size;
}

void qn__parallel_worker(qn_pool *pool, qn_parallel_worker_fn fn, void *arg, size_t count)
{
    if (pool != NULL && pool->size > 1 && count > 1) {
        pool->loop(pool, fn, arg, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        fn(arg, 0, i);
}

typedef struct plain_call {
    qn_parallel_fn fn;
    void *arg;
} plain_call;

static void run_plain(void *arg, uint32_t worker, size_t index)
{
    (void)worker;
    const plain_call *const call = arg;
    call->fn(call->arg, index);
}

void qn__parallel(qn_pool *pool, qn_parallel_fn fn, void *arg, size_t count)
{
    plain_call call = {fn, arg};
    qn__parallel_worker(pool, run_plain, &call, count);
}
