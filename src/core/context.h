/* What is inside a qn_context. */
#ifndef QN_CORE_CONTEXT_H
#define QN_CORE_CONTEXT_H

#include "core/alloc.h"
#include "core/cpu.h"

#include <pthread.h>

#define QN_LIMIT_MAX_RANK 8 /* tensors hold their dims in place */

struct qn_context {
    qn_allocator allocator;
    qn_io io;
    qn_limits limits;
    qn_log_fn log;
    void *log_ctx;
    pthread_mutex_t log_lock;
    bool has_log_lock;
    struct qn_pool *pool; /* core/threads.h */
    uint32_t n_threads;
    uint32_t cpu_flags;       /* QN_CPU_* after masking */
    size_t arena_block_bytes; /* 16 KiB; fault tests take less, so that every request is seen */
};

void qn__log(const qn_context *ctx, qn_log_level level, const char *format, ...) QN_PRINTF(3, 4);

#endif
