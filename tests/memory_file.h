/* The one file there is for code under test: bytes in memory. */
#ifndef TEST_MEMORY_FILE_H
#define TEST_MEMORY_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"

typedef struct memory_file {
    uint8_t *data; /* [most], or [size] that are only read */
    size_t size, at, most;
} memory_file;

/* The folder is opened, too, to be synchronized. */
static inline int memory_open(void *ctx, const char *path, int flags, int mode)
{
    memory_file *const file = ctx;
    (void)path, (void)mode;
    file->at = 0;
    if ((flags & O_CREAT) != 0) {
        if (file->most == 0)
            abort(); /* reading writes nothing */
        file->size = 0;
    }
    return 1000;
}

static inline int memory_one(void *ctx, int fd)
{
    (void)ctx, (void)fd;
    return 0;
}

static inline int64_t memory_read(void *ctx, int fd, void *out, size_t size)
{
    memory_file *const file = ctx;
    (void)fd;
    if (size > file->size - file->at)
        size = file->size - file->at;
    memcpy(out, file->data + file->at, size);
    file->at += size;
    return (int64_t)size;
}

static inline int64_t memory_write(void *ctx, int fd, const void *bytes, size_t size)
{
    memory_file *const file = ctx;
    (void)fd;
    if (size > file->most - file->size) {
        errno = ENOSPC;
        return -1;
    }
    memcpy(file->data + file->size, bytes, size);
    file->size += size;
    return (int64_t)size;
}

static inline int memory_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx, (void)from, (void)to;
    return 0;
}

static inline int memory_unlink(void *ctx, const char *path)
{
    (void)ctx, (void)path;
    return 0;
}

static inline int64_t memory_size(void *ctx, int fd, bool *is_regular)
{
    (void)fd;
    *is_regular = true;
    return (int64_t)((const memory_file *)ctx)->size;
}

static inline void *memory_map(void *ctx, int fd, size_t size)
{
    (void)ctx, (void)fd, (void)size;
    return NULL;
}

/* A context whose files are all `file`, of at most `most` bytes when written. limits, allocator:
 * NULL for the usual ones. NULL: no memory. */
static inline qn_context *memory_context(memory_file *file, size_t most, const qn_limits *limits,
                                         const qn_allocator *allocator)
{
    qn_context *ctx = NULL;
    qn_context_options options;
    qn_io io;
    qn_io_init(&io);
    io.open = memory_open;
    io.close = memory_one;
    io.fsync = memory_one;
    io.read = memory_read;
    io.write = memory_write;
    io.rename = memory_rename;
    io.unlink = memory_unlink;
    io.size = memory_size;
    io.map = memory_map;
    io.ctx = file;
    if (most > 0 && file->data == NULL) {
        file->data = malloc(most);
        file->most = file->data != NULL ? most : 0;
    }
    qn_context_options_init(&options);
    options.io = &io;
    options.limits = limits;
    options.allocator = allocator;
    options.n_threads = 1;
    return file->most == most && qn_context_create(&options, &ctx, NULL) == QN_OK ? ctx : NULL;
}

#endif
