/* Contexts of the toolkit: with threads and a log. */
#include "core/context.h"

#include "core/threads.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct toolkit_context {
    qn_context base; /* first: every qn_context made here is one of these */
    pthread_mutex_t log_lock;
    bool has_log_lock;
} toolkit_context;

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
    QN_TRY(
        qn__check_struct(options->struct_size, sizeof *options, "qn_context_options_init", error));

    const qn_allocator allocator = qn__allocator_of(options->allocator);
    toolkit_context *self = allocator.alloc(allocator.ctx, sizeof *self);
    if (self == NULL)
        return QN_NOMEM(error);
    memset(self, 0, sizeof *self);
    qn_context *const ctx = &self->base;
    qn_status status = QN_OK;
    QN_TRY_GOTO(qn__context_init(ctx, options, error));
    ctx->log = options->log;
    ctx->log_ctx = options->log_ctx;
    ctx->progress = options->progress;
    ctx->progress_ctx = options->progress_ctx;
    if (pthread_mutex_init(&self->log_lock, NULL) != 0)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "cannot create a mutex");
    self->has_log_lock = true;
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
    toolkit_context *const self = (toolkit_context *)ctx;
    qn__pool_destroy(ctx, ctx->pool);
    if (self->has_log_lock)
        pthread_mutex_destroy(&self->log_lock);
    const qn_allocator allocator = ctx->allocator;
    allocator.free(allocator.ctx, self);
}

uint32_t qn_context_n_threads(const qn_context *ctx)
{
    return ctx != NULL ? ctx->n_threads : 0;
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
    qn__keep_one_line(line);
    /* The lock is the one thing in a context that changes; the caller's function is promised that
     * it is never entered twice at once. */
    toolkit_context *const self = (toolkit_context *)ctx;
    pthread_mutex_lock(&self->log_lock);
    ctx->log(ctx->log_ctx, level, line);
    pthread_mutex_unlock(&self->log_lock);
}
