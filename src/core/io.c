#include "core/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the operating system's table --------------------------------------------------------------*/
static int os_open(void *ctx, const char *path, int flags, int mode)
{
    (void)ctx;
    return open(path, flags, mode);
}

static int os_close(void *ctx, int fd)
{
    (void)ctx;
    return close(fd);
}

static int64_t os_read(void *ctx, int fd, void *buf, size_t size_bytes)
{
    (void)ctx;
    return read(fd, buf, size_bytes);
}

static int64_t os_write(void *ctx, int fd, const void *buf, size_t size_bytes)
{
    (void)ctx;
    return write(fd, buf, size_bytes);
}

static int os_fsync(void *ctx, int fd)
{
    (void)ctx;
    return fsync(fd);
}

static int os_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to);
}

static int os_unlink(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path);
}

static int64_t os_size(void *ctx, int fd, bool *is_regular)
{
    (void)ctx;
    struct stat info;
    if (fstat(fd, &info) != 0)
        return -1;
    *is_regular = S_ISREG(info.st_mode);
    return info.st_size;
}

static void *os_map(void *ctx, int fd, size_t size_bytes)
{
    (void)ctx;
    void *addr = mmap(NULL, size_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    return addr == MAP_FAILED ? NULL : addr;
}

static int os_unmap(void *ctx, void *addr, size_t size_bytes)
{
    (void)ctx;
    return munmap(addr, size_bytes);
}

void qn_io_init(qn_io *io)
{
    *io = (qn_io){os_open,   os_close, os_read, os_write, os_fsync, os_rename,
                  os_unlink, os_size,  os_map,  os_unmap, NULL};
}

/* --- reading -----------------------------------------------------------------------------------*/
static int open_retry(const qn_io *io, const char *path, int flags, int mode)
{
    int fd;
    do {
        fd = io->open(io->ctx, path, flags, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static qn_status read_all(const qn_context *ctx, int fd, const char *path, uint8_t *data,
                          size_t size, qn_error *error)
{
    const qn_io *const io = &ctx->io;
    size_t done = 0;
    while (done < size) {
        const int64_t n = io->read(io->ctx, fd, data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        QN_FAIL_IF(n < 0, error, QN_IO, "%s: cannot read: %s", path, strerror(errno));
        QN_FAIL_IF(n == 0, error, QN_IO, "%s: ended after %zu of %zu bytes", path, done, size);
        done += (size_t)n;
    }
    return QN_OK;
}

static qn_status open_view(const qn_context *ctx, const char *path, uint64_t limit,
                           qn_file_view *out, qn_error *error)
{
    const qn_io *const io = &ctx->io;
    qn_status status = QN_OK;
    uint8_t *heap = NULL;
    /* O_NONBLOCK: a FIFO named by mistake must not hang the program. */
    const int fd = open_retry(io, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    QN_FAIL_IF(fd < 0, error, QN_IO, "%s: cannot open: %s", path, strerror(errno));

    bool is_regular = false;
    const int64_t size = io->size(io->ctx, fd, &is_regular);
    if (size < 0)
        QN_FAIL_GOTO(error, QN_IO, "%s: cannot read its size: %s", path, strerror(errno));
    if (!is_regular)
        QN_FAIL_GOTO(error, QN_IO, "%s: not a regular file", path);
    if ((uint64_t)size > limit || (uint64_t)size > SIZE_MAX / 2)
        QN_FAIL_GOTO(error, QN_LIMIT, "%s: %lld bytes, the limit is %llu", path, (long long)size,
                     (unsigned long long)limit);

    qn_file_view view = {.size_bytes = (size_t)size};
    if (size > 0) {
        void *mapped = io->map(io->ctx, fd, view.size_bytes);
        if (mapped != NULL) {
            view.data = mapped;
            view.mapped = true;
        }
    }
    if (!view.mapped && (uint64_t)size > ctx->limits.file_bytes)
        QN_FAIL_GOTO(error, QN_IO, "%s: cannot map %lld bytes", path, (long long)size);
    if (!view.mapped) {
        heap = qn__alloc(ctx, view.size_bytes);
        if (heap == NULL) {
            status = QN_NOMEM(error);
            goto done;
        }
        QN_TRY_GOTO(read_all(ctx, fd, path, heap, view.size_bytes, error));
        view.data = heap;
        heap = NULL;
    }
    *out = view;
done:
    qn__free(ctx, heap);
    io->close(io->ctx, fd);
    return status;
}

qn_status qn__file_open(const qn_context *ctx, const char *path, qn_file_view *out, qn_error *error)
{
    return open_view(ctx, path, ctx->limits.file_bytes, out, error);
}

qn_status qn__file_open_data(const qn_context *ctx, const char *path, qn_file_view *out,
                             qn_error *error)
{
    return open_view(ctx, path, ctx->limits.data_bytes, out, error);
}

void qn__file_close(const qn_context *ctx, qn_file_view *view)
{
    if (view->mapped)
        ctx->io.unmap(ctx->io.ctx, (void *)view->data, view->size_bytes);
    else
        qn__free(ctx, (void *)view->data);
    *view = (qn_file_view){0};
}

bool qn__file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* --- atomic writing ----------------------------------------------------------------------------*/
enum { WRITER_BUFFER_BYTES = 64 * 1024, MAX_TEMPORARY_NAMES = 1000 };

struct qn_file_writer {
    const qn_context *ctx;
    char *path;      /* final name */
    char *temporary; /* in the same folder, so that rename is atomic */
    int fd;
    size_t used;
    int failed_errno; /* sticky; 0: none */
    uint8_t buffer[WRITER_BUFFER_BYTES];
};

static void flush(qn_file_writer *writer)
{
    const qn_io *const io = &writer->ctx->io;
    size_t done = 0;
    while (writer->failed_errno == 0 && done < writer->used) {
        const int64_t n =
            io->write(io->ctx, writer->fd, writer->buffer + done, writer->used - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            writer->failed_errno = n < 0 ? errno : EIO;
        else
            done += (size_t)n;
    }
    writer->used = 0;
}

void qn__file_write(qn_file_writer *writer, const void *data, size_t size_bytes)
{
    const uint8_t *bytes = data;
    while (size_bytes > 0 && writer->failed_errno == 0) {
        const size_t room = WRITER_BUFFER_BYTES - writer->used;
        const size_t n = size_bytes < room ? size_bytes : room;
        memcpy(writer->buffer + writer->used, bytes, n);
        writer->used += n;
        bytes += n;
        size_bytes -= n;
        if (writer->used == WRITER_BUFFER_BYTES)
            flush(writer);
    }
}

static void writer_free(qn_file_writer *writer)
{
    const qn_context *const ctx = writer->ctx;
    qn__free(ctx, writer->path);
    qn__free(ctx, writer->temporary);
    qn__free(ctx, writer);
}

void qn__file_abandon(qn_file_writer *writer)
{
    if (writer == NULL)
        return;
    const qn_io *const io = &writer->ctx->io;
    if (writer->fd >= 0)
        io->close(io->ctx, writer->fd);
    io->unlink(io->ctx, writer->temporary);
    writer_free(writer);
}

/* A symbolic link is followed, so that the file it names is replaced and not the link. NULL: out of
 * memory. */
static char *final_path(const qn_context *ctx, const char *path)
{
    char *real = realpath(path, NULL);
    if (real == NULL && errno == ENOMEM)
        return NULL;
    char *copy = qn__strdup(ctx, real != NULL ? real : path);
    free(real);
    return copy;
}

qn_status qn__file_create(const qn_context *ctx, const char *path, qn_file_writer **out,
                          qn_error *error)
{
    const qn_io *const io = &ctx->io;
    struct stat info;
    const bool exists = stat(path, &info) == 0;
    QN_FAIL_IF(exists && !S_ISREG(info.st_mode), error, QN_IO,
               "%s: cannot write: exists and is not a regular file", path);
    qn_file_writer *writer = qn__calloc(ctx, 1, sizeof *writer);
    if (writer == NULL)
        return QN_NOMEM(error);
    writer->ctx = ctx;
    writer->fd = -1;
    writer->path = final_path(ctx, path);
    const size_t name_bytes = writer->path == NULL ? 0 : strlen(writer->path) + 32;
    writer->temporary = writer->path == NULL ? NULL : qn__alloc(ctx, name_bytes);
    if (writer->temporary == NULL) {
        writer_free(writer);
        return QN_NOMEM(error);
    }
    /* O_EXCL: a stale or planted file of that name is never written to. */
    const int mode = exists ? (int)(info.st_mode & 0777) : 0666;
    for (int i = 0; i < MAX_TEMPORARY_NAMES; i++) {
        snprintf(writer->temporary, name_bytes, "%s.tmp%ld-%d", writer->path, (long)getpid(), i);
        writer->fd =
            open_retry(io, writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (writer->fd >= 0 || errno != EEXIST)
            break;
    }
    if (writer->fd < 0) {
        const int reason = errno;
        writer_free(writer);
        QN_FAIL(error, QN_IO, "%s: cannot write: %s", path, strerror(reason));
    }
    *out = writer;
    return QN_OK;
}

static int fsync_retry(const qn_io *io, int fd)
{
    int result;
    do {
        result = io->fsync(io->ctx, fd);
    } while (result != 0 && errno == EINTR);
    return result;
}

/* The rename is on disk only when its folder is. */
static int sync_folder(const qn_io *io, const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    const size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    if (length >= sizeof folder)
        return 0;
    memcpy(folder, path, length);
    folder[length] = '\0';
    const char *name = slash == NULL ? "." : length == 0 ? "/" : folder;
    const int fd = open_retry(io, name, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0; /* a folder that may be written but not read: nothing to sync through */
    const bool failed = fsync_retry(io, fd) != 0;
    const int reason = errno;
    io->close(io->ctx, fd);
    errno = reason; /* for the message */
    /* some file systems cannot sync a folder */
    return failed && reason != EINVAL && reason != ENOTSUP ? -1 : 0;
}

/* The temporary file is whole, on disk and closed, unless failed_errno is set. */
static void finish(qn_file_writer *writer)
{
    const qn_io *const io = &writer->ctx->io;
    if (writer->fd < 0)
        return;
    flush(writer);
    if (writer->failed_errno == 0 && fsync_retry(io, writer->fd) != 0)
        writer->failed_errno = errno;
    const int fd = writer->fd;
    writer->fd = -1;
    /* An interrupted close has closed the file, and what it holds is on disk since fsync. */
    if (io->close(io->ctx, fd) != 0 && errno != EINTR && writer->failed_errno == 0)
        writer->failed_errno = errno;
}

static qn_status cannot_write(const qn_file_writer *writer, qn_error *error)
{
    return qn__error_set(error, QN_IO, "%s: cannot write: %s", writer->path,
                         strerror(writer->failed_errno));
}

/* The file is under its final name, unless failed_errno is set. */
static bool place(qn_file_writer *writer)
{
    const qn_io *const io = &writer->ctx->io;
    finish(writer);
    if (writer->failed_errno == 0 && io->rename(io->ctx, writer->temporary, writer->path) != 0)
        writer->failed_errno = errno;
    return writer->failed_errno == 0;
}

static qn_status placed(qn_file_writer *writer, qn_error *error)
{
    qn_status status = QN_OK;
    if (sync_folder(&writer->ctx->io, writer->path) != 0)
        status = qn__error_set(error, QN_IO, "%s: written, but its folder could not be synced: %s",
                               writer->path, strerror(errno));
    writer_free(writer);
    return status;
}

qn_status qn__file_commit(qn_file_writer *writer, qn_error *error)
{
    if (place(writer))
        return placed(writer, error);
    const qn_status status = cannot_write(writer, error);
    qn__file_abandon(writer);
    return status;
}

/* The first file as it was: its old bytes, or gone. */
static bool put_back(qn_file_writer *first, qn_file_writer *old)
{
    const qn_io *const io = &first->ctx->io;
    return old != NULL ? place(old) : io->unlink(io->ctx, first->path) == 0;
}

qn_status qn__file_commit_pair(qn_file_writer *first, qn_file_writer *second, qn_file_writer *old,
                               qn_error *error)
{
    finish(first);
    finish(second);
    if (old != NULL)
        finish(old);
    qn_status status = QN_OK;
    const qn_file_writer *const broken = first->failed_errno != 0                ? first
                                         : second->failed_errno != 0             ? second
                                         : old != NULL && old->failed_errno != 0 ? old
                                                                                 : NULL;
    if (broken != NULL) {
        status = cannot_write(broken, error);
    } else if (!place(first)) {
        status = cannot_write(first, error);
    } else if (!place(second)) {
        status = cannot_write(second, error);
        if (!put_back(first, old))
            status = qn__error_set(error, QN_IO, "%s: cannot write: %s; %s is the new one already",
                                   second->path, strerror(second->failed_errno), first->path);
    } else {
        status = placed(second, error);
        second = NULL;
    }
    qn__file_abandon(first); /* what was placed has no temporary any more */
    qn__file_abandon(second);
    qn__file_abandon(old);
    return status;
}

/* The old file under another name; *aside NULL: there is none. */
static qn_status set_aside(qn_file_writer *first, char **aside, qn_error *error)
{
    const qn_io *const io = &first->ctx->io;
    const size_t bytes = strlen(first->path) + 32;
    char *name = qn__alloc(first->ctx, bytes);
    *aside = NULL;
    if (name == NULL)
        return QN_NOMEM(error);
    snprintf(name, bytes, "%s.old%ld", first->path, (long)getpid());
    if (io->rename(io->ctx, first->path, name) == 0) {
        *aside = name;
        return QN_OK;
    }
    const int reason = errno;
    qn__free(first->ctx, name);
    QN_FAIL_IF(reason != ENOENT, error, QN_IO, "%s: cannot write: %s", first->path,
               strerror(reason));
    return QN_OK;
}

qn_status qn__file_commit_beside(qn_file_writer *first, qn_file_writer *second, qn_error *error)
{
    const qn_context *const ctx = first->ctx;
    const qn_io *const io = &ctx->io;
    char *aside = NULL;
    qn_status status = QN_OK;
    finish(first);
    finish(second);
    if (first->failed_errno != 0 || second->failed_errno != 0) {
        status = cannot_write(first->failed_errno != 0 ? first : second, error);
        goto done;
    }
    QN_TRY_GOTO(set_aside(first, &aside, error));
    bool put_back = false;
    if (!place(first)) {
        status = cannot_write(first, error);
        put_back = aside != NULL;
    } else if (!place(second)) {
        status = cannot_write(second, error);
        put_back = aside != NULL;
        if (aside == NULL)
            io->unlink(io->ctx, first->path);
    } else {
        if (aside != NULL)
            io->unlink(io->ctx, aside);
        status = placed(second, error);
        second = NULL;
    }
    if (put_back && io->rename(io->ctx, aside, first->path) != 0)
        status = qn__error_set(error, QN_IO, "%s: cannot write; the old file is now %s",
                               first->path, aside);
done:
    qn__free(ctx, aside);
    qn__file_abandon(first); /* what was placed has no temporary any more */
    qn__file_abandon(second);
    return status;
}

const char *qn__file_writer_path(const qn_file_writer *writer)
{
    return writer->path;
}

qn_status qn__file_write_all(const qn_context *ctx, const char *path, const void *data,
                             size_t size_bytes, qn_error *error)
{
    qn_file_writer *writer = NULL;
    QN_TRY(qn__file_create(ctx, path, &writer, error));
    qn__file_write(writer, data, size_bytes);
    return qn__file_commit(writer, error);
}
