/* Calibration: observers behind one interface, the loop over samples, and its result: a table of
 * ranges beside the graph. Threads calibrate different samples; the result is the same bytes
 * whatever the thread count. */
#ifndef QN_CALIB_CALIB_H
#define QN_CALIB_CALIB_H

#include "data/data.h"
#include "calib/rows.h"
#include "ir/graph.h"

/* Float weights that a plan keeps packed while samples go through it: larger networks are measured
 * in bounded memory, a layer's weights at a time. */
#define QN_CALIB_PACKED_BYTES ((size_t)256 << 20)

/* Range of one tensor: what quantization makes scale and zero point from. */
typedef struct qn_range {
    float lo, hi;           /* clipped range chosen by the method; lo <= hi, finite */
    float seen_lo, seen_hi; /* smallest and largest value seen */
    uint64_t count;         /* values seen */
    bool valid;             /* false: no statistics */
} qn_range;

typedef struct qn_ranges {
    const qn_context *ctx;
    size_t count; /* = graph->n_tensors; by tensor id */
    qn_range *items;
    double **means;     /* [count] mean of each channel (axis 1) where asked for, else NULL */
    float **peaks;      /* the same: largest magnitude of each channel, zeros unless wanted */
    double **few_means; /* the same: means over options->n_few samples alone */
} qn_ranges;
void qn__ranges_free(qn_ranges *ranges);

/* How the number format shapes the method's search (KL, MSE need the level count). */
typedef struct qn_range_format {
    int32_t qmin, qmax;
    bool symmetric;
    uint64_t positions; /* width * height of the tensor, 1 without them (MNN's small-tensor rule) */
} qn_range_format;

typedef struct qn_calib_item {
    uint32_t tensor_id;
    const struct qn_feature_method *method;
    qn_range_format format;
    const struct qn_train_look *look; /* calib/train.h; NULL: none */
} qn_calib_item;

struct qn_stats;
struct qn_strbuf;
struct qn_qnm_cursor;
typedef struct qn_calib_options {
    const qn_calib_item *items; /* tensors to observe */
    size_t n_items;
    const uint32_t *mean_ids; /* tensors whose channel means are wanted */
    size_t n_means;
    bool want_peaks;     /* and the channels' largest magnitudes */
    size_t n_few;        /* and the means of so many evenly spaced samples (or all, if fewer) */
    const qn_rows *rows; /* filled while calibrating; data NULL: nothing to fill */
    size_t n_rows;
    int64_t batch; /* samples per ordered batch (ema) */
    size_t limit;  /* at most so many samples, evenly spaced; 0: all */
    bool plain;    /* products as float kernels sum them: no plan with `split` (run.h) */
    const struct qn_run_op *(*instead)(const qn_node *node); /* as of qn_plan_options */
    bool (*progress)(void *ctx, const char *phase, uint64_t done, uint64_t total);
    void *progress_ctx;
    struct qn_stats *stats; /* stats.h: NULL, or take all from there instead of running */
    uint32_t stage;         /* of stats */
} qn_calib_options;

/* Runs graph (float, simplified) over the dataset and fills a range per item. */
qn_status qn__calibrate(const qn_graph *graph, const qn_dataset *dataset,
                        const qn_calib_options *options, qn_ranges *out, qn_error *error);
/* Runs graph over those samples of the dataset that options->stats still lacks and adds what was
 * seen to its stage, for qn__calibrate to take. UNSUPPORTED for a method without state_kind. */
qn_status qn__calibrate_collect(const qn_graph *graph, const qn_dataset *dataset,
                                const qn_calib_options *options, qn_error *error);

/* Adds the mean of every channel (axis 1) of a view to fixed-point sums [channels]: integers, so
 * that the order of the samples does not show. */
typedef __int128 qn_fixed;
#define QN_FIXED_ONE 4294967296.0 /* 2^32 */
struct qn_view;
size_t qn__view_channels(const struct qn_view *view);
qn_status qn__add_channel_means(const qn_context *ctx, const struct qn_view *view, qn_fixed *sums,
                                float *peaks, qn_error *error);

/* Feeds an executor from float samples: buffers for one thread, integers converted on the way. */
typedef struct qn_feed {
    const qn_context *ctx;
    size_t count;          /* graph inputs */
    float **values;        /* [count] what qn_dataset_load fills */
    size_t *n_values;      /* [count] elements */
    qn_dtype *dtypes;      /* [count] */
    void **converted;      /* [count] NULL where the input is float32 */
    const void **pointers; /* [count] for qn__exec_run */
} qn_feed;
/* dims: bound dims of each graph input. */
qn_status qn__feed_create(const qn_graph *graph, const int64_t (*dims)[QN_MAX_RANK], qn_feed *out,
                          qn_error *error);
void qn__feed_free(qn_feed *feed);
/* Fills pointers from src (float32 row-major per input); src may be feed->values. */
void qn__feed_convert(qn_feed *feed, const float *const *src);
/* Bound dims of every input of graph for samples of a dataset, for the first where they differ (see
 * lanes.h); caller frees with qn__free. */
qn_status qn__dataset_input_dims(const qn_graph *graph, const qn_dataset *dataset,
                                 int64_t (**out)[QN_MAX_RANK], qn_error *error);

/* --- methods: one file each, one table (calib/methods.def) ------------------------------------*/
typedef struct qn_observer qn_observer;         /* statistics of one tensor */
typedef struct qn_train_result qn_train_result; /* calib/train.h */
typedef struct qn_feature_method {
    const char *name;    /* "kl" */
    const char *summary; /* one line for help and docs, with the source of the method */
    uint32_t passes;     /* 1 or 2 over the data */
    bool ordered;        /* needs per-batch statistics in sample order */
    /* A method of the whole run, which measures all tensors together in a procedure of its own:
     * passes is 0 and everything below is NULL. Else NULL. */
    qn_status (*train)(const qn_graph *graph, const qn_dataset *dataset,
                       const qn_calib_options *options, qn_train_result *out, qn_error *error);
    /* Number of bytes, init in place, feed values (pass 0 or 1), merge b into a, finish. State must
     * depend only on the multiset of values (or, when ordered, on per-sample values reduced in
     * index order). */
    size_t (*state_bytes)(void);
    void (*init)(void *state);
    qn_status (*observe)(const qn_context *ctx, void *state, uint32_t pass, uint64_t sample,
                         const float *values, size_t count, qn_error *error);
    qn_status (*merge)(const qn_context *ctx, void *into, const void *from, qn_error *error);
    qn_status (*between_passes)(const qn_context *ctx, void *state, qn_error *error); /* or NULL */
    qn_status (*finish)(const qn_context *ctx, const void *state, const qn_range_format *format,
                        int64_t batch, qn_range *out, qn_error *error);
    void (*release)(const qn_context *ctx, void *state);
    /* For statistics files (stats.h); NULL: the state cannot be kept in one. Methods of one kind
     * have the same state. What is saved depends on the state's content alone; load fills a state
     * that was just initialized, and checks everything (failed: the cursor's). */
    const char *state_kind;
    void (*save)(const qn_context *ctx, const void *state, struct qn_strbuf *buf);
    qn_status (*load)(const qn_context *ctx, void *state, struct qn_qnm_cursor *from,
                      qn_error *error);
} qn_feature_method;
const qn_feature_method *qn__feature_method_at(size_t index); /* NULL past the end */
const qn_feature_method *qn__feature_method_find(const char *name);
/* Any method whose state is of that kind, to load and merge it. */
const qn_feature_method *qn__feature_method_of_kind(const char *kind, size_t length);

#endif
