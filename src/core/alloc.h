/* Allocation through the context's table, and the arena that holds a graph's structure. */
#ifndef QN_CORE_ALLOC_H
#define QN_CORE_ALLOC_H

#include "core/status.h"

/* size 0 gives a valid pointer. NULL when the allocator refuses. */
void *qn__alloc(const qn_context *ctx, size_t size_bytes);
void *qn__calloc(const qn_context *ctx, size_t count, size_t size_bytes); /* zeroed, checked */
void *qn__realloc(const qn_context *ctx, void *ptr, size_t size_bytes);
void *qn__reallocarray(const qn_context *ctx, void *ptr, size_t count, size_t size_bytes);
void qn__free(const qn_context *ctx, void *ptr); /* NULL is accepted */
char *qn__strdup(const qn_context *ctx, const char *text);
/* 64-byte aligned memory for tensors. Freed with qn__free_aligned only. */
void *qn__alloc_aligned(const qn_context *ctx, size_t size_bytes);
void qn__free_aligned(const qn_context *ctx, void *ptr);
/* Says that memory is about to be written from end to end: its pages are asked for at once, which
 * takes half as long as faulting for each. */
void qn__will_write(void *memory, size_t size_bytes);
void qn__will_read(const void *memory, size_t size_bytes); /* the same of a file's pages */
/* The same memory in pages of QN_LARGE_PAGE, as far as it holds whole ones and the system has them:
 * a quarter of the time to get them. */
enum { QN_LARGE_PAGE = 2 << 20 };
void qn__large_pages(void *memory, size_t size_bytes);

enum { QN_ARENA_BLOCK_BYTES = 16 * 1024 };

/* Bump allocator: freed all at once. Memory is zeroed and aligned to 16 bytes. */
typedef struct qn_arena {
    const qn_context *ctx;
    struct qn_arena_block *blocks;
    size_t total_bytes;
    bool failed; /* an allocation was refused */
} qn_arena;
void qn__arena_init(qn_arena *arena, const qn_context *ctx);
void qn__arena_free(qn_arena *arena);
/* NO_MEMORY when an allocation was refused since the last time this was asked. Where a NULL can
 * mean "there is none" as well, this tells, at the end of the step. */
qn_status qn__arena_check(qn_arena *arena, qn_error *error);
void *qn__arena_alloc(qn_arena *arena, size_t size_bytes);
void *qn__arena_calloc(qn_arena *arena, size_t count, size_t size_bytes);
char *qn__arena_strdup(qn_arena *arena, const char *text);
char *qn__arena_strndup(qn_arena *arena, const char *text, size_t length);
char *qn__arena_printf(qn_arena *arena, const char *format, ...) QN_PRINTF(2, 3);
void *qn__arena_memdup(qn_arena *arena, const void *data, size_t size_bytes);

/* Growable array helper: makes room for one more element of *items; false when out of memory.
 * Usage: if (!QN_GROW(ctx, &list->items, &list->capacity, list->count)) return QN_NOMEM(error); */
bool qn__grow(const qn_context *ctx, void **items, size_t *capacity, size_t count,
              size_t item_bytes);
#define QN_GROW(ctx, items, capacity, count)                                                       \
    qn__grow((ctx), (void **)(items), (capacity), (count), sizeof(**(items)))

#endif
