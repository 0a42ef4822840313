/* What is inside a qn_context. */
#ifndef QN_CORE_CONTEXT_H
#define QN_CORE_CONTEXT_H

#include "core/alloc.h"
#include "core/cpu.h"

#define QN_LIMIT_MAX_RANK 8 /* tensors hold their dims in place */

struct qn_context {
    qn_allocator allocator;
    qn_io io;
    qn_limits limits;
    qn_log_fn log;
    void *log_ctx;
    qn_progress_fn progress;
    void *progress_ctx;
    struct qn_pool *pool; /* core/threads.h; NULL: none */
    uint32_t n_threads;
    uint32_t cpu_flags;       /* QN_CPU_* after masking */
    size_t arena_block_bytes; /* 16 KiB; fault tests take less, so that every request is seen */
};

/* Everything but threads and the log (context_init.c): what the stand-alone runtime has. Options
 * are checked; INVALID_ARGUMENT for an unknown CPU mask. */
qn_status qn__context_init(qn_context *ctx, const qn_context_options *options, qn_error *error);
/* The caller's allocator or malloc. */
qn_allocator qn__allocator_of(const qn_allocator *given);

/* Only for contexts of qn_context_create. */
void qn__log(const qn_context *ctx, qn_log_level level, const char *format, ...) QN_PRINTF(3, 4);

#endif
