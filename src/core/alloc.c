#include "core/alloc.h"

#include "core/checked.h"
#include "core/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 4096, MANY_PAGES = 16 };
enum { ARENA_ALIGNMENT = 16, TENSOR_ALIGNMENT = 64 };

void *qn__alloc(const qn_context *ctx, size_t size_bytes)
{
    return ctx->allocator.alloc(ctx->allocator.ctx, size_bytes > 0 ? size_bytes : 1);
}

void *qn__calloc(const qn_context *ctx, size_t count, size_t size_bytes)
{
    size_t total;
    if (!qn_mul_size(&total, count, size_bytes))
        return NULL;
    void *ptr = qn__alloc(ctx, total);
    if (ptr != NULL)
        memset(ptr, 0, total);
    return ptr;
}

void *qn__realloc(const qn_context *ctx, void *ptr, size_t size_bytes)
{
    return ctx->allocator.realloc(ctx->allocator.ctx, ptr, size_bytes > 0 ? size_bytes : 1);
}

void *qn__reallocarray(const qn_context *ctx, void *ptr, size_t count, size_t size_bytes)
{
    size_t total;
    if (!qn_mul_size(&total, count, size_bytes))
        return NULL;
    return qn__realloc(ctx, ptr, total);
}

void qn__free(const qn_context *ctx, void *ptr)
{
    if (ptr != NULL)
        ctx->allocator.free(ctx->allocator.ctx, ptr);
}

char *qn__strdup(const qn_context *ctx, const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = qn__alloc(ctx, size);
    if (copy != NULL)
        memcpy(copy, text, size);
    return copy;
}

/* The allocator's own pointer is kept in the word before the aligned address. */
void *qn__alloc_aligned(const qn_context *ctx, size_t size_bytes)
{
    size_t total;
    if (!qn_add_size(&total, size_bytes, TENSOR_ALIGNMENT + sizeof(void *)))
        return NULL;
    unsigned char *raw = qn__alloc(ctx, total);
    if (raw == NULL)
        return NULL;
    uintptr_t address = (uintptr_t)(raw + sizeof(void *));
    address = (address + TENSOR_ALIGNMENT - 1) & ~(uintptr_t)(TENSOR_ALIGNMENT - 1);
    unsigned char *aligned = raw + (address - (uintptr_t)raw);
    memcpy(aligned - sizeof(void *), &raw, sizeof(void *));
    return aligned;
}

void qn__free_aligned(const qn_context *ctx, void *ptr)
{
    if (ptr == NULL)
        return;
    void *raw;
    memcpy(&raw, (unsigned char *)ptr - sizeof(void *), sizeof(void *));
    qn__free(ctx, raw);
}

/* A hint: systems that do not know it, or larger pages, refuse. */
static void advise(const void *memory, size_t size_bytes, int advice)
{
    uint8_t *const at = (uint8_t *)memory;
    const size_t before = (PAGE_BYTES - (uintptr_t)at % PAGE_BYTES) % PAGE_BYTES;
    if (size_bytes >= MANY_PAGES * PAGE_BYTES)
        (void)madvise(at + before, (size_bytes - before) / PAGE_BYTES * PAGE_BYTES, advice);
}

#ifdef MADV_POPULATE_WRITE
enum { WILL_READ = MADV_POPULATE_READ, WILL_WRITE = MADV_POPULATE_WRITE };
#else
enum { WILL_READ = MADV_WILLNEED, WILL_WRITE = MADV_WILLNEED };
#endif

void qn__will_write(void *memory, size_t size_bytes)
{
    advise(memory, size_bytes, WILL_WRITE);
}

void qn__will_read(const void *memory, size_t size_bytes)
{
    advise(memory, size_bytes, WILL_READ);
}

void qn__large_pages(void *memory, size_t size_bytes)
{
    uint8_t *const at = memory;
    const size_t before = (QN_LARGE_PAGE - (uintptr_t)at % QN_LARGE_PAGE) % QN_LARGE_PAGE;
    if (size_bytes < before || size_bytes - before < QN_LARGE_PAGE)
        return;
#ifdef MADV_HUGEPAGE /* a hint, too */
    (void)madvise(at + before, (size_bytes - before) / QN_LARGE_PAGE * QN_LARGE_PAGE,
                  MADV_HUGEPAGE);
#endif
}

