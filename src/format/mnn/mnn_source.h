/* The document of a graph read from .mnn, its side file, and where an operator's weights lie. */
#ifndef QN_FORMAT_MNN_SOURCE_H
#define QN_FORMAT_MNN_SOURCE_H

#include "format/mnn/mnn_format.h"

/* Reads the document. References file. */
qn_status qn__mnn_source_read(const qn_context *ctx, const char *path, qn_blob *file,
                              qn_mnn_source **out, qn_error *error);

/* Bytes of the side file PATH.weight, which is opened when it is first asked for and only where it
 * is a regular file inside the model's folder. offset and size come from the model, and so may the
 * name of another file in op, which is not opened. */
qn_status qn__mnn_side_bytes(qn_mnn_source *source, const qn_fb_object *op, int64_t offset,
                             int64_t size_bytes, qn_blob **out, qn_error *error);

/* The weights of an operator as the file stores them. */
typedef struct qn_mnn_stored {
    const qn_fb_object *quan; /* IDSTQuan, or NULL: floats */
    qn_blob *blob;            /* floats or the packed buffer; NULL: there are none */
    qn_blob *alpha;           /* float32 or float16 scales, or NULL */
    qn_blob *bias;            /* float32, or NULL */
    bool alpha_is_half;
} qn_mnn_stored;
qn_status qn__mnn_stored(qn_mnn_source *source, size_t op, qn_mnn_stored *out, qn_error *error);
void qn__mnn_stored_free(qn_mnn_stored *stored);

#endif
