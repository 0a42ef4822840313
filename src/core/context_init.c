/* A context's allocator, limits, files and instruction sets. */
#include "core/context.h"

#include "core/io.h"

#include <stdlib.h>

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
        .data_bytes = UINT64_C(1) << 38,
        .model_bytes = (UINT64_C(1) << 31) - 1,
    };
}

qn_allocator qn__allocator_of(const qn_allocator *given)
{
    const qn_allocator standard = {default_alloc, default_realloc, default_free, NULL};
    return given != NULL ? *given : standard;
}

qn_status qn__context_init(qn_context *ctx, const qn_context_options *options, qn_error *error)
{
    *ctx = (qn_context){.allocator = qn__allocator_of(options->allocator),
                        .n_threads = 1,
                        .cpu_flags = qn__cpu_detect(),
                        .arena_block_bytes = QN_ARENA_BLOCK_BYTES};
    if (options->io != NULL)
        ctx->io = *options->io;
    else
        qn_io_init(&ctx->io);
    qn_limits_init(&ctx->limits);
    if (options->limits != NULL) {
        QN_TRY(qn__check_struct(options->limits->struct_size, sizeof ctx->limits, "qn_limits_init",
                                error));
        ctx->limits = *options->limits;
    }
    if (ctx->limits.rank > QN_LIMIT_MAX_RANK)
        ctx->limits.rank = QN_LIMIT_MAX_RANK;
    QN_FAIL_IF(
        options->cpu_mask != NULL && !qn__cpu_mask(&ctx->cpu_flags, options->cpu_mask), error,
        QN_INVALID_ARGUMENT,
        "unknown CPU mask \"%s\" (scalar, avx2, avxvnni, avx512, vnni, amx, neon, dotprod, i8mm)",
        options->cpu_mask);
    return QN_OK;
}
