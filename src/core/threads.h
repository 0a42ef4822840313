/* Parallel loops over a pool of threads. Results must not depend on how indices are spread. */
#ifndef QN_CORE_THREADS_H
#define QN_CORE_THREADS_H

#include "core/status.h"

typedef void (*qn_parallel_fn)(void *arg, size_t index);
typedef void (*qn_parallel_worker_fn)(void *arg, uint32_t worker, size_t index);

/* Somebody's threads: the pool of core/threads.c, or what a program that embeds the runtime lends.
 * loop calls fn(arg, worker, i) once for each i in [0, count), worker below size, and returns when
 * all are done. */
typedef struct qn_pool qn_pool;
struct qn_pool {
    uint32_t size;
    void (*loop)(qn_pool *pool, qn_parallel_worker_fn fn, void *arg, size_t count);
};

/* --- threads.c ---------------------------------------------------------------------------------
 */
/* n_threads 0: one per usable core. */
qn_status qn__pool_create(const qn_context *ctx, uint32_t n_threads, qn_pool **out,
                          qn_error *error);
void qn__pool_destroy(const qn_context *ctx, qn_pool *pool);

/* --- parallel.c --------------------------------------------------------------------------------
 */
uint32_t qn__pool_size(const qn_pool *pool); /* NULL pool: 1 */

/* Calls fn(arg, i) for i in [0, count), on all threads; returns when all are done. A NULL pool or a
 * pool of one thread runs in the caller. Not reentrant for one pool: never call it from inside fn
 * with the same pool. */
void qn__parallel(qn_pool *pool, qn_parallel_fn fn, void *arg, size_t count);
/* The same with the calling worker's number in [0, pool size), for per-worker scratch. */
void qn__parallel_worker(qn_pool *pool, qn_parallel_worker_fn fn, void *arg, size_t count);

#endif
