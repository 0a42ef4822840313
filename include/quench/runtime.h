/* quench/runtime.h - the stand-alone runtime: runs a compact model file (.qnm, made by
 * `quench convert`). In libquench-rt, which needs the C library and nothing else, and in libquench.
 *
 * Normal order: qn_rt_model_load, qn_rt_session_create, then for every inference qn_rt_set_input,
 * qn_rt_run, qn_rt_get_output; qn_rt_session_destroy, and qn_rt_model_destroy last.
 *
 * A model is immutable: any number of threads may make sessions of it and run them at the same
 * time. A session belongs to one thread at a time. A run allocates nothing, takes no lock and calls
 * nothing of the operating system; its outputs are the same bytes on every run, whatever the number
 * of threads.
 *
 * @code
 *     qn_error error;
 *     qn_rt_model *net = NULL;
 *     qn_rt_session *session = NULL;
 *     float picture[3 * 224 * 224] = {0}, scores[1000];
 *     if (qn_rt_model_load("model.qnm", NULL, &net, &error) != QN_OK ||
 *         qn_rt_session_create(net, NULL, &session, &error) != QN_OK ||
 *         qn_rt_set_input(session, 0, picture, 3 * 224 * 224, &error) != QN_OK ||
 *         qn_rt_run(session, &error) != QN_OK ||
 *         qn_rt_get_output(session, 0, scores, 1000, &error) != QN_OK)
 *         fprintf(stderr, "error: %s\n", error.message);
 *     qn_rt_session_destroy(session);
 *     qn_rt_model_destroy(net);
 * @endcode
 */
#ifndef QUENCH_RUNTIME_H
#define QUENCH_RUNTIME_H

#include "quench/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- model -------------------------------------------------------------------------------------*/
typedef struct qn_rt_options {
    size_t struct_size;
    const qn_allocator *allocator; /* copied; NULL: malloc. Used by loading and creating, never by
                                      running */
    const qn_io *io;               /* copied; NULL: the operating system */
    const qn_limits *limits;       /* copied; NULL: defaults */
    const char *cpu_mask; /* NULL or "": everything the CPU has; see qn_context_options. Bytes of
                             integer layers do not depend on it */
    bool verify_checksum; /* read the whole file and compare its checksum [false]. The structure is
                             always verified */
} qn_rt_options;
QN_API void qn_rt_options_init(qn_rt_options *options);

typedef struct qn_rt_model qn_rt_model;
/* Reads and plans a model: kernels are chosen, weights laid out for them, memory planned. options
 * may be NULL. The file is mapped and must not be changed while the model lives. Errors: IO,
 * CORRUPT, UNSUPPORTED (naming node and operator), LIMIT, NO_MEMORY, INVALID_ARGUMENT. */
QN_API qn_status qn_rt_model_load(const char *path, const qn_rt_options *options, qn_rt_model **out,
                                  qn_error *error);
/* The same from a file's bytes, which are borrowed until qn_rt_model_destroy: flash or a section of
 * the program are fine. At an address that is a multiple of 64 constants are used where they lie,
 * elsewhere those that need it are copied. */
QN_API qn_status qn_rt_model_from_memory(const void *data, size_t size_bytes,
                                         const qn_rt_options *options, qn_rt_model **out,
                                         qn_error *error);
/* After all its sessions. NULL is accepted. */
QN_API void qn_rt_model_destroy(qn_rt_model *model);

/* Bytes that each session needs: activations, scratch and its own bookkeeping. */
QN_API size_t qn_rt_model_arena_bytes(const qn_rt_model *model);
/* Bytes of weights that were laid out for kernels (all sessions share them). */
QN_API size_t qn_rt_model_packed_bytes(const qn_rt_model *model);

/* --- inputs and outputs ------------------------------------------------------------------------*/
#define QN_RT_MAX_RANK 8
/* An input or output. Elements are row-major (NCHW for pictures). Strings and arrays are borrowed
 * until the model is destroyed. */
