/* The one file there is for a reader under test: bytes in memory, to be read only. */
#ifndef TEST_MEMORY_FILE_H
#define TEST_MEMORY_FILE_H

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"

typedef struct read_file {
    const uint8_t *data;
    size_t size, at;
} read_file;

static inline int read_file_open(void *ctx, const char *path, int flags, int mode)
{
    read_file *const file = ctx;
    (void)path, (void)mode;
    if ((flags & O_CREAT) != 0)
        abort(); /* reading writes nothing */
    file->at = 0;
    return 1000;
}

static inline int read_file_close(void *ctx, int fd)
{
    (void)ctx, (void)fd;
    return 0;
}

static inline int64_t read_file_read(void *ctx, int fd, void *out, size_t size)
{
    read_file *const file = ctx;
    (void)fd;
    if (size > file->size - file->at)
        size = file->size - file->at;
    memcpy(out, file->data + file->at, size);
    file->at += size;
    return (int64_t)size;
}

static inline int64_t read_file_size(void *ctx, int fd, bool *is_regular)
{
    (void)fd;
    *is_regular = true;
    return (int64_t)((const read_file *)ctx)->size;
}

static inline void *read_file_map(void *ctx, int fd, size_t size)
{
    (void)ctx, (void)fd, (void)size;
    return NULL;
}

/* A context whose files are all `file`. Never NULL. */
static inline qn_context *read_file_context(read_file *file)
{
    qn_context *ctx = NULL;
    qn_context_options options;
    qn_io io;
    qn_io_init(&io);
    io.open = read_file_open;
    io.close = read_file_close;
    io.read = read_file_read;
    io.size = read_file_size;
    io.map = read_file_map;
    io.ctx = file;
    qn_context_options_init(&options);
    options.io = &io;
    options.n_threads = 1;
    if (qn_context_create(&options, &ctx, NULL) != QN_OK)
        abort();
    return ctx;
}

#endif
