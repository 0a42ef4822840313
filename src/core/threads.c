/* The only file that knows pthreadpool. */
#include "core/threads.h"

#include "core/context.h"

#include <pthreadpool.h>

struct qn_pool {
    pthreadpool_t pool;
    uint32_t size;
};

qn_status qn__pool_create(const qn_context *ctx, uint32_t n_threads, qn_pool **out, qn_error *error)
{
    qn_pool *pool = qn__calloc(ctx, 1, sizeof *pool);
    if (pool == NULL)
        return QN_NOMEM(error);
    pool->size = 1;
    if (n_threads != 1) {
        pool->pool = pthreadpool_create(n_threads);
        if (pool->pool == NULL) {
            qn__free(ctx, pool);
            QN_FAIL(error, QN_NO_MEMORY, "cannot start %u threads", n_threads);
        }
        pool->size = (uint32_t)pthreadpool_get_threads_count(pool->pool);
    }
    *out = pool;
    return QN_OK;
}

void qn__pool_destroy(const qn_context *ctx, qn_pool *pool)
{
    if (pool == NULL)
        return;
    if (pool->pool != NULL)
        pthreadpool_destroy(pool->pool);
    qn__free(ctx, pool);
}

uint32_t qn__pool_size(const qn_pool *pool)
{
    return pool == NULL ? 1 : pool->size;
}

void qn__parallel(qn_pool *pool, qn_parallel_fn fn, void *arg, size_t count)
{
    if (pool != NULL && pool->pool != NULL && count > 1) {
        pthreadpool_parallelize_1d(pool->pool, fn, arg, count, PTHREADPOOL_FLAG_DISABLE_DENORMALS);
        return;
    }
    for (size_t i = 0; i < count; i++)
        fn(arg, i);
}

typedef struct worker_call {
    qn_parallel_worker_fn fn;
    void *arg;
    size_t count;
    _Atomic size_t next;
} worker_call;

/* One task per worker, each taking indices from a shared counter: a task number is then a worker
 * number, which pthreadpool does not tell for plain loops. */
static void run_worker(void *arg, size_t worker)
{
    worker_call *const call = arg;
    for (;;) {
        const size_t index = call->next++;
        if (index >= call->count)
            return;
        call->fn(call->arg, (uint32_t)worker, index);
    }
}

void qn__parallel_worker(qn_pool *pool, qn_parallel_worker_fn fn, void *arg, size_t count)
{
    worker_call call = {.fn = fn, .arg = arg, .count = count, .next = 0};
    qn__parallel(pool, run_worker, &call, qn__pool_size(pool));
}
