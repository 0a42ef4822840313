/* Immutable reference-counted bytes: constants of graphs, mapped from a file or on the heap. */
#ifndef QN_CORE_BLOB_H
#define QN_CORE_BLOB_H

#include "core/io.h"

typedef struct qn_blob {
    const uint8_t *data; /* heap blobs: 64-byte aligned. Mapped ones: any alignment! */
    size_t size_bytes;
    /* private */
    const qn_context *ctx;
    _Atomic uint32_t refs;
    struct qn_blob *parent; /* keeps a mapped file alive */
    qn_file_view *view;
    void *heap;
} qn_blob;

/* New heap blob of size_bytes, zeroed; *writable is its memory, to be filled before sharing. */
qn_blob *qn__blob_create(const qn_context *ctx, size_t size_bytes, void **writable);
qn_blob *qn__blob_copy(const qn_context *ctx, const void *data, size_t size_bytes);
/* Somebody else's bytes, which outlive the blob. */
qn_blob *qn__blob_borrow(const qn_context *ctx, const void *data, size_t size_bytes);
/* Takes over an open file view (closed with the last reference); ownership passes on success. */
qn_blob *qn__blob_from_file(const qn_context *ctx, const qn_file_view *view);
/* A part of another blob; holds a reference to it. The range must be inside. */
qn_blob *qn__blob_slice(qn_blob *parent, size_t offset_bytes, size_t size_bytes);
qn_blob *qn__blob_ref(qn_blob *blob);
void qn__blob_unref(qn_blob *blob); /* NULL accepted */

#endif
