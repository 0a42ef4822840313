/* quench/dataset.h - samples for calibration and evaluation: pictures, .npy, raw tensors or lists.
 *
 * A dataset is immutable after creation; samples may be loaded by several threads at once.
 */
#ifndef QUENCH_DATASET_H
#define QUENCH_DATASET_H

#include "quench/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qn_channels {
    QN_CHANNELS_RGB = 0,
    QN_CHANNELS_BGR = 1,
    QN_CHANNELS_GRAY = 2,
    QN_CHANNELS_RGBA = 3, /* inputs of 4 channels */
    QN_CHANNELS_BGRA = 4
} qn_channels;
typedef enum qn_filter {
    QN_FILTER_BILINEAR = 0,       /* antialiased triangle, as Pillow's BILINEAR */
    QN_FILTER_BILINEAR_PLAIN = 1, /* two taps, half-pixel centres, no antialiasing (OpenCV's) */
    QN_FILTER_BICUBIC = 2,        /* as Pillow's BICUBIC (a = -0.5, antialiased) */
    QN_FILTER_NEAREST = 3,        /* as Pillow's NEAREST */
    QN_FILTER_MNN = 4,            /* two taps, corners on corners, rounded: as MNN's ImageProcess */
    QN_FILTER_MNN_TRUNCATE = 5    /* the same, truncated: as MNN on x86 */
} qn_filter;

/* Picture file -> tensor: decode, resize, crop, channels, dst = (src - mean) * normal.
 *
 * resize_shorter N: the shorter side becomes N, the other round(long * N / short). Crops are
 * centred, offset floor((size - crop) / 2). Without any geometry pictures are resized to the
 * model's exact size, aspect not kept. Values are computed in float32. */
typedef struct qn_preprocess {
    size_t struct_size;
    qn_channels channels;
    uint32_t n_mean, n_normal; /* 0: default (0 and 1); 1: for all; else the channel count */
    float mean[4], normal[4];  /* in the order of channels */
    uint32_t resize_shorter;   /* --resize N; 0: none */
    uint32_t resize_width, resize_height;       /* --resize WxH; 0: none */
    uint32_t crop_width, crop_height;           /* centre crop; 0: none */
    uint32_t letterbox_width, letterbox_height; /* keep aspect, pad with 114; 0: none */
    qn_filter filter;
    double centre_width, centre_height; /* MNN filters only: the fraction of the picture's width and
                                           height that is kept, centred, before resizing; 0: all */
} qn_preprocess;
QN_API void qn_preprocess_init(qn_preprocess *preprocess);

typedef struct qn_dataset_options {
    size_t struct_size;
    const char *images_dir;   /* one of these sources... */
    const char *data_file;    /* .npy, .npz, .csv (a row a sample), or raw with raw_type; several
                                 inputs: "name=FILE,name=FILE", or with line breaks for commas, or
                                 one .npz */
    const char *list_file;    /* pictures, or .npy, .npz, .csv or raw files, for several inputs
                                 "FILE,FILE" or "name=FILE,name=FILE": one path per line, relative to
                                 the list's folder (to images_dir when    given), in the list's order;
                                 with data_file: lines "row N" */
    const char *const *files; /* ...or explicit picture files, in the order given */
    size_t n_files;
    const char *sequences_dir; /* folders, each with input.json and a NAME.txt per input, as MNN's
                                  quantizer reads them */
    const char *raw_type;      /* "f32" "f64" "f16" "u8" "i8" "i16" "i32" "i64", with raw_shape */
    const char *raw_shape;     /* dims of one sample, "1,49,10"; NULL: the input's */
    const char *exclude_file;  /* list of paths (or "row N" lines for data) left out; may be NULL */
    const char *labels_file;   /* csv, may be NULL; with labels and no other source, the csv's files
                                  are the samples, relative to the csv */
    uint64_t count;            /* evenly spaced (i * M / count of the M samples), 0: all */
    uint64_t first;            /* the first N, 0: all */
    bool use_seed;             /* with count: a reproducible draw instead (src/data/select.c) */
    uint64_t seed;
    bool skip_bad; /* pictures that cannot be decoded are left out, named in the log and counted;
                      the chosen ones are all tried during creation */
    qn_preprocess preprocess;
    const int64_t (*input_dims)[QN_MODEL_MAX_RANK]; /* dims per model input where the model leaves
                                                       them open, -1: open; NULL; borrowed for the
                                                       call */
} qn_dataset_options;
QN_API void qn_dataset_options_init(qn_dataset_options *options);

typedef struct qn_dataset qn_dataset;
/* Samples for model's inputs (pictures: one 4-D input, NCHW with 1 or 3 channels; sizes from the
 * model or the preprocessing). Strings are copied. The model is only read during the call. Errors:
 * IO, CORRUPT, UNSUPPORTED, INVALID_ARGUMENT (naming the option). */
QN_API qn_status qn_dataset_create(const qn_context *ctx, const qn_model *model,
                                   const qn_dataset_options *options, qn_dataset **out,
                                   qn_error *error);
QN_API void qn_dataset_destroy(qn_dataset *dataset);
QN_API size_t qn_dataset_count(const qn_dataset *dataset);
/* File name (or "row N"); label or -1. */
QN_API const char *qn_dataset_name(const qn_dataset *dataset, size_t index);
QN_API int64_t qn_dataset_label(const qn_dataset *dataset, size_t index);
/* Dims of input `input` of one sample, leading batch dimension (1) included: of the first sample
 * where samples differ in shape (sequences, lists of arrays). */
QN_API bool qn_dataset_dims(const qn_dataset *dataset, size_t input, uint32_t *rank,
                            int64_t dims[QN_MODEL_MAX_RANK]);
/* Dims of input `input` of the sample `index`. */
QN_API bool qn_dataset_sample_dims(const qn_dataset *dataset, size_t index, size_t input,
                                   uint32_t *rank, int64_t dims[QN_MODEL_MAX_RANK]);
/* Floats of one sample of input `input`: of the largest. */
QN_API size_t qn_dataset_sample_count(const qn_dataset *dataset, size_t input);
/* Loads sample index into dst[input] (row-major float32). Thread-safe. CORRUPT / IO name the file.
 */
QN_API qn_status qn_dataset_load(const qn_dataset *dataset, size_t index, float *const *dst,
                                 qn_error *error);
/* Writes the samples, one per line, atomically (--save-list): paths relative to the written file's
 * folder, or "row N", so that the file can be given as list_file or exclude_file. */
QN_API qn_status qn_dataset_save_list(const qn_dataset *dataset, const char *path, qn_error *error);
/* Samples left out because of skip_bad. */
QN_API size_t qn_dataset_n_skipped(const qn_dataset *dataset);

#ifdef __cplusplus
}
#endif
#endif
