/* quench/model.h - a network: load it from a file, look at it, run it, write it.
 *
 * Normal order: qn_model_load, (qn_quantize from quench/quantize.h), qn_model_save,
 * qn_model_destroy. A model is immutable after loading and may be shared by threads; a session
 * belongs to one thread at a time.
 */
#ifndef QUENCH_MODEL_H
#define QUENCH_MODEL_H

#include "quench/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qn_model qn_model;

/* Reads a model file, checks it whole and simplifies nothing. path is copied. Errors: IO, CORRUPT,
 * UNSUPPORTED (naming node and operator), LIMIT, UNSAFE_PATH, NO_MEMORY. */
QN_API qn_status qn_model_load(const qn_context *ctx, const char *path, qn_model **out,
                               qn_error *error);
/* The same, but nodes of operators that quench has not (Loop, Scan, sequences, strings, foreign
 * domains), nodes whose shapes the data decide, and everything that depends on them, are left
 * aside: the model is what comes before them, the rest is written as it was with it. ONNX only.
 * UNSUPPORTED also where no part is left, and when such a model is saved in another format or needs
 * a newer opset than the file's. */
QN_API qn_status qn_model_load_partial(const qn_context *ctx, const char *path, qn_model **out,
                                       qn_error *error);
QN_API void qn_model_destroy(qn_model *model);

/* How integer sums are requantized when the model runs; .qnm and ONNX files say it (metadata
 * property "quench.requantize"). DEFAULT: float. INVALID_ARGUMENT: no such kind. */
QN_API qn_status qn_model_set_requantize(qn_model *model, qn_requantize kind, qn_error *error);
QN_API qn_requantize qn_model_requantize(const qn_model *model);

/* How a quantized model is written (ignored for float models). */
typedef enum qn_save_format { QN_SAVE_QDQ = 0, QN_SAVE_QOPERATOR = 1 } qn_save_format;
/* Writes atomically: path holds the old complete file or the new one. The format is the
 * one that path's extension names (.onnx, .mnn, .qnm), with another extension the one the model was
 * read from. UNSUPPORTED names an operator that the format does not have. bytes_written may be
 * NULL. */
QN_API qn_status qn_model_save(const qn_model *model, const char *path, qn_save_format format,
                               uint64_t *bytes_written, qn_error *error);

#define QN_MODEL_MAX_RANK 8
/* The compact format (docs/qnm.md): what a session would run, every shape fixed, constants and,
 * where asked for, weights packed for kernels, all used from the mapped file. qn_model_save writes
 * .qnm files with the defaults in brackets. */
typedef struct qn_compact_options {
    size_t struct_size;
    /* One shape per model input [the model's]; INVALID_ARGUMENT names an input left open. */
    const int64_t (*input_dims)[QN_MODEL_MAX_RANK];
    int64_t batch;      /* symbolic first dimensions [1] */
    const char *packed; /* instruction sets to pack weights for, as "native" or "avx2,vnni,neon";
                           NULL: none, weights are packed when a session is created [NULL] */
    bool strip_names;   /* nodes and inner tensors get short names [false] */
} qn_compact_options;
QN_API void qn_compact_options_init(qn_compact_options *options);
/* Writes atomically. options and bytes_written may be NULL. UNSUPPORTED names a tensor whose shape
 * depends on data. */
QN_API qn_status qn_model_save_compact(const qn_model *model, const char *path,
                                       const qn_compact_options *options, uint64_t *bytes_written,
                                       qn_error *error);
/* Reads every byte of a compact file: CORRUPT when one was changed. (Loading checks the structure
 * alone, and leaves constants where they are.) */
QN_API qn_status qn_model_verify_checksum(const qn_context *ctx, const char *path, qn_error *error);

/* A model's input or output. Dims: -1 where symbolic or unknown. Strings are borrowed until the
 * model is destroyed. */
typedef struct qn_value_info {
    const char *name;
    const char *dtype; /* "float32", "uint8"... */
    uint32_t rank;
    int64_t dims[QN_MODEL_MAX_RANK];
    const char *symbols[QN_MODEL_MAX_RANK]; /* name of a symbolic dimension or NULL */
} qn_value_info;
QN_API size_t qn_model_n_inputs(const qn_model *model);
QN_API size_t qn_model_n_outputs(const qn_model *model);
/* index out of range: returns false. */
QN_API bool qn_model_input(const qn_model *model, size_t index, qn_value_info *out);
QN_API bool qn_model_output(const qn_model *model, size_t index, qn_value_info *out);
/* Source file size in bytes, with the files of weights beside it. */
QN_API uint64_t qn_model_file_bytes(const qn_model *model);
QN_API const char *qn_model_path(const qn_model *model);

/* --- running ---------------------------------------------------------------------------------*/
typedef struct qn_session_options {
    size_t struct_size;
    int64_t batch;   /* symbolic first dimensions [1] */
    bool simplify;   /* fold BatchNormalization, fuse activations... before planning [true] */
    bool saturate16; /* simulate the int16 saturation of x86 without VNNI [false] */
    qn_requantize requantize; /* [DEFAULT] */
    bool single_threaded;     /* do not use the context's threads inside a run [false] */
    const int64_t (*input_dims)[QN_MODEL_MAX_RANK]; /* explicit dims per input, or NULL; borrowed
                                                       for the call */
    bool null_kernels; /* to measure: kernels return at once, and a run takes what it does beyond
                          them; outputs mean nothing [false] */
} qn_session_options;
QN_API void qn_session_options_init(qn_session_options *options);

typedef struct qn_session qn_session;
/* A planned model ready to run; the model is borrowed until qn_session_destroy. */
QN_API qn_status qn_session_create(const qn_model *model, const qn_session_options *options,
                                   qn_session **out, qn_error *error);
QN_API void qn_session_destroy(qn_session *session);
/* inputs[i]: row-major float32 (converted when the model's input is an integer type), borrowed for
 * the call. */
QN_API qn_status qn_session_run(qn_session *session, const float *const *inputs, qn_error *error);
/* Output index as row-major float32 real values, valid until the next run; *count elements. NULL
 * for a wrong index. */
QN_API const float *qn_session_output(const qn_session *session, size_t index, size_t *count);
/* Bound dims of an input (output when is_output). */
QN_API bool qn_session_dims(const qn_session *session, bool is_output, size_t index, uint32_t *rank,
                            int64_t dims[QN_MODEL_MAX_RANK]);
/* Bytes of activations and of packed weights. */
QN_API size_t qn_session_arena_bytes(const qn_session *session);
typedef struct qn_memory_use {
    size_t activations; /* one arena for all of them, and for what operators need for themselves */
    size_t live;        /* the most that is alive at one time: no arena can be smaller */
    size_t weights;     /* as kernels read them */
} qn_memory_use;
QN_API void qn_session_memory(const qn_session *session, qn_memory_use *out);

typedef struct qn_profile_entry {
    const char *node; /* borrowed until the session is destroyed */
    const char *kernel;
    double seconds;
    uint64_t macs;
} qn_profile_entry;
QN_API void qn_session_set_profiling(qn_session *session, bool enabled);
/* Entry i of the last run's profile; false past the end. */
QN_API bool qn_session_profile(const qn_session *session, size_t index, qn_profile_entry *out);
/* Multiply-adds of bytes a second that one thread can reach at most, measured in a few milliseconds
 * with the best instruction that the context's CPU mask allows, which *instruction names. */
QN_API double qn_context_integer_limit(const qn_context *ctx, const char **instruction);

#ifdef __cplusplus
}
#endif
#endif