struct qn_arena_block {
    struct qn_arena_block *next;
    size_t used, capacity;
    _Alignas(16) unsigned char bytes[];
};

void qn__arena_init(qn_arena *arena, const qn_context *ctx)
{
    *arena = (qn_arena){.ctx = ctx};
}

void qn__arena_free(qn_arena *arena)
{
    struct qn_arena_block *block = arena->blocks;
    while (block != NULL) {
        struct qn_arena_block *next = block->next;
        qn__free(arena->ctx, block);
        block = next;
    }
    arena->blocks = NULL;
    arena->total_bytes = 0;
}

static struct qn_arena_block *arena_new_block(qn_arena *arena, size_t capacity)
{
    size_t total;
    if (!qn_add_size(&total, sizeof(struct qn_arena_block), capacity))
        return NULL;
    struct qn_arena_block *block = qn__alloc(arena->ctx, total);
    if (block == NULL)
        return NULL;
    block->used = 0;
    block->capacity = capacity;
    arena->total_bytes += total;
    return block;
}

void *qn__arena_alloc(qn_arena *arena, size_t size_bytes)
{
    size_t size;
    if (!qn_align_size(&size, size_bytes > 0 ? size_bytes : 1, ARENA_ALIGNMENT))
        return NULL;
    struct qn_arena_block *block = arena->blocks;
    if (block == NULL || block->capacity - block->used < size) {
        const size_t usual = arena->ctx->arena_block_bytes;
        const bool large = size > usual / 4;
        struct qn_arena_block *fresh = arena_new_block(arena, large ? size : usual);
        if (fresh == NULL) {
            arena->failed = true;
            return NULL;
        }
        if (large && block != NULL) {
            /* A block of its own, behind the head, so that the head's room is not lost. */
            fresh->next = block->next;
            block->next = fresh;
        } else {
            fresh->next = block;
            arena->blocks = fresh;
        }
        block = fresh;
    }
    void *ptr = block->bytes + block->used;
    block->used += size;
    memset(ptr, 0, size);
    return ptr;
}

qn_status qn__arena_check(qn_arena *arena, qn_error *error)
{
    const bool failed = arena->failed;
    arena->failed = false;
    return failed ? QN_NOMEM(error) : QN_OK;
}

void *qn__arena_calloc(qn_arena *arena, size_t count, size_t size_bytes)
{
    size_t total;
    if (!qn_mul_size(&total, count, size_bytes))
        return NULL;
    return qn__arena_alloc(arena, total);
}

char *qn__arena_strndup(qn_arena *arena, const char *text, size_t length)
{
    size_t size;
    if (!qn_add_size(&size, length, 1))
        return NULL;
    char *copy = qn__arena_alloc(arena, size);
    if (copy != NULL)
        memcpy(copy, text, length);
    return copy;
}

char *qn__arena_strdup(qn_arena *arena, const char *text)
{
    return qn__arena_strndup(arena, text, strlen(text));
}

char *qn__arena_printf(qn_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : qn__arena_alloc(arena, (size_t)length + 1);
    if (text != NULL)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void *qn__arena_memdup(qn_arena *arena, const void *data, size_t size_bytes)
{
    void *copy = qn__arena_alloc(arena, size_bytes);
    if (copy != NULL && size_bytes > 0)
        memcpy(copy, data, size_bytes);
    return copy;
}

bool qn__grow(const qn_context *ctx, void **items, size_t *capacity, size_t count,
              size_t item_bytes)
{
    if (count < *capacity)
        return true;
    const size_t wanted = *capacity < 8 ? 8 : *capacity + *capacity / 2;
    void *bigger = qn__reallocarray(ctx, *items, wanted, item_bytes);
    if (bigger == NULL)
        return false;
    *items = bigger;
    *capacity = wanted;
    return true;
}
