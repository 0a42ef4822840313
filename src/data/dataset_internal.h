/* What is inside a qn_dataset. */
#ifndef QN_DATA_DATASET_INTERNAL_H
#define QN_DATA_DATASET_INTERNAL_H

#include "data/data.h"
#include "data/picture.h"
#include "data/stored.h"
#include "data/tensor_file.h"

typedef struct qn_sample {
    const char *name;         /* as listed, or "row N" */
    const char *path;         /* to open; NULL for rows */
    const char *key;          /* normal absolute path; NULL for rows */
    const char *const *files; /* [n_inputs] of a list of arrays, else NULL; path is the first */
    uint64_t row;
    int64_t label;
    size_t shape; /* of dataset->shapes, where samples differ */
} qn_sample;

typedef struct qn_dataset_input {
    const char *name;
    uint32_t rank;
    int64_t dims[QN_MODEL_MAX_RANK]; /* of one sample */
    size_t count;                    /* floats of one sample */
    size_t most;                     /* of the largest sample, where they differ */
    float fill;                      /* of inputs that no picture fills */
    qn_tensor_file file;             /* data only */
} qn_dataset_input;

/* Samples that differ in shape: the dims of one kind. */
typedef struct qn_sample_shape {
    int64_t (*dims)[QN_MODEL_MAX_RANK]; /* [n_inputs] */
    size_t *counts;                     /* [n_inputs] floats */
} qn_sample_shape;

/* Pictures at the network's size, kept for further passes: the first that come, up to a bound that
 * does not grow with the samples. */
#define QN_KEPT_BYTES ((size_t)4 << 20)

typedef struct qn_kept_pictures {
    uint8_t *slots; /* in one piece: pictures between other buffers would pin the heap */
    size_t n_slots;
    _Atomic size_t n_used;
    _Atomic(const uint8_t *) *pixels; /* [n_samples] in slots; NULL: not kept */
} qn_kept_pictures;

struct qn_dataset {
    const qn_context *ctx;
    qn_arena arena; /* strings */
    qn_dataset_options options;
    qn_sample *samples;
    size_t n_samples;
    qn_dataset_input *inputs;
    size_t n_inputs;
    bool is_data;     /* rows of tensor files... */
    bool is_sequence; /* ...or folders of numbers... */
    bool is_list;     /* ...or lists of array files, else pictures */
    qn_picture_plan plan;
    qn_kept_pictures *kept;          /* pictures only */
    const qn_stored_samples *stored; /* NULL, or where samples come from */
    qn_sample_shape *shapes;         /* [n_shapes], NULL: all samples are as `inputs` says */
    size_t n_shapes;
    size_t *order; /* [n_samples] samples of one shape side by side; NULL: as they are */
    size_t n_skipped;
};

/* Opens the data files and fits them to the inputs; *n_rows is what they all have. */
qn_status qn__dataset_open_data(qn_dataset *dataset, const qn_input_spec *specs, size_t *n_rows,
                                qn_error *error);
/* One array, open in input->file, whose shape is fitted to the input; also from several threads. */
qn_status qn__dataset_open_input(const qn_dataset *dataset, qn_dataset_input *input,
                                 const qn_input_spec *spec, const char *path, size_t *n_rows,
                                 qn_error *error);
/* Fills samples from the options: source, exclusion, labels, selection. n_rows: of data. */
qn_status qn__dataset_gather(qn_dataset *dataset, size_t n_rows, qn_error *error);
/* --- shapes.c --- */
/* Whether samples may differ: an input whose sizes the model leaves open. */
bool qn__shapes_open(const qn_input_spec *specs, size_t n_inputs);
/* dims: [n_samples][n_inputs], which fit the inputs' ranks. Samples get their numbers; where all
 * are equal nothing is kept. */
qn_status qn__shapes_set(qn_dataset *dataset, const int64_t (*dims)[QN_MODEL_MAX_RANK],
                         qn_error *error);
const int64_t *qn__shapes_dims(const qn_dataset *dataset, const qn_sample *sample, size_t input);
size_t qn__shapes_count(const qn_dataset *dataset, const qn_sample *sample, size_t input);
/* --- stored.c --- */
qn_status qn__stored_load(const qn_dataset *dataset, const qn_sample *sample, float *const *dst,
                          qn_error *error);
/* --- tensor_list.c --- */
/* Does --list name arrays, not pictures? */
qn_status qn__tensor_list_detect(qn_dataset *dataset, bool *is_list, qn_error *error);
qn_status qn__tensor_list_sample(qn_dataset *dataset, qn_sample *sample, const char *dir,
                                 const char *line, size_t number, qn_error *error);
/* Shapes of the inputs, from the first of the samples gathered. */
qn_status qn__tensor_list_open(qn_dataset *dataset, const qn_input_spec *specs, qn_error *error);
qn_status qn__tensor_list_load(const qn_dataset *dataset, const qn_sample *sample,
                               float *const *dst, qn_error *error);
/* --- sequence.c --- */
/* Shapes of the inputs, from the first of the samples gathered. */
qn_status qn__sequences_open(qn_dataset *dataset, const qn_input_spec *specs, qn_error *error);
qn_status qn__sequence_load(const qn_dataset *dataset, const qn_sample *sample, float *const *dst,
                            qn_error *error);
qn_status qn__sequence_hash(const qn_dataset *dataset, const qn_sample *sample,
                            uint64_t (*add)(uint64_t hash, const uint8_t *bytes, size_t size_bytes),
                            uint64_t *hash, qn_error *error);

#endif
