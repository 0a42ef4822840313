/* Files of numbers: .npy, .npz, CSV, or raw elements of a given type and shape. */
#ifndef QN_DATA_TENSOR_FILE_H
#define QN_DATA_TENSOR_FILE_H

#include "core/io.h"
#include "quench/model.h"

typedef enum qn_element {
    QN_ELEMENT_F16,
    QN_ELEMENT_F32,
    QN_ELEMENT_F64,
    QN_ELEMENT_U8,
    QN_ELEMENT_I8,
    QN_ELEMENT_U16,
    QN_ELEMENT_I16,
    QN_ELEMENT_U32,
    QN_ELEMENT_I32,
    QN_ELEMENT_I64,
    QN_ELEMENT_BOOL
} qn_element;

typedef struct qn_tensor_file {
    const qn_context *ctx;
    qn_file_view view;
    uint8_t *own;        /* elements that are not in the file as they are, or NULL */
    const uint8_t *data; /* elements, row-major, any alignment */
    qn_element element;
    size_t element_bytes;
    bool big_endian;
    bool is_raw; /* then dims[0] is the number of samples */
    uint32_t rank;
    int64_t dims[QN_MODEL_MAX_RANK + 1];
} qn_tensor_file;

/* raw_type NULL: .npy, .npz or .csv, by content and, for the last, by name. input names the array of
 * an .npz; an archive of one array may have it under another name where `alone` is set. raw_dims is
 * the shape of one sample. The file stays open until qn__tensor_file_close. */
qn_status qn__tensor_file_open(const qn_context *ctx, const char *path, const char *input,
                               bool alone, const char *raw_type,
                               const int64_t *raw_dims, uint32_t raw_rank, qn_tensor_file *out,
                               qn_error *error);
void qn__tensor_file_close(qn_tensor_file *file);
/* Fills an open file from its text (csv.c); a failure leaves file->own to be freed. */
qn_status qn__csv_open(qn_tensor_file *file, const char *path, qn_error *error);
/* Elements [begin, begin + count) as float32; the range was checked. */
void qn__tensor_file_read(const qn_tensor_file *file, size_t begin, size_t count, float *dst);
/* "1,49,10" (also 1x49x10) to dims; false when malformed. */
bool qn__parse_shape(const char *text, uint32_t *rank, int64_t dims[QN_MODEL_MAX_RANK]);

#endif
