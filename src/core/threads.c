/* A thread pool whose caller never waits for a helper that has not started: helpers join a job only
 * while it is open, and the caller closes it as soon as no index is left. On a machine that is busy
 * with something else a loop then costs what the caller alone would need, where a pool that waits
 * for every thread to check in costs a time slice per loop.
 *
 * Indices are cut into one range per thread; a thread that has finished its own takes from the
 * others'. Floating-point modes are left alone, so a loop gives the same bits on any thread. */
#include "core/threads.h"

#include "core/context.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

/* Between the loops of one inference helpers spin (tens of microseconds); then they sleep. */
enum { HELPER_SPINS = 2000, CALLER_SPINS = 500 };
enum { MAX_THREADS = 1024 };

/* state: epoch of the job in the upper half, then whether it is open, then how many helpers work.
 */
#define STATE_EPOCH ((uint64_t)1 << 32)
#define STATE_OPEN ((uint64_t)1 << 31)
#define STATE_ACTIVE (STATE_OPEN - 1)

typedef struct range {
    _Alignas(64) _Atomic size_t next; /* a line of its own: threads do not disturb each other */
    size_t end;
} range;

typedef struct thread_pool thread_pool;
typedef struct helper {
    thread_pool *pool;
    uint32_t index; /* worker number, 1..; the caller is 0 */
    pthread_t thread;
} helper;

struct thread_pool {
    qn_pool base;       /* first: a qn_pool made here is one of these */
    uint32_t n_started; /* helpers with a thread */
    helper *helpers;
    range *ranges;           /* [size] */
    pthread_mutex_t callers; /* one loop at a time */
    /* The job: written by the caller while it is closed and no helper works. */
    qn_parallel_worker_fn fn;
    void *arg;
    _Atomic uint64_t state;
    /* Sleeping helpers. */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
};

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(thread_pool *pool, uint32_t worker)
{
    for (uint32_t i = 0; i < pool->base.size; i++) {
        range *const r = &pool->ranges[(worker + i) % pool->base.size];
        while (atomic_load_explicit(&r->next, memory_order_relaxed) < r->end) {
            const size_t index = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
            if (index >= r->end)
                break;
            pool->fn(pool->arg, worker, index);
        }
    }
}

/* Is there an open job that this helper has not worked on? */
static bool is_new(uint64_t state, uint64_t seen_epoch)
{
    return (state & STATE_OPEN) != 0 && state >> 32 != seen_epoch;
}

static uint64_t wait_for_job(thread_pool *pool, uint64_t seen_epoch)
{
    for (int spin = 0; spin < HELPER_SPINS; spin++) {
        const uint64_t state = atomic_load(&pool->state);
        if (is_new(state, seen_epoch) || atomic_load(&pool->stop))
            return state;
        pause_briefly();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    uint64_t state = atomic_load(&pool->state);
    while (!is_new(state, seen_epoch) && !atomic_load(&pool->stop)) {
        pthread_cond_wait(&pool->wake, &pool->lock);
        state = atomic_load(&pool->state);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return state;
}

static void *helper_main(void *arg)
{
    const helper *const self = arg;
    thread_pool *const pool = self->pool;
    uint64_t seen_epoch = 0;
    while (!atomic_load(&pool->stop)) {
        uint64_t state = wait_for_job(pool, seen_epoch);
        while (is_new(state, seen_epoch)) {
            if (!atomic_compare_exchange_weak(&pool->state, &state, state + 1))
                continue; /* state was read again */
            seen_epoch = state >> 32;
            work(pool, self->index);
            atomic_fetch_sub(&pool->state, 1);
            break;
        }
    }
    return NULL;
}

/* Number of CPUs this process may use. */
static uint32_t usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    const int count = CPU_COUNT(&set);
    return count < 1 ? 1 : (uint32_t)count;
}

/* Signals are the program's main threads' business, but for those that an instruction raises: they
 * cannot go anywhere else. */
static bool start_helpers(thread_pool *pool)
{
    sigset_t all, before;
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigfillset(&all);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        sigdelset(&all, own[i]);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
        return false;
    bool ok = true;
    for (uint32_t i = 0; i + 1 < pool->base.size && ok; i++) {
        helper *const h = &pool->helpers[i];
        h->pool = pool;
        h->index = i + 1;
        ok = pthread_create(&h->thread, NULL, helper_main, h) == 0;
        if (ok)
            pool->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

/* count * i / n, without overflow because n is at most MAX_THREADS. */
static size_t part(size_t count, uint32_t i, uint32_t n)
{
    return count / n * i + count % n * i / n; /* not rounded alike, but rising to count */
}

static void run_loop(qn_pool *base, qn_parallel_worker_fn fn, void *arg, size_t count)
{
    thread_pool *const pool = (thread_pool *)base;
    pthread_mutex_lock(&pool->callers);
    pool->fn = fn;
    pool->arg = arg;
    for (uint32_t i = 0; i < pool->base.size; i++) {
        atomic_store_explicit(&pool->ranges[i].next, part(count, i, pool->base.size),
                              memory_order_relaxed);
        pool->ranges[i].end = part(count, i + 1, pool->base.size);
    }
    /* Closed and no helper active: only the epoch is kept. */
    const uint64_t epoch = (atomic_load(&pool->state) & ~(STATE_EPOCH - 1)) + STATE_EPOCH;
    atomic_store(&pool->state, epoch | STATE_OPEN);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
    work(pool, 0);
    atomic_fetch_and(&pool->state, ~STATE_OPEN);
    for (int spin = 0; (atomic_load(&pool->state) & STATE_ACTIVE) != 0; spin++) {
        if (spin < CALLER_SPINS)
            pause_briefly();
        else
            sched_yield(); /* a helper lost its CPU: give it this one */
    }
    pthread_mutex_unlock(&pool->callers);
}

qn_status qn__pool_create(const qn_context *ctx, uint32_t n_threads, qn_pool **out, qn_error *error)
{
    const uint32_t size = n_threads == 0 ? usable_cores() : n_threads;
    QN_FAIL_IF(size > MAX_THREADS, error, QN_INVALID_ARGUMENT, "%u threads asked, at most %d", size,
               MAX_THREADS);
    thread_pool *const pool = qn__calloc(ctx, 1, sizeof *pool);
    if (pool == NULL)
        return QN_NOMEM(error);
    pool->base = (qn_pool){size, run_loop};
    pool->helpers = qn__calloc(ctx, size, sizeof *pool->helpers);
    pool->ranges = qn__alloc_aligned(ctx, size * sizeof *pool->ranges);
    if (pool->helpers == NULL || pool->ranges == NULL) {
        qn__free(ctx, pool->helpers);
        qn__free_aligned(ctx, pool->ranges);
        qn__free(ctx, pool);
        return QN_NOMEM(error);
    }
    pthread_mutex_init(&pool->callers, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    if (!start_helpers(pool)) {
        qn__pool_destroy(ctx, &pool->base);
        QN_FAIL(error, QN_NO_MEMORY, "cannot start %u threads", size);
    }
    *out = &pool->base;
    return QN_OK;
}

void qn__pool_destroy(const qn_context *ctx, qn_pool *base)
{
    if (base == NULL)
        return;
    thread_pool *const pool = (thread_pool *)base;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->n_started; i++)
        pthread_join(pool->helpers[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->callers);
    qn__free(ctx, pool->helpers);
    qn__free_aligned(ctx, pool->ranges);
    qn__free(ctx, pool);
}
