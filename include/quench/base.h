/* quench/base.h - status codes, error context, limits, allocator, I/O table and the context that
 * carries them. Every other quench header includes this one.
 *
 * Call order: qn_context_create() first; everything else takes the context (or an object made from
 * it); qn_context_destroy() last, after every object made from it was destroyed. A context is
 * immutable after creation and may be used by several threads at once; the objects made from it say
 * their own thread rules.
 *
 * Structs of options begin with struct_size and are filled by their function *_init, of the library
 * that is called: with another size they are INVALID_ARGUMENT, and nothing else of them is read.
 *
 * @code
 *     qn_error error;
 *     qn_context *ctx = NULL;
 *     if (qn_context_create(NULL, &ctx, &error) != QN_OK) {
 *         fprintf(stderr, "error: %s\n", error.message);
 *         return 1;
 *     }
 *     qn_context_destroy(ctx);
 * @endcode
 */
#ifndef QUENCH_BASE_H
#define QUENCH_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QN_API __attribute__((visibility("default")))
#define QN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define QN_API
#define QN_PRINTF(fmt, args)
#endif

#define QN_VERSION_STRING "0.1.0"

/* Stable numbers; a caller decides by the code, a human reads the message. */
typedef enum qn_status {
    QN_OK = 0,
    QN_INVALID_ARGUMENT = 1, /* a caller's argument is wrong */
    QN_NO_MEMORY = 2,        /* an allocation failed */
    QN_IO = 3,               /* the operating system refused: errno text is in the message */
    QN_CORRUPT = 10,         /* bytes break their format, or contradict each other */
    QN_UNSUPPORTED = 11,     /* valid, but not something quench does */
    QN_LIMIT = 12,           /* a size, depth or count is above qn_limits */
    QN_UNSAFE_PATH = 13,     /* a file names a path outside its own folder */
    QN_NONFINITE = 14,       /* NaN or infinity where a number is needed */
    QN_STATE = 20,           /* calls in the wrong order */
    QN_CANCELLED = 21,       /* the progress callback asked to stop */
    QN_INTERNAL = 99         /* a bug in quench */
} qn_status;

/* Name of a status ("CORRUPT"), never NULL. */
QN_API const char *qn_status_name(qn_status status);

/* Filled by the function that fails; untouched on success. Every function that takes one accepts
 * NULL. The message is one line: FILE: element "name": reason and the values seen. */
typedef struct qn_error {
    qn_status status;
    char message[1024];
} qn_error;

/* Allocation. alloc and realloc may return NULL (then NO_MEMORY is reported); memory is aligned for
 * any C type. ctx is passed through. All three must be thread-safe. */
typedef struct qn_allocator {
    void *(*alloc)(void *ctx, size_t size_bytes);
    void *(*realloc)(void *ctx, void *ptr, size_t size_bytes);
    void (*free)(void *ctx, void *ptr);
    void *ctx;
} qn_allocator;

/* Operating system calls used for files, with the meaning and errno of their POSIX namesakes.
 * Replaceable so that tests can make each call fail. */
typedef struct qn_io {
    int (*open)(void *ctx, const char *path, int flags, int mode);
    int (*close)(void *ctx, int fd);
    int64_t (*read)(void *ctx, int fd, void *buf, size_t size_bytes);
    int64_t (*write)(void *ctx, int fd, const void *buf, size_t size_bytes);
    int (*fsync)(void *ctx, int fd);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*unlink)(void *ctx, const char *path);
    int64_t (*size)(void *ctx, int fd, bool *is_regular); /* fstat: size in bytes, or -1 */
    void *(*map)(void *ctx, int fd, size_t size_bytes); /* read-only private map, NULL on failure */
    int (*unmap)(void *ctx, void *addr, size_t size_bytes);
    void *ctx;
} qn_io;
/* The operating system's own calls: what a context uses unless it is given others. */
QN_API void qn_io_init(qn_io *io);

/* Bounds on what untrusted input may ask for. qn_limits_init() sets the defaults in brackets. */
typedef struct qn_limits {
    size_t struct_size;
    uint64_t file_bytes;   /* any input file [2 GiB - 1] */
    uint64_t tensor_bytes; /* one tensor [2 GiB - 1] */
    uint64_t arena_bytes;  /* activations of one session [16 GiB] */
    uint64_t image_pixels; /* one picture [100 million] */
    uint32_t nodes;        /* nodes of a graph [1,000,000] */
    uint32_t rank;         /* dimensions of a tensor [8], not above 8 */
    uint32_t nesting;      /* depth of nested messages [64] */
    uint64_t data_bytes;   /* one file of weights beside a model, mapped [256 GiB] */
    uint64_t model_bytes;  /* an ONNX file written in one piece: a larger one, which protobuf does
                              not have, keeps its weights in a file beside it [2 GiB - 1] */
} qn_limits;
QN_API void qn_limits_init(qn_limits *limits);

/* How sums of integers become steps of an output. */
typedef enum qn_requantize {
    QN_REQUANTIZE_DEFAULT = 0,         /* as the model says, and float where it says nothing */
    QN_REQUANTIZE_FLOAT = 1,           /* times a float, half to even */
    QN_REQUANTIZE_GEMMLOWP = 2,        /* integer multiplier and shift, both rounded */
    QN_REQUANTIZE_GEMMLOWP_SINGLE = 3, /* the same, rounded once */
    QN_REQUANTIZE_SHIFT = 4            /* a shift, half up: scales are powers of two */
} qn_requantize;

/* Severity of a log line. */
typedef enum qn_log_level { QN_LOG_DEBUG = 0, QN_LOG_INFO = 1, QN_LOG_WARNING = 2 } qn_log_level;

/* Receives warnings and progress text (one line, no newline). May be called from any thread, never
 * concurrently for one context. */
typedef void (*qn_log_fn)(void *ctx, qn_log_level level, const char *line);

/* Progress: done of total in a phase ("calibrate", "evaluate", "compare"); returns false to cancel:
 * the call then ends with CANCELLED. May be called from any thread, never concurrently for one
 * call.
 */
typedef bool (*qn_progress_fn)(void *ctx, const char *phase, uint64_t done, uint64_t total);

typedef struct qn_context_options {
    size_t struct_size;
    const qn_allocator *allocator; /* copied; NULL: malloc */
    const qn_io *io;               /* copied; NULL: the operating system */
    const qn_limits *limits;       /* copied; NULL: defaults */
    qn_log_fn log;                 /* NULL: silent */
    void *log_ctx;
    uint32_t n_threads;      /* worker threads, 0: one per usable core */
    const char *cpu_mask;    /* NULL or "" : everything the CPU has; "scalar", "avx2", "avxvnni",
                                "avx512", "vnni", "amx", "neon", "dotprod", "i8mm": at most that
                                instruction set.
                                QN_CPU_MASK is read by the CLI, not here. */
    qn_progress_fn progress; /* of calls that have no options for it: qn_evaluate, qn_compare;
                                NULL: none */
    void *progress_ctx;
} qn_context_options;
QN_API void qn_context_options_init(qn_context_options *options);

typedef struct qn_context qn_context;

/* Creates a context. options may be NULL. Errors: NO_MEMORY; INVALID_ARGUMENT for an unknown
 * cpu_mask. */
QN_API qn_status qn_context_create(const qn_context_options *options, qn_context **out,
                                   qn_error *error);
/* Destroys it; NULL is accepted. */
QN_API void qn_context_destroy(qn_context *ctx);
/* Number of threads a parallel loop of this context uses, >= 1. */
QN_API uint32_t qn_context_n_threads(const qn_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