typedef struct qn_rt_value {
    const char *name;
    const char *dtype; /* how elements are stored: "float32", "uint8", "int8", "int64"... */
    uint32_t rank;
    int64_t dims[QN_RT_MAX_RANK];
    size_t count;      /* elements */
    size_t size_bytes; /* of the buffer */
    /* Integers that stand for real = scale * (q - zero_point); otherwise 0, 0 and n_scales 0. */
    float scale;
    int32_t zero_point;
    /* One per index of dims[axis] where n_scales > 1 (then scale and zero_point are the first). */
    int32_t axis; /* -1: one for the tensor */
    size_t n_scales;
    const float *scales;
    const int32_t *zero_points; /* NULL: all 0 */
} qn_rt_value;
QN_API size_t qn_rt_n_inputs(const qn_rt_model *model);
QN_API size_t qn_rt_n_outputs(const qn_rt_model *model);
/* index out of range: returns false. */
QN_API bool qn_rt_input(const qn_rt_model *model, size_t index, qn_rt_value *out);
QN_API bool qn_rt_output(const qn_rt_model *model, size_t index, qn_rt_value *out);

/* --- sessions ----------------------------------------------------------------------------------*/
/* Calls task(arg, worker, i) exactly once for each i in [0, count), in any order and from any
 * threads, and returns when all calls have returned. worker is below n_workers, and two calls at
 * the same time have different ones. ctx is qn_rt_session_options.parallel_ctx. */
typedef void (*qn_rt_parallel_for)(void *ctx,
                                   void (*task)(void *arg, uint32_t worker, size_t index),
                                   void *arg, size_t count);

typedef struct qn_rt_session_options {
    size_t struct_size;
    void *arena; /* memory for the session, at a multiple of 64 and borrowed until its end; NULL:
                    one allocation */
    size_t arena_bytes;              /* at least qn_rt_model_arena_bytes */
    qn_rt_parallel_for parallel_for; /* NULL: everything in the calling thread */
    void *parallel_ctx;
    uint32_t n_workers; /* threads that parallel_for uses, 1..1024 [1] */
} qn_rt_session_options;
QN_API void qn_rt_session_options_init(qn_rt_session_options *options);

typedef struct qn_rt_session qn_rt_session;
/* options may be NULL. The model is borrowed. With a caller's arena nothing is allocated. Errors:
 * INVALID_ARGUMENT (arena too small or not aligned, n_workers), NO_MEMORY. */
QN_API qn_status qn_rt_session_create(const qn_rt_model *model,
                                      const qn_rt_session_options *options, qn_rt_session **out,
                                      qn_error *error);
QN_API void qn_rt_session_destroy(qn_rt_session *session); /* NULL is accepted */

/* Copies an input's values in. Real values, rounded into the input's own type: */
QN_API qn_status qn_rt_set_input(qn_rt_session *session, size_t index, const float *values,
                                 size_t count, qn_error *error);
/* Elements as they are stored (qn_rt_value.dtype), size_bytes of them: */
QN_API qn_status qn_rt_set_input_raw(qn_rt_session *session, size_t index, const void *elements,
                                     size_t size_bytes, qn_error *error);
/* The input's memory, to be filled without a copy; NULL for a wrong index. */
QN_API void *qn_rt_input_buffer(qn_rt_session *session, size_t index);

/* One inference. A run may use the memory of inputs for something else: every input is written
 * again before every run. STATE: an input was not set since the last run (an input whose buffer was
 * asked for counts as set from then on). */
QN_API qn_status qn_rt_run(qn_rt_session *session, qn_error *error);

/* Outputs of the last run, until an input is written or the next run. STATE: there was none.
 * Real values: */
QN_API qn_status qn_rt_get_output(const qn_rt_session *session, size_t index, float *values,
                                  size_t count, qn_error *error);
/* Elements as they are stored: */
QN_API qn_status qn_rt_get_output_raw(const qn_rt_session *session, size_t index, void *elements,
                                      size_t size_bytes, qn_error *error);
/* The output's memory; NULL for a wrong index or before a run. */
QN_API const void *qn_rt_output_buffer(const qn_rt_session *session, size_t index);

#ifdef __cplusplus
}
#endif
#endif
