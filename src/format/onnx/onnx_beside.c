/* Weights in a file beside the model: what protobuf, whose messages end at 2 GiB, cannot hold.
 * "OUT.data" beside OUT, as everybody names it; its place says who owns it, so nothing but a file of
 * that folder is ever replaced. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/context.h"
#include "format/onnx/onnx_write.h"

enum {
    SMALLEST = 1024, /* bytes; shapes, scales and zero points stay where readers look for them */
    ALIGNMENT = 64
};

bool qn__onnx_goes_beside(const qn_onnx_writer *w, const qn_blob *blob)
{
    return w->beside != NULL && blob->size_bytes >= SMALLEST;
}

static void put_entry(qn_onnx_out *out, const char *key, const char *value)
{
    qn_onnx_out entry;
    qn__out_init(&entry, out->ctx);
    qn__out_string(&entry, ENTRY_KEY, key);
    qn__out_string(&entry, ENTRY_VALUE, value);
    qn__out_message(out, TENSOR_EXTERNAL_DATA, &entry);
    qn__out_free(&entry);
}

qn_status qn__onnx_encode_beside(qn_onnx_writer *w, const char *name, qn_dtype dtype, size_t rank,
                                 const int64_t *dims, const qn_blob *blob, qn_onnx_out *out,
                                 qn_error *error)
{
    qn_onnx_beside *b = w->beside;
    char offset[24], length[24];
    QN_TRY(qn__onnx_encode_tensor_head(name, dtype, rank, dims, out, error));
    if (!QN_GROW(b->ctx, &b->blobs, &b->capacity, b->n_blobs))
        return QN_NOMEM(error);
    const uint64_t at = (b->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    QN_FAIL_IF(at < b->bytes || blob->size_bytes > INT64_MAX - at, error, QN_LIMIT,
               "weights of more than %" PRIu64 " bytes", b->bytes);
    b->blobs[b->n_blobs++] = blob;
    b->bytes = at + blob->size_bytes;
    (void)snprintf(offset, sizeof(offset), "%" PRIu64, at);
    (void)snprintf(length, sizeof(length), "%zu", blob->size_bytes);
    put_entry(out, "location", b->location);
    put_entry(out, "offset", offset);
    put_entry(out, "length", length);
    qn__out_int(out, TENSOR_DATA_LOCATION, 1);
    return QN_OK;
}

/* A link would lead the weights out of the folder, and the file that the model itself was read from
 * is still needed by it. */
static qn_status check_place(const qn_onnx_writer *w, const char *path, qn_error *error)
{
    struct stat info;
    char real[PATH_MAX];
    if (lstat(path, &info) != 0)
        return QN_OK;
    QN_FAIL_IF(!S_ISREG(info.st_mode), error, QN_UNSAFE_PATH,
               "%s: cannot write: exists and is not a regular file", path);
    for (size_t i = 0; w->source && realpath(path, real) && i < w->source->n_external; i++)
        QN_FAIL_IF(strcmp(w->source->external[i].path, real) == 0, error, QN_INVALID_ARGUMENT,
                   "%s: holds the weights of %s: write the new model under another name", path,
                   w->source->path);
    return QN_OK;
}

static void write_piece(void *arg, const void *data, size_t size)
{
    qn__file_write(arg, data, size);
}

qn_status qn__onnx_write_beside(const qn_onnx_writer *w, const char *path, const qn_onnx_out *model,
                                qn_error *error)
{
    static const uint8_t zeros[ALIGNMENT];
    const qn_onnx_beside *b = w->beside;
    const qn_context *ctx = w->graph->ctx;
    qn_file_writer *file = NULL, *data = NULL;
    char *data_path = NULL;
    qn_status status = QN_OK;
    uint64_t at = 0;
    QN_TRY(qn__file_create(ctx, path, &file, error));
    const char *real = qn__file_writer_path(file);
    const char *slash = strrchr(real, '/');
    const size_t folder = slash ? (size_t)(slash - real) + 1 : 0;
    const size_t room = folder + strlen(b->location) + 1;
    data_path = qn__alloc(ctx, room);
    if (!data_path) {
        status = QN_NOMEM(error);
        goto done;
    }
    (void)snprintf(data_path, room, "%.*s%s", (int)folder, real, b->location);
    QN_TRY_GOTO(check_place(w, data_path, error));
    QN_TRY_GOTO(qn__file_create(ctx, data_path, &data, error));
    for (size_t i = 0; i < b->n_blobs; i++) {
        const size_t gap = (size_t)((ALIGNMENT - at % ALIGNMENT) % ALIGNMENT);
        qn__file_write(data, zeros, gap);
        qn__file_write(data, b->blobs[i]->data, b->blobs[i]->size_bytes);
        at += gap + b->blobs[i]->size_bytes;
    }
    qn__out_each(model, write_piece, file);
    status = qn__file_commit_beside(data, file, error);
    data = file = NULL;
done:
    qn__file_abandon(data);
    qn__file_abandon(file);
    qn__free(ctx, data_path);
    return status;
}

void qn__onnx_beside_free(qn_onnx_beside *beside)
{
    qn__free(beside->ctx, (void *)beside->blobs);
    *beside = (qn_onnx_beside){0};
}
