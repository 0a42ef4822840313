#include "core/blob.h"

#include "core/io.h"

#include <string.h>

static qn_blob *blob_new(const qn_context *ctx)
{
    qn_blob *blob = qn__calloc(ctx, 1, sizeof *blob);
    if (blob != NULL) {
        blob->ctx = ctx;
        blob->refs = 1;
    }
    return blob;
}

qn_blob *qn__blob_create(const qn_context *ctx, size_t size_bytes, void **writable)
{
    qn_blob *blob = blob_new(ctx);
    if (blob == NULL)
        return NULL;
    blob->heap = qn__alloc_aligned(ctx, size_bytes);
    if (blob->heap == NULL) {
        qn__free(ctx, blob);
        return NULL;
    }
    memset(blob->heap, 0, size_bytes);
    blob->data = blob->heap;
    blob->size_bytes = size_bytes;
    *writable = blob->heap;
    return blob;
}

qn_blob *qn__blob_copy(const qn_context *ctx, const void *data, size_t size_bytes)
{
    void *writable;
    qn_blob *blob = qn__blob_create(ctx, size_bytes, &writable);
    if (blob != NULL && size_bytes > 0)
        memcpy(writable, data, size_bytes);
    return blob;
}

qn_blob *qn__blob_borrow(const qn_context *ctx, const void *data, size_t size_bytes)
{
    qn_blob *blob = blob_new(ctx);
    if (blob != NULL) {
        blob->data = data;
        blob->size_bytes = size_bytes;
    }
    return blob;
}

qn_blob *qn__blob_from_file(const qn_context *ctx, const qn_file_view *view)
{
    qn_blob *blob = blob_new(ctx);
    if (blob == NULL)
        return NULL;
    blob->view = qn__alloc(ctx, sizeof *blob->view);
    if (blob->view == NULL) {
        qn__free(ctx, blob);
        return NULL;
    }
    *blob->view = *view;
    blob->data = view->data;
    blob->size_bytes = view->size_bytes;
    return blob;
}

qn_blob *qn__blob_slice(qn_blob *parent, size_t offset_bytes, size_t size_bytes)
{
    if (offset_bytes > parent->size_bytes || size_bytes > parent->size_bytes - offset_bytes)
        return NULL;
    qn_blob *blob = blob_new(parent->ctx);
    if (blob == NULL)
        return NULL;
    blob->parent = qn__blob_ref(parent);
    blob->data = size_bytes > 0 ? parent->data + offset_bytes : parent->data;
    blob->size_bytes = size_bytes;
    return blob;
}

qn_blob *qn__blob_ref(qn_blob *blob)
{
    if (blob != NULL)
        blob->refs++;
    return blob;
}

void qn__blob_unref(qn_blob *blob)
{
    while (blob != NULL && --blob->refs == 0) {
        qn_blob *const parent = blob->parent;
        const qn_context *const ctx = blob->ctx;
        if (blob->view != NULL) {
            qn__file_close(ctx, blob->view);
            qn__free(ctx, blob->view);
        }
        qn__free_aligned(ctx, blob->heap);
        qn__free(ctx, blob);
        blob = parent;
    }
}
