#include "core/context.h"

#include "core/io.h"
#include "core/threads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *default_alloc(void *ctx, size_t size_bytes)
{
    (void)ctx;
    return malloc(size_bytes);
}

static void *default_realloc(void *ctx, void *ptr, size_t size_bytes)
{
    (void)ctx;
    return realloc(ptr, size_bytes);
}

static void default_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

void qn_limits_init(qn_limits *limits)
{
    *limits = (qn_limits){
        .struct_size = sizeof *limits,
        .file_bytes = (UINT64_C(1) << 31) - 1,
        .tensor_bytes = (UINT64_C(1) << 31) - 1,
        .arena_bytes = UINT64_C(16) << 30,
        .image_pixels = 100000000,
        .nodes = 1000000,
        .rank = 8,
        .nesting = 64,
    };
}

void qn_context_options_init(qn_context_options *options)
{
    *options = (qn_context_options){.struct_size = sizeof *options};
}

qn_status qn_context_create(const qn_context_options *options, qn_context **out, qn_error *error)
{
    qn_context_options defaults;
    qn_context_options_init(&defaults);
    if (options == NULL)
        options = &defaults;
    QN_FAIL_IF(out == NULL, error, QN_INVALID_ARGUMENT, "qn_context_create: out is NULL");
    QN_FAIL_IF(options->struct_size != sizeof *options, error, QN_INVALID_ARGUMENT,
               "qn_context_create: options were not made by qn_context_options_init");

    const qn_allocator standard = {default_alloc, default_realloc, default_free, NULL};
    const qn_allocator allocator = options->allocator != NULL ? *options->allocator : standard;
    qn_context *ctx = allocator.alloc(allocator.ctx, sizeof *ctx);
    if (ctx == NULL)
        return QN_NOMEM(error);
    memset(ctx, 0, sizeof *ctx);
    ctx->allocator = allocator;
    if (options->io != NULL)
        ctx->io = *options->io;
    else
        qn_io_init(&ctx->io);
    if (options->limits != NULL)
        ctx->limits = *options->limits;
    else
        qn_limits_init(&ctx->limits);
    if (ctx->limits.rank > QN_LIMIT_MAX_RANK)
        ctx->limits.rank = QN_LIMIT_MAX_RANK;
    ctx->log = options->log;
    ctx->log_ctx = options->log_ctx;
    ctx->cpu_flags = qn__cpu_detect();
    ctx->arena_block_bytes = QN_ARENA_BLOCK_BYTES;

    qn_status status = QN_OK;
    if (options->cpu_mask != NULL && !qn__cpu_mask(&ctx->cpu_flags, options->cpu_mask))
        QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT,
                     "unknown CPU mask \"%s\" (scalar, avx2, avxvnni, avx512, vnni, neon)",
                     options->cpu_mask);
    if (pthread_mutex_init(&ctx->log_lock, NULL) != 0)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "cannot create a mutex");
    ctx->has_log_lock = true;
    QN_TRY_GOTO(qn__pool_create(ctx, options->n_threads, &ctx->pool, error));
    ctx->n_threads = qn__pool_size(ctx->pool);
    *out = ctx;
done:
    if (status != QN_OK)
        qn_context_destroy(ctx);
    return status;
}

void qn_context_destroy(qn_context *ctx)
{
    if (ctx == NULL)
        return;
    qn__pool_destroy(ctx, ctx->pool);
    if (ctx->has_log_lock)
        pthread_mutex_destroy(&ctx->log_lock);
    const qn_allocator allocator = ctx->allocator;
    allocator.free(allocator.ctx, ctx);
}

uint32_t qn_context_n_threads(const qn_context *ctx)
{
    return ctx->n_threads;
}

void qn__log(const qn_context *ctx, qn_log_level level, const char *format, ...)
{
    if (ctx->log == NULL)
        return;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    /* The lock is the one thing in a context that changes; the caller's function is promised that
     * it is never entered twice at once. */
    qn_context *const mutable_ctx = (qn_context *)ctx;
    pthread_mutex_lock(&mutable_ctx->log_lock);
    ctx->log(ctx->log_ctx, level, line);
    pthread_mutex_unlock(&mutable_ctx->log_lock);
}
