/* A dataset whose samples somebody else has: some of their values, everything else about them. */
#ifndef QN_DATA_STORED_H
#define QN_DATA_STORED_H

#include "data/data.h"

typedef struct qn_stored_samples {
    const void *arg;
    const char *where; /* file they are from, for messages */
    size_t count;
    const char *(*name)(const void *arg, size_t index);
    uint64_t (*hash)(const void *arg, size_t index);
    const float *(*values)(const void *arg, size_t index, size_t input); /* NULL: not kept */
    /* [n_inputs] of a sample of another shape than `inputs` below; NULL: the same, or not kept */
    const int64_t (*(*dims)(const void *arg, size_t index))[QN_MODEL_MAX_RANK];
} qn_stored_samples;

/* Dims of inputs are of the first sample. What arg points at outlives the dataset. */
qn_status qn__dataset_stored(const qn_context *ctx, const qn_input_spec *inputs, size_t n_inputs,
                             const qn_preprocess *preprocess, const qn_stored_samples *samples,
                             qn_dataset **out, qn_error *error);

#endif
