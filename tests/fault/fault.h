/* Makes the Nth allocation or system call fail. A scenario is run with N = 1, 2, ... until it no
 * longer fails: every failure must come back as a status, leak nothing and leave outputs alone. */
#ifndef QN_TESTS_FAULT_H
#define QN_TESTS_FAULT_H

#include "core/context.h"
#include "core/io.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct fault {
    uint64_t calls;   /* made so far */
    uint64_t fail_at; /* 1-based; 0: never */
    bool persistent;  /* from then on */
    int error_number; /* errno of failing system calls; 0: EIO, and reads and
                       * writes move no byte */
    bool kills;       /* the failing system call is the process's last */
    size_t at_most;   /* short reads and writes: bytes one call moves; 0: all. Nothing is mapped */
    int64_t live;     /* allocations not yet freed */
    qn_io io;         /* the real one */
} fault;

static inline bool fault_now(fault *f)
{
    const uint64_t call = __atomic_add_fetch(&f->calls, 1, __ATOMIC_SEQ_CST);
    return f->fail_at != 0 && (call == f->fail_at || (f->persistent && call > f->fail_at));
}

static inline void *fault_alloc(void *ctx, size_t size_bytes)
{
    fault *f = ctx;
    void *ptr = fault_now(f) ? NULL : malloc(size_bytes);
    if (ptr != NULL)
        __atomic_add_fetch(&f->live, 1, __ATOMIC_SEQ_CST);
    return ptr;
}

static inline void *fault_realloc(void *ctx, void *old, size_t size_bytes)
{
    fault *f = ctx;
    void *ptr = fault_now(f) ? NULL : realloc(old, size_bytes);
    if (ptr != NULL && old == NULL)
        __atomic_add_fetch(&f->live, 1, __ATOMIC_SEQ_CST);
    return ptr;
}

static inline void fault_free(void *ctx, void *ptr)
{
    fault *f = ctx;
    __atomic_sub_fetch(&f->live, 1, __ATOMIC_SEQ_CST);
    free(ptr);
}

static inline qn_allocator fault_allocator(fault *f)
{
    return (qn_allocator){fault_alloc, fault_realloc, fault_free, f};
}

/* System calls: a failing one does what the real one would do on error and sets errno. */
static inline bool fault_io_now(fault *f)
{
    if (!fault_now(f))
        return false;
    if (f->kills)
        (void)raise(SIGKILL); /* valgrind has an exit status of its own for leaks */
    errno = f->error_number != 0 ? f->error_number : EIO;
    return true;
}

/* rename, fstat and mmap are never interrupted by a signal. */
static inline bool fault_uninterrupted_now(fault *f)
{
    return f->error_number != EINTR && fault_io_now(f);
}

static inline int fault_open(void *ctx, const char *path, int flags, int mode)
{
    fault *f = ctx;
    return fault_io_now(f) ? -1 : f->io.open(f->io.ctx, path, flags, mode);
}

/* Linux closes the descriptor even when close reports an error. */
static inline int fault_close(void *ctx, int fd)
{
    fault *f = ctx;
    const int result = f->io.close(f->io.ctx, fd);
    const bool fail = fault_io_now(f);
    return fail ? -1 : result;
}

static inline size_t fault_part(const fault *f, size_t size_bytes)
{
    return f->at_most != 0 && size_bytes > f->at_most ? f->at_most : size_bytes;
}

static inline int64_t fault_read(void *ctx, int fd, void *buf, size_t size_bytes)
{
    fault *f = ctx;
    if (fault_io_now(f))
        return f->error_number == 0 ? 0 : -1;
    return f->io.read(f->io.ctx, fd, buf, fault_part(f, size_bytes));
}

static inline int64_t fault_write(void *ctx, int fd, const void *buf, size_t size_bytes)
{
    fault *f = ctx;
    if (fault_io_now(f))
        return f->error_number == 0 ? 0 : -1;
    return f->io.write(f->io.ctx, fd, buf, fault_part(f, size_bytes));
}

/* Not the real one: nothing here survives a power cut, and a disk makes the sweeps take minutes. */
static inline int fault_fsync(void *ctx, int fd)
{
    fault *f = ctx;
    (void)fd;
    return fault_io_now(f) ? -1 : 0;
}

static inline int fault_rename(void *ctx, const char *from, const char *to)
{
    fault *f = ctx;
    return fault_uninterrupted_now(f) ? -1 : f->io.rename(f->io.ctx, from, to);
}

/* Never fails: it is what cleans up after the others. */
static inline int fault_unlink(void *ctx, const char *path)
{
    fault *f = ctx;
    return f->io.unlink(f->io.ctx, path);
}

static inline int64_t fault_size(void *ctx, int fd, bool *is_regular)
{
    fault *f = ctx;
    return fault_uninterrupted_now(f) ? -1 : f->io.size(f->io.ctx, fd, is_regular);
}

static inline void *fault_map(void *ctx, int fd, size_t size_bytes)
{
    fault *f = ctx;
    return fault_uninterrupted_now(f) || f->at_most != 0 ? NULL
                                                         : f->io.map(f->io.ctx, fd, size_bytes);
}

static inline int fault_unmap(void *ctx, void *addr, size_t size_bytes)
{
    fault *f = ctx;
    return f->io.unmap(f->io.ctx, addr, size_bytes);
}

static inline qn_io fault_io(fault *f)
{
    qn_io_init(&f->io);
    return (qn_io){fault_open,
                   fault_close,
                   fault_read,
                   fault_write,
                   fault_fsync,
                   fault_rename,
                   fault_unlink,
                   fault_size,
                   fault_map,
                   fault_unmap,
                   f};
}

#endif
