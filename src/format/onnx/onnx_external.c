/* Data files named by a model: opened only inside the model's own folder. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/io.h"
#include "format/onnx/onnx_source.h"

/* Relative, no empty part, no "." or "..", no backslash or drive. */
static bool is_plain_relative(const char *location)
{
    if (location[0] == '\0' || location[0] == '/' || strpbrk(location, "\\:"))
        return false;
    for (const char *part = location; part;) {
        const char *slash = strchr(part, '/');
        const size_t length = slash ? (size_t)(slash - part) : strlen(part);
        if (length == 0 || (length == 2 && memcmp(part, "..", 2) == 0))
            return false;
        part = slash ? slash + 1 : NULL;
    }
    return true;
}

qn_status qn__onnx_open_external(qn_onnx_source *source, const char *location, qn_blob **out,
                                 qn_error *error)
{
    QN_FAIL_IF(!is_plain_relative(location), error, QN_UNSAFE_PATH,
               "external data \"%s\" is not a plain path inside the model's folder", location);
    const char *slash = strrchr(source->path, '/');
    const char *folder = slash == source->path ? "/" : ".";
    if (slash && slash != source->path)
        folder = qn__arena_strndup(&source->arena, source->path, (size_t)(slash - source->path));
    if (!folder)
        return QN_NOMEM(error);
    const char *path = qn__arena_printf(&source->arena, "%s/%s", folder, location);
    if (!path)
        return QN_NOMEM(error);
    char real_folder[PATH_MAX], real_path[PATH_MAX];
    QN_FAIL_IF(!realpath(folder, real_folder), error, QN_IO, "%s: %s", folder, strerror(errno));
    QN_FAIL_IF(!realpath(path, real_path), error, QN_IO, "external data %s: %s", path,
               strerror(errno));
    const size_t length = strlen(real_folder);
    const bool inside = strcmp(real_folder, "/") == 0 ||
                        (strncmp(real_path, real_folder, length) == 0 && real_path[length] == '/');
    QN_FAIL_IF(!inside, error, QN_UNSAFE_PATH,
               "external data \"%s\" leads outside the model's folder", location);
    struct stat info;
    QN_FAIL_IF(stat(real_path, &info) != 0, error, QN_IO, "external data %s: %s", path,
               strerror(errno));
    QN_FAIL_IF(!S_ISREG(info.st_mode), error, QN_UNSAFE_PATH,
               "external data \"%s\" is not a regular file", location);
    for (size_t i = 0; i < source->n_external; i++) {
        if (strcmp(source->external[i].path, real_path) == 0) {
            *out = source->external[i].blob;
            return QN_OK;
        }
    }
    if (!QN_GROW(source->ctx, &source->external, &source->external_capacity, source->n_external))
        return QN_NOMEM(error);
    const char *kept = qn__arena_strdup(&source->arena, real_path);
    if (!kept)
        return QN_NOMEM(error);
    qn_file_view view;
    QN_TRY(qn__file_open_data(source->ctx, real_path, &view, error));
    qn_blob *blob = qn__blob_from_file(source->ctx, &view);
    if (!blob) {
        qn__file_close(source->ctx, &view);
        return QN_NOMEM(error);
    }
    source->base.data_bytes += view.size_bytes;
    source->external[source->n_external++] = (qn_onnx_file){kept, blob};
    *out = blob;
    return QN_OK;
}
