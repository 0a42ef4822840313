/* Files: whole-file read or map, and atomic output (old complete file or new complete file). */
#ifndef QN_CORE_IO_H
#define QN_CORE_IO_H

#include "core/context.h"

/* A read-only file in memory: mapped where possible, read otherwise. */
typedef struct qn_file_view {
    const uint8_t *data;
    size_t size_bytes;
    bool mapped;
} qn_file_view;
/* Errors: IO (missing, a folder, unreadable), LIMIT (above limits.file_bytes). Message names path.
 */
qn_status qn__file_open(const qn_context *ctx, const char *path, qn_file_view *out,
                        qn_error *error);
/* A file of weights: LIMIT above limits.data_bytes; what is above limits.file_bytes must be mapped.
 */
qn_status qn__file_open_data(const qn_context *ctx, const char *path, qn_file_view *out,
                             qn_error *error);
void qn__file_close(const qn_context *ctx, qn_file_view *view);
/* Is there anything of that name? */
bool qn__file_exists(const char *path);

/* Writer with a buffer. Nothing appears under the final name before qn__file_commit: data go to a
 * temporary file in the same folder; commit = write, fsync, close, rename, fsync folder. */
typedef struct qn_file_writer qn_file_writer;
qn_status qn__file_create(const qn_context *ctx, const char *path, qn_file_writer **out,
                          qn_error *error);
/* Sticky: after a failed write further writes do nothing and commit reports the first error. */
void qn__file_write(qn_file_writer *writer, const void *data, size_t size_bytes);
/* Ends the writer either way; on failure the temporary is removed and the old file is untouched. */
qn_status qn__file_commit(qn_file_writer *writer, qn_error *error);
/* Two files of one folder: first, then second, whose appearing says that both are new. All are
 * whole and on disk before the first is renamed; when second cannot be, first becomes old again: a
 * writer of the same path with its old bytes, or NULL when there was none. Frees all three. */
qn_status qn__file_commit_pair(qn_file_writer *first, qn_file_writer *second, qn_file_writer *old,
                               qn_error *error);
/* The same, where an old first file is as large as the new one: it is set aside under another name
 * of the folder until the second is placed, and put back when that cannot be. Frees both. */
qn_status qn__file_commit_beside(qn_file_writer *first, qn_file_writer *second, qn_error *error);
/* The name that the file will have: links followed. Valid until the writer ends. */
const char *qn__file_writer_path(const qn_file_writer *writer);
void qn__file_abandon(qn_file_writer *writer); /* NULL accepted */
/* Whole buffer in one call. */
qn_status qn__file_write_all(const qn_context *ctx, const char *path, const void *data,
                             size_t size_bytes, qn_error *error);

#endif
